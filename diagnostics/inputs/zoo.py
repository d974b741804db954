"""Problems whose answers are known in closed form, shared by tests, notebooks and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diagnostics.inputs.problem import MergeProblem
from diagnostics.inputs.tasks import Parameters, Task

__all__ = ["quadratic_problem", "quadratic_task"]


def quadratic_task(name: str, hessian: Tensor, minimum: Tensor) -> Task:
    """Return a task with loss ½ (w − m)ᵀ H (w − m), whose Hessian is H everywhere.

    Args:
        name: The task's name.
        hessian: H, symmetric, [d, d].
        minimum: m, the stationary point, [d].

    Returns:
        The task, a function of one parameter ``w``.

    Example:
        >>> quadratic_task("q", torch.eye(2), torch.zeros(2)).mean_loss({"w": torch.ones(2)})
        1.0
    """

    def loss(params: Parameters, batch: Tensor) -> Tensor:
        away = params["w"] - minimum
        return 0.5 * away @ (hessian @ away) + 0 * batch.sum()

    return Task(name, loss, [torch.zeros(1, dtype=hessian.dtype)])


def quadratic_problem(hessians: Tensor, vectors: Tensor, base: Tensor | None = None) -> MergeProblem:
    """Return a merge problem of quadratic tasks, each minimised exactly at its expert.

    Args:
        hessians: H_i, symmetric, [T, d, d].
        vectors: Task vectors τ_i, [T, d].
        base: θ0, [d]; zero by default.

    Returns:
        A problem with experts ``task_0`` … whose every loss gap is ½ vᵀH_i v.

    Example:
        >>> quadratic_problem(torch.eye(2)[None], torch.eye(2)[:1])
        MergeProblem(1 experts ['task_0'], 2 shared parameters)
    """
    origin = torch.zeros(vectors.shape[1], dtype=vectors.dtype) if base is None else base
    names = _names(len(vectors))
    experts = {name: {"w": origin + vector} for name, vector in zip(names, vectors, strict=True)}
    tasks = {name: quadratic_task(name, h, experts[name]["w"]) for name, h in zip(names, hessians, strict=True)}
    return MergeProblem({"w": origin}, experts, tasks)


def _names(count: int) -> Sequence[str]:
    """task_0, task_1, …."""
    return [f"task_{index}" for index in range(count)]
