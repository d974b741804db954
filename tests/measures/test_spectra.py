"""spectral_norm against a dense eigensolver, on the spectra that break other implementations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from diagnostics import InputError, Status, Task, spectral_norm
from diagnostics.inputs.zoo import quadratic_task
from diagnostics.measures import lanczos as lanczos_module
from diagnostics.measures.lanczos import lanczos, power_iteration
from diagnostics.measures.reference import dense_hessian, dense_spectral_norm
from tests.cases import SPECTRA, rotated, small_task

METHODS = {"lanczos": lanczos, "power": power_iteration}


def measure(matrix: torch.Tensor, **options):
    task = quadratic_task("q", matrix, torch.zeros(len(matrix), dtype=matrix.dtype))
    return spectral_norm(task, {"w": torch.zeros(len(matrix), dtype=matrix.dtype)}, **options)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", SPECTRA)
def test_interval_holds_the_truth_and_value_is_right(method, name):
    matrix = rotated(SPECTRA[name])
    truth = dense_spectral_norm(matrix.numpy())
    found = measure(matrix, method=method, max_products=2000)
    assert found.lower <= truth * (1 + 1e-12) and truth <= found.upper + 1e-12, f"{found} misses {truth}"
    assert abs(found.value - truth) <= 1e-2 * truth + 1e-12, f"{found} is not within 1 % of {truth}"
    assert found.value == abs(found.eigenvalue)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["indefinite", "nearly tied", "outlier", "clustered top"])
def test_start_orthogonal_to_the_top_eigenvector(method, name):
    spectrum = SPECTRA[name]
    matrix = rotated(spectrum)
    values, vectors = torch.linalg.eigh(matrix)
    start = {"w": vectors[:, int(values.abs().argmin())]}
    truth = dense_spectral_norm(matrix.numpy())
    found = measure(matrix, method=method, start=start, max_products=2000, rtol=1e-3)
    assert found.lower <= truth * (1 + 1e-12) and truth <= found.upper, f"{found} misses {truth}"
    assert abs(found.value - truth) <= 1e-2 * truth, f"{found} is not within 1 % of {truth}"


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=60)
@given(
    spectrum=st.lists(st.floats(-5, 5).map(lambda x: round(x, 3)), min_size=1, max_size=12),
    seed=st.integers(0, 1000),
    products=st.integers(1, 30),
)
def test_interval_and_status_on_random_spectra(method, spectrum, seed, products):
    matrix = rotated(spectrum, seed)
    truth = dense_spectral_norm(matrix.numpy())
    found = measure(matrix, method=method, seed=seed, max_products=products, confidence=1 - 1e-9)
    assert found.lower <= truth + 1e-9 <= found.upper + 2e-9
    assert found.products <= products
    wrong = abs(found.value - truth) > 1e-2 * truth + 1e-9
    assert not (wrong and found.status.trusted), f"{found} calls itself {found.status} but the norm is {truth}"


def test_upper_end_holds_as_often_as_promised():
    """A fixed number of runs at a low confidence, on a spectrum where the promise is nearly used up."""
    runs, confidence, misses = 400, 0.5, 0
    spectrum = torch.tensor([1.0, *np.linspace(0, 0.5, 19)])
    for seed in range(runs):
        noise = torch.randn(20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        misses += lanczos(lambda v: spectrum * v, noise, max_products=2, confidence=confidence).upper < 1.0
    # Only the upper of the two ends of this spectrum can be missed, and it has half of the failures.
    allowed = binom.ppf(0.999, runs, (1 - confidence) / 2)
    assert misses <= allowed, f"{misses} of {runs} upper ends missed the norm, at most {allowed} were promised"
    assert misses > 0, "the interval is so wide that this test cannot tell a wrong one"


def test_small_residual_is_not_called_converged_while_a_larger_eigenvalue_is_likely():
    """One eigenvalue of 100 above a bulk of 10: the first Ritz value has a small residual and is wrong."""
    spectrum = torch.full((200_000,), 10.0, dtype=torch.float64)
    spectrum[0] = 100.0
    noise = torch.randn(200_000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    first = lanczos(lambda v: spectrum * v, noise, rtol=0.05, max_products=1)
    assert first.residual <= 0.05 * abs(first.eigenvalue) and abs(first.eigenvalue) < 11
    assert first.status is Status.LOWER_BOUND and first.upper > 100
    assert lanczos(lambda v: spectrum * v, noise, rtol=0.05).eigenvalue == pytest.approx(100)


def test_an_upper_end_with_twice_the_random_component_is_caught(monkeypatch):
    """Mutant: claiming that the start vector has twice the part in every eigenspace that it has."""
    honest = lanczos_module._start
    monkeypatch.setattr(lanczos_module, "_start", lambda *args: (honest(*args)[0], 2 * honest(*args)[1]))
    with pytest.raises(AssertionError, match="upper ends missed"):
        test_upper_end_holds_as_often_as_promised()


def test_real_network_against_the_dense_hessian():
    task, params = small_task()
    batches = list(task.batches)
    whole = (torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches]))
    truth = dense_spectral_norm(dense_hessian(lambda p: task.loss(p, whole), params))
    for method in METHODS:
        found = spectral_norm(task, params, method=method, rtol=1e-4, max_products=3000)
        assert found.value == pytest.approx(truth, rel=1e-3) and found.lower <= truth <= found.upper


def test_seed_fixes_the_result():
    matrix = rotated(SPECTRA["outlier"])
    assert measure(matrix, seed=1) == measure(matrix, seed=1)
    assert measure(matrix, seed=1).residual != measure(matrix, seed=2).residual


def test_budget_exhausted_is_said():
    found = measure(rotated(list(np.linspace(-1, 1, 60))), max_products=2)
    assert found.status is Status.NOT_CONVERGED and found.products == 2
    assert "raise max_products" in found.status.advice


def test_asymmetric_operator_is_tainted():
    """A product that is no Hessian product: the loss's second derivatives do not commute."""
    matrix = torch.tensor([[1.0, 5.0, 0.0], [0.0, 2.0, 1.0], [0.0, 0.0, 3.0]], dtype=torch.float64)
    noise = torch.randn(3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert lanczos(lambda v: matrix @ v, noise).status is Status.TAINTED


def test_not_finite_curvature_is_undefined():
    task = Task("nan", lambda p, b: (p["w"].abs() ** 0.5).sum() ** 2 * b.sum(), [torch.ones(1)])
    found = spectral_norm(task, {"w": torch.zeros(2)})
    assert found.status is Status.UNDEFINED and np.isnan(found.value)


@pytest.mark.parametrize(
    "options",
    [
        *({"method": "qr"}, {"rtol": 0.0}, {"max_products": 0}, {"upper_rtol": 0.0}),
        *({"confidence": 1.0}, {"confidence": -0.1}),
    ],
)
def test_bad_settings_are_refused(options):
    with pytest.raises(InputError, match=str(next(iter(options)))):
        measure(torch.eye(2, dtype=torch.float64), **options)


def test_a_norm_is_what_the_method_found_and_prints_it():
    """All fields are those of the iteration on the same noise; nothing is lost or mixed up on the way."""
    matrix = rotated(SPECTRA["outlier"])
    count = len(matrix)
    task = Task("q", lambda p, b: 0.5 * p["w"] @ matrix @ p["w"], [torch.zeros(1)])
    noise = torch.randn(count, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    start, point = torch.ones(count, dtype=torch.float64), {"w": torch.zeros(count, dtype=torch.float64)}
    for method, function in (("lanczos", lanczos), ("power", lanczos_module.power_iteration)):
        options = {"rtol": 0.03, "max_products": 3, "confidence": 0.9}
        expected = function(lambda v: matrix @ v, noise, start=start, **options)
        found = spectral_norm(task, point, method=method, seed=5, start={"w": start}, **options)
        assert found.value == pytest.approx(abs(expected.eigenvalue)) and found.eigenvalue == pytest.approx(
            expected.eigenvalue
        )
        for name in ("lower", "upper", "residual", "products"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-6), name
        assert (found.status, found.method, found.confidence) == (expected.status, method, 0.9)
        assert found.asymmetry == pytest.approx(expected.asymmetry, abs=1e-9)
        assert str(found) == (
            f"‖H‖₂ = {found.value:.4g} in [{found.lower:.4g}, {found.upper:.4g}] at 90.0%, "
            f"residual {found.residual:.2g}, 3 products, {found.status}"
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "qr"}, "method must be one of ['lanczos', 'power'], found 'qr'"),
        ({"rtol": 0.0}, "found rtol=0.0, max_products=100, confidence=0.999"),
        ({"max_products": 0}, "found rtol=0.01, max_products=0, confidence=0.999"),
        ({"method": "power", "upper_rtol": 1.0}, "only method='lanczos' closes its upper end; found method='power'"),
        ({"confidence": 0.0}, "found rtol=0.01, max_products=100, confidence=0.0"),
        (
            {"confidence": 1.0},
            "rtol and max_products must be positive and confidence between 0 and 1; found rtol=0.01, ",
        ),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    task = Task("q", lambda p, b: (p["w"] ** 2).sum(), [torch.zeros(1)])
    with pytest.raises(InputError) as caught:
        spectral_norm(task, {"w": torch.zeros(2)}, **options)
    assert message in str(caught.value)
    assert spectral_norm(task, {"w": torch.zeros(2)}, max_products=1, confidence=0.5, rtol=1e-9).products == 1


@pytest.mark.parametrize("method", METHODS)
def test_settings_reach_the_iteration(method):
    matrix = rotated(torch.linspace(1, 3, 40))
    task = Task("q", lambda p, b: 0.5 * p["w"] @ matrix.to(p["w"]) @ p["w"], [torch.zeros(1)])
    point = {"w": torch.zeros(40)}
    loose, tight = (spectral_norm(task, point, method=method, rtol=rtol, max_products=300) for rtol in (0.3, 1e-3))
    assert loose.products < tight.products
    assert spectral_norm(task, point, method=method) == spectral_norm(task, point, method=method, seed=0)
    start = {"w": torch.linspace(-1, 1, 40, dtype=torch.float64)}
    narrow = {"w": start["w"].float()}
    found, expected = (spectral_norm(task, point, method=method, start=each) for each in (start, narrow))
    assert found == expected, "a direction is taken in the type of the parameters"


@pytest.mark.parametrize("method", METHODS)
def test_exact_products_may_use_up_the_tolerance(method):
    """A norm stops at the very product at which the iteration by itself does, and says the same of it."""
    matrix = rotated(list(np.linspace(-1, 3, 20)))
    noise = torch.randn(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for rtol in np.geomspace(0.5, 1e-4, 25):
        found = measure(matrix, method=method, rtol=rtol)
        expected = METHODS[method](lambda v: matrix @ v, noise, rtol=rtol)
        assert (found.products, found.status) == (expected.products, expected.status), rtol
