"""Rays and mixed terms against polynomials and bilinear functions, on which they are exact."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.theory.output_expansion import VARIANTS, mixed_term, ray_weights, sum_of_terms

numbers = st.floats(-3, 3)


@given(coefficients=st.lists(numbers, min_size=4, max_size=4), s=st.floats(-0.5, 1.5))
def test_ray_reproduces_polynomials_that_vanish_at_zero(coefficients, s):
    nodes = [0.5, 1.0, 1.5]

    def polynomial(x):
        return sum(c * x ** (k + 1) for k, c in enumerate(coefficients))

    weights, slope = ray_weights(nodes, s)
    value = float(np.dot(weights, [polynomial(x) for x in nodes])) + slope * coefficients[0]
    assert value == pytest.approx(polynomial(s), abs=1e-9)


@given(
    numbers, numbers, numbers, numbers, st.floats(-2, 2), st.floats(-2, 2), st.sampled_from(["mean", "first", "second"])
)
def test_prediction_is_exact_for_a_bilinear_function(constant, first, second, mixed, a, b, variant):
    """f = c + pa·a + pb·b + m·a·b: every variant but the additive one measures m exactly."""

    def ray(name, s):
        return {"a": first, "b": second}[name] * s

    term = mixed_term(second + mixed, first + mixed, second, first, VARIANTS[variant])
    value = sum_of_terms(constant, {"a": a, "b": b}, ray, lambda j, k: term)
    assert value == pytest.approx(constant + first * a + second * b + mixed * a * b, abs=1e-9)


def test_the_additive_variant_misses_the_interaction():
    assert mixed_term(3.0, 3.0, 1.0, 1.0, VARIANTS["additive"]) == 0.0
    assert mixed_term(3.0, 3.0, 1.0, 1.0, VARIANTS["mean"]) == 2.0


def test_absent_experts_add_nothing():
    assert sum_of_terms(1.0, {"a": 0.0}, lambda name, s: 1 / 0, lambda j, k: 1 / 0) == 1.0
