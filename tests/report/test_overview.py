"""One verdict for a page of many parts, each part in a line, and how the page was made."""

import io

import pytest
from rich.console import Console

from diagnostics.report.document import Cell, Document, Headline, Section
from diagnostics.report.html import render_html
from diagnostics.report.overview import Making, PagePart, glance_section, making_section, page_headline
from diagnostics.report.text import render_text
from diagnostics.results import Cost, Verdict

from .samples import HOSTILE

S, R, U = Verdict.SUPPORTED, Verdict.REFUTED, Verdict.UNDECIDED
MAKING = Making(
    "diagnostics report merge.yaml", {"merge.yaml": 3}, {"merge.yaml": "base: b\n"}, ["bounds"], "On cpu.", 1
)


def part(command: str, verdict: Verdict | None = None, **changes: object) -> PagePart:
    head = Headline(verdict, f"{command} says {verdict}.", f"Sure of {command}.")
    return PagePart(command, f"{command}?", head, (Section(command),), 0.5, **changes)


def failure(command: str) -> PagePart:
    return PagePart.of_failure(command, f"{command}?", command.title(), f"{command}: expected a; found b.", 0.1)


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        ([part("check", S), part("geometry")], None),
        ([part("check", R)], R),
        ([part("check", S), part("predict", S)], S),
        ([part("check", S), part("predict", U), part("coefficients", R)], U),
        ([part("predict", S), part("bounds", R), part("relations")], S),
        ([part("predict", S), part("audit", R)], R),
        ([part("predict", S), part("audit", S), part("audit", U)], U),
        ([part("audit", S)], S),
        ([part("check", S), failure("predict")], U),
        ([failure("predict"), part("audit", R)], R),
        ([part("predict", S), failure("bounds")], S),
    ],
)
def test_the_verdict_is_that_of_prediction_and_audits_together(parts: list[PagePart], verdict: Verdict | None) -> None:
    assert page_headline(parts).verdict is verdict


def test_the_sentence_says_what_the_verdict_rests_on() -> None:
    both = page_headline([part("check", S), part("predict", R), part("audit", S), failure("bounds")], "Do that.")
    assert both.sentence == "predict says refuted. Do that. audit says supported."
    assert both.certainty == "Sure of predict. Sure of audit. Not everything could be measured: bounds failed."
    first = page_headline([part("predict", S), part("audit", R)])
    assert first.sentence == "audit says refuted. predict says supported.", "what decides comes first"
    assert page_headline([part("predict", S)], "Do that.").sentence == "predict says supported."


def test_models_that_do_not_fit_and_open_questions_are_said() -> None:
    refused = page_headline([part("check", R)])
    assert refused.certainty == "Sure of check. Nothing else was measured."
    open_ = page_headline([failure("predict")])
    assert open_.sentence == "It stays open whether this merge will work: the prediction could not be made."


def test_every_part_has_a_line_with_its_verdict_or_that_it_failed() -> None:
    section = glance_section([part("check", S), part("geometry"), failure("bounds")])
    rows = section.tables[0].rows
    assert [row[0].text for row in rows] == ["check?", "geometry?", "bounds?"]
    assert [row[1] for row in rows] == [Cell("supported", "good"), Cell("measured"), Cell("failed", "bad")]
    assert rows[2][2].text == "bounds: expected a; found b."


def test_a_part_that_failed_is_a_section_that_says_why() -> None:
    (section,) = failure("bounds").sections
    assert section.title == "Bounds" and section.paragraphs[-1] == "bounds: expected a; found b."


def test_what_is_needed_to_make_the_page_again_is_there() -> None:
    section = making_section([part("check"), part("predict", S, cost=Cost(forwards=7))], MAKING)
    assert section.paragraphs[:2] == ("Seed: 3 (merge.yaml). On cpu.", "Left out as asked: bounds.")
    rows = [[cell.text for cell in row] for row in section.tables[0].rows]
    assert rows == [["models and data", "1", "none"], ["check", "0.5", "not counted"], ["predict", "0.5", "7 forwards"]]
    assert [listing.text for listing in section.listings] == ["diagnostics report merge.yaml", "base: b\n"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_contents_of_files_cannot_break_a_page_or_a_terminal(hostile: str) -> None:
    making = Making(hostile, {hostile: 0}, {hostile: f"key: {hostile}\nother: 1"}, [hostile], hostile, 0)
    document = Document("t", Headline(None, "s", "c"), (making_section([], making),))
    page = render_html(document)
    assert "<script" not in page and "<svg onload" not in page and "\x1b" not in page
    buffer = io.StringIO()
    render_text(document, Console(file=buffer, width=80))
    printed = buffer.getvalue()
    assert "\x1b" not in printed and "  other: 1" in printed.splitlines()
