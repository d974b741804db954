"""Pictures of the structure of updates: what ranks keep, and what rows hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from diagnostics.measures.singular_values import random_kept
from diagnostics.measures.update_structure import TensorStructure
from diagnostics.report.document import Figure
from diagnostics.report.drawing import INK, log_ticks, series_style
from diagnostics.report.wording import number, percent, short

__all__ = ["rank_figure", "row_figure"]

_WIDTH, _HEIGHT = 680.0, 320.0
_NULL = "random"


def rank_figure(matrices: Mapping[str, TensorStructure], about: str) -> Figure:
    """Draw the share that ranks keep against the rank, for some matrices, and what random ones would keep.

    Args:
        matrices: By label, each with a spectrum.
        about: Which matrices these are, a sentence for the caption.

    Returns:
        The figure.
    """
    spectra = {name: each.spectrum for name, each in matrices.items() if each.spectrum is not None}
    widest = max(spectrum.side for spectrum in spectra.values())

    def paint(ax: Any) -> None:
        for index, (name, spectrum) in enumerate(spectra.items()):
            ranks = _spread(spectrum.side)
            lower, upper = (bound[ranks] for bound in spectrum.bounds)
            style = series_style(index)
            ax.plot(ranks, lower, label=short(name, 30), markersize=4, lw=1.4, markevery=0.12, **style)
            if not spectrum.complete:
                ax.fill_between(ranks, lower, upper, color=style["color"], alpha=0.15, lw=0)
        for position, shape in enumerate(dict.fromkeys(spectrum.shape for spectrum in spectra.values())):
            ranks = _spread(min(shape))
            null = [random_kept(shape, int(rank)) for rank in ranks]
            ax.plot(ranks, null, color=INK, lw=1, ls=(0, (4, 3)), label=_NULL if position == 0 else None)
        ax.axhline(0.9, color=INK, lw=0.6, alpha=0.4)
        ax.set_xscale("log")
        ax.set_xticks(ticks := log_ticks(1, widest), [number(tick) for tick in ticks])
        ax.minorticks_off()
        ax.set(xlabel="rank", ylabel="share of ‖ΔW‖² kept", ylim=(0, 1.02), xlim=(0.95, widest * 1.05))
        ax.grid(visible=True)
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)

    first, values = next(iter(spectra.items()))
    alt = (
        f"Lines that rise with the rank, for {len(spectra)} matrices. Rank 1 of {first} keeps "
        f"{percent(values.kept(1).value)}, of a random matrix {percent(random_kept(values.shape, 1))}."
    )
    caption = (
        f"Share of the squared length that the best approximation of each rank keeps. {about} Dashed: matrices of "
        "independent entries of the same shapes. The thin line is 90%."
    )
    return Figure(paint, _WIDTH, _HEIGHT, alt, caption)


def row_figure(matrices: Mapping[str, TensorStructure], about: str) -> Figure:
    """Draw the share of the squared length that the largest rows hold against their share of all rows.

    Args:
        matrices: By label, each with rows.
        about: Which matrices these are, a sentence for the caption.

    Returns:
        The figure.
    """
    profiles = {name: each.rows for name, each in matrices.items() if each.rows is not None}

    def paint(ax: Any) -> None:
        for index, (name, rows) in enumerate(profiles.items()):
            held = np.append(0.0, rows.squares.cumsum(0).numpy() / rows.total)
            share = np.linspace(0, 1, len(held))
            ax.plot(share, held, label=short(name, 30), markersize=4, lw=1.4, markevery=0.12, **series_style(index))
        # Rows of most matrices are long, so that their nulls lie on top of each other: the shortest bends most.
        bent = min(profiles.values(), key=lambda rows: rows.columns)
        grid = np.linspace(0.001, 0.999, 200)
        ax.plot(grid, [bent.null_held(float(x)) for x in grid], color=INK, lw=1, ls=(0, (4, 3)), label=_NULL)
        ax.set(xlabel="share of the rows, largest first", ylabel="share of ‖ΔW‖² held", xlim=(0, 1), ylim=(0, 1.02))
        ax.grid(visible=True)
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)

    first, rows = next(iter(profiles.items()))
    alt = (
        f"Curves from 0 to 1 for {len(profiles)} matrices. A tenth of the rows of {first} holds "
        f"{percent(rows.held(0.1))}, of random rows {percent(rows.null_held(0.1))}."
    )
    caption = (
        "Share of the squared length in the rows of largest norm: the further above the dashed line, the fewer rows "
        f"carry the update. {about} Dashed: rows of independent normal entries."
    )
    return Figure(paint, _WIDTH, _HEIGHT, alt, caption)


def _spread(side: int) -> np.ndarray:
    """Ranks from 1 to the largest: all small ones, and then some evenly spread on a logarithmic axis."""
    small = np.arange(1, min(side, 20) + 1)
    return np.unique(np.concatenate([small, np.geomspace(1, side, 100).round().astype(int)]))
