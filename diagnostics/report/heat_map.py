"""Cosines between vectors as shaded squares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from diagnostics.report.document import Figure
from diagnostics.report.drawing import BLUE, INK, VERMILLION
from diagnostics.report.wording import short

__all__ = ["cosine_heat_map"]

# Cells up to this count are wide enough for their number.
_NUMBERED = 10
_STRONGEST = 0.6


def cosine_heat_map(names: Sequence[str], cosine: Sequence[Sequence[float]], alt: str, title: str) -> Figure:
    """Draw cosines: shade for size, colour and sign of the number for direction.

    Args:
        names: The vectors.
        cosine: Their cosines, a row for each; NaN where one has no direction.
        alt: The picture in words.
        title: First sentence of the caption; how to read the picture follows.

    Returns:
        The figure.
    """
    count = len(names)
    side = min(54.0, max(12.0, 330.0 / count))
    labels = [short(name, 14) for name in names]

    def paint(ax: Any) -> None:
        for i, row in enumerate(cosine):
            for j, value in enumerate(row):
                _square(ax, j, i, value, side if count <= _NUMBERED else 0.0)
        size = min(10.5, 0.85 * side)
        ax.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), aspect="equal")
        ax.set_xticks(range(count), labels, rotation=40, ha="left", rotation_mode="anchor", fontsize=size)
        ax.set_yticks(range(count), labels, fontsize=size)
        ax.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        ax.spines[:].set_visible(False)

    room = min(110.0, 16.0 + 6.5 * max(map(len, labels)))
    caption = (
        f"{title} Blue is positive and orange negative, and the shade grows with the square root of the size, from 0 "
        "to 1. A dash has no direction."
    )
    return Figure(paint, room + count * side + 20, 0.8 * room + count * side, alt, caption)


def _square(ax: Any, x: int, y: int, value: float, side: float) -> None:
    """One cell; its number too where there is room."""
    known = not math.isnan(value)
    # Ink on the strongest shade must stay readable, so no cell is fully opaque.
    shade = _STRONGEST * math.sqrt(abs(value)) if known else 0.0
    colour = VERMILLION if known and value < 0 else BLUE
    ax.fill(
        [x - 0.47, x + 0.47, x + 0.47, x - 0.47],
        [y - 0.47, y - 0.47, y + 0.47, y + 0.47],
        color=colour,
        alpha=shade,
        lw=0,
    )
    if side:
        text = f"{value:.2f}" if known else "–"
        ax.text(x, y, text, ha="center", va="center", fontsize=min(10.5, 0.32 * side), color=INK)
