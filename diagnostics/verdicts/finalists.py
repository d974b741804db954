"""The best of many predicted merges: ranked with caution, evaluated where asked, and what may have been missed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from diagnostics.errors import InputError
from diagnostics.inputs.problem import MergeProblem
from diagnostics.results import Estimate, Status
from diagnostics.verdicts.coefficient_search import distinct
from diagnostics.verdicts.landscape import Landscape, Outcomes

__all__ = ["Evaluation", "Finalists"]

_CONFIDENCE = 0.9
_COUNT = 32
# Merges that are evaluated differ by this much in some coefficient, where they can.
_GAP = 0.1


class Evaluation(NamedTuple):
    """A merge that was evaluated: its coefficients, and the objective as predicted and as measured."""

    coefficients: dict[str, float]
    predicted: float
    measured: float


@dataclass(frozen=True)
class Finalists:
    """The merges with the best predictions.

    Attributes:
        landscape: What they were found in.
        points: λ of each, [K, T].
        predicted: Their predicted outcomes.
        known: The same, measured where they were evaluated.
        half: Half-widths of what is known; zero where measured.
        order: Rows, best first, by the pessimistic ends of their intervals.
        evaluated: Rows that were evaluated, in that order.
        choice: The row to recommend.
    """

    landscape: Landscape
    points: np.ndarray
    predicted: Outcomes
    known: Outcomes
    half: Outcomes
    order: list[int]
    evaluated: list[int]
    choice: int

    @classmethod
    def best_of(cls, landscape: Landscape, gap: float) -> Finalists:
        """Take the best of all that was looked at, and rank them again with caution.

        Args:
            landscape: What was looked at.
            gap: By how much they should differ in some coefficient.

        Returns:
            The finalists.

        Raises:
            InputError: If no prediction is a number.
        """
        merits = landscape.aim.merit(landscape.outcomes)
        if not np.isfinite(merits).any():
            raise InputError("expected finite predictions; found none at any coefficients. Check losses and outputs.")
        ranked = [row for row in np.argsort(-merits, kind="stable") if np.isfinite(merits[row])]
        rows = distinct(landscape.points, ranked, _COUNT, gap)
        points, predicted = landscape.points[rows], landscape.outcomes.rows(rows)
        half = landscape.halves(points)
        order = _with_caution(landscape, predicted, half)
        return cls(landscape, points, predicted, predicted, half, order, [], order[0])

    def verified(self, problem: MergeProblem, count: int) -> Finalists:
        """Evaluate the best, and choose by what is measured.

        Args:
            problem: The merge problem.
            count: How many to evaluate; all finalists if there are no more.

        Returns:
            The finalists with what was measured.
        """
        rows = distinct(self.points, self.order, count, _GAP)
        found = [self.landscape.measure(problem.merged(self.merge(row))) for row in rows]
        measured = Outcomes(*(np.vstack([getattr(each, name) for each in found]) for name in ("gaps", "retentions")))
        exact = Outcomes(np.zeros_like(measured.gaps), np.zeros_like(measured.retentions))
        choice = rows[int(self.landscape.aim.merit(measured).argmax())]
        known, half = self.known.put(rows, measured), self.half.put(rows, exact)
        return replace(self, known=known, half=half, evaluated=rows, choice=choice)

    def merge(self, row: int) -> dict[str, float]:
        """Return the coefficients of a finalist by expert.

        Args:
            row: Which.

        Returns:
            λ by expert.
        """
        names = self.landscape.surrogates[0].names
        return dict(zip(names, map(float, self.points[row]), strict=True))

    def objective(self) -> Estimate:
        """Return the objective at the choice, about the examples at hand.

        Returns:
            As measured, or as predicted with its interval.
        """
        value = self.landscape.aim.value
        best = float(value(self.known)[self.choice])
        if self.evaluated:
            return Estimate(best, best, best, 1.0, Status.EXACT, f"best of {len(self.evaluated)} merges evaluated")
        lower, upper = self.known.worse(self.half), self.known.better(self.half)
        ends = float(value(lower)[self.choice]), float(value(upper)[self.choice])
        return Estimate(best, *ends, _CONFIDENCE, Status.CONVERGED, "predicted, about the examples at hand")

    def shortfalls(self) -> dict[str, float]:
        """Return by how much the choice misses what is asked.

        Returns:
            The missing retention by task.
        """
        missing = self.landscape.aim.shortfalls(self.known.rows([self.choice]))[0]
        return {each.names[i]: float(missing[i]) for i, each in enumerate(self.landscape.surrogates) if missing[i] > 0}

    def retentions(self) -> dict[str, Estimate]:
        """Return what was measured at the choice.

        Returns:
            Retention by task; nothing where nothing was evaluated.
        """
        kept = self.known.retentions[self.choice]
        evidence = "measured on the examples at hand"
        return {
            name: Estimate(value, value, value, 1.0, Status.EXACT, evidence)
            for name, value in zip(self.merge(self.choice), map(float, kept), strict=True)
            if self.evaluated
        }

    def evaluations(self) -> tuple[Evaluation, ...]:
        """Return what was predicted and measured where merges were evaluated.

        Returns:
            The evaluations, best predicted first.
        """
        predicted, measured = (self.landscape.aim.value(each).tolist() for each in (self.predicted, self.known))
        return tuple(Evaluation(self.merge(row), predicted[row], measured[row]) for row in self.evaluated)

    def regret(self) -> Estimate:
        """Return how much better the best finalist may be than the choice.

        Returns:
            The regret, in units of the objective; undefined where no finalist meets what is asked.
        """
        aim = self.landscape.aim
        feasible = aim.shortfalls(self.known).max(-1) == 0
        if not feasible.any():
            why = "no candidate is predicted to meet what is asked"
            return Estimate(math.nan, math.nan, math.nan, _CONFIDENCE, Status.UNDEFINED, why)
        values = aim.value(self.known)
        value = max(0.0, float(values[feasible].max() - values[self.choice]))
        upper = max(value, float(self._advantages()[feasible].max()))
        return Estimate(value, 0.0, upper, _CONFIDENCE, Status.CONVERGED, f"best of {len(self.points)} finalists")

    def _advantages(self) -> np.ndarray:
        """How much better than the choice each finalist may be."""
        # A task's difference is bounded by its paired interval, and by the ends of both intervals. Of the worst tasks:
        # whichever is the choice's worst, the finalist's worst is not above the finalist's value for that one.
        aim, worth = self.landscape.aim, self.landscape.aim.worth
        predicted, known, half = worth(self.predicted), worth(self.known), np.abs(worth(self.half))
        paired = predicted - predicted[self.choice] + np.abs(worth(self.landscape.halves(self.points, self.choice)))
        paired[self.evaluated] = np.inf  # what was measured needs no prediction of it
        high, low = known + half, (known - half)[self.choice]
        if aim.objective == "mean":
            return np.minimum(paired, high - low).mean(-1)
        return np.minimum(paired, high.min(-1, keepdims=True) - low).max(-1)


def _with_caution(landscape: Landscape, predicted: Outcomes, half: Outcomes) -> list[int]:
    """Rank by pessimistic ends, since the best of many predictions is too good; what misses a constraint comes last."""
    aim = landscape.aim
    misses, cautious = aim.shortfalls(predicted).max(-1) > 0, aim.merit(predicted.worse(half))
    return np.lexsort((-cautious, misses)).tolist()
