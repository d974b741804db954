"""Angles between the columns of matrices, and what random columns would give (4.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diagnostics.exact.random_vectors import null_cosine
from diagnostics.results import Result, plain

__all__ = [
    "Angles",
    "Columns",
    "angles_between",
    "angles_inside",
    "average_angles",
    "filled_space",
    "least_square",
    "null_deviation",
    "null_square_deviation",
    "pair_sums",
    "rotation_deviation",
    "unit_columns",
]

# Rows of a matrix of cosines that are held at a time.
_CHUNK = 1024


@dataclass(frozen=True)
class Angles(Result):
    """A mean over pairs of columns beside what chance would give; NaN where there are no pairs.

    Attributes:
        value: The mean, for each pair of updates, [T, T].
        null: Its expectation by chance, [T, T].
        deviation: Its standard deviation by chance, [T, T].
        stderr: Standard error from drawing columns, [T, T]; 0 where all were used.
    """

    value: Tensor
    null: Tensor
    deviation: Tensor
    stderr: Tensor

    @property
    def ratio(self) -> Tensor:
        """The value over its null, [T, T]: 1 at chance."""
        return self.value / self.null

    @property
    def deviations(self) -> Tensor:
        """By how many standard deviations of chance, the error of drawing included, the value is off, [T, T]."""
        return (self.value - self.null) / (self.deviation**2 + self.stderr**2).sqrt()

    def to_dict(self) -> dict[str, Any]:
        """Return fields and derived quantities as plain types.

        Returns:
            A dictionary ready for JSON.
        """
        return super().to_dict() | {name: plain(getattr(self, name)) for name in ("ratio", "deviations")}


def average_angles(parts: Sequence[Angles], weights: Tensor) -> Angles:
    """Return the weighted mean of independent angles; what is undefined or has no weight takes no part.

    Args:
        parts: Angles, one for each tensor.
        weights: Their weights, [tensors, T, T].

    Returns:
        The mean, with its null averaged by the same weights.

    Example:
        >>> one = Angles(*(torch.tensor([[value]]) for value in (0.5, 0.2, 0.3, 0.0)))
        >>> two = Angles(*(torch.tensor([[value]]) for value in (0.1, 0.4, 0.4, 0.0)))
        >>> mean = average_angles([one, two], torch.ones(2, 1, 1))
        >>> [round(part.item(), 3) for part in (mean.value, mean.null, mean.deviation)]
        [0.3, 0.3, 0.25]
    """
    stacked = {each.name: torch.stack([getattr(part, each.name) for part in parts]) for each in fields(Angles)}
    weights = weights.where(~stacked["value"].isnan(), 0)
    total = weights.sum(0)
    share = weights / total.where(total > 0, math.nan)

    def mean(name: str, power: int = 1) -> Tensor:
        terms = (share * stacked[name]) ** power
        return terms.where(share != 0, 0.0).sum(0) ** (1 / power)

    return Angles(mean("value"), mean("null"), mean("deviation", 2), mean("stderr", 2))


def null_deviation(dimension: int, pairs: int) -> float:
    """Return the standard deviation of a mean |cos| over pairs of independent random directions.

    The mean square of one |cos| is 1/r. Pairs that have a direction in common are still uncorrelated, because all
    directions are alike from any of them; so the variance of the mean is that of one pair over their number, exactly.

    Args:
        dimension: r.
        pairs: Number of different pairs.

    Returns:
        The standard deviation; NaN without pairs.

    Example:
        >>> null_deviation(1, 5), round(null_deviation(3, 1), 6)  # |cos| is 1; uniform on [0, 1]
        (0.0, 0.288675)
    """
    if pairs < 1:
        return math.nan
    return math.sqrt(max(0.0, 1 / dimension - null_cosine(dimension) ** 2) / pairs)


def null_square_deviation(dimension: int, pairs: int) -> float:
    """Return the standard deviation of a mean cos² over pairs of independent random directions.

    E cos² = 1/r and E cos⁴ = 3/(r(r + 2)).

    Args:
        dimension: r.
        pairs: Number of different pairs.

    Returns:
        The standard deviation, exact as that of :func:`null_deviation`; NaN without pairs.

    Example:
        >>> round(null_square_deviation(2, 1), 6)
        0.353553
    """
    if pairs < 1:
        return math.nan
    return math.sqrt(2 * (dimension - 1) / (dimension + 2) / pairs) / dimension


def rotation_deviation(dimension: int, first: float, second: float) -> float:
    """Return the standard deviation of ⟨A, QBQᵀ⟩ over random rotations Q, for symmetric A and B of trace 1.

    Its mean is 1/r. The traceless symmetric matrices are irreducible under rotations and have (r − 1)(r + 2)/2
    dimensions, so the variance is (‖A‖² − 1/r)(‖B‖² − 1/r) over that number, exactly.

    Args:
        dimension: r.
        first: ‖A‖_F².
        second: ‖B‖_F².

    Returns:
        The standard deviation; zero for r = 1, where there is nothing to rotate.

    Example:
        >>> round(rotation_deviation(2, 1.0, 1.0), 6)  # cos² of a random angle in the plane: sqrt(1/8)
        0.353553
    """
    if dimension == 1:
        return 0.0
    # A sample of columns estimates ‖A‖² without bias, so it may fall below its least value 1/r.
    parts = [max(0.0, each - 1 / dimension) if not math.isnan(each) else math.nan for each in (first, second)]
    return math.sqrt(2 * parts[0] * parts[1] / ((dimension - 1) * (dimension + 2)))


def unit_columns(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return the columns at unit length, and which of them have a direction at all.

    Args:
        matrix: A matrix, [r, n].

    Returns:
        Columns [r, n], zero where there is no direction, and a mask [n].

    Example:
        >>> unit, known = unit_columns(torch.tensor([[3.0, 0.0], [4.0, 0.0]]))
        >>> unit.tolist(), known.tolist()
        ([[0.6000000238418579, 0.0], [0.800000011920929, 0.0]], [True, False])
    """
    # The largest entry is divided by first, so that squares of very small updates do not underflow.
    scale = matrix.abs().amax(0)
    known = scale > 0
    scaled = matrix / scale.where(known, 1)
    return scaled / scaled.norm(dim=0).where(known, 1), known


def pair_sums(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return sums of |cos| and cos² between different columns of two matrices, a block at a time.

    Args:
        first: Unit columns, [r, n]; a zero column adds nothing.
        second: Unit columns, [r, n].

    Returns:
        By column k, the sums over l ≠ k of both orders (k, l) and (l, k), of |cos| and of cos², each [n].

    Example:
        >>> [part.tolist() for part in pair_sums(torch.eye(2), torch.eye(2).flip(1))]
        [[2.0, 2.0], [2.0, 2.0]]
    """
    count = first.shape[1]
    sizes, squares = first.new_zeros(count), first.new_zeros(count)
    for start in range(0, count, _CHUNK):
        rows = slice(start, min(start + _CHUNK, count))
        cosine = (first[:, rows].T @ second).clamp_(-1, 1)
        cosine[torch.arange(len(cosine)), torch.arange(rows.start, rows.stop)] = 0
        for total, values in ((sizes, cosine.abs()), (squares, cosine.square())):
            total[rows] += values.sum(1)
            total += values.sum(0)
    return sizes, squares


class Columns(NamedTuple):
    """Unit columns, which of them have a direction, and which are compared with all others."""

    unit: Tensor
    known: Tensor
    drawn: Tensor

    @property
    def left_out(self) -> float:
        """Share of the columns that were not drawn."""
        return 1 - len(self.drawn) / len(self.known)


def angles_inside(columns: Columns) -> Tensor:
    """Return the angles inside one update.

    Args:
        columns: Its columns.

    Returns:
        Value, null, deviation and error of |cos| of different columns, of matched ones (none here) and of cos², [3, 4].
    """
    unit, known = columns.unit[:, columns.drawn], columns.known[columns.drawn]
    dimension, count = len(unit), int(known.sum())
    sums = [total[known] / 2 for total in pair_sums(unit, unit)]
    pairs = count * (count - 1) // 2
    nulls = (null_cosine(dimension), 1 / dimension)
    spreads = (null_deviation(dimension, pairs), null_square_deviation(dimension, pairs))
    rows = [
        [_divide(total.sum(), 2 * pairs), null, spread, _drawing_error(total, columns.left_out)]
        for total, null, spread in zip(sums, nulls, spreads, strict=True)
    ]
    return torch.tensor([rows[0], [math.nan] * 4, rows[1]], dtype=torch.float64)


def angles_between(first: Columns, second: Columns) -> Tensor:
    """Return the angles between two updates.

    Args:
        first: Columns of one.
        second: Columns of the other, the same ones drawn.

    Returns:
        As :func:`angles_inside` gives them; NaN for the deviation of cos², which needs the angles inside both.
    """
    drawn, dimension = first.drawn, len(first.unit)
    known = [columns.known[drawn] for columns in (first, second)]
    sums = [total / 2 for total in pair_sums(first.unit[:, drawn], second.unit[:, drawn])]
    same = (first.unit * second.unit).sum(0).clamp(-1, 1)
    both = int((first.known & second.known).sum())
    whole = int(known[0].sum()) * int(known[1].sum())
    different = whole - int((known[0] & known[1]).sum())
    used, mean = known[0] | known[1], null_cosine(dimension)
    squares = sums[1].sum() + same[drawn].square().sum()
    errors = [_drawing_error(total[used], first.left_out) for total in sums]
    return torch.tensor(
        [
            [_divide(sums[0].sum(), different), mean, null_deviation(dimension, different), errors[0]],
            [_divide(same.abs().sum(), both), mean, null_deviation(dimension, both), 0.0],
            [_divide(squares, whole), 1 / dimension, math.nan, errors[1]],
        ],
        dtype=torch.float64,
    )


def _divide(total: Tensor, count: int) -> float:
    """A mean, where there is anything to average."""
    return float(total) / count if count else math.nan


def _drawing_error(sums: Tensor, left_out: float) -> float:
    """Standard error of a mean over pairs of drawn columns, from how much the columns' own means differ."""
    if left_out == 0 or len(sums) < 3:
        return 0.0 if left_out == 0 else math.nan
    # To first order a mean over pairs is twice a mean over columns, each with its own mean over partners.
    means = sums / (len(sums) - 1)
    return 2 * math.sqrt(float(means.var()) / len(means) * left_out)


def filled_space(square: float, count: int) -> float:
    """Return ‖(1/n) Σ ŵŵᵀ‖_F², how much of itself the space of n unit columns fills.

    Args:
        square: Mean cos² over the pairs k ≠ l.
        count: n.

    Returns:
        The mean cos² over all pairs, those with themselves included.

    Example:
        >>> filled_space(0.0, 4)
        0.25
    """
    return 1 / count + (0.0 if count == 1 else (count - 1) / count * square) if count else math.nan


def least_square(dimension: int, count: int) -> float:
    """Return the least mean cos² over k ≠ l that n columns of length r can have (Welch's bound).

    Args:
        dimension: r.
        count: n.

    Returns:
        (n − r)/(r(n − 1)), or 0 for n ≤ r; NaN without pairs.

    Example:
        >>> least_square(16, 64) == 48 / (16 * 63)
        True
    """
    return max(0.0, (count - dimension) / (dimension * (count - 1))) if count > 1 else math.nan
