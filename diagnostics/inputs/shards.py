"""Models that several processes hold in parts: each weight is gathered where it is used, and let go after it.

Every process does the same work on the same data; what it holds is its rows of each parameter (DTensors, ``Shard(0)``),
and its part of every vector made of them. FSDP2's own hooks gather weights too, but lose the graph that a second
derivative is taken through; gathering with DTensor keeps it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.utils.parametrize import register_parametrization

from diagnostics.errors import InputError
from diagnostics.inputs.checkpoints import Checkpoint, Source, open_checkpoint
from diagnostics.inputs.examples import listed
from diagnostics.inputs.parts import is_part, rows_of, span
from diagnostics.processes import team

__all__ = [
    "gather_where_used",
    "pack",
    "refuse_fsdp",
    "shard_parameters",
    "unpack",
    "without_weights",
]

_WITHOUT: ContextVar[bool] = ContextVar("without_weights", default=False)


def shard_parameters(module: torch.nn.Module, mesh: Any = None, *, weights: Source | None = None) -> torch.nn.Module:
    """Leave each process its rows of every parameter of a module, in place.

    Tied parameters stay tied, and buffers stay whole. Tasks are then made of the module as of any other, in every
    process, and measured at ``dict(module.named_parameters())``.

    Args:
        module: The module, the same in every process. It may lie on the CPU, or on ``meta`` beside ``weights``.
        mesh: A one-dimensional device mesh of the processes that share it; all processes by default, on GPUs if the
            process group has NCCL.
        weights: A safetensors file or a model folder, of which each process reads its rows alone.

    Returns:
        The same module, its parameters DTensors with ``Shard(0)`` on the device of the mesh.

    Raises:
        InputError: If there is no process group, the mesh has more dimensions than one, or parameters have no values
            or do not fit the weights.

    Example:
        >>> shard_parameters(torch.nn.Linear(2, 2))
        Traceback (most recent call last):
        diagnostics.errors.InputError: shard_parameters: expected an initialised process group; found none. Start ...
    """
    mesh = _mesh() if mesh is None else mesh
    if mesh.ndim != 1:
        raise InputError(f"mesh: expected one dimension; found {mesh.ndim}. Pass the one that shards, mesh['shard'].")
    own = dict(module.named_parameters())
    stored = None if weights is None else open_checkpoint(weights)
    _check(module, own, stored)
    made: dict[Tensor, torch.nn.Parameter] = {}
    for name, value in own.items():
        start, stop = span(value.shape[0], mesh)
        rows = value.detach()[start:stop] if stored is None else _read(stored, name, value, start, stop)
        # A copy: rows that are a view would keep all the others.
        here = rows.to(device=mesh.device_type, dtype=value.dtype, copy=True)
        made[value] = torch.nn.Parameter(rows_of(here, value.shape, mesh), requires_grad=value.requires_grad)
    for part in module.modules():
        part._parameters.update({name: made[value] for name, value in part._parameters.items() if value is not None})
    return module


def _mesh() -> Any:
    """All processes."""
    if not (dist.is_available() and dist.is_initialized()):
        raise InputError(
            "shard_parameters: expected an initialised process group; found none. Start the script with torchrun and "
            "call torch.distributed.init_process_group() first"
        )
    from torch.distributed.device_mesh import init_device_mesh

    gpus = "nccl" in str(dist.get_backend_config()) and torch.cuda.is_available()
    return init_device_mesh("cuda" if gpus else "cpu", (dist.get_world_size(),))


def _check(module: torch.nn.Module, own: Mapping[str, Tensor], stored: Checkpoint | None) -> None:
    """Refuse what has no rows, no values, or not those that are stored."""
    numbers = [name for name, value in own.items() if value.ndim == 0]
    if numbers:
        raise InputError(f"shard_parameters: expected parameters with rows; found numbers: {numbers}. Give them one.")
    shapes = {} if stored is None else {name: stored.shape(name) for name in stored.names}
    unfit = [name for name, value in own.items() if stored is not None and shapes.get(name) != tuple(value.shape)]
    if unfit:
        raise InputError(
            f"weights: expected the module's parameters, in their shapes; found none of that kind for {listed(unfit)}. "
            "Pass the weights that were saved from this module."
        )
    empty = [name for name, value in module.named_buffers() if value.is_meta]
    empty += [name for name, value in own.items() if value.is_meta and stored is None]
    if empty:
        raise InputError(
            f"shard_parameters: expected tensors with values; found meta tensors: {listed(empty)}. Pass weights= for "
            "parameters, and make buffers anew outside of torch.device('meta'), rotary embeddings say."
        )


def _read(stored: Checkpoint, name: str, value: Tensor, start: int, stop: int) -> Tensor:
    """Rows of a parameter from a file, without the others."""
    width = value.numel() // max(value.shape[0], 1)
    buffer = torch.empty((stop - start) * width * stored.dtype(name).itemsize, dtype=torch.uint8)
    with stored.parts(name) as read:
        return read(start * width, stop * width, buffer).view(stop - start, *value.shape[1:])


def refuse_fsdp(module: torch.nn.Module) -> None:
    """Refuse a module that FSDP2 manages.

    Args:
        module: The module.

    Raises:
        InputError: If it does.
    """
    known = sys.modules.get("torch.distributed.fsdp")
    if known is not None and any(isinstance(part, known.FSDPModule) for part in module.modules()):
        raise InputError(
            "model: expected a module whose parameters alone are sharded; found one that fully_shard manages. Its "
            "hooks lose the graph of the gradient, so that there are no second derivatives. Shard the model as it was "
            "before fully_shard, with shard_parameters(module, mesh)"
        )


def gather_where_used(module: torch.nn.Module) -> dict[str, str]:
    """Let every parameter that is held in parts be gathered whenever the module asks for it.

    Args:
        module: The module, changed.

    Returns:
        New names of these parameters, by their old ones; the first of tied ones stands for all.
    """
    renamed: dict[str, str] = {}
    first: dict[Tensor, str] = {}
    for prefix, part in list(module.named_modules()):
        for name, value in list(part._parameters.items()):
            if value is not None and is_part(value):
                register_parametrization(part, name, _Gathered(), unsafe=True)
                old = f"{prefix}.{name}".removeprefix(".")
                first.setdefault(value, old)
                if first[value] == old:
                    renamed[old] = f"{prefix}.parametrizations.{name}.original".removeprefix(".")
    return renamed


class _Gathered(torch.nn.Module):
    """A parameter as a function of the parts that processes hold of it."""

    def forward(self, part: Tensor) -> Tensor:
        """The whole parameter, which its storage remembers to be a copy."""
        if not is_part(part):
            return part
        _refuse_other_work(part)
        return _whole(part, part.detach())


def _whole(part: Any, origin: Tensor) -> Tensor:
    """Gather a tensor."""
    whole: Tensor = part.full_tensor()
    # The storage goes when nothing holds it any more, and this with it: nothing else can be taken for the copy.
    whole.untyped_storage()._diagnostics_part = origin  # type: ignore[attr-defined]
    return whole


def _refuse_other_work(part: Any) -> None:
    """Refuse processes that share weights, and so must work on the same batch, to be given different ones."""
    crew: Any = team()
    while crew is not None:
        if crew.size > 1:
            holders = set(dist.get_process_group_ranks(part.device_mesh.get_group()))
            if len(holders & set(dist.get_process_group_ranks(crew.group))) > 1:
                raise InputError(
                    "data_parallel: expected processes that share batches, not weights; found a model whose weights "
                    "the same processes hold in parts. Leave data_parallel out, or give it the other dimension of a "
                    "device mesh: data_parallel(mesh['data'].get_group())"
                )
        crew = crew.outer


@dataclass(frozen=True)
class _Reference:
    """A gathered weight in a graph: where to gather it again, and what view of it is meant."""

    part: Tensor
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int


def pack(tensor: Tensor) -> Tensor | _Reference:
    """Return what a graph keeps in place of a tensor that it saves.

    Args:
        tensor: The tensor.

    Returns:
        For a gathered weight where to gather it again, otherwise the tensor.
    """
    part = getattr(tensor.untyped_storage(), "_diagnostics_part", None)
    if part is None:
        # Detached: a graph that held an output of its own would never be freed.
        return tensor.detach()
    return _Reference(part, tensor.shape, tensor.stride(), int(tensor.storage_offset()))


def unpack(packed: Tensor | _Reference) -> Tensor:
    """Return what a graph saved.

    Args:
        packed: What it kept.

    Returns:
        The tensor; a weight is gathered again.
    """
    if isinstance(packed, Tensor):
        return packed
    with torch.no_grad():
        whole = _whole(packed.part, packed.part)
    return whole.as_strided(packed.shape, packed.stride, packed.offset)


@contextmanager
def without_weights() -> Iterator[None]:
    """Let graphs made in this block keep no gathered weight: they are gathered again in the backward pass.

    Where it is entered a second time it changes nothing: hooks set in between call :func:`pack` and :func:`unpack`.

    Yields:
        Nothing.
    """
    if _WITHOUT.get():
        yield
        return
    token = _WITHOUT.set(True)
    try:
        with saved_tensors_hooks(pack, unpack):
            yield
    finally:
        _WITHOUT.reset(token)
