"""(4.2) Angles between the columns of an update: a measure without a scale, its floor and what chance gives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.integrate import quad

from diagnostics.exact.random_vectors import null_cosine
from diagnostics.exact.relations import Relation
from diagnostics.exact.rounding import values
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant

__all__ = ["DERIVATIONS"]

_SOURCE = "Liu 2026, on the orthogonality of weight vectors"


def _columns(size: int) -> Any:
    """Two columns or more with a direction each, and a factor for each."""
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import arrays

    factors = st.sampled_from([1.0, -1.0, 2.0, 0.5])

    def of(count: int) -> Any:
        known = arrays(size, count).filter(lambda a: (abs(a).max(0) > 0.1).all())
        return st.tuples(known, st.lists(factors, min_size=count, max_size=count).map(np.array))

    return st.integers(2, size + 2).flatmap(of)


def _unit(update: Any) -> Any:
    return update / np.sqrt((update**2).sum(0))


def _off_identity(update: Any) -> Any:
    """‖Ĝ − I‖_F²/(n(n − 1)) of the Gram matrix of a matrix's columns."""
    count = update.shape[1]
    return ((update.T @ update - np.eye(count)) ** 2).sum() / (count * (count - 1))


def _mean_square(update: Any) -> Any:
    """Mean cos² over the pairs k ≠ l, one by one."""
    count = update.shape[1]
    total = 0.0
    for k in range(count):
        for other in range(k):
            one, two = update[:, k], update[:, other]
            total = total + (one @ two) ** 2 / ((one @ one) * (two @ two))
    return 2 * total / (count * (count - 1))


SCALE = Derivation(
    id="4.2-scale",
    title="‖Ĝ − I‖_F²/(n(n − 1)) of normalised columns is the mean cos² of their pairs, whatever their lengths.",
    source=_SOURCE,
    kind=Kind.DEFINITION,
    claim=Claim(
        statement=r"\frac{\Vert \hat W^\top \hat W - I \Vert_F^2}{n(n-1)} = \frac{2}{n(n-1)} \sum_{k < l} \cos^2 "
        r"\angle(w_k, w_l), \quad \hat w_k = w_k / \Vert w_k \Vert",
        left=lambda case: _off_identity(_unit(case[0])),
        right=lambda case: _mean_square(case[0] * case[1]),
        relation=Relation.EQUAL,
        cases=_columns,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("columns of any length, as in the penalty", left=lambda case: _off_identity(case[0] * case[1])),
        Mutant("each pair once", right=lambda case: _mean_square(case[0]) / 2),
        Mutant("with a column itself", right=lambda case: _mean_square(case[0]) + 1.0),
    ),
    proof=(
        "The diagonal of Ĝ is 1, and every pair is there twice. Factors of columns drop out, which those of (4.3) do "
        "not: the penalty of tI in r dimensions is r(t² − 1)²."
    ),
    code=("diagnostics.orthogonality",),
)


def _floor(case: Any) -> Any:
    """Welch's bound (n − r)/(r(n − 1))."""
    rows, count = case[0].shape
    return max(0.0, (count - rows) / (rows * (count - 1)))


def _larger_floor(case: Any) -> float:
    rows, count = case[0].shape
    return max(0.0, (count - rows) / (rows * (count - 1) - 0.5))


FLOOR = Derivation(
    id="4.2-floor",
    title="More columns than rows cannot be orthogonal: their mean cos² is at least (n − r)/(r(n − 1)).",
    source=f"Welch's bound, for {_SOURCE}",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"\frac{n - r}{r(n - 1)} \le \frac{2}{n(n-1)} \sum_{k < l} \cos^2 \angle(w_k, w_l), \quad w_1, "
        r"\dots, w_n \in \mathbb{R}^r",
        left=_floor,
        right=lambda case: _mean_square(case[0]),
        relation=Relation.AT_MOST,
        cases=_columns,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("a little more", left=_larger_floor),
        Mutant("1/r, what chance gives", left=lambda case: 1.0 / case[0].shape[0]),
    ),
    proof=(
        "ŴŴᵀ is r × r with trace n, so ‖ŴŴᵀ‖_F² ≥ n²/r; and ‖ŴŴᵀ‖_F² = ‖ŴᵀŴ‖_F² is n plus n(n − 1) times the mean "
        "cos². It is attained by frames with ŴŴᵀ = (n/r)I."
    ),
    code=("diagnostics.orthogonality",),
)


def _dimensions(size: int) -> Any:
    from hypothesis import strategies as st

    return st.integers(4 ** (size - 1), 4**size)


def _moment(dimension: int, power: int) -> float:
    """E|cos φ|^p over angles with density sin^(r−2) φ; two directions are all there are in one dimension."""
    if dimension == 1:
        return 1.0
    exact = {"epsabs": 1e-14, "epsrel": 1e-12}

    def integral(exponent: int) -> float:
        found, _ = quad(lambda a: math.cos(a) ** exponent * math.sin(a) ** (dimension - 2), 0, math.pi / 2, **exact)
        return float(found)

    return integral(power) / integral(0)


def _spread(dimension: int) -> Any:
    """E cos², the variance of |cos| and that of cos²."""
    one, two, four = (_moment(values(dimension), power) for power in (1, 2, 4))
    return np.array([two, two - one**2, four - two**2])


def _closed(dimension: int) -> Any:
    rank = float(dimension)
    square = 3 / (rank * (rank + 2)) - 1 / rank**2
    return np.array([1 / rank, 1 / rank - null_cosine(dimension) ** 2, square])


CHANCE = Derivation(
    id="4.2-chance",
    title="For random columns of length r, cos² has mean 1/r and |cos| the variance 1/r − (E|cos|)².",
    source="moments of a random direction",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"\mathbb{E}\cos^2 = \frac1r, \quad \mathrm{Var}|\cos| = \frac1r - \frac{\Gamma(r/2)^2}{\pi\, "
        r"\Gamma((r+1)/2)^2}, \quad \mathrm{Var}\cos^2 = \frac{3}{r(r+2)} - \frac{1}{r^2}",
        left=_spread,
        right=_closed,
        relation=Relation.EQUAL,
        cases=_dimensions,
        # Ten times what the quadrature is asked for, of numbers of the size of 1/r.
        tolerance=lambda dimension: 1e-11 / dimension,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("√(2/(πr)) for E|cos|", right=lambda dimension: _asymptotic(dimension)),
        Mutant("one dimension more", right=lambda dimension: _closed(dimension + 1)),
    ),
    proof=(
        "The squares of the r coordinates of a unit vector have the same mean and add up to one; E cos⁴ = 3/(r(r + 2)) "
        "is the fourth moment of one. Pairs with a column in common are uncorrelated, because all directions look "
        "alike from any one, so a mean over N pairs has the variance of one over N."
    ),
    code=("diagnostics.orthogonality", "diagnostics.exact.random_vectors.null_cosine"),
)


def _asymptotic(dimension: int) -> Any:
    found = _closed(dimension)
    found[1] = (1 - 2 / math.pi) / dimension
    return found


DERIVATIONS = (SCALE, FLOOR, CHANCE)
