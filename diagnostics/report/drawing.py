"""Drawings as SVG that takes its colours and its font from the page around it."""

from __future__ import annotations

import io
import math
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

from diagnostics.report.extras import require

__all__ = ["BLUE", "GREEN", "INK", "PURPLE", "SVG", "VERMILLION", "log_ticks", "series_style", "to_svg"]

SVG = "http://www.w3.org/2000/svg"
# A colour nothing else uses: it stands for the page's text colour, whichever mode the page is in.
INK = "#010203"
# Okabe and Ito's palette, told apart under every common colour blindness.
BLUE, VERMILLION, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
# A page may redefine the palette for a dark background; the colour itself is the fallback.
_COLOURS = {
    INK: "currentColor",
    BLUE: f"var(--blue, {BLUE})",
    VERMILLION: f"var(--vermillion, {VERMILLION})",
    GREEN: f"var(--green, {GREEN})",
    PURPLE: f"var(--purple, {PURPLE})",
}
# Five colours and nine shapes have no common factor, so 45 series differ, each from its neighbours in both.
_SERIES_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, INK)
_SERIES_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">")

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "diagnostics",
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "font.size": 11,
    "axes.labelsize": 11,
    "legend.fontsize": 10.5,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "savefig.facecolor": "none",
    # A user's own settings for saved files would move or crop the drawing.
    "savefig.bbox": None,
    "savefig.transparent": True,
}


def to_svg(paint: Callable[[Any], None], width: float, height: float) -> str:
    """Draw on fresh axes and return SVG text, the same for the same drawing.

    Args:
        paint: Draws on a matplotlib axes.
        width: Width in pixels.
        height: Height in pixels.

    Returns:
        An ``<svg>`` element whose text is text, whose ink is the page's text colour and whose background is the
        page's.
    """
    matplotlib = require("matplotlib")
    figures = require("matplotlib.figure")
    buffer = io.BytesIO()
    # Defaults first: a user's own matplotlibrc must not decide how a report looks.
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        # A reader's font has the glyphs that the font used here for measuring widths lacks.
        warnings.filterwarnings("ignore", message="Glyph")
        figure = figures.Figure(figsize=(width / 72, height / 72), layout="constrained")
        paint(figure.add_subplot())
        figure.savefig(buffer, format="svg")
    return _tidy(buffer.getvalue(), width, height)


def series_style(index: int) -> dict[str, Any]:
    """Return colour and marker of the index-th series, so that colour is never the only difference.

    Args:
        index: Position of the series.

    Returns:
        Keywords for ``Axes.plot``.

    Example:
        >>> series_style(0)["marker"], series_style(1)["marker"]
        ('o', 's')
    """
    return {
        "color": _SERIES_COLOURS[index % len(_SERIES_COLOURS)],
        "marker": _SERIES_MARKERS[index % len(_SERIES_MARKERS)],
    }


def log_ticks(low: float, high: float) -> list[float]:
    """Return tick positions on a logarithmic axis: decades, thinned or split to about three to eight.

    Args:
        low: Smallest value shown, positive.
        high: Largest value shown.

    Returns:
        Positions within the range.

    Example:
        >>> log_ticks(0.05, 300.0)
        [0.1, 1.0, 10.0, 100.0]
        >>> log_ticks(1.5, 8.0)
        [2.0, 5.0]
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = max(1, (last - first) // 6)
    steps = (1.0, 2.0, 5.0) if last - first <= 2 else (1.0,)
    ticks = [float(f"{digit}e{power}") for power in range(first, last + 1, step) for digit in steps]
    return [tick for tick in ticks if low <= tick <= high]


def _tidy(raw: bytes, width: float, height: float) -> str:
    """Reduce matplotlib's SVG to shapes and text: no metadata, links, page-wide styles, fonts or fixed inks."""
    ET.register_namespace("", SVG)
    root = ET.fromstring(raw)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in {f"{{{SVG}}}metadata", f"{{{SVG}}}style"}:
                parent.remove(child)
    for element in root.iter():
        link = element.attrib.pop("{http://www.w3.org/1999/xlink}href", None)
        if link is not None:
            element.set("href", link)
        if "style" in element.attrib:
            element.set("style", _restyle(element.attrib["style"]))
    root.set("width", f"{width:g}")
    root.set("height", f"{height:g}")
    root.set("style", "stroke-linejoin: round")
    return ET.tostring(root, encoding="unicode")


def _restyle(style: str) -> str:
    """Swap fixed colours for the page's and leave the font family to the page."""
    style = re.sub(r"font-family:[^;]*;? ?", "", style)
    for fixed, live in _COLOURS.items():
        style = style.replace(fixed, live)
    return style
