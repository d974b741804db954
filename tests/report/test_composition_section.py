"""The audit's report: what it says for each outcome, and that it never says more than is known."""

import dataclasses
import math
import re
import sys

import pytest
import torch

from diagnostics.report.composition_section import composition_headline, composition_section
from diagnostics.report.document import Document, Section, Table
from diagnostics.report.html import render_html
from diagnostics.results import Cost, Estimate, Status, Verdict
from diagnostics.verdicts.causes import Cause
from diagnostics.verdicts.composition import CompositionAudit, Term

from . import samples

# Norm and share of each term; the causes' shares are their sums.
TERMS = {
    "delta_1": (1.0, 0.5),
    "delta_2": (0.5, 0.1),
    "delta_star": (3.0, 0.4),
    "no_instruction": (0.8, 0.1),
    "interaction_x": (4.0, -1.2),
    "interaction_xy": (5.0, 1.5),
    "seam": (0.0, 0.0),
}
SHARES = {Cause.DATA: 0.6, Cause.PRIOR: 0.1, Cause.INTERACTION: 0.3, Cause.SEAM: 0.0}


def term(name: str, norm: float, share: Estimate) -> Term:
    return Term(name, norm, samples.estimate(norm, 0.1 * norm), share, dict)


def audit(**changes: object) -> CompositionAudit:
    """A refuted audit of two components whose main cause are their data."""
    gram = torch.diag(torch.tensor([norm**2 for norm, _ in TERMS.values()], dtype=torch.float64))
    gram[4, 5] = gram[5, 4] = -19.0
    gram[0, 4] = gram[4, 0] = 1.0
    gram[0, 5] = gram[5, 0] = 0.5
    result = CompositionAudit(
        components=("summarise", "translate"),
        alphas=(0.9, 0.4),
        error=term("error", 2.0, samples.estimate(1.0, 0.0)),
        relative=0.9,
        relative_estimate=samples.estimate(0.86, 0.04),
        terms={name: term(name, norm, samples.estimate(share, 0.1 * norm)) for name, (norm, share) in TERMS.items()},
        gram=gram,
        causes={cause: samples.estimate(share, 0.05 if share else 0.0) for cause, share in SHARES.items()},
        cause=Cause.DATA,
        cancellation=0.2,
        limit=0.5**0.5,
        verdict=Verdict.REFUTED,
        losses={"the target's data, no instruction": 7.5, "the target's data, its instruction": 6.25},
        folds=8,
        notes=("no BOS, as asked for",),
        cost=Cost(gradients=6, backwards=4),
    )
    return dataclasses.replace(result, **changes)


def without_shares(value: float, evidence: str, **changes: object) -> CompositionAudit:
    """An audit none of whose shares can be trusted."""
    vague = Estimate(value, -math.inf, math.inf, 0.9, Status.UNDEFINED, evidence)
    plain = audit()
    return audit(
        causes=dict.fromkeys(Cause, vague),
        terms={name: dataclasses.replace(each, share=vague) for name, each in plain.terms.items()},
        cause=None,
        **changes,
    )


def near_zero() -> CompositionAudit:
    """The error cannot be told from zero."""
    return without_shares(
        3.7, "the error cannot be told", verdict=Verdict.SUPPORTED, relative_estimate=samples.estimate(0.02, 0.02)
    )


def few(folds: int = 2, value: float = 0.8) -> CompositionAudit:
    """Too few examples for any interval."""
    vague = Estimate(value, math.nan, math.nan, 0.9, Status.UNDEFINED, "the target's gradient cannot be told from zero")
    given = without_shares(value, "no folds", folds=folds, verdict=Verdict.UNDECIDED, relative_estimate=vague)
    terms = {name: dataclasses.replace(each, estimate=vague) for name, each in given.terms.items()}
    return dataclasses.replace(given, terms=terms, error=dataclasses.replace(given.error, estimate=vague))


def unknown_target() -> CompositionAudit:
    """The target's gradient cannot be told from zero."""
    text = "the target's gradient cannot be told from zero: more examples are needed"
    vague = Estimate(0.9, 0.0, math.inf, 0.9, Status.UNDEFINED, text)
    return without_shares(1.0, "no error", verdict=Verdict.UNDECIDED, relative_estimate=vague)


ALL = {
    "refuted": audit,
    "near zero": near_zero,
    "few folds": few,
    "one fold": lambda: few(1, math.nan),
    "unknown target": unknown_target,
    "nothing at all": lambda: audit(
        gram=torch.zeros(7, 7, dtype=torch.float64),
        terms={name: term(name, 0.0, samples.estimate(0.0, 0.0)) for name in TERMS},
        cancellation=math.nan,
    ),
}


def text_of(section: Section) -> str:
    cells = [cell.text for table in section.tables for row in table.rows for cell in row]
    figures = [each for figure in section.figures for each in (figure.alt, figure.caption)]
    return "\n".join([*section.paragraphs, *cells, *(table.caption for table in section.tables), *figures])


def rows(table: Table) -> dict[str, list[str]]:
    return {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}


@pytest.mark.parametrize("name", ALL)
def test_no_outcome_prints_what_does_not_exist(name: str) -> None:
    given = ALL[name]()
    section, headline = composition_section(given), composition_headline(given)
    page = render_html(Document("t", headline, (section,)))
    for text in (text_of(section), headline.sentence, page):
        assert not re.search(r"\bnan\b|\binf\b|infinite|\[undefined", text), text


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            audit(),
            "Adding these task vectors is not expected to reach the target: relative error 0.86 [0.82, 0.9], limit 0.7",
        ),
        (
            near_zero(),
            "At the base nothing keeps these task vectors from adding up to the target: relative error 0.02 [0, 0.04],",
        ),
        (
            few(),
            "It stays open .*: relative error 0.9 on these data, limit 0.707, and too few examples for an interval",
        ),
        (unknown_target(), "It stays open .*, as the target's gradient cannot be told from zero: more examples are"),
    ],
)
def test_the_headline_is_verdict_and_certainty(given: CompositionAudit, words: str) -> None:
    headline = composition_headline(given)
    assert headline.verdict is given.verdict
    assert re.match(words.replace("[", r"\["), headline.sentence), headline.sentence
    assert ("90% of the time" in headline.certainty) == given.relative_estimate.status.trusted


def test_the_cause_comes_with_its_advice() -> None:
    for cause in Cause:
        text = composition_section(audit(cause=cause)).paragraphs[1]
        assert f"Main cause of the error: {cause}" in text
        assert cause.advice in text


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (audit(cause=None), r"data mismatch 60% \[55%, 65%\] and instruction interaction 30% .* are too close"),
        (near_zero(), "cannot be told from zero, so there is nothing to explain"),
        (unknown_target(), "cannot be told from zero, more examples would tell"),
        (few(), "shares have no intervals with so few examples"),
    ],
)
def test_without_a_cause_the_reason_is_given(given: CompositionAudit, words: str) -> None:
    text = composition_section(given).paragraphs[1]
    assert text.startswith("No cause is named")
    assert re.search(words, text), text


@pytest.mark.parametrize(
    ("cancellation", "words"),
    [(0.2, "causes cancel in large part"), (1.0, "neither cancel nor"), (2.0, "causes add up:")],
)
def test_it_is_said_whether_terms_cancel(cancellation: float, words: str) -> None:
    text = composition_section(audit(cancellation=cancellation)).paragraphs[2]
    assert words in text
    assert "longest part of the error is interaction, 77.9% of the length of the target's gradient" in text
    assert "largest share of the error has delta_1 (summarise), 50%" in text


def test_negative_coefficients_are_explained() -> None:
    assert "negative" not in composition_section(audit()).paragraphs[0]
    text = composition_section(audit(alphas=(0.9, -0.4))).paragraphs[0]
    assert "0.9 summarise and -0.4 translate" in text
    assert "α is negative for translate" in text


def test_tables_hold_the_numbers() -> None:
    error, causes, terms, losses, cosines = composition_section(audit()).tables
    assert rows(error)["relative error"] == ["0.86 [0.82, 0.9]", "0.9", "0.707", "refuted"]
    assert list(rows(causes)) == ["data mismatch", "instruction interaction", "the model's own prior", "seam"]
    assert rows(causes)["data mismatch"] == ["60% [55%, 65%]", "delta_1 and delta_2"]
    assert rows(terms)["delta_2"] == ["data, translate (1.8)", "0.5 [0.45, 0.55]", "22.5%", "10% [5%, 15%]"]
    assert rows(terms)["seam"] == ["wording (1.12)", "0", "0%", "0%"]
    assert list(rows(terms)) == ["error", *TERMS]
    assert rows(losses) == {
        "the target's data, no instruction": ["7.5"],
        "the target's data, its instruction": ["6.25"],
    }
    # ⟨delta_1, x + xy⟩ = 1 + 0.5 and ‖x + xy‖² = 16 + 25 − 2 · 19 = 3.
    assert next(iter(rows(cosines).items())) == ("delta_1, interaction", ["0.866"])
    assert not any("seam" in pair or "delta_star" in pair for pair in rows(cosines)), "neither has a cosine of its own"


def test_shares_of_an_error_that_may_be_zero_are_not_shown() -> None:
    section = composition_section(near_zero())
    _, causes, terms, *_ = section.tables
    assert {row[0] for row in rows(causes).values()} == {"undefined"}
    assert list(rows(causes)) == [str(cause) for cause in Cause], "no rank either"
    assert {row[-1] for name, row in rows(terms).items() if name != "error"} == {"undefined"}
    assert len(section.figures) == 2
    assert "370%" not in text_of(section)


def test_values_without_an_interval_are_shown_as_such() -> None:
    section = composition_section(few())
    assert rows(section.tables[0])["relative error"][0] == "0.8"
    assert rows(section.tables[1])["seam"][0] == "80%"
    assert all("No intervals: too few examples" in table.caption for table in section.tables[1:3])
    assert not any("No intervals" in table.caption for table in composition_section(audit()).tables)
    assert "Hollow bars have no interval" in section.figures[0].caption
    assert "Hollow" not in composition_section(audit()).figures[0].caption


def test_pictures_show_every_term_and_say_it() -> None:
    shares, norms, cosines = composition_section(audit()).figures
    for name in TERMS.keys() - {"delta_star", "seam", "no_instruction"}:
        assert name in shares.svg, name
    assert "data mismatch 60% [55%, 65%]" in shares.alt
    assert "delta_1 (summarise)" in norms.svg
    assert "error 2 [1.8, 2.2]" in norms.alt
    assert "0.87" in cosines.svg
    assert "undefined" in composition_section(few(1, math.nan)).figures[0].svg


def test_notes_and_cost_are_said() -> None:
    text = "\n".join(composition_section(audit()).paragraphs)
    assert "Note: no BOS, as asked for." in text
    assert "6 gradients, 4 backwards" in text


def test_many_components() -> None:
    names = tuple(f"task {index}" for index in range(1, 13))
    terms = {f"delta_{index}": term(f"delta_{index}", 1.0, samples.estimate(0.05, 0.01)) for index in range(1, 13)}
    terms |= audit().terms | {"delta_11": terms["delta_11"]}
    given = audit(components=names, alphas=(0.1,) * 12, terms=terms, gram=torch.eye(len(terms), dtype=torch.float64))
    section = composition_section(given)
    assert "delta_12 (task 12)" in section.figures[0].svg
    assert "data, task 11 (1.8)" in text_of(section)
    assert "10 of 105 pairs" in section.tables[-1].caption


def test_the_section_needs_no_plotting_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert composition_section(audit()).tables


def test_names_cannot_break_the_page() -> None:
    given = audit(components=samples.HOSTILE[:2])
    page = render_html(Document("t", composition_headline(given), (composition_section(given),)))
    assert "<script" not in page
