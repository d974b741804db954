"""What a smaller update costs (3.4): the loss with some ranks or rows of each update, predicted and measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.special import stdtrit
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.inputs.problem import Coefficients, MergeProblem
from diagnostics.inputs.tasks import Task
from diagnostics.measures.output_jets import output_jet
from diagnostics.measures.outputs import model_outputs, readout_of
from diagnostics.measures.reductions import Reducer, Reduction
from diagnostics.measures.vectors import norm
from diagnostics.results import Cost, Estimate, Result, Status
from diagnostics.verdicts.sampling import score_unit, standard_error

__all__ = ["RANKS", "ROWS", "ReductionCost", "ReductionReport", "reduction_costs"]

RANKS = (1, 2, 4, 8, 16)
ROWS = (0.1, 0.25, 0.5)
# Of the error told for an expansion: half of what it adds up to held nine in ten at seeds 0 to 2 of the digits, and at
# seeds 3 to 5, which had no part in the choice (benchmarks/update_structure.py).
_CONFIDENCE, _FACTOR = 0.9, 0.5
# An expansion is of use where its error is below this share of what it predicts, or of what the update gained.
_OF_VALUE, _OF_GAIN = 0.5, 0.05
# One that misses the base's outputs by more than this share of their change says nothing of what lies between.
_REACH = 0.75


@dataclass(frozen=True)
class ReductionCost(Result):
    """What one reduction of the updates does to a task.

    Attributes:
        reduction: What is kept.
        distance: ‖v‖/‖Δ‖: how much of the whole update Δ is gone. For one expert the share kept is 1 − distance².
        numbers: Share of the numbers of an update that are left to store.
        predicted: Change of the loss without evaluating the reduced model; the interval is for the error of the
            expansion on these examples, not for other examples. ``None`` where not asked for, like the next two.
        measured: Change of the loss, with the interval for other examples.
        random: The same with as many random directions or rows instead of the best: the null.
        score: Change of the score, where the task has one.
    """

    reduction: Reduction
    distance: float
    numbers: float
    predicted: Estimate | None = None
    measured: Estimate | None = None
    random: Estimate | None = None
    score: Estimate | None = None

    def __str__(self) -> str:
        parts = [] if self.predicted is None else [f"{self.predicted} predicted"]
        parts += [] if self.measured is None else [f"{self.measured} measured (random: {self.random})"]
        return f"{self.reduction}: loss {', '.join(parts)}"


@dataclass(frozen=True)
class ReductionReport(Result):
    """What reductions of the updates do to a task.

    Attributes:
        task: Whose loss is told.
        coefficients: λ by expert: the merge whose updates are reduced, or one expert alone.
        loss: Loss of the merge with whole updates, on these examples.
        gain: By how much the whole updates lower the base's loss, with the interval for other examples.
        costs: One for each reduction.
        cost: Passes over the task's data.
    """

    task: str
    coefficients: dict[str, float]
    loss: float
    gain: Estimate
    costs: tuple[ReductionCost, ...]
    cost: Cost

    def __str__(self) -> str:
        parts = " ".join(f"{value:+g} {name}" for name, value in self.coefficients.items())
        lines = [f"{self.task} at {parts}: loss {self.loss:.4g}, below the base by {self.gain}"]
        return "\n".join([*lines, *(f"  {each}" for each in self.costs), f"  cost: {self.cost}"])


@dataclass(frozen=True)
class _Whole:
    """The merge with whole updates, seen by one task, and how well an expansion there reaches the base.

    Attributes:
        task: The task.
        point: θ*.
        move: Δ = θ* − θ0.
        base: f(θ0), one tensor a batch.
        outputs: f(θ*), likewise.
        losses: Of each example.
        miss: By how much the second-order expansion at θ* misses f(θ0), likewise; nothing where there is to be no
            prediction.
    """

    task: Task
    point: dict[str, Tensor]
    move: dict[str, Tensor]
    base: list[Tensor]
    outputs: list[Tensor]
    losses: list[Tensor]
    miss: list[Tensor]

    @property
    def gain(self) -> float:
        """L(θ0) − L(θ*)."""
        return _mean(self.task, _losses(self.task, self.base)) - _mean(self.task, self.losses)

    @property
    def missed(self) -> float:
        """‖miss‖/‖f(θ0) − f(θ*)‖."""
        change = _length([one - two for one, two in zip(self.base, self.outputs, strict=True)])
        return _length(self.miss) / change if change > 0 else math.inf


def reduction_costs(
    problem: MergeProblem,
    name: str,
    *,
    ranks: Sequence[int] = RANKS,
    rows: Sequence[float] = ROWS,
    coefficients: Coefficients | None = None,
    predict: bool = True,
    measure: bool = True,
    confidence: float = 0.9,
    seed: int = 0,
) -> ReductionReport:
    """Predict and measure what it costs a task when every update keeps few ranks or rows (3.4).

    With θ* the merge, v the change that the reductions make to it and f the outputs, the loss is read off

    f(θ* + v) ≈ f(θ*) + Jv + ½ D²f[v, v],

    all of it measured at θ*. The error told is ½√(a² + b²), where both are means of absolute changes of the examples'
    losses, so that it does not count on their cancelling. a: when (‖v‖/‖Δ‖)³ times the miss of the same expansion at
    the base, where the outputs are known, is added to the outputs or taken off. b: ‖v‖/‖Δ‖ times what the second-order
    term makes. Reductions are of each expert's update by itself, before they are added.

    Args:
        problem: The merge problem.
        name: The task.
        ranks: Ranks to keep of every matrix.
        rows: Shares of the rows to keep of every matrix, those of largest norm.
        coefficients: The merge; by default the task's own expert alone.
        predict: Whether to predict. It costs more than to evaluate one reduced model: it is there to be checked, and
            to say why.
        measure: Whether to evaluate the reduced models, and as many random directions or rows as the null.
        confidence: Of the intervals of what is measured.
        seed: Of the null.

    Returns:
        The costs: ranks first, in the order given.

    Raises:
        InputError: If the task is unknown, nothing is asked for, or the updates are zero or cancel.

    Example:
        >>> from diagnostics.inputs.zoo import quadratic_task
        >>> task = quadratic_task("t", torch.eye(4).double(), torch.tensor([1.0, 0.0, 0.0, 2.0]).double())
        >>> task = task.through(lambda params: {"w": params["w"].flatten()})
        >>> expert = {"w": torch.diag(torch.tensor([1.0, 2.0])).double()}
        >>> problem = MergeProblem({"w": torch.zeros(2, 2).double()}, {"t": expert}, {"t": task})
        >>> cost = reduction_costs(problem, "t", ranks=[1], rows=[]).costs[0]
        >>> round(cost.predicted.value, 6), round(cost.measured.value, 6), round(cost.distance**2, 6)
        (0.5, 0.5, 0.2)
    """
    wanted = [Reduction("rank", rank) for rank in ranks] + [Reduction("rows", share) for share in rows]
    if not (predict or measure):
        raise InputError("predict and measure: expected one of them; found neither. Leave predict=True.")
    lambdas = _checked(problem, name, wanted, coefficients, confidence)
    whole = _whole(problem, name, lambdas, predict)
    most = max(ranks, default=1)
    reducers = {each: Reducer(problem.task_vectors[each], most, seed + i) for i, each in enumerate(lambdas)}
    size = sum(tensor.numel() for tensor in whole.move.values())
    costs = []
    for each in wanted:
        change = _change(whole, reducers, lambdas, each, random=False)
        loss = score = null = None
        if measure:
            loss, score = _measured(whole, change, confidence)
            null, _ = _measured(whole, _change(whole, reducers, lambdas, each, random=True), confidence)
        costs.append(
            ReductionCost(
                reduction=each,
                distance=norm(change) / norm(whole.move),
                numbers=sum(each.numbers(tuple(tensor.shape)) for tensor in whole.move.values()) / size,
                predicted=_predicted(whole, change) if predict else None,
                measured=loss,
                random=null,
                score=score,
            )
        )
    jets = predict * (1 + len(wanted))
    spent = Cost(forwards=2 + jets + 2 * measure * len(wanted), jvps=3 * jets)
    gain = _difference(whole.task, _losses(whole.task, whole.base), whole.losses, confidence)
    return ReductionReport(name, lambdas, _mean(whole.task, whole.losses), gain, tuple(costs), spent)


def _checked(
    problem: MergeProblem,
    name: str,
    wanted: Sequence[Reduction],
    coefficients: Coefficients | None,
    confidence: float,
) -> dict[str, float]:
    """The coefficients, or a refusal."""
    if name not in problem.names:
        raise InputError(f"name: expected a task of {list(problem.names)}; found {name!r}.")
    if not wanted:
        raise InputError("ranks and rows: expected at least one reduction; found none. Write ranks=[1].")
    if not 0 < confidence < 1:
        raise InputError(f"confidence: expected a number between 0 and 1; found {confidence}. Write 0.9.")
    lambdas = problem.coefficients({name: 1.0} if coefficients is None else coefficients)
    if norm(problem.displacement(lambdas)) == 0:
        raise InputError(
            f"coefficients: expected updates that move the base; found {lambdas}, at which they are zero or cancel."
        )
    return lambdas


def _whole(problem: MergeProblem, name: str, lambdas: Mapping[str, float], predict: bool) -> _Whole:
    """Measure the merge with whole updates, and where asked for the expansion there towards the base."""
    task, move = problem.tasks[name], problem.displacement(lambdas)
    point = {key: value + move[key] for key, value in problem.base.items()}
    base, outputs = model_outputs(task, problem.base), model_outputs(task, point)
    miss = []
    if predict:
        jet = output_jet(task, point, {key: -value for key, value in move.items()})
        miss = [known - told for known, told in zip(base, jet.at_one(2), strict=True)]
    return _Whole(task, point, move, base, outputs, _losses(task, outputs), miss)


def _change(
    whole: _Whole,
    reducers: Mapping[str, Reducer],
    lambdas: Mapping[str, float],
    reduction: Reduction,
    *,
    random: bool,
) -> dict[str, Tensor]:
    """v: what the merge of reduced updates is away from the merge of whole ones."""
    total = {key: torch.zeros_like(value) for key, value in whole.move.items()}
    for expert, weight in lambdas.items():
        part, vector = reducers[expert].reduce(reduction, random=random), reducers[expert].vector
        total = {key: value + weight * (part[key] - vector[key]) for key, value in total.items()}
    return total


def _predicted(whole: _Whole, change: Mapping[str, Tensor]) -> Estimate:
    """Change of the loss by the expansion, and how far that may be off."""
    share = norm(change) / norm(whole.move)
    if share == 0:
        return Estimate(0.0, 0.0, 0.0, _CONFIDENCE, Status.EXACT, "nothing is dropped")
    jet = output_jet(whole.task, whole.point, change)
    told = jet.at_one(2)
    first, second = (torch.cat(_losses(whole.task, outputs)) for outputs in (jet.at_one(1), told))
    value = _rise(whole, told)
    shifted = [[out + sign * share**3 * miss for out, miss in zip(told, whole.miss, strict=True)] for sign in (-1, 1)]
    third = max(float((torch.cat(_losses(whole.task, each)) - second).abs().mean()) for each in shifted)
    next_term = share * float((second - first).abs().mean())
    half = _FACTOR * math.hypot(third, next_term)
    trusted = half <= max(_OF_VALUE * abs(value), _OF_GAIN * abs(whole.gain)) and whole.missed <= _REACH
    status = Status.CONVERGED if trusted else Status.TAINTED
    evidence = (
        f"second-order expansion of the outputs over {share:.2f} of the update: the third order moves losses by "
        f"{third:.2g}, the next term of the series by {next_term:.2g}; over all of the update it misses "
        f"{whole.missed:.0%} of the change of the outputs"
    )
    return Estimate(value, value - half, value + half, _CONFIDENCE, status, evidence)


def _measured(whole: _Whole, change: Mapping[str, Tensor], confidence: float) -> tuple[Estimate, Estimate | None]:
    """Change of loss and score, evaluated on the same examples before and after."""
    task = whole.task
    outputs = model_outputs(task, {key: value + change[key] for key, value in whole.point.items()})
    loss = _difference(task, _losses(task, outputs), whole.losses, confidence)
    if task.readout is None or task.readout.score is None:
        return loss, None
    scores = [
        torch.cat([task.readout.score(out, batch).double() for out, batch in zip(outs, task.batches, strict=True)])
        for outs in (outputs, whole.outputs)
    ]
    return loss, _paired(scores[0] - scores[1], score_unit(torch.cat(scores)), confidence)


def _difference(task: Task, one: Sequence[Tensor], other: Sequence[Tensor], confidence: float) -> Estimate:
    """Mean of one set of losses above another's, on the same examples."""
    if task.readout is None:
        rise = _mean(task, one) - _mean(task, other)
        why = "the task has no loss by example"
        return Estimate(rise, -math.inf, math.inf, confidence, Status.CONVERGED, why)
    return _paired(torch.cat(list(one)) - torch.cat(list(other)), 0.0, confidence)


def _paired(differences: Tensor, unit: float, confidence: float) -> Estimate:
    """Mean of paired differences with Student's interval."""
    value, count = float(differences.mean()), len(differences)
    if count < 2:
        return Estimate(value, -math.inf, math.inf, confidence, Status.CONVERGED, "one example")
    half = float(stdtrit(count - 1, (1 + confidence) / 2)) * standard_error(differences, unit)
    return Estimate(value, value - half, value + half, confidence, Status.CONVERGED, f"{count} examples, paired")


def _losses(task: Task, outputs: Sequence[Tensor]) -> list[Tensor]:
    """Loss of each example, one tensor a batch."""
    losses = readout_of(task).losses
    return [losses(out, batch).double() for out, batch in zip(outputs, task.batches, strict=True)]


def _mean(task: Task, losses: Sequence[Tensor]) -> float:
    """Mean over examples, batches by their sizes."""
    return sum(size * float(each.mean()) for size, each in zip(task.sizes, losses, strict=True)) / task.examples


def _length(outputs: Sequence[Tensor]) -> float:
    """Norm of all outputs together."""
    return math.sqrt(sum(float(each.double().square().sum()) for each in outputs))


def _rise(whole: _Whole, outputs: Sequence[Tensor]) -> float:
    """Mean loss read off outputs, above that of the whole updates."""
    return _mean(whole.task, _losses(whole.task, outputs)) - _mean(whole.task, whole.losses)
