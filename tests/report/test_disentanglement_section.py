"""Disentanglement errors in words, tables and heat maps."""

import dataclasses
import io
import re

import pytest
import torch
from matplotlib.figure import Figure
from rich.console import Console

from diagnostics import InputError
from diagnostics.report.disentanglement_section import disentanglement_headline, disentanglement_section, error_map
from diagnostics.report.document import Document
from diagnostics.report.html import render_html
from diagnostics.report.text import render_text
from diagnostics.results import Cost, Estimate, Status
from diagnostics.verdicts.differential import Interference
from diagnostics.verdicts.disentanglement import DisentanglementError
from diagnostics.verdicts.strata import GridEstimate
from tests.report.samples import HOSTILE, estimate, undefined


def table(values: torch.Tensor, half: float = 0.02) -> GridEstimate:
    return GridEstimate(values, torch.full_like(values, half / 2), (values - half).clamp_min(0), values + half)


def interference(task: str, other: str, relative: Estimate) -> Interference:
    means = [estimate(value, 0.1) for value in (3.0, 2.0, 6.0, 5.0)]
    return Interference(task, other, *means, relative, estimate(0.4, 0.05))


def error(first="news", second="mail", *, grid=(-1.0, 0.0, 0.5, 1.0), size=1.0, relative=None, notes=()):
    """|λ1 λ2| · size of ξ, three parts in four of it on the first task."""
    axis = torch.tensor(grid).double()
    whole = size * axis[:, None].abs() * axis.abs()
    parts = {first: table(0.75 * whole), second: table(0.25 * whole)}
    slopes = {
        first: interference(first, second, relative or estimate(0.5, 0.05)),
        second: interference(second, first, estimate(0.25, 0.05)),
    }
    return DisentanglementError(
        first=first,
        second=second,
        points=tuple((a, b) for a in grid for b in grid),
        hard=table(whole),
        soft=table(0.5 * whole),
        hard_by_task=parts,
        soft_by_task={name: table(0.5 * part.values) for name, part in parts.items()},
        mean=estimate(0.31, 0.02),
        divergence="jensen-shannon",
        differential=slopes,
        notes=notes,
        cost=Cost(forwards=32, jvps=4),
    )


ERRORS = [
    error(),
    error("news", "chat", size=0.1, relative=undefined(), notes=("4 predictions are ties",)),
    error("mail", "chat", size=0.4),
]


def column(shown, name):
    return [row[shown.columns.index(name)].text for row in shown.rows]


def test_the_headline_says_what_changes_and_judges_nothing():
    headline = disentanglement_headline(ERRORS[:1])
    assert headline.verdict is None and "90% of the time" in headline.certainty
    assert headline.sentence == (
        "At λ = (1, 1) the merge changes 75% of the predictions on news and 25% of the predictions on mail: "
        "ξ = 1 [0.98, 1.02] of at most 2."
    )
    assert disentanglement_headline(ERRORS).sentence == (
        "Over 3 pairs of experts ξ at λ = (1, 1) is between 0.1 (news, chat) and 1 (news, mail), of at most 2."
    )


def test_without_the_sum_the_average_is_named_and_without_it_the_farthest_point():
    assert "(0.5, 0.5)" in disentanglement_headline([error(grid=(0.0, 0.5))]).sentence
    assert "λ = (-2, -2)" in disentanglement_headline([error(grid=(0.0, -2.0))]).sentence


def test_tables_hold_every_pair():
    points, grid, slopes = disentanglement_section(ERRORS).tables
    assert column(points, "(λ1, λ2)")[:3] == ["(1, 1)", "(0.5, 0.5)", "(-1, -1) largest"]
    assert column(points, "ξ")[:3] == ["1 [0.98, 1.02]", "0.25 [0.23, 0.27]", "1 [0.98, 1.02]"]
    assert column(points, "ξ soft")[0] == "0.5 [0.48, 0.52]" and column(points, "standard error")[0] == "0.01"
    assert column(points, "first task changed")[1] == "18.8%"
    # 0.1 at |λ| = 1 has an upper end above the threshold of 0.1, and a lower one below.
    assert column(grid, "certain") == ["none", "0.5", "none"] and column(grid, "possible") == ["none", "1", "0.5"]
    assert [row[2].tone for row in grid.rows] == ["unsure", None, "unsure"]
    assert [cell.text for cell in slopes.rows[2]][:4] == ["news", "chat", "3 [2.9, 3.1]", "undefined"]
    assert slopes.numeric == (False, False, True, True, True, True)


def test_what_was_not_measured_has_no_table():
    section = disentanglement_section([dataclasses.replace(ERRORS[0], differential={})])
    assert len(section.tables) == 2 and "To first order" not in " ".join(section.paragraphs)


def test_notes_limits_and_cost_are_said():
    text = " ".join(disentanglement_section(ERRORS).paragraphs)
    assert "96 forwards, 12 jvps" in text and "not always a loss" in text and "has the same range" in text
    assert "Note: news, chat: 4 predictions are ties." in text
    assert "The relative value on news along chat is undefined. " + Status.UNDEFINED.advice in text
    unbounded = dataclasses.replace(ERRORS[0], divergence="kullback-leibler")
    assert "no upper end" in " ".join(disentanglement_section([unbounded]).paragraphs)


def test_the_map_of_a_pair_has_a_number_in_every_cell_and_a_frame_at_one():
    figure = error_map(ERRORS[0])
    assert figure.alt == "Heat map of ξ of news and mail: 1 at (1, 1) and at most 1, at (-1, -1)."
    svg = figure.svg
    assert [svg.count(f">{text}</text>") for text in ("1.00", "0.50", "0.25", "0.00")] == [4, 4, 1, 7]
    assert "λ of news" in svg and "λ of mail" in svg
    assert len(re.findall("stroke-width: 1.4", svg)) == 1
    assert "stroke-width: 1.4" not in error_map(error(grid=(-1.0, 0.0, 0.5))).svg


def test_many_cells_lose_their_numbers_and_some_ticks():
    svg = error_map(error(grid=tuple(k / 8 for k in range(-8, 9)))).svg
    assert ">1.00</text>" not in svg and ">-0.875</text>" not in svg and svg.count(">-0.75</text>") == 2


def test_the_map_of_all_pairs_says_who_is_disturbed_by_whom():
    pairs, *grids = disentanglement_section(ERRORS).figures
    assert len(grids) == 3 and pairs.alt == "Heat map of changed predictions at λ = (1, 1): from 0.025 to 0.75."
    axes = Figure().add_subplot()
    pairs.paint(axes)
    labels = [[tick.get_text() for tick in ticks()] for ticks in (axes.get_xticklabels, axes.get_yticklabels)]
    shown = {(labels[0][int(x)], labels[1][int(y)]): t.get_text() for t in axes.texts for x, y in [t.get_position()]}
    assert shown["mail", "news"] == "0.75" and shown["news", "mail"] == "0.25", "column added, row disturbed"
    assert shown["chat", "mail"] == "0.30" and shown["mail", "chat"] == "0.10" and shown["mail", "mail"] == "–"
    assert len(shown) == 9
    assert len(disentanglement_section(ERRORS[:2]).figures) == 2, "two pairs need no overview"


def test_pairs_without_a_common_point_are_refused():
    with pytest.raises(InputError, match="on one grid"):
        disentanglement_headline([error(grid=(1.0,)), error("a", "b", grid=(0.5,))])


def test_points_in_a_list_are_not_drawn():
    flat = error(grid=(0.5, 1.0))
    assert disentanglement_section([flat]).figures == ()


@pytest.mark.parametrize("width", [60, 120])
def test_names_cannot_break_a_page_or_a_terminal(width):
    errors = [error(HOSTILE[0], name) for name in HOSTILE[1:]]
    document = Document("Disentanglement", disentanglement_headline(errors), (disentanglement_section(errors),))
    page = render_html(document)
    assert "<script>alert" not in page and "<svg onload" not in page
    console = Console(width=width, file=io.StringIO())
    render_text(document, console)
    assert "\x1b" not in console.file.getvalue() and "\x00" not in console.file.getvalue()
