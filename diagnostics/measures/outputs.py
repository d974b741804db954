"""Outputs of a task's model at and around the base and the experts: the data that predictions are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from diagnostics.inputs.readout import Readout
from diagnostics.inputs.tasks import Parameters, Task
from diagnostics.measures.curvature import differentiable_twice
from diagnostics.measures.vectors import shifted
from diagnostics.results import Cost

__all__ = ["RAY_NODES", "OutputTable", "directional_derivative", "output_table", "readout_of"]

# Where on each ray θ0 + s·τ_j the outputs are evaluated; s = 0 is the base.
RAY_NODES = (0.5, 1.0, 1.5)


@dataclass(frozen=True)
class OutputTable:
    """Outputs of one task, one tensor a batch: single models and first derivatives, never a merge.

    Attributes:
        names: The experts.
        base: f(x; θ0).
        rays: f(x; θ0 + s·τ_j) by expert and s.
        slopes: J(x; θ0)τ_j by expert.
        cross: J(x; θ_j)τ_l by (j, l), j ≠ l.
        cost: Passes over the task's data.
    """

    names: tuple[str, ...]
    base: list[Tensor]
    rays: dict[tuple[str, float], list[Tensor]]
    slopes: dict[str, list[Tensor]]
    cross: dict[tuple[str, str], list[Tensor]]
    cost: Cost


def output_table(task: Task, base: Parameters, vectors: Mapping[str, Mapping[str, Tensor]]) -> OutputTable:
    """Evaluate a task's outputs at the base and along each task vector, with directional derivatives (5.1).

    Args:
        task: The task.
        base: θ0.
        vectors: Task vectors τ_j by expert.

    Returns:
        The table. Cost for T experts: 3T + 1 forward passes and T² Jacobian-vector products.
    """
    names = tuple(vectors)
    rays = {(name, s): _outputs(task, shifted(base, s, vectors[name])) for name in names for s in RAY_NODES}
    slopes = {name: directional_derivative(task, base, vectors[name]) for name in names}
    cross = {
        (at, along): directional_derivative(task, shifted(base, 1.0, vectors[at]), vectors[along])
        for at in names
        for along in names
        if at != along
    }
    cost = Cost(forwards=1 + len(rays), jvps=len(slopes) + len(cross))
    return OutputTable(names, _outputs(task, base), rays, slopes, cross, cost)


def readout_of(task: Task) -> Readout:
    """Return a task's readout; for a task that has only a loss, one that treats the loss as the output.

    Args:
        task: The task.

    Returns:
        The readout; without a score where the task has no outputs.
    """
    if task.readout is not None:
        return task.readout
    return Readout(lambda params, batch: task.loss(params, batch).reshape(1), lambda outputs, batch: outputs, None)


def _outputs(task: Task, params: Parameters) -> list[Tensor]:
    """Outputs at a point."""
    readout = readout_of(task)
    with torch.no_grad():
        return [readout.outputs(params, batch) for batch in task.batches]


def directional_derivative(task: Task, params: Parameters, direction: Mapping[str, Tensor]) -> list[Tensor]:
    """Return J(x; θ)·v, the derivative of the outputs along a direction.

    Args:
        task: The task.
        params: The point θ.
        direction: The direction v, with the names and shapes of ``params``.

    Returns:
        One tensor a batch, shaped like the outputs.
    """
    readout = readout_of(task)
    derivatives = []
    with torch.no_grad(), differentiable_twice():
        for batch in task.batches:

            def outputs(theta: Parameters, batch: object = batch) -> Tensor:
                return readout.outputs(theta, batch)

            derivatives.append(torch.func.jvp(outputs, (dict(params),), (dict(direction),))[1])
    return derivatives
