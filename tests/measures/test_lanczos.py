"""The iterations step by step: start, Ritz pairs and ends against dense definitions; more in test_spectra.py."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from diagnostics.measures import lanczos as module
from diagnostics.measures.lanczos import lanczos, power_iteration
from diagnostics.measures.space import Space
from diagnostics.results import Status


def symmetric(seed, count):
    matrix = torch.randn(count, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return matrix + matrix.T


def gaussian(seed, count):
    return torch.randn(count, generator=torch.Generator().manual_seed(1000 + seed), dtype=torch.float64)


def applied(matrix):
    return lambda vector: matrix @ vector


@pytest.mark.parametrize("failure", [1e-3, 0.5])
@given(seed=st.integers(0, 100), count=st.integers(1, 30), length=st.sampled_from([1e-3, 1.0, 50.0]))
def test_a_start_is_a_unit_vector_with_the_component_that_anderson_promises(failure, seed, count, length):
    noise, given_start = gaussian(seed, count), length * gaussian(seed + 1, count)
    quantile = norm.ppf(0.5 + failure / 2)
    vector, component = module._start(Space(len(noise)), noise, None, failure)
    assert torch.allclose(vector, noise / noise.norm()) and component == pytest.approx(quantile / float(noise.norm()))
    same, as_much = module._start(Space(len(noise)), noise, torch.zeros(count), failure)
    assert torch.equal(same, vector) and as_much == component, "zero is no direction"
    mixed = given_start / given_start.norm() + 0.1 * noise / math.sqrt(count)
    vector, component = module._start(Space(len(noise)), noise, given_start, failure)
    assert torch.allclose(vector, mixed / mixed.norm())
    assert component == pytest.approx(0.1 * quantile / (math.sqrt(count) * float(mixed.norm())))


@pytest.mark.parametrize(
    ("residual", "upper", "exhausted", "status"),
    [
        *((9.0, 9.0, True, Status.EXACT), (0.21, 2.0, False, Status.NOT_CONVERGED)),
        *((0.19, 2.3, False, Status.LOWER_BOUND), (0.19, 2.1, False, Status.CONVERGED)),
        *((0.2, 2.2, False, Status.CONVERGED), (0.0, 2.2001, False, Status.LOWER_BOUND)),
    ],
)
def test_a_status_needs_a_small_residual_and_a_near_end(residual, upper, exhausted, status):
    """Of an eigenvalue 2 to 10 %."""
    assert module._status(2.0, residual, upper, exhausted, 0.1) is status


def krylov(matrix, start, steps):
    """An orthonormal basis of the Krylov space, and the matrix on it."""
    columns = [start / np.linalg.norm(start)]
    for _ in range(steps - 1):
        image = matrix @ columns[-1]
        for _ in range(3):
            image = image - np.array(columns).T @ (np.array(columns) @ image)
        columns.append(image / np.linalg.norm(image))
    basis = np.array(columns).T
    return basis, basis.T @ matrix @ basis


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), count=st.integers(4, 12), steps=st.integers(1, 3))
def test_lanczos_finds_the_ritz_pair_of_the_krylov_space(seed, count, steps):
    matrix, noise = symmetric(seed, count), gaussian(seed, count)
    found = lanczos(applied(matrix), noise, max_products=steps, rtol=1e-12)
    basis, small = krylov(matrix.numpy(), noise.numpy(), steps)
    values, vectors = np.linalg.eigh(small)
    top = np.abs(values).argmax()
    ritz = basis @ vectors[:, top]
    assert found.eigenvalue == pytest.approx(values[top])
    assert found.residual == pytest.approx(np.linalg.norm(matrix.numpy() @ ritz - values[top] * ritz), abs=1e-9)
    assert found.products == steps and found.asymmetry == pytest.approx(0, abs=1e-12)
    assert found.lower == pytest.approx(abs(values[top]), rel=1e-9) and found.lower <= abs(values[top])
    assert found.upper >= float(torch.linalg.eigvalsh(matrix).abs().max())


@pytest.mark.parametrize("kept", [1, 2, 3, 5])
def test_vectors_stay_orthogonal_where_a_krylov_space_nearly_closes(kept):
    """All but 1e-9 of the start is in so many eigenvectors: what comes after them is a small rest of a large image."""
    values, noise = torch.linspace(9, 2, 12, dtype=torch.float64), gaussian(kept, 12)
    noise[kept:] *= 1e-9
    seen = []

    def operator(vector):
        seen.append(vector)
        return values * vector

    lanczos(operator, noise, max_products=kept + 3, rtol=1e-15)
    basis = torch.stack(seen)
    np.testing.assert_allclose(basis @ basis.T, np.eye(kept + 3), atol=1e-13)


def test_a_tolerance_that_is_just_met_is_met():
    """Where the eigenvalue is 4 and the residual 1 after one product."""
    noise = torch.tensor([2.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    matrix = torch.diag(torch.full((4,), 4.0, dtype=torch.float64))
    matrix[0, 1] = matrix[1, 0] = 1
    first = lanczos(applied(matrix), noise, max_products=1)
    assert (first.eigenvalue, first.residual) == (4, 1)
    wide = first.upper / 4 - 1
    assert lanczos(applied(matrix), noise, rtol=0.25, upper_rtol=wide).products == 1
    assert lanczos(applied(matrix), noise, rtol=0.24, upper_rtol=wide).products > 1
    assert lanczos(applied(matrix), noise, rtol=0.25, upper_rtol=0.99 * wide).products > 1


def test_the_end_of_a_space_that_closes_holds_the_residual_and_rounding():
    """In float32, where 1e-6 is within rounding after one product."""
    noise = torch.tensor([2.0, 0.0, 0.0, 0.0])
    image = torch.tensor([1.0, 1e-6, 0.0, 0.0])
    found = lanczos(lambda vector: image, noise)
    assert (found.status, found.products) == (Status.EXACT, 1) and found.residual == pytest.approx(1e-6)
    assert found.upper == pytest.approx(1 + 1e-6 + 16 * 2**-23, abs=1e-9)


def ends_by_determinant(alphas, betas, target):
    """Where |det(t − T_k)|/Πβ reaches a target beyond the Ritz values, on either side."""
    small = np.diag(alphas) + np.diag(betas[:-1], 1) + np.diag(betas[:-1], -1)
    ritz = np.linalg.eigvalsh(small)

    def height(t):
        return np.log(np.abs(t - ritz)).sum() - np.log(betas).sum() - math.log(target)

    far = 10 * (np.abs(ritz).max() + max(betas)) * target
    return (
        brentq(lambda t: height(ritz[-1] + t), 1e-14, far, xtol=1e-12),
        brentq(lambda t: height(ritz[0] - t), 1e-14, far, xtol=1e-12),
        ritz,
    )


@given(
    seed=st.integers(0, 1000),
    steps=st.integers(1, 5),
    target=st.sampled_from([2.0, 1e3, 1e6]),
    shift=st.sampled_from([-9, 0, 9]),
)
def test_the_end_is_where_the_lanczos_polynomial_reaches_its_target(seed, steps, target, shift):
    rng = np.random.default_rng(seed)
    alphas, betas = (rng.normal(size=steps) + shift).tolist(), rng.uniform(0.3, 2, size=steps).tolist()
    above, below, ritz = ends_by_determinant(alphas, betas, target)
    for sign, edge, width in ((1, ritz[-1], above), (-1, -ritz[0], below)):
        found = module._polynomial_end(sign, ritz, alphas, betas, target)
        assert found == pytest.approx(edge + width, abs=2e-6 * max(abs(edge), width))
        assert found >= edge + width - 1e-9 * abs(found), "never on the near side"


def test_an_end_far_away_does_not_overflow():
    steps = 60
    found = module._polynomial_end(1, np.array([0.0]), [0.0] * steps, [1e-6] * steps, 1e200)
    assert 0 < found < 1 and math.isfinite(found)


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), count=st.integers(3, 10))
def test_the_upper_end_is_the_larger_of_both_sides(seed, count):
    """For H and −H alike, and never below the Ritz value."""
    matrix, noise = symmetric(seed, count), gaussian(seed, count)
    found, turned = (lanczos(applied(sign * matrix), noise, max_products=2, rtol=1e-9) for sign in (1, -1))
    assert found.upper == pytest.approx(turned.upper, rel=1e-5) and found.upper > found.lower
    assert found.eigenvalue == pytest.approx(-turned.eigenvalue)
    basis, small = krylov(matrix.numpy(), noise.numpy(), 2)
    following = matrix.numpy() @ basis[:, 1]
    beta = np.linalg.norm(following - basis @ (basis.T @ following))
    component = module._start(Space(len(noise)), noise, None, (1 - 0.999) / 2)[1]
    above, below, ritz = ends_by_determinant(np.diag(small), np.array([small[0, 1], beta]), 1 / component)
    assert found.upper == pytest.approx(max(ritz[-1] + above, below - ritz[0]), rel=1e-5)


def test_a_krylov_space_that_closes_has_seen_everything():
    noise = gaussian(0, 50)
    found = lanczos(lambda v: 3.0 * v, noise)
    assert (found.status, found.products) == (Status.EXACT, 1) and found.eigenvalue == pytest.approx(3)
    assert found.lower <= 3 <= found.upper and found.upper - found.lower < 1e-11
    whole = symmetric(1, 4)
    found = lanczos(applied(whole), gaussian(1, 4), rtol=1e-12)
    assert (found.status, found.products) == (Status.EXACT, 4)
    assert abs(found.eigenvalue) == pytest.approx(float(torch.linalg.eigvalsh(whole).abs().max()))


@pytest.mark.parametrize("iterate", [lanczos, power_iteration])
def test_what_is_not_finite_is_undefined(iterate):
    found = iterate(lambda v: v / 0.0, gaussian(0, 5))
    assert found.status is Status.UNDEFINED and math.isnan(found.eigenvalue) and math.isnan(found.residual)
    assert (found.lower, found.upper, found.products, found.asymmetry) == (0.0, math.inf, 1, 0.0)


@pytest.mark.parametrize("iterate", [lanczos, power_iteration])
def test_a_given_direction_is_where_it_starts(iterate):
    matrix, noise, direction = symmetric(3, 8), gaussian(3, 8), gaussian(4, 8)
    vector = module._start(Space(len(noise)), noise, direction, 0.5)[0]
    found = iterate(applied(matrix), noise, start=direction, max_products=1, rtol=1e-12)
    assert found.eigenvalue == pytest.approx(float(vector @ matrix @ vector))


def test_the_second_product_shows_an_asymmetry():
    """|u'Hv - v'Hu| of the first two vectors of the basis."""
    matrix = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = gaussian(0, 6)
    u = noise / noise.norm()
    rest = matrix @ u - (u @ matrix @ u) * u
    v = rest / rest.norm()
    found = lanczos(applied(matrix), noise, max_products=2, rtol=1e-12)
    assert found.asymmetry == pytest.approx(abs(float(u @ matrix @ v - v @ matrix @ u)))
    third = lanczos(applied(matrix), noise, max_products=3, rtol=1e-12)
    assert third.asymmetry >= found.asymmetry


@pytest.mark.parametrize("iterate", [lanczos, power_iteration])
@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_an_operator_without_symmetry_taints(iterate, unit):
    skew = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.1]], dtype=torch.float64)
    skew, matrix = unit * skew, unit * torch.diag(torch.tensor([3.0, 2.0, 1.0])).double()
    noise = gaussian(2, 3)
    found = iterate(applied(matrix + skew), noise, rtol=1e-9)
    assert found.status is Status.TAINTED and found.asymmetry > 0.03 * unit
    assert iterate(applied(matrix + 1e-9 * skew), noise, rtol=1e-6, max_products=500).status is not Status.TAINTED


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), count=st.integers(3, 9))
def test_the_pair_of_two_vectors_is_that_of_their_span(seed, count):
    matrix = symmetric(seed, count)
    first, other = gaussian(seed, count), gaussian(seed + 7, count)
    first, other = first / first.norm(), other / other.norm()
    found, residual, skew = module._ritz_of_two(Space(len(first)), first, matrix @ first, other, matrix @ other)
    basis = np.linalg.qr(torch.stack([first, other], dim=1).numpy())[0]
    values, vectors = np.linalg.eigh(basis.T @ matrix.numpy() @ basis)
    top = np.abs(values).argmax()
    ritz = basis @ vectors[:, top]
    assert found == pytest.approx(values[top]) and skew == pytest.approx(0, abs=1e-9)
    assert residual == pytest.approx(np.linalg.norm(matrix.numpy() @ ritz - values[top] * ritz), abs=1e-8)


def test_two_vectors_that_are_one_have_its_rayleigh_quotient():
    matrix, first = symmetric(0, 6), gaussian(0, 6)
    first = first / first.norm()
    other = first + 0.019 * gaussian(3, 6) / gaussian(3, 6).norm()
    other = other / other.norm()
    found, residual, skew = module._ritz_of_two(Space(len(first)), first, matrix @ first, other, matrix @ other)
    rayleigh = float(other @ matrix @ other)
    assert found == pytest.approx(rayleigh) and skew == 0.0
    assert residual == pytest.approx(float((matrix @ other - rayleigh * other).norm()))


def test_the_asymmetry_of_two_vectors_is_that_in_an_orthonormal_basis():
    matrix = torch.tensor([[1.0, 5.0], [2.0, 1.0]], dtype=torch.float64)
    first, second = torch.eye(2, dtype=torch.float64)
    slanted = 0.6 * first + 0.8 * second
    assert module._ritz_of_two(Space(len(first)), first, matrix @ first, slanted, matrix @ slanted)[2] == pytest.approx(
        3
    )


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), count=st.integers(3, 10), products=st.integers(2, 6))
def test_power_iteration_is_powers_of_the_operator(seed, count, products):
    matrix, noise = symmetric(seed, count), gaussian(seed, count)
    found = power_iteration(applied(matrix), noise, max_products=products, rtol=1e-14)
    start, component = module._start(Space(len(noise)), noise, None, 1 - 0.999)
    powers = [start]
    for _ in range(products):
        powers.append(matrix @ powers[-1])
    before, last = (powers[k] / powers[k].norm() for k in (products - 2, products - 1))
    value, residual, _ = module._ritz_of_two(Space(len(before)), before, matrix @ before, last, matrix @ last)
    assert found.eigenvalue == pytest.approx(value) and found.residual == pytest.approx(residual, abs=1e-8)
    assert found.products == products
    end = (float(powers[products].norm()) / component) ** (1 / products)
    assert found.upper == pytest.approx(max(end, abs(value)), rel=1e-9)
    assert found.lower == pytest.approx(abs(value), rel=1e-9) and found.lower <= abs(value)
    assert found.status in {Status.NOT_CONVERGED, Status.LOWER_BOUND}


def test_one_product_tells_the_rayleigh_quotient_alone():
    matrix, noise = symmetric(0, 5), gaussian(0, 5)
    start = noise / noise.norm()
    found = power_iteration(applied(matrix), noise, max_products=1)
    assert found.eigenvalue == pytest.approx(float(start @ matrix @ start)) and found.products == 1
    assert found.residual == math.inf and found.status is Status.NOT_CONVERGED


def test_power_iteration_stops_when_it_has_settled():
    spectrum = torch.tensor([4.0, 1.0, 0.5], dtype=torch.float64)
    found = power_iteration(lambda v: spectrum * v, gaussian(0, 3), rtol=1e-3)
    assert found.products < 15 and found.residual <= 1e-3 * 4 and found.status is Status.LOWER_BOUND
    sure = power_iteration(lambda v: spectrum * v, gaussian(0, 3), rtol=0.9, confidence=0.01)
    assert sure.products == 2, "settled at the first look"
    zero = power_iteration(lambda v: 0.0 * v, gaussian(0, 3))
    assert (zero.eigenvalue, zero.lower, zero.upper, zero.residual) == (0, 0, 0, 0)
    assert (zero.products, zero.asymmetry, zero.status) == (1, 0.0, Status.EXACT)


def test_one_dimension_is_exact():
    for iterate in (lanczos, power_iteration):
        found = iterate(lambda v: -2.0 * v, gaussian(0, 1))
        assert found.status is Status.EXACT and found.eigenvalue == pytest.approx(-2)
        assert found.lower <= 2 <= found.upper and found.upper - found.lower < 1e-11


@pytest.mark.parametrize("iterate", [lanczos, power_iteration])
def test_defaults_are_one_percent_a_hundred_products_and_a_thousandth(iterate):
    matrix, noise = torch.diag(torch.linspace(0.0, 1.0, 400, dtype=torch.float64)), gaussian(5, 400)
    stated = iterate(applied(matrix), noise, rtol=1e-2, max_products=100, confidence=0.999)
    assert iterate(applied(matrix), noise) == stated
    assert iterate(applied(matrix), noise, rtol=1e-9).products == 100
    sure, unsure = (iterate(applied(matrix), noise, max_products=9, confidence=level) for level in (0.999, 0.99))
    assert sure.products == unsure.products == 9 and unsure.upper < sure.upper


def test_rounding_grows_with_steps_and_type():
    assert module._rounding(torch.float64, 1) == 16 * 2.0**-52
    assert module._rounding(torch.float32, 3) == 32 * 2.0**-23


@pytest.mark.parametrize("iterate", [lanczos, power_iteration])
@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_an_operator_has_no_unit(iterate, unit):
    matrix, noise = torch.diag(torch.linspace(0.0, 1.0, 60, dtype=torch.float64)), gaussian(5, 60)
    one, other = iterate(applied(matrix), noise, rtol=0.1), iterate(applied(unit * matrix), noise, rtol=0.1)
    assert (other.products, other.status) == (one.products, one.status)
    assert (other.lower, other.upper) == pytest.approx((unit * one.lower, unit * one.upper), rel=1e-5)
