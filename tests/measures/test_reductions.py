"""Reduced updates, against NumPy's singular values and a sort of the rows; more in tests/verdicts."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.errors import InputError
from diagnostics.measures.reductions import Reducer, Reduction


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of_rank(matrix, rank):
    """The best approximation of a rank, by NumPy."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return left[:, :rank] * values[:rank] @ right[:rank]


@given(seed=st.integers(0, 1000), rows=st.integers(1, 6), columns=st.integers(1, 6), rank=st.integers(1, 7))
def test_a_rank_keeps_the_best_approximation(seed, rows, columns, rank):
    vector = {"w": drawn(seed, rows, columns), "bias": drawn(seed, 4), "none": torch.zeros(0, 3)}
    found = Reducer(vector, 7).reduce(Reduction("rank", rank))
    assert found["w"].numpy() == pytest.approx(of_rank(vector["w"].numpy(), rank), abs=1e-9)
    assert rank < min(rows, columns) or torch.equal(found["w"], vector["w"]), "enough to keep all"
    assert found["bias"] is vector["bias"] and found["none"].shape == (0, 3)


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (5, 5), (4, 2, 3)])
def test_axes_are_computed_once_and_of_the_smaller_side(shape, monkeypatch):
    vector = {"w": drawn(3, *shape)}
    reducer = Reducer(vector, 2)
    flat = vector["w"].reshape(shape[0], -1).numpy()
    for rank in (2, 1, 2):
        found = reducer.reduce(Reduction("rank", rank))["w"]
        assert found.shape == shape
        assert found.reshape(shape[0], -1).numpy() == pytest.approx(of_rank(flat, rank), abs=1e-9)
        monkeypatch.setattr("diagnostics.measures.reductions.principal_axes", None)
    assert reducer._axes["w"].shape == (min(flat.shape), 2)


@given(seed=st.integers(0, 1000), share=st.sampled_from([0.2, 0.4, 0.6, 1.0]))
def test_rows_keep_the_longest(seed, share):
    matrix = drawn(seed, 5, 4)
    order = np.argsort(-np.linalg.norm(matrix.numpy(), axis=1))[: round(5 * share)]
    expected = np.zeros((5, 4))
    expected[order] = matrix.numpy()[order]
    assert np.array_equal(Reducer({"w": matrix}, 1).reduce(Reduction("rows", share))["w"].numpy(), expected)


def test_of_equal_rows_the_first_are_kept():
    found = Reducer({"w": torch.ones(40, 2)}, 1).reduce(Reduction("rows", 0.5))["w"]
    assert found[:20].all() and not found[20:].any()


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_random_parts_are_projections_of_the_same_size_and_not_the_best(shape):
    matrix = drawn(0, *shape)
    reducer = Reducer({"w": matrix}, 2, seed=4)
    best, drawn_part = (reducer.reduce(Reduction("rank", 2), random=random)["w"] for random in (False, True))
    assert torch.linalg.matrix_rank(drawn_part) == 2 and drawn_part.norm() < best.norm()
    product, square = float((drawn_part * matrix).sum()), float(drawn_part.square().sum())
    assert product == pytest.approx(square, rel=1e-11), "a projection"
    assert torch.equal(reducer.reduce(Reduction("rank", 2), random=True)["w"], drawn_part), "the seed decides"
    other = Reducer({"w": matrix}, 2, seed=5).reduce(Reduction("rank", 2), random=True)["w"]
    assert not torch.allclose(other, drawn_part)
    rows = reducer.reduce(Reduction("rows", 0.5), random=True)["w"]
    assert torch.equal(reducer.reduce(Reduction("rows", 0.5), random=True)["w"], rows)
    kept = rows.any(1)
    assert int(kept.sum()) == shape[0] // 2 and torch.equal(rows[kept], matrix[kept])
    assert not torch.equal(rows, reducer.reduce(Reduction("rows", 0.5))["w"])
    assert torch.equal(Reducer({"w": matrix}, 2).reduce(Reduction("rank", 2), random=True)["w"],
                       Reducer({"w": matrix}, 2, seed=0).reduce(Reduction("rank", 2), random=True)["w"])  # fmt: skip


def test_half_precision_is_kept():
    found = Reducer({"w": drawn(0, 6, 4).to(torch.bfloat16)}, 1)
    assert found.reduce(Reduction("rank", 1))["w"].dtype == torch.bfloat16
    assert found.reduce(Reduction("rows", 0.5))["w"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("kind", "amount", "shape", "count"),
    [
        *(("rank", 2, (10, 20), 60), ("rank", 20, (10, 20), 200), ("rank", 1, (2, 2), 4), ("rows", 0.5, (10, 20), 100)),
        *(("rank", 1, (4, 2, 5), 14), ("rows", 0.25, (4, 2, 5), 10), ("rows", 0.5, (7,), 7), ("rank", 1, (), 1)),
        *(("rank", 1, (0, 3), 0), ("rows", 0.5, (3, 0), 0), ("rows", 0.5, (1, 3), 3)),
    ],
)
def test_numbers_left(kind, amount, shape, count):
    assert Reduction(kind, amount).numbers(shape) == count


def test_a_reduction_says_what_it_is_and_refuses_others():
    assert str(Reduction("rank", 8)) == "rank 8" and str(Reduction("rows", 0.25)) == "0.25 of the rows"
    with pytest.raises(InputError) as caught:
        Reduction("columns", 1)
    assert str(caught.value) == "kind: expected 'rank' or 'rows'; found 'columns'."
    with pytest.raises(InputError, match=r"^ranks"):
        Reduction("rank", 0)
    with pytest.raises(InputError, match="rows"):
        Reduction("rows", 2)
