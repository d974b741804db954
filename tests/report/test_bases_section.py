"""Bases in words, tables and pictures."""

import io

import pytest
import torch
from rich.console import Console

from diagnostics import Verdict, cluster_history, load_bases, task_vector_bases
from diagnostics.report.bases_section import bases_headline, bases_section
from diagnostics.report.document import Document
from diagnostics.report.html import render_html
from diagnostics.report.text import render_text
from tests.bases.planted import models, planted
from tests.report.samples import HOSTILE


def made(sizes, **settings):
    base, experts = models(planted(sizes, 0.5, 0.02, 2000), 8)
    return task_vector_bases(base, experts, **settings)


def text_of(bases, history=(), columns=80):
    buffer = io.StringIO()
    document = Document("Bases", bases_headline(bases), (bases_section(bases, history),))
    render_text(document, Console(file=buffer, width=columns))
    return buffer.getvalue()


def test_groups_are_named_with_the_evidence_for_them():
    found = made((3, 2, 1))
    headline = bases_headline(found)
    assert headline.verdict is Verdict.SUPPORTED
    assert headline.sentence == "6 experts fall into groups: e0, e1 and e2; e3 and e4; 3 basis vectors in all."
    assert "100% of 50 resamples" in headline.certainty
    printed = text_of(found)
    assert "Memory: 50% saved" in printed and "basis-1" in printed and "e0, e1, e2" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_without_groups_it_says_so():
    headline = bases_headline(made((1,) * 5))
    assert headline.verdict is Verdict.REFUTED
    assert headline.sentence == "5 experts fall into no groups: each stays a basis of its own."


def test_a_number_that_was_given_is_no_verdict():
    headline = bases_headline(made((1,) * 5, k=2))
    assert headline.verdict is None and headline.sentence.startswith("5 experts in 2 basis vectors: ")


def test_two_experts_cannot_be_judged():
    headline = bases_headline(made((2,)))
    assert headline.verdict is Verdict.UNDECIDED and "may or may not" in headline.sentence


def test_notes_and_earlier_checkpoints_are_shown():
    base, experts = models(planted((5, 2), 0.9, 0.0, 2000), 8)
    found = task_vector_bases(base, experts)
    history = cluster_history(base, {"step 10": experts, "end": experts})
    printed = text_of(found, history, 120)
    assert "Note: the eigengap is ambiguous" in printed and "step 10" in printed and "same" in printed


def test_bases_from_files_have_tables_and_no_figures(tmp_path):
    base, experts = models(planted((3, 1), 0.5, 0.0, 2000), 8)
    task_vector_bases(base, experts, k=2).save(tmp_path)
    loaded = load_bases(tmp_path, base)
    assert bases_headline(loaded).certainty == "Read from files." and not bases_section(loaded).figures


@pytest.mark.parametrize("count", [5, 70])
def test_the_page_holds_every_name_and_escapes_it(count):
    rows = planted((3, 2) + (1,) * (count - 5), 0.5, 0.02, 2000)
    base, experts = models(rows, 8)
    names = [*HOSTILE, *(f"expert-{index}" for index in range(count))][:count]
    found = task_vector_bases(base, dict(zip(names, experts.values(), strict=True)), resamples=5)
    section = bases_section(found)
    page = render_html(Document("Bases", bases_headline(found), (section,)))
    assert "<script>" not in page and "&lt;script&gt;" in page and "onload=alert(1)&gt;" in page
    assert len(section.figures) == 2 and all(figure.alt and figure.caption for figure in section.figures)


def test_figures_are_drawn_in_the_order_of_the_groups():
    rows = planted((2, 2), 0.6, 0.0, 2000)[[0, 2, 1, 3]]
    base, experts = models(rows, 8)
    found = task_vector_bases(base, experts, k=2)
    axes = found.plot()
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["e0", "e2", "e1", "e3"]
    assert torch.tensor([float(text.get_text()) for text in axes.texts]).view(4, 4)[:2, :2].min() > 0.5
