"""A report as one HTML file that needs nothing else."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import count
from typing import Any

from diagnostics.report.document import Document, Figure, Table
from diagnostics.report.drawing import SVG
from diagnostics.report.extras import require
from diagnostics.report.wording import clean

__all__ = ["render_html"]

# Figures wider than this scroll on a narrow screen, where shrinking would make their text unreadable.
_WIDE = 460
# Where there is room figures are shown a little larger than they were drawn for a narrow screen.
_SCALE = 1.2
# Texts up to the first length stay on a line; from the second on, or with such a word in them, they get room to wrap.
_BRIEF, _LONG, _WORD = 18, 32, 24
# Pixels that a table has, that a letter takes, and that are between columns: on the narrowest screen, and on A4.
_PHONE, _PAPER = (328, 7.5, 20), (688, 5.6, 12)
# Letters that a long text gets at least.
_LEAST = 27
# From so many sections on the table of contents stays in sight where there is room beside the page.
_MANY = 5


def render_html(document: Document) -> str:
    """Return a report as a page without scripts or links to elsewhere, with every text escaped.

    Args:
        document: The report.

    Returns:
        The page.

    Raises:
        InputError: If jinja2 or matplotlib is not installed.
    """
    jinja = require("jinja2")
    environment = jinja.Environment(
        loader=jinja.PackageLoader("diagnostics.report"),
        autoescape=True,
        undefined=jinja.StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    markup = require("markupsafe").Markup
    numbers = count(1)
    environment.filters |= {
        "shape": _shape,
        "stacking": _stacking,
        "lines": lambda text: markup("\n").join(_lines(text)),
    }
    environment.globals["drawing"] = lambda figure: markup(_inline(figure, next(numbers)))
    indexed = len(document.sections) >= _MANY
    page: str = environment.get_template("page.html").render(document=document, indexed=indexed)
    return page


def _printable(value: Any) -> Any:
    """Plain strings without characters that do not print; markup is left alone."""
    return clean(value) if type(value) is str else value


def _shape(text: str) -> str:
    """The class that says how a cell's text may wrap."""
    if len(text) > _LONG or _word(text) > _WORD:
        return "long"
    return "brief" if len(text) <= _BRIEF else "plain"


def _stacking(table: Table) -> str:
    """Where each row's cells are shown below each other, because side by side they would not fit, as classes."""
    least = []
    for i, (name, numeric) in enumerate(zip(table.columns, table.numeric, strict=True)):
        least.append(max([_room(name, False), *(_room(row[i].text, numeric) for row in table.rows)]))
    places = {"stacked": _PHONE, "broad": _PAPER}
    return " ".join(
        name for name, (width, letter, gap) in places.items() if letter * sum(least) + gap * (len(least) - 1) > width
    )


def _room(text: str, numeric: bool) -> int:
    """Letters that a cell needs side by side with others."""
    if numeric or _shape(text) == "brief":
        return len(text)
    return max(_word(text), _LEAST if _shape(text) == "long" else 0)


def _word(text: str) -> int:
    """Letters of the longest word."""
    return max(map(len, text.split()), default=0)


def _lines(text: str) -> list[str]:
    """The lines of a text without characters that do not print."""
    return [clean(line) for line in text.expandtabs(4).splitlines()]


def _inline(figure: Figure, number: int) -> str:
    """A figure's SVG as an image with a name, its ids set apart from those of the page's other figures."""
    ET.register_namespace("", SVG)
    root = ET.fromstring(figure.svg)
    for element in root.iter():
        for key, value in element.attrib.items():
            element.set(key, _renumbered(key, value, f"f{number}-"))
    root.set("width", f"{figure.width * _SCALE:g}")
    root.set("height", f"{figure.height * _SCALE:g}")
    root.set("role", "img")
    root.set("aria-label", clean(figure.alt))
    root.set("class", "wide" if figure.width > _WIDE else "narrow")
    return ET.tostring(root, encoding="unicode")


def _renumbered(key: str, value: str, prefix: str) -> str:
    """An attribute with the prefix on the id it gives or refers to."""
    if key == "id":
        return prefix + value
    if key == "href":
        return value.replace("#", f"#{prefix}", 1)
    return re.sub(r"url\(#", f"url(#{prefix}", value)
