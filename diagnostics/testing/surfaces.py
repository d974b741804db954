"""Strategies for outputs that are polynomials in the coefficients of two experts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from diagnostics.exact.surface import Surface
from diagnostics.testing.numbers import arrays, numbers

__all__ = ["surfaces"]


def surfaces(pattern: Callable[[int, int], bool], low: float = 0.0, high: float = 1.0) -> st.SearchStrategy[Surface]:
    """Draw outputs that have some monomials only.

    Args:
        pattern: Whether λ_i^p λ_j^q is one of them.
        low: Least coefficient of either expert.
        high: Largest.

    Returns:
        A strategy for surfaces.

    Example:
        >>> from hypothesis import find, settings
        >>> line = find(surfaces(lambda p, q: p == 1), lambda f: f.own > 0, settings=settings(database=None))
        >>> float(line.value(1.0, 0.0)), line.own
        (0.0, 1.0)
    """
    kept = np.array([[float(p + q <= 4 and pattern(p, q)) for q in range(5)] for p in range(5)])
    places = numbers(low, high)
    return st.builds(lambda table, own, partner: Surface(table * kept, own, partner), arrays(5, 5), places, places)
