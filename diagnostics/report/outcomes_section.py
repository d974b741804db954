"""Predictions held against what the merges then did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from diagnostics.report.document import Cell, Figure, Headline, Row, Section, Table, Tone
from diagnostics.report.drawing import BLUE, INK, VERMILLION
from diagnostics.report.prediction_section import reason_text
from diagnostics.report.wording import estimate, listing, merge_label, number, percent, plural, points
from diagnostics.results import Estimate, Verdict
from diagnostics.verdicts.scoring import Outcome, Scorecard

__all__ = ["outcomes_headline", "outcomes_section"]

_SIDE = 370.0


class _Point(NamedTuple):
    """A prediction and what was measured."""

    predicted: Estimate
    measured: float

    @property
    def held(self) -> bool:
        """Whether the interval holds the measured value."""
        return self.predicted.lower <= self.measured <= self.predicted.upper

    @property
    def known(self) -> bool:
        """Whether there are two numbers to draw."""
        return math.isfinite(self.predicted.value) and math.isfinite(self.measured)


_PROMISE: dict[bool | None, Tone] = {True: "good", None: "unsure", False: "bad"}


def outcomes_headline(outcomes: Sequence[Outcome], scorecard: Scorecard) -> Headline:
    """Say in a sentence how the predictions did.

    Args:
        outcomes: Predictions with their outcomes.
        scorecard: Their scores.

    Returns:
        A headline without a verdict: it is about the predictor, not about one merge.
    """
    right = _count(scorecard, Verdict.SUPPORTED, "kept") + _count(scorecard, Verdict.REFUTED, "lost")
    open_ = sum(scorecard.verdicts.get(str(Verdict.UNDECIDED), {}).values())
    decided = len(outcomes) - open_
    sentence = (
        f"{scorecard.failures:,} of {plural(scorecard.merges, 'merge')} failed; {right:,} of the "
        f"{decided:,} verdicts given before evaluation were right, and {open_:,} were left open."
    )
    certainty = (
        f"Intervals promised {percent(scorecard.confidence)} and held {percent(scorecard.retention_coverage)} of the "
        f"retentions and {percent(scorecard.loss_coverage)} of the losses, "
        f"over {plural(scorecard.pairs, 'pair')} of merge and task."
    )
    return Headline(None, sentence, certainty)


def outcomes_section(outcomes: Sequence[Outcome], scorecard: Scorecard) -> Section:
    """Show predicted against measured values, verdicts against events, and the predictors side by side.

    Args:
        outcomes: Predictions with their outcomes.
        scorecard: Their scores.

    Returns:
        The section.
    """
    tables = (_verdicts(scorecard), _predictors(scorecard), _coverage(scorecard), _failures(outcomes))
    return Section("Predicted against measured", _paragraphs(outcomes), tables, _figures(outcomes))


def _count(scorecard: Scorecard, verdict: Verdict, event: str) -> int:
    """Merges with this verdict to which this happened."""
    return scorecard.verdicts.get(str(verdict), {}).get(event, 0)


def _paragraphs(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """What counts as a failure."""
    goals = listing(sorted({percent(1 - outcome.prediction.tolerance) for outcome in outcomes}))
    return (
        f"A merge fails if some task keeps less than {goals} of its own expert's score. Every prediction was made "
        "without evaluating the merge it is about.",
    )


def _verdicts(scorecard: Scorecard) -> Table:
    """Verdict by what happened."""
    wrong = {(Verdict.SUPPORTED, "lost"), (Verdict.REFUTED, "kept")}
    rows: list[Row] = []
    for verdict in Verdict:
        cells = []
        for event in ("kept", "lost"):
            count = _count(scorecard, verdict, event)
            tone: Tone = "unsure" if verdict is Verdict.UNDECIDED else "bad" if (verdict, event) in wrong else "good"
            cells.append(Cell(f"{count:,}", tone if count else None))
        rows.append([str(verdict), *cells])
    columns = ["Verdict before", "Kept every task", "Lost a task"]
    return Table.of("Verdict before the merge was evaluated, by what then happened", columns, rows)


def _predictors(scorecard: Scorecard) -> Table:
    """Scores of this package's predictor and of the baselines."""
    rows: list[Row] = [
        [
            name,
            points(score.retention_mae).lstrip("+"),
            number(score.retention_r),
            number(score.gap_spearman),
            number(score.failure_auc),
        ]
        for name, score in scorecard.predictors.items()
    ]
    return Table.of(
        "Predictors over the same merges, this package's first; undefined where a predictor gives no such number",
        ["Predictor", "Mean retention error", "Retention r", "Loss-gap rank r", "Failure AUC"],
        rows,
    )


def _coverage(scorecard: Scorecard) -> Table:
    """Whether the intervals keep what they promise."""
    measured = {"retention": scorecard.retention_coverage, "loss": scorecard.loss_coverage}
    rows: list[Row] = []
    for name, share in measured.items():
        tone = _PROMISE[scorecard.keeps_promise(share)]
        rows.append([name, percent(scorecard.confidence), Cell(percent(share), tone)])
    return Table.of(
        f"Intervals: promised and held, over {plural(scorecard.pairs, 'pair')} of merge and task",
        ["Quantity", "Promised", "Held"],
        rows,
    )


def _failures(outcomes: Sequence[Outcome]) -> Table:
    """Every merge that failed, the task that paid most, and the main reason given before."""
    rows: list[Row] = []
    for outcome in outcomes:
        if outcome.kept:
            continue
        known = {name: value for name, value in outcome.retention.items() if not math.isnan(value)}
        worst = min(known or outcome.retention, key=lambda name: outcome.retention[name])
        predicted = outcome.prediction.tasks[worst].retention
        rows.append(
            [
                merge_label(outcome.prediction.coefficients),
                worst,
                percent(outcome.retention[worst]),
                estimate(predicted, percent),
                str(outcome.prediction.verdict),
                _why(outcome, worst),
            ]
        )
    caption = "Merges that failed, the task that lost most, and the main reason given before"
    columns = ["Merge", "Task", "Kept", "Predicted", "Verdict before", "Main reason"]
    return Table.of(caption if rows else "Merges that failed: none", columns, rows)


def _why(outcome: Outcome, task: str) -> str:
    """The first reason given for this task."""
    reasons = (reason_text(reason) for reason in outcome.prediction.reasons if reason.task == task)
    return next(reasons, "none was predicted")


def _figures(outcomes: Sequence[Outcome]) -> tuple[Figure, ...]:
    """Retention and loss, predicted against measured."""
    pairs = [(outcome, name) for outcome in outcomes for name in outcome.prediction.tasks]
    kept = [_Point(o.prediction.tasks[name].retention, o.retention[name]) for o, name in pairs]
    lost = [_Point(o.prediction.tasks[name].loss, o.loss[name]) for o, name in pairs]
    goals = sorted({1 - outcome.prediction.tolerance for outcome in outcomes})
    return _scatter(kept, "retention", percent, goals), _scatter(lost, "loss", number, [])


def _scatter(data: Sequence[_Point], label: str, form: Any, thresholds: Sequence[float]) -> Figure:
    """Predicted against measured, with the line of equality."""
    drawn = [point for point in data if point.known]
    missing = len(data) - len(drawn)
    held = sum(point.held for point in drawn)

    def paint(ax: Any) -> None:
        for threshold in thresholds:
            ax.axvline(threshold, color=INK, lw=0.9, ls="--", alpha=0.6)
            ax.axhline(threshold, color=INK, lw=0.9, ls="--", alpha=0.6)
        for point in drawn:
            _dot(ax, point)
        _equality(ax, [value for point in drawn for value in (point.measured, point.predicted.value)])
        ax.set(xlabel=f"measured {label}", ylabel=f"predicted {label}")
        ax.locator_params(nbins=5)
        ax.xaxis.set_major_formatter(lambda value, _: form(value))
        ax.yaxis.set_major_formatter(lambda value, _: form(value))
        ax.grid()

    caption = f"Predicted against measured {label}; on the solid line they are equal. "
    caption += "Blue dot: the interval holds the measured value; hollow orange diamond: it does not."
    caption += " Dashed: the share asked for." if thresholds else ""
    caption += f" Not drawn, because undefined: {missing:,}." if missing else ""
    alt = (
        f"Scatter of predicted against measured {label} for {plural(len(drawn), 'pair')} of merge and task; "
        f"{held:,} intervals hold the measured value."
    )
    return Figure(paint, _SIDE, _SIDE, alt, caption)


def _dot(ax: Any, point: _Point) -> None:
    """One pair with its interval."""
    colour = BLUE if point.held else VERMILLION
    ends = [point.predicted.lower, point.predicted.upper]
    if all(map(math.isfinite, ends)):
        ax.plot([point.measured] * 2, ends, color=colour, lw=1.2, alpha=0.25)
    shape = {"marker": "o", "mfc": colour, "ms": 5} if point.held else {"marker": "D", "mfc": "none", "ms": 5.5}
    ax.plot([point.measured], [point.predicted.value], color=colour, mew=1.2, **shape)


def _equality(ax: Any, values: Sequence[float]) -> None:
    """The line of equality, over equal ranges of both axes."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = 0.06 * (high - low) or 0.5
    limits = (low - margin, high + margin)
    ax.plot(limits, limits, color=INK, lw=0.9, alpha=0.7, zorder=0)
    # The intervals may reach further than the values; the values decide the range.
    ax.set(xlim=limits, ylim=limits, aspect="equal")
