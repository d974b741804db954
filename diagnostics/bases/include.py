"""The continual case: one more expert for bases that are there already (2.14)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from diagnostics.bases.arithmetic import cosines, opened
from diagnostics.bases.bases import Bases, basis_names
from diagnostics.bases.build import memory_of, similarities
from diagnostics.bases.merging import merge_vectors
from diagnostics.errors import InputError
from diagnostics.inputs.checkpoints import Source

__all__ = ["included"]

# Of these merges a basis and its size are enough to take in another vector.
_RUNNING = ("mean", "task_arithmetic")


def included(bases: Bases, name: str, expert: Source) -> Bases:
    """Return bases with one more expert; see :meth:`Bases.include`.

    The expert joins the basis with the largest cosine, if that reaches ``threshold``: a mean of n vectors becomes
    (n b + τ)/(n + 1) and a sum b + τ, without the n vectors. Other merges are made anew from all of them.

    Args:
        bases: The bases.
        name: Name of the new expert.
        expert: A model, its parameters, or a path.

    Returns:
        New bases.

    Raises:
        InputError: If the name is taken, or the experts of the basis are not at hand.

    Example:
        >>> from diagnostics.bases.build import task_vector_bases
        >>> experts = {"a": [1.0, 0.1, 0], "b": [1.0, -0.1, 0]}
        >>> models = {name: {"w": torch.tensor(value)} for name, value in experts.items()}
        >>> bases = task_vector_bases({"w": torch.zeros(3)}, models, k=1)
        >>> joined = bases.include("c", {"w": torch.tensor([4.0, 0.0, 0.0])})
        >>> joined.clusters, joined.vectors["basis-1"]["w"].tolist()
        ((('a', 'b', 'c'),), [2.0, 0.0, 0.0])
        >>> joined.include("d", {"w": torch.tensor([0.0, 0.0, 1.0])}).clusters
        (('a', 'b', 'c'), ('d',))
    """
    if name in bases.names:
        raise InputError(f"name: expected a new one; found {name!r}, which is among {list(bases.names)}.")
    vector = opened(bases, expert)
    found = cosines(bases, vector)
    nearest = max(found, key=found.__getitem__)
    if found[nearest] >= bases.threshold:
        clusters = tuple((*members, name) if basis == nearest else members for basis, members in bases.members.items())
        vectors = {**bases.vectors, nearest: _grown(bases, nearest, name, vector, expert)}
    else:
        nearest = basis_names(bases.k + 1)[-1]
        clusters = (*bases.clusters, (name,))
        vectors = {**bases.vectors, nearest: merge_vectors({name: vector}, bases.merge, density=bases.density)}
    note = f"{name} joined {nearest} later; clusters, stability and geometry are those of the experts before"
    return replace(
        bases,
        names=(*bases.names, name),
        clusters=clusters,
        vectors=vectors,
        similarity=_similarity(bases, vectors, nearest, vector),
        gram=similarities({name: vector}, vectors).gram,
        memory=memory_of(clusters, vectors),
        notes=(*bases.notes, note),
        sources=None if bases.sources is None else bases.sources.extended(name, expert),
    )


def _grown(bases: Bases, basis: str, name: str, vector: Mapping[str, Tensor], expert: Source) -> dict[str, Tensor]:
    """A basis with one more vector."""
    old, members = bases.vectors[basis], bases.members[basis]
    if bases.merge in _RUNNING:
        count = len(members)
        weights = {"old": count / (count + 1), "new": 1 / (count + 1)} if bases.merge == "mean" else None
        return merge_vectors({"old": old, "new": vector}, "task_arithmetic", weights=weights)
    if bases.sources is None or bases.merge == "fisher":
        raise InputError(
            f"include: expected bases of {' or '.join(_RUNNING)}, or {bases.merge} with all of {list(members)} at "
            "hand; found neither. Make the bases anew with task_vector_bases."
        )
    sources = bases.sources.extended(name, expert)
    return merge_vectors({each: sources[each] for each in (*members, name)}, bases.merge, density=bases.density)


def _similarity(
    bases: Bases, vectors: Mapping[str, Mapping[str, Tensor]], changed: str, vector: Mapping[str, Tensor]
) -> Tensor:
    """Cosines with the bases as they are now; NaN for experts that are not read again."""
    names = list(vectors)
    table = torch.full((len(bases.names) + 1, len(names)), math.nan, dtype=torch.float64)
    table[:-1, : bases.k] = bases.similarity
    table[:-1, names.index(changed)] = math.nan
    table[-1] = similarities({"new": vector}, vectors).cosine[0]
    return table
