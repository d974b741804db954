"""Tensors that several processes hold in parts (DTensors): which rows are here, and what they are rows of."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diagnostics.errors import InputError

__all__ = ["is_part", "local", "rows_of", "shared_mesh", "span", "start_of", "wrapped"]


def is_part(value: object) -> bool:
    """Say whether a tensor is held in parts by several processes.

    Args:
        value: Anything.

    Returns:
        True for a DTensor.

    Example:
        >>> is_part(torch.ones(1))
        False
    """
    # Importing it takes a second, and there are none before someone did.
    known = sys.modules.get("torch.distributed.tensor")
    return known is not None and isinstance(value, known.DTensor)


def local(value: Tensor) -> Tensor:
    """Return what this process holds of a tensor.

    Args:
        value: The tensor.

    Returns:
        Its rows of a DTensor; any other as it is.
    """
    found: Tensor = value.to_local() if is_part(value) else value  # type: ignore[attr-defined]
    return found


def wrapped(part: Tensor, like: Tensor) -> Tensor:
    """Return rows as the tensor that they are part of.

    Args:
        part: What this process holds.
        like: A tensor that is held in the same way.

    Returns:
        A DTensor where ``like`` is one, and the rows themselves otherwise.
    """
    if not is_part(like):
        return part
    whole: Any = like
    return rows_of(part, like.shape, whole.device_mesh)


def rows_of(part: Tensor, shape: Sequence[int], mesh: Any) -> Tensor:
    """Return the tensor that every process of a mesh holds some rows of.

    Args:
        part: The rows of this process.
        shape: The shape of the whole.
        mesh: The processes.

    Returns:
        A DTensor with ``Shard(0)``.
    """
    from torch.distributed.tensor import DTensor, Shard

    size, stride = torch.Size(shape), torch.empty(tuple(shape), device="meta").stride()
    return DTensor.from_local(part, mesh, [Shard(0)], run_check=False, shape=size, stride=stride)


def span(rows: int, mesh: Any) -> tuple[int, int]:
    """Return which rows of a tensor a process holds, dealt out as DTensor does.

    Args:
        rows: How many there are.
        mesh: The processes that share them.

    Returns:
        The first, and the one after the last.
    """
    each = -(-rows // mesh.size())
    start = min(each * mesh.get_local_rank(), rows)
    return start, min(start + each, rows)


def start_of(value: Tensor) -> int:
    """Return where the numbers that this process holds of a tensor begin, among all of them in order.

    Args:
        value: The tensor.

    Returns:
        The place of the first.
    """
    if not is_part(value):
        return 0
    start, _ = span(value.shape[0], value.device_mesh)  # type: ignore[attr-defined]
    return start * (value.numel() // max(value.shape[0], 1))


def shared_mesh(params: Mapping[str, Tensor]) -> Any:
    """Return the processes that hold parameters in parts.

    Args:
        params: The parameters.

    Returns:
        Their device mesh; none where every process holds all.

    Raises:
        InputError: If they are held in a way that vectors cannot be made of.

    Example:
        >>> shared_mesh({"w": torch.ones(2)}) is None
        True
    """
    parts: dict[str, Any] = {name: value for name, value in params.items() if is_part(value)}
    if not parts:
        return None
    whole = sorted(params.keys() - parts.keys())
    if whole:
        raise InputError(f"parameters: expected all of them in parts, or none; found {whole} whole. Shard these too.")
    mesh = next(iter(parts.values())).device_mesh
    for name, value in parts.items():
        kinds = value.placements
        if (
            value.device_mesh != mesh
            or len(kinds) != 1
            or not kinds[0].is_shard(0)
            or type(kinds[0]).__name__ != "Shard"
        ):
            raise InputError(
                f"parameters: expected Shard(0) on one mesh of one dimension; found {name} with {list(kinds)} on "
                f"{value.device_mesh}. Shard them with shard_parameters(module, mesh)."
            )
    return mesh
