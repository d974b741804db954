"""Whether two sides are equal, or one below the other, as far as float64 can tell."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from diagnostics.exact import rounded_functions as _rounded_functions
from diagnostics.exact.rounding import Rounded

__all__ = ["Judgement", "Relation", "judge"]

del _rounded_functions  # importing it is what gives NumPy's functions their error rules

# A tolerance above this share of the sides says little: half of the digits are lost.
_BLUNT = 2.0**-26


class Relation(StrEnum):
    """How the left side of a claim stands to the right one."""

    EQUAL = "="
    AT_MOST = "<="


@dataclass(frozen=True)
class Judgement:
    """Two sides compared, in the entry where they fit the claim worst.

    Attributes:
        holds: False only where rounding cannot explain the difference.
        left: Left side there.
        right: Right side there.
        tolerance: What rounding can explain there.
        sharp: Whether the tolerance leaves at least half of the digits everywhere.
    """

    holds: bool
    left: float
    right: float
    tolerance: float
    sharp: bool

    @property
    def excess(self) -> float:
        """Left minus right."""
        return self.left - self.right

    @property
    def share(self) -> float | None:
        """Left side as a share of the right one; ``None`` where the right one is not above its rounding."""
        known = self.right > 0 and self.tolerance <= _BLUNT * self.right
        return self.left / self.right if known else None


def judge(left: Any, right: Any, relation: Relation, tolerance: float | None = None) -> Judgement:
    """Compare two sides entry by entry.

    Args:
        left: A number or array, ``Rounded`` where its error is followed.
        right: The same, of a shape that fits.
        relation: What is claimed.
        tolerance: What rounding can explain, where the sides do not know it.

    Returns:
        The judgement. A side that is not a number never fits.

    Raises:
        ValueError: If a side has no entries.

    Example:
        >>> third = Rounded(1.0) / 3
        >>> judge(third + third + third, Rounded(1.0), Relation.EQUAL).holds
        True
        >>> judge(Rounded(1.0) + 1e-15, Rounded(1.0), Relation.AT_MOST).holds
        False
    """
    left, right = _side(left), _side(right)
    allowed = np.asarray(left.error + right.error if tolerance is None else tolerance)
    with np.errstate(invalid="ignore"):  # two infinities of one sign, which are equal
        excess = left.value - right.value
    wrong = np.abs(excess) if relation is Relation.EQUAL else excess
    # A side that is not a number is neither equal nor below.
    wrong = np.where(left.value == right.value, 0.0, wrong)
    over = np.where(np.isnan(wrong) | np.isnan(allowed), np.inf, wrong - allowed)
    shape = np.broadcast_shapes(over.shape, left.shape, right.shape)
    if 0 in shape:
        raise ValueError(f"both sides of a claim need at least one entry; found shapes {left.shape} and {right.shape}")
    worst = int(np.argmax(over))
    one, other, room = (
        float(np.broadcast_to(each, shape).ravel()[worst]) for each in (left.value, right.value, allowed)
    )
    scale = np.maximum(np.abs(left.value), np.abs(right.value))
    sharp = bool(np.all((allowed <= _BLUNT * scale) | (allowed <= _BLUNT**2)))
    return Judgement(bool(np.max(over) <= 0), one, other, room, sharp)


def _side(item: Any) -> Rounded:
    """A side as Rounded."""
    if isinstance(item, Rounded):
        return item
    if isinstance(item, list | tuple):
        return np.stack([_side(each) for each in item])  # type: ignore[return-value]
    return Rounded(np.asarray(item, dtype=np.float64))
