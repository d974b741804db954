"""Entries that storage would lose, against rounding itself."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.measures.entries import NARROW, Entries, count_entries, half_step, type_name


def test_counts_add_up_type_by_type():
    total = Entries(3, 1, {"a": 1, "b": 2}) + Entries(4, 2, {"b": 3, "c": 4})
    assert total == Entries(7, 3, {"a": 1, "b": 5, "c": 4})


def test_shares_are_of_all_entries_and_undefined_for_none():
    found = Entries(8, 2, {"a": 4})
    assert found.zero_share == 0.25 and found.below_shares == {"a": 0.5}
    stored = found.to_dict()
    assert stored == {"count": 8, "zeros": 2, "below": {"a": 4}, "zero_share": 0.25, "below_shares": {"a": 0.5}}
    none = Entries(0, 0, {"a": 0})
    assert math.isnan(none.zero_share) and math.isnan(none.below_shares["a"])


@pytest.mark.parametrize("dtype", NARROW)
@given(value=st.floats(0.01, 100), sign=st.sampled_from([-1, 1]))
def test_less_than_half_a_step_is_rounded_away_and_more_is_not(dtype, value, sign):
    base = torch.tensor([sign * value]).to(dtype).double()
    step = half_step(base, dtype)
    # Away from zero a step is that of the binade itself; towards zero it may be half of it.
    outward = torch.sign(base) * step
    assert (base + 0.99 * outward).to(dtype).double() == base
    assert (base + 1.01 * outward).to(dtype).double() != base


def test_exactly_half_a_step_is_not_below_it():
    base, half = torch.ones(3).double(), 2.0**-8
    found = count_entries(base, torch.tensor([half, half * (1 - 1e-9), 0.0], dtype=torch.float64))
    assert found == Entries(3, 1, {"bfloat16": 2, "float16": 1})
    assert [type_name(dtype) for dtype in NARROW] == ["bfloat16", "float16"]
