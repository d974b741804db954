"""Merges θ0 + τ_1 + λτ_2 on a grid of λ, measured, and held against what (3.1) and (3.2) say about them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.special import stdtrit
from torch import Tensor

from diagnostics.inputs.problem import MergeProblem
from diagnostics.inputs.tasks import Task
from diagnostics.results import Cost, Estimate, Result, Status, Verdict
from diagnostics.theory.coefficient_conditions import CoefficientRegion
from diagnostics.verdicts.mergeability import joint_verdict
from diagnostics.verdicts.sampling import score_unit, standard_error

__all__ = ["CLAIMS", "Agreement", "Check", "MergeOutcome", "compare_outcomes"]

# The two claims about a pair, as fields of a CoefficientRegion, and their numbers.
CLAIMS = {"multi_task": "(3.1)", "unlearning": "(3.2)"}
_AGREE, _TOO_MUCH, _TOO_LITTLE, _OPEN = "agrees", "inside but not met", "outside but met", "undecided"


@dataclass(frozen=True)
class Check(Result):
    """A claim at one λ: what the region says, and what was measured."""

    predicted: Verdict
    measured: Verdict

    @property
    def word(self) -> str:
        """How they compare: agrees, inside but not met, outside but met, or undecided."""
        if Verdict.UNDECIDED in (self.predicted, self.measured):
            return _OPEN
        if self.predicted is self.measured:
            return _AGREE
        return _TOO_MUCH if self.predicted is Verdict.SUPPORTED else _TOO_LITTLE


@dataclass(frozen=True)
class MergeOutcome(Result):
    """One measured merge.

    Attributes:
        coefficient: λ, of the second expert; the first has 1.
        first: Retention of the first task: score over its expert's own.
        second: Retention of the second task.
        multi_task: Whether both tasks keep enough (3.1).
        unlearning: Whether the first task keeps enough and the second does not (3.2).
    """

    coefficient: float
    first: Estimate
    second: Estimate
    multi_task: Check
    unlearning: Check


@dataclass(frozen=True)
class Agreement(Result):
    """Measured merges of a pair beside the regions of (3.1) and (3.2).

    Attributes:
        outcomes: One for each λ of the grid.
        tolerance: Share of its expert's score that a task may lose and still count as kept.
        counts: For each claim, at how many λ region and measurement agree; at how many the λ is inside the region but
            the claim is not met (against the region as sufficient), outside but met (against it as necessary), or
            one of the two is undecided.
        cost: Passes over one task's data for the merges.
    """

    outcomes: tuple[MergeOutcome, ...]
    tolerance: float
    counts: dict[str, dict[str, int]]
    cost: Cost

    def __str__(self) -> str:
        lines = [f"measured at {len(self.outcomes)} λ; a task is kept with {1 - self.tolerance:.0%} of its score"]
        for outcome in self.outcomes:
            words = ", ".join(f"{label} {getattr(outcome, claim).word}" for claim, label in CLAIMS.items())
            lines.append(f"  λ = {outcome.coefficient:g}: {outcome.first} and {outcome.second} kept; {words}")
        return "\n".join(lines)


def compare_outcomes(
    problem: MergeProblem,
    outputs: Mapping[str, list[Tensor]],
    regions: CoefficientRegion | None,
    grid: Sequence[float],
    tolerance: float,
    confidence: float,
) -> Agreement:
    """Evaluate θ0 + τ_1 + λτ_2 on a grid and compare with the regions (3.1), (3.2).

    Args:
        problem: The merge problem.
        outputs: Outputs of each expert on its own task's examples, the first expert's first.
        regions: What is claimed; undecided everywhere where there is none.
        grid: The λ.
        tolerance: Share of its expert's score that a task may lose.
        confidence: Of the intervals of the retentions.

    Returns:
        The comparison. Cost: two forward passes for each λ.
    """
    first, second = outputs
    own = {name: _scores(problem.tasks[name], out) for name, out in outputs.items()}
    outcomes = []
    for value in grid:
        merged = problem.merged({first: 1.0, second: value})
        kept = [
            _retention(_scores(problem.tasks[name], problem.tasks[name].outputs(merged)), own[name], confidence)
            for name in (first, second)
        ]
        outcomes.append(_outcome(value, kept[0], kept[1], regions, tolerance))
    counts = {claim: _count([getattr(outcome, claim) for outcome in outcomes]) for claim in CLAIMS}
    return Agreement(tuple(outcomes), tolerance, counts, Cost(forwards=2 * len(outcomes)))


def _outcome(
    value: float, first: Estimate, second: Estimate, regions: CoefficientRegion | None, tolerance: float
) -> MergeOutcome:
    """One λ: the verdict on each claim, said and measured."""
    kept = [estimate.against(1 - tolerance) for estimate in (first, second)]
    measured = {"multi_task": joint_verdict(kept), "unlearning": joint_verdict([kept[0], _not(kept[1])])}
    checks = {}
    for claim in CLAIMS:
        region = None if regions is None else getattr(regions, claim)
        predicted = Verdict.UNDECIDED if region is None else region.judge(value)
        checks[claim] = Check(predicted, measured[claim])
    return MergeOutcome(value, first, second, **checks)


def _not(verdict: Verdict) -> Verdict:
    """The verdict on the opposite claim."""
    opposite = {Verdict.SUPPORTED: Verdict.REFUTED, Verdict.REFUTED: Verdict.SUPPORTED}
    return opposite.get(verdict, Verdict.UNDECIDED)


def _count(checks: Sequence[Check]) -> dict[str, int]:
    """How often region and measurement agree, disagree either way, or leave it open."""
    return {word: sum(check.word == word for check in checks) for word in (_AGREE, _TOO_MUCH, _TOO_LITTLE, _OPEN)}


def _scores(task: Task, outputs: list[Tensor]) -> Tensor | None:
    """One score per example, where the task has a score."""
    score = None if task.readout is None else task.readout.score
    if score is None:
        return None
    return torch.cat([score(out, batch).double() for out, batch in zip(outputs, task.batches, strict=True)])


def _retention(merged: Tensor | None, own: Tensor | None, confidence: float) -> Estimate:
    """Score over the expert's own on the same examples, with the interval of the paired ratio."""
    if merged is None or own is None or float(own.mean()) <= 0:
        why = "the task has no score" if own is None else "the expert's own score is not positive"
        return Estimate(math.nan, math.nan, math.nan, confidence, Status.UNDEFINED, why)
    ratio = float(merged.mean() / own.mean())
    paired = (merged - ratio * own) / own.mean()
    count = len(paired)
    if count < 2:
        return Estimate(ratio, -math.inf, math.inf, confidence, Status.CONVERGED, "one example")
    error = standard_error(paired, score_unit(torch.cat([merged, own])) / float(own.mean()))
    half = float(stdtrit(count - 1, (1 + confidence) / 2)) * error
    return Estimate(ratio, ratio - half, ratio + half, confidence, Status.CONVERGED, f"{count} examples")
