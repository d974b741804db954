"""What random vectors do: the floor against which a measured similarity is read (2.9)."""

from __future__ import annotations

import math

from diagnostics.errors import InputError

__all__ = ["null_cosine"]


def null_cosine(dimension: int) -> float:
    """Return E|cos| of independent random directions, Γ(r/2) / (√π Γ((r+1)/2)), about sqrt(2/(πr)).

    Args:
        dimension: r.

    Returns:
        The expectation, exact in every dimension.

    Raises:
        InputError: If the dimension is not positive.

    Example:
        >>> null_cosine(1), round(null_cosine(2), 6), round(null_cosine(3), 6)
        (1.0, 0.63662, 0.5)
    """
    if dimension < 1:
        raise InputError(f"dimension: expected at least 1; found {dimension}.")
    return min(1.0, math.exp(math.lgamma(dimension / 2) - math.lgamma((dimension + 1) / 2)) / math.sqrt(math.pi))
