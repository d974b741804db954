"""The section on the structure of updates: what its sentences, tables and figures must say."""

import dataclasses
import math
import sys

import pytest
import torch

from diagnostics.measures.update_structure import UpdateStructure, update_structure
from diagnostics.report import structure_section as module
from diagnostics.report.structure_section import structure_headline, structure_section
from diagnostics.results import Cost, Estimate, Status
from diagnostics.verdicts.update_reduction import Reduction, ReductionCost, ReductionReport


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def column(table, name):
    return [row[table.columns.index(name)].text for row in table.rows]


def table_of(section, words):
    return next(table for table in section.tables if words in table.caption)


def structure(layers=1, seed=0, scale=0.1, **options) -> UpdateStructure:
    """An update with one strong direction in every matrix."""
    generator = torch.Generator().manual_seed(seed)
    base, expert = {}, {}
    for layer in range(layers):
        for place, shape in (("in", (12, 6)), ("out", (6, 12))):
            name = f"model.layers.{layer}.{place}.weight"
            base[name] = torch.randn(shape, generator=generator)
            strong = torch.outer(*(torch.randn(size, generator=generator) for size in shape))
            expert[name] = base[name] + scale * (strong + 0.3 * torch.randn(shape, generator=generator))
    base["bias"], expert["bias"] = torch.ones(3), torch.ones(3) + scale
    return update_structure(base, expert, **options)


def still() -> UpdateStructure:
    return update_structure({"w": torch.ones(3, 3)}, {"w": torch.ones(3, 3)})


def estimate(value, half=0.02, status=Status.CONVERGED):
    return Estimate(value, value - half, value + half, 0.9, status)


def report(gain=1.0, **options) -> ReductionReport:
    costs = (
        ReductionCost(Reduction("rank", 1), 0.8, 0.1, estimate(0.3, 0.4, Status.TAINTED), estimate(0.4), estimate(0.9)),
        ReductionCost(Reduction("rows", 0.25), 0.5, 0.25, estimate(0.05), estimate(0.06), estimate(0.2)),
    )
    return dataclasses.replace(
        ReductionReport("news", {"news": 0.5, "mail": 0.5}, 0.25, estimate(gain), costs, Cost()), **options
    )


def test_needs_no_plotting_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert len(structure_section({"a": structure()}).figures) == 2


def test_updates_stand_beside_their_null():
    each = structure()
    table = table_of(structure_section({"a": each}), "as a whole")
    row = dict(zip(table.columns, texts(table)[0], strict=True))
    assert row["Rank for 90%"] == f"{each.rank_for(0.9).value:g}"
    assert row["Rank 1 keeps"] == f"{100 * each.kept(1).value:.1f}%"
    assert f"{100 * each.null_kept(1):.1f}%" in texts(table)[0]
    assert each.kept(1).value > 0.7 > each.null_kept(1)


def test_storage_tells_what_is_lost_already():
    base = torch.randn(40, 40, generator=torch.Generator().manual_seed(0)).bfloat16()
    expert = (base.double() + 2e-3 * torch.randn(40, 40, generator=torch.Generator().manual_seed(1))).bfloat16()
    section = structure_section({"narrow": update_structure({"w": base}, {"w": expert}), "wide": structure()})
    table = table_of(section, "storage loses")
    assert column(table, "Rounded to") == ["bfloat16", "float32"]
    assert [row[-1].tone for row in table.rows] == ["bad", None]


def test_matrices_are_ranked_and_counted():
    section = structure_section({"a": structure(layers=6)})
    table = table_of(section, "moved most")
    shares = [float(text.rstrip("%")) for text in column(table, "Of the update")]
    assert shares == sorted(shares, reverse=True) and len(shares) == 8
    assert "8 of 12, at most 8 for each expert" in table.caption
    kinds = table_of(section, "place in a layer")
    assert sorted(column(kinds, "Kind")) == ["a: model.layers.*.in.weight", "a: model.layers.*.out.weight"]
    assert column(kinds, "Matrices") == ["6", "6"]
    assert sum(float(text.rstrip("%")) for text in column(kinds, "Of the update")) == pytest.approx(100, abs=2)


def test_small_models_have_no_table_of_kinds():
    assert not any("place in a layer" in table.caption for table in structure_section({"a": structure()}).tables)


def test_bounds_are_ranges_and_unsure():
    rough = structure(exact_up_to=0)
    table = table_of(structure_section({"a": rough}), "moved most")
    assert all(cell.tone is None for row in table.rows for cell in row), "a sketch of all directions is exact"
    wide = torch.randn(800, 800, generator=torch.Generator().manual_seed(0))
    flat = update_structure({"w": torch.zeros(800, 800)}, {"w": wide}, exact_up_to=100)
    section = structure_section({"a": flat})
    cell = table_of(section, "moved most").rows[0][4]
    assert cell.tone == "unsure" and " to " in cell.text
    assert "bounds" in structure_headline({"a": flat}).certainty
    assert "opacity: 0.15" in section.figures[0].svg, "the range is shaded"


def test_notes_name_their_expert():
    text = " ".join(structure_section({"a": structure(), "idle": still()}).paragraphs)
    assert "a: no matrices: 1 of 3 tensors" in text and "idle: unchanged: 1 of 1 tensors" in text


def test_no_update_has_no_picture_and_no_number():
    section = structure_section({"idle": still()})
    assert section.figures == () and "undefined" in texts(section.tables[0])[0]
    assert "identical to the base" in structure_headline({"idle": still()}).sentence


def test_only_biases_moved_is_no_picture():
    base = {"w": torch.ones(3, 3), "b": torch.zeros(3)}
    section = structure_section({"a": update_structure(base, base | {"b": torch.ones(3)})})
    assert section.figures == () and len(section.tables) == 2


class TestCosts:
    def test_share_of_the_gain_decides_the_tone(self):
        table = table_of(structure_section({"a": structure()}, [report()]), "change of the loss")
        assert [row[-1].tone for row in table.rows] == ["bad", "good"]
        assert column(table, "Of the gain") == ["40%", "6%"] and column(table, "Kept") == ["rank 1", "25% of the rows"]
        assert table.caption == "news, news + mail at 0.5: change of the loss from 0.25; gain 1 [0.98, 1.02]"

    def test_a_merge_without_a_gain_has_no_share(self):
        table = table_of(structure_section({"a": structure()}, [report(gain=-0.1)]), "change of the loss")
        assert column(table, "Of the gain") == ["no gain", "no gain"]
        assert {row[-1].tone for row in table.rows} == {None}

    def test_doubtful_predictions_are_counted_and_marked(self):
        section = structure_section({"a": structure()}, [report()])
        assert any("1 of 2 predictions are marked" in text for text in section.paragraphs)
        assert "tainted" in column(table_of(section, "change of the loss"), "Predicted")[0]

    def test_what_was_not_asked_for_is_none(self):
        bare = [dataclasses.replace(cost, measured=None, random=None) for cost in report().costs]
        table = table_of(structure_section({"a": structure()}, [report(costs=tuple(bare))]), "change of the loss")
        assert column(table, "Measured") == ["none", "none"] and column(table, "Of the gain") == ["30%", "5%"]


class TestHeadline:
    def test_one_update(self):
        each = structure()
        headline = structure_headline({"a": each})
        assert headline.verdict is None and "rounding in float64" in headline.certainty
        assert f"of 1 update needs rank {each.rank_for(0.9).value:g}; rank 1 keeps" in headline.sentence

    def test_several_name_the_least_and_the_most(self):
        flat = torch.randn(20, 20, generator=torch.Generator().manual_seed(0))
        other = update_structure({"w": torch.zeros(20, 20)}, {"w": flat})
        words = structure_headline({"sharp": structure(), "flat": other}).sentence
        assert f"(sharp) to {other.rank_for(0.9).value:g} (flat)" in words


class TestFigures:
    def test_lines_are_named_apart_and_the_null_is_dashed(self):
        ranks, rows = structure_section({"a": structure(layers=3)}).figures
        for figure in (ranks, rows):
            assert ">0.in<" in figure.svg and ">2.out<" in figure.svg and ">random<" in figure.svg
            assert "stroke-dasharray" in figure.svg and "Drawn: the 6 of 6 matrices of a" in figure.caption
        assert "of a random matrix" in ranks.alt and "of random rows" in rows.alt

    def test_more_experts_than_lines_are_counted(self):
        section = structure_section({f"expert {i}": structure(seed=i) for i in range(9)})
        assert "moved most of 6 of 9 experts" in section.figures[0].caption
        assert ">expert 5<" in section.figures[0].svg and ">expert 6<" not in section.figures[0].svg

    def test_the_curve_is_what_is_kept(self):
        axes = Recorder()
        each = structure()
        structure_section({"a": each}).figures[0].paint(axes)
        matrix = each.matrices[0]
        ranks, kept = axes.lines[0]
        assert list(ranks) == [1, 2, 3, 4, 5, 6]
        assert kept == pytest.approx([matrix.spectrum.kept(int(rank)).value for rank in ranks])

    @pytest.mark.parametrize(
        ("names", "short"),
        [
            (["m.0.a.weight", "m.1.a.weight"], ["0", "1"]),
            (["m.0.a.weight", "m.0.b.bias"], ["a.weight", "b.bias"]),
            (["w"], ["w"]),
            (["w", "v"], ["w", "v"]),
            (["a.b", "a.b.c"], ["a.b", "a.b.c"]),
        ],
    )
    def test_names_lose_what_all_have(self, names, short):
        assert module._distinct(names) == short


class Recorder:
    """Axes that remember the lines drawn on them."""

    def __init__(self):
        self.lines = []

    def plot(self, x, y, **style):
        self.lines.append((x, y))

    def __getattr__(self, name):
        return lambda *args, **options: None


def test_nothing_undefined_is_written_as_zero():
    table = structure_section({"idle": still()}).tables[0]
    assert "0%" not in texts(table)[0] and math.isnan(still().held(0.1))
