"""Tensors of several checkpoints side by side, a slice of each at a time, so that memory does not grow with them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack

import torch
from torch import Tensor

from diagnostics.inputs.checkpoints import Checkpoint

__all__ = ["in_slices"]

# Numbers that are read at a time, of all tensors together.
_NUMBERS = 1 << 20


def in_slices(*tensors: tuple[Checkpoint, str]) -> Iterator[tuple[Tensor, ...]]:
    """Read tensors of one size side by side, the same slice of each at a time.

    Args:
        tensors: Checkpoints, with the name of a tensor in each.

    Yields:
        Flat slices in their own dtypes, on the CPU; they may be overwritten by the next. None of empty tensors.

    Example:
        >>> from diagnostics.inputs.checkpoints import open_checkpoint
        >>> first, second = open_checkpoint({"w": torch.zeros(2, 1)}), open_checkpoint({"v": torch.ones(2)})
        >>> list(in_slices((first, "w"), (second, "v")))
        [(tensor([0., 0.]), tensor([1., 1.]))]
    """
    (checkpoint, name), step = tensors[0], max(1, _NUMBERS // len(tensors))
    size = math.prod(checkpoint.shape(name))
    with ExitStack() as stack:
        opened = [stack.enter_context(each.parts(own)) for each, own in tensors]
        widths = [each.dtype(own).itemsize for each, own in tensors]
        buffers = [torch.empty(min(step, size) * width, dtype=torch.uint8) for width in widths]
        for start in range(0, size, step):
            stop = min(start + step, size)
            yield tuple(read(start, stop, buffer) for read, buffer in zip(opened, buffers, strict=True))
