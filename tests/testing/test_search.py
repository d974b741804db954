"""A wrong derivation is refuted by the smallest case that shows it, and a right one is not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics.errors import InputError
from diagnostics.exact.claims import Claim, Condition, Mutant
from diagnostics.exact.relations import Relation
from diagnostics.results import Verdict
from diagnostics.testing import (
    Rounded,
    arrays,
    assert_bound,
    assert_case,
    assert_identity,
    merges,
    numbers,
    search,
    task_vectors,
)


def distance(merge):
    return (merge.way**2).sum()


def pairs(dimension):
    return task_vectors(2, dimension)


def broken(check, *args, **kwargs):
    with pytest.raises(AssertionError) as caught:
        check(*args, **kwargs)
    return str(caught.value)


def test_a_true_bound_is_supported_and_said_to_be_attained():
    evidence = assert_bound(distance, lambda merge: 2 * merge.C * (1 + merge.epsilon), merges)
    assert evidence.verdict is Verdict.SUPPORTED and evidence.closest == pytest.approx(1)
    assert evidence.examples >= 200 and evidence.sharp > 0


def test_sides_that_are_nothing_but_rounding_have_no_share():
    """(1 + x) − 1 − x is zero but for rounding, and may well be a hundred times a right side of 10⁻²⁰."""
    evidence = assert_bound(lambda x: (1 + x) - 1 - x, lambda x: 0 * x + 1e-20, numbers(0.1, 4))
    assert evidence.closest is None, str(evidence)


def test_a_sign_flipped_is_refuted_in_one_dimension():
    """‖a − b‖² = ‖a‖² + ‖b‖² + 2⟨a, b⟩, which is ‖a + b‖²."""

    def wrong(rows):
        return (rows**2).sum() + 2 * (rows[0] @ rows[1])

    assert "of size 1" in broken(assert_identity, lambda rows: ((rows[0] - rows[1]) ** 2).sum(), wrong, pairs)


def test_a_factor_two_lost_is_refuted_in_one_dimension():
    said = broken(assert_bound, distance, lambda merge: merge.C * (1 + merge.epsilon), merges)
    assert "of size 1: 4 <= 2 is off by 2" in said


def test_a_norm_that_is_not_squared_is_refuted_in_one_dimension():
    def wrong(merge):
        return 2 * np.sqrt(merge.C) * (1 + merge.epsilon)

    assert "of size 1" in broken(assert_bound, distance, wrong, merges)


def test_a_mean_for_a_maximum_is_refuted_in_one_dimension():
    def wrong(merge):
        return 2 * np.mean(merge.squared_norms) * (1 + merge.epsilon)

    assert "of size 1" in broken(assert_bound, distance, wrong, merges)


@pytest.mark.parametrize("least", [2, 3, 4])
def test_what_only_shows_in_some_dimensions_is_refuted_in_the_first_of_them(least):
    """‖x‖₁² ≤ k‖x‖² holds up to dimension k."""
    left, right = lambda x: np.sum(abs(x)) ** 2, lambda x: (least - 1) * (x**2).sum()
    assert f"of size {least}" in broken(assert_bound, left, right, lambda d: arrays(d))


def test_a_difference_of_a_few_roundings_is_seen_and_rounding_itself_is_not():
    def right(x):
        return x**2 + 2 * x + 1

    assert_identity(lambda x: (x + 1) ** 2, right, numbers(1, 4))
    assert "refuted" in broken(assert_identity, lambda x: (x + 1) ** 2 * (1 + 2e-14), right, numbers(1, 4))


def test_a_counterexample_says_which_assumption_it_is_on_and_which_suspect_it_breaks():
    simplex = Condition("simplex", "coefficients add up to one", lambda m: abs(sum(m.coefficients) - 1))
    angle = Condition("angle", "no cosine above one", lambda m: m.epsilon, lambda m: 1.0)
    said = broken(
        assert_bound,
        distance,
        lambda merge: 2 * merge.C * (1 + merge.epsilon),
        lambda d: merges(d, kind="any"),
        assuming=[angle],
        suspects=[simplex],
    )
    assert "against simplex: 2, limit 0. coefficients add up to one" in said
    assert "on the boundary of angle: 1, limit 1" in said or "within angle: 0, limit 1" in said


def test_an_assumption_is_met_by_every_case_that_counts():
    positive = Condition("positive", "x is not negative", lambda x: -x)
    evidence = assert_bound(lambda x: -x, lambda x: 0 * x, numbers(), assuming=[positive])
    assert evidence.discarded > 0 and evidence.verdict is Verdict.SUPPORTED


def test_assumptions_that_nothing_meets_are_refused():
    never = Condition("never", "nothing meets this", lambda x: 1.0)
    with pytest.raises(InputError, match=r"none of .* cases met the assumptions"):
        assert_identity(lambda x: x, lambda x: x, numbers(), assuming=[never])


def test_a_size_at_which_nothing_meets_the_assumptions_is_told():
    """Nothing was checked in one dimension: a claim of unequal entries has no case there."""
    uneven = Condition("uneven", "entries differ", lambda x: float(len(set(x.tolist())) < 2))
    evidence = assert_bound(lambda x: x.sum(), lambda x: abs(x).sum(), lambda d: arrays(d), assuming=[uneven])
    assert evidence.empty == (1,) and "no case met the assumptions at size 1" in str(evidence)


def test_sides_that_are_all_rounding_are_undecided_and_that_is_an_error():
    def noise(x):
        return (Rounded(1e20) + x) - 1e20

    assert "undecided" in broken(assert_identity, noise, lambda x: x, numbers(1, 4))


def test_a_side_that_is_no_number_refutes():
    assert "nan" in broken(assert_identity, lambda x: np.sqrt(-1 - x * x), lambda x: x, numbers())


def test_the_same_seed_finds_the_same_counterexample():
    claim = Claim("", distance, lambda merge: merge.C * (1 + merge.epsilon), Relation.AT_MOST, merges)
    first, second = (search(claim, seed=3).counterexample for _ in range(2))
    assert str(first) == str(second)


def test_too_few_examples_for_the_sizes_are_refused():
    claim = Claim("", distance, distance, Relation.EQUAL, merges)
    with pytest.raises(InputError, match="max_examples"):
        search(claim, max_examples=2)


DISTANCE = Claim("", distance, lambda merge: 2 * merge.C * (1 + merge.epsilon), Relation.AT_MOST, merges)


@given(st.integers(1, 3).flatmap(merges))
@settings(max_examples=30)
def test_one_case_can_be_asserted_inside_a_test_of_ones_own(merge):
    assert_case(DISTANCE, merge)


def test_one_case_that_does_not_fit_raises():
    mutant = Mutant("half", right=lambda merge: merge.C * (1 + merge.epsilon) / 2).of(DISTANCE)

    @given(merges(1))
    @settings(database=None, max_examples=200)
    def wrong(merge):
        assert_case(mutant, merge)

    assert "counterexample" in broken(wrong)


def test_a_mutant_cannot_drop_what_is_not_assumed():
    with pytest.raises(InputError, match="none of"):
        Mutant("x", without="simplex").of(DISTANCE)
