"""Relations in words, tables and heat maps."""

import io
import math

import pytest
from rich.console import Console

from diagnostics.report.document import Document
from diagnostics.report.html import render_html
from diagnostics.report.relations_section import relations_headline, relations_section
from diagnostics.report.text import render_text
from diagnostics.results import Cost, Estimate, Status, Verdict
from diagnostics.theory.coefficient_conditions import Regime, coefficient_region
from diagnostics.verdicts.relation_outcomes import Agreement, Check, MergeOutcome
from diagnostics.verdicts.relations import OutputRelation
from tests.report.samples import HOSTILE, estimate, undefined


def agreement() -> Agreement:
    """Two λ: one agreed, one inside and not met."""
    good, bad = Check(Verdict.SUPPORTED, Verdict.SUPPORTED), Check(Verdict.SUPPORTED, Verdict.REFUTED)
    open_ = Check(Verdict.UNDECIDED, Verdict.REFUTED)
    outcomes = (
        MergeOutcome(0.5, estimate(0.97, 0.01), estimate(0.95, 0.02), good, open_),
        MergeOutcome(2.0, estimate(0.4, 0.01), undefined(), bad, open_),
    )
    words = {"agrees": 1, "inside but not met": 1, "outside but met": 0, "undecided": 0}
    counts = {"multi_task": words, "unlearning": {**dict.fromkeys(words, 0), "undecided": 2}}
    return Agreement(outcomes, 0.1, counts, Cost(forwards=4))


def relation(first: str, second: str, alpha: Estimate, *, measured: bool = False, notes: tuple = ()) -> OutputRelation:
    known = alpha.status is not Status.UNDEFINED
    regions = coefficient_region(alpha, aligned=0.37, contradictory=-0.37) if known else None
    values = {"uncentred": 0.9, "centred": alpha.value, "change": 0.1}
    return OutputRelation(
        first=first,
        second=second,
        uncentred=estimate(0.9, 0.01),
        centred=alpha,
        change=estimate(0.1, 0.02),
        by_task={first: values, second: values},
        kind=regions.regime if regions else Regime.UNDECIDED,
        thresholds=(-0.37, 0.37),
        regions=regions,
        agreement=agreement() if measured else None,
        notes=notes,
        cost=Cost(forwards=6),
    )


RELATIONS = [
    relation("news", "mail", estimate(0.8, 0.05), measured=True),
    relation("news", "chat", estimate(-0.8, 0.05), notes=("outputs of chat are single numbers",)),
    relation("mail", "chat", estimate(0.3, 0.1)),
    relation("news", "empty", undefined()),
]


def column(table, name):
    return [row[table.columns.index(name)].text for row in table.rows]


def test_the_headline_counts_and_judges_nothing():
    headline = relations_headline(RELATIONS)
    assert headline.verdict is None
    assert headline.sentence == (
        "4 pairs of experts: 1 aligned (news, mail), 1 contradictory (news, chat) "
        "and 2 undecided (mail, chat; news, empty)."
    )
    assert "90% of the time" in headline.certainty
    many = relations_headline([relation("a", f"b{i}", estimate(0.8, 0.05)) for i in range(5)])
    assert "5 aligned (a, b0; a, b1; a, b2; 2 more pairs)" in many.sentence


def test_tables_hold_every_pair():
    section = relations_section(RELATIONS)
    alphas, by_task, regions = section.tables[:3]
    assert column(alphas, "Relation") == ["aligned", "contradictory", "undecided", "undecided"]
    assert [row[1].tone for row in alphas.rows] == [None, None, "unsure", "unsure"]
    assert column(alphas, "α centred")[0] == "0.8 [0.75, 0.85]" and column(alphas, "α centred")[3] == "undefined"
    assert column(by_task, "Inputs of the second") == ["0.8", "-0.8", "0.3", "undefined"]
    assert column(regions, "Both succeed (3.1)") == [
        "from 0.25; undecided: 0.15 to 0.25",
        "none",
        "from 0.8; undecided: 0.6 to 0.8",
        "unknown",
    ]
    assert column(regions, "Second unlearned (3.2)")[:3] == [
        "none; undecided: any",
        "0; undecided: up to 0 and from 0",
        "none; undecided: any",
    ]


def test_measured_merges_stand_beside_the_claims():
    section = relations_section(RELATIONS)
    measured, counts = section.tables[3:]
    assert measured.caption.startswith("news, mail: share of the score") and "90% counts as kept" in measured.caption
    assert column(measured, "First task") == ["97% [96%, 98%]", "40% [39%, 41%]"]
    assert [row[3].tone for row in measured.rows] == ["good", "bad"]
    assert [row[4].tone for row in measured.rows] == ["unsure", "unsure"]
    assert [cell.text for cell in counts.rows[0]] == ["(3.1)", "1", "1", "0", "0"]
    assert len(relations_section(RELATIONS[1:]).tables) == 3, "nothing measured, no table of it"


def test_notes_limits_and_cost_are_said():
    text = " ".join(relations_section(RELATIONS).paragraphs)
    assert "Aligned above 0.37, contradictory below -0.37" in text
    assert "24 forwards" in text and "read at β = 0" in text
    assert "Note: news, chat: outputs of chat are single numbers." in text
    assert "The centred α of news, empty is undefined. " + Status.UNDEFINED.advice in text


def test_heat_maps_show_every_pair_and_a_dash_where_there_is_none():
    centred, change = relations_section(RELATIONS).figures
    assert centred.alt == "Heat map. Centred α between experts: from -0.8 to 0.8."
    assert "Centred α between experts." in centred.caption and "changes" in change.caption
    svg = centred.svg
    assert [svg.count(f">{text}</text>") for text in ("1.00", "0.80", "-0.80", "0.30")] == [4, 2, 2, 2]
    assert ">–</text>" in svg
    lonely = relations_section(RELATIONS[3:]).figures[0]
    assert lonely.alt == "Heat map. Centred α between experts." and math.isnan(RELATIONS[3].centred.value)


@pytest.mark.parametrize("width", [60, 120])
def test_names_cannot_break_a_page_or_a_terminal(width):
    relations = [relation(HOSTILE[0], name, estimate(0.8, 0.05), measured=True) for name in HOSTILE[1:]]
    document = Document("Relations", relations_headline(relations), (relations_section(relations),))
    page = render_html(document)
    assert "<script>alert" not in page and "<svg onload" not in page
    console = Console(width=width, file=io.StringIO())
    render_text(document, console)
    assert "\x1b" not in console.file.getvalue() and "\x00" not in console.file.getvalue()
