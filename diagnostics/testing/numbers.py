"""Strategies for numbers, vectors and coefficients that shrink to what can be checked by hand."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st

__all__ = ["arrays", "coefficients", "numbers", "symmetric", "task_vectors", "vectors_with_gram"]

# Parts of one that add up without rounding.
_PARTS = 16


@cache  # building a strategy costs more than drawing from it
def numbers(low: float = -4.0, high: float = 4.0) -> st.SearchStrategy[float]:
    """Draw numbers, most of them quarters of whole numbers, which shrink towards 0, 1, −1.

    Args:
        low: Least value.
        high: Largest value.

    Returns:
        A strategy for floats; none so small that products underflow.

    Example:
        >>> from hypothesis import find, settings
        >>> find(numbers(0, 4), lambda x: x > 1.5, settings=settings(database=None))
        2.0
    """
    whole = st.integers(int(np.ceil(low)), int(np.floor(high))).map(float)
    fine = st.integers(int(np.ceil(low * 4)), int(np.floor(high * 4))).map(lambda k: k / 4)
    anything = st.floats(low, high).map(lambda x: x if abs(x) > 1e-9 else 0.0)
    return st.one_of(whole, fine, anything)


@cache
def arrays(*shape: int, entries: st.SearchStrategy[float] | None = None) -> st.SearchStrategy[Any]:
    """Draw float64 arrays; every other one has no entry but −1, 0 and 1, where bounds are often attained.

    Args:
        shape: Their shape.
        entries: Strategy for the entries; ``numbers()`` by default, and then −1, 0 and 1 as well.

    Returns:
        A strategy for arrays.
    """
    count = int(np.prod(shape))
    listed = st.lists(numbers() if entries is None else entries, min_size=count, max_size=count)
    if entries is None:
        units = st.lists(st.sampled_from([0.0, 1.0, -1.0]), min_size=count, max_size=count)
        listed = units | listed
    return listed.map(lambda xs: np.array(xs, dtype=np.float64).reshape(shape))


@cache
@st.composite
def symmetric(draw: Any, dimension: int, *, positive: bool = False) -> Any:
    """Draw symmetric matrices: the identity, indefinite ones, singular ones and ties among them.

    Args:
        draw: Given by Hypothesis.
        dimension: d.
        positive: Whether they are positive semidefinite.

    Returns:
        An array [d, d].
    """
    if draw(st.booleans()):
        return np.eye(dimension)
    root = draw(arrays(dimension, dimension))
    return root @ root.T if positive else np.triu(root) + np.triu(root, 1).T


@cache
def task_vectors(count: int, dimension: int) -> st.SearchStrategy[Any]:
    """Draw task vectors; equal, opposite, orthogonal and zero ones are among them.

    Args:
        count: T.
        dimension: d.

    Returns:
        A strategy for arrays [T, d].
    """
    free = arrays(count, dimension)

    def from_first(rows: Any, factors: list[float]) -> Any:
        return np.stack([factor * rows[0] if factor else row for row, factor in zip(rows, factors, strict=True)])

    copies = st.lists(st.sampled_from([0.0, 1.0, -1.0, 2.0]), min_size=count, max_size=count)
    return st.one_of(free, st.builds(from_first, free, copies))


@st.composite
def vectors_with_gram(draw: Any, gram: Any, dimension: int | None = None) -> Any:
    """Draw task vectors with a given Gram matrix, turned any way.

    Args:
        draw: Given by Hypothesis.
        gram: G, positive semidefinite, [T, T].
        dimension: d, at least T; T by default.

    Returns:
        An array [T, d] with ⟨τ_i, τ_j⟩ = G_ij to rounding.

    Raises:
        ValueError: If G is not the Gram matrix of vectors, or d is too small.

    Example:
        >>> from hypothesis import find, settings
        >>> gram = np.array([[1.0, 0.5], [0.5, 1.0]])
        >>> rows = find(vectors_with_gram(gram, 3), lambda rows: True, settings=settings(database=None))
        >>> bool(np.allclose(rows @ rows.T, gram))
        True
    """
    gram = np.asarray(gram, dtype=np.float64)
    count = len(gram)
    dimension = count if dimension is None else dimension
    scale, basis = np.linalg.eigh(gram)
    if scale[0] < -1e-9 * max(abs(scale[-1]), 1.0) or not np.allclose(gram, gram.T):
        raise ValueError(f"gram: expected a symmetric positive semidefinite matrix; least eigenvalue {scale[0]:.3g}.")
    if dimension < count:
        raise ValueError(f"dimension: expected at least {count}, one for each vector; found {dimension}.")
    turn = np.linalg.qr(draw(arrays(dimension, dimension)) + 16 * np.eye(dimension))[0]
    return (basis * np.sqrt(np.maximum(scale, 0.0))) @ basis.T @ turn[:count]


@cache
def coefficients(count: int, kind: Literal["simplex", "box", "any"] = "any") -> st.SearchStrategy[Any]:
    """Draw sets of coefficients.

    Args:
        count: T.
        kind: On the simplex (sixteenths, which add up to one without rounding), in [0, 1], or anything from −2 to 3.

    Returns:
        A strategy for arrays [T].

    Example:
        >>> from hypothesis import find, settings
        >>> find(coefficients(3, "simplex"), lambda a: a[1] > 0.5, settings=settings(database=None)).sum()
        np.float64(1.0)
    """
    if kind == "simplex":
        corners = st.sampled_from(list(np.eye(count)))
        cuts = st.lists(st.integers(0, _PARTS), min_size=count - 1, max_size=count - 1).map(sorted)
        return corners | cuts.map(lambda inner: np.diff([0, *inner, _PARTS]) / _PARTS)
    return arrays(count, entries=numbers(0, 1) if kind == "box" else numbers(-2, 3))
