"""Ancestors: nulls against enumeration, thresholds at their edges, known answers."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.measures.agreement import agreement
from diagnostics.measures.ancestry import Descent, Kinship, descent, kinship, median_cosine


def measured(base: torch.Tensor, expert: torch.Tensor) -> Descent:
    found = descent(base, expert, agreement(base, expert))
    assert found is not None
    return found


def at_cosine(cosine: float, seed: int = 0, shape: tuple[int, int] = (200, 60)) -> tuple[torch.Tensor, torch.Tensor]:
    """Two matrices of one length with this cosine about their mean rows."""
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    first, second = first - first.mean(0), second - second.mean(0)
    second -= first * (first * second).sum() / first.square().sum()
    second *= first.norm() / second.norm()
    return first + 1.0, cosine * first + (1 - cosine**2) ** 0.5 * second - 2.0


@given(st.integers(0, 100), st.integers(2, 5), st.integers(1, 4))
def test_the_null_is_that_of_all_orders_of_the_rows(seed: int, rows: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    base, expert = torch.randn(2, rows, columns, generator=generator, dtype=torch.float64) + 1.0
    cosines = [agreement(base, expert[list(order)]).cosine for order in permutations(range(rows))]
    assert np.mean(cosines) == pytest.approx(0, abs=1e-9)
    assert measured(base, expert).null == pytest.approx(np.std(cosines), rel=1e-6)


def test_the_null_from_a_sample_of_rows() -> None:
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(2000, 40, generator=generator, dtype=torch.float64)
    expert = base + 0.1 * torch.randn(2000, 40, generator=generator, dtype=torch.float64)
    shuffled = [agreement(base, expert[torch.randperm(2000, generator=generator)]).cosine for _ in range(100)]
    assert measured(base, expert).null == pytest.approx(np.std(shuffled), rel=0.2)


@pytest.mark.parametrize(
    ("cosine", "expected"),
    [
        (0.24, Kinship.UNRELATED),
        (0.26, Kinship.FAR),
        (0.49, Kinship.FAR),
        (0.51, Kinship.RELATED),
        (1.0, Kinship.RELATED),
        (-1.0, Kinship.UNRELATED),
    ],
)
def test_the_edges(cosine: float, expected: Kinship) -> None:
    base, expert = at_cosine(cosine)
    found = measured(base, expert)
    assert found.cosine == pytest.approx(cosine, abs=1e-9)
    # Equal lengths and a common mean aside, the update is shorter than the base from a cosine of one half on.
    assert kinship([measured(base - 1.0, expert + 2.0)]) is expected


def test_hard_training_keeps_the_ancestor() -> None:
    generator = torch.Generator().manual_seed(0)
    base, noise = torch.randn(2, 300, 100, generator=generator)
    for ratio in (0.01, 0.3, 0.9):
        assert kinship([measured(base, base + ratio * noise)]) is Kinship.RELATED, ratio
    assert round(measured(base, base + 0.3 * noise).cosine, 2) == 0.96
    assert kinship([measured(base, base + 1.2 * noise)]) is Kinship.FAR, "longer than the base"
    assert kinship([measured(base, noise)]) is Kinship.UNRELATED


def test_a_common_mean_is_no_kinship() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 300, 100, generator=generator) + 5.0
    assert torch.cosine_similarity(first.flatten(), second.flatten(), dim=0) > 0.9
    assert kinship([measured(first, second)]) is Kinship.UNRELATED


def test_most_matrices_decide_and_only_those_that_can() -> None:
    near, far = Descent(0.99, 0.01, 1.0, 0.1), Descent(0.0, 0.25 / 3 - 0.001, 1.0, 2.0)
    weak = Descent(0.0, 0.25 / 3 + 0.001, 1.0, 2.0)
    assert kinship([near, near, far]) is Kinship.RELATED
    assert kinship([near, far, far]) is Kinship.UNRELATED
    assert kinship([near, weak, weak]) is Kinship.RELATED
    assert kinship([weak, weak]) is Kinship.UNKNOWN
    assert median_cosine([near, near, far]) == 0.99


def test_what_cannot_tell_is_left_out() -> None:
    generator = torch.Generator().manual_seed(0)
    base, expert = torch.randn(2, 4, 3, generator=generator)
    assert not measured(base, expert).votes, "four rows are in order by chance too often"
    for first, second in ((torch.zeros(4, 3), expert), (base, torch.ones(4, 3)), (base[:1], expert[:1])):
        assert descent(first, second, agreement(first, second)) is None


def test_thresholds_belong_to_the_better_kin() -> None:
    """Unrelated, far and silent are what lies below; an update as long as the base is not longer."""
    assert kinship([Descent(0.25, 0.01, 1.0, 0.5)]) is Kinship.FAR
    assert kinship([Descent(0.5, 0.01, 1.0, 1.0)]) is Kinship.RELATED
    assert kinship([Descent(0.5, 0.01, 1.0, 1.0 + 1e-9)]) is Kinship.FAR
    assert not Descent(0.9, 0.25 / 3, 1.0, 1.0).votes and Descent(0.9, 0.0833, 1.0, 1.0).votes


def test_one_row_tells_nothing() -> None:
    row = torch.randn(1, 5, generator=torch.Generator().manual_seed(0))
    assert descent(row, row, agreement(row, row)) is None
