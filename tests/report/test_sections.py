"""Geometry, predictions, outcomes and curves: what each section must say."""

import dataclasses
import math
import sys

import pytest

from diagnostics.errors import InputError
from diagnostics.report.curve_section import curve_section
from diagnostics.report.document import Table
from diagnostics.report.geometry_section import geometry_headline, geometry_section
from diagnostics.report.outcomes_section import outcomes_headline, outcomes_section
from diagnostics.report.prediction_section import prediction_headline, prediction_section
from diagnostics.results import Status, Verdict

from . import samples


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def column(table: Table, name: str) -> list[str]:
    return [row[table.columns.index(name)].text for row in table.rows]


def test_sections_need_no_plotting_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert len(samples.document().sections) == 5


def test_a_row_that_does_not_fit_its_headers_is_refused():
    with pytest.raises(InputError, match="2 columns but a row with 1 cells"):
        Table.of("t", ["a", "b"], [["x"]])


def test_numeric_columns_are_told_from_words():
    rows = [["1", "0.5", "[0, 1]", "undefined", "-3%", "x"], ["2", "none", "[1, 2]", "1", "", "1"]]
    assert Table.of("t", list("abcdef"), rows).numeric == (False, True, True, True, True, False)


class TestGeometry:
    def test_pairs_are_ranked_by_size_whatever_their_sign(self):
        sizes = [abs(float(text)) for text in column(geometry_section(samples.geometry()).tables[1], "Cosine")]
        assert sizes == sorted(sizes, reverse=True) and len(sizes) == 6

    def test_zero_vector_is_undefined_and_noted(self):
        section = geometry_section(samples.geometry(zero=True))
        assert column(section.tables[1], "Cosine")[-3:] == ["undefined"] * 3
        assert any("without a direction: toolkit" in text for text in section.paragraphs)
        assert ">–</text>" in section.figures[0].svg and "undefined" in texts(section.tables[1])[-1]

    def test_more_pairs_than_listed_are_counted(self):
        table = geometry_section(samples.geometry([f"expert {i}" for i in range(9)])).tables[1]
        assert len(table.rows) == 20 and "20 of 36 pairs" in table.caption

    def test_null_values_stand_beside_the_cosines(self):
        text = geometry_section(samples.geometry()).paragraphs[0]
        assert "22,713,216 dimensions would give |cosine| 0.000167" in text and "inside each tensor" in text

    def test_without_layers_the_layer_wise_null_is_not_claimed(self):
        section = geometry_section(dataclasses.replace(samples.geometry(), layers={}))
        assert "tensor" not in section.paragraphs[0]
        assert section.tables[1].columns == ("Pair", "Cosine")

    def test_one_expert_alone_has_a_picture_and_no_pairs(self):
        section = geometry_section(samples.geometry(["only"]))
        assert len(section.tables) == 2 and "1 task vector." in section.figures[0].alt
        assert section.figures[0].svg

    def test_norms_are_shares_of_the_base(self):
        assert texts(geometry_section(samples.geometry()).tables[0])[0] == ["section", "1.2", "0.5%", "1.44"]

    def test_headline_judges_nothing(self):
        headline = geometry_headline(samples.geometry())
        assert headline.verdict is None and "section and toolkit, with a cosine of 0.2" in headline.sentence


class TestPrediction:
    def test_verdict_of_each_task_is_read_off_its_interval(self):
        table = prediction_section(samples.prediction()).tables[0]
        assert column(table, "Keeps enough") == ["supported", "undecided", "refuted", "undecided"]
        assert column(table, "Retention") == ["99% [96%, 102%]", "90% [87%, 93%]", "81% [78%, 84%]", "undefined"]

    def test_reasons_are_in_words_and_in_order(self):
        table = prediction_section(samples.prediction()).tables[1]
        assert column(table, "Cause") == [
            "its own update is applied at 0.5 instead of 1",
            "section, added at 0.5, interferes",
            "language, added at 0.5, interferes",
        ]
        assert column(table, "Retention") == ["-11.0 points", "-5.0 points", "undefined"]

    def test_no_reason_is_said(self):
        section = prediction_section(dataclasses.replace(samples.prediction(), reasons=()))
        assert "nothing is predicted" in section.tables[1].caption

    def test_cost_and_untrusted_estimates_are_said(self):
        text = " ".join(prediction_section(samples.prediction()).paragraphs)
        assert "24 forwards, 36 jvps" in text
        assert "The retention of toolkit and the score of toolkit are undefined. " + Status.UNDEFINED.advice in text

    def test_threshold_and_undefined_values_are_drawn(self):
        retention, loss = prediction_section(samples.prediction()).figures
        assert "undefined" in retention.svg and "90% asked for" in retention.caption
        assert "undefined" not in loss.svg

    @pytest.mark.parametrize(
        ("verdict", "words"),
        [
            (Verdict.SUPPORTED, "Every task is predicted to keep at least 90%"),
            (Verdict.REFUTED, "role-program keeps 81%; 90% was asked for"),
            (Verdict.UNDECIDED, "stays open whether every task keeps 90% of its expert's score: language keeps 90%"),
        ],
    )
    def test_headline_says_the_verdict_in_words(self, verdict, words):
        headline = prediction_headline(samples.prediction(verdict=verdict))
        assert headline.verdict is verdict
        assert words in headline.sentence and "90% of the time" in headline.certainty


class TestOutcomes:
    section = outcomes_section(samples.outcomes(), samples.scorecard())

    def test_failures_name_the_task_that_lost_most_and_why(self):
        table = self.section.tables[3]
        assert column(table, "Task") == ["toolkit", "toolkit"] and column(table, "Kept") == ["74%", "88%"]
        expected = ["language, added at 0.5, interferes", "language, added at 0.35, interferes"]
        assert column(table, "Main reason") == expected

    def test_a_failure_nobody_saw_coming_has_no_reason(self):
        silent = [dataclasses.replace(outcome.prediction, reasons=()) for outcome in samples.outcomes()]
        pairs = zip(samples.outcomes(), silent, strict=True)
        blind = [dataclasses.replace(outcome, prediction=prediction) for outcome, prediction in pairs]
        table = outcomes_section(blind, samples.scorecard()).tables[3]
        assert set(column(table, "Main reason")) == {"none was predicted"}

    def test_no_failure_is_said(self):
        table = outcomes_section(samples.outcomes()[:1], samples.scorecard()).tables[3]
        assert table.caption == "Merges that failed: none" and not table.rows

    def test_right_and_wrong_verdicts_are_told_apart(self):
        wrong = dataclasses.replace(
            samples.scorecard(), verdicts={"supported": {"kept": 2, "lost": 1}, "refuted": {"kept": 1, "lost": 3}}
        )
        rows = outcomes_section(samples.outcomes(), wrong).tables[0].rows
        assert [[cell.tone for cell in row[1:]] for row in rows] == [["good", "bad"], ["bad", "good"], [None, None]]

    def test_baselines_stand_beside_ours_first(self):
        table = self.section.tables[1]
        assert column(table, "Predictor")[0] == "coefficient process"
        assert column(table, "Mean retention error") == ["1.3 points", "undefined", "undefined"]

    def test_coverage_below_the_promise_is_bad_unless_chance_explains_it(self):
        assert [row[2].tone for row in self.section.tables[2].rows] == ["good", "unsure"]
        card = dataclasses.replace(samples.scorecard(), pairs=1200)
        section = outcomes_section(samples.outcomes(), card)
        assert [row[2].tone for row in section.tables[2].rows] == ["good", "bad"]

    def test_pairs_that_cannot_be_drawn_are_counted(self):
        assert "Not drawn, because undefined: 3." in self.section.figures[0].caption
        assert "Not drawn" not in self.section.figures[1].caption

    def test_headline_counts_right_wrong_and_open(self):
        headline = outcomes_headline(samples.outcomes(), samples.scorecard())
        assert headline.sentence.startswith("2 of 3 merges failed; 2 of the 2 verdicts")
        assert "1 were left open" in headline.sentence and "held 91.7%" in headline.certainty


class TestCurve:
    predicted, measured = samples.curves()

    def test_a_figure_and_a_table_for_each_task(self):
        section = curve_section("c", samples.GRID, self.predicted, self.measured, threshold=0.9)
        assert len(section.figures) == len(section.tables) == 4
        assert all(len(table.rows) == len(samples.GRID) for table in section.tables)
        assert "90% is asked for" in section.paragraphs[0]

    def test_points_that_do_not_exist_are_said(self):
        section = curve_section("c", samples.GRID, self.predicted, self.measured)
        assert column(section.tables[0], "Measured")[1] == "none"
        assert column(section.tables[-1], "Predicted")[0] == "undefined"
        assert "Undefined at 1 coefficient." in section.figures[-1].caption

    def test_without_measurements_there_is_no_such_column(self):
        section = curve_section("c", samples.GRID, self.predicted, quantity="loss")
        assert section.tables[0].columns == ("Coefficient", "Predicted", "Interval")
        assert "%" not in section.tables[0].rows[0][1].text

    def test_measured_values_outside_the_interval_are_marked(self):
        off = {name: [9.0] * len(samples.GRID) for name in self.predicted}
        table = curve_section("c", samples.GRID, self.predicted, off).tables[0]
        assert {row[-1].tone for row in table.rows} == {"bad"}

    @pytest.mark.parametrize(
        ("measured", "words"),
        [({"section": [1.0]}, "measured section has 1"), ({"other": [1.0] * 5}, "other measured but not predicted")],
    )
    def test_what_does_not_line_up_is_refused(self, measured, words):
        with pytest.raises(InputError, match=words):
            curve_section("c", samples.GRID, self.predicted, measured)

    def test_all_undefined_is_still_drawn(self):
        nothing = {"a": [samples.undefined()] * 5}
        assert curve_section("c", samples.GRID, nothing, {"a": [math.nan] * 5}).figures[0].svg
