"""One pass over the files of a base and T models that gathers all that is bilinear or a count of signs, per tensor.

Reading is bound by memory or disk, so every other step has to keep up with it: differences and products run on blocks
that stay in cache, in buffers that are used again, and in as many threads as torch has.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diagnostics.inputs.alignment import BASE, Alignment
from diagnostics.inputs.checkpoints import Checkpoint
from diagnostics.inputs.tensor_files import PartReader
from diagnostics.measures.signs import SignCounts, count_bits, sign_bits

__all__ = ["Sums", "stream_sums"]

# Coordinates of a block: few enough for a cache, and enough that calls from Python cost little beside the work.
_BLOCK = 1 << 16
# Numbers of a block, all models together: 8 MB a thread, whatever the number of models.
_NUMBERS = 1 << 20
# Files that are open at a time, unless one tensor of all models takes more; many systems allow a process 1024.
_FILES = 256
# Coordinates that a thread takes at a time.
_SLICE = 1 << 19
# Torch converts no more than these in the thread that asks; beyond them it starts others, beside ours.
_SERIAL = 1 << 15
# Multiplications of one product of matrices. OpenBLAS has kernels for small ones that do not copy their operands, which
# for a few long rows takes longer than the product; up to this size it also starts no threads of its own.
_PRODUCT = 1 << 18
_ROWS = 8
# What numpy has too, and converts faster.
_PLAIN = frozenset({torch.float32, torch.float64})


@dataclass(frozen=True)
class Sums:
    """Sums over coordinates.

    Attributes:
        gram: ⟨τ_i, τ_j⟩ of all models, in order, [M, M], float64.
        base_square: ‖θ0‖².
        signs: Of the task vectors of the experts.
    """

    gram: Tensor
    base_square: float
    signs: SignCounts

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.gram + other.gram, self.base_square + other.base_square, self.signs + other.signs)


class _Workspace:
    """The memory that one thread works in."""

    def __init__(self, models: int) -> None:
        # Whole words of sign bits, so that the bits of blocks can lie side by side.
        self.block = max(64, min(_BLOCK, _NUMBERS // models) // 64 * 64)
        self.numbers = np.empty(models * self.block)
        self.flags = np.empty(2 * models * self.block, bool)
        self.bytes = torch.empty(self.block * 8, dtype=torch.uint8)


def stream_sums(opened: Mapping[str, Checkpoint], alignment: Alignment, experts: int) -> Iterator[tuple[str, Sums]]:
    """Read every shared tensor of all models once, in slices.

    Memory is a few blocks for each thread, whatever the size of tensors and the number of models, as far as they are
    read from files; the sums are taken in the same order whatever the number of threads.

    Args:
        opened: The base, then the models that make task vectors, experts first.
        alignment: What they share.
        experts: How many of the models are experts, whose signs are counted.

    Yields:
        Name and sums of each slice, in order; every shared tensor has at least one.

    Example:
        >>> from diagnostics.inputs.alignment import align
        >>> from diagnostics.inputs.checkpoints import open_checkpoint
        >>> models = {n: open_checkpoint({"w": torch.full((2,), v)}) for n, v in (("base", 1.0), ("a", 3.0))}
        >>> [(_, sums)] = stream_sums(models, align(models["base"], {"a": models["a"]}), 1)
        >>> sums.gram.tolist(), sums.base_square
        ([[8.0]], 2.0)
    """
    workers = torch.get_num_threads()
    spaces: SimpleQueue[_Workspace] = SimpleQueue()
    for _ in range(workers):
        spaces.put(_Workspace(len(opened)))
    waiting: deque[tuple[str, Future[Sums], ExitStack | None]] = deque()

    def work(readers: Sequence[PartReader], start: int, stop: int) -> Sums:
        space = spaces.get()
        try:
            return _sum_slice(readers, start, stop, experts, space)
        finally:
            spaces.put(space)

    def oldest() -> tuple[str, Sums]:
        name, future, finished = waiting.popleft()
        found = future.result()
        if finished:
            finished.close()
        return name, found

    room = max(1, _FILES // len(opened))

    # Left in reverse: threads end before the files that they read are closed.
    with ExitStack() as everything, ThreadPoolExecutor(workers) as pool:
        for name in alignment.shared:
            while sum(finished is not None for _, _, finished in waiting) >= room:
                yield oldest()
            files = ExitStack()
            everything.callback(files.close)
            size = math.prod(opened[BASE].shape(name))  # tied ones go by the base's name
            readers = [
                files.enter_context(checkpoint.parts(alignment.stored_name(model, name)))
                for model, checkpoint in opened.items()
            ]
            for start in range(0, max(size, 1), _SLICE):
                stop = min(start + _SLICE, size)
                last = files if stop == size else None
                waiting.append((name, pool.submit(work, readers, start, stop), last))
                if len(waiting) > 2 * workers:
                    yield oldest()
        while waiting:
            yield oldest()


def _sum_slice(readers: Sequence[PartReader], start: int, stop: int, experts: int, space: _Workspace) -> Sums:
    """Sums over a slice of one tensor, block by block; signs are kept as bits and counted at the end."""
    gram = np.zeros((len(readers), len(readers)))
    bits = np.empty((2, experts, -(-(stop - start) // 64)), np.uint64)
    for at in range(start, stop, space.block):
        rows = _read_block(readers, at, min(at + space.block, stop), space)
        # What is not finite in a model has no finite sum either; the check of models names it.
        with np.errstate(invalid="ignore", over="ignore"):
            np.subtract(rows[:-1], rows[-1], out=rows[:-1])
            _add_products(gram, rows)
            words = sign_bits(rows[:experts], space.flags)
        first = (at - start) // 64
        bits[:, :, first : first + words.shape[2]] = words
    moves = np.triu(gram[:-1, :-1]) + np.triu(gram[:-1, :-1], 1).T
    return Sums(torch.from_numpy(moves), float(gram[-1, -1]), count_bits(bits, stop - start))


def _read_block(readers: Sequence[PartReader], start: int, stop: int, space: _Workspace) -> NDArray[np.float64]:
    """Values of all models in float64, a row each, the base's last."""
    rows = space.numbers[: len(readers) * (stop - start)].reshape(len(readers), stop - start)
    for place, read in enumerate(readers):
        # The base comes first among the models: row −1.
        _convert(read(start, stop, space.bytes), rows[place - 1])
    return rows


def _convert(part: Tensor, row: NDArray[np.float64]) -> None:
    """Write values of any dtype into a row of float64."""
    if part.dtype in _PLAIN:
        row[:] = part.numpy()
        return
    for source, into in zip(part.split(_SERIAL), torch.from_numpy(row).split(_SERIAL), strict=True):
        into.copy_(source)


def _add_products(gram: NDArray[np.float64], rows: NDArray[np.float64]) -> None:
    """Add ⟨row i, row j⟩ for all j ≥ i; what is below the diagonal is left unfinished."""
    count, width = rows.shape
    group = min(_ROWS, -(-count // 2))
    for first in range(0, count, group):
        # Never a matrix by its own transpose: that is another routine, slower for rows this long.
        left, right = rows[first : first + group], rows[max(first - 1, 0) :]
        step = max(64, _PRODUCT // (len(left) * len(right)) // 64 * 64)
        into = gram[first : first + group, max(first - 1, 0) :]
        for at in range(0, width, step):
            into += left[:, at : at + step] @ right[:, at : at + step].T
