"""Which coefficients to merge with: searched on predicted outputs, so that no candidate costs a model run."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from diagnostics.errors import InputError, require_one_of, require_share
from diagnostics.inputs.problem import MergeProblem
from diagnostics.results import Cost, Estimate, Result, Verdict
from diagnostics.verdicts.coefficient_search import axis, search
from diagnostics.verdicts.finalists import Evaluation, Finalists
from diagnostics.verdicts.landscape import Aim, Landscape, Metric, Objective
from diagnostics.verdicts.merge_parts import merge_parts
from diagnostics.verdicts.mergeability import MergePrediction, joint_verdict, predict_merge

__all__ = ["CoefficientChoice", "best_coefficients"]

_GUESSES = (0.3, 0.5, 1.0)
# Finalists of a search differ by this much in some coefficient; on a grid they do by themselves.
_GAP = 0.05


@dataclass(frozen=True)
class CoefficientChoice(Result):
    """Coefficients that are predicted, or measured, to be best.

    Attributes:
        coefficients: λ by expert.
        goal: What was maximised.
        metric: ``"retention"`` or ``"loss"``.
        objective: Its value at the choice on the examples at hand; exact if it was measured.
        prediction: What the merge is predicted to do to every task.
        regret: How much better the best of the finalists may be, in units of the objective.
        baselines: Predicted objective at the usual guesses.
        candidates: Number of merges looked at, by prediction.
        curve: Pairs (λ, predicted objective) for one λ for all.
        evaluated: The merges that were evaluated, best predicted first.
        at_least: Least retention asked of tasks.
        shortfalls: By how much tasks miss it at the choice, as predicted or measured.
        verdict: Whether the choice keeps what is asked: ``at_least``, or 1 − tolerance of every task without it.
            About the examples at hand where the choice was measured, else as ``prediction`` sees it.
        cost: Passes over one task's data, verification included, all tasks added up.
        evaluations: Number of merges evaluated.
    """

    coefficients: dict[str, float]
    goal: str
    metric: str
    objective: Estimate
    prediction: MergePrediction
    regret: Estimate
    baselines: dict[str, float]
    candidates: int
    curve: tuple[tuple[float, float], ...]
    evaluated: tuple[Evaluation, ...]
    at_least: dict[str, float]
    shortfalls: dict[str, float]
    verdict: Verdict
    cost: Cost
    evaluations: int

    def __str__(self) -> str:
        merge = ", ".join(f"{name} {value:g}" for name, value in self.coefficients.items())
        how = "measured" if self.evaluations else "predicted"
        guesses = ", ".join(f"{name} {value:.4g}" for name, value in self.baselines.items())
        found = self.prediction.tasks
        tasks = [f"{name}: predicted retention {t.retention}, loss {t.loss}" for name, t in found.items()]
        lines = [
            f"{merge}: {how} {self.goal} {self.objective}",
            f"  every task keeps what is asked of it: {self.verdict}",
            *(f"  {name} falls short by {value:.3g}" for name, value in self.shortfalls.items()),
            f"  regret {self.regret}, {self.candidates} candidates",
            f"  usual guesses: {guesses}",
            *(f"  {line}" for line in tasks),
            f"  cost: {self.cost}, merges evaluated: {self.evaluations}",
        ]
        return "\n".join(textwrap.fill(line, 80, subsequent_indent="    ") for line in lines)


def best_coefficients(
    problem: MergeProblem,
    experts: Sequence[str] | None = None,
    *,
    objective: Objective = "mean",
    metric: Metric | None = None,
    shared: bool = False,
    bounds: tuple[float, float] = (0.0, 1.5),
    at_least: Mapping[str, float] | None = None,
    verify: int = 0,
    tolerance: float = 0.1,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> CoefficientChoice:
    """Choose the coefficients of a merge by prediction, from single models alone (5.1)-(5.3).

    Candidates are a grid for one or two coefficients, and quasi-random points with a pattern search for more. The
    best prediction of many is too good on average; so the 32 best are ranked again by the pessimistic ends of their
    intervals, as if all tasks erred to the same side. Retention moves in steps of one example: a thousandth of the
    mean loss gap decides between equals.

    Args:
        problem: The merge problem.
        experts: Names of the experts that take part; all of them by default.
        objective: Whether the mean of the tasks counts or the worst task.
        metric: ``"retention"``, or ``"loss"`` for minus the loss over the expert's own; by default retention where
            every task has a score.
        shared: Whether all experts get the same coefficient.
        bounds: Least and largest coefficient. Outputs are measured up to 1.5 times each expert's update.
        at_least: Least retention by task. Only merges that are predicted to meet it count; without any, the nearest
            is returned, with what is missing.
        verify: How many of the best candidates to evaluate on the tasks' examples; the best as measured is returned.
        tolerance: Share of its expert's score that a task may lose for the verdict.
        seed: Seed of the candidates.
        progress: Called with the share of the measurements that are done.

    Returns:
        The choice with its prediction and its regret.

    Raises:
        InputError: If names, bounds or settings do not fit the problem.

    Example:
        >>> import torch
        >>> from diagnostics.inputs.zoo import quadratic_problem
        >>> problem = quadratic_problem(torch.eye(2).double()[None].repeat(2, 1, 1), torch.eye(2).double())
        >>> best_coefficients(problem).coefficients
        {'task_0': 0.5, 'task_1': 0.5}
    """
    names = _names(problem, experts)
    _check(objective, bounds, verify, tolerance, seed)
    parts = merge_parts(problem, dict.fromkeys(names, 1.0), "task_arithmetic", {})
    surrogates = parts.surrogates(problem, names, progress)
    # A retention is a share of the expert's score, so that score must be there and not be zero.
    scored = {each.names[i]: each.expert.score > 0 for i, each in enumerate(surrogates)}
    asked = _asked(scored, at_least or {})
    least = np.array([asked.get(name, -math.inf) for name in names])
    landscape = Landscape(surrogates, Aim(_metric(scored, metric), objective, least))
    search(landscape.look, len(names), bounds, shared=shared, seed=seed)
    baselines = _baselines(landscape, bounds)
    final = Finalists.best_of(landscape, 0.0 if shared or len(names) < 3 else _GAP)
    final = final.verified(problem, verify) if verify else final
    prediction = predict_merge(problem, final.merge(final.choice), tolerance=tolerance)
    kept = final.retentions() or {name: task.retention for name, task in prediction.tasks.items()}
    limits = asked or dict.fromkeys(names, 1 - tolerance)
    return CoefficientChoice(
        coefficients=final.merge(final.choice),
        goal=landscape.aim.goal,
        metric=landscape.aim.metric,
        objective=final.objective(),
        prediction=prediction,
        regret=final.regret(),
        baselines=baselines,
        candidates=len(landscape.points),
        curve=_curve(landscape, bounds),
        evaluated=final.evaluations(),
        at_least=asked,
        shortfalls=final.shortfalls(),
        verdict=joint_verdict([kept[name].against(limit) for name, limit in limits.items()]),
        cost=prediction.cost + Cost(forwards=len(final.evaluated) * len(names)),
        evaluations=len(final.evaluated),
    )


def _names(problem: MergeProblem, experts: Sequence[str] | None) -> tuple[str, ...]:
    """The experts that take part, in the problem's order."""
    given = problem.names if experts is None else experts
    if isinstance(given, str) or not given or len(set(given)) < len(given) or set(given) - set(problem.names):
        raise InputError(f"experts: expected different names out of {list(problem.names)}; found {given!r}.")
    return tuple(name for name in problem.names if name in given)


def _check(objective: str, bounds: tuple[float, float], verify: int, tolerance: float, seed: int) -> None:
    """Refuse settings that mean nothing."""
    require_one_of("objective", objective, get_args(Objective))
    if len(bounds) != 2 or not all(map(math.isfinite, bounds)) or not bounds[0] < bounds[1]:
        raise InputError(f"bounds: expected two numbers, the smaller first, such as (0.0, 1.5); found {bounds!r}.")
    require_share("tolerance", tolerance)
    for name, value in {"verify": verify, "seed": seed}.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InputError(f"{name}: expected a whole number from 0 on; found {value!r}.")


def _metric(scored: Mapping[str, bool], given: str | None) -> Metric:
    """The metric asked for, or retention where every task has one."""
    if given not in (None, *get_args(Metric)):
        require_one_of("metric", given, get_args(Metric))
    without = [name for name, has in scored.items() if not has]
    if given == "retention" and without:
        raise InputError(
            f"metric: expected tasks whose expert has a score above zero; found none for {without}. Choose 'loss'."
        )
    return "loss" if given == "loss" or without else "retention"


def _asked(scored: Mapping[str, bool], at_least: Mapping[str, float]) -> dict[str, float]:
    """What is asked of which task, checked."""
    for name, value in at_least.items():
        if name not in scored:
            raise InputError(f"at_least: expected experts that take part, {list(scored)}; found {name!r}.")
        if not scored[name]:
            raise InputError(f"at_least: expected tasks whose expert has a score above zero; {name!r} has none.")
        if not 0 < value <= 1:
            raise InputError(f"at_least: expected a share of the expert's score such as 0.95; {name!r} has {value}.")
    return {name: float(at_least[name]) for name in scored if name in at_least}


def _baselines(landscape: Landscape, bounds: tuple[float, float]) -> dict[str, float]:
    """The objective at the usual guesses, which are candidates too where the bounds allow them."""
    count = len(landscape.surrogates)
    guesses = {"average": 1 / count, **{f"{value:g} each": value for value in _GUESSES}}
    points = np.repeat(np.array([*guesses.values()])[:, None], count, axis=1)
    landscape.look(points[(points[:, 0] >= bounds[0]) & (points[:, 0] <= bounds[1])])
    values = landscape.aim.value(landscape.predict(points))
    return dict(zip(guesses, map(float, values), strict=True))


def _curve(landscape: Landscape, bounds: tuple[float, float]) -> tuple[tuple[float, float], ...]:
    """The objective along one coefficient for all."""
    line = axis(bounds)
    values = landscape.aim.value(landscape.predict(np.repeat(line[:, None], len(landscape.surrogates), axis=1)))
    return tuple(zip(line.tolist(), values.tolist(), strict=True))
