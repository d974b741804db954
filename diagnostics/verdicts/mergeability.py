"""Will the merge work? Loss, score and retention of each task predicted without evaluating the merge."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from diagnostics.errors import require_one_of, require_share
from diagnostics.inputs.problem import Coefficients, MergeProblem
from diagnostics.measures.vectors import shifted
from diagnostics.results import Cost, Estimate, Result, Status, Verdict
from diagnostics.verdicts.attribution import layer_effects
from diagnostics.verdicts.merge_parts import MergeParts, merge_parts
from diagnostics.verdicts.sampling import score_unit, standard_error
from diagnostics.verdicts.surrogate import Reading, Surrogate

__all__ = ["About", "MergePrediction", "Reason", "TaskPrediction", "joint_verdict", "predict_merge", "task_prediction"]

About = Literal["population", "examples"]

_CONFIDENCE = 0.9
QUANTILE = 1.645
# Errors of single examples partly cancel in their mean. What is left of them at 90 %, as a share of the mean absolute
# change; fitted on digit networks by ``benchmarks.prediction.calibrate``.
LOSS_SHARE, SCORE_SHARE = 1.1, 1.45


@dataclass(frozen=True)
class Reason(Result):
    """One cause of a task's loss of performance.

    Attributes:
        task: The task that pays.
        cause: ``"own scaling"``, ``"own trimming"`` where the method takes more from the task's update than a factor,
            or ``"interference"``.
        partner: The expert that interferes; empty for the task's own update.
        coefficient: How much of the update that causes it is applied; where the method trims it, its λ.
        retention: Change of the task's retention that this cause makes by itself; NaN without a score.
        loss: Change of the task's loss that it makes by itself.
        layers: For interference, the layers through which it works and the loss that goes through each, largest
            first; to first order along the predicted change.
    """

    task: str
    cause: str
    partner: str
    coefficient: float
    retention: float
    loss: float
    layers: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        effect = f"loss {self.loss:+.3g}"
        if not math.isnan(self.retention):
            effect = f"retention {100 * self.retention:+.1f} points, {effect}"
        if self.cause == "own scaling":
            return f"{self.task}: its own update is applied at {self.coefficient:g} instead of 1 ({effect})"
        if self.cause == "own trimming":
            return f"{self.task}: the method leaves only a part of its own update ({effect})"
        through = f", mostly through {self.layers[0][0]}" if self.layers else ""
        return f"{self.task}: {self.partner} at {self.coefficient:g} interferes{through} ({effect})"


@dataclass(frozen=True)
class TaskPrediction(Result):
    """What a merge is predicted to do to one task.

    Attributes:
        loss: Mean loss at the merge.
        score: Mean score at the merge; undefined for a task without a score.
        retention: Score over the expert's own score; undefined for a task without a score.
        expert_loss: Loss of the task's own expert, measured.
        expert_score: Score of the task's own expert, measured.
    """

    loss: Estimate
    score: Estimate
    retention: Estimate
    expert_loss: float
    expert_score: float


@dataclass(frozen=True)
class MergePrediction(Result):
    """The predicted outcome of a merge that has not been evaluated.

    Attributes:
        coefficients: λ by expert.
        tasks: Prediction by task.
        tolerance: Share of its expert's score that a task may lose.
        verdict: Whether every task keeps at least 1 − tolerance of its expert's score.
        reasons: What costs which task most, worst first.
        cost: Passes over one task's data that the prediction rests on, all tasks added up.
        method: The merge method.
        about: What the intervals are about: the population that the examples are drawn from, or these examples.
        notes: What should be known about the tasks' examples.
    """

    coefficients: dict[str, float]
    tasks: dict[str, TaskPrediction]
    tolerance: float
    verdict: Verdict
    reasons: tuple[Reason, ...]
    cost: Cost
    method: str
    about: str = "population"
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        merge = ", ".join(f"{name} {value:g}" for name, value in self.coefficients.items())
        lines = [f"{self.verdict}: every task keeps {1 - self.tolerance:.0%} of its expert's score ({merge})"]
        lines += [f"  {name}: retention {task.retention}, loss {task.loss}" for name, task in self.tasks.items()]
        lines += [f"  because {reason}" for reason in self.reasons[:3]]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join([*lines, f"  cost: {self.cost}"])


def predict_merge(
    problem: MergeProblem,
    coefficients: Coefficients,
    *,
    method: str = "task_arithmetic",
    tolerance: float = 0.1,
    about: About = "population",
    layers: bool = False,
    progress: Callable[[float], None] = lambda share: None,
    **settings: Any,
) -> MergePrediction:
    """Predict loss, score and retention of every task at a merge, from single models alone (5.1)-(5.3).

    Outputs are measured at the base and along each expert's own ray, and their derivatives towards the other experts
    there; a Gaussian process over the coefficients joins them. The merge is not evaluated. For a method that is not
    linear, what survives of each expert takes the place of its task vector.

    Args:
        problem: The merge problem.
        coefficients: λ; an expert that a mapping does not name takes no part.
        method: One of ``MERGE_METHODS``, or ``"linear_lora"``: A and B of LoRA adapters merged apart, as PEFT's
            ``combination_type="linear"`` does; then ``adapters`` names their folders.
        tolerance: Share of its expert's score that a task may lose.
        about: Whether intervals are about the ``population`` that the examples are drawn from, or about these
            ``examples`` alone, without the error of sampling.
        layers: Whether to name the layers through which partners interfere, for one gradient a task.
        progress: Called with the share of the measurements that are done.
        **settings: Further keywords of :func:`diagnostics.merged_update`, ``density`` and so on.

    Returns:
        The prediction for every expert that takes part.

    Raises:
        InputError: If the coefficients do not fit the problem, or the method or a setting is not known.

    Example:
        >>> from diagnostics.inputs.zoo import quadratic_problem
        >>> problem = quadratic_problem(torch.eye(2).double()[None].repeat(2, 1, 1), torch.eye(2).double())
        >>> round(predict_merge(problem, 0.5).tasks["task_0"].loss.value, 6)
        0.25
    """
    require_share("tolerance", tolerance)
    require_one_of("about", about, get_args(About))
    lambdas = problem.coefficients(coefficients)
    parts = merge_parts(problem, lambdas, method, settings)
    found = parts.surrogates(problem, tuple(lambdas), progress)
    tasks, reasons, cost = {}, [], Cost()
    for name, surrogate in zip(lambdas, found, strict=True):
        tasks[name] = task_prediction(surrogate, parts.point, about)
        causes = _Causes(problem, name, surrogate, parts, lambdas)
        reasons += causes.with_layers(causes.reasons()) if layers else causes.reasons()
        cost += surrogate.cost + causes.cost
    verdict = joint_verdict([task.retention.against(1 - tolerance) for task in tasks.values()])
    ranked = tuple(sorted(reasons, key=_effect))
    notes = tuple(note for name in lambdas for note in problem.tasks[name].notes)
    return MergePrediction(lambdas, tasks, tolerance, verdict, ranked, cost, method, about, notes)


def joint_verdict(parts: Sequence[Verdict]) -> Verdict:
    """All must be supported; one refuted refutes.

    Args:
        parts: Verdicts on single tasks.

    Returns:
        The verdict on all of them.
    """
    if Verdict.REFUTED in parts:
        return Verdict.REFUTED
    return Verdict.UNDECIDED if Verdict.UNDECIDED in parts else Verdict.SUPPORTED


def task_prediction(surrogate: Surrogate, point: Mapping[str, float], about: About) -> TaskPrediction:
    """Predict loss, score and retention of one task with their intervals.

    Args:
        surrogate: The task's predicted outputs.
        point: Coefficients.
        about: What the intervals are about.

    Returns:
        The prediction.
    """
    own = surrogate.expert
    reading, envelope = surrogate.read(surrogate.outputs(point)), surrogate.envelope(point)
    share = LOSS_SHARE if surrogate.task.readout else QUANTILE
    sampled = about == "population" and surrogate.task.readout is not None
    loss = _estimate(reading.loss, share * envelope.loss, reading.losses if sampled else None)
    if reading.scores is None or own.scores is None or own.score == 0:
        why = "the task has no score" if reading.scores is None else "the expert's own score is zero"
        undefined = Estimate(math.nan, math.nan, math.nan, _CONFIDENCE, Status.UNDEFINED, why)
        return TaskPrediction(loss, undefined, undefined, own.loss, own.score)
    floor = 0.0 if float(torch.minimum(reading.scores, own.scores).min()) >= 0 else -math.inf
    open_share = SCORE_SHARE * envelope.score
    unit = score_unit(torch.cat([reading.scores, own.scores]))
    score = _estimate(reading.score, open_share, reading.scores if sampled else None, floor, unit)
    retained = reading.score / own.score
    paired = (reading.scores - retained * own.scores) / own.score
    retention = _estimate(retained, open_share / own.score, paired if sampled else None, floor, unit / abs(own.score))
    return TaskPrediction(loss, score, retention, own.loss, own.score)


def _estimate(
    value: float, spread: float, examples: Tensor | None, floor: float = -math.inf, unit: float = 0.0
) -> Estimate:
    """Join the uncertainty of the outputs and the sampling error of the examples into one interval."""
    sampling, over = 0.0, ""
    if examples is not None:
        sampling = QUANTILE * standard_error(examples, unit)
        over = f", sampling +-{sampling:.2g} over {len(examples)} examples"
    half = math.hypot(spread, sampling)
    status = Status.CONVERGED if math.isfinite(half) and math.isfinite(value) else Status.UNDEFINED
    return Estimate(value, max(value - half, floor), value + half, _CONFIDENCE, status, f"outputs +-{spread:.2g}{over}")


def _effect(reason: Reason) -> tuple[float, float]:
    """Sort key: the largest loss of retention first, then the largest rise of the loss."""
    return (0.0 if math.isnan(reason.retention) else reason.retention, -reason.loss)


class _Causes:
    """Why a task loses: its own scaling, and each partner on top of it."""

    def __init__(
        self, problem: MergeProblem, name: str, surrogate: Surrogate, parts: MergeParts, lambdas: Mapping[str, float]
    ) -> None:
        self.problem, self.name, self.surrogate, self.parts, self.lambdas = problem, name, surrogate, parts, lambdas
        self.cost = Cost()

    def reasons(self) -> list[Reason]:
        """Split the predicted change into own scaling and each partner's interference."""
        point, own = self.parts.point, self.surrogate.expert
        alone = {self.name: point[self.name]}
        scaled = self.surrogate.read(self.surrogate.outputs(alone))
        cause = "own scaling" if self._whole(self.name) else "own trimming"
        reasons = [self._reason(cause, "", own, scaled)]
        for partner, value in point.items():
            if partner != self.name:
                after = self.surrogate.outputs({**alone, partner: value})
                reasons.append(self._reason("interference", partner, scaled, self.surrogate.read(after)))
        # An expert at its own coefficient of 1 differs from itself by rounding alone.
        return [reason for reason in reasons if reason.retention < 0 or reason.loss > 1e-6 * (1 + abs(own.loss))]

    def _reason(self, cause: str, partner: str, before: Reading, after: Reading) -> Reason:
        own = self.surrogate.expert.score
        change = (after.score - before.score) / own if own else math.nan
        name = partner or self.name
        coefficient = self.parts.point[name] if self._whole(name) else self.lambdas.get(name, 1.0)
        return Reason(self.name, cause, partner, coefficient, change, after.loss - before.loss)

    def _whole(self, name: str) -> bool:
        """Whether the method takes a task vector as it is, times a factor that may differ from its coefficient."""
        return self.parts.vectors[name] is self.problem.task_vectors.get(name)

    def with_layers(self, reasons: list[Reason]) -> list[Reason]:
        """Name the layers through which partners interfere."""
        partners = [reason.partner for reason in reasons if reason.partner and reason.loss > 0]
        if not partners:
            return reasons
        self.cost += Cost(gradients=1)
        point, vectors = self.parts.point, self.parts.vectors
        alone = shifted(self.problem.base, point[self.name], vectors[self.name])
        before, after = self.surrogate.outputs({self.name: point[self.name]}), self.surrogate.outputs(point)
        moves = {name: (point[name], vectors[name]) for name in partners}
        effects = layer_effects(self.surrogate.task, alone, before, after, moves)
        return [replace(each, layers=effects.get(each.partner, ())) for each in reasons]
