"""Strategies for first gradients beside task vectors, as the merge error (1.1) sees them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st

from diagnostics.exact.gradients import FirstGradients
from diagnostics.testing.numbers import arrays, coefficients, numbers

__all__ = ["first_gradients"]


# Steps that float64 can tell from none.
_STEPS = numbers().filter(lambda x: abs(x) > 0.1)


@cache
def _nonzero(dimension: int) -> st.SearchStrategy[Any]:
    """Vectors with a direction."""
    return arrays(dimension).filter(lambda row: (row != 0).any())


@cache  # building a strategy costs more than drawing from it
@st.composite
def first_gradients(draw: Any, dimension: int, *, aligned: bool = False, count: int | None = None) -> FirstGradients:
    """Draw task vectors and gradients of a target and its components.

    Args:
        draw: Given by Hypothesis.
        dimension: d.
        aligned: Whether every task vector is a multiple of its gradient.
        count: K; from 1 to 3 by default.

    Returns:
        A case in which no gradient is zero or orthogonal to its task vector.
    """
    number = (draw(st.integers(1, 3)) if count is None else count) + 1
    gradients = np.stack([draw(_nonzero(dimension)) for _ in range(number)])
    steps = [draw(_STEPS) for _ in range(number)]
    vectors = np.stack([step * row for step, row in zip(steps, gradients, strict=True)])
    if not aligned:
        vectors = vectors + draw(arrays(number, dimension))
        inner = (vectors * gradients).sum(1)
        vectors = vectors + np.where(abs(inner) > 0.1, 0.0, 1.0)[:, None] * gradients
        short = abs((vectors * gradients).sum(1)) <= 0.01
        vectors = np.where(short[:, None], gradients, vectors)
    return FirstGradients(vectors, gradients, draw(coefficients(number - 1)))
