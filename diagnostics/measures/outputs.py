"""Outputs of a task's model at and around the base and the experts: the data that predictions are made from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.inputs.readout import Readout
from diagnostics.inputs.tasks import Parameters, Task
from diagnostics.measures.hessian import differentiable_twice
from diagnostics.measures.vectors import shifted
from diagnostics.results import Cost

__all__ = ["Observation", "OutputTable", "cost_of", "design", "directional_derivative", "pullback", "readout_of"]


@dataclass(frozen=True)
class Observation:
    """One thing to measure: outputs at θ0 + at · τ_expert, or their derivative along another vector there.

    Attributes:
        expert: On whose ray the point lies; empty for the base.
        at: How far out on it.
        along: Along whose vector the derivative is taken; empty for the outputs themselves.
    """

    expert: str = ""
    at: float = 0.0
    along: str = ""


def design(names: Sequence[str], own: str, nodes: Sequence[float]) -> list[Observation]:
    """Return what a prediction for one task needs to know (5.3): the base, single experts, derivatives there.

    Between the task's own expert and each partner derivatives are taken at all nodes of both; between two partners,
    whose interplay matters less to the task, at the experts alone.

    Args:
        names: The experts that take part.
        own: The task's own expert.
        nodes: Where on each ray outputs are measured; 1 among them.

    Returns:
        The observations; no two experts are ever added.

    Example:
        >>> len(design(["a"], "a", [1.0])), len(design(["a", "b"], "a", [0.5, 1.0]))
        (3, 11)
    """
    wanted = [Observation(), *(Observation(along=name) for name in names)]
    wanted += [Observation(name, node) for name in names for node in nodes]
    for name in names:
        for other in names:
            if other != name:
                near = nodes if own in (name, other) else (1.0,)
                wanted += [Observation(name, node, other) for node in near]
    return wanted


class OutputTable:
    """Outputs of one task, measured when they are first asked for and kept.

    Args:
        task: The task.
        base: θ0.
        vectors: Vectors τ_j by expert.
    """

    def __init__(self, task: Task, base: Parameters, vectors: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._task, self._base, self._vectors = task, base, vectors
        self.entries: dict[Observation, list[Tensor]] = {}

    def read(self, wanted: Iterable[Observation]) -> list[Tensor]:
        """Return observed outputs, measuring those that are not known yet.

        Args:
            wanted: The observations.

        Returns:
            One tensor a batch: the observations stacked, [N, …outputs].

        Raises:
            InputError: If an observation is not finite; the message names it.
        """
        wanted = list(wanted)
        missing: dict[tuple[str, float], list[str]] = defaultdict(list)
        for each in wanted:
            if each not in self.entries:
                missing[each.expert, each.at].append(each.along)
        for (expert, at), directions in missing.items():
            point = shifted(self._base, at, self._vectors[expert]) if expert else self._base
            for along in directions:
                self.entries[Observation(expert, at, along)] = self._measure(point, expert, at, along)
        rows = [self.entries[each] for each in wanted]
        return [torch.stack(batch) for batch in zip(*rows, strict=True)]

    def _measure(self, point: Parameters, expert: str, at: float, along: str) -> list[Tensor]:
        """One observation, refused where it is no number."""
        found = (
            directional_derivative(self._task, point, self._vectors[along]) if along else _outputs(self._task, point)
        )
        if all(bool(batch.isfinite().all()) for batch in found):
            return found
        what = f"the derivative of the outputs towards {along!r}" if along else "outputs"
        where = f"the base plus {at:g} times the update of {expert!r}" if expert else "the base"
        raise InputError(
            f"task {self._task.name!r}: expected finite numbers; {what} at {where} are not. Look for overflow in half "
            "precision, or for an expert whose update is far larger than the others' (diagnostics check)."
        )


def cost_of(observations: Iterable[Observation]) -> Cost:
    """Return what observations cost, in passes over the task's data.

    Args:
        observations: The observations.

    Returns:
        Forward passes and Jacobian-vector products.
    """
    slopes = [bool(each.along) for each in observations]
    return Cost(forwards=slopes.count(False), jvps=slopes.count(True))


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


def pullback(task: Task, params: Parameters, cotangents: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return J(θ)ᵀ w, the gradient of Σ w · f(x; θ).

    Args:
        task: The task.
        params: The point θ.
        cotangents: w, shaped like the outputs, one tensor a batch.

    Returns:
        The gradient by parameter name.
    """
    readout = readout_of(task)
    leaves = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
    total = [torch.zeros_like(value) for value in leaves.values()]
    for batch, weights in zip(task.batches, cotangents, strict=True):
        outputs = readout.outputs(leaves, batch)
        gradients = torch.autograd.grad((outputs * weights.to(outputs)).sum(), list(leaves.values()), allow_unused=True)
        total = [old if new is None else old + new for old, new in zip(total, gradients, strict=True)]
    return dict(zip(leaves, total, strict=True))
