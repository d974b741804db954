"""The error that a number carries covers its distance from the exact value, which fractions and mpmath know."""

import dataclasses
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from diagnostics.exact.relations import Relation, judge
from diagnostics.exact.rounding import Rounded, lift, values

mpmath.mp.prec = 300
finite = st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6)
positive = st.floats(1e-6, 1e6)
small = st.floats(-20, 20)


def covers(number, exact):
    """Whether |value − exact| ≤ error, in exact arithmetic."""
    return abs(Fraction(float(number.value)) - exact) <= Fraction(float(number.error))


@given(a=finite, b=finite, c=finite, d=finite)
def test_rational_expressions(a, b, c, d):
    assume(c * d - b != 0)
    x, y, z, w = (Rounded(each) for each in (a, b, c, d))
    p, q, r, s = (Fraction(each) for each in (a, b, c, d))
    assert covers(x * y - z, p * q - r)
    assert covers((x + y) * (x - y), (p + q) * (p - q))
    assert covers(x**3 - abs(y) + 2 * z, p**3 - abs(q) + 2 * r)
    assume(Fraction(c) * Fraction(d) != Fraction(b))
    assert covers(x / (z * w - y), p / (r * s - q))


@given(
    rows=st.lists(st.lists(finite, min_size=3, max_size=3), min_size=2, max_size=3),
    x=st.lists(finite, min_size=3, max_size=3),
)
def test_products_and_sums(rows, x):
    matrix, vector = Rounded(np.array(rows)), Rounded(np.array(x))
    exact = [sum((Fraction(a) * Fraction(b) for a, b in zip(row, x, strict=True)), Fraction(0)) for row in rows]
    for found, want in zip(matrix @ vector, exact, strict=True):
        assert covers(found, want)
    for found, want in zip(np.einsum("ij,j->i", matrix, vector), exact, strict=True):
        assert covers(found, want)
    total = sum((Fraction(each) for row in rows for each in row), Fraction(0))
    assert covers(matrix.sum(), total)
    assert covers(np.mean(matrix), total / (3 * len(rows)))
    inner = (matrix @ vector) @ (matrix @ vector)
    assert covers(inner, sum(each**2 for each in exact))


@given(x=positive, y=small, z=small)
def test_roots_and_transcendental_functions(x, y, z):
    pairs = [
        (np.sqrt(Rounded(x) * y * y + 1), mpmath.sqrt(mpmath.mpf(x) * mpmath.mpf(y) ** 2 + 1)),
        (np.exp(Rounded(y) - Rounded(z) / 3), mpmath.exp(mpmath.mpf(y) - mpmath.mpf(z) / 3)),
        (np.log(Rounded(x) / 7), mpmath.log(mpmath.mpf(x) / 7)),
        (np.cos(Rounded(y) / 3), mpmath.cos(mpmath.mpf(y) / 3)),
        (np.sin(Rounded(y) / 3), mpmath.sin(mpmath.mpf(y) / 3)),
        (np.tanh(Rounded(y) / 3), mpmath.tanh(mpmath.mpf(y) / 3)),
    ]
    for number, exact in pairs:
        assert abs(mpmath.mpf(float(number.value)) - exact) <= mpmath.mpf(float(number.error)), (number, exact)


@given(data=st.data(), size=st.integers(1, 4))
def test_eigenvalues_singular_values_and_solutions(data, size):
    entries = st.lists(st.integers(-5, 5).map(float), min_size=size * size, max_size=size * size)
    root = np.array(data.draw(entries)).reshape(size, size)
    matrix = root + root.T
    exact = sorted(mpmath.eigsy(mpmath.matrix(matrix.tolist()), eigvals_only=True))
    third = Rounded(matrix) / 3
    found = np.linalg.eigvalsh(third)
    for value, error, want in zip(found.value, found.error, exact, strict=True):
        assert abs(mpmath.mpf(value) - want / 3) <= error
    sizes = np.linalg.svd(third, compute_uv=False)
    for value, error, want in zip(sizes.value, sizes.error, sorted(map(abs, exact), reverse=True), strict=True):
        assert abs(mpmath.mpf(value) - want / 3) <= error
    shifted = root + 100 * np.eye(size)
    right = mpmath.matrix([1] * size)
    solution = mpmath.lu_solve(mpmath.matrix(shifted.tolist()), right)
    solved = np.linalg.solve(Rounded(shifted), Rounded(np.ones(size)))
    for value, error, want in zip(solved.value, solved.error, solution, strict=True):
        assert abs(mpmath.mpf(value) - want) <= error


@given(a=st.lists(finite, min_size=2, max_size=4))
def test_picking_and_joining_round_nothing(a):
    numbers = Rounded(np.array(a), 0.5)
    assert float(np.max(numbers).value) == max(a) and float(np.max(numbers).error) == 0.5
    assert float(np.maximum(numbers[0], 0.0).value) == max(a[0], 0.0)
    assert np.concatenate([numbers, np.ones(1)]).error.tolist() == [0.5] * len(a) + [0.0]
    assert np.where(numbers > 0, numbers, 1.0).value.tolist() == [x if x > 0 else 1.0 for x in a]
    assert np.stack([numbers, numbers]).T.shape == (len(a), 2)


def test_an_uncertain_divisor_or_logarithm_is_certain_of_nothing():
    assert (Rounded(1.0) / Rounded(0.0, 1.0)).error == np.inf
    assert np.log(Rounded(1.0, 2.0)).error == np.inf


@pytest.mark.parametrize(
    "lose",
    [
        float,
        np.asarray,
        lambda x: np.arctan(x),
        lambda x: np.median(x),
        lambda x: x**0.5,
        lambda x: np.add(x, 1, out=x),
    ],
)
def test_what_cannot_follow_the_error_refuses(lose):
    with pytest.raises(TypeError):
        lose(Rounded(np.ones(2)))


@dataclasses.dataclass(frozen=True)
class Pair:
    a: float
    b: np.ndarray
    k: int


def test_lifting_reaches_every_float_and_comes_back():
    case = {"pair": Pair(0.5, np.ones(2), 3), "rest": (1.5, "word", None)}
    lifted = lift(case)
    assert isinstance(lifted["pair"].a, Rounded) and isinstance(lifted["rest"][0], Rounded)
    assert lifted["pair"].k == 3 and lifted["rest"][1:] == ("word", None)
    back = values(lifted)
    assert back["pair"].a == 0.5 and back["pair"].b.tolist() == [1.0, 1.0]


def test_equality_is_judged_by_the_errors_and_nothing_looser():
    third = Rounded(1.0) / 3
    assert judge(third * 3, Rounded(1.0), Relation.EQUAL).holds
    assert not judge(third * 3 + 2e-15, Rounded(1.0), Relation.EQUAL).holds
    assert not judge(1.0, 1.0 + 2**-52, Relation.EQUAL).holds
    assert judge(1.0, 1.0 + 2**-52, Relation.AT_MOST).holds
    assert not judge(1.0 + 2**-52, 1.0, Relation.AT_MOST).holds


def test_what_is_no_number_never_fits_and_infinities_do():
    assert not judge(np.nan, 1.0, Relation.AT_MOST).holds
    assert not judge(np.nan, np.nan, Relation.EQUAL).holds
    assert judge(np.inf, np.inf, Relation.EQUAL).holds
    assert judge(1.0, np.inf, Relation.AT_MOST).holds


def test_the_worst_entry_is_the_one_reported():
    found = judge(np.array([1.0, 5.0, 2.0]), np.array([1.0, 1.0, 1.0]), Relation.AT_MOST)
    assert (found.holds, found.left, found.right, found.excess) == (False, 5.0, 1.0, 4.0)


def test_a_tolerance_that_takes_half_of_the_digits_is_not_sharp():
    assert judge(Rounded(1.0, 1e-12), 1.0, Relation.EQUAL).sharp
    assert not judge(Rounded(1.0, 1e-6), 1.0, Relation.EQUAL).sharp


def test_sides_without_entries_are_refused():
    with pytest.raises(ValueError, match="at least one entry"):
        judge(np.zeros(0), np.zeros(0), Relation.EQUAL)
