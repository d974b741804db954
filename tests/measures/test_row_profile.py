"""Row profiles: known answers at the edges, what is printed and what is stored; more in test_update_structure.py."""

import math

import pytest
import torch

from diagnostics.errors import InputError
from diagnostics.measures.row_profile import RowProfile, rows_of


def profile(*squares, columns=3):
    return RowProfile(torch.tensor(squares, dtype=torch.float64), columns)


def test_a_share_that_is_reached_to_rounding_is_reached():
    tenths = profile(*[0.1] * 10)
    assert [tenths.needed(count / 10) for count in range(1, 10)] == pytest.approx(
        [count / 10 for count in range(1, 10)]
    )
    assert profile(3.0, 1.0).needed(0.75) == 0.5 and profile(3.0, 1.0).needed(0.7501) == 1.0
    assert profile(0.003, 0.001).needed(0.75) == 0.5, "whatever the length of the update"
    assert profile(3e9, 1e9).needed(0.75 + 1e-9) == 1.0


def test_short_rows_have_the_profile_of_long_ones():
    short, long = profile(3e-9, 1e-9), profile(3.0, 1.0)
    assert (short.gini, short.effective, short.held(0.5)) == pytest.approx((long.gini, long.effective, long.held(0.5)))
    assert (long.gini, long.effective, long.total) == pytest.approx((0.25, 1.6, 4.0))


@pytest.mark.parametrize("share", [0, 1.5, -0.1, True, "0.5", None])
def test_a_share_of_rows_is_a_number_above_zero_and_up_to_one(share):
    with pytest.raises(InputError) as caught:
        rows_of(share, 10)
    assert str(caught.value) == (
        f"rows: expected a share of the rows above 0 and up to 1; found {share!r}. Write 0.25."
    )


def test_shares_are_rounded_to_whole_rows_and_at_least_one():
    assert [rows_of(share, 10) for share in (0.01, 0.14, 0.26, 0.5, 1, 1.0)] == [1, 1, 3, 5, 10, 10]
    assert isinstance(rows_of(1, 10), int)


def test_a_share_of_length_is_checked():
    for ask in (profile(1.0, 1.0).needed, profile(1.0, 1.0).null_needed):
        with pytest.raises(InputError) as caught:
            ask(1.5)
        assert str(caught.value) == "share: expected a share above 0 and below 1; found 1.5. Write 0.1 for 10%."


def test_the_null_of_one_column_is_that_of_squared_normal_numbers():
    """Rows above x hold E[z²; z² > x]: with φ and Φ the normal density and distribution, 2(aφ(a) + 1 − Φ(a))."""
    a = 1.3
    beyond = math.erfc(a / math.sqrt(2))
    density = math.exp(-a * a / 2) / math.sqrt(2 * math.pi)
    held = 2 * a * density + beyond
    assert profile(1.0, columns=1).null_held(beyond) == pytest.approx(held)
    assert profile(1.0, columns=1).null_needed(held) == pytest.approx(beyond)


def test_a_profile_prints_and_is_stored():
    found = profile(4.0, 2.0, 2.0, 0.0, columns=100)
    stored = found.to_dict()
    held = {"0.01": 0.5, "0.05": 0.5, "0.1": 0.5, "0.25": 0.5, "0.5": 0.75, "0.75": 1.0}
    nulls = {share: pytest.approx(found.null_held(float(share))) for share in held}
    assert stored == {
        **{"rows": 4, "columns": 100, "total": 8.0, "zeros": 1, "effective": pytest.approx(64 / 24)},
        **{"gini": pytest.approx(0.375), "held": held, "null_held": nulls},
    }
    assert str(found) == "4 rows, 2.667 effective, Gini 0.38: 75% hold 90% (random rows: 87%)"
