"""How many groups a matrix of similarities falls into, by the eigengap of its graph's Laplacian (2.12)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diagnostics.results import Result

__all__ = ["Eigengap", "eigengap", "laplacian"]

# Eigenvalues below this share of the largest are zeros of a graph in pieces, and no ratio is taken of them.
_ZERO = 1e-9


@dataclass(frozen=True)
class Eigengap(Result):
    """Numbers of groups by three readings of the Laplacian's spectrum; ``None`` for fewer than three vectors.

    Attributes:
        eigenvalues: Of L = D − |M|, ascending, [T].
        stated: argmax over 1 < i ≤ T−1 of λ^(i+1) − λ^(i), as published.
        relative: argmax of 1 − λ^(i)/λ^(i+1), which does not favour the gaps above large groups.
        normalised: argmax of the gap of I − D^(−1/2)|M|D^(−1/2), the similarity of a vector with itself included.
    """

    eigenvalues: Tensor
    stated: int | None
    relative: int | None
    normalised: int | None

    @property
    def candidates(self) -> tuple[int, ...]:
        """The different numbers of groups, the published one first."""
        found = (self.stated, self.relative, self.normalised)
        return tuple(dict.fromkeys(each for each in found if each is not None))


def eigengap(similarity: Tensor) -> Eigengap:
    r"""Return the number of groups that the eigengap of a similarity matrix suggests (2.12).

    .. math:: k = \arg\max_{1 < i \le T-1} λ^{(i+1)} − λ^{(i)}, \quad L = D − |M|

    For groups that are perfect blocks of equal similarity w, L has k eigenvalues 0 and, for a group of size s, s − 1
    eigenvalues s·w. Groups of unequal size thus open gaps of their own: two groups of 5 and 2 at w = 0.9 have the
    eigenvalues 0, 0, 1.8, 4.5, 4.5, 4.5, 4.5, and the published rule finds three groups. The relative gap counts
    perfect blocks of any sizes and similarities right, the normalised one those whose similarities are a third or more
    (errata, 2.12).

    Args:
        similarity: M, cosines or their absolute values, [T, T]; the diagonal is read as 1.

    Returns:
        The spectrum and the three numbers.

    Example:
        >>> blocks = torch.block_diag(torch.full((5, 5), 0.9), torch.full((2, 2), 0.9))
        >>> found = eigengap(blocks)
        >>> found.stated, found.relative, found.normalised
        (3, 2, 2)
    """
    weights = similarity.double().abs().fill_diagonal_(1.0)
    values = torch.linalg.eigvalsh(laplacian(weights))
    if len(values) < 3:
        return Eigengap(values, None, None, None)
    floor = values.clamp_min(0) * (values > _ZERO * values[-1])
    ratios = torch.where(floor[2:] > 0, 1 - floor[1:-1] / floor[2:], 0.0)
    scale = weights.sum(0).rsqrt()
    # With the diagonal of 1 a vector that is like no other is a group of its own, as L by itself would have it.
    smooth = torch.linalg.eigvalsh(torch.eye(len(weights)).double() - scale[:, None] * weights * scale)
    return Eigengap(values, _first(values.diff()[1:]), _first(ratios), _first(smooth.diff()[1:]))


def laplacian(weights: Tensor) -> Tensor:
    """Return L = D − |M|, the unnormalised Laplacian of the graph with weights |M_ij| (2.12).

    Args:
        weights: M, symmetric, [T, T]; the diagonal has no effect.

    Returns:
        L, float64, [T, T]; its rows add up to zero.

    Example:
        >>> laplacian(torch.tensor([[1.0, -0.5], [-0.5, 1.0]])).tolist()
        [[0.5, -0.5], [-0.5, 0.5]]
    """
    size = weights.double().abs()
    return torch.diag(size.sum(0)) - size


def _first(gaps: Tensor) -> int:
    """The number of groups of the largest gap; the first of several equal ones, up to rounding."""
    return int((gaps >= gaps.max() - 1e-12 * gaps.abs().max()).nonzero()[0]) + 2
