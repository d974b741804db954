"""Sign conflicts: where task vectors move the same coordinate in opposite directions, counted exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["SignCounts", "count_bits", "count_signs", "sign_bits"]


@dataclass(frozen=True)
class SignCounts:
    """Numbers of coordinates by how the task vectors move them.

    Attributes:
        both: In which i and j both move, [T, T]; on the diagonal, in which i moves.
        opposite: In which i and j move in opposite directions, [T, T].
        several: In which at least two task vectors move.
        contested: In which at least one moves up and at least one down.
    """

    both: Tensor
    opposite: Tensor
    several: int
    contested: int

    def __add__(self, other: SignCounts) -> SignCounts:
        return SignCounts(
            self.both + other.both,
            self.opposite + other.opposite,
            self.several + other.several,
            self.contested + other.contested,
        )

    @property
    def conflict(self) -> Tensor:
        """Share of the coordinates in which both move that move in opposite directions, [T, T]; NaN without any."""
        return self.opposite.double() / self.both

    @property
    def contest(self) -> float:
        """Share of the coordinates in which several move that move up for one and down for another; NaN without any."""
        return self.contested / self.several if self.several else math.nan


def count_signs(moves: NDArray[np.float64]) -> SignCounts:
    """Count the coordinates in which task vectors agree and disagree in sign; zero and NaN do not move.

    Args:
        moves: Task vectors, [T, n].

    Returns:
        The counts.

    Example:
        >>> found = count_signs(np.array([[1.0, -2.0, 0.0], [3.0, 4.0, 5.0]]))
        >>> found.conflict.tolist(), found.contest
        ([[0.0, 0.5], [0.5, 0.0]], 0.5)
    """
    count, width = moves.shape
    return count_bits(sign_bits(moves, np.empty(2 * count * (width + 64), bool)), width)


def sign_bits(moves: NDArray[np.float64], flags: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Say where each row is above and below zero, one bit a coordinate.

    Args:
        moves: Task vectors, [T, n].
        flags: Memory to work in, at least 2 T times n rounded up to a multiple of 64.

    Returns:
        Words of 64 coordinates, above and below, [2, T, ⌈n / 64⌉]; bits beyond n are zero.

    Example:
        >>> [hex(word) for word in sign_bits(np.array([[1.0, -2.0, 0.0]]), np.empty(128, bool)).ravel()]
        ['0x80', '0x40']
    """
    count, width = moves.shape
    padded = -(-width // 64) * 64
    above, below = found = flags[: 2 * count * padded].reshape(2, count, padded)
    np.greater(moves, 0, out=above[:, :width])
    np.less(moves, 0, out=below[:, :width])
    found[:, :, width:] = False
    return np.packbits(found, axis=2).view(np.uint64)


def count_bits(bits: NDArray[np.uint64], width: int) -> SignCounts:
    """Count agreement and disagreement in what :func:`sign_bits` returned.

    Args:
        bits: Words above and below, [2, T, words].
        width: Number of coordinates that they stand for.

    Returns:
        The counts.

    Example:
        >>> count_bits(np.array([[[3], [1]], [[0], [2]]], dtype=np.uint64), 2).opposite.tolist()
        [[0, 1], [1, 0]]
    """
    up, down = bits
    count = len(up)
    moving = up | down
    moved = _ones(moving)
    # Where every task vector moves in every coordinate, as in most of full fine-tuning, half of the work is not needed.
    dense = int(moved.sum()) == count * width
    both, opposite = np.diag(moved), np.zeros((count, count), np.int64)
    for i in range(count - 1):
        rest = slice(i + 1, None)
        differ = down[i] ^ down[rest]
        if dense:
            both[i, rest] = width
        else:
            together = moving[i] & moving[rest]
            both[i, rest] = _ones(together)
            differ &= together
        opposite[i, rest] = _ones(differ)
    contested = np.bitwise_or.reduce(up) & np.bitwise_or.reduce(down)
    several = width * (count > 1) if dense else int(_ones(_in_several(moving)))
    return SignCounts(_mirror(both), _mirror(opposite), several, int(_ones(contested)))


def _ones(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Number of bits that are set, over the last axis."""
    return np.bitwise_count(words).sum(-1, dtype=np.int64)


def _in_several(moving: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Where at least two rows have a bit."""
    once = np.zeros_like(moving[0])
    twice = np.zeros_like(moving[0])
    for row in moving:
        twice |= once & row
        once |= row
    return twice


def _mirror(upper: NDArray[np.int64]) -> Tensor:
    """A symmetric matrix from the half above its diagonal."""
    return torch.from_numpy(np.triu(upper) + np.triu(upper, 1).T)
