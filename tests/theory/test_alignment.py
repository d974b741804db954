"""The best α from inner products, where vectors are short, long or dependent; more in tests/verdicts."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.theory.alignment import alignment_row, best_alphas, dependent


@given(seed=st.integers(0, 10_000), count=st.integers(1, 4), unit=st.sampled_from([1e-8, 1.0, 1e8]))
def test_the_best_alphas_leave_nothing_along_a_component(seed, count, unit):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count + 1, 8)) * np.append(1.0, unit ** rng.integers(0, 2, size=count))[:, None]
    alphas = best_alphas(torch.tensor(vectors @ vectors.T)).numpy()
    rest = vectors[0] - alphas @ vectors[1:]
    cosines = vectors[1:] @ rest / np.linalg.norm(vectors[1:], axis=1) / np.linalg.norm(vectors[0])
    assert cosines == pytest.approx(np.zeros(count), abs=1e-6)
    assert alignment_row(torch.tensor(alphas)).numpy() @ vectors == pytest.approx(rest)


def test_a_short_gradient_is_not_a_dependent_one():
    gram = torch.diag(torch.tensor([1.0, 1.0, 1e-20], dtype=torch.float64))
    gram[0, 2] = gram[2, 0] = 3e-20
    assert not dependent(gram)
    assert best_alphas(gram).tolist() == pytest.approx([0.0, 3.0])
    gram[1, 2] = gram[2, 1] = 1e-10
    assert dependent(gram), "parallel, of lengths 1 and 10^-10"


@pytest.mark.parametrize("sign", ["any", "nonnegative"])
def test_components_without_a_gradient_have_no_part(sign):
    assert best_alphas(torch.diag(torch.tensor([1.0, 0.0, 0.0])), sign=sign).tolist() == [0.0, 0.0]
    assert dependent(torch.diag(torch.tensor([1.0, 0.0])))
