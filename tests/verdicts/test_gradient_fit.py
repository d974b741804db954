"""τ ≈ η g and what it leaves of a merge error: known answers, and the identity (1.5) on random quadratics."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics import InputError, Status, Task, gradient_fit, merge_error
from tests.cases import rotated


def quadratic(name, hessian, minimum, batches=1):
    """½ (w − m)ᵀH(w − m), the minimum moved a little in each batch."""
    rows = [torch.as_tensor(minimum).double() + 0.01 * (i - (batches - 1) / 2) for i in range(batches)]
    loss = lambda p, b: 0.5 * (p["w"] - b) @ hessian @ (p["w"] - b)  # noqa: E731
    return Task(name, loss, rows, sizes=[1] * batches)


def vector(values):
    return {"w": torch.as_tensor(np.asarray(values, dtype=float))}


@st.composite
def problems(draw):
    """A target and one to three components with curved losses, and task vectors that are no gradient steps."""
    count, dimension, seed = draw(st.integers(1, 3)), draw(st.integers(2, 5)), draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    hessians = [rotated(list(rng.uniform(-1, 3, dimension)), seed + i) for i in range(count + 1)]
    minima = rng.normal(size=(count + 1, dimension))
    tasks = [quadratic(f"task {i}", h, m) for i, (h, m) in enumerate(zip(hessians, minima, strict=True))]
    point = rng.normal(size=dimension)
    slopes = np.stack([h.numpy() @ (point - m) for h, m in zip(hessians, minima, strict=True)])
    steps = rng.uniform(-2, -0.1, size=(count + 1, 1)) * slopes
    return tasks, vector(point), slopes, steps + draw(st.sampled_from([0, 0.3])) * rng.normal(size=steps.shape)


@settings(max_examples=40)
@given(problem=problems())
def test_eta_cosine_and_remainder_are_those_of_least_squares(problem):
    tasks, point, slopes, vectors = problem
    for task, slope, step in zip(tasks, slopes, vectors, strict=True):
        fit = gradient_fit(task, point, vector(step))
        eta = np.linalg.lstsq(slope[:, None], step, rcond=None)[0][0]
        assert fit.eta == pytest.approx(eta)
        norms = np.linalg.norm(step), np.linalg.norm(slope)
        assert fit.cosine == pytest.approx(step @ slope / norms[0] / norms[1])
        assert (fit.vector_norm, fit.gradient_norm) == pytest.approx(norms)
        assert fit.remainder_norm == pytest.approx(np.linalg.norm(step - eta * slope), abs=1e-6 * norms[0])
        assert fit.share == pytest.approx(1 - (fit.remainder_norm / norms[0]) ** 2, abs=1e-9)


KNOWN = {
    "a gradient step": ([-0.3, -0.4], -0.1, -1, 0),
    "a step uphill": ([6.0, 8.0], 2, 1, 0),
    "orthogonal": ([4.0, -3.0], 0, 0, 5),
    "half of each": ([-7.0, -1.0], -1, -math.sqrt(0.5), 5),
}


@pytest.mark.parametrize("step, eta, cosine, remainder", KNOWN.values(), ids=KNOWN)
def test_known_answers(step, eta, cosine, remainder):
    task = Task("t", lambda p, b: p["w"] @ b, [torch.tensor([3.0, 4.0]).double()], sizes=[1])
    fit = gradient_fit(task, vector([0, 0]), vector(step))
    assert (fit.eta, fit.cosine, fit.remainder_norm) == pytest.approx((eta, cosine, remainder), abs=1e-7)
    assert fit.cosine_estimate.status is Status.UNDEFINED and any("no intervals" in note for note in fit.notes)


@pytest.mark.parametrize("gradient, step", [([0, 0], [1, 0]), ([1, 0], [0, 0])], ids=["no gradient", "no step"])
def test_a_zero_vector_has_no_cosine(gradient, step):
    task = Task("t", lambda p, b: p["w"] @ b, [torch.tensor(gradient).double()], sizes=[1])
    fit = gradient_fit(task, vector([0, 0]), vector(step))
    assert math.isnan(fit.cosine) and fit.notes[0].startswith("no cosine")
    assert fit.remainder_norm == np.linalg.norm(step)


def test_noise_in_the_gradient_is_told_apart_from_a_bend_of_the_vector():
    """τ = −E g exactly; the cosine on these data is pulled toward 0, its estimate is not."""
    rng = np.random.default_rng(0)
    true = np.zeros(200)
    true[0] = 1
    inside = 0
    for _ in range(100):
        rows = torch.tensor(true + rng.normal(size=(8, 200)) * 0.2)
        task = Task("t", lambda p, b: (b @ p["w"]).mean(), list(rows.split(1)))
        fit = gradient_fit(task, vector(np.zeros(200)), vector(-true))
        assert fit.cosine > -0.85
        inside += fit.cosine_estimate.lower <= -1 <= fit.cosine_estimate.upper
    assert inside >= 80, f"{inside} of 100 intervals of 90 % cover −1"


def merge(problem, **options):
    tasks, point, _, vectors = problem
    return merge_error(tasks[0], tasks[1:], point, vector(vectors[0]), [vector(v) for v in vectors[1:]], **options)


@settings(max_examples=40)
@given(problem=problems(), data=st.data())
def test_the_merge_error_is_the_sum_of_its_parts(problem, data):
    """(1.5) with the remainders: Δ = η_* ∇ℰ + r_* − Σ λ_i r_i, for any λ."""
    _, _, slopes, vectors = problem
    lambdas = np.array([data.draw(st.floats(-2, 2)) for _ in vectors[1:]])
    result = merge(problem, coefficients=lambdas.tolist())
    etas = np.array([v @ g / (g @ g) for v, g in zip(vectors, slopes, strict=True)])
    alphas = lambdas * etas[1:] / etas[0]
    remainders = vectors - etas[:, None] * slopes
    delta = vectors[0] - lambdas @ vectors[1:]
    error = slopes[0] - alphas @ slopes[1:]
    parts = [etas[0] * error, remainders[0], *(-lambdas[:, None] * remainders[1:])]
    assert np.abs(sum(parts) - delta).max() < 1e-9 * np.abs(parts).max(), "the oracle's own identity"
    assert result.etas == pytest.approx(etas) and result.alphas == pytest.approx(alphas)
    scale = max(np.linalg.norm(part) for part in [*parts, *vectors, delta])
    assert result.norm == pytest.approx(np.linalg.norm(delta), abs=1e-6 * scale)
    assert result.relative == pytest.approx(np.linalg.norm(delta) / np.linalg.norm(vectors[0]), abs=1e-6 * scale)
    for sign, found in ((1, result.miss), (-1, result.miss_as_stated)):
        expected = np.linalg.norm(delta - sign * etas[0] * error)
        assert found * np.linalg.norm(delta) == pytest.approx(expected, abs=1e-5 * scale)
    assert list(result.parts) == ["alignment error", *(f"remainder of task {i}" for i in range(len(vectors)))]
    assumption = result.assumptions["aligned"]
    sines = np.linalg.norm(remainders, axis=1) / np.linalg.norm(vectors, axis=1)
    assert assumption.measured == pytest.approx(sines.max(), abs=1e-6)


def test_the_default_coefficients_are_those_of_the_best_alpha():
    rng = np.random.default_rng(3)
    tasks = [quadratic(f"task {i}", rotated([1.0, 2.0, 0.5], i), rng.normal(size=3)) for i in range(3)]
    point = rng.normal(size=3)
    slopes = np.stack(
        [rotated([1.0, 2.0, 0.5], i).numpy() @ (point - task.batches[0].numpy()) for i, task in enumerate(tasks)]
    )
    etas = np.array([-0.5, -1.0, -2.0])
    result = merge((tasks, vector(point), slopes, etas[:, None] * slopes))
    alphas = np.linalg.lstsq(slopes[1:].T, slopes[0], rcond=None)[0]
    assert result.alphas == pytest.approx(alphas)
    assert result.coefficients == pytest.approx(alphas * etas[0] / etas[1:])


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), sign=st.sampled_from([-1, 1]))
def test_the_published_sign_is_wrong_where_task_vectors_are_gradient_steps(seed, sign):
    """With τ_i = η_i g_i exactly (either sign of η) the gradients explain all of Δ; as published they double it."""
    rng = np.random.default_rng(seed)
    tasks = [quadratic(f"task {i}", rotated([1.0, 2.0, 0.5], seed + i), rng.normal(size=3)) for i in range(2)]
    point = rng.normal(size=3)
    slopes = [
        rotated([1.0, 2.0, 0.5], seed + i).numpy() @ (point - task.batches[0].numpy()) for i, task in enumerate(tasks)
    ]
    result = merge((tasks, vector(point), slopes, [sign * 0.3 * slopes[0], sign * 0.7 * slopes[1]]), alphas=[1.0])
    assert result.miss < 1e-6
    assert result.miss_as_stated == pytest.approx(2)
    assert result.coefficients == pytest.approx((0.3 / 0.7,))
    assert result.assumptions["aligned"].holds


def test_what_is_no_gradient_step_is_said_to_be_none():
    """(1.4) by the derivation's own condition: a right angle's half has a sine of √½."""
    point, slope = vector([0, 0]), vector([1, 0])
    task = Task("flat", lambda p, b: p["w"] @ b, [slope["w"]], sizes=[1])
    result = merge_error(task, [task], point, vector([-1, 1]), [vector([-1, 0])], alphas=[1.0])
    assumption = result.assumptions["aligned"]
    assert not assumption.holds and assumption.measured == pytest.approx(math.sqrt(0.5))
    assert "aligned: fails: 0.7071 against 1e-06. (1.4)" in str(result)


def test_shares_of_the_parts_add_up_to_one():
    rng = np.random.default_rng(0)
    tasks = [quadratic(f"task {i}", rotated([1.0, 2.0, 0.5], i), 3 * rng.normal(size=3), batches=6) for i in range(3)]
    result = merge((tasks, vector([0, 0, 0]), None, rng.normal(size=(3, 3))), alphas=[1.0, 1.0])
    assert sum(part.share.value for part in result.parts.values()) == pytest.approx(1)
    assert all(part.share.status is Status.CONVERGED for part in result.parts.values())


def test_what_has_no_coefficients_is_refused():
    task = Task("flat", lambda p, b: p["w"] @ b, [torch.tensor([1.0, 0]).double()], sizes=[1])
    point, along, across = vector([0, 0]), vector([-1, 0]), vector([0, 1])
    with pytest.raises(
        InputError, match=r"expected task vectors with a part along.*found none for \['flat'\].*gradient_fit"
    ):
        merge_error(task, [task], point, along, [across])
    with pytest.raises(InputError, match=r"component_vectors: expected one for each of 1 components.*found 2"):
        merge_error(task, [task], point, along, [along, along])
    with pytest.raises(InputError, match=r"expected 1 finite numbers.*found \[1.0, 2.0\]"):
        merge_error(task, [task], point, along, [along], coefficients=[1, 2])
    with pytest.raises(InputError):
        gradient_fit(task, point, {"v": torch.zeros(2).double()})
