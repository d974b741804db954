"""The merge error, against explicit vectors."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.theory.merge_error import (
    matched_alphas,
    matched_coefficients,
    merge_error_rows,
    remainder_shares,
    step_sizes,
)


def drawn(seed, count, unit=1.0):
    """Task vectors and gradients, the target's first, and the Gram matrix of all."""
    rng = np.random.default_rng(seed)
    vectors, gradients = unit * rng.normal(size=(2, count, 9))
    rows = np.vstack([vectors, gradients])
    return vectors, gradients, torch.tensor(rows @ rows.T)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 4))
def test_step_sizes_leave_nothing_of_the_gradient_in_the_remainder(seed, count):
    vectors, gradients, gram = drawn(seed, count, unit=0.1)
    etas = step_sizes(gram, count)
    for vector, gradient, eta in zip(vectors, gradients, etas, strict=True):
        assert (vector - eta * gradient) @ gradient == pytest.approx(0, abs=1e-9)
    assert len(etas) == count


def test_a_zero_gradient_has_no_step_size():
    found = step_sizes(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), 1)
    assert len(found) == 1 and math.isnan(found[0])


@given(seed=st.integers(0, 10_000), count=st.integers(1, 4))
def test_shares_of_remainders_are_the_sines_of_the_angles_to_the_gradients(seed, count):
    vectors, gradients, gram = drawn(seed, count, unit=0.1)
    cosines = (vectors * gradients).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(gradients, axis=1)
    np.testing.assert_allclose(remainder_shares(gram, count), np.sin(np.arccos(cosines)), atol=1e-9)


@pytest.mark.parametrize("gram", [[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]])
def test_a_zero_gradient_or_vector_has_no_share_of_a_remainder(gram):
    found = remainder_shares(torch.tensor(gram), 1)
    assert len(found) == 1 and math.isnan(found[0])


@given(seed=st.integers(0, 10_000), count=st.integers(2, 4))
def test_parts_of_the_merge_error_are_its_vectors(seed, count):
    """η_*(g_* - Σ α_i g_i), r_* and -λ_i r_i with r = τ - ηg, and Δ = τ_* - Σ λ_i τ_i is the sum of them."""
    vectors, gradients, gram = drawn(seed, count)
    alphas = np.random.default_rng(seed + 1).uniform(-1, 1, size=count - 1).tolist()
    etas = step_sizes(gram, count)
    coefficients = matched_coefficients(etas, alphas)
    assert matched_alphas(etas, coefficients) == pytest.approx(alphas)
    rows = merge_error_rows(etas, alphas, coefficients)
    delta, error, own, *others = [row.numpy() @ np.vstack([vectors, gradients]) for row in rows]
    assert delta == pytest.approx(vectors[0] - np.array(coefficients) @ vectors[1:])
    assert error == pytest.approx(etas[0] * (gradients[0] - np.array(alphas) @ gradients[1:]))
    assert own == pytest.approx(vectors[0] - etas[0] * gradients[0])
    for other, value, vector, gradient, eta in zip(
        others, coefficients, vectors[1:], gradients[1:], etas[1:], strict=True
    ):
        assert other == pytest.approx(-value * (vector - eta * gradient))
    assert delta == pytest.approx(error + own + sum(others), abs=1e-9)


@pytest.mark.parametrize("function", [matched_coefficients, matched_alphas])
def test_each_component_has_one_coefficient(function):
    with pytest.raises(ValueError, match="zip"):
        function([1.0, 2.0, 3.0], [0.5])


@pytest.mark.parametrize(("alphas", "coefficients"), [([1.0], [1.0, 2.0]), ([1.0], [1.0]), ([1.0] * 3, [1.0] * 3)])
def test_a_merge_has_a_coefficient_for_each_component(alphas, coefficients):
    with pytest.raises((ValueError, IndexError)):
        merge_error_rows([1.0, 2.0, 3.0], alphas, coefficients)
