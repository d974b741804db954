"""The numbers of the loss-gap theory, checked without a model."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from diagnostics.results import Status
from diagnostics.theory.addition import addition_report
from diagnostics.theory.derivations.addition import addition_bound
from diagnostics.theory.derivations.best_in_span import best_in_span
from diagnostics.theory.derivations.negation import negation_bound
from diagnostics.theory.derivations.out_of_distribution import out_of_distribution_bound
from diagnostics.theory.loss_gap import Curvature, Displacement, spread_factor, upper_sum

shares = st.lists(st.floats(0.01, 1), min_size=2, max_size=6).map(lambda xs: [x / sum(xs) for x in xs])


@given(alphas=shares, k=st.integers(0, 5), epsilon=st.floats(0, 1))
def test_spread_on_the_simplex_is_the_closed_form_and_at_most_two_plus_two_epsilon(alphas, k, epsilon):
    """(2.4) as stated, both equalities and the last inequality."""
    k %= len(alphas)
    weights = [a - (j == k) for j, a in enumerate(alphas)]
    closed = (1 - epsilon) * (sum(a * a for a in alphas) - 2 * alphas[k] + 1) + 4 * epsilon * (alphas[k] - 1) ** 2
    assert spread_factor(weights, epsilon) == pytest.approx(closed, abs=1e-12)
    assert closed <= 2 + 2 * epsilon + 1e-12


@given(weights=st.lists(st.floats(-2, 2), min_size=1, max_size=5), seed=st.integers(0, 10_000))
def test_spread_bounds_the_norm_for_any_vectors_with_these_angles(weights, seed):
    vectors = np.random.default_rng(seed).normal(size=(len(weights), 6))
    lengths = np.linalg.norm(vectors, axis=1)
    cosines = np.abs(vectors @ vectors.T / np.outer(lengths, lengths))[~np.eye(len(weights), dtype=bool)]
    epsilon = float(cosines.max(initial=0.0))
    norm = float(np.linalg.norm(np.array(weights) @ vectors) ** 2)
    bound = float(lengths.max() ** 2) * spread_factor(weights, epsilon)
    assert norm <= bound * (1 + 1e-9) + 1e-12


def test_spread_with_a_lost_factor_two_is_too_small():
    """Mutant: Σ|t_i t_j| once instead of twice. Two parallel vectors of length 1 need the whole of it."""
    half = sum(t * t for t in (1.0, 1.0)) + 1.0 * 1.0 * 1.0
    assert half < np.linalg.norm([2.0]) ** 2 == spread_factor([1.0, 1.0], 1.0)


@given(
    nodes=st.lists(st.floats(0.01, 0.99), min_size=0, max_size=6, unique=True),
    slope=st.floats(-3, 3),
    level=st.floats(-3, 3),
)
def test_upper_sum_is_between_the_integral_and_half_the_maximum(nodes, slope, level):
    """For φ'' = level + slope·s the weighted integral is level/2 + slope/6."""
    points = [0.0, *sorted(nodes), 1.0]
    curvatures = [level + slope * s for s in points]
    total = upper_sum(points, curvatures)
    assert level / 2 + slope / 6 <= total + 1e-12
    assert total <= max(curvatures) / 2 + 1e-12


@given(seed=st.integers(0, 10_000), count=st.integers(1, 5))
def test_best_in_span_is_least_squares(seed, count):
    rng = np.random.default_rng(seed)
    vectors, target = rng.normal(size=(count, 8)), rng.normal(size=8)
    expected = np.linalg.lstsq(vectors.T, target, rcond=None)[0]
    found = best_in_span(torch.tensor(vectors @ vectors.T), torch.tensor(vectors @ target))
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_best_in_span_of_identical_vectors_shares_between_them():
    found = best_in_span(torch.ones(2, 2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    np.testing.assert_allclose(found, [0.5, 0.5])


def displacement(**changes):
    values = {
        "start": 1.0,
        "end": 1.5,
        "offset": 0.0,
        "slope": 0.0,
        "gradient_norm": 0.0,
        "norm_squared": 1.0,
        "nodes": (0.0, 1.0),
        "curvatures": (1.0, 1.0),
        "integral": 0.5,
        "mismatch": 0.0,
        "tolerance": 1e-6,
        "subspace": (1.0,),
        "spectral": Curvature(2.0, 2.0, 2.0, Status.CONVERGED),
    }
    return Displacement(**{**values, **changes})


def report(**changes):
    return addition_report("a", displacement(**changes), {"a": 0.5, "b": 0.5}, 2.0, 0.1, constant_loss=3.0)


def test_report_of_a_clean_case():
    found = report()
    assert found.gap == 0.5 and found.bound == addition_bound(2.0, 2.0, 0.1)
    assert found.holds is True and found.status is Status.CONVERGED
    assert found.best == 0.5 and "upper sum" in found.best_label
    values = [value for _, value in found.chain]
    assert values == sorted(values)


@pytest.mark.parametrize(
    ("changes", "assumption"),
    [
        ({"gradient_norm": 0.5}, "stationary"),
        ({"mismatch": 1.0}, "differentiable"),
        ({"curvatures": (1.0, 9.0)}, "smooth"),
        ({"subspace": (9.0,)}, "smooth"),
    ],
)
def test_a_broken_assumption_is_named_and_taints_the_report(changes, assumption):
    found = report(**changes)
    assert found.assumptions[assumption].holds is False
    assert found.status is Status.TAINTED
    others = [name for name, item in found.assumptions.items() if name != assumption and item.holds is False]
    assert others == []


def test_without_differentiability_no_bound_is_the_best():
    assert math.isinf(report(mismatch=1.0).best)


def test_curvature_above_the_experts_leaves_only_bounds_measured_along_the_way():
    assert "spectral" not in report(curvatures=(1.0, 9.0)).best_label


@pytest.mark.parametrize(("lower", "upper", "expected"), [(2.0, 2.0, True), (0.01, 0.02, False), (0.01, 2.0, None)])
def test_holds_is_undecided_where_the_interval_of_the_norm_crosses(lower, upper, expected):
    spectral = Curvature((lower + upper) / 2, lower, upper, Status.LOWER_BOUND)
    assert report(spectral=spectral).holds is expected


@pytest.mark.parametrize(("constant", "vacuous"), [(3.0, True), (1e3, False)])
def test_vacuity_is_against_the_constant_prediction(constant, vacuous):
    found = addition_report("a", displacement(), {"a": 0.5, "b": 0.5}, 2.0, 0.1, constant)
    assert found.vacuous() is vacuous and found.vacuous(0.5) is False
    assert addition_report("a", displacement(), {"a": 0.5, "b": 0.5}, 2.0, 0.1).vacuous() is None


@given(coefficients=st.lists(st.floats(-1, 2), min_size=2, max_size=4))
def test_off_the_simplex_the_paper_bound_is_declared_inapplicable(coefficients):
    assume(abs(sum(coefficients) - 1) > 1e-6 or min(coefficients) < -1e-6)
    names = "abcd"[: len(coefficients)]
    found = addition_report("a", displacement(), dict(zip(names, coefficients, strict=True)), 2.0, 0.1)
    assert found.assumptions["simplex"].holds is False and found.status is Status.TAINTED
    assert "(2.4)" in found.chain[-1][0], "the chain must end at what still applies"


def test_the_three_bounds_at_the_published_example():
    """L = 1, C = 4, ε = 0.2 gives about 5 for addition."""
    assert addition_bound(1.0, 4.0, 0.2) == pytest.approx(4.8)
    assert negation_bound(1.0, 4.0, 0.2) == pytest.approx(6.8)
    assert out_of_distribution_bound(1.0, 4.0, 0.2) == pytest.approx(3.2)
