"""Which coefficients to merge with: the choice, what it is predicted to do, and what else was looked at."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from diagnostics.report.document import Figure, Headline, Row, Section, Table
from diagnostics.report.drawing import BLUE, INK, VERMILLION
from diagnostics.report.wording import (
    estimate,
    listing,
    merge_label,
    number,
    percent,
    plural,
    points,
    verdict_cell,
)
from diagnostics.verdicts.coefficients import CoefficientChoice
from diagnostics.verdicts.mergeability import MergePrediction

__all__ = ["coefficients_headline", "coefficients_section", "recommendation", "shared_figure"]

_SIZE = (370.0, 240.0)


def coefficients_headline(choice: CoefficientChoice) -> Headline:
    """Say in a sentence which coefficients to take, and whether they keep what is asked.

    Args:
        choice: The choice.

    Returns:
        The headline.
    """
    form = _form(choice)
    sentence = f"Merge {merge_label(choice.coefficients)}: {_gives(choice)}."
    if choice.shortfalls:
        missing = [f"{name} falls short by {points(value)[1:]}" for name, value in choice.shortfalls.items()]
        sentence += f" What was asked for is not reached: {listing(missing)}."
    regret = choice.regret
    certainty = "No finalist is predicted to reach what was asked for, so there is no regret."
    if math.isfinite(regret.value):
        certainty = f"The best of the finalists may be better by {form(regret.upper)} at most, on these examples."
    return Headline(choice.verdict, sentence, certainty)


def recommendation(choice: CoefficientChoice) -> str:
    """Say in a sentence what to merge instead of something else.

    Args:
        choice: The choice.

    Returns:
        The sentence.
    """
    return f"Best coefficients: {merge_label(choice.coefficients)}, {_gives(choice)}, {choice.verdict}."


def _gives(choice: CoefficientChoice) -> str:
    """What the choice gives."""
    how = "measured" if choice.evaluations else "predicted"
    return f"{how} {choice.goal} {_form(choice)(choice.objective.value)}"


def coefficients_section(choice: CoefficientChoice, given: MergePrediction | None = None) -> Section:
    """Show the choice and its prediction by task, what was evaluated, the usual guesses, and one λ for all.

    Args:
        choice: The choice.
        given: The prediction of another merge of the same experts, to compare the choice with.

    Returns:
        The section.
    """
    form = _form(choice)
    evaluated = f"{plural(choice.evaluations, 'merge')} evaluated" if choice.evaluations else "no merge was evaluated"
    text = (
        f"Maximised: {choice.goal}, over {plural(choice.candidates, 'candidate')} by prediction; {evaluated}. "
        f"At the choice: {estimate(choice.objective, form)}. Regret: {estimate(choice.regret, form)}.",
        f"Cost: {choice.cost}, each over one task's data.",
    )
    tables = [_choice_table(choice), _guess_table(choice)]
    if choice.evaluated:
        tables.insert(1, _evaluated_table(choice))
    if given is not None and given.coefficients != choice.coefficients:
        tables.insert(0, _comparison_table(choice, given))
    figure = shared_figure(choice, given.coefficients if given is not None else None)
    return Section("Coefficients", text, tuple(tables), (figure,))


def shared_figure(choice: CoefficientChoice, given: Mapping[str, float] | None = None) -> Figure:
    """Draw the predicted objective along one coefficient for all, beside the value of the choice.

    Args:
        choice: The choice.
        given: Coefficients of another merge, to be marked.

    Returns:
        The figure.
    """
    form = _form(choice)
    grid, values = zip(*choice.curve, strict=True)
    best, value = max(choice.curve, key=lambda pair: -math.inf if math.isnan(pair[1]) else pair[1])
    asked = sorted(set((given or {}).values()))

    def paint(ax: Any) -> None:
        for each in asked:
            ax.axvline(each, color=INK, lw=1.0, ls=(0, (1, 2)))
        ax.axhline(choice.objective.value, color=INK, lw=1.0, ls="--")
        ax.plot(grid, values, color=BLUE, lw=2)
        ax.plot([best], [value], marker="o", ms=7, color=BLUE)
        for each in choice.coefficients.values():
            ax.plot([each], [choice.objective.value], marker="D", ms=5.5, color=VERMILLION, clip_on=False)
        ax.set(xlabel="coefficient", ylabel=choice.goal)
        ax.locator_params(nbins=5)
        ax.yaxis.set_major_formatter(lambda tick, _: form(tick))
        ax.grid()

    alt = f"With one coefficient for all, {choice.goal} is best at {number(best)} with {form(value)}; "
    alt += f"the choice, {merge_label(choice.coefficients)}, has {form(choice.objective.value)}."
    caption = (
        f"Predicted {choice.goal} with one coefficient for all (line) and its best (dot). "
        "Dashed: the choice, with a diamond at each of its coefficients."
    )
    if asked:
        alt += f" Marked as asked about: {listing(map(number, asked))}."
        caption += f" Dotted: the {'coefficient' if len(asked) == 1 else 'coefficients'} asked about."
    return Figure(paint, *_SIZE, alt, caption)


def _form(choice: CoefficientChoice) -> Callable[[float], str]:
    """How values of the objective are written."""
    return percent if choice.metric == "retention" else number


def _choice_table(choice: CoefficientChoice) -> Table:
    """Coefficient and prediction of each task, and what is asked of it."""
    limits = choice.at_least or dict.fromkeys(choice.coefficients, 1 - choice.prediction.tolerance)
    rows: list[Row] = []
    for name, task in choice.prediction.tasks.items():
        limit = limits.get(name)
        judged = (
            [percent(limit), verdict_cell(task.retention.against(limit))] if limit is not None else ["none", "none"]
        )
        kept, loss = estimate(task.retention, percent), estimate(task.loss)
        rows.append([name, number(choice.coefficients[name]), kept, loss, *judged])
    columns = ["Task", "Coefficient", "Retention", "Loss", "Asked for", "Predicted to keep it"]
    return Table.of("The choice, and what it is predicted to do", columns, rows)


def _comparison_table(choice: CoefficientChoice, given: MergePrediction) -> Table:
    """The merge that was asked about beside the choice."""
    retained = choice.metric == "retention"
    rows: list[Row] = []
    for name, asked in given.tasks.items():
        both = ((given.coefficients[name], asked), (choice.coefficients[name], choice.prediction.tasks[name]))
        cells = [
            (number(value), estimate(task.retention, percent) if retained else estimate(task.loss))
            for value, task in both
        ]
        rows.append([name, *(text for pair in cells for text in pair)])
    columns = ["Task", "Given", f"Its {choice.metric}", "Best predicted", f"Its {choice.metric}"]
    return Table.of("The coefficients that were asked about, beside those predicted best", columns, rows)


def _evaluated_table(choice: CoefficientChoice) -> Table:
    """The merges that were evaluated."""
    form = _form(choice)
    rows: list[Row] = [
        [merge_label(each.coefficients), form(each.predicted), form(each.measured)] for each in choice.evaluated
    ]
    return Table.of(
        f"{choice.goal[0].upper()}{choice.goal[1:]} where it was evaluated", ["Merge", "Predicted", "Measured"], rows
    )


def _guess_table(choice: CoefficientChoice) -> Table:
    """What the usual guesses are predicted to give."""
    form, chosen = _form(choice), choice.objective.value
    rows: list[Row] = [[name, form(value), form(chosen - value)] for name, value in choice.baselines.items()]
    return Table.of(
        f"Predicted {choice.goal} at the usual guesses", ["Guess", "Predicted", "Choice is better by"], rows
    )
