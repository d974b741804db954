"""Bars with intervals around a zero line: what the gradient-alignment error is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from diagnostics.report.document import Figure
from diagnostics.report.drawing import BLUE, GREEN, INK, PURPLE, VERMILLION
from diagnostics.report.wording import number, short
from diagnostics.results import Estimate
from diagnostics.verdicts.causes import Cause

__all__ = ["COLOURS", "Bar", "bars_figure"]

COLOURS = {Cause.DATA: BLUE, Cause.PRIOR: VERMILLION, Cause.INTERACTION: GREEN, Cause.SEAM: PURPLE}

_WIDTH = 370.0
_ROW = 24.0


class Bar(NamedTuple):
    """One row: a part of something is drawn thinner and paler than the whole above it."""

    name: str
    value: Estimate
    colour: str
    part: bool = False


def bars_figure(bars: Sequence[Bar], form: Callable[[float], str], label: str, alt: str, caption: str) -> Figure:
    """Draw a horizontal bar for each value.

    Args:
        bars: The rows, from the top.
        form: How values are written on the axis.
        label: What the axis shows.
        alt: The picture in words.
        caption: What stands below it.

    Returns:
        The figure.
    """

    def paint(ax: Any) -> None:
        for y, bar in enumerate(bars):
            _bar(ax, y, bar)
        ax.axvline(0, color=INK, lw=1.0)
        ax.set(ylim=(len(bars) - 0.4, -0.6), xlabel=label)
        ax.set_yticks(range(len(bars)), [short(bar.name, 26) for bar in bars])
        ax.locator_params(axis="x", nbins=4)
        ax.xaxis.set_major_formatter(lambda value, _: form(value))
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x")

    if any(not bar.value.status.trusted and math.isfinite(bar.value.value) for bar in bars):
        caption += " Hollow bars have no interval."
    return Figure(paint, _WIDTH, _ROW * len(bars) + 56, alt, caption)


def _bar(ax: Any, y: int, bar: Bar) -> None:
    """Draw one row; a value that is not a number is said, not skipped."""
    value = bar.value
    if not math.isfinite(value.value):
        ax.text(0.02, y, number(value.value), transform=ax.get_yaxis_transform(), va="center", style="italic")
        return
    height, shade = (0.34, 0.45) if bar.part else (0.62, 0.75)
    # A bar is hollow by its own colour: transparency would also dim the outline.
    look = {"color": bar.colour, "alpha": shade} if value.status.trusted else {"ec": bar.colour, "fc": "none"}
    ax.barh(y, value.value, height=height, lw=1.2 if "ec" in look else 0, **look)
    if value.status.trusted:
        ax.plot([value.lower, value.upper], [y, y], color=INK, lw=1.3, solid_capstyle="butt")
        ax.plot([value.lower, value.upper], [y, y], ls="", marker="|", ms=6, mew=1.3, color=INK)
