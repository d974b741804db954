"""The chain from a measured gap to the paper's bound on a logarithmic axis, with a place for values it cannot hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from diagnostics.report.document import Figure
from diagnostics.report.drawing import INK, log_ticks, series_style
from diagnostics.report.wording import listing, number, short
from diagnostics.theory.bound_report import BoundReport

__all__ = ["LogAxis", "chain_figure", "relation", "rungs"]

_CONSTANT = "gap of a constant prediction (2.11)"
_WIDTH = 380.0
# Numbers below this are zero for every purpose here, and their ratios would overflow.
_LEAST = 1e-100


@dataclass(frozen=True)
class LogAxis:
    """A logarithmic axis with a lane to its left for values that have no logarithm.

    Attributes:
        low: Smallest positive value.
        high: Largest.
        lane: Where values at or below zero are drawn; ``None`` where there are none.
    """

    low: float
    high: float
    lane: float | None

    @classmethod
    def of(cls, values: list[float]) -> LogAxis:
        """Fit an axis to values.

        Args:
            values: Finite values of any sign.

        Returns:
            The axis.

        Example:
            >>> LogAxis.of([1.0, 100.0]).lane is None, LogAxis.of([-1.0, 1.0, 100.0]).lane < 1.0
            (True, True)
        """
        positive = [value for value in values if value > _LEAST] or [1.0]
        low, high = min(positive), max(positive)
        plain = cls(low, high, None)
        return replace(plain, lane=low / max(3.0, plain.share(0.12))) if any(v <= _LEAST for v in values) else plain

    def place(self, value: float) -> float:
        """Return where to draw a value.

        Args:
            value: The value.

        Returns:
            A position on the axis.
        """
        return value if value > _LEAST or self.lane is None else self.lane

    def share(self, part: float) -> float:
        """Return the factor that spans a part of the axis.

        Args:
            part: The part, 1 for all of it.

        Returns:
            The factor.

        Example:
            >>> round(LogAxis(1.0, 100.0, None).share(0.5), 6)
            10.0
        """
        return float(10.0 ** (part * (math.log10(self.high) - math.log10(self.low))))

    def dress(self, ax: Any) -> None:
        """Set scale, limits and ticks, the lane's among them.

        Args:
            ax: The axes.
        """
        margin = max(1.4, self.share(0.04))
        left = self.low / margin if self.lane is None else self.lane / margin
        ax.set_xscale("log")
        ax.set_xlim(left, self.high * margin)
        ticks = log_ticks(self.low / margin, self.high * margin)
        labels = [number(tick) for tick in ticks]
        if self.lane is not None:
            border = math.sqrt(self.lane * self.low)
            ax.axvline(border, color=INK, lw=0.8, ls=(0, (1, 2)))
            kept = [(tick, text) for tick, text in zip(ticks, labels, strict=True) if tick > border]
            ticks, labels = [self.lane, *(tick for tick, _ in kept)], ["≤ 0", *(text for _, text in kept)]
        ax.set_xticks(ticks, labels)
        ax.set_xticks([], minor=True)


@dataclass(frozen=True)
class _Point:
    """A value of one task on one row; hollow where as a bound it is vacuous."""

    series: int
    row: int
    value: float
    hollow: bool


def rungs(reports: Mapping[str, BoundReport]) -> list[str]:
    """Return the steps of several chains in order, each once.

    Args:
        reports: Reports by task.

    Returns:
        Labels, from the gap to the bound.
    """
    chains = sorted((report.chain for report in reports.values()), key=len, reverse=True)
    return list(dict.fromkeys(label for chain in chains for label, _ in chain))


def chain_figure(label: str, reports: Mapping[str, BoundReport]) -> Figure:
    """Draw the chains of one merge, a row for each step and a marker for each task.

    Args:
        label: The merge, or an empty string.
        reports: Reports by task.

    Returns:
        The figure.
    """
    rows = [*rungs(reports), _CONSTANT]
    points = _points(reports, rows)
    drawn = [point for point in points if math.isfinite(point.value)]
    axis = LogAxis.of([point.value for point in drawn])
    names = list(reports)

    def paint(ax: Any) -> None:
        axis.dress(ax)
        for y, text in enumerate(rows):
            ax.axhline(y, color=INK, alpha=0.12, lw=0.6, zorder=0)
            ax.text(0, y - 0.36, relation(text), transform=ax.get_yaxis_transform(), fontsize=10.5, va="center")
        for point in drawn:
            _mark(ax, axis, point, len(names))
        ax.set(ylim=(len(rows) - 0.5, -0.75), yticks=[], xlabel="loss gap, logarithmic")
        ax.spines["left"].set_visible(False)
        if len(names) > 1:
            handles = [ax.plot([], [], ls="", ms=6, **series_style(i))[0] for i in range(len(names))]
            # Matplotlib leaves out labels that begin with an underscore.
            labels = [f" {short(name, 24)}" for name in names]
            ax.figure.legend(handles, labels, loc="outside lower left", ncols=2, handletextpad=0.2)

    lost = [f"{names[p.series]}, {rows[p.row]}" for p in points if not math.isfinite(p.value)]
    height = 38.0 * len(rows) + 44 + (18.0 * math.ceil(len(names) / 2) if len(names) > 1 else 0)
    return Figure(paint, _WIDTH, height, _alt(label, reports), _caption(label, axis, lost))


def _points(reports: Mapping[str, BoundReport], rows: list[str]) -> list[_Point]:
    """Every step of every task, and the constant prediction where it is known."""
    points = []
    for series, report in enumerate(reports.values()):
        for step, value in report.chain:
            # The first row is the measured gap, which is no bound.
            row = rows.index(step)
            points.append(_Point(series, row, value, row > 0 and report.vacuous(value) is True))
        if report.constant_loss is not None:
            points.append(_Point(series, len(rows) - 1, report.constant_loss - report.reference_loss, False))
    return points


def _mark(ax: Any, axis: LogAxis, point: _Point, count: int) -> None:
    """Draw one value; tasks are set apart a little so that equal values stay visible."""
    shift = 0.24 * (point.series / (count - 1) - 0.5) if count > 1 else 0.0
    style = series_style(point.series)
    fill = "none" if point.hollow else style["color"]
    ax.plot(
        [axis.place(point.value)], [point.row + 0.1 + shift], ls="", ms=6, mfc=fill, mew=1.3, clip_on=False, **style
    )


def relation(label: str) -> str:
    """Return a step's label with the mathematical sign for the relation typed in ASCII.

    Args:
        label: The label.

    Returns:
        Its text.

    Example:
        >>> relation("<= spectral norm L at the expert (2.5)")
        '≤ spectral norm L at the expert (2.5)'
    """
    return label.replace("<=", "≤", 1).replace("~", "≈", 1)


def _caption(label: str, axis: LogAxis, lost: list[str]) -> str:
    """How to read the chart, and what is not on it."""
    parts = [f"From the measured gap (top) to the paper's bound{f', {label}' if label else ''}."]
    parts.append("Filled: says something; hollow: vacuous, at or above the gap of a constant prediction.")
    if axis.lane is not None:
        parts.append("A logarithmic axis has no place for values of zero or less: they stand left of the dotted line.")
    if lost:
        parts.append(f"Not drawn, because not finite: {listing(lost)}.")
    return " ".join(parts)


def _alt(label: str, reports: Mapping[str, BoundReport]) -> str:
    """The chart in words."""
    ends = [f"{name} from {number(r.gap)} to {number(r.chain[-1][1])}" for name, r in reports.items()]
    return f"Chain of bounds{f' of {label}' if label else ''} on a logarithmic axis: {listing(ends)}."
