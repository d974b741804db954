"""CoefficientProcess against its definition: finite differences of the kernel, dense kriging, and known functions."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics.theory import coefficient_process
from diagnostics.theory.coefficient_process import (
    LENGTH,
    ROUGHNESS,
    SHAPE,
    CoefficientProcess,
    _covariance,
    coordinates,
    fit_process,
)


def kernel(u, v, length=LENGTH):
    """The covariance as the module states it."""
    return (1 + float(np.sum((u - v) ** 2)) / (2 * SHAPE * length**2)) ** -SHAPE


def observed(seed, experts=2):
    """Values and slopes at the places where predictions measure them: the base and single experts."""
    rng = np.random.default_rng(seed)
    unit = np.eye(experts)
    points, directions = [np.zeros(experts)], [np.zeros(experts)]
    for j in range(experts):
        for s in (0.5, 1.0, 1.5):
            points += [s * unit[j]] * experts
            directions += [np.zeros(experts), *(unit[k] for k in range(experts) if k != j)]
        points.append(np.zeros(experts))
        directions.append(unit[j])
    return np.array(points), np.array(directions), rng


def observe(function, gradient, points, directions):
    """What is seen of a function."""
    return np.array([gradient(p) @ d if d.any() else function(p) for p, d in zip(points, directions, strict=True)])


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6))
def test_covariances_of_slopes_are_derivatives_of_the_kernel(seed):
    rng = np.random.default_rng(seed)
    u, v, a, b = rng.normal(size=(4, 3))
    h, none = 1e-4, np.zeros((1, 3))

    def found(first, second):
        return _covariance(u[None], first[None] if first.ndim == 1 else first, v[None], second, LENGTH)[0, 0]

    assert found(none, none) == pytest.approx(kernel(u, v), abs=1e-12)
    along_u = (kernel(u + h * a, v) - kernel(u - h * a, v)) / (2 * h)
    along_v = (kernel(u, v + h * b) - kernel(u, v - h * b)) / (2 * h)
    both = [kernel(u + x * h * a, v + y * h * b) * x * y for x in (1, -1) for y in (1, -1)]
    assert found(a, none) == pytest.approx(along_u, abs=1e-6)
    assert found(none, b[None]) == pytest.approx(along_v, abs=1e-6)
    assert found(a, b[None]) == pytest.approx(sum(both) / (4 * h * h), abs=1e-5)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), degree=st.sampled_from([1, 2]), experts=st.integers(1, 4))
def test_polynomials_of_the_trend_are_exact_everywhere(seed, degree, experts):
    points, directions, rng = observed(seed, experts)
    c, g, h = rng.normal(), rng.normal(size=experts), rng.normal(size=(experts, experts)) * (degree == 2)
    process = CoefficientProcess(points, directions, degree=degree)
    y = observe(lambda p: c + g @ p + p @ h @ p, lambda p: g + (h + h.T) @ p, points, directions)
    where = rng.uniform(-1, 2, size=experts)
    assert process.at(where).weights @ y == pytest.approx(c + g @ where + where @ h @ where, abs=1e-6)
    assert y @ process.energy() @ y == pytest.approx(0, abs=1e-8), "a polynomial of the trend leaves no variance"


def test_equals_kriging_written_out_with_finite_differences():
    """The posterior of a process that sees differences of values in place of slopes, with a very wide prior trend."""
    points, directions, rng = observed(0)
    h, wide = 1e-3, 1e4

    def terms(point, direction):
        """An observation as a weighted sum of values."""
        return (
            [(point, 1.0)]
            if not direction.any()
            else [(point + h * direction, 0.5 / h), (point - h * direction, -0.5 / h)]
        )

    def cov(first, second, trend=True):
        return sum(
            x * y * (kernel(p, q) + trend * wide * (1 + p @ q)) for p, x in first for q, y in second
        )  # fmt: skip

    seen = [terms(p, d) for p, d in zip(points, directions, strict=True)]
    noise = np.diag(1e-8 + ROUGHNESS * directions.any(1))
    full = np.array([[cov(a, b) for b in seen] for a in seen]) + noise
    where = np.array([0.8, 1.1])
    right = np.array([cov([(where, 1.0)], b) for b in seen])
    y = rng.normal(size=len(points))
    found = CoefficientProcess(points, directions).at(where)
    assert found.weights @ y == pytest.approx(right @ np.linalg.solve(full, y), rel=1e-3)
    variance = cov([(where, 1.0)], [(where, 1.0)]) - right @ np.linalg.solve(full, right)
    assert found.variance == pytest.approx(variance, rel=2e-2)


def test_data_are_reproduced_and_uncertainty_grows_away_from_them():
    points, directions, _rng = observed(1)
    process, values = CoefficientProcess(points, directions), ~directions.any(1)
    y = observe(
        lambda p: np.sin(p[0] + 2 * p[1]), lambda p: np.cos(p[0] + 2 * p[1]) * np.array([1, 2]), points, directions
    )
    for point, value in zip(points[values], y[values], strict=True):
        assert process.at(point).weights @ y == pytest.approx(value, abs=1e-5)
        assert process.at(point).variance < 1e-6
    variances = [process.at([s, s]).variance for s in (0.25, 0.5, 1.0, 1.5, 2.0)]
    assert variances == sorted(variances) and variances[-1] > 10 * variances[0]


def test_a_product_of_saturating_effects_is_predicted_better_than_by_the_sum_of_both_experts():
    points, directions, _ = observed(2)
    f = lambda p: np.tanh(p[0]) * (1 - np.tanh(p[1]))  # noqa: E731
    slope = lambda p: np.array(  # noqa: E731
        [(1 - np.tanh(p[0]) ** 2) * (1 - np.tanh(p[1])), -np.tanh(p[0]) * (1 - np.tanh(p[1]) ** 2)]
    )
    y, process = observe(f, slope, points, directions), CoefficientProcess(points, directions)
    for where in ([0.5, 0.5], [1.0, 1.0], [1.5, 1.0]):
        truth, apart = f(where), f([where[0], 0]) + f([0, where[1]]) - f([0, 0])
        error = abs(process.at(where).weights @ y - truth)
        deviation = np.sqrt(process.at(where).variance * (y @ process.energy() @ y))
        assert error < 0.1 * abs(apart - truth) and error < 3 * deviation


@pytest.mark.parametrize("slip", ["sign", "factor"])
def test_mutants_of_the_covariance_are_caught(slip, monkeypatch):
    """A wrong sign of a slope, or a lost factor, shows at once: a bent function is then predicted worse."""
    points, directions, _ = observed(3)
    f, slope = lambda p: np.exp(p[0] * p[1]), lambda p: np.exp(p[0] * p[1]) * np.array([p[1], p[0]])
    y, right = observe(f, slope, points, directions), CoefficientProcess(points, directions).at([0.7, 0.7])
    original = _covariance

    def wrong(u, a, v, b, length):
        slopes = (a != 0).any(1)[:, None] ^ (b != 0).any(1)[None]
        return np.where(slopes, -1.0 if slip == "sign" else 0.5, 1.0) * original(u, a, v, b, length)

    monkeypatch.setattr(coefficient_process, "_covariance", wrong)
    mutant = CoefficientProcess(points, directions).at([0.7, 0.7])
    truth = f([0.7, 0.7])
    assert abs(mutant.weights @ y - truth) > 3 * abs(right.weights @ y - truth)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), degree=st.sampled_from([1, 2]), experts=st.integers(1, 4))
def test_joint_covariance_has_the_variances_on_its_diagonal_and_weights_are_those_of_single_points(
    seed, degree, experts
):
    points, directions, rng = observed(seed, experts)
    process = CoefficientProcess(points, directions, degree=degree)
    where = rng.uniform(0, 1.5, size=(5, experts))
    found = process.covariance(where)
    assert found == pytest.approx(found.T, abs=1e-9)
    assert np.linalg.eigvalsh(found).min() > -1e-7, "a covariance has no negative variances"
    for point, variance, weights in zip(where, np.diag(found), process.weights(where), strict=True):
        assert variance == pytest.approx(process.at(point).variance, abs=1e-8)
        assert weights == pytest.approx(process.at(point).weights, abs=1e-9)


def test_joint_covariance_is_that_of_an_error_seen_at_another_point():
    """Observing the value at v too shrinks the variance at u by Cov(u, v)² / Var(v), nugget aside."""
    points, directions, _ = observed(0)
    u, v = np.array([1.2, 0.9]), np.array([0.8, 1.1])
    found = CoefficientProcess(points, directions).covariance([u, v])
    told = CoefficientProcess(np.vstack([points, v]), np.vstack([directions, 0 * v])).at(u).variance
    assert told == pytest.approx(found[0, 0] - found[0, 1] ** 2 / found[1, 1], rel=1e-2)
    assert told < 0.5 * found[0, 0], "points this near know much of each other"
    apart = found[0, 0] * (1 - 0.0)
    assert told != pytest.approx(apart, rel=0.1), "the mutant whose points err independently"


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_held_out_error_is_that_of_a_process_fitted_without_the_block(seed):
    points, directions, rng = observed(seed)
    y, block = rng.normal(size=len(points)), (points[:, 0] > 0) & directions.any(1)
    found = CoefficientProcess(points, directions).held_out_error(block, np.outer(y, y))
    # Fitted without the block, and asked for derivatives by differences of its predictions.
    rest, h = CoefficientProcess(points[~block], directions[~block]), 1e-4
    errors = [
        (rest.at(p + h * d).weights - rest.at(p - h * d).weights) @ y[~block] / (2 * h) - value
        for p, d, value in zip(points[block], directions[block], y[block], strict=True)
    ]
    assert found == pytest.approx(np.square(errors).sum(), rel=1e-4)


def test_length_follows_how_soon_a_function_bends():
    points, directions, _ = observed(0)
    gram, block = np.eye(2), (points[:, 0] > 0) & directions.any(1)
    lengths = []
    for speed in (3.0, 0.5):
        y = observe(
            lambda p, s=speed: np.sin(s * p.sum()),
            lambda p, s=speed: s * np.cos(s * p.sum()) * np.ones(2),
            points,
            directions,
        )
        lengths.append(fit_process(points, directions, gram, 1, block, np.outer(y, y)).length)
    assert lengths[0] < lengths[1]
    assert fit_process(points, directions, gram, 1, np.zeros(len(points), bool), np.outer(y, y)).length == LENGTH


def gram_of(seed, experts, scale=1.0):
    """Inner products of random vectors."""
    vectors = np.random.default_rng(seed).normal(size=(experts, experts + 2))
    return scale * vectors @ vectors.T


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), experts=st.integers(1, 4), scale=st.sampled_from([1e-6, 1.0, 1e6]))
def test_coordinates_have_the_inner_products_of_the_task_vectors(seed, experts, scale):
    gram = gram_of(seed, experts, scale)
    found = coordinates(gram)
    assert found @ found.T == pytest.approx(gram / np.diagonal(gram).mean(), abs=1e-12)


def test_coordinates_leave_out_directions_that_are_rounding():
    """Shares of the longest direction of 5e-11 and 5e-10, on either side of 1e-10."""
    assert np.linalg.matrix_rank(coordinates(np.diag([4.0, 2e-10, 2e-10, 2e-10])), tol=1e-30) == 1
    assert np.linalg.matrix_rank(coordinates(np.diag([4.0, 2e-9, 2e-9, 2e-9])), tol=1e-30) == 4


def test_vectors_of_no_length_lie_at_the_base():
    found = coordinates(np.zeros((2, 2), int))
    assert found.shape == (2, 2) and found.dtype == float and not found.any()


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), degree=st.sampled_from([1, 2]), experts=st.integers(2, 3))
def test_only_distances_between_merges_count(seed, degree, experts):
    """Any root of the Gram matrix gives coordinates in which the experts may be taken for orthonormal ones."""
    points, directions, rng = observed(seed, experts)
    directions = directions * rng.uniform(0.5, 2, size=(len(directions), 1))
    gram = gram_of(seed, experts)
    root, where = np.linalg.cholesky(gram / np.diagonal(gram).mean()), rng.uniform(0, 1.5, size=experts)
    found = CoefficientProcess(points, directions, gram, degree=degree).at(where)
    expected = CoefficientProcess(points @ root, directions @ root, degree=degree).at(where @ root)
    assert found.weights == pytest.approx(expected.weights, abs=1e-5)
    assert found.variance == pytest.approx(expected.variance, abs=1e-7)


def test_equal_merges_have_equal_outputs_whichever_experts_they_are_made_of():
    points, directions, _ = observed(0)
    process = CoefficientProcess(points, directions, np.ones((2, 2)))
    found = process.weights([[1.2, 0.0], [0.0, 1.2], [0.5, 0.7]])
    assert found[1:] == pytest.approx(np.array([found[0], found[0]]), abs=1e-7)


def test_a_slope_towards_a_vector_of_no_length_says_nothing():
    points, directions, _ = observed(0)
    gram, dead = np.diag([1.0, 0.0]), ~directions[:, 0].astype(bool) & directions[:, 1].astype(bool)
    process = CoefficientProcess(points, directions, gram)
    without = CoefficientProcess(points[~dead], directions[~dead], gram)
    found, expected = process.at([1.2, 0.4]), without.at([1.2, 0.4])
    assert dead.any() and found.weights[dead] == pytest.approx(0, abs=1e-12)
    assert found.weights[~dead] == pytest.approx(expected.weights, abs=1e-7)
    assert found.variance == pytest.approx(expected.variance, rel=1e-4)
    assert process.energy()[np.ix_(~dead, ~dead)] == pytest.approx(without.energy(), rel=1e-6)


@pytest.mark.parametrize("count", [3, 4, 6])
def test_the_variance_is_estimated_without_bias(count):
    """E yᵀQy = tr(QΣ) = 1 for observations with covariance Σ, less the degrees of freedom that a line takes."""
    points = np.linspace(0, 2, count)[:, None]
    sigma = np.array([[kernel(u, v) for v in points] for u in points]) + 1e-8 * np.eye(count)
    assert np.trace(CoefficientProcess(points, 0 * points).energy() @ sigma) == pytest.approx(1, rel=1e-4)


def test_observations_that_a_trend_goes_through_leave_no_variance():
    points = np.array([[0.0], [1.0]])
    assert CoefficientProcess(points, 0 * points).energy() == pytest.approx(np.zeros((2, 2)), abs=1e-6)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), experts=st.integers(1, 3))
def test_covariances_of_many_observations_are_those_of_pairs(seed, experts):
    rng = np.random.default_rng(seed)
    (u, a), (v, b) = rng.normal(size=(2, 3, experts)), rng.normal(size=(2, 4, experts))
    a[0], b[1] = 0, 0
    expected = [[_covariance(x[None], c[None], y[None], d[None], 1.3)[0, 0] for y, d in zip(v, b, strict=True)]
                for x, c in zip(u, a, strict=True)]  # fmt: skip
    assert _covariance(u, a, v, b, 1.3) == pytest.approx(np.array(expected), abs=1e-12)


def test_rounding_of_the_trend_is_put_right():
    """Weights reproduce a polynomial of the trend far beyond what the ill-conditioned system leaves of it."""
    errors = []
    for seed, degree in itertools.product(range(40), (1, 2)):
        points, directions, rng = observed(seed)
        slope, bend = rng.normal(size=2), rng.normal(size=(2, 2)) * (degree == 2)
        where = rng.uniform(-1, 2, size=2)
        y = observe(
            lambda p, g=slope, h=bend: 1 + g @ p + p @ h @ p,
            lambda p, g=slope, h=bend: g + (h + h.T) @ p,
            points,
            directions,
        )
        found = CoefficientProcess(points, directions, degree=degree).at(where).weights @ y
        errors.append(abs(found - (1 + slope @ where + where @ bend @ where)))
    assert max(errors) < 1e-13


@pytest.mark.parametrize("held_out", [True, False])
@pytest.mark.parametrize("degree", [1, 2])
def test_the_process_fitted_is_one_of_all_observations(held_out, degree):
    points, directions, rng = observed(4)
    y, gram = rng.normal(size=len(points)), np.array([[2.0, 0.7], [0.7, 1.0]])
    block = (points[:, 0] > 0) & directions.any(1) & held_out
    found = fit_process(points, directions, gram, degree, block, np.outer(y, y))
    expected = CoefficientProcess(points, directions, gram, degree=degree, length=found.length)
    assert found.at([0.8, 1.1]).weights == pytest.approx(expected.at([0.8, 1.1]).weights, abs=1e-9)
    assert (found.length == LENGTH) or held_out
