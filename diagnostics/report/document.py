"""A report as plain data: what is said, before it is known whether a page or a terminal says it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from diagnostics.errors import InputError
from diagnostics.report.drawing import to_svg
from diagnostics.results import Verdict

__all__ = ["Cell", "Document", "Figure", "Headline", "Listing", "Row", "Section", "Table", "Tone"]

Tone = Literal["good", "bad", "unsure"]

# What a right-aligned column holds: numbers, with or without an interval or a unit behind them.
_NUMERIC = re.compile(r"\[?[-+]?\d|(undefined|unknown|none|infinite|not part of it)?$")


@dataclass(frozen=True)
class Cell:
    """A table cell; the tone colours what the text already says in words."""

    text: str
    tone: Tone | None = None


# A row as builders write it: text where no tone is needed.
Row = list[str | Cell]


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str

    @classmethod
    def of(cls, caption: str, columns: Iterable[str], rows: Iterable[Row]) -> Table:
        """Build a table out of strings and cells.

        Args:
            caption: What the table shows.
            columns: Headers.
            rows: As many entries each as there are headers.

        Returns:
            The table.

        Raises:
            InputError: If a row is longer or shorter than the headers.

        Example:
            >>> Table.of("Norms", ["expert", "norm"], [["a", "1.5"]]).numeric
            (False, True)
        """
        names = tuple(columns)
        cells = tuple(tuple(item if isinstance(item, Cell) else Cell(item) for item in row) for row in rows)
        wrong = [len(row) for row in cells if len(row) != len(names)]
        if wrong:
            raise InputError(f"table {caption!r} has {len(names)} columns but a row with {wrong[0]} cells")
        return cls(names, cells, caption)

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Whether each column holds numbers, to be set flush right; the first never does."""
        columns = range(len(self.columns))
        return tuple(i > 0 and all(_NUMERIC.match(row[i].text) for row in self.rows) for i in columns)


@dataclass(frozen=True)
class Figure:
    """A drawing; nothing is drawn, and no plotting library needed, before ``svg`` is asked for.

    Attributes:
        paint: Draws on a matplotlib axes.
        width: Natural width in pixels.
        height: Natural height in pixels.
        alt: What a reader who cannot see it is told.
        caption: What stands below it.
    """

    paint: Callable[[Any], None]
    width: float
    height: float
    alt: str
    caption: str

    @property
    def svg(self) -> str:
        """The drawing as SVG text, the same every time."""
        return to_svg(self.paint, self.width, self.height)


@dataclass(frozen=True)
class Listing:
    """A text whose lines are kept as they are: a command, or what a file holds."""

    text: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of a report under its own heading."""

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    listings: tuple[Listing, ...] = ()


@dataclass(frozen=True)
class Headline:
    """The answer in one sentence, and how sure it is; without a verdict it is a finding, not a judgement."""

    verdict: Verdict | None
    sentence: str
    certainty: str


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    headline: Headline
    sections: tuple[Section, ...]
    footer: tuple[str, ...] = ()
