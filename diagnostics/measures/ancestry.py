"""Does an expert come from this base? Cosines of their matrices, against the same rows in random order."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from diagnostics.measures.agreement import Agreement

__all__ = ["FAR", "SIGMAS", "UNRELATED", "Descent", "Kinship", "descent", "kinship", "median_cosine"]

# Below: of two models of equal length, the expert is nearer to the zero model than to the base.
FAR = 0.5
# Below: the best multiple of the base explains less than a sixteenth of the expert's squared length.
UNRELATED = 0.25
# A matrix votes if chance, at so many standard deviations, would stay below UNRELATED.
SIGMAS = 3

# Rows from which the spread of chance is estimated.
_SAMPLE = 256


class Kinship(StrEnum):
    """How an expert stands to a base."""

    RELATED = "related"
    FAR = "far"
    UNRELATED = "unrelated"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Descent:
    """What one matrix says about the expert's origin.

    Attributes:
        cosine: Between base and expert, about their mean rows.
        null: Its standard deviation over all orders of the expert's rows; the mean is zero.
        base_square: ‖θ0‖² of this matrix.
        move_square: ‖τ‖² of this matrix.
    """

    cosine: float
    null: float
    base_square: float
    move_square: float

    @property
    def votes(self) -> bool:
        """Whether chance and kinship could be told apart here."""
        return SIGMAS * self.null < UNRELATED


def descent(base: Tensor, expert: Tensor, sums: Agreement) -> Descent | None:
    """Measure what a matrix says about the expert's origin.

    With both matrices about their mean rows, ⟨A, πB⟩ over random orders π of n rows has mean 0 and variance
    ‖A Bᵀ‖²_F/(n − 1). Independent models, and models whose units are in another order, lie there.

    Args:
        base: The base's matrix A, [n, d].
        expert: The expert's, B.
        sums: Their agreement.

    Returns:
        The evidence, or nothing where either matrix is constant over its rows.

    Example:
        >>> from diagnostics.measures.agreement import agreement
        >>> a = torch.randn(200, 50, generator=torch.Generator().manual_seed(0))
        >>> found = descent(a, a + 0.1, agreement(a, a + 0.1))
        >>> round(found.cosine, 3), found.null < 0.02
        (1.0, True)
    """
    count = base.shape[0]
    if count < 2 or math.isnan(sums.cosine):
        return None
    chosen = torch.linspace(0, count - 1, min(count, _SAMPLE), dtype=torch.float64).long()
    a, b = (matrix[chosen].double() - total / count for matrix, total in zip((base, expert), sums.sums, strict=True))
    squares = (a @ b.T) ** 2
    own = float(squares.diagonal().mean())
    others = (float(squares.sum()) - float(squares.diagonal().sum())) / (len(chosen) * (len(chosen) - 1))
    mean = (own + (count - 1) * others) / count
    null = count * math.sqrt(mean / (count - 1)) / sums.spread
    return Descent(sums.cosine, null, sums.base_square, sums.move_square)


def median_cosine(found: Iterable[Descent]) -> float:
    """Return the median cosine over the matrices that vote.

    Args:
        found: The evidence of each matrix.

    Returns:
        The median, NaN if none votes.
    """
    cosines = [each.cosine for each in found if each.votes]
    return statistics.median(cosines) if cosines else math.nan


def kinship(found: Iterable[Descent]) -> Kinship:
    """Judge from all matrices whether the base is the expert's ancestor.

    Args:
        found: The evidence of each matrix.

    Returns:
        Unrelated or far by the median cosine, far too where the update is longer than the base; unknown without
        a matrix that votes.

    Example:
        >>> [str(kinship([Descent(c, 0.01, 1.0, 0.09)])) for c in (0.9, 0.4, 0.1)], str(kinship([]))
        (['related', 'far', 'unrelated'], 'unknown')
    """
    voters = [each for each in found if each.votes]
    cosine = median_cosine(voters)
    if math.isnan(cosine):
        return Kinship.UNKNOWN
    if cosine < UNRELATED:
        return Kinship.UNRELATED
    longer = sum(each.move_square for each in voters) > sum(each.base_square for each in voters)
    return Kinship.FAR if cosine < FAR or longer else Kinship.RELATED
