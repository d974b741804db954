"""What a merge is predicted to do to each task, how sure that is, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from diagnostics.report.document import Figure, Headline, Row, Section, Table
from diagnostics.report.drawing import BLUE, GREEN, INK, VERMILLION
from diagnostics.report.wording import (
    estimate,
    listing,
    merge_label,
    number,
    percent,
    points,
    short,
    status_notes,
    verdict_cell,
)
from diagnostics.results import Estimate, Verdict
from diagnostics.verdicts.mergeability import MergePrediction, Reason

__all__ = ["prediction_headline", "prediction_section", "reason_text"]

_WIDTH = 370.0
# Shape and fill repeat what the colour says.
_LOOKS = {
    Verdict.SUPPORTED: (GREEN, "o", True),
    Verdict.UNDECIDED: (BLUE, "s", False),
    Verdict.REFUTED: (VERMILLION, "D", True),
}


class _Row(NamedTuple):
    """An interval of one task in a plot; the verdict decides its look, the mark is a value to compare with."""

    name: str
    value: Estimate
    verdict: Verdict
    mark: float | None = None


def prediction_headline(prediction: MergePrediction) -> Headline:
    """Say in a sentence whether the merge is predicted to work.

    Args:
        prediction: The prediction.

    Returns:
        The headline.
    """
    goal = percent(1 - prediction.tolerance)
    judged = {name: t.retention.against(1 - prediction.tolerance) for name, t in prediction.tasks.items()}
    named = {verdict: [name for name, given in judged.items() if given is verdict] for verdict in Verdict}
    if prediction.verdict is Verdict.SUPPORTED:
        sentence = f"Every task is predicted to keep at least {goal} of its expert's score."
    elif prediction.verdict is Verdict.REFUTED:
        sentence = (
            f"Predicted to lose more than allowed: {_kept(prediction, named[Verdict.REFUTED])}; {goal} was asked for."
        )
    else:
        open_ = _kept(prediction, named[Verdict.UNDECIDED])
        sentence = f"It stays open whether every task keeps {goal} of its expert's score: {open_}."
    certainty = (
        f"Intervals are meant to hold the true value {_confidence(prediction)} of the time; "
        "the merge itself was not evaluated."
    )
    return Headline(prediction.verdict, sentence, certainty)


def prediction_section(prediction: MergePrediction) -> Section:
    """Show the predicted retention and loss of every task, the reasons and the cost.

    Args:
        prediction: The prediction.

    Returns:
        The section.
    """
    merge = merge_label(prediction.coefficients)
    text = [
        f"The merge: {merge}, method {prediction.method}. It succeeds if every task keeps "
        f"{percent(1 - prediction.tolerance)} of its expert's score.",
        f"Cost of this prediction: {prediction.cost}, each over one task's data.",
    ]
    text += list(prediction.notes)
    doubts = {f"the {what} of {name}": value for name, what, value in _estimates(prediction)}
    text += [f"{note[0].upper()}{note[1:]}" for note in status_notes(doubts)]
    tables = [
        _outcome_table(prediction),
        _reason_table(prediction.reasons),
        _expert_table(prediction),
        _evidence_table(prediction),
    ]
    return Section("Prediction", tuple(text), tuple(tables), tuple(_figures(prediction)))


def reason_text(reason: Reason) -> str:
    """Say what costs a task its performance.

    Args:
        reason: The reason.

    Returns:
        Its text, without the size of the effect.

    Example:
        >>> reason_text(Reason("a", "interference", "b", 0.5, -0.1, 0.2))
        'b, added at 0.5, interferes'
    """
    if reason.cause == "own scaling":
        return f"its own update is applied at {number(reason.coefficient)} instead of 1"
    if reason.cause == "own trimming":
        return "the method leaves only a part of its own update"
    through = f", mostly through {reason.layers[0][0]}" if reason.layers else ""
    return f"{reason.partner}, added at {number(reason.coefficient)}, interferes{through}"


def _kept(prediction: MergePrediction, names: Sequence[str]) -> str:
    """Tasks with the retention predicted for them, lowest first, the tail counted."""
    values = {name: prediction.tasks[name].retention.value for name in names}
    ranked = sorted(names, key=lambda name: math.inf if math.isnan(values[name]) else values[name])
    said = [f"{name} keeps {percent(values[name])}" for name in ranked[:3]]
    more = [f"{len(ranked) - 3} more"] if len(ranked) > 3 else []
    return listing([*said, *more])


def _confidence(prediction: MergePrediction) -> str:
    """The share that the intervals promise."""
    return listing(sorted({percent(task.retention.confidence) for task in prediction.tasks.values()}))


def _estimates(prediction: MergePrediction) -> list[tuple[str, str, Estimate]]:
    """Every estimate with its task and its name."""
    kinds = ("retention", "score", "loss")
    return [(name, kind, getattr(task, kind)) for name, task in prediction.tasks.items() for kind in kinds]


def _outcome_table(prediction: MergePrediction) -> Table:
    """Verdict, retention and loss by task."""
    rows: list[Row] = []
    for name, task in prediction.tasks.items():
        verdict = verdict_cell(task.retention.against(1 - prediction.tolerance))
        rows.append([name, verdict, estimate(task.retention, percent), estimate(task.loss)])
    return Table.of("Predicted outcome of the merge", ["Task", "Keeps enough", "Retention", "Loss"], rows)


def _expert_table(prediction: MergePrediction) -> Table:
    """What the retention is a share of, and what the loss is to be compared with."""
    rows: list[Row] = [
        [name, estimate(task.score), number(task.expert_score), number(task.expert_loss)]
        for name, task in prediction.tasks.items()
    ]
    columns = ["Task", "Predicted score", "Expert's score", "Expert's loss"]
    return Table.of("Predicted score, and what the task's own expert does on the same examples", columns, rows)


def _reason_table(reasons: Sequence[Reason]) -> Table:
    """Reasons, worst first."""
    rows: list[Row] = [
        [str(rank), reason.task, reason_text(reason), points(reason.retention), f"{reason.loss:+.3g}"]
        for rank, reason in enumerate(reasons, 1)
    ]
    caption = "What costs which task how much, by itself, worst first"
    if not rows:
        caption = "What costs which task how much: nothing is predicted to cost any task anything"
    return Table.of(caption, ["Rank", "Task", "Cause", "Retention", "Loss"], rows)


def _evidence_table(prediction: MergePrediction) -> Table:
    """Where each interval comes from."""
    rows: list[Row] = [
        [f"{name}: {what}", f"{percent(value.confidence)}", str(value.status), value.evidence or "none given"]
        for name, what, value in _estimates(prediction)
    ]
    return Table.of("What the intervals rest on", ["Estimate", "Confidence", "Status", "Evidence"], rows)


def _figures(prediction: MergePrediction) -> list[Figure]:
    """Retention and loss as dots with intervals."""
    threshold = 1 - prediction.tolerance
    judged = {name: task.retention.against(threshold) for name, task in prediction.tasks.items()}
    kept = [_Row(name, task.retention, judged[name]) for name, task in prediction.tasks.items()]
    lost = [_Row(name, task.loss, judged[name], task.expert_loss) for name, task in prediction.tasks.items()]
    spoken = [f"{row.name} {estimate(row.value, percent)}" for row in kept]
    key = "Green dot: keeps enough; hollow blue square: undecided; orange diamond: loses too much."
    return [
        _interval_figure(
            kept,
            percent,
            "retention",
            threshold,
            f"Predicted retention against the threshold of {percent(threshold)}: {listing(spoken)}.",
            f"Predicted share of the expert's score, with intervals; dashed: the {percent(threshold)} asked for. {key}",
        ),
        _interval_figure(
            lost,
            number,
            "loss",
            None,
            f"Predicted loss: {listing(f'{row.name} {estimate(row.value)}' for row in lost)}.",
            "Predicted loss, with intervals; the upright bar is the loss of the task's own expert. "
            "Colours and shapes as for the retention.",
        ),
    ]


def _interval_figure(
    rows: Sequence[_Row], form: Any, label: str, threshold: float | None, alt: str, caption: str
) -> Figure:
    """A dot with an interval on a row for each task."""

    def paint(ax: Any) -> None:
        if threshold is not None:
            ax.axvline(threshold, color=INK, lw=1.0, ls="--")
        for y, row in enumerate(rows):
            _interval(ax, y, row)
        ax.set(ylim=(len(rows) - 0.4, -0.6), xlabel=label)
        ax.set_yticks(range(len(rows)), [short(row.name) for row in rows])
        ax.locator_params(axis="x", nbins=5)
        ax.xaxis.set_major_formatter(lambda value, _: form(value))
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x")

    return Figure(paint, _WIDTH, 26.0 * len(rows) + 62, alt, caption)


def _interval(ax: Any, y: int, row: _Row) -> None:
    """Draw one row; a value that is not a number is said, not skipped."""
    value = row.value
    if row.mark is not None and math.isfinite(row.mark):
        ax.plot([row.mark], [y], marker="|", ms=14, mew=1.6, color=INK)
    if not math.isfinite(value.value):
        ax.text(
            0.02, y, number(value.value), transform=ax.get_yaxis_transform(), ha="left", va="center", style="italic"
        )
        return
    colour, marker, filled = _LOOKS[row.verdict]
    if math.isfinite(value.lower) and math.isfinite(value.upper):
        ax.plot([value.lower, value.upper], [y, y], color=colour, lw=2.2, alpha=0.55, solid_capstyle="round")
    ax.plot([value.value], [y], marker=marker, ms=7, mew=1.4, color=colour, mfc=colour if filled else "none")
