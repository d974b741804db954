"""Bases on disk: a safetensors file for each, and an index with their experts (2.15)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diagnostics.bases.bases import Bases
from diagnostics.bases.build import memory_of, similarities
from diagnostics.errors import InputError
from diagnostics.inputs.checkpoints import Source, load_parameters, open_checkpoint, read_json
from diagnostics.inputs.files import write_atomic, write_tensors
from diagnostics.inputs.task_vectors import TaskVectors
from diagnostics.results import plain

__all__ = ["INDEX", "load_bases", "save_bases"]

INDEX = "bases.json"
_FORMAT = 1
_AGAIN = "Save the bases again with Bases.save(folder) or `diagnostics bases … --out`."


def save_bases(bases: Bases, folder: str | Path) -> Path:
    """Write bases to a folder; see :meth:`Bases.save`.

    The index is written last: a folder with an index is complete.

    Args:
        bases: The bases.
        folder: Where to; made if it is not there.

    Returns:
        The folder.

    Raises:
        InputError: If it cannot be written in.
    """
    home = Path(folder).expanduser()
    try:
        home.mkdir(parents=True, exist_ok=True)
        (home / INDEX).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {home}: {error.strerror}; free or choose another folder") from error
    for name, vector in bases.vectors.items():
        members = json.dumps(bases.members[name])
        write_tensors(home / f"{name}.safetensors", vector, {"format": "pt", "experts": members, "merge": bases.merge})
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
    write_atomic(home / INDEX, json.dumps(plain(about), indent=2, allow_nan=False) + "\n")
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
    home = Path(folder).expanduser()
    if not (home / INDEX).is_file():
        raise InputError(f"{home}: expected a folder of bases with {INDEX}; found none. {_AGAIN}")
    about = _checked(home / INDEX, read_json(home / INDEX))
    vectors = {name: load_parameters(home / f"{name}.safetensors") for name in about["clusters"]}
    parameters = _base_parameters(base, vectors)
    compared = similarities(vectors, vectors)
    clusters = tuple(map(tuple, about["clusters"].values()))
    return Bases(
        names=tuple(about["names"]),
        clusters=clusters,
        vectors=vectors,
        similarity=torch.tensor(
            [[float("nan") if value is None else value for value in row] for row in about["similarity"]],
            dtype=torch.float64,
        ),
        gram=compared.gram,
        merge=about["merge"],
        density=about["density"],
        threshold=about["threshold"],
        memory=memory_of(clusters, vectors),
        clustering=None,
        geometry=None,
        stability=None,
        base=parameters,
        notes=tuple(about["notes"]),
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


def _checked(path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """The index, refused where it is of another kind."""
    wanted = {"names": list, "clusters": dict, "merge": str, "threshold": float, "similarity": list, "notes": list}
    wrong = [key for key, kind in wanted.items() if not isinstance(about.get(key), kind)]
    if about.get("format") != _FORMAT or wrong or not about["clusters"]:
        found = f"format {about.get('format')!r}" + (f", without {', '.join(wrong)}" if wrong else "")
        raise InputError(f"{path}: expected an index of bases, format {_FORMAT}; found {found}. {_AGAIN}")
    members = sorted(name for cluster in about["clusters"].values() for name in cluster)
    if members != sorted(about["names"]):
        raise InputError(f"{path}: expected every expert in one cluster; found {members}. {_AGAIN}")
    return about
