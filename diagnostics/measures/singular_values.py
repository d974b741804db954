"""Singular values of a matrix as shares of its squared length, exact or between certain bounds.

Shares need squares alone, and those are eigenvalues of the Gram matrix: in float64 they are right to some 1e-13 of
‖A‖_F², so that nothing is lost to squaring the condition number, and no more than a block of A is held in float64.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diagnostics.errors import InputError, require_count, require_share
from diagnostics.measures.agreement import row_blocks
from diagnostics.results import Estimate, Result, Status, plain

__all__ = [
    "EXACT_UP_TO",
    "SingularValues",
    "principal_axes",
    "product_singular_values",
    "random_kept",
    "random_rank",
    "rank_text",
    "singular_values",
]

# Smaller side up to which all singular values are computed: seconds a matrix on one core at 4096.
EXACT_UP_TO = 4096
# Directions that a sketch of a larger matrix begins with and ends at, and its power iterations at each size.
_FIRST, _MOST, _POWERS = 16, 256, 2
# Rounding of a share: an eighth that is reached to rounding is reached.
_SLACK = 1e-12
# A rank known to one part in so many is settled.
_SETTLED = 20


@dataclass(frozen=True)
class SingularValues(Result):
    """The largest singular values of a matrix A, from below, with ‖A‖_F² known exactly.

    Attributes:
        shape: Rows and columns of A.
        square: ‖A‖_F².
        values: σ̂_1 ≥ σ̂_2 ≥ …, [k], float64: σ̂_i ≤ σ_i, and equal where ``complete``. Those below some 1e-7 of the
            largest are rounding.
        complete: Whether these are all of them, to rounding, so that every share is exact.
    """

    shape: tuple[int, int]
    square: float
    values: Tensor
    complete: bool

    @property
    def side(self) -> int:
        """Number p of singular values, the smaller side."""
        return min(self.shape)

    @property
    def unexplained(self) -> float:
        """Share of ‖A‖_F² outside the part that was computed; NaN for a zero matrix."""
        return max(0.0, 1 - float(self.values.square().sum()) / self.square) if self.square > 0 else math.nan

    @property
    def break_even(self) -> float:
        """The rank mn/(m + n) from which on two factors hold more numbers than the matrix."""
        return math.prod(self.shape) / sum(self.shape)

    def kept(self, rank: int) -> Estimate:
        """Return the share of ‖A‖_F² that the best approximation of a rank keeps, Σ_{i≤r} σ_i² / ‖A‖_F² (3.4).

        Where the spectrum is not complete, with R the squared length outside the part computed, the sum lies between
        Σ_{i≤r} σ̂_i², beyond k directions plus an even share of R, and Σ_{i≤r} σ̂_i² + R.

        Args:
            rank: r, from 0 on; above the smaller side it keeps everything.

        Returns:
            The share; undefined for a zero matrix.

        Example:
            >>> singular_values(torch.diag(torch.tensor([3.0, 1.0]))).kept(1).value
            0.9
        """
        require_count("rank", rank, 0)
        if not self.square > 0:
            return _undefined("a zero matrix has nothing to keep")
        low, high = self.bounds
        index = min(rank, self.side)
        lower, upper = float(low[index]), float(high[index])
        return Estimate(lower, lower, upper, 1.0, _settled(upper - lower <= 1 / _SETTLED, self.complete), self._how)

    def rank_for(self, share: float) -> Estimate:
        """Return the least rank that keeps a share of ‖A‖_F².

        Args:
            share: Between 0 and 1.

        Returns:
            The rank. Where it is not exact, it lies within the interval for certain, and the value is the upper end: a
            rank that suffices.

        Example:
            >>> values = singular_values(torch.diag(torch.tensor([3.0, 1.0])))
            >>> values.rank_for(0.9).value, values.rank_for(0.99).value
            (1.0, 2.0)
        """
        require_share("share", share, positive=True)
        if not self.square > 0:
            return _undefined("a zero matrix has nothing to keep")
        low, high = self.bounds
        least, enough = (int(np.argmax(bound >= share - _SLACK)) for bound in (high, low))
        settled = enough - least <= max(1, enough / _SETTLED)
        status = _settled(settled, self.complete or enough == least)
        return Estimate(float(enough), float(least), float(enough), 1.0, status, self._how)

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest share of ‖A‖_F² that ranks 0 … p keep, [p + 1] each; undefined for a zero matrix."""
        known = np.cumsum(np.append(0.0, np.square(self.values.numpy()))) / self.square
        rest = 0.0 if self.complete else max(0.0, 1 - float(known[-1]))
        # Of the values that were not found, the largest hold at least an even share.
        even = np.linspace(0, rest, self.side - len(self.values) + 1)[1:]
        lower = np.minimum(np.append(known, known[-1] + even), 1.0)
        upper = np.minimum(np.append(known, np.full(len(even), known[-1])) + rest, 1.0)
        upper[0] = 0.0
        lower[-1] = upper[-1] = 1.0
        return lower, upper

    @property
    def _how(self) -> str:
        """How the values were found."""
        if self.complete:
            return f"all {self.side} singular values"
        return (
            f"{len(self.values)} of {self.side} directions computed, {self.unexplained:.2%} of the squared length "
            "outside them; for the exact rank raise exact_up_to"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the spectrum by what ranks keep, thinned to powers of two.

        Returns:
            A dictionary ready for JSON.
        """
        ranks = [2**power for power in range(self.side.bit_length())]
        kept = {rank: self.kept(rank) for rank in ranks} if self.square > 0 else {}
        fields = {
            "shape": self.shape,
            "square": self.square,
            "complete": self.complete,
            "unexplained": self.unexplained,
            "break_even": self.break_even,
            "kept_at_least": {rank: share.lower for rank, share in kept.items()},
            "kept_at_most": {rank: share.upper for rank, share in kept.items()},
        }
        return plain(fields)

    def __str__(self) -> str:
        ranks = ", ".join(f"{rank_text(self.rank_for(share))} for {share:.0%}" for share in (0.9, 0.99))
        return f"{self.shape[0]}×{self.shape[1]}, rank {ranks}"


def singular_values(
    matrix: Tensor, minus: Tensor | None = None, *, exact_up_to: int = EXACT_UP_TO, most: int = _MOST, seed: int = 0
) -> SingularValues:
    """Return the singular values of A, or of a difference A − B, in float64.

    Up to ``exact_up_to`` they are square roots of eigenvalues of AᵀA. Beyond, a subspace of 16, 32, … random directions
    is iterated on AᵀA; by Cauchy interlacing its Ritz values are lower bounds of the σ_i². It grows until no more than
    1e-6 of ‖A‖_F² lies outside, as it does at once for a low-rank update, or to ``most``.

    Args:
        matrix: A, [m, n].
        minus: B, of the same shape, where the difference is meant.
        exact_up_to: Smaller side up to which all values are computed.
        most: Directions at most beyond that.
        seed: Of the random directions.

    Returns:
        The values.

    Raises:
        InputError: If A is not a matrix with entries, or not finite.

    Example:
        >>> singular_values(torch.tensor([[3.0, 0.0], [4.0, 0.0]])).values.tolist()
        [5.0, 0.0]
    """
    if matrix.ndim != 2 or matrix.numel() == 0 or (minus is not None and minus.shape != matrix.shape):
        found = [list(each.shape) for each in (matrix, minus) if each is not None]
        raise InputError(f"matrix: expected a matrix with entries, or two of one shape; found {found}.")
    require_count("most", most)
    shape = (matrix.shape[0], matrix.shape[1])
    # The smaller side goes last: the Gram matrix is as small as it can be.
    pair = [each if shape[0] >= shape[1] else each.T for each in (matrix, minus) if each is not None]
    square = sum(float(block.square().sum()) for block in _blocks(pair))
    if not math.isfinite(square):
        raise InputError("matrix: expected finite entries whose squares are finite; found others.")
    side = min(shape)
    if side <= exact_up_to:
        return SingularValues(shape, square, _roots(torch.linalg.eigvalsh(_gram(pair))), True)
    return SingularValues(shape, square, _sketched(pair, side, square, min(most, side), seed), False)


def principal_axes(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared singular values and right singular vectors, the largest first: A V_r V_rᵀ is the best of rank r.

    Args:
        matrix: A, [m, n] with 1 ≤ n ≤ m; pass the transpose of a wide one.

    Returns:
        σ_i², [n], and V, [n, n], float64.

    Example:
        >>> squares, axes = principal_axes(torch.diag(torch.tensor([1.0, 2.0])))
        >>> squares.tolist(), axes[:, 0].abs().tolist()
        ([4.0, 1.0], [0.0, 1.0])
    """
    values, vectors = torch.linalg.eigh(_gram([matrix]))
    return values.clamp_min(0).flip(0), vectors.flip(1)


def product_singular_values(up: Tensor, down: Tensor, scale: float = 1.0) -> SingularValues:
    """Return the singular values of s · B A from its factors: those of s · R_B R_Aᵀ after QR of B and Aᵀ.

    Args:
        up: B, [m, r].
        down: A, [r, n].
        scale: s.

    Returns:
        The values, at most r of them; exact.

    Example:
        >>> product_singular_values(torch.tensor([[3.0], [4.0]]), torch.tensor([[0.0, 1.0]]), 2.0).values.tolist()
        [10.0]
    """
    first = torch.linalg.qr(up.double(), mode="r").R
    second = torch.linalg.qr(down.double().T, mode="r").R
    values = torch.linalg.svdvals(scale * first @ second.T)
    return SingularValues((up.shape[0], down.shape[1]), float(values.square().sum()), values, True)


def random_kept(shape: tuple[int, int], rank: int) -> float:
    """Return the share that a rank keeps of a large matrix of independent entries (law of Marchenko and Pastur).

    With β = p/q for the sides p ≤ q and σ²/q = 1 + β + 2√β cos φ, the values from the largest down to φ are a share
    (2/π) ∫₀^φ sin²u / (1 + β + 2√β cos u) du of all, and hold a share (φ − sin φ cos φ)/π of the squares.

    Args:
        shape: Rows and columns.
        rank: r.

    Returns:
        The share.

    Example:
        >>> round(random_kept((1000, 1000), 100), 3), round(random_kept((1000, 1000), 1000), 3)
        (0.314, 1.0)
    """
    counted, held = _marchenko_pastur(shape)
    return float(np.interp(rank / min(shape), counted, held))


def random_rank(shape: tuple[int, int], share: float) -> int:
    """Return the rank that keeps a share of a large matrix with independent entries: the null of a rank needed.

    Args:
        shape: Rows and columns.
        share: Between 0 and 1.

    Returns:
        The rank.

    Example:
        >>> random_rank((1000, 1000), 0.9), random_rank((4000, 1000), 0.9)
        (510, 762)
    """
    require_share("share", share, positive=True)
    counted, held = _marchenko_pastur(shape)
    return math.ceil(min(shape) * float(np.interp(share, held, counted)) - 1e-9)


def rank_text(rank: Estimate) -> str:
    """Write a rank, or the range in which it lies.

    Args:
        rank: From :meth:`SingularValues.rank_for`.

    Returns:
        Its text.

    Example:
        >>> rank_text(singular_values(torch.eye(10)).rank_for(0.9))
        '9'
    """
    if math.isnan(rank.value):
        return "undefined"
    return f"{rank.value:g}" if rank.lower == rank.upper else f"{rank.lower:g} to {rank.upper:g}"


def _marchenko_pastur(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Share of the values and share of their squares, from the largest down, on a grid of angles."""
    beta = min(shape) / max(shape)
    angle = np.linspace(0, math.pi, 8193)
    middle = (angle[1:] + angle[:-1]) / 2
    density = np.sin(middle) ** 2 / (1 + beta + 2 * math.sqrt(beta) * np.cos(middle))
    counted = np.cumsum(np.append(0.0, density))
    return counted / counted[-1], (angle - np.sin(angle) * np.cos(angle)) / math.pi


def _blocks(pair: list[Tensor]) -> Iterator[Tensor]:
    """Rows of A, or of A − B, in float64."""
    for parts in row_blocks(*pair):
        yield parts[0] - parts[1] if len(parts) == 2 else parts[0]


def _gram(pair: list[Tensor]) -> Tensor:
    """AᵀA."""
    return functools.reduce(operator.add, (block.T @ block for block in _blocks(pair)))


def _roots(squares: Tensor) -> Tensor:
    """Singular values out of eigenvalues in ascending order."""
    return squares.clamp_min(0).sqrt().flip(0)


def _sketched(pair: list[Tensor], side: int, square: float, most: int, seed: int) -> Tensor:
    """Lower bounds of the largest singular values: Ritz values of AᵀA on a subspace that grows."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.zeros(side, 0)
    size = min(_FIRST, most)
    while True:
        fresh = torch.randn(side, size - basis.shape[1], generator=generator, dtype=torch.float64)
        basis = torch.linalg.qr(torch.cat([basis, fresh], dim=1)).Q
        for _ in range(_POWERS):
            image, _ = _apply(pair, basis)
            # A matrix of low rank leaves columns of zeros, for which QR still gives orthonormal ones.
            basis = torch.linalg.qr(image).Q
        values = _roots(torch.linalg.eigvalsh(_apply(pair, basis)[1]))
        if size == most or float(values.square().sum()) >= (1 - 1e-6) * square:
            return values
        size = min(2 * size, most)


def _apply(pair: list[Tensor], basis: Tensor) -> tuple[Tensor, Tensor]:
    """AᵀAQ and QᵀAᵀAQ, from one pass over A."""
    image = torch.zeros_like(basis)
    gram = torch.zeros(2 * basis.shape[1:], dtype=torch.float64)
    for block in _blocks(pair):
        part = block @ basis
        image += block.T @ part
        gram += part.T @ part
    return image, gram


def _settled(settled: bool, exact: bool) -> Status:
    """How far bounds can be trusted."""
    return Status.EXACT if exact else Status.CONVERGED if settled else Status.NOT_CONVERGED


def _undefined(why: str) -> Estimate:
    """An estimate of nothing."""
    return Estimate(math.nan, math.nan, math.nan, 1.0, Status.UNDEFINED, why)
