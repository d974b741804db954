"""A report in a terminal."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.panel import Panel
from rich.table import Table as Grid
from rich.text import Text

from diagnostics.report.document import Cell, Document, Headline, Section, Table
from diagnostics.report.wording import clean, plural
from diagnostics.results import Verdict

__all__ = ["render_text"]

_TONES = {None: "", "good": "green", "bad": "red", "unsure": "yellow"}
_VERDICTS = {Verdict.SUPPORTED: "green", Verdict.REFUTED: "red", Verdict.UNDECIDED: "yellow"}
# Words longer than this may be broken over lines.
_WORD = 20
# Rows of a table that are printed where a page shows them all.
_ROWS = 12
# Between columns: a space of padding and one that the box draws.
_GAP = 2


def render_text(document: Document, console: Console, *, page: str | Path | None = None) -> None:
    """Print a report; tables too wide for the console are printed as records, so that no value is lost.

    Args:
        document: The report.
        console: Where to.
        page: The HTML file that shows the figures and the ends of long tables, if one was written.
    """
    console.print(Text(clean(document.title), style="bold"))
    console.print(_banner(document.headline))
    for section in document.sections:
        _section(section, console, page)
    figures = sum(len(section.figures) for section in document.sections)
    console.print()
    if page is not None and figures:
        console.print(Text(f"{plural(figures, 'figure')} in {clean(str(page))}"))
    for line in document.footer:
        console.print(Text(clean(line), style="dim"))


def _banner(headline: Headline) -> Panel:
    """The answer in a frame."""
    body = Text()
    style = ""
    if headline.verdict is not None:
        style = _VERDICTS[headline.verdict]
        body.append(f"{headline.verdict.upper()}  ", style=f"bold {style}")
    body.append(clean(headline.sentence), style="bold")
    body.append(f"\n{clean(headline.certainty)}", style="dim")
    return Panel(body, border_style=style or "none", padding=(0, 1))


def _section(section: Section, console: Console, page: str | Path | None) -> None:
    """Print a section without its figures."""
    console.print()
    console.print(Text(clean(section.title), style="bold underline"))
    for paragraph in section.paragraphs:
        console.print(Text(clean(paragraph)))
    for full in section.tables:
        table = full if page is None else replace(full, rows=full.rows[:_ROWS])
        console.print()
        console.print(Text(clean(table.caption), style="italic"))
        widths = _widths(table, console.width)
        if widths is not None:
            console.print(_grid(table, widths))
        else:
            _records(table, console)
        if len(table.rows) < len(full.rows):
            console.print(Text(f"{plural(len(full.rows) - len(table.rows), 'more row')} in {clean(str(page))}", "dim"))
    for listing in section.listings:
        console.print()
        console.print(Text(clean(listing.caption), style="italic"))
        for line in listing.text.expandtabs(4).splitlines():
            console.print(Text(f"  {clean(line)}"), soft_wrap=True)


def _widths(table: Table, width: int) -> list[int] | None:
    """Column widths that fit without breaking short words, or ``None`` where there are none."""
    texts = [[name, *(row[i].text for row in table.rows)] for i, name in enumerate(table.columns)]
    natural = [max(cell_len(clean(text)) for text in column) for column in texts]
    longest = [max((cell_len(word) for text in column for word in clean(text).split()), default=1) for column in texts]
    least = [min(word, _WORD) for word in longest]
    # What names a row is not broken where there is room: "news, mail" is one thing.
    named = [max(least[0], natural[0]) if natural[0] <= _WORD else least[0], *least[1:]]
    least = named if sum(named) + _GAP * (len(texts) - 1) <= width else least
    spare = width - sum(least) - _GAP * (len(texts) - 1)
    if spare < 0:
        return None
    wanted = [full - need for full, need in zip(natural, least, strict=True)]
    share = min(1.0, spare / max(1, sum(wanted)))
    return [need + int(share * want) for need, want in zip(least, wanted, strict=True)]


def _grid(table: Table, widths: list[int]) -> Grid:
    """A table with its columns side by side."""
    grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
    for name, width, numeric in zip(table.columns, widths, table.numeric, strict=True):
        grid.add_column(Text(clean(name)), width=width, justify="right" if numeric else "left", overflow="fold")
    for row in table.rows:
        grid.add_row(*(_text(cell, width=width) for cell, width in zip(row, widths, strict=True)))
    return grid


def _parted(text: str, width: int) -> str:
    """A text whose words too long for their column are broken behind a dot or the like, as names of tensors can be."""
    lines = []
    for word in text.split(" "):
        pieces = re.findall(r"[^./:-]*[./:-]?", word) if cell_len(word) > width else [word]
        line = ""
        for piece in pieces:
            if line and cell_len(line + piece) > width:
                lines.append(f"{line}\n")
                line = ""
            line += piece
        lines.append(f"{line} ")
    return "".join(lines).rstrip()


def _records(table: Table, console: Console) -> None:
    """A table with its columns below each other."""
    for row in table.rows:
        console.print(_text(row[0], "bold"))
        for name, cell in zip(table.columns[1:], row[1:], strict=True):
            line = Text(f"  {clean(name)}: ")
            line.append_text(_text(cell))
            console.print(line)


def _text(cell: Cell, style: str = "", width: int | None = None) -> Text:
    """A cell in its colour, its words no wider than its column where they can be parted."""
    shown = clean(cell.text) if width is None else _parted(clean(cell.text), width)
    return Text(shown, style=f"{style} {_TONES[cell.tone]}".strip())
