"""Angles and feature use in words, tables and heat maps; results are written down rather than measured."""

import dataclasses
import io
import math

import pytest
import torch
from rich.console import Console

from diagnostics.measures.column_angles import Angles
from diagnostics.measures.orthogonality import Orthogonality
from diagnostics.report.document import Document
from diagnostics.report.html import render_html
from diagnostics.report.orthogonality_section import orthogonality_headline, orthogonality_section
from diagnostics.report.text import render_text
from diagnostics.results import Cost
from diagnostics.verdicts.feature_use import FeatureSpecialisation, UseOverlap
from tests.report.samples import HOSTILE

NAMES = ("news", "mail", "chat")


def matrix(diagonal, off, count):
    values = torch.full((count, count), off, dtype=torch.float64)
    return values.fill_diagonal_(diagonal)


def angles(names=NAMES, *, layers=2, zero=False) -> Orthogonality:
    """Inside 0.3 and between 0.2 at a null of 0.1; news and mail 0.05."""
    count = len(names)
    cosine = matrix(0.3, 0.2, count)
    if count > 1:
        cosine[0, 1] = cosine[1, 0] = 0.05
    if zero:
        cosine[-1], cosine[:, -1] = math.nan, math.nan
    chance = [torch.full((count, count), value, dtype=torch.float64) for value in (0.1, 0.01, 0.0)]
    found = Orthogonality(
        names=tuple(names),
        side="columns",
        cosine=Angles(cosine, *chance),
        matched=Angles(matrix(math.nan, 0.25, count), *chance),
        square=Angles(matrix(0.09, 0.04, count), *chance),
        floor=torch.zeros(count, dtype=torch.float64),
        norms=torch.ones(count, dtype=torch.float64),
        zero=torch.zeros(count, dtype=torch.int64),
        base=0.15,
        base_null=0.1,
        base_zero=0,
        parameters=120,
        columns=10,
        drawn=10,
        not_covered={"b": "1 dimension"},
    )
    return dataclasses.replace(found, layers={f"h.{index}.weight": found for index in range(layers)})


def use(names=NAMES) -> FeatureSpecialisation:
    count = len(names)
    row = torch.linspace(0.1, 0.3, count, dtype=torch.float64)
    part = UseOverlap(
        overlap=matrix(1.0, 0.6, count),
        lower=matrix(1.0, 0.55, count),
        upper=matrix(1.0, 0.65, count),
        cosine=matrix(1.0, 0.8, count),
        ceiling=1 - row / 10,
        chance=matrix(0.7, 0.5, count),
        chance_deviation=matrix(0.0, 0.02, count),
        outside=row,
        outside_stderr=row / 10,
        outside_chance=row + 0.5,
        own=torch.arange(count),
        shared=7,
        idle=2,
        weights=matrix(0.2, 0.1, count),
        weights_null=0.09,
    )
    skipped = {"embed.weight": "Embedding, not a linear layer of its input"}
    return FeatureSpecialisation(
        tuple(names),
        part,
        {"h.0.weight": part},
        0.9,
        0.25,
        (40,) * count,
        skipped,
        ("seen through 8",),
        Cost(gradients=3),
    )


def column(table, name):
    return [row[table.columns.index(name)].text for row in table.rows]


def test_the_headline_gives_ranges_and_judges_nothing():
    headline = orthogonality_headline(angles())
    assert headline.verdict is None and headline.sentence == (
        "3 updates, columns of 2 tensors: inside an update |cosine| is 3 times chance; between two it is 0.5 to 2 "
        "times chance, most for mail and chat."
    )
    assert "to rounding" in headline.certainty
    assert "standard errors" in orthogonality_headline(dataclasses.replace(angles(), drawn=5)).certainty
    assert "no update has two directions" in orthogonality_headline(angles(("one",), zero=True)).sentence


def test_tables_hold_values_beside_chance():
    inside, between, layers = orthogonality_section(angles()).tables
    assert column(inside, "Mean |cos|") == ["0.3", "0.3", "0.3", "0.15"]
    assert column(inside, "Times chance") == ["3", "3", "3", "1.5"]
    assert column(between, "Pair") == ["news, chat", "mail, chat", "news, mail"], "largest first"
    assert [cell.text for cell in between.rows[2][1:]] == ["0.05", "0.1", "0.5", "0.25", "2.5", "0.4"]
    assert column(layers, "Tensor") == ["h.0.weight", "h.1.weight"]
    assert column(layers, "Between updates") == ["0.5 to 2", "0.5 to 2"]


def test_many_tensors_are_shown_by_kind_and_many_pairs_by_size():
    found = orthogonality_section(angles([f"n{index}" for index in range(8)], layers=30))
    assert column(found.tables[2], "Tensor") == ["h.*.weight"] and "by kind of tensor" in found.tables[2].caption
    assert len(found.tables[1].rows) == 20 and "20 of 28 pairs" in found.tables[1].caption


def test_undefined_pairs_come_last_and_are_dashes():
    section = orthogonality_section(angles(zero=True))
    assert column(section.tables[1], "Mean |cos|") == ["0.05", "undefined", "undefined"]
    assert section.figures[0].svg.count("–") == 5
    assert "from 0.5 to 3" in section.figures[0].alt


def test_feature_use_stands_beside_its_chance_and_ceiling():
    section = orthogonality_section(angles(), use())
    overlap, sets = section.tables[3:]
    assert column(overlap, "Overlap") == ["0.6 [0.55, 0.65]"] * 3 and column(overlap, "By chance") == ["0.5 ± 0.02"] * 3
    assert column(sets, "Use outside them") == ["10% ± 1%", "20% ± 2%", "30% ± 3%"]
    assert column(sets, "By chance") == ["60%", "70%", "80%"] and column(sets, "Own features") == ["0", "1", "2"]
    assert "7 are shared and 2 idle" in sets.caption
    text = " ".join(section.paragraphs)
    assert "seen through 8" in text and "3 gradients" in text and "embed.weight (Embedding, not a linear layer" in text
    assert use().total.overlap.diagonal().tolist() == [1, 1, 1], "drawing leaves the result alone"
    assert len(section.figures) == 2 and "0.99" in section.figures[1].svg


def test_one_expert_has_no_pairs():
    section = orthogonality_section(angles(("one",)))
    assert len(section.tables) == 2 and not section.figures


def test_limits_and_notes_are_said():
    text = " ".join(orthogonality_section(angles()).paragraphs)
    assert "Values inside do not tell about values between" in text and "w_k of features are its rows" in text
    assert "Note: not covered: 1 with 1 dimension." in text
    rows = orthogonality_section(dataclasses.replace(angles(), side="rows"))
    assert "one for each output feature" in rows.paragraphs[0] and "Same row" in rows.tables[1].columns


@pytest.mark.parametrize("count", [2, 4])
def test_hostile_names_are_harmless_everywhere(count):
    names = HOSTILE[:count]
    found, used = angles(names), use(names)
    document = Document("t", orthogonality_headline(found), (orthogonality_section(found, used),))
    page = render_html(document)
    assert "<script>alert" not in page and "onload=alert(1)>" not in page
    buffer = io.StringIO()
    render_text(document, Console(file=buffer, width=200))
    assert "\x1b[31m" not in buffer.getvalue() and "\x00" not in buffer.getvalue()
