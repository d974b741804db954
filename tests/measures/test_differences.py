"""Hessian products by differences of gradients: how far off they are, and that this is said."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics import InputError, Status, Task, spectral_norm
from diagnostics.inputs.zoo import quadratic_task
from diagnostics.measures.differences import DifferenceOperator
from diagnostics.measures.reference import dense_hessian, dense_spectral_norm
from tests.cases import SPECTRA, rotated, small_task


def whole_loss(task):
    batches = list(task.batches)
    whole = (torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches]))
    return lambda params: task.loss(params, whole)


@settings(max_examples=15)
@given(seed=st.integers(0, 50), kind=st.sampled_from([torch.float64, torch.float32]))
def test_products_are_off_by_about_the_root_of_the_resolution(seed, kind):
    task, params = small_task(seed=seed)
    point = {key: value.to(kind) for key, value in params.items()}
    operator, dense = DifferenceOperator(task, point), dense_hessian(whole_loss(task), params)
    generator = torch.Generator().manual_seed(seed)
    allowed = 50 * torch.finfo(kind).eps ** 0.5 * np.abs(np.linalg.eigvalsh(dense)).max()
    for length in (1.0, 1.0, 100.0):  # the first is what the step is learnt from
        vector = torch.randn(26, generator=generator, dtype=torch.float64)
        vector *= length / vector.norm()
        apart = np.linalg.norm(operator(vector.to(kind)).double().numpy() - dense @ vector.numpy())
        assert apart <= allowed * length, f"off by {apart / length:.2g}, {allowed:.2g} were to be expected"


def test_a_product_takes_one_gradient_and_the_error_one_more():
    calls, (whole, params) = [], small_task(count=4, batch_size=4)
    task = Task("t", lambda p, b: calls.append(1) or whole.loss(p, b), list(whole.batches), sizes=[4])
    operator = DifferenceOperator(task, params)
    assert operator.error() == 0.0 and len(calls) == 1
    for _ in range(3):
        operator(torch.ones(26, dtype=torch.float64))
    assert len(calls) == 4
    operator.error()
    assert len(calls) == 5


def test_the_error_is_that_of_the_last_product():
    """For L = w³/6 the second derivative is w, and a difference is off by exactly h/2."""
    task = Task("t", lambda p, b: (p["w"] ** 3).sum() / 6, [torch.zeros(1)])
    operator = DifferenceOperator(task, {"w": torch.tensor([1.0], dtype=torch.float64)})
    for length in (1.0, 1.0, 4.0):
        off = float(operator(torch.full((1,), length, dtype=torch.float64))) / length - 1.0
        assert off == pytest.approx(operator.error(), rel=1e-3) and off > 0


def changes(curvatures, vectors, slope=1.0):
    """How far the gradient of Σ hᵢwᵢ²/2 + slope·w₁ changes over the step of each product, in √ε of its length."""
    points, curvatures = [], torch.as_tensor(curvatures, dtype=torch.float64)

    def loss(params, batch):
        points.append(params["w"].detach().clone())
        return (curvatures * params["w"] ** 2).sum() / 2 + slope * params["w"][0]

    operator = DifferenceOperator(Task("t", loss, [0]), {"w": torch.zeros_like(curvatures)})
    for vector in vectors:
        operator(vector)
    return [float((curvatures * point).norm()) / (slope * math.sqrt(2.0**-52)) for point in points[1:]]


def unit(index, dimension):
    return torch.eye(dimension, dtype=torch.float64)[index]


@pytest.mark.parametrize("curvature", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("slope", [0.1, 10.0])
def test_the_gradient_changes_by_some_roots_of_the_resolution_whatever_the_curvature(curvature, slope):
    found = changes([curvature], [unit(0, 1)] * 4, slope)
    assert all(3 <= each <= 10 for each in found[1:]), found


def test_a_first_vector_that_meets_little_curvature_promises_no_less_than_the_most():
    """A random vector meets 1/√d of the one curvature that there is, and the next may meet all of it."""
    count = 400
    anywhere, top = torch.ones(count, dtype=torch.float64), unit(0, count)
    found = changes(100 * top, [anywhere, top, anywhere, unit(1, count), top])
    assert 3 <= found[1] <= 10 and 3 <= found[4] <= 10, found


def test_the_second_product_corrects_what_the_first_promised():
    top, other = unit(0, 400), unit(1, 400)
    for first in (top, other):
        found = changes(100 * top + 0.01 * other, [first, top, top, other, top])
        assert all(3 <= found[index] <= 10 for index in (2, 4)), found


def test_a_vector_without_curvature_teaches_no_step():
    bent, straight = unit(0, 2), unit(1, 2)
    for before in ([bent, straight], [straight, bent], [bent, bent, straight]):
        found = changes([1e-5, 0.0], [*before, bent])
        assert 3 <= found[-1] <= 10, found


def test_products_of_no_curvature_at_all_are_zero():
    flat = DifferenceOperator(Task("flat", lambda p, b: 0 * p["w"].sum(), [0]), {"w": torch.ones(3)})
    for vector in (torch.ones(3), torch.zeros(3), torch.ones(3)):
        assert flat(vector).tolist() == [0.0] * 3


def test_half_precision_is_widened():
    task = Task("cube", lambda p, b: (p["w"] ** 3).sum() / 6, [0])
    half = {"w": torch.tensor([1.0, -3.0], dtype=torch.bfloat16)}
    assert DifferenceOperator(task, half)(torch.ones(2)).tolist() == pytest.approx([1.0, -3.0], rel=1e-2)


def test_a_step_from_large_parameters_is_not_lost_in_their_rounding():
    task = Task("bowl", lambda p, b: ((p["w"] - 1e4) ** 2).sum(), [0])
    operator = DifferenceOperator(task, {"w": torch.full((2,), 1e4 + 1)})
    assert operator(torch.ones(2)).tolist() == pytest.approx([2.0, 2.0], rel=1e-2)


def measure(matrix, **options):
    """The norm of a quadratic's Hessian, away from the minimum."""
    minimum = torch.linspace(-1, 1, len(matrix), dtype=torch.float64)
    task, point = quadratic_task("q", matrix, minimum), {"w": torch.zeros(len(matrix), dtype=torch.float64)}
    return spectral_norm(task, point, products="differences", **options)


@pytest.mark.parametrize("name", [name for name in SPECTRA if name != "clustered top"])
def test_the_interval_holds_the_truth(name):
    matrix = rotated(SPECTRA[name])
    truth = dense_spectral_norm(matrix.numpy())
    found = measure(matrix, max_products=200)
    assert found.lower <= truth * (1 + 1e-9) and truth <= found.upper + 1e-9, f"{found} misses {truth}"
    assert abs(found.value - truth) <= 1e-2 * truth + 1e-9 and found.status is not Status.EXACT


@pytest.mark.parametrize(
    ("error", "status"),
    [
        *((1e-3, Status.CONVERGED), (0.01, Status.LOWER_BOUND), (0.029, Status.LOWER_BOUND)),
        *((0.031, Status.TAINTED), (2.0, Status.TAINTED)),
    ],
)
def test_errors_widen_the_interval_and_cost_the_status(error, status, monkeypatch):
    """Three products find the norm 3 of a 3 × 3 matrix, [3, 3]; 1 % of it is allowed for residual and upper end."""
    monkeypatch.setattr(DifferenceOperator, "error", lambda operator: error)
    found = measure(rotated([1.0, -3.0, 2.0]))
    spread = 2 * math.sqrt(3) * error  # twice what three errors that are alike amount to
    assert (found.products, found.value, found.status) == (3, pytest.approx(3), status)
    assert (found.lower, found.upper) == (pytest.approx(max(3 - spread, 0)), pytest.approx(3 + spread))
    assert found.residual == pytest.approx(error, rel=1e-3) and found.error == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize(("error", "status"), [(0.28, Status.NOT_CONVERGED), (0.32, Status.TAINTED)])
def test_an_error_within_the_tolerance_taints_nothing_though_the_residual_has_no_room_beside_it(
    error, status, monkeypatch
):
    monkeypatch.setattr(DifferenceOperator, "error", lambda operator: error)
    found = measure(rotated(list(np.linspace(1, 3, 60))), rtol=0.1, upper_rtol=1.0)
    assert found.residual - error < 0.1 * found.value < found.residual and found.value == pytest.approx(3, rel=0.02)
    assert found.status is status


def test_iterations_go_on_until_the_residual_leaves_room_for_errors(monkeypatch):
    """A quarter of the tolerance is theirs, and there is nearly as much of them here."""
    matrix = rotated(list(np.linspace(-1, 3, 60)))
    for rtol in np.geomspace(0.5, 1e-4, 30):
        monkeypatch.setattr(DifferenceOperator, "error", lambda operator, size=0.2 * rtol * 3: size)
        found = measure(matrix, rtol=rtol, upper_rtol=1.0)
        assert found.residual <= rtol * found.value and found.status is not Status.NOT_CONVERGED, found


def test_a_network_gives_the_norm_of_exact_products():
    task, params = small_task(count=40, batch_size=16)
    exact, found = (spectral_norm(task, params, products=kind) for kind in ("exact", "differences"))
    assert found.value == pytest.approx(exact.value, rel=1e-4)
    assert exact.error == 0.0 < found.error < 1e-3 * found.value
    assert found.lower <= exact.value <= found.upper


def test_too_large_an_error_is_not_called_a_result():
    """A loss whose curvature jumps within a step: differences say something else on each side."""
    task = Task("kink", lambda p, b: (p["w"].abs() * (1 + p["w"])).sum() * 1e3, [torch.zeros(1)])
    found = spectral_norm(task, {"w": torch.full((4,), 1e-9)}, products="differences")
    assert not found.status.trusted and found.status is not Status.LOWER_BOUND, found


@settings(max_examples=25)
@given(seed=st.integers(0, 200), kind=st.sampled_from([torch.float64, torch.float32]))
def test_a_trusted_interval_holds_the_norm_of_a_network(seed, kind):
    task, params = small_task(seed=seed, count=12, batch_size=5)
    truth = dense_spectral_norm(dense_hessian(whole_loss(task), params))
    point = {key: value.to(kind) for key, value in params.items()}
    found = spectral_norm(task, point, products="differences", seed=seed)
    assert found.lower <= truth * (1 + 1e-5) and truth <= found.upper * (1 + 1e-5), f"{found} misses {truth}"
    assert abs(found.value - truth) <= 0.01 * truth or not found.status.trusted, f"{found}, but the norm is {truth}"


def test_no_curvature_at_all():
    found = spectral_norm(
        Task("linear", lambda p, b: p["w"].sum(), [torch.zeros(1)]), {"w": torch.ones(5)}, products="differences"
    )
    assert found.value == 0 and found.upper < 1e-3 and found.status is Status.CONVERGED


def test_curvature_that_is_not_finite_is_undefined():
    task = Task("nan", lambda p, b: (p["w"].abs() ** 0.5).sum() ** 2, [torch.zeros(1)])
    found = spectral_norm(task, {"w": torch.zeros(2)}, products="differences")
    assert found.status is Status.UNDEFINED and np.isnan(found.value)


def test_an_unknown_kind_of_product_is_refused():
    task, params = small_task()
    with pytest.raises(InputError, match=r"products: expected one of exact, differences; found 'guesses'"):
        spectral_norm(task, params, products="guesses")
