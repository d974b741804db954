"""Entries of an update that are zero, or too small for the type that weights are stored in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from diagnostics.results import Result, plain

__all__ = ["NARROW", "Entries", "count_entries", "half_step", "type_name"]

# Types that models are kept in, and in which small updates are lost.
NARROW = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Entries(Result):
    """Entries of an update that are zero, or smaller than a stored weight can show.

    Attributes:
        count: All entries.
        zeros: Entries that are exactly zero.
        below: By type, entries with |Δ| below half a step of that type at the base's value, zeros among them.
    """

    count: int = 0
    zeros: int = 0
    below: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: Entries) -> Entries:
        names = dict.fromkeys([*self.below, *other.below])
        below = {name: self.below.get(name, 0) + other.below.get(name, 0) for name in names}
        return Entries(self.count + other.count, self.zeros + other.zeros, below)

    @property
    def zero_share(self) -> float:
        """Share of entries that are exactly zero."""
        return self.zeros / self.count if self.count else math.nan

    @property
    def below_shares(self) -> dict[str, float]:
        """By type, the share of entries that storage in it would lose, zeros among them."""
        return {name: value / self.count if self.count else math.nan for name, value in self.below.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return counts and shares.

        Returns:
            A dictionary ready for JSON.
        """
        return super().to_dict() | plain({"zero_share": self.zero_share, "below_shares": self.below_shares})


def count_entries(base: Tensor, move: Tensor) -> Entries:
    """Count entries of an update that are zero or below half a step of a narrow type.

    Args:
        base: Values of the base, float64.
        move: The update, of the same shape.

    Returns:
        The counts.

    Example:
        >>> count_entries(torch.ones(3).double(), torch.tensor([0.0, 0.001, 0.01]).double()).below
        {'bfloat16': 2, 'float16': 1}
    """
    size = move.abs()
    below = {type_name(dtype): int((size < half_step(base, dtype)).sum()) for dtype in NARROW}
    return Entries(move.numel(), int((move == 0).sum()), below)


def half_step(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return half the distance between neighbours of a type: eps · 2^⌊log₂|w|⌋ / 2, the least change that can show.

    Args:
        values: Where on the number line, float64.
        dtype: The type.

    Returns:
        The half steps, of the same shape.

    Example:
        >>> half_step(torch.tensor([1.0, 3.0]).double(), torch.bfloat16).tolist()
        [0.00390625, 0.0078125]
    """
    limits = torch.finfo(dtype)
    exponent = torch.frexp(values.abs().clamp_min(limits.tiny)).exponent
    return torch.ldexp(torch.full_like(values, limits.eps / 4), exponent)


def type_name(dtype: torch.dtype) -> str:
    """Return a type's name without its package.

    Args:
        dtype: The type.

    Returns:
        The name.

    Example:
        >>> type_name(torch.bfloat16)
        'bfloat16'
    """
    return str(dtype).removeprefix("torch.")
