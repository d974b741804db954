"""What an expert's predictions on its own task become when another expert is added to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch

from diagnostics.inputs.problem import MergeProblem
from diagnostics.inputs.tasks import Task
from diagnostics.measures.disagreement import DIVERGENCES, Predictions, read_predictions
from diagnostics.verdicts.strata import GridEstimate, mean_of, no_error, share_of

__all__ = ["Disturbance"]


class Disturbance:
    """A task's expert alone beside the merge at every point, example by example.

    Args:
        problem: The merge problem.
        task: The task, over the examples to use, by its name in the problem.
        other: The expert that is added.
        points: Coefficients (own, other's).
        divergence: One of ``DIVERGENCES``.

    Attributes:
        open: At which points the two models can differ at all.
        hard: Whether predictions differ, [examples, points].
        soft: Divergence of the distributions, [examples, points].
        runs: Passes over the task's data.
        ties: Predictions that the order of the classes decides.
        by_token: Whether an example has several predictions.
    """

    def __init__(
        self, problem: MergeProblem, task: Task, other: str, points: Sequence[tuple[float, float]], divergence: str
    ) -> None:
        moves = any(bool(value.any()) for value in problem.task_vectors[other].values())
        self.open = [moves and value != 0 for _, value in points]
        self.runs = len({own for own, _ in points}) + sum(self.open)
        self.hard = torch.zeros(task.examples, len(points), dtype=torch.float64)
        self.soft, self.ties, self.by_token = torch.zeros_like(self.hard), 0, False
        distance, self.ceiling = DIVERGENCES[divergence]
        for column, (alone, merged) in enumerate(self._models(problem, task, other, points)):
            self.by_token = alone.owner is not None
            if merged is not None:
                self.hard[:, column] = alone.differs(merged).cpu()
                self.soft[:, column] = alone.per_example(distance(alone.logits, merged.logits)).cpu()
                self.ties += alone.ties + merged.ties

    def _models(
        self, problem: MergeProblem, task: Task, other: str, points: Sequence[tuple[float, float]]
    ) -> Iterator[tuple[Predictions, Predictions | None]]:
        """Expert and merge at each point; no merge where it is the expert."""
        for (own, value), may_differ in zip(points, self.open, strict=True):
            key = ("predictions on a ray", task.name, own, task.examples)
            alone = problem.cached(key, partial(_predict, problem, task, {task.name: own}))
            yield alone, _predict(problem, task, {task.name: own, other: value}) if may_differ else None

    def estimate(self, form: str, confidence: float) -> GridEstimate:
        """Return the task's part of ξ; zero without error where the merge is the expert itself.

        Args:
            form: ``"hard"`` or ``"soft"``.
            confidence: Of each interval.

        Returns:
            The part at each point.
        """
        if form == "hard" and not self.by_token:
            found = share_of(self.hard, confidence)
        else:
            rows, ceiling = (self.hard, 1.0) if form == "hard" else (self.soft, self.ceiling)
            found = mean_of(rows, ceiling, confidence)
        pairs = zip(vars(found).values(), vars(no_error(len(self.open))).values(), strict=True)
        return GridEstimate(*(torch.where(torch.tensor(self.open), one, zero) for one, zero in pairs))

    def mean(self, confidence: float) -> GridEstimate:
        """Return the mean of the task's hard part over the points.

        Args:
            confidence: Of the interval.

        Returns:
            One number.
        """
        return mean_of(self.hard.mean(1, keepdim=True), sum(self.open) / len(self.open), confidence)


def _predict(problem: MergeProblem, task: Task, coefficients: dict[str, float]) -> Predictions:
    """What a merge says on a task's inputs."""
    where = "θ0 " + " ".join(f"{value:+g} τ({name})" for name, value in coefficients.items())
    return read_predictions(task, task.outputs(problem.merged(coefficients)), where)
