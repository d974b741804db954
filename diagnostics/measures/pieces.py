"""Dealing the data of a task out to folds: whole batches, or single examples where batches are few."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.inputs.tasks import Parameters, Task
from diagnostics.measures.slopes import slopes_of
from diagnostics.measures.space import Space
from diagnostics.measures.vectors import accumulate, zero_vector

__all__ = ["Pieces", "cut", "cuttable", "parts_within", "pieces_of", "single_examples"]

Piece = tuple[int, float, Any]

# How far the gradient of a batch and that of its parts may be apart, relative: rounding, and no more.
_RTOL = 1e-3


@dataclass(frozen=True)
class Pieces:
    """The data of a task, ready to be dealt out.

    Attributes:
        available: Most folds that can be filled.
        deal: Given a number of folds, the fold, the share of all examples and the batch of each piece.
    """

    available: int
    deal: Callable[[int], Iterator[Piece]]


def pieces_of(task: Task, params: Parameters, folds: int) -> Pieces:
    """Return the data of a task in at least ``folds`` pieces where that is possible.

    Args:
        task: The task.
        params: A point at which to check that the loss is a mean over examples.
        folds: Number of folds wanted.

    Returns:
        Whole batches where there are enough or they cannot be cut, and examples otherwise.

    Example:
        >>> import torch
        >>> task = Task("t", lambda p, b: (p["w"] * b).mean(), [torch.arange(5.0)])
        >>> pieces = pieces_of(task, {"w": torch.ones(1)}, 2)
        >>> [(fold, share, batch.tolist()) for fold, share, batch in pieces.deal(2)]
        [(0, 0.6, [0.0, 2.0, 4.0]), (1, 0.4, [1.0, 3.0])]
    """
    if len(task.sizes) < folds and task.examples > len(task.sizes) and _divisible(task, params):
        return Pieces(task.examples, lambda count: _examples(task, count))
    return Pieces(len(task.sizes), lambda count: _batches(task, count))


def single_examples(task: Task, params: Parameters) -> Iterator[Any]:
    """Yield every example of a task as a batch of its own.

    Args:
        task: The task.
        params: A point at which to check that the loss is a mean over examples.

    Yields:
        Batches of one example, in order.

    Raises:
        InputError: If batches cannot be cut.

    Example:
        >>> import torch
        >>> task = Task("t", lambda p, b: (p["w"] * b).mean(), [torch.arange(2.0), torch.arange(1.0)])
        >>> [batch.tolist() for batch in single_examples(task, {"w": torch.ones(1)})]
        [[0.0], [1.0], [0.0]]
    """
    if task.examples > len(task.sizes) and not _divisible(task, params):
        raise InputError(
            f"task {task.name!r}: expected batches of tensors with examples first, and a loss that is the mean over "
            "them, so that each example can be taken by itself; found others. Give batches of one example."
        )
    for size, batch in zip(task.sizes, task.batches, strict=True):
        for index in range(size):
            yield batch if size == 1 else cut(batch, slice(index, index + 1))


def parts_within(task: Task, params: Parameters, most: int) -> Callable[[], Iterator[tuple[float, Any]]]:
    """Return how to read a task's data in parts of at most so many examples, where its batches can be cut.

    Args:
        task: The task.
        params: A point at which to check that the loss is a mean over examples.
        most: Examples a part.

    Returns:
        A function that yields the share of all examples and the batch of each part; whole batches where they cannot
        be cut.

    Example:
        >>> import torch
        >>> task = Task("t", lambda p, b: (p["w"] * b).mean(), [torch.arange(3.0)])
        >>> [(round(share, 2), part.tolist()) for share, part in parts_within(task, {"w": torch.ones(1)}, 2)()]
        [(0.67, [0.0, 1.0]), (0.33, [2.0])]
    """
    if not _divisible(task, params):
        return task.weighted_batches

    def parts() -> Iterator[tuple[float, Any]]:
        for size, batch in zip(task.sizes, task.batches, strict=True):
            for start in range(0, size, most):
                end = min(start + most, size)
                yield (end - start) / task.examples, cut(batch, slice(start, end))

    return parts


def _batches(task: Task, count: int) -> Iterator[Piece]:
    """Whole batches in turn."""
    for number, (share, batch) in enumerate(task.weighted_batches()):
        yield number % count, share, batch


def _examples(task: Task, count: int) -> Iterator[Piece]:
    """Every batch cut so that examples go to the folds in turn, whatever the sizes of batches."""
    start = 0
    for size, batch in zip(task.sizes, task.batches, strict=True):
        for fold in range(count):
            chosen = slice((fold - start) % count, None, count)
            kept = len(range(size)[chosen])
            if kept:
                yield fold, kept / task.examples, cut(batch, chosen)
        start += size


def _divisible(task: Task, params: Parameters) -> bool:
    """Whether batches are tensors with examples first, and the loss is the mean over them."""
    if not all(cuttable(batch, size) for size, batch in zip(task.sizes, task.batches, strict=True)):
        return False
    size, batch = max(zip(task.sizes, task.batches, strict=True), key=lambda pair: pair[0])
    parts = [slice(0, size // 2), slice(size // 2, size)]
    # The gradient tells, not the loss: a tensor of something else may be cut without changing the mean of losses.
    space, whole, mean = Space.of(params), zero_vector(params), zero_vector(params)
    accumulate(whole, 1.0, slopes_of(task, params, batch)[1], params)
    for part in parts:
        accumulate(mean, len(range(size)[part]) / size, slopes_of(task, params, cut(batch, part))[1], params)
    return space.norm(whole - mean) <= _RTOL * max(space.norm(whole), space.norm(mean))


def cuttable(batch: Any, size: int) -> bool:
    """Say whether everything in a batch that has a length is a tensor of this many examples.

    Args:
        batch: A batch.
        size: Its number of examples.

    Returns:
        Whether it can be cut.
    """
    if isinstance(batch, Tensor):
        return batch.ndim > 0 and len(batch) == size
    if isinstance(batch, tuple | list | Mapping):
        parts = batch.values() if isinstance(batch, Mapping) else batch
        return all(cuttable(part, size) for part in parts)
    return batch is None or isinstance(batch, bool | int | float)


def cut(batch: Any, chosen: slice) -> Any:
    """Return some examples of a batch.

    Args:
        batch: A batch that is ``cuttable``.
        chosen: Which examples.

    Returns:
        A batch of them, views of the same tensors.
    """
    if isinstance(batch, Tensor):
        return batch[chosen]
    if isinstance(batch, Mapping):
        return {key: cut(part, chosen) for key, part in batch.items()}
    if isinstance(batch, tuple | list):
        return type(batch)(cut(part, chosen) for part in batch)
    return batch
