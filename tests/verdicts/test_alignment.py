"""∇ℰ(θ0) of tasks whose gradients are known: best α, angles, and intervals that cover as often as they say."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from diagnostics import InputError, Status, Task, gradient_alignment
from diagnostics.measures.reference import dense_gradient
from tests.cases import small_network
from tests.verdicts.composition_oracle import best, flat

SETS = 200


def linear(name, gradients, batch_size=1):
    """A task whose gradient is the mean of some rows, everywhere."""
    rows = torch.as_tensor(np.asarray(gradients, dtype=float))
    return Task(name, lambda params, batch: (batch @ params["w"]).mean(), list(rows.split(batch_size)))


def align(target, components, **options):
    """From mean gradients alone, each a data set of one."""
    tasks = [linear(f"task {number}", [each]) for number, each in enumerate(components, 1)]
    return gradient_alignment(linear("target", [target]), tasks, {"w": torch.zeros(len(target)).double()}, **options)


@st.composite
def gradients(draw):
    """A target and one to four components, independent, collinear or zero."""
    count, dimension = draw(st.integers(1, 4)), draw(st.integers(4, 6))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    components = list(rng.normal(size=(count, dimension)) * rng.uniform(0.01, 100, size=(count, 1)))
    kind = draw(st.sampled_from(["independent", "independent", "collinear", "zero", "inside"]))
    target = rng.normal(size=dimension)
    if kind == "collinear" and count > 1:
        components[1] = -2.5 * components[0]
    if kind == "zero":
        components[0] = np.zeros(dimension)
    if kind == "inside":
        target = rng.normal(size=count) @ np.stack(components)
    return target, components


@settings(max_examples=60)
@given(case=gradients(), sign=st.sampled_from(["best", "nonnegative"]))
def test_the_best_alpha_is_the_least_squares_one(case, sign):
    target, components = case
    result = align(target, components, alphas=sign)
    columns = np.stack(components, axis=1)
    expected = target - columns @ best(target, components, nonnegative=sign == "nonnegative")
    found = target - columns @ np.array(result.alphas)
    scale = np.linalg.norm(target)
    assert np.linalg.norm(found - expected) <= 1e-6 * scale, "α may differ where it is not unique, ∇ℰ may not"
    assert flat(result.error) == pytest.approx(found, abs=1e-9 * scale)
    assert result.relative == pytest.approx(np.linalg.norm(expected) / scale, abs=1e-6)
    assert min(result.alphas) >= 0 or sign == "best"


@settings(max_examples=40)
@given(case=gradients(), data=st.data())
def test_any_alpha_can_be_given(case, data):
    """Negative ones too: the analogy λ1τ1 − λ2τ2 + λ3τ3."""
    target, components = case
    alphas = data.draw(st.lists(st.floats(-3, 3), min_size=len(components), max_size=len(components)))
    result = align(target, components, alphas=alphas)
    expected = target - np.stack(components, axis=1) @ np.array(alphas)
    assert flat(result.error) == pytest.approx(expected) and result.alphas == tuple(alphas)
    scale = max(np.linalg.norm(each) for each in [target, *components])
    assert result.norm == pytest.approx(np.linalg.norm(expected), abs=1e-6 * scale)
    every = np.stack([target, *components])
    assert result.gram.numpy() == pytest.approx(every @ every.T)


def test_cosines_and_the_angle():
    result = align([3.0, 4.0], [[2.0, 0.0], [0.0, 0.0]])
    assert result.cosines[:2, :2].numpy() == pytest.approx(np.array([[1, 0.6], [0.6, 1]]))
    assert result.cosines[2].isnan().all(), "a zero vector has no direction"
    assert result.alphas == (1.5, 0) and result.relative == pytest.approx(0.8)
    assert result.names == ("target", "task 1", "task 2") and result.cost.gradients == 3


def test_a_target_without_a_gradient_has_no_relative_error():
    result = align([0.0, 0.0], [[1.0, 0.0]])
    assert math.isnan(result.relative) and result.norm == 0 and result.alphas == (0,)
    assert result.relative_estimate.status is Status.UNDEFINED


def test_the_error_is_that_of_dense_gradients():
    """A network, three tasks with batches of unequal size, against central differences."""
    params = {key: value.detach() for key, value in small_network().named_parameters()}
    rng = torch.Generator().manual_seed(1)
    tasks = []
    for number, count in enumerate([9, 10, 7]):
        inputs = torch.randn(count, 3, generator=rng, dtype=torch.float64)
        targets = torch.randint(0, 2, (count,), generator=rng)
        loss = torch.nn.functional.cross_entropy
        tasks.append(Task.from_module(f"t{number}", small_network(), loss, (inputs, targets), batch_size=4))
    result = gradient_alignment(tasks[0], tasks[1:], params, alphas=[0.7, -1.1])
    dense = [
        dense_gradient(lambda p, task=task: sum(s * task.loss(p, b) for s, b in task.weighted_batches()), params)
        for task in tasks
    ]
    assert flat(result.error) == pytest.approx(dense[0] - 0.7 * dense[1] + 1.1 * dense[2], abs=1e-7)


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 4))
def test_a_multi_task_target_has_no_error_anywhere(seed, count):
    """(1.7): L_* = Σ α'_i L_i on the same data, at α = α' and at any point."""
    rng = np.random.default_rng(seed)
    shares = rng.uniform(-2, 2, size=count)
    data = list(torch.tensor(rng.normal(size=(6, count, 5))).split(2))

    def own(i):
        return lambda p, batch: torch.tanh(batch[:, i] @ p["w"]).mean()

    def whole(p, batch):
        return sum(a * own(i)(p, batch) for i, a in enumerate(shares.tolist()))

    point = {"w": torch.tensor(rng.normal(size=5))}
    result = gradient_alignment(
        Task("sum", whole, data), [Task(f"{i}", own(i), data) for i in range(count)], point, alphas=shares
    )
    assert np.abs(flat(result.error)).max() < 1e-15 * 20
    assert result.norm < 1e-7


POPULATIONS = np.array([[[0.0, 1.0], [2.0, -1.0]], [[1.0, 3.0], [0.5, 0.5]]])  # two gradients each, equally likely


def test_the_square_is_unbiased_over_every_data_set():
    """Target and component each draw four batches: all 256 pairs of data sets. The plug-in fails the same test."""
    draws = [[population[list(d)] for d in itertools.product(range(2), repeat=4)] for population in POPULATIONS]
    point, alpha = {"w": torch.zeros(2).double()}, 1.5
    unbiased, plugin = [], []
    for target, component in itertools.product(*draws):
        result = gradient_alignment(linear("*", target), [linear("1", component)], point, alphas=[alpha])
        row = torch.tensor([1.0, -alpha], dtype=torch.float64)
        unbiased.append(float(row @ result.gram_unbiased @ row))
        plugin.append(result.norm**2)
    true = POPULATIONS[0].mean(0) - alpha * POPULATIONS[1].mean(0)
    noise = POPULATIONS[0].var(0).sum() + alpha**2 * POPULATIONS[1].var(0).sum()
    assert np.mean(unbiased) == pytest.approx(true @ true)
    assert np.mean(plugin) == pytest.approx(true @ true + noise / 4), "too large by tr(Cov)/n (1.14)"


def regression(weights, rng, count=64, batch_size=8):
    """Linear regression at θ = 0 on Gaussian features: the expected gradient is −weights."""
    features = torch.tensor(rng.normal(size=(count, len(weights))))
    values = features @ torch.tensor(weights) + 0.5 * torch.tensor(rng.normal(size=count))
    batches = list(zip(features.split(batch_size), values.split(batch_size), strict=True))
    sizes = [len(each) for each, _ in batches]
    return Task("r", lambda p, b: 0.5 * ((b[0] @ p["w"] - b[1]) ** 2).mean(), batches, sizes=sizes)


def resampled(first, second, **options):
    """The alignment at α = 1 for independent draws of both tasks' data."""
    rng = np.random.default_rng(0)
    point = {"w": torch.zeros(len(first)).double()}
    for _ in range(SETS):
        yield gradient_alignment(
            regression(first, rng, **options), [regression(second, rng, **options)], point, alphas=[1.0]
        )


def direction(seed, dimension=30):
    drawn = np.random.default_rng(seed).normal(size=dimension)
    return drawn / np.linalg.norm(drawn)


def test_intervals_cover_zero_where_the_target_is_a_resample():
    """The plug-in norm with the same standard error says almost always that there is an error."""
    results = list(resampled(direction(1), direction(1)))
    low = [result.norm_unbiased - 1.645 * result.stderr for result in results]
    assert sum(value <= 0 for value in low) >= 0.9 * SETS
    assert sum(result.norm_estimate.lower == 0 for result in results) >= 0.9 * SETS
    assert sum(result.norm - 1.645 * result.stderr <= 0 for result in results) <= 0.02 * SETS
    assert np.mean([result.norm for result in results]) > 0.5, "noise alone makes the plug-in norm large"


@pytest.mark.parametrize("distance", [0.5, 1.0, 2.0])
def test_intervals_cover_a_true_norm_nine_times_in_ten(distance):
    first, second = direction(1), direction(1) + distance * direction(2)
    results = list(resampled(first, second, count=160, batch_size=20))
    least, most = binom.ppf([0.0005, 0.9995], SETS, 0.9)
    inside = sum(result.norm_estimate.lower <= distance <= result.norm_estimate.upper for result in results)
    assert least <= inside <= most, f"{inside} of {SETS} intervals cover the norm"
    ends = [result.relative_estimate for result in results if result.relative_estimate.status.trusted]
    assert len(ends) == SETS
    share = sum(end.lower <= distance <= end.upper for end in ends)
    assert least <= share <= most, f"{share} of {SETS} intervals cover the quotient"
    half = [1.645 * result.stderr for result in results]
    wide = sum(abs(result.norm_unbiased - distance) <= h + 1e-12 for result, h in zip(results, half, strict=True))
    assert wide >= inside, "value ± 1.645 stderr spans the interval"


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_few_batches_have_no_standard_error(batches):
    rows = np.ones((batches, 2))
    result = gradient_alignment(linear("*", rows), [linear("1", np.ones((9, 2)))], {"w": torch.zeros(2).double()})
    assert math.isnan(result.stderr) and result.folds == batches
    assert any("no standard error: it takes four folds" in note for note in result.notes), result.notes


def test_four_batches_have_one():
    rng = np.random.default_rng(0)
    tasks = [linear(str(i), rng.normal(size=(4, 2))) for i in range(2)]
    result = gradient_alignment(tasks[0], tasks[1:], {"w": torch.zeros(2).double()}, folds=9)
    assert math.isfinite(result.stderr) and result.folds == 4 and "error" not in result.to_dict()


REFUSED = {
    "no components": ({"components": []}, "components: expected at least one task; found none. Pass"),
    "too many α": ({"alphas": [1.0, 2.0]}, r"alphas: expected .* 1 finite numbers.*found \[1.0, 2.0\]"),
    "an infinite α": ({"alphas": [math.inf]}, "alphas: expected .* 1 finite numbers"),
    "an unknown word": (
        {"alphas": "worst"},
        "alphas: expected 'best', 'nonnegative' or 1 finite numbers, .*; found 'worst'",
    ),
    "NaN in the data": (
        {"components": [linear("n", [[math.nan, 0]])]},
        "task 'n': expected a finite loss and gradient",
    ),
}


@pytest.mark.parametrize("options, message", REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused(options, message):
    usual = {"components": [linear("1", [[1.0, 0]])], "params": {"w": torch.ones(2).double()}}
    with pytest.raises(InputError, match=message):
        gradient_alignment(linear("*", [[1.0, 2.0]]), **{**usual, **options})


def test_alphas_go_by_name_too():
    tasks = [linear(name, [[1.0, 0]]) for name in ("*", "a", "b")]
    result = gradient_alignment(tasks[0], tasks[1:], {"w": torch.ones(2).double()}, alphas={"b": 2, "a": 1})
    assert result.alphas == (1.0, 2.0)


def test_dependent_components_are_noted():
    rows = [[1.0, 0], [0.5, 0.5], [0.0, 1], [0.2, 0.1]]
    tasks = [linear(name, rows) for name in ("*", "a", "b")]
    result = gradient_alignment(tasks[0], tasks[1:], {"w": torch.ones(2).double()})
    assert any("α is not unique" in note for note in result.notes) and result.alphas == pytest.approx((0.5, 0.5))
    alone = gradient_alignment(tasks[0], tasks[1:2], {"w": torch.ones(2).double()})
    assert not any("α is not unique" in note for note in alone.notes)


def test_task_vectors_may_stand_for_components():
    """At a quadratic's base the gradient is −to, so that −τ in place of g changes nothing but the sign of α."""
    point = {"w": torch.zeros(2).double()}
    rng = np.random.default_rng(0)
    target, task = linear("*", rng.normal((3.0, 1.0), size=(8, 2))), linear("1", np.tile([[1.0, 2.0]], (8, 1)))
    by_task = gradient_alignment(target, [task], point)
    vector = {"w": -gradient_alignment(task, [task], point, alphas=[0.0]).error["w"]}
    by_vector = gradient_alignment(target, {"1": vector}, point)
    assert by_vector.names == ("*", "vector 1") and by_vector.cost.gradients == 1
    assert by_vector.alphas == pytest.approx([-alpha for alpha in by_task.alphas])
    assert by_vector.relative_estimate.value == pytest.approx(by_task.relative_estimate.value)
    mixed = gradient_alignment(target, [vector, task], point)
    assert mixed.gram[1, 2] == pytest.approx(-float(mixed.gram[1, 1])) and mixed.names == ("*", "vector 1", "1")
    with pytest.raises(InputError, match="components: expected tasks or task vectors by parameter name; found str"):
        gradient_alignment(target, "ab", point)
