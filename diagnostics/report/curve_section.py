"""Predicted and measured values along a line of coefficients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diagnostics.errors import InputError
from diagnostics.report.document import Cell, Figure, Row, Section, Table, Tone
from diagnostics.report.drawing import BLUE, INK, VERMILLION
from diagnostics.report.wording import interval, number, percent, plural, short
from diagnostics.results import Estimate

__all__ = ["curve_section"]

_SIZE = (360.0, 230.0)


def curve_section(
    title: str,
    grid: Sequence[float],
    predicted: Mapping[str, Sequence[Estimate]],
    measured: Mapping[str, Sequence[float]] | None = None,
    *,
    quantity: str = "retention",
    threshold: float | None = None,
) -> Section:
    """Show, task by task, what is predicted along a line of coefficients and what was measured.

    Args:
        title: The heading.
        grid: Coefficients.
        predicted: An estimate per coefficient, by task.
        measured: A value per coefficient, by task; NaN where none was measured.
        quantity: What is predicted; a retention is written as a percentage.
        threshold: What a task must reach.

    Returns:
        The section, a figure and a table for each task.

    Raises:
        InputError: If a task has not one value per coefficient, or was measured but not predicted.
    """
    known = measured or {}
    _check(grid, predicted, known)
    form = percent if quantity in {"retention", "score"} else number
    paths = {name: (list(values), list(known.get(name, []))) for name, values in predicted.items()}
    span = _span([*paths.values()], threshold)
    figures = tuple(_figure(name, grid, *path, quantity, form, threshold, span) for name, path in paths.items())
    tables = tuple(_table(name, grid, *path, quantity, form) for name, path in paths.items())
    return Section(title, (_reading(quantity, threshold, form, bool(known)),), tables, figures)


def _check(
    grid: Sequence[float], predicted: Mapping[str, Sequence[Estimate]], measured: Mapping[str, Sequence[float]]
) -> None:
    """Refuse what does not line up."""
    lengths = {f"predicted {name}": len(values) for name, values in predicted.items()}
    lengths |= {f"measured {name}": len(values) for name, values in measured.items()}
    wrong = [f"{name} has {count}" for name, count in lengths.items() if count != len(grid)]
    strangers = sorted(measured.keys() - predicted.keys())
    if wrong or strangers:
        raise InputError(
            f"expected one value for each of {len(grid)} coefficients, and predictions for every measured task; "
            f"found {'; '.join([*wrong, *(f'{name} measured but not predicted' for name in strangers)])}"
        )


def _reading(quantity: str, threshold: float | None, form: Callable[[float], str], measured: bool) -> str:
    """What the section is about."""
    text = f"Predicted {quantity} along a line of coefficients, task by task"
    text += ", and what was measured afterwards" if measured else ""
    return text + (f"; {form(threshold)} is asked for." if threshold is not None else ".")


def _caption(name: str, quantity: str, threshold: float | None, measured: bool, missing: int) -> str:
    """How to read a figure, and what is not on it."""
    parts = [f"{name}: predicted {quantity} (line) and its interval (band)"]
    parts += ["measured (diamond), hollow where the interval misses it"] if measured else []
    parts += ["what is asked for (dashed)"] if threshold is not None else []
    return f"{'; '.join(parts)}." + (f" Undefined at {plural(missing, 'coefficient')}." if missing else "")


def _span(paths: Sequence[tuple[list[Estimate], list[float]]], threshold: float | None) -> tuple[float, float]:
    """One vertical range for all tasks, so that they can be compared."""
    values = [] if threshold is None else [threshold]
    for predicted, measured in paths:
        values += [end for item in predicted for end in (item.value, item.lower, item.upper)] + measured
    values = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    margin = 0.05 * (max(values) - min(values)) or 0.5
    return min(values) - margin, max(values) + margin


def _held(value: Estimate, measured: float) -> bool:
    """Whether the interval holds the measured value."""
    return value.lower <= measured <= value.upper


def _figure(
    name: str,
    grid: Sequence[float],
    predicted: Sequence[Estimate],
    measured: Sequence[float],
    quantity: str,
    form: Callable[[float], str],
    threshold: float | None,
    span: tuple[float, float],
) -> Figure:
    """One task's curve."""

    def paint(ax: Any) -> None:
        if threshold is not None:
            ax.axhline(threshold, color=INK, lw=1.0, ls="--")
        lower, upper = [item.lower for item in predicted], [item.upper for item in predicted]
        ax.fill_between(grid, lower, upper, color=BLUE, alpha=0.2, lw=0)
        ax.plot(grid, [item.value for item in predicted], color=BLUE, lw=2)
        for x, item, value in zip(grid, predicted, measured, strict=False):
            fill = VERMILLION if _held(item, value) else "none"
            ax.plot([x], [value], marker="D", ms=5.5, mew=1.3, color=VERMILLION, mfc=fill)
        ax.set(ylim=span, xlabel="coefficient", ylabel=quantity)
        ax.set_title(short(name, 36), loc="left", fontsize=11, fontweight="bold")
        ax.locator_params(nbins=5)
        ax.yaxis.set_major_formatter(lambda value, _: form(value))
        ax.grid()

    ends = f"{form(predicted[0].value)} at {number(grid[0])} to {form(predicted[-1].value)} at {number(grid[-1])}"
    missing = sum(not math.isfinite(item.value) for item in predicted)
    caption = _caption(name, quantity, threshold, bool(measured), missing)
    return Figure(paint, *_SIZE, f"Predicted {quantity} of {name}, from {ends}.", caption)


def _table(
    name: str,
    grid: Sequence[float],
    predicted: Sequence[Estimate],
    measured: Sequence[float],
    quantity: str,
    form: Callable[[float], str],
) -> Table:
    """One task's values."""
    rows: list[Row] = []
    for i, (x, item) in enumerate(zip(grid, predicted, strict=True)):
        row: Row = [number(x), form(item.value), interval(item, form)]
        if measured:
            tone: Tone = "good" if _held(item, measured[i]) else "bad"
            row.append(Cell("none", None) if math.isnan(measured[i]) else Cell(form(measured[i]), tone))
        rows.append(row)
    columns = ["Coefficient", "Predicted", "Interval", *(["Measured"] if measured else [])]
    return Table.of(f"{name}: {quantity} by coefficient", columns, rows)
