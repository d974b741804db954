"""Bounds: no value is lost on the logarithmic axis, and a vacuous or broken bound says so."""

import dataclasses
import math

import matplotlib.figure
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.report.bounds_chart import LogAxis, chain_figure, rungs
from diagnostics.report.bounds_section import bounds_headline, bounds_section
from diagnostics.results import Status, Verdict

from . import samples

ZERO = 1e-100  # and below: zero for every purpose of a chart
VALUES = st.lists(st.floats(-1e200, 1e200), min_size=1, max_size=20)


def painted(figure):
    """The axes, and (x, row, hollow) of every marker on them."""
    ax = matplotlib.figure.Figure().add_subplot()
    figure.paint(ax)
    marks = [line for line in ax.lines if line.get_marker() != "None" and len(line.get_xdata())]
    places = [(float(mark.get_xdata()[0]), round(float(mark.get_ydata()[0]))) for mark in marks]
    return ax, [(x, y, mark.get_markerfacecolor() == "none") for (x, y), mark in zip(places, marks, strict=True)]


def assert_places_all(axis: LogAxis, values: list[float]) -> None:
    places = [axis.place(value) for value in values]
    assert all(place > 0 and math.isfinite(place) for place in places), "a value has no place on a logarithmic axis"
    lowest = min((value for value in values if value > ZERO), default=math.inf)
    assert all(place < lowest for place, value in zip(places, values, strict=True) if value <= ZERO)


@given(VALUES)
def test_every_value_has_a_place_and_none_at_or_below_zero_looks_positive(values):
    assert_places_all(LogAxis.of(values), values)


def test_mutant_axis_without_a_lane_is_noticed():
    axis = dataclasses.replace(LogAxis.of([-1.0, 2.0]), lane=None)
    with pytest.raises(AssertionError):
        assert_places_all(axis, [-1.0, 2.0])


@given(VALUES)
def test_positive_values_are_drawn_where_they_are(values):
    axis = LogAxis.of(values)
    assert all(axis.place(value) == value for value in values if value > ZERO)


def test_every_step_of_every_task_is_drawn():
    reports = samples.bounds()
    ax, points = painted(chain_figure("", reports))
    known = sum(report.constant_loss is not None for report in reports.values())
    assert len(points) == sum(len(report.chain) for report in reports.values()) + known
    low, high = ax.get_xlim()
    assert all(low < x < high for x, _, _ in points), "a marker is outside the axes"


def test_values_at_or_below_zero_are_set_apart_in_word_and_place():
    figure = chain_figure("", samples.bounds())
    assert "no place for values of zero or less" in figure.caption
    assert "≤ 0" in figure.svg
    below = chain_figure("", {"a": samples.bound("a", gap=0.1)})
    assert "zero or less" not in below.caption and "≤ 0" not in below.svg


def test_a_chain_without_any_positive_value_is_drawn():
    chain = (("measured gap", -1.0), ("<= something", 0.0))
    report = dataclasses.replace(samples.bound("a"), chain=chain, constant_loss=None)
    assert len(painted(chain_figure("", {"a": report}))[1]) == 2


def test_values_that_are_not_finite_are_named():
    report = dataclasses.replace(samples.bound("a"), chain=(("measured gap", math.nan), ("<= top", math.inf)))
    figure = chain_figure("", {"a": report})
    assert "Not drawn, because not finite: a, measured gap and a, <= top" in figure.caption
    assert "to infinite" in figure.alt


def test_hollow_marks_are_exactly_the_vacuous_bounds():
    report = samples.bound("a")
    _, points = painted(chain_figure("", {"a": report}))
    hollow = sorted(row for _, row, is_hollow in points if is_hollow)
    assert hollow == [row for row, (_, value) in enumerate(report.chain) if report.vacuous(value) and row]


@given(VALUES)
def test_axes_can_be_dressed_for_any_values(values):
    axis, ax = LogAxis.of(values), matplotlib.figure.Figure().add_subplot()
    axis.dress(ax)
    low, high = ax.get_xlim()
    assert all(low < axis.place(value) < high for value in values)


def test_a_high_measured_gap_is_no_vacuous_bound():
    report = dataclasses.replace(samples.bound("a"), chain=(("measured gap", 9.0), ("<= top", 10.0)))
    _, points = painted(chain_figure("", {"a": report}))
    assert [(row, hollow) for _, row, hollow in points] == [(0, False), (1, True), (2, False)]


def test_steps_of_different_chains_keep_their_order():
    full = samples.bound("a")
    cut = dataclasses.replace(full, chain=(full.chain[0], full.chain[-1]))
    assert rungs({"b": cut, "a": full}) == [label for label, _ in full.chain]


def test_tables_mark_vacuous_bounds_and_unknown_constants():
    gaps, chain = bounds_section(samples.bounds()).tables[:2]
    paper = gaps.columns.index("Paper's bound")
    assert [row[paper].tone for row in gaps.rows] == ["bad", "bad", "bad", None]
    assert all("vacuous" in row[paper].text for row in gaps.rows[:3])
    assert chain.rows[-1][-1].text == "unknown"


def test_assumptions_are_told_apart():
    table = bounds_section({"a": samples.bound("a")}).tables[2]
    assert [row[1].text for row in table.rows] == ["fails", "undecided", "holds"]


def test_without_a_valid_bound_the_table_says_none():
    report = dataclasses.replace(samples.bound("a"), best=math.inf, best_label="none")
    assert [cell.text for cell in bounds_section({"a": report}).tables[0].rows[0][2:4]] == ["none", "none"]


def test_merges_are_kept_apart():
    section = bounds_section([("one", samples.bounds()), ("two", samples.bounds())])
    assert len(section.figures) == 2 and len(section.tables) == 10
    assert [": two" in table.caption for table in section.tables] == [False] * 5 + [True] * 5


def test_a_bound_kept_outside_its_theorem_is_undecided():
    headline = bounds_headline({"a": samples.bound("a")})
    assert headline.verdict is Verdict.UNDECIDED and "0 of 1" in headline.certainty


@pytest.mark.parametrize(
    ("holds", "verdict"), [(True, Verdict.SUPPORTED), (False, Verdict.REFUTED), (None, Verdict.UNDECIDED)]
)
def test_headline_follows_the_worst_bound(holds, verdict):
    met = {name: dataclasses.replace(item, holds=True) for name, item in samples.bound("a").assumptions.items()}
    clean = {name: dataclasses.replace(samples.bound(name), assumptions=met) for name in "ab"}
    reports = {"a": clean["a"], "b": dataclasses.replace(clean["b"], holds=holds)}
    headline = bounds_headline(reports)
    assert headline.verdict is verdict
    assert "vacuous for 2" in headline.sentence


def test_headline_counts_met_assumptions():
    met = dataclasses.replace(samples.bound("a"), assumptions={}, status=Status.CONVERGED)
    assert "for 1 of 2" in bounds_headline({"a": met, "b": samples.bound("b")}).certainty
