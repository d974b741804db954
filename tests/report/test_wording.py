"""Numbers, names and lists are written the same everywhere."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.report.wording import clean, merge_label, number, percent, points, short, status_notes
from diagnostics.results import Status

from . import samples


@given(st.floats(-1e300, 1e300))
def test_numbers_keep_three_digits(value):
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=5.1e-3)


@pytest.mark.parametrize("form", [number, percent, points])
def test_no_number_is_printed_as_nan_or_inf(form):
    assert form(math.nan) == "undefined"
    assert form(math.inf) == "infinite" and form(-math.inf) == "-infinite"


def test_zero_has_no_sign():
    assert number(-0.0) == "0"


@given(st.text())
def test_clean_text_prints_and_is_cleaned_once(text):
    assert clean(text).isprintable()
    assert clean(clean(text)) == clean(text)


@given(st.text(), st.integers(3, 30))
def test_short_names_keep_both_ends(name, limit):
    result = short(name, limit)
    assert len(result) <= limit
    assert result == clean(name) or (clean(name).startswith(result.split("…")[0]) and "…" in result)


@given(st.dictionaries(st.text(min_size=1), st.floats(-2, 2), min_size=1, max_size=4))
def test_a_merge_label_names_every_expert(coefficients):
    assert all(name in merge_label(coefficients) for name in coefficients)


def test_only_untrusted_estimates_are_noted():
    notes = status_notes({"a": samples.estimate(1.0, 0.1), "b": samples.estimate(1.0, 0.1, Status.TAINTED)})
    assert notes == (f"b is tainted. {Status.TAINTED.advice}",)
