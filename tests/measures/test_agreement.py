"""Sums over two matrices, against the same taken in one go."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.measures import agreement as module
from diagnostics.measures.agreement import agreement, as_matrix, row_blocks


def pair(seed: int, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(rows, columns, generator=generator, dtype=torch.float64) + 0.5
    return base, base + 0.3 * torch.randn(rows, columns, generator=generator, dtype=torch.float64)


@given(st.integers(0, 1000), st.integers(2, 9), st.integers(1, 7))
def test_cosines_are_those_of_the_whole_matrices(seed: int, rows: int, columns: int) -> None:
    base, expert = pair(seed, rows, columns)
    found = agreement(base, expert)
    torch.testing.assert_close(found.row_cosines, torch.cosine_similarity(base, expert, dim=1))
    torch.testing.assert_close(found.column_cosines, torch.cosine_similarity(base, expert, dim=0))
    a, b = base - base.mean(0), expert - expert.mean(0)
    assert found.cosine == pytest.approx(float((a * b).sum() / a.norm() / b.norm()), abs=1e-9)
    assert found.spread == pytest.approx(float(a.norm() * b.norm()))
    assert found.base_square == pytest.approx(float(base.square().sum()))
    assert found.move_square == pytest.approx(float((expert - base).square().sum()), abs=1e-9)


def test_blocks_do_not_change_the_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    base, expert = pair(0, 50, 6)
    whole = agreement(base, expert)
    monkeypatch.setattr(module, "_BLOCK", 20)
    assert len(list(row_blocks(base, expert))) == 17
    parts = agreement(base, expert)
    torch.testing.assert_close(parts.rows, whole.rows)
    torch.testing.assert_close(parts.columns, whole.columns)
    torch.testing.assert_close(parts.sums, whole.sums)


def test_what_has_no_direction_has_no_cosine() -> None:
    base, expert = pair(0, 4, 3)
    base[1] = 0
    found = agreement(base, expert)
    assert found.row_cosines.isnan().tolist() == [False, True, False, False]
    assert math.isnan(agreement(torch.ones(4, 3), expert).cosine), "a constant matrix has no spread"
    assert math.isnan(agreement(expert[:1], expert[:1]).cosine), "one row has no order"


def test_halves_are_summed_in_double() -> None:
    base = torch.full((300, 300), 0.1).bfloat16()
    assert agreement(base, base).base_square == pytest.approx(90_000 * float(base[0, 0]) ** 2)


def test_tensors_of_any_dimension_are_matrices() -> None:
    assert [tuple(as_matrix(torch.zeros(shape)).shape) for shape in ((), (3,), (2, 3), (2, 3, 4))] == [
        (1, 1),
        (1, 3),
        (2, 3),
        (2, 12),
    ]


@pytest.mark.parametrize("size", [1e4, 1e-4])
def test_a_matrix_that_is_constant_to_rounding_has_no_cosine(size: float) -> None:
    """A relative spread of 1e-8 is a millionth of what 1e-12 of the squares allows."""
    noise = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    flat = size * (1 + 1e-8 * noise)
    assert math.isnan(agreement(flat, noise).cosine) and math.isnan(agreement(noise, flat).cosine)
    assert math.isnan(agreement(noise, torch.zeros(20, 3)).cosine)
    assert not math.isnan(agreement(noise, size * (1 + 1e-4 * noise)).cosine)


@given(st.integers(0, 1000), st.sampled_from([3.0, -0.7]))
def test_proportional_matrices_have_cosines_of_one_at_most(seed: int, factor: float) -> None:
    matrix = torch.randn(9, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = agreement(matrix, factor * matrix)
    every = torch.cat([found.row_cosines, found.column_cosines, torch.tensor([found.cosine], dtype=torch.float64)])
    assert every.abs().max() <= 1 and torch.allclose(every, torch.full_like(every, math.copysign(1, factor)))
