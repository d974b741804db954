"""Losses and retentions of all tasks at many coefficients, what they are worth, and how far they are open."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from diagnostics.verdicts.mergeability import LOSS_SHARE, QUANTILE, SCORE_SHARE
from diagnostics.verdicts.surrogate import Surrogate

__all__ = ["Aim", "Landscape", "Metric", "Objective", "Outcomes"]

Metric = Literal["retention", "loss"]
Objective = Literal["mean", "worst"]

# Retention is constant between steps of one example; among equals the loss decides. The weight makes a nat as much as
# a tenth of a point of retention.
_TIE = 1e-3
# What a missed constraint costs: more than any loss.
_BARRIER = 1e9


@dataclass(frozen=True)
class Outcomes:
    """Losses over the expert's own and retentions, or their half-widths: one row a merge, one column a task."""

    gaps: np.ndarray
    retentions: np.ndarray

    def rows(self, rows: Sequence[int] | np.ndarray) -> Outcomes:
        """Return the outcomes of some merges.

        Args:
            rows: Which.

        Returns:
            Their outcomes.
        """
        return Outcomes(self.gaps[rows], self.retentions[rows])

    def put(self, rows: Sequence[int], others: Outcomes) -> Outcomes:
        """Return the same outcomes with some of them replaced.

        Args:
            rows: Which.
            others: What takes their place.

        Returns:
            The outcomes.
        """
        gaps, retentions = self.gaps.copy(), self.retentions.copy()
        gaps[rows], retentions[rows] = others.gaps, others.retentions
        return Outcomes(gaps, retentions)

    def worse(self, half: Outcomes) -> Outcomes:
        """Return the pessimistic ends of intervals.

        Args:
            half: Half-widths.

        Returns:
            Higher losses and lower retentions.
        """
        return Outcomes(self.gaps + half.gaps, self.retentions - half.retentions)

    def better(self, half: Outcomes) -> Outcomes:
        """Return the optimistic ends of intervals.

        Args:
            half: Half-widths.

        Returns:
            Lower losses and higher retentions.
        """
        return Outcomes(self.gaps - half.gaps, self.retentions + half.retentions)


@dataclass(frozen=True)
class Aim:
    """What coefficients are chosen for.

    Attributes:
        metric: Retention, or minus the loss over the expert's own.
        objective: The mean of the tasks or the worst of them.
        at_least: Least retention of each task; -inf where nothing is asked.
    """

    metric: Metric
    objective: Objective
    at_least: np.ndarray

    @property
    def goal(self) -> str:
        """The objective in words."""
        if self.metric == "retention":
            return f"{self.objective} retention"
        return f"minus the {'mean' if self.objective == 'mean' else 'largest'} loss gap"

    def worth(self, outcomes: Outcomes) -> np.ndarray:
        """Return what each task contributes, larger being better.

        Args:
            outcomes: The outcomes.

        Returns:
            Retentions, or minus the loss gaps.
        """
        return outcomes.retentions if self.metric == "retention" else -outcomes.gaps

    def value(self, outcomes: Outcomes) -> np.ndarray:
        """Return the objective.

        Args:
            outcomes: The outcomes.

        Returns:
            One value a merge.
        """
        return self.joined(self.worth(outcomes))

    def joined(self, worth: np.ndarray) -> np.ndarray:
        """Return the mean over tasks, or the least.

        Args:
            worth: One column a task.

        Returns:
            One value a row.
        """
        return worth.mean(-1) if self.objective == "mean" else worth.min(-1)

    def shortfalls(self, outcomes: Outcomes) -> np.ndarray:
        """Return by how much each task misses what is asked of it.

        Args:
            outcomes: The outcomes.

        Returns:
            Zero where it is met or nothing is asked.
        """
        asked = np.isfinite(self.at_least)
        return np.where(asked, np.maximum(0, np.where(asked, self.at_least, 0) - outcomes.retentions), 0.0)

    def merit(self, outcomes: Outcomes) -> np.ndarray:
        """Return what merges are ranked by: constraints first, then the objective, then the mean loss.

        Args:
            outcomes: The outcomes.

        Returns:
            One value a merge; -inf where the outcome is not a number.
        """
        tie = _TIE * outcomes.gaps.mean(-1) if self.metric == "retention" else 0.0
        merit = self.value(outcomes) - tie - _BARRIER * self.shortfalls(outcomes).max(-1)
        return np.where(np.isnan(merit), -np.inf, merit)


class Landscape:
    """Predicted outcomes of all tasks; what has been looked at is kept.

    Args:
        surrogates: The predicted outputs of each task.
        aim: What coefficients are chosen for.
    """

    def __init__(self, surrogates: Sequence[Surrogate], aim: Aim) -> None:
        self.surrogates, self.aim = tuple(surrogates), aim
        self._rows: dict[tuple[float, ...], int] = {}
        self._found: list[tuple[np.ndarray, np.ndarray]] = []

    @property
    def points(self) -> np.ndarray:
        """Every point that was looked at, [K, T]."""
        return np.array([*self._rows])

    @property
    def outcomes(self) -> Outcomes:
        """Outcomes at all points."""
        gaps, retentions = (np.array(part) for part in zip(*self._found, strict=True))
        return Outcomes(gaps, retentions)

    def look(self, points: np.ndarray) -> np.ndarray:
        """Predict outcomes where they are not known yet.

        Args:
            points: λ of each merge, [K, T].

        Returns:
            Their merits, [K].
        """
        keys = [tuple(map(float, point)) for point in points]
        fresh = [key for key in dict.fromkeys(keys) if key not in self._rows]
        if fresh:
            new = self.predict(np.array(fresh))
            self._rows.update({key: len(self._rows) + index for index, key in enumerate(fresh)})
            self._found.extend(zip(new.gaps, new.retentions, strict=True))
        return self.aim.merit(self.outcomes.rows([self._rows[key] for key in keys]))

    def predict(self, points: np.ndarray) -> Outcomes:
        """Predict the outcomes of merges.

        Args:
            points: λ of each merge, [K, T].

        Returns:
            The outcomes.
        """
        losses, scores = (
            np.stack(part, axis=1) for part in zip(*(s.scan(points) for s in self.surrogates), strict=True)
        )
        return self._outcomes(losses, scores)

    def measure(self, merged: Mapping[str, Tensor]) -> Outcomes:
        """Evaluate a merge on every task's examples, one forward pass each.

        Args:
            merged: Its parameters.

        Returns:
            The outcomes, one row.
        """
        found = []
        for surrogate in self.surrogates:
            if surrogate.task.readout is None:
                found.append((surrogate.task.mean_loss(merged), math.nan))
            else:
                reading = surrogate.read([batch.double() for batch in surrogate.task.outputs(merged)])
                found.append((reading.loss, reading.score))
        losses, scores = np.array(found).T
        return self._outcomes(losses[None], scores[None])

    def halves(self, points: np.ndarray, reference: int | None = None) -> Outcomes:
        """Return how far the outcomes at some points are open, or their differences from one of them.

        Args:
            points: λ of each merge, [K, T].
            reference: Row of the point that the others are compared with, if any.

        Returns:
            Half-widths, as a prediction of one merge has them.
        """
        gaps, retentions = [], []
        for surrogate in self.surrogates:
            found = surrogate.envelopes(points, reference)
            share = LOSS_SHARE if surrogate.task.readout else QUANTILE
            gaps.append([share * each.loss for each in found])
            retentions.append([SCORE_SHARE * each.score / (surrogate.expert.score or np.nan) for each in found])
        return Outcomes(np.array(gaps).T, np.array(retentions).T)

    def _outcomes(self, losses: np.ndarray, scores: np.ndarray) -> Outcomes:
        """Losses and scores against the experts' own; no retention without a score, or where the expert's is zero."""
        own = [surrogate.expert for surrogate in self.surrogates]
        shares = np.array([each.score or np.nan for each in own])
        return Outcomes(losses - np.array([each.loss for each in own]), scores / shares)
