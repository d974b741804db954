"""The eigengap against its definition in NumPy, and the published rule against groups of unequal size."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.theory import eigengap as module
from diagnostics.theory.eigengap import eigengap, laplacian


def blocks(sizes, within=0.9, between=0.0):
    label = np.repeat(np.arange(len(sizes)), sizes)
    matrix = np.where(label[:, None] == label, within, between)
    np.fill_diagonal(matrix, 1.0)
    return torch.tensor(matrix)


def random_similarities(seed, count):
    matrix = np.random.default_rng(seed).uniform(-1, 1, (count, count))
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 1.0)
    return matrix


def published(matrix):
    """(2.12) word for word: i from 2 to T - 1, counted from 1."""
    size = np.abs(matrix)
    values = np.sort(np.linalg.eigvals(np.diag(size.sum(1)) - size).real)
    count = len(values)
    gaps = {i: values[i] - values[i - 1] for i in range(2, count)}  # values[i] is λ^(i+1)
    return max(gaps, key=lambda i: (round(gaps[i], 10), -i))


def check_published(find):
    for seed in range(20):
        matrix = random_similarities(seed, 3 + seed % 7)
        assert find(torch.tensor(matrix)) == published(matrix), f"seed {seed}"


def test_the_number_of_groups_is_the_published_one():
    check_published(lambda matrix: eigengap(matrix).stated)


def test_the_first_gap_would_always_win_if_it_were_allowed(monkeypatch):
    def with_the_first(gaps):
        return int(gaps.argmax()) + 1

    uniform = torch.full((6, 6), 0.3, dtype=torch.float64).fill_diagonal_(1.0)
    values = eigengap(uniform).eigenvalues
    assert with_the_first(values.diff()) == 1, "near-uniform similarities have one large gap, after the eigenvalue 0"
    monkeypatch.setattr(module, "_first", lambda gaps: int(gaps.argmax()) + 1)
    with pytest.raises(AssertionError):
        check_published(lambda matrix: eigengap(matrix).stated)


@pytest.mark.parametrize("sizes", [(2, 2), (3, 3, 3), (4, 4), (2, 2, 2, 1), (10, 10), (7,) * 10], ids=str)
@pytest.mark.parametrize("between", [0.0, 0.1])
def test_groups_of_equal_size_are_counted_by_all_three(sizes, between):
    assert eigengap(blocks(sizes, 0.8, between)).candidates == (len(sizes),)


@pytest.mark.parametrize("sizes", [(5, 2), (10, 5, 3), (50, 10, 10), (30, 30, 5, 5)], ids=str)
def test_the_published_count_is_wrong_for_groups_of_unequal_size(sizes):
    found = eigengap(blocks(sizes))
    assert found.stated > len(sizes), "as published: the gap above a larger group's eigenvalue wins"
    assert found.relative == found.normalised == len(sizes)


def test_the_counterexample_can_be_followed_by_hand():
    found = eigengap(blocks((5, 2)))
    np.testing.assert_allclose(found.eigenvalues, [0, 0, 1.8, 4.5, 4.5, 4.5, 4.5], atol=1e-12)
    assert (found.stated, found.relative, found.normalised) == (3, 2, 2)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 8))
def test_the_laplacian_is_that_of_a_graph(seed, count):
    matrix = torch.tensor(random_similarities(seed, count))
    found = laplacian(matrix)
    np.testing.assert_allclose(found.sum(1), np.zeros(count), atol=1e-12)
    assert torch.linalg.eigvalsh(found).min() > -1e-9
    assert torch.allclose(laplacian(-matrix), found), "only sizes count"
    assert torch.allclose(laplacian(matrix + 3 * torch.eye(count)), found), "the diagonal has no effect"


@given(seed=st.integers(0, 10_000), count=st.integers(3, 8))
def test_the_order_of_the_vectors_changes_nothing(seed, count):
    matrix = torch.tensor(random_similarities(seed, count))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    first, second = eigengap(matrix), eigengap(matrix[order][:, order])
    assert torch.allclose(first.eigenvalues, second.eigenvalues, atol=1e-10)
    assert first.candidates == second.candidates


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_vectors_have_no_gap(count):
    found = eigengap(torch.eye(count))
    assert found.candidates == () and len(found.eigenvalues) == count


def test_the_input_is_left_as_it_was():
    matrix = blocks((2, 2)).fill_diagonal_(0.5)
    eigengap(matrix)
    assert matrix.diagonal().tolist() == [0.5] * 4


def largest_ratio(matrix):
    """The i of the largest 1 - λ^(i)/λ^(i+1), i from 2 on, with eigenvalues of rounding counted as zero."""
    size = np.abs(matrix)
    values = np.sort(np.linalg.eigvals(np.diag(size.sum(1)) - size).real)
    values = np.where(values > 1e-9 * values[-1], values, 0.0)
    gaps = {i: 1 - values[i - 1] / values[i] if values[i] > 0 else 0.0 for i in range(2, len(values))}
    return max(gaps, key=lambda i: (round(gaps[i], 10), -i))


def normalised_gap(matrix):
    """The same of I - D^(-1/2) |M| D^(-1/2), the diagonal of 1 included."""
    size = np.abs(matrix)
    degree = size.sum(1)
    values = np.sort(np.linalg.eigvals(np.eye(len(size)) - size / np.sqrt(np.outer(degree, degree))).real)
    gaps = {i: values[i] - values[i - 1] for i in range(2, len(values))}
    return max(gaps, key=lambda i: (round(gaps[i], 10), -i))


@given(seed=st.integers(0, 10_000), count=st.integers(3, 9), scale=st.sampled_from([1.0, 1e-5]))
def test_the_other_two_readings_are_those_of_their_definitions(seed, count, scale):
    matrix = random_similarities(seed, count) * scale
    np.fill_diagonal(matrix, 1.0)
    found = eigengap(torch.tensor(matrix))
    assert found.relative == largest_ratio(matrix)
    assert scale < 1 or found.normalised == normalised_gap(matrix)


@given(seed=st.integers(0, 10_000), count=st.integers(3, 9))
def test_small_similarities_have_the_gaps_of_large_ones(seed, count):
    """The Laplacian of cM is c times that of M, and the published rule only compares its gaps."""
    matrix = torch.tensor(random_similarities(seed, count))
    first, second = eigengap(matrix), eigengap(1e-6 * matrix)
    assert (first.stated, first.relative) == (second.stated, second.relative)


def test_of_equal_gaps_the_first_counts():
    found = eigengap(torch.eye(5))
    assert (found.stated, found.relative, found.normalised) == (2, 2, 2), "vectors that are all unlike have no gap"
