"""The curvature on a span, against the definition: quotients at vectors of the span."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.theory.subspace import generalised_norm, generalised_range


def forms(seed, count, dimension):
    """A symmetric H, task vectors as columns V, and the two forms VᵀHV and VᵀV."""
    rng = np.random.default_rng(seed)
    hessian = rng.normal(size=(dimension, dimension))
    hessian = hessian + hessian.T
    vectors = rng.normal(size=(dimension, count))
    return hessian, vectors, torch.tensor(vectors.T @ hessian @ vectors), torch.tensor(vectors.T @ vectors)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 4), scale=st.sampled_from([1e-9, 1.0, 1e9]))
def test_the_range_is_that_of_the_hessian_on_an_orthonormal_basis_of_the_span(seed, count, scale):
    hessian, vectors, matrix, gram = forms(seed, count, 6)
    basis = np.linalg.qr(vectors)[0]
    values = np.linalg.eigvalsh(basis.T @ hessian @ basis)
    found = generalised_range(scale * matrix, scale * gram)
    assert found == pytest.approx((values[0], values[-1]), rel=1e-6, abs=1e-6)
    assert generalised_norm(matrix, gram) == pytest.approx(np.abs(values).max(), rel=1e-6)


@given(seed=st.integers(0, 10_000))
def test_a_vector_that_is_a_combination_of_the_others_changes_nothing(seed):
    hessian, vectors, matrix, gram = forms(seed, 2, 5)
    more = np.column_stack([vectors, vectors @ [2.0, -1.0]])
    found = generalised_range(torch.tensor(more.T @ hessian @ more), torch.tensor(more.T @ more))
    assert found == pytest.approx(generalised_range(matrix, gram), rel=1e-5, abs=1e-5)


def test_a_direction_within_rounding_of_the_longest_is_left_out():
    kept = generalised_range(
        torch.diag(torch.tensor([1.0, 5.0])).double(), torch.diag(torch.tensor([1.0, 1e-9])).double()
    )
    left = generalised_range(
        torch.diag(torch.tensor([1.0, 5.0])).double(), torch.diag(torch.tensor([1.0, 1e-11])).double()
    )
    assert kept == pytest.approx((1.0, 5e9)) and left == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize("count", [1, 3])
def test_on_no_direction_there_is_no_curvature(count):
    zero = torch.zeros(count, count, dtype=torch.float64)
    assert generalised_range(torch.eye(count, dtype=torch.float64), zero) == (0.0, 0.0)
    assert generalised_norm(torch.eye(count, dtype=torch.float64), zero) == 0.0
