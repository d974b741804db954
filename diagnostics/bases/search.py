"""Tuning the coefficients of bases, or of any few vectors, by evaluating merges (2.15)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from diagnostics.errors import InputError, require_count
from diagnostics.inputs.tasks import Task
from diagnostics.results import Cost, Result

__all__ = ["GRID", "CoefficientSearch", "search_coefficients"]

GRID = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5)


@dataclass(frozen=True)
class CoefficientSearch(Result):
    """The outcome of a search; on the data that it was tuned on, so an optimistic figure.

    Attributes:
        coefficients: λ by vector.
        objective: What was largest there: the mean score of the tasks, or minus the mean loss.
        tasks: The same by task.
        evaluated: Every merge that was evaluated, as coefficients and objective.
        vectors: Vectors held in memory during the search.
        cost: Forward passes over one task's data.
    """

    coefficients: dict[str, float]
    objective: float
    tasks: dict[str, float]
    evaluated: tuple[tuple[dict[str, float], float], ...]
    vectors: int
    cost: Cost

    def __str__(self) -> str:
        shown = ", ".join(f"{name} {value:g}" for name, value in self.coefficients.items())
        return f"{shown}: {self.objective:.4g} of {len(self.evaluated)} merges of {self.vectors} vectors ({self.cost})"


def search_coefficients(
    base: Mapping[str, Tensor],
    vectors: Mapping[str, Mapping[str, Tensor]],
    tasks: Mapping[str, Task],
    *,
    grid: Sequence[float] = GRID,
    shared: bool = True,
    rounds: int = 1,
) -> CoefficientSearch:
    """Evaluate θ0 + Σ λ_c b_c on a grid, and return the best.

    With one λ for all it takes as many evaluations as the grid has values, whatever the number of vectors; with one for
    each, ``rounds`` times the number of vectors as many again, one coefficient at a time from the best shared one. What
    bases save is memory in the first case, m vectors in place of T, and time as well in the second.

    Args:
        base: θ0.
        vectors: The vectors b_c by name, of bases or of experts.
        tasks: Tasks as functions of the shared parameters; scores where all have one, and losses where not.
        grid: Values of λ.
        shared: Whether one λ is for all.
        rounds: Rounds of the search one by one.

    Returns:
        The best coefficients and all that was tried.

    Raises:
        InputError: If there is no vector, task or value, or one is not finite.

    Example:
        >>> import torch
        >>> from diagnostics.inputs.zoo import quadratic_task
        >>> task = quadratic_task("q", torch.eye(2), torch.tensor([0.4, 1.0]))
        >>> vectors = {"a": {"w": torch.tensor([1.0, 0.0])}, "b": {"w": torch.tensor([0.0, 1.0])}}
        >>> search_coefficients({"w": torch.zeros(2)}, vectors, {"q": task}, shared=False).coefficients
        {'a': 0.4, 'b': 1.0}
    """
    require_count("rounds", rounds)
    if not (vectors and tasks and grid) or not all(map(math.isfinite, grid)):
        raise InputError(
            f"search: expected vectors, tasks and finite values; found {len(vectors)}, {len(tasks)} and {list(grid)}."
        )
    measure = _measure(tasks)
    tried: list[tuple[dict[str, float], dict[str, float]]] = []

    def try_out(weights: dict[str, float]) -> None:
        if weights not in [known for known, _ in tried]:
            tried.append(
                (weights, {name: measure(task, _merged(base, vectors, weights)) for name, task in tasks.items()})
            )

    for value in grid:
        try_out(dict.fromkeys(vectors, float(value)))
    for _ in range(0 if shared else rounds):
        for name in vectors:
            best = max(tried, key=lambda pair: _mean(pair[1]))[0]
            for value in grid:
                try_out({**best, name: float(value)})
    coefficients, scores = max(tried, key=lambda pair: _mean(pair[1]))
    evaluated = tuple((weights, _mean(found)) for weights, found in tried)
    cost = Cost(forwards=len(tried) * len(tasks))
    return CoefficientSearch(coefficients, _mean(scores), scores, evaluated, len(vectors), cost)


def _measure(tasks: Mapping[str, Task]) -> Callable[[Task, Mapping[str, Tensor]], float]:
    """What is to be large: scores where every task has one, minus losses where not."""
    if all(task.readout is not None and task.readout.score is not None for task in tasks.values()):
        return lambda task, params: task.score(params)
    return lambda task, params: -task.mean_loss(params)


def _merged(
    base: Mapping[str, Tensor], vectors: Mapping[str, Mapping[str, Tensor]], weights: Mapping[str, float]
) -> dict[str, Tensor]:
    """θ0 + Σ λ b, one tensor of one vector at a time."""
    merged = {}
    for key, value in base.items():
        total = value.clone()
        for name, weight in weights.items():
            total.add_(vectors[name][key].to(total), alpha=weight)
        merged[key] = total
    return merged


def _mean(found: Mapping[str, float]) -> float:
    """The mean over tasks."""
    return math.fsum(found.values()) / len(found)
