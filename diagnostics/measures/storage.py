"""What rounding to a storage type leaves of an update: the share of zeros, and the cosine with the true update.

bfloat16 keeps 8 bits of a number: a weight of 0.02 has steps of 0.0001, and smaller updates of it are lost.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import erfc
from torch import Tensor

from diagnostics.measures.agreement import as_matrix, row_blocks

__all__ = ["LOST", "Rounding", "Stage", "coarsest", "expected_rounding", "measure_rounding", "resolution"]

# Share of the squared length of an update that may be rounding before it is worth a word.
LOST = 0.1

# Types that a tensor may have been rounded to before it was stored wider, the coarsest first.
_COARSE = (torch.bfloat16, torch.float16, torch.float32)
# Entries looked at to tell whether a tensor was rounded; a tensor that was not gives it away much sooner.
_PROBE = 1 << 16
# Beyond so many steps, rounding is noise of variance step²/12; up to there its sum needs so many terms.
_STEPS, _TERMS = 8.0, 64
# Largest step, against the typical change, at which rounding need not be looked at.
_NEGLIGIBLE = 0.01


class Stage(StrEnum):
    """When an update was rounded, or would be."""

    TOGETHER = "base and expert are rounded"
    EXPERT = "the expert alone is rounded"
    SAVING = "the base is rounded and the expert is not"


@dataclass(frozen=True)
class Rounding:
    """Sums over the entries of one or more tensors: the true update, what storage keeps of it, and their product.

    Attributes:
        true: ‖δ‖², measured or estimated.
        kept: ‖τ‖² of the update after rounding.
        product: ⟨δ, τ⟩, measured or estimated.
        zeros: Entries that rounding leaves without a change.
        count: Entries of rows that changed at all.
    """

    true: float = 0.0
    kept: float = 0.0
    product: float = 0.0
    zeros: int = 0
    count: int = 0

    def __add__(self, other: Rounding) -> Rounding:
        return Rounding(
            self.true + other.true,
            self.kept + other.kept,
            self.product + other.product,
            self.zeros + other.zeros,
            self.count + other.count,
        )

    @property
    def cosine(self) -> float:
        """Cosine of the update before and after rounding; zero where nothing is left of it."""
        scale = math.sqrt(self.true * self.kept)
        return min(1.0, self.product / scale) if scale > 0 else 0.0

    @property
    def lost(self) -> float:
        """Share of the squared length of the rounded update that is not the update's."""
        return 1 - self.cosine**2

    @property
    def zero_share(self) -> float:
        """Share of entries without a change, among rows that changed."""
        return self.zeros / self.count if self.count else 0.0


def resolution(tensor: Tensor) -> torch.dtype:
    """Return the coarsest type that holds a tensor's values, which may have been rounded before they were stored.

    Args:
        tensor: Any floating-point tensor.

    Returns:
        A type, never finer than the tensor's own.

    Example:
        >>> resolution(torch.tensor([1.0, 1.5])), resolution(torch.tensor([0.1]))
        (torch.bfloat16, torch.float32)
    """
    # Spread over the tensor: rows of zeros, say for tokens never seen, are held by any type.
    sample = tensor.flatten()[:: max(1, tensor.numel() // _PROBE)]
    own = torch.finfo(tensor.dtype).eps
    held = (dtype for dtype in _COARSE if torch.finfo(dtype).eps > own)
    return next((dtype for dtype in held if torch.equal(sample.to(dtype).to(tensor.dtype), sample)), tensor.dtype)


def measure_rounding(base: Tensor, expert: Tensor) -> tuple[Stage, torch.dtype, Rounding]:
    """Measure or estimate what rounding leaves of an update.

    Where the expert is finer than the base, the loss from storing a merge as the base is stored is measured. Where
    it is coarser, rounding the base alone shows how much of τ is rounding. Where both are rounded, the true update
    is gone: its size is estimated as that of the normal update that, rounded, has the length of τ.

    Args:
        base: A tensor of the base.
        expert: The same tensor of the expert.

    Returns:
        The stage, the type rounded to, and the sums.

    Example:
        >>> stage, dtype, found = measure_rounding(torch.ones(4).bfloat16(), torch.ones(4) + 0.001)
        >>> stage.name, dtype, found.zero_share, found.cosine
        ('SAVING', torch.bfloat16, 1.0, 0.0)
    """
    first, second = as_matrix(base), as_matrix(expert)
    before, after = resolution(base), resolution(expert)
    if torch.finfo(after).eps < torch.finfo(before).eps:
        return Stage.SAVING, base.dtype, _on_saving(first, second, base.dtype)
    if torch.finfo(after).eps > torch.finfo(before).eps:
        return Stage.EXPERT, after, _expert_alone(first, second, after)
    return Stage.TOGETHER, after, _together(first, second, after)


def coarsest(*dtypes: torch.dtype) -> torch.dtype:
    """Return the type with the largest steps.

    Args:
        dtypes: Floating-point types.

    Returns:
        One of them.

    Example:
        >>> coarsest(torch.float32, torch.bfloat16, torch.float16)
        torch.bfloat16
    """
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)


@dataclass(frozen=True)
class Expected:
    """What rounding is expected to make of a normal update δ: E⟨δ, τ⟩, E‖τ‖² and E of the number of zeros."""

    product: float
    kept: float
    zeros: float


def expected_rounding(steps: np.ndarray, counts: np.ndarray, scale: float, *, on_grid: bool) -> Expected:
    """Return what is left of a normal update of standard deviation s, for entries stored in steps of u.

    A base that was rounded before training lies on the grid: with t_n = (n + ½)u, E δτ = 2su Σ φ(t_n/s) and
    E τ² = 2u² Σ (2n+1) P(δ > t_n). A base that was rounded after training, as the expert was, lay anywhere between
    two steps: E δτ = s² and E τ² = u² (h_0 + 2h_1 + 2h_2 + …) with h_n = E max(|δ|/u − n, 0).

    Args:
        steps: Sizes u of steps, one for each kind of entry.
        counts: Number of entries of each kind.
        scale: s.
        on_grid: Whether training began from the rounded base.

    Returns:
        The sums over all entries.

    Example:
        >>> import numpy as np
        >>> found = expected_rounding(np.array([1e-6]), np.array([1]), 1.0, on_grid=True)
        >>> round(found.product, 4), round(found.kept, 4), found.zeros < 1e-6
        (1.0, 1.0, True)
    """
    ratio = (np.maximum(scale / steps, 1e-6))[:, None]
    n = np.arange(_TERMS)
    if on_grid:
        edges = (n + 0.5) / ratio
        product = 2 * scale * steps * _density(edges).sum(1)
        kept = steps**2 * (2 * (2 * n + 1) * _tail(edges)).sum(1)
        zeros = 1 - 2 * _tail(edges[:, 0])
    else:
        above = 2 * (ratio * _density(n / ratio) - n * _tail(n / ratio))
        product = np.full_like(steps, scale**2)
        kept = steps**2 * (2 * above.sum(1) - above[:, 0])
        zeros = 1 - above[:, 0] + above[:, 1]
    fine = scale > _STEPS * steps
    product = np.where(fine, scale**2, product)
    kept = np.where(fine, scale**2 + steps**2 / (12 if on_grid else 6), kept)
    return Expected(float(counts @ product), float(counts @ kept), float(counts @ zeros))


def _density(values: np.ndarray) -> np.ndarray:
    """The standard normal density."""
    return np.exp(-(values**2) / 2) / math.sqrt(2 * math.pi)


def _tail(values: np.ndarray) -> np.ndarray:
    """P(Z > value) of a standard normal Z."""
    return erfc(values / math.sqrt(2)) / 2


def _together(base: Tensor, expert: Tensor, dtype: torch.dtype) -> Rounding:
    """An update of which only the rounded form is left, by the steps of the base's entries."""
    kept, zeros, count, largest = 0.0, 0, 0, 0.0
    for a, b in _changed_rows(base, expert):
        move = b - a
        kept += float((move**2).sum())
        zeros += int((move == 0).sum())
        count += move.numel()
        largest = max(largest, float(a.abs().max()))
    if kept == 0:
        return Rounding()
    if torch.finfo(dtype).eps * largest < _NEGLIGIBLE * math.sqrt(kept / count):
        return Rounding(kept, kept, kept, zeros, count)
    steps, counts = _steps(base, expert, dtype)
    fits = [_fit(steps, counts, kept, on_grid) for on_grid in (True, False)]
    # Both explain the length of τ; where its zeros lie tells which of them happened.
    scale, expected = min(fits, key=lambda fit: abs(fit[1].zeros - zeros))
    return Rounding(count * scale**2, kept, expected.product, zeros, count)


def _changed_rows(base: Tensor, expert: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows with a change: those without (tokens never seen) were not trained, and not rounded away."""
    for a, b in row_blocks(base, expert):
        changed = (a != b).any(1)
        if bool(changed.any()):
            yield (a, b) if bool(changed.all()) else (a[changed], b[changed])


def _steps(base: Tensor, expert: Tensor, dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of the steps in which the base's entries are stored, and how many entries have each."""
    limits = torch.finfo(dtype)
    exponents: Counter[int] = Counter()
    for a, _ in _changed_rows(base, expert):
        found, sizes = torch.frexp(a.abs().clamp_min(limits.tiny)).exponent.unique(return_counts=True)
        exponents.update(dict(zip(found.tolist(), sizes.tolist(), strict=True)))
    sizes = np.array(list(exponents), dtype=float) - 1
    return limits.eps * 2.0**sizes, np.array(list(exponents.values()), dtype=float)


def _fit(steps: np.ndarray, counts: np.ndarray, kept: float, on_grid: bool) -> tuple[float, Expected]:
    """The standard deviation at which the rounded update has the length observed, and what else it gives."""
    low, high = float(steps.min()) / 100, 10 * max(float(steps.max()), math.sqrt(kept / counts.sum()))

    def excess(log_scale: float) -> float:
        """Expected less observed squared length."""
        return expected_rounding(steps, counts, math.exp(log_scale), on_grid=on_grid).kept / kept - 1

    while excess(math.log(low)) > 0:
        low /= 100
    scale = math.exp(brentq(excess, math.log(low), math.log(high), xtol=1e-4))
    return scale, expected_rounding(steps, counts, scale, on_grid=on_grid)


def _expert_alone(base: Tensor, expert: Tensor, dtype: torch.dtype) -> Rounding:
    """An update of which some is the base's own rounding, independent of the rest."""
    total = Rounding()
    for a, b in row_blocks(base, expert):
        rounded = _round(a, dtype)
        kept, noise = float(((b - a) ** 2).sum()), float(((rounded - a) ** 2).sum())
        total += Rounding(0.0, kept, noise, int((b == rounded).sum()), a.numel())
    true = max(total.kept - total.product, 0.0)
    return Rounding(true, total.kept, true, total.zeros, total.count)


def _on_saving(base: Tensor, expert: Tensor, dtype: torch.dtype) -> Rounding:
    """An update that is whole, and what would be left of it after rounding to a type."""
    total = Rounding()
    for a, b in _changed_rows(base, expert):
        move, left = b - a, _round(b, dtype) - a
        sums = (float((move**2).sum()), float((left**2).sum()), float((move * left).sum()))
        total += Rounding(*sums, int((left == 0).sum()), move.numel())
    return total


def _round(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Values after storage; those beyond the type's range stay at its ends."""
    limits = torch.finfo(dtype)
    return values.clamp(limits.min, limits.max).to(dtype).double()
