"""Will the merge work? Loss, score and retention of each task predicted without evaluating the merge."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.inputs.problem import Coefficients, MergeProblem
from diagnostics.inputs.tasks import Task
from diagnostics.measures.outputs import RAY_NODES, OutputTable, output_table, readout_of
from diagnostics.results import Cost, Estimate, Result, Status, Verdict
from diagnostics.theory.output_expansion import VARIANTS, mixed_term, ray_weights, sum_of_terms

__all__ = ["MergePrediction", "Reason", "TaskPrediction", "predict_merge"]

_CONFIDENCE = 0.9
_QUANTILE = 1.645
_METHODS = ("task_arithmetic",)


@dataclass(frozen=True)
class Reason(Result):
    """One cause of a task's loss of performance.

    Attributes:
        task: The task that pays.
        cause: ``"own scaling"`` or ``"interference"``.
        partner: The expert that interferes; empty for own scaling.
        coefficient: λ of the expert that causes it.
        retention: Change of the task's retention that this cause makes by itself; NaN without a score.
        loss: Change of the task's loss that it makes by itself.
    """

    task: str
    cause: str
    partner: str
    coefficient: float
    retention: float
    loss: float

    def __str__(self) -> str:
        effect = f"loss {self.loss:+.3g}"
        if not math.isnan(self.retention):
            effect = f"retention {100 * self.retention:+.1f} points, {effect}"
        if self.cause == "own scaling":
            return f"{self.task}: its own update is applied at {self.coefficient:g} instead of 1 ({effect})"
        return f"{self.task}: {self.partner} at {self.coefficient:g} interferes ({effect})"


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
    """

    coefficients: dict[str, float]
    tasks: dict[str, TaskPrediction]
    tolerance: float
    verdict: Verdict
    reasons: tuple[Reason, ...]
    cost: Cost
    method: str

    def __str__(self) -> str:
        merge = ", ".join(f"{name} {value:g}" for name, value in self.coefficients.items())
        lines = [f"{self.verdict}: every task keeps {1 - self.tolerance:.0%} of its expert's score ({merge})"]
        lines += [f"  {name}: retention {task.retention}, loss {task.loss}" for name, task in self.tasks.items()]
        lines += [f"  because {reason}" for reason in self.reasons[:3]]
        return "\n".join([*lines, f"  cost: {self.cost}"])


def predict_merge(
    problem: MergeProblem,
    coefficients: Coefficients,
    *,
    method: str = "task_arithmetic",
    tolerance: float = 0.1,
) -> MergePrediction:
    """Predict loss, score and retention of every task at θ0 + Σ λ_i τ_i by output expansion (5.1, 5.2).

    The merge is not evaluated: only the base, each expert alone on its ray, and directional derivatives are. The
    interval adds the disagreement between the two measurements of each mixed term, the size of the mixed terms
    themselves, and the sampling error of the examples.

    Args:
        problem: The merge problem.
        coefficients: λ; an expert that a mapping does not name takes no part.
        method: Only ``"task_arithmetic"``.
        tolerance: Share of its expert's score that a task may lose.

    Returns:
        The prediction for every expert that takes part.

    Raises:
        InputError: If the coefficients do not fit the problem, or the method is not known.

    Example:
        >>> from diagnostics.inputs.zoo import quadratic_problem
        >>> problem = quadratic_problem(torch.eye(2).double()[None].repeat(2, 1, 1), torch.eye(2).double())
        >>> round(predict_merge(problem, 0.5).tasks["task_0"].loss.value, 6)
        0.25
    """
    if method not in _METHODS:
        raise InputError(f"method must be one of {list(_METHODS)}, found {method!r}")
    if not 0 <= tolerance < 1:
        raise InputError(f"tolerance is a share of the expert's score between 0 and 1, found {tolerance}")
    lambdas = problem.coefficients(coefficients)
    predicted = {name: _Expansion(problem, name) for name in lambdas}
    tasks = {name: expansion.prediction(lambdas) for name, expansion in predicted.items()}
    reasons = [reason for expansion in predicted.values() for reason in expansion.reasons(lambdas)]
    cost = sum((expansion.table.cost for expansion in predicted.values()), Cost())
    verdict = _verdict([task.retention.against(1 - tolerance) for task in tasks.values()])
    return MergePrediction(lambdas, tasks, tolerance, verdict, tuple(sorted(reasons, key=_effect)), cost, method)


def _verdict(parts: Sequence[Verdict]) -> Verdict:
    """All must be supported; one refuted refutes."""
    if Verdict.REFUTED in parts:
        return Verdict.REFUTED
    return Verdict.UNDECIDED if Verdict.UNDECIDED in parts else Verdict.SUPPORTED


def _effect(reason: Reason) -> tuple[float, float]:
    """Sort key: the largest loss of retention first, then the largest rise of the loss."""
    return (0.0 if math.isnan(reason.retention) else reason.retention, -reason.loss)


@dataclass(frozen=True)
class _Reading:
    """Losses and scores of one version of the outputs, one value per example."""

    losses: Tensor
    scores: Tensor | None

    @property
    def loss(self) -> float:
        return float(self.losses.mean())

    @property
    def score(self) -> float:
        return math.nan if self.scores is None else float(self.scores.mean())


class _Expansion:
    """Predicted outputs of one task at any coefficients, from the problem's table of measured outputs."""

    def __init__(self, problem: MergeProblem, name: str) -> None:
        self.name, self.task = name, problem.tasks[name]
        self.table: OutputTable = problem.cached(
            ("outputs", name), lambda: output_table(self.task, problem.base, problem.task_vectors)
        )
        self.expert = self._read(self.table.rays[name, 1.0])

    def prediction(self, lambdas: Mapping[str, float]) -> TaskPrediction:
        """Predict loss, score and retention with their intervals."""
        readings = {variant: self._read(self._outputs(lambdas, variant)) for variant in VARIANTS}
        mean, own = readings["mean"], self.expert
        # Terms of third order and above are not measured; they grow with the total amount that is added.
        reach = max(1.0, sum(map(abs, lambdas.values())) - 1)
        loss = self._estimate({v: r.loss for v, r in readings.items()}, reach, mean.losses)
        if mean.scores is None or own.scores is None or own.score == 0:
            undefined = Estimate(math.nan, math.nan, math.nan, _CONFIDENCE, Status.UNDEFINED, "the task has no score")
            return TaskPrediction(loss, undefined, undefined, own.loss, own.score)
        floor = 0.0 if float(torch.minimum(mean.scores, own.scores).min()) >= 0 else -math.inf
        score = self._estimate({v: r.score for v, r in readings.items()}, reach, mean.scores, floor)
        paired = (mean.scores - mean.score / own.score * own.scores) / own.score
        retention = self._estimate({v: r.score / own.score for v, r in readings.items()}, reach, paired, floor)
        return TaskPrediction(loss, score, retention, own.loss, own.score)

    def reasons(self, lambdas: Mapping[str, float]) -> list[Reason]:
        """Split the predicted change into own scaling and each partner's interference."""
        alone = {self.name: lambdas[self.name]}
        scaled = self._read(self._outputs(alone, "mean"))
        reasons = [self._reason("own scaling", "", lambdas[self.name], self.expert, scaled)]
        for partner, value in lambdas.items():
            if partner != self.name:
                joined = self._read(self._outputs({**alone, partner: value}, "mean"))
                reasons.append(self._reason("interference", partner, value, scaled, joined))
        # An expert at its own coefficient of 1 differs from itself by rounding alone.
        return [
            reason for reason in reasons if reason.retention < 0 or reason.loss > 1e-6 * (1 + abs(self.expert.loss))
        ]

    def _reason(self, cause: str, partner: str, value: float, before: _Reading, after: _Reading) -> Reason:
        change = (after.score - before.score) / self.expert.score if self.expert.score else math.nan
        return Reason(self.name, cause, partner, value, change, after.loss - before.loss)

    def _outputs(self, lambdas: Mapping[str, float], variant: str) -> list[Tensor]:
        """Predicted outputs of every batch."""
        return [self._batch(index, lambdas, VARIANTS[variant]) for index in range(len(self.table.base))]

    def _batch(self, index: int, lambdas: Mapping[str, float], weights: tuple[float, float]) -> Tensor:
        table, base = self.table, self.table.base[index]

        def ray(name: str, s: float) -> Tensor:
            at_nodes, at_zero = ray_weights(RAY_NODES, s)
            increments = [table.rays[name, node][index] - base for node in RAY_NODES]
            parts = [float(weight) * inc for weight, inc in zip(at_nodes, increments, strict=True)]
            return torch.stack([*parts, at_zero * table.slopes[name][index]]).sum(0)

        def mixed(first: str, second: str) -> Tensor:
            # The task's own expert comes first, so that "first" is the same side in every merge.
            j, k = (second, first) if second == self.name else (first, second)
            cross, slopes = table.cross, table.slopes
            return mixed_term(
                cross[j, k][index], cross[k, j][index], slopes[k][index], slopes[j][index], weights
            )  # fmt: skip

        return sum_of_terms(base, lambdas, ray, mixed)

    def _read(self, outputs: list[Tensor]) -> _Reading:
        """Losses and scores off outputs."""
        readout = readout_of(self.task)
        pairs = list(zip(outputs, self.task.batches, strict=True))
        losses = [_spread(readout.losses(out, batch), self.task, i) for i, (out, batch) in enumerate(pairs)]
        score = readout.score
        scores = None if score is None else torch.cat([score(out, batch).double() for out, batch in pairs])
        return _Reading(torch.cat(losses), scores)

    def _estimate(
        self, values: Mapping[str, float], reach: float, examples: Tensor, floor: float = -math.inf
    ) -> Estimate:
        """Join the disagreement of the variants and the sampling error of the examples into one interval."""
        value = values["mean"]
        corners = max(abs(values["first"] - value), abs(values["second"] - value))
        expansion = reach * (corners + abs(values["additive"] - value))
        sampling = _QUANTILE * float(examples.double().std()) / math.sqrt(len(examples)) if len(examples) > 1 else 0.0
        half = math.hypot(expansion, sampling)
        status = Status.CONVERGED if math.isfinite(half) else Status.UNDEFINED
        evidence = f"expansion +-{expansion:.2g}, sampling +-{sampling:.2g} over {len(examples)} examples"
        return Estimate(value, max(value - half, floor), value + half, _CONFIDENCE, status, evidence)


def _spread(losses: Tensor, task: Task, index: int) -> Tensor:
    """One loss per example; a batch that gives a single mean counts for all its examples."""
    return losses.double() if len(losses) == task.sizes[index] else losses.double().expand(task.sizes[index])
