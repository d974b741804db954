"""How much experts disturb each other: over coefficients, at the merges that people make, and to first order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from diagnostics.errors import InputError
from diagnostics.report.document import Cell, Figure, Headline, Row, Section, Table
from diagnostics.report.drawing import BLUE, INK
from diagnostics.report.wording import estimate, listing, number, percent, plural, short, status_notes
from diagnostics.results import Cost
from diagnostics.verdicts.disentanglement import THRESHOLD, DisentanglementError

__all__ = ["disentanglement_headline", "disentanglement_section", "error_map"]

_FIRST_ORDER = (
    "To first order at the base, a task's outputs move by J(x)τ along a vector τ. Relative values divide by the "
    "movement along the task's own vector; centred ones leave out what shifts all logits of an input alike."
)
# Where merges are usually made: the sum and the average of two task vectors.
_KEY = ((1.0, 1.0), (0.5, 0.5))
# Cells up to this count a side are wide enough for their number.
_NUMBERED = 11
# Pairs whose grid is drawn; the tables hold them all.
_DRAWN = 4
_STRONGEST = 0.6
_LARGEST = 2.0
_SCALE = (0.0, 0.1, 0.5, 1.0, 2.0)
_READING = (
    "ξ is the share of a task's inputs on which its expert's prediction changes when the other expert is added, summed "
    "over both tasks: 0 where neither disturbs the other, 2 where every prediction changes. Predictions are compared "
    "with each other, not with labels. "
)
_SOFT = {
    "jensen-shannon": "The soft form sums Jensen–Shannon divergences of the output distributions, base 2, and has the "
    "same range.",
    "kullback-leibler": "The soft form sums Kullback–Leibler divergences of the merge from the expert, in nats, and "
    "has no upper end.",
}
_LIMITS = (
    "A prediction that changes is not always a loss: experts of the same kind change each other's predictions and may "
    "still merge well. Intervals are for each number by itself; the largest of a grid was picked for being large."
)


def disentanglement_headline(errors: Sequence[DisentanglementError]) -> Headline:
    """Say in a sentence how much is disturbed.

    Args:
        errors: One for each pair, at least one.

    Returns:
        A headline without a verdict: a disturbed prediction may be a better one.

    Raises:
        InputError: If the pairs have no point of their grids in common.
    """
    point = _common_point(errors)
    found = [error.at(*point) for error in errors]
    where = f"at λ = ({number(point[0])}, {number(point[1])})"
    certainty = f"The interval holds the error over all inputs about {percent(errors[0].confidence)} of the time."
    if len(errors) == 1:
        parts = [
            f"{percent(float(grid.values.flatten()[errors[0].points.index(point)]))} of the predictions on {name}"
            for name, grid in errors[0].hard_by_task.items()
        ]
        sentence = f"{where.capitalize()} the merge changes {listing(parts)}: ξ = {estimate(found[0])} of at most 2."
        return Headline(None, sentence, certainty)
    ends = [f(range(len(found)), key=lambda k: found[k].value) for f in (min, max)]
    low, high = (f"{number(found[k].value)} ({_pair(errors[k])})" for k in ends)
    sentence = f"Over {plural(len(errors), 'pair')} of experts ξ {where} is between {low} and {high}, of at most 2."
    return Headline(None, sentence, certainty)


def disentanglement_section(errors: Sequence[DisentanglementError]) -> Section:
    """Show ξ of pairs of experts over a grid, at key points and to first order.

    Args:
        errors: One for each pair, at least one.

    Returns:
        The section.

    Raises:
        InputError: If three pairs or more have no point of their grids in common.
    """
    cost = sum((error.cost for error in errors), Cost())
    text = [_READING + _SOFT[errors[0].divergence], _LIMITS]
    text += [f"Cost: {cost}, each over one task's data, counted as if each pair were measured alone."]
    text += [f"Note: {_pair(error)}: {note}." for error in errors for note in error.notes]
    tables = [_point_table(errors), _grid_table(errors)]
    slopes = [(error, each) for error in errors for each in error.differential.values()]
    if slopes:
        tables.append(_slope_table(errors))
        text.append(_FIRST_ORDER)
        known = {f"the relative value on {each.task} along {each.other}": each.relative for _, each in slopes}
        text += [f"{note[0].upper()}{note[1:]}" for note in status_notes(known)]
    return Section("Disentanglement error", tuple(text), tuple(tables), _figures(errors))


def _pair(error: DisentanglementError) -> str:
    """The two names."""
    return f"{error.first}, {error.second}"


def _common_point(errors: Sequence[DisentanglementError]) -> tuple[float, float]:
    """Where all pairs were measured: at the sum of the vectors if possible, else at the average, else anywhere."""
    shared = [point for point in errors[0].points if all(point in error.points for error in errors)]
    if not shared:
        raise InputError("expected errors of all pairs at a common (λ1, λ2); found none. Measure them on one grid.")
    return next((point for point in _KEY if point in shared), max(shared, key=lambda each: abs(each[0] * each[1])))


def _point_table(errors: Sequence[DisentanglementError]) -> Table:
    """ξ and its parts at the usual merges and where it is largest."""
    rows: list[Row] = []
    for error in errors:
        points = [point for point in _KEY if point in error.points]
        points += [error.largest[0]] if error.largest[0] not in points else []
        for point in points:
            place = error.points.index(point)
            parts = [percent(float(grid.values.flatten()[place])) for grid in error.hard_by_task.values()]
            where = f"({number(point[0])}, {number(point[1])}){' largest' if point == error.largest[0] else ''}"
            stderr = number(float(error.stderr.flatten()[place]))
            ends = [estimate(error.at(*point, form)) for form in ("hard", "soft")]
            rows.append([_pair(error), where, ends[0], stderr, *parts, ends[1]])
    columns = ["Pair", "(λ1, λ2)", "ξ", "standard error", "first task changed", "second task changed", "ξ soft"]
    return Table.of("Disentanglement error at some merges", columns, rows)


def _grid_table(errors: Sequence[DisentanglementError]) -> Table:
    """What the whole grid says."""
    rows: list[Row] = []
    for error in errors:
        certain, possible = error.radius()
        sure = Cell(number(certain) if certain else "none", None if certain else "unsure")
        rows.append([_pair(error), estimate(error.mean), sure, number(possible) if possible else "none"])
    columns = ["Pair", "mean ξ", "certain", "possible"]
    return Table.of(
        f"Over the grid: mean, and the largest |λ| up to which ξ stays at most {number(THRESHOLD)} at all its points",
        columns,
        rows,
    )


def _slope_table(errors: Sequence[DisentanglementError]) -> Table:
    """The differential form."""
    kinds = ("raw", "relative", "centred", "relative_centred")
    rows: list[Row] = [
        [each.task, each.other, *(estimate(getattr(each, kind)) for kind in kinds)]
        for error in errors
        for each in error.differential.values()
    ]
    columns = ["Inputs of", "vector of", "E‖J(x)τ‖", "relative", "centred", "centred, relative"]
    return Table.of("Movement of a task's outputs along the other task's vector, at the base", columns, rows)


def _figures(errors: Sequence[DisentanglementError]) -> tuple[Figure, ...]:
    """Maps over the grid, and one over all pairs where there are several."""
    square = [error for error in errors if error.values.ndim == 2 and len(error.values) > 2]
    figures = [error_map(error) for error in square[:_DRAWN]]
    return tuple(figures if len(errors) < 3 else [_pair_map(errors), *figures])


def error_map(error: DisentanglementError) -> Figure:
    """Draw ξ over a square grid.

    Args:
        error: The error, measured on a grid of numbers.

    Returns:
        The figure: λ1 to the right, λ2 upwards, a frame around (1, 1).
    """
    count = len(error.values)
    axis = [error.points[k][1] for k in range(count)]
    every = 1 if count <= _NUMBERED else math.ceil(count / _NUMBERED)
    ticks = {k: number(value) for k, value in enumerate(axis) if k % every == 0}
    side = min(46.0, max(14.0, 420.0 / count))
    cells = {(i, j): float(error.values[i, j]) for i in range(count) for j in range(count)}

    def paint(ax: Any) -> None:
        _cells(ax, cells, side, count)
        if 1.0 in axis:
            _frame(ax, axis.index(1.0), axis.index(1.0), 1.4)
        _legend(ax, count, side)
        ax.set(xlim=(-0.55, count + 1.9), ylim=(-0.55, max(count, 5) - 0.45), aspect="equal")
        ax.set_xticks(list(ticks), list(ticks.values()))
        ax.set_yticks(list(ticks), list(ticks.values()))
        ax.set_xlabel(f"λ of {short(error.first)}", x=0.5 * count / (count + 2.4))
        ax.set_ylabel(f"λ of {short(error.second)}")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)

    (one, two), worst = error.largest
    at_one = f" {number(error.at(1, 1).value)} at (1, 1) and" if (1.0, 1.0) in error.points else ""
    alt = (
        f"Heat map of ξ of {error.first} and {error.second}:{at_one} at most {number(worst.value)}, "
        f"at ({number(one)}, {number(two)})."
    )
    caption = (
        f"Disentanglement error ξ of {_pair(error)} by coefficient, 0 to 2. The shade grows with the square root of ξ; "
        "the frame marks (1, 1). Where a coefficient is 0, only one task can be disturbed."
    )
    return Figure(paint, 70 + (count + 2.6) * side, 56 + max(count, 5) * side, alt, caption)


def _pair_map(errors: Sequence[DisentanglementError]) -> Figure:
    """Draw ξ of all pairs at one point: rows are disturbed, columns disturb."""
    names = list(dict.fromkeys(name for error in errors for name in (error.first, error.second)))
    point, count = _common_point(errors), len(names)
    labels = [short(name, 14) for name in names]
    side = min(46.0, max(14.0, 420.0 / count))
    cells: dict[tuple[int, int], float] = {(k, count - 1 - k): math.nan for k in range(count)}
    for error in errors:
        place = error.points.index(point)
        for task, other in ((error.first, error.second), (error.second, error.first)):
            part = float(error.hard_by_task[task].values.flatten()[place])
            cells[names.index(other), count - 1 - names.index(task)] = part

    def paint(ax: Any) -> None:
        _cells(ax, cells, side, count)
        ax.set(xlim=(-0.55, count - 0.45), ylim=(-0.55, count - 0.45), aspect="equal")
        ax.set_xticks(range(count), labels, rotation=40, ha="right", rotation_mode="anchor")
        ax.set_yticks(range(count), labels[::-1])
        ax.set_xlabel("expert added")
        ax.set_ylabel("task disturbed")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)

    known = [value for value in cells.values() if not math.isnan(value)]
    where = f"λ = ({number(point[0])}, {number(point[1])})"
    alt = f"Heat map of changed predictions at {where}: from {number(min(known))} to {number(max(known))}."
    caption = (
        f"Share of a task's predictions that change when an expert is added, at {where}; ξ of a pair is the sum of its "
        "two squares. The shade grows with the square root."
    )
    room = min(120.0, 24.0 + 6.5 * max(map(len, labels)))
    return Figure(paint, 24 + room + count * side, 40 + 0.8 * room + count * side, alt, caption)


def _cells(ax: Any, cells: dict[tuple[int, int], float], side: float, count: int) -> None:
    """Shaded squares, with their numbers where there is room."""
    for (x, y), value in cells.items():
        _square(ax, x, y, value)
        if count <= _NUMBERED:
            text = "–" if math.isnan(value) else f"{value:.2f}"
            ax.text(x, y, text, ha="center", va="center", fontsize=min(10.5, 0.27 * side), color=INK)


def _square(ax: Any, x: float, y: float, value: float) -> None:
    """One shaded square."""
    # Ink on the strongest shade must stay readable, so no cell is fully opaque.
    shade = 0.0 if math.isnan(value) else _STRONGEST * math.sqrt(min(value, _LARGEST) / _LARGEST)
    ax.fill(*_corners(x, y), color=BLUE, alpha=shade, lw=0)


def _frame(ax: Any, x: float, y: float, width: float) -> None:
    """A line around a square."""
    xs, ys = _corners(x, y)
    ax.plot([*xs, xs[0]], [*ys, ys[0]], color=INK, lw=width)


def _corners(x: float, y: float) -> tuple[list[float], list[float]]:
    """Corners of a square, a gap to its neighbours left."""
    return [x - 0.47, x + 0.47, x + 0.47, x - 0.47], [y - 0.47, y - 0.47, y + 0.47, y + 0.47]


def _legend(ax: Any, count: int, side: float) -> None:
    """The scale to the right of the squares."""
    for row, value in enumerate(_SCALE):
        _square(ax, count + 0.4, row, value)
        _frame(ax, count + 0.4, row, 0.3)
        ax.text(count + 1.05, row, number(value), va="center", fontsize=min(10.0, 0.3 * side), color=INK)
