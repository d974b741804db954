"""Bases on disk: a safetensors file for each, and an index with their experts (2.15)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import save_file
from torch import Tensor

from diagnostics.bases.bases import Bases
from diagnostics.bases.build import memory_of, similarities
from diagnostics.errors import InputError
from diagnostics.inputs.checkpoints import Source, load_parameters, open_checkpoint, read_json
from diagnostics.inputs.files import replaced_together
from diagnostics.inputs.task_vectors import TaskVectors
from diagnostics.inputs.texts import user_path
from diagnostics.results import plain

__all__ = ["INDEX", "load_bases", "save_bases"]

INDEX = "bases.json"
_FORMAT = 1
_AGAIN = "Save the bases again with Bases.save(folder) or `diagnostics bases … --out`."


class _Index(BaseModel):
    """What the index of a folder says."""

    model_config = ConfigDict(strict=True)

    format: Literal[1]
    names: list[str]
    # A basis lies in a file of its name, in this folder and nowhere else.
    clusters: Annotated[dict[Annotated[str, Field(pattern=r"^[\w.-]{1,100}$")], list[str]], Field(min_length=1)]
    merge: str
    density: float | None = None
    threshold: float
    similarity: list[list[float | None]]
    notes: list[str]


def save_bases(bases: Bases, folder: str | Path) -> Path:
    """Write bases to a folder; see :meth:`Bases.save`.

    What was in the folder is replaced when all is written; the index comes last: a folder with an index is complete.

    Args:
        bases: The bases.
        folder: Where to; made if it is not there.

    Returns:
        The folder.

    Raises:
        InputError: If it cannot be written in.
    """
    home = user_path(folder)
    about = {
        "format": _FORMAT,
        "names": bases.names,
        "clusters": bases.members,
        "merge": bases.merge,
        "density": bases.density,
        "threshold": bases.threshold,
        "similarity": bases.similarity,
        "notes": bases.notes,
    }
    with replaced_together(home, last=INDEX) as drafts:
        for name, vector in bases.vectors.items():
            members = json.dumps(bases.members[name])
            dense = {key: value.detach().contiguous() for key, value in vector.items()}
            save_file(dense, drafts / f"{name}.safetensors", {"format": "pt", "experts": members, "merge": bases.merge})
        (drafts / INDEX).write_text(json.dumps(plain(about), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return home


def load_bases(folder: str | Path, base: Source) -> Bases:
    """Read bases that :meth:`Bases.save` or ``diagnostics bases --out`` wrote.

    Args:
        folder: The folder.
        base: The base that they belong to: a model, parameters or a path.

    Returns:
        The bases, with their clusters and cosines; geometry, eigenvalues and stability are those of the experts and
        are not stored.

    Raises:
        InputError: If the folder is not one of bases, or a file is missing or does not fit the index.
        MismatchError: If the base lacks a tensor of a basis, or has it in another shape.

    Example:
        >>> import tempfile
        >>> from diagnostics.bases.build import task_vector_bases
        >>> experts = {name: {"w": value} for name, value in zip("ab", torch.eye(2))}
        >>> with tempfile.TemporaryDirectory() as home:
        ...     _ = task_vector_bases({"w": torch.zeros(2)}, experts, k=1).save(home)
        ...     load_bases(home, {"w": torch.ones(2)}).add()["w"].tolist()
        [1.5, 1.5]
    """
    home = user_path(folder)
    if not (home / INDEX).is_file():
        raise InputError(f"{home}: expected a folder of bases with {INDEX}; found none. {_AGAIN}")
    about = _checked(home / INDEX)
    vectors = {name: load_parameters(home / f"{name}.safetensors") for name in about.clusters}
    parameters = _base_parameters(base, vectors)
    compared = similarities(vectors, vectors)
    clusters = tuple(map(tuple, about.clusters.values()))
    return Bases(
        names=tuple(about.names),
        clusters=clusters,
        vectors=vectors,
        similarity=torch.tensor(
            [[float("nan") if value is None else value for value in row] for row in about.similarity],
            dtype=torch.float64,
        ),
        gram=compared.gram,
        merge=about.merge,
        density=about.density,
        threshold=about.threshold,
        memory=memory_of(clusters, vectors),
        clustering=None,
        geometry=None,
        stability=None,
        base=parameters,
        notes=tuple(about.notes),
    )


def _base_parameters(base: Source, vectors: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """θ0 over the tensors of the bases; what else the base has was private when they were made."""
    opened = open_checkpoint(base, label="base")
    first = next(iter(vectors.values()))
    absent = [name for name in first if name not in opened.names]
    if absent:
        raise InputError(
            f"base: expected the base of these bases; found that it lacks {absent[:5]}. Pass the model that the "
            "experts were fine-tuned from."
        )
    shown = {name: opened.tensor(name) for name in first}
    # Alignment refuses what differs in shape, and names every tensor of it.
    return TaskVectors(
        open_checkpoint(shown, label="base"),
        {name: open_checkpoint(vector, label=name) for name, vector in vectors.items()},
    ).base_parameters()


def _checked(path: Path) -> _Index:
    """The index, refused where it is of another kind."""
    try:
        about = _Index.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        found = f"{'.'.join(map(str, first['loc']))}: {first['msg']}, {repr(first['input'])[:80]}"
        raise InputError(f"{path}: expected an index of bases, format {_FORMAT}; found {found}. {_AGAIN}") from error
    members = sorted(name for cluster in about.clusters.values() for name in cluster)
    if members != sorted(about.names):
        raise InputError(f"{path}: expected every expert in one cluster; found {members}. {_AGAIN}")
    rows, columns = len(about.names), {len(row) for row in about.similarity}
    if len(about.similarity) != rows or columns != {len(about.clusters)}:
        expected = f"a cosine of each of {rows} experts with each of {len(about.clusters)} bases"
        raise InputError(f"{path}: similarity: expected {expected}; found another table. {_AGAIN}")
    return about
