"""Making bases: geometry, groups, one merged vector for each, and how well it stands for its experts (2.12)–(2.15)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diagnostics.bases.bases import Bases, Memory, basis_names, rows_of
from diagnostics.bases.clustering import Clustering, cluster_similarities
from diagnostics.bases.merging import merge_vectors, require_merge
from diagnostics.bases.stability import Stability, group_stability
from diagnostics.errors import InputError
from diagnostics.inputs.checkpoints import Source
from diagnostics.inputs.task_vectors import TaskVectors, open_task_vectors
from diagnostics.inputs.tasks import Task
from diagnostics.measures.fisher import diagonal_fisher
from diagnostics.measures.geometry import Geometry, geometry
from diagnostics.results import Status

__all__ = ["cluster_experts", "memory_of", "similarities", "task_vector_bases"]

# Groups that come out of fewer resamples than this share are shaky.
_SHAKY = 0.8


def task_vector_bases(
    base: Source,
    experts: Mapping[str, Source] | Sequence[str | Path],
    *,
    k: int | None = None,
    merge: str = "mean",
    density: float | None = None,
    tasks: Mapping[str, Task] | None = None,
    fisher_examples: int | None = None,
    opposite: float = -0.1,
    resamples: int = 50,
    private: Sequence[str] = (),
    seed: int = 0,
) -> Bases:
    """Cluster task vectors by their cosines and merge each cluster into one basis vector (2.12)–(2.15).

    Models are streamed: first for the Gram matrix, then cluster by cluster, then for the cosine of every expert with
    every basis. Held in memory are the base, the m bases and, of a tensor, a few sums (for TIES one of each expert).

    Args:
        base: The base: a model, its parameters, or a path to them.
        experts: Models, parameters or paths by name; a list of paths is named by their last parts.
        k: Number of clusters, before opposite directions are split. By default what the eigengap suggests where the
            similarities do fall into groups, and as many as there are experts where they do not.
        merge: How a cluster becomes a basis; see :func:`diagnostics.bases.merging.merge_vectors`.
        density: Share of the entries that this keeps.
        tasks: The experts' tasks as functions of the shared parameters, for ``merge="fisher"``.
        fisher_examples: Examples of each task that the Fisher information is taken over; all by default.
        opposite: A cluster with a cosine below this is split into two directions (δ1 of 2.13).
        resamples: Resamples of the tensors that the clusters are held against.
        private: Names or glob patterns of parameters left out.
        seed: Seed of clustering and resamples.

    Returns:
        The bases.

    Raises:
        InputError: If an expert is identical to the base, or settings do not fit.
        MismatchError: If parameters do not fit together; the message lists every one.

    Example:
        >>> experts = {"a": [4.0, 1, 0], "b": [4.0, 0, 1], "c": [0.0, 4, 0.1], "d": [0.0, 4, -0.1]}
        >>> models = {name: {"w": torch.tensor(value)} for name, value in experts.items()}
        >>> found = task_vector_bases({"w": torch.zeros(3)}, models, k=2)
        >>> found.clusters, found.vectors["basis-1"]["w"].tolist(), found.memory.saved
        ((('a', 'b'), ('c', 'd')), [4.0, 0.5, 0.5], 0.5)
    """
    require_merge(merge, density)
    vectors = open_task_vectors(base, experts, private=private, reserved="base")
    if merge == "fisher" and set(tasks or ()) != set(vectors):
        raise InputError(
            f"tasks: expected a task for each of {list(vectors)} with merge='fisher'; found {list(tasks or ())}."
        )
    shape = geometry(base, experts, private=private)
    clustering, noise = cluster_experts(shape, k, opposite, seed)
    clusters = tuple(tuple(shape.names[index] for index in members) for members in clustering.groups)
    merged, fishers = {}, {}
    for basis, members in zip(basis_names(len(clusters)), clusters, strict=True):
        chosen = {name: vectors[name] for name in members}
        found = _fishers(vectors, members, tasks, fisher_examples) if merge == "fisher" and tasks else None
        merged[basis] = merge_vectors(chosen, merge, density=density, fisher=found)
        if found:
            fishers[basis] = merge_vectors(found, "task_arithmetic")
    compared = similarities(vectors, merged)
    grouped = k is not None or len(clusters) < len(shape.names)
    stability = group_stability(shape, clustering.groups, resamples=resamples, seed=seed, ungrouped=not grouped)
    return Bases(
        names=shape.names,
        clusters=clusters,
        vectors=merged,
        similarity=compared.cosine,
        gram=compared.gram,
        merge=merge,
        density=density,
        threshold=_threshold(shape, clustering, noise),
        memory=memory_of(clusters, merged),
        clustering=clustering,
        geometry=shape,
        stability=stability,
        base=vectors.base_parameters(),
        fisher=fishers or None,
        notes=(*clustering.notes, *_notes(clusters, clustering, stability, shape.names)),
        sources=vectors,
    )


def memory_of(clusters: Sequence[Sequence[str]], vectors: Mapping[str, Mapping[str, Tensor]]) -> Memory:
    """Return what bases save.

    Args:
        clusters: Experts of each basis.
        vectors: The bases.

    Returns:
        The count, in vectors and bytes.
    """
    size = sum(value.numel() * value.element_size() for value in next(iter(vectors.values())).values())
    return Memory(sum(map(len, clusters)), len(clusters), size, max(map(len, clusters)))


@dataclass(frozen=True)
class Similarities:
    """Inner products of vectors with bases.

    Attributes:
        cosine: cos(τ_i, b_c), [T, m].
        gram: ⟨b_c, b_c'⟩, [m, m].
    """

    cosine: Tensor
    gram: Tensor


def similarities(
    vectors: Mapping[str, Mapping[str, Tensor]], bases: Mapping[str, Mapping[str, Tensor]]
) -> Similarities:
    """Return cosines of vectors with bases, one tensor of each at a time.

    Args:
        vectors: The vectors.
        bases: The bases.

    Returns:
        The cosines and the Gram matrix of the bases, float64.

    Example:
        >>> found = similarities({"a": {"w": torch.tensor([3.0, 4.0])}}, {"b": {"w": torch.tensor([2.0, 0.0])}})
        >>> found.cosine.tolist(), found.gram.tolist()
        ([[0.6]], [[4.0]])
    """
    inner = torch.zeros(len(vectors), len(bases), dtype=torch.float64)
    gram = torch.zeros(len(bases), len(bases), dtype=torch.float64)
    squares = torch.zeros(len(vectors), dtype=torch.float64)
    for key in next(iter(bases.values())):
        rows = rows_of(bases, key)
        gram += rows @ rows.T
        for index, vector in enumerate(vectors.values()):
            flat = vector[key].reshape(-1).double()
            inner[index] += rows @ flat
            squares[index] += flat @ flat
    scale = torch.outer(squares, gram.diagonal()).sqrt()
    return Similarities(torch.where(scale > 0, (inner / scale).clamp(-1, 1), math.nan), gram)


def cluster_experts(shape: Geometry, k: int | None, opposite: float, seed: int) -> tuple[Clustering, float]:
    """Return the groups of experts by their cosines, and the noise of a cosine.

    Args:
        shape: Norms and angles of the experts.
        k: Number of groups, if it is known.
        opposite: A group with a cosine below this is split.
        seed: Seed of the null.

    Returns:
        The groups, and the largest standard deviation of the cosine of two unrelated vectors with these norms.

    Raises:
        InputError: If an expert is identical to the base.
    """
    zero = [name for name, value in zip(shape.names, shape.norms.tolist(), strict=True) if value == 0]
    if zero:
        raise InputError(
            f"experts: expected models that differ from the base; found {zero}, which are identical to it and have no "
            "direction to be grouped by. Leave them out."
        )
    # The mean |cosine| of unrelated vectors is sqrt(2/π) of its standard deviation.
    noise = shape.null_cosine_layerwise * math.sqrt(math.pi / 2)
    return cluster_similarities(shape.cosine, k=k, noise=noise, opposite=opposite, seed=seed), float(noise.max())


def _fishers(
    vectors: TaskVectors, members: Sequence[str], tasks: Mapping[str, Task], limit: int | None
) -> dict[str, dict[str, Tensor]]:
    """The Fisher information of the experts of a cluster, each at its own parameters."""
    base, found = vectors.base_parameters(), {}
    for name in members:
        own = {key: value + vectors[name][key] for key, value in base.items()}
        found[name] = diagonal_fisher(tasks[name], own, limit=limit)
    return found


def _threshold(shape: Geometry, clustering: Clustering, noise: float) -> float:
    """Cosine with a basis that counts as similar: halfway between those of its own experts, left out, and of others."""
    own: list[float] = []
    others: list[float] = []
    for members in clustering.groups:
        for index in range(len(shape.gram)):
            rest = [member for member in members if member != index]
            if rest:
                square = float(shape.gram[rest][:, rest].sum() * shape.gram[index, index])
                value = float(shape.gram[index, rest].sum()) / math.sqrt(square) if square > 0 else 0.0
                (own if index in members else others).append(value)
    if own:
        middle = (sum(own) / len(own) + (sum(others) / len(others) if others else 0.0)) / 2
    else:
        # Without a group to go by: more alike than any two that were kept apart.
        middle = float(shape.cosine.fill_diagonal_(0.0).abs().max())
    # Beyond chance too, as far as few dimensions allow to tell.
    return max(middle, min(3 * noise, 0.5))


def _notes(
    clusters: Sequence[Sequence[str]], clustering: Clustering, stability: Stability, names: Sequence[str]
) -> list[str]:
    """What limits the use of the bases."""
    notes = [
        f"{' and '.join(names[index] for index in members)}: one group by the size of its cosines, split because some "
        "of them point in opposite directions"
        for members in clustering.split
    ]
    if stability.status is Status.CONVERGED and stability.same < _SHAKY:
        loose = [name for name, share in zip(names, _held(clustering, stability), strict=True) if share < _SHAKY]
        notes.append(
            f"the groups are shaky: {stability.same:.0%} of the resamples of the tensors give the same ones"
            + (f"; least settled: {', '.join(loose)}" if loose else "")
        )
    return notes


def _held(clustering: Clustering, stability: Stability) -> list[float]:
    """For each expert, how often it is with the rest of its group and with nobody else, at the least."""
    same = torch.zeros_like(stability.together, dtype=torch.bool)
    for members in clustering.groups:
        same[torch.tensor(members)[:, None], torch.tensor(members)] = True
    return torch.where(same, stability.together, 1 - stability.together).min(1).values.tolist()
