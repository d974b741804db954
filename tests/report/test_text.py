"""The terminal shows every cell within the width it has, and no name can steer it."""

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from diagnostics.report.document import Document, Headline, Section, Table
from diagnostics.report.text import render_text

from . import samples

LONG = [f"{'very-long-' * 12}{i}" for i in range(4)]
CASES = {"plain": samples.NAMES, "hostile": samples.HOSTILE, "long": LONG}
WORDS = st.text("abcd0123-.%日", min_size=1, max_size=20)
CELLS = st.lists(WORDS, max_size=6).map(" ".join)


@st.composite
def tables(draw):
    count = draw(st.integers(1, 9))
    row = st.lists(CELLS, min_size=count, max_size=count)
    return Table.of(draw(CELLS), draw(row), draw(st.lists(row, min_size=1, max_size=4)))


def rendered(document: Document, width: int = 80, **options: str) -> str:
    stream = io.StringIO()
    render_text(document, Console(file=stream, width=width, color_system=None, legacy_windows=False), **options)
    return stream.getvalue()


def only(table: Table) -> Document:
    return Document("t", Headline(None, "s", "c"), (Section("x", (), (table,)),))


def without_space(text: str) -> str:
    return re.sub(r"\s", "", text)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("width", [80, 60, 120])
def test_lines_fit(case, width):
    lines = rendered(samples.document(CASES[case]), width).splitlines()
    wide = [line for line in lines if cell_len(line.rstrip()) > width]
    assert not wide, f"{len(wide)} lines are wider than {width}, the first: {wide[:1]}"


@settings(max_examples=40)
@given(tables())
def test_any_table_fits_and_keeps_its_short_words_whole(table):
    text = rendered(only(table))
    assert all(cell_len(line.rstrip()) <= 80 for line in text.splitlines())
    words = {word for row in table.rows for cell in row for word in cell.text.split() if cell_len(word) <= 20}
    missing = {word for word in words if word not in text}
    assert not missing, f"broken or lost: {missing}"


def test_columns_that_cannot_fit_become_records():
    table = Table.of("wide", [f"column-{i}" for i in range(12)], [[f"value-{i}" for i in range(12)]])
    assert "  column-11: value-11" in rendered(only(table)).splitlines()


def test_every_cell_is_printed_without_a_page():
    document = samples.document()
    text = rendered(document, width=400)
    cells = {cell.text for s in document.sections for table in s.tables for row in table.rows for cell in row}
    missing = sorted(cell for cell in cells if cell not in text)
    assert not missing, f"left out: {missing[:3]}"


def test_long_tables_end_with_what_the_page_has_more():
    table = Table.of("t", ["a", "b"], [[f"row {i}", str(i)] for i in range(30)])
    short = rendered(only(table), page="report.html")
    assert "18 more rows in report.html" in short and "row 12" not in short
    assert "row 29" in rendered(only(table))


def test_figures_are_mentioned_only_with_a_page():
    assert "figures in out.html" in rendered(samples.document(), page="out.html")
    assert "figure" not in rendered(samples.document()).lower()


def test_names_neither_steer_the_terminal_nor_are_read_as_markup():
    text = rendered(samples.document(samples.HOSTILE))
    assert "\x1b" not in text and "\x00" not in text
    flat = without_space(text)
    for name in (r"\x1b[31m\x00\x0a", "[bold]", "<script>alert('x')</script>"):
        assert without_space(name) in flat, f"{name} was swallowed"


def test_verdict_is_a_word():
    assert "REFUTED" in rendered(samples.document())


def test_undefined_is_a_word():
    text = rendered(samples.document())
    assert "undefined" in text and not re.search(r"\bnan\b", text)


def test_long_names_are_broken_behind_their_dots():
    names = [f"bert.encoder.layer.{i}.attention.self.query_and_key_together.weight" for i in range(3)]
    cells = ["some words that take room", "and others that take as much"]
    text = rendered(only(Table.of("t", ["Tensor", "One", "Two"], [[name, *cells] for name in names])))
    parts = [line.split()[0] for line in text.splitlines() if re.match(r"[a-z_0-9.]+\.|weight", line)]
    assert "".join(parts) == "".join(names), "parts of the names, in order"
    assert len(parts) > len(names) and all(part.endswith((".", "weight")) for part in parts), parts


def test_what_names_a_row_stays_on_a_line_where_there_is_room():
    row = ["news, mail", *["a few words that wrap"] * 4]
    text = rendered(only(Table.of("t", ["Pair", "One", "Two", "Three", "Four"], [row])))
    assert "news, mail" in text
