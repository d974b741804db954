"""How far two matrices agree: as wholes, row by row and column by column, from one pass over both."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Agreement", "agreement", "as_matrix", "row_blocks"]

# Entries of a matrix that are held in float64 at a time.
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Agreement:
    """Sums of products over two matrices A and B of n rows: ⟨A, B⟩, ‖A‖² and ‖B‖², in this order.

    Attributes:
        rows: The three for each row, [3, n].
        columns: The three for each column, [3, d].
        sums: Σ over rows of A and of B, [2, d].
    """

    rows: Tensor
    columns: Tensor
    sums: Tensor

    @property
    def base_square(self) -> float:
        """‖A‖²."""
        return float(self.rows[1].sum())

    @property
    def move_square(self) -> float:
        """‖B − A‖²."""
        product, first, second = self.rows.sum(1).tolist()
        return max(first + second - 2 * product, 0.0)

    @property
    def spread(self) -> float:
        """‖A‖ ‖B‖ about the mean rows."""
        _, first, second = self._centred
        return math.sqrt(max(first, 0.0) * max(second, 0.0))

    @property
    def cosine(self) -> float:
        """Cosine between A and B about their mean rows; its mean over all orders of B's rows is zero.

        NaN where either is constant over its rows, to rounding.
        """
        product, first, second = self._centred
        _, raw_first, raw_second = self.rows.sum(1).tolist()
        if first <= 1e-12 * raw_first or second <= 1e-12 * raw_second:
            return math.nan
        return max(-1.0, min(1.0, product / self.spread))

    @property
    def row_cosines(self) -> Tensor:
        """Cosine of each row of A with the same row of B, [n]; NaN for a zero row."""
        return _cosines(self.rows)

    @property
    def column_cosines(self) -> Tensor:
        """Cosine of each column of A with the same column of B, [d]; NaN for a zero column."""
        return _cosines(self.columns)

    @property
    def _centred(self) -> tuple[float, float, float]:
        """The three sums about the mean rows."""
        a, b = self.sums
        count = self.rows.shape[1]
        product, first, second = self.rows.sum(1).tolist()
        return product - float(a @ b) / count, first - float(a @ a) / count, second - float(b @ b) / count


def agreement(base: Tensor, expert: Tensor) -> Agreement:
    """Measure how far two matrices agree, in float64, a block of rows at a time.

    Args:
        base: A, [n, d].
        expert: B, of the same shape.

    Returns:
        The sums of products.

    Example:
        >>> found = agreement(torch.eye(3), torch.eye(3)[[1, 0, 2]])
        >>> found.row_cosines.tolist(), round(found.cosine, 3)
        ([0.0, 0.0, 1.0], 0.0)
    """
    rows, columns, sums = [], torch.zeros(3, base.shape[1]).double(), torch.zeros(2, base.shape[1]).double()
    for a, b in row_blocks(base, expert):
        # One matrix of products at a time is enough.
        for kind, (left, right) in enumerate(((a, b), (a, a), (b, b))):
            product = left * right
            rows.append(product.sum(1))
            columns[kind] += product.sum(0)
        sums += torch.stack([a.sum(0), b.sum(0)])
    return Agreement(torch.stack([torch.cat(rows[kind::3]) for kind in range(3)]), columns, sums)


def as_matrix(tensor: Tensor) -> Tensor:
    """Flatten all dimensions but the first; a vector or a number becomes one row.

    Args:
        tensor: Any tensor.

    Returns:
        A matrix with the same entries.

    Example:
        >>> as_matrix(torch.zeros(4, 3, 2)).shape, as_matrix(torch.zeros(5)).shape
        (torch.Size([4, 6]), torch.Size([1, 5]))
    """
    return tensor.reshape(1, -1) if tensor.ndim < 2 else tensor.flatten(1)


def row_blocks(*matrices: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Go through matrices of one shape by blocks of rows, in float64.

    Args:
        matrices: The matrices.

    Yields:
        The same rows of each.
    """
    step = max(1, _BLOCK // max(1, matrices[0].shape[1]))
    for start in range(0, matrices[0].shape[0], step):
        yield tuple(matrix[start : start + step].double() for matrix in matrices)


def _cosines(sums: Tensor) -> Tensor:
    """Cosines out of products and squares."""
    product, first, second = sums
    scale = (first * second).sqrt()
    return torch.where(scale > 0, (product / scale).clamp(-1, 1), math.nan)
