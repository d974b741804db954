"""Outputs of a task's model at and around the base and the experts: the data that predictions are made from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.inputs.readout import Readout
from diagnostics.inputs.store import Store, digest
from diagnostics.inputs.tasks import Parameters, Task
from diagnostics.measures.hessian import differentiable_twice
from diagnostics.measures.memory import available_bytes
from diagnostics.measures.vectors import accumulate, nearby, shifted, unflatten, zero_vector
from diagnostics.processes import team
from diagnostics.results import Cost

__all__ = [
    "Observation",
    "OutputTable",
    "cost_of",
    "design",
    "directional_derivative",
    "directional_derivatives",
    "model_outputs",
    "pullback",
    "readout_of",
    "task_identity",
]

# Share of the free memory that directions taken together may use, and the bytes each takes in units of its own: a
# copy of it beside the others, and what its part of the activations is reckoned at.
_SHARE = 0.25
_COPIES = 3


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
        store: Where they are kept beyond this table.

    Attributes:
        entries: What is known: one tensor a batch by observation.
        identity: Digest of the task and of θ0, where there is a store and it was asked.
    """

    def __init__(
        self,
        task: Task,
        base: Parameters,
        vectors: Mapping[str, Mapping[str, Tensor]],
        store: Store | None = None,
    ) -> None:
        self._task, self._base, self._vectors, self._store = task, base, vectors, store
        self.entries: dict[Observation, list[Tensor]] = {}
        self.identity = ""
        self._digests: dict[str, str] = {}

    def read(
        self, wanted: Iterable[Observation], progress: Callable[[float], None] = lambda share: None
    ) -> list[Tensor]:
        """Return observed outputs, measuring those that are not known yet.

        Args:
            wanted: The observations.
            progress: Called with the share of the points to measure that are done.

        Returns:
            One tensor a batch: the observations stacked, [N, …outputs].

        Raises:
            InputError: If an observation is not finite; the message names it.
        """
        wanted = list(wanted)
        if self._store is not None:
            self._recall(self._store, [each for each in wanted if each not in self.entries])
        missing: dict[tuple[str, float], list[str]] = defaultdict(list)
        for each in wanted:
            if each not in self.entries:
                missing[each.expert, each.at].append(each.along)
        for done, ((expert, at), directions) in enumerate(missing.items(), start=1):
            point = shifted(self._base, at, self._vectors[expert]) if expert else self._base
            self._measure(point, expert, at, directions)
            progress(done / len(missing))
        rows = [self.entries[each] for each in wanted]
        return [torch.stack(batch) for batch in zip(*rows, strict=True)]

    def _measure(self, point: Parameters, expert: str, at: float, directions: Sequence[str]) -> None:
        """Observe outputs at a point and their derivatives there, all in one pass; refuse what is no number."""
        along = [name for name in directions if name]
        slopes = directional_derivatives(self._task, point, [self._vectors[name] for name in along])
        found = {name: [batch[index] for batch in slopes] for index, name in enumerate(along)}
        if "" in directions:
            found[""] = model_outputs(self._task, point)
        for name, batches in found.items():
            if not all(bool(batch.isfinite().all()) for batch in batches):
                raise self._refusal(expert, at, name)
            each = Observation(expert, at, name)
            self.entries[each] = batches
            # Processes that measured it together have the same.
            if self._store is not None and team().rank == 0:
                self._store.write(self._key(each), {str(index): batch for index, batch in enumerate(batches)})

    def _recall(self, store: Store, wanted: Sequence[Observation]) -> None:
        """Take what the store has: for all processes that will measure the rest together."""
        if not wanted:
            return
        self.identity = self.identity or task_identity(self._task, self._base)
        found = [store.read(self._key(each)) for each in wanted]
        crew = team()
        counts = crew.total(lambda: [torch.tensor([each is not None for each in found], dtype=torch.int64)])[0]
        for each, tensors, count in zip(wanted, found, counts.tolist(), strict=True):
            if tensors is not None and count == crew.size:
                self.entries[each] = [tensors[str(index)] for index in range(len(tensors))]

    def _key(self, each: Observation) -> str:
        """Digest of all that an observation depends on."""
        place = (self._digest(each.expert), each.at) if each.expert else ()
        return digest("outputs", self.identity, place, self._digest(each.along) if each.along else "")

    def _digest(self, name: str) -> str:
        """Digest of a vector."""
        if name not in self._digests:
            self._digests[name] = digest(self._vectors[name])
        return self._digests[name]

    def _refusal(self, expert: str, at: float, along: str) -> InputError:
        """The error for an observation that is not finite."""
        what = f"the derivative of the outputs towards {along!r}" if along else "outputs"
        where = f"the base plus {at:g} times the update of {expert!r}" if expert else "the base"
        return InputError(
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


def task_identity(task: Task, params: Parameters) -> str:
    """Return a digest of a task: of its data, and of what its model makes of them.

    Two functions are told apart by their outputs at a point near ``params`` drawn at random, bit for bit: code has no
    content that could be compared, and at θ itself two functions may agree that differ elsewhere.

    Args:
        task: The task.
        params: The point θ, which is part of the digest.

    Returns:
        The digest. Cost: one forward pass.

    Raises:
        InputError: If the data have parts whose content cannot be told.
    """
    return digest(dict(params), list(task.batches), model_outputs(task, nearby(params)))


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


def model_outputs(task: Task, params: Parameters) -> list[Tensor]:
    """Return the outputs at a point, or the losses of a task that has no outputs.

    Args:
        task: The task.
        params: The point θ.

    Returns:
        One tensor a batch, on the CPU, where predictions are made of them.
    """
    if task.readout is not None:
        return task.outputs(params)

    def of_batch(batch: Any) -> Tensor:
        with torch.no_grad():
            return readout_of(task).outputs(params, batch).cpu()

    return team().collect(task.batches, of_batch)


def directional_derivative(task: Task, params: Parameters, direction: Mapping[str, Tensor]) -> list[Tensor]:
    """Return J(x; θ)·v, the derivative of the outputs along a direction.

    Args:
        task: The task.
        params: The point θ.
        direction: The direction v, with the names and shapes of ``params``.

    Returns:
        One tensor a batch, shaped like the outputs. Cost: about three forward passes.
    """
    return [batch[0] for batch in directional_derivatives(task, params, [direction])]


def directional_derivatives(task: Task, params: Parameters, directions: Sequence[Mapping[str, Tensor]]) -> list[Tensor]:
    """Return J(x; θ)·v for several directions, as many in one pass as fit the memory.

    Args:
        task: The task.
        params: The point θ.
        directions: The directions v, each with the names and shapes of ``params``.

    Returns:
        One tensor a batch, [directions, …outputs]; no tensor without a direction. Cost: about three forward passes
        for one direction, and about one and two for each of several: what does not depend on the direction is done
        once.

    Example:
        >>> task = Task("t", lambda p, b: (p["w"] ** 2).sum(), [torch.zeros(1)])
        >>> directions = [{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([1.0, 1.0])}]
        >>> directional_derivatives(task, {"w": torch.tensor([1.0, 2.0])}, directions)[0].flatten().tolist()
        [2.0, 6.0]
    """
    if not directions:
        return []
    point = dict(params)
    size = sum(value.numel() * value.element_size() for value in point.values())
    most = max(1, int(_SHARE * available_bytes(next(iter(point.values())).device)) // (_COPIES * size))
    chunks = [directions[start : start + most] for start in range(0, len(directions), most)]
    along = [_along(readout_of(task), point, chunk) for chunk in chunks]
    # One exchange, however many chunks: processes with other memory have another number of them.
    return team().collect(task.batches, lambda batch: torch.cat([of_batch(batch) for of_batch in along]))


def _along(
    readout: Readout, point: dict[str, Tensor], directions: Sequence[Mapping[str, Tensor]]
) -> Callable[[Any], Tensor]:
    """How to differentiate the outputs of a batch along some directions at once, [directions, …outputs]."""

    def derivative(batch: Any, tangent: dict[str, Tensor]) -> Tensor:
        return torch.func.jvp(lambda theta: readout.outputs(theta, batch), (point,), (tangent,))[1]

    def of_batch(batch: Any) -> Tensor:
        # Stacked here and not once for all: that would hold every chunk's copies at a time.
        tangents = {
            name: torch.stack([each[name].detach().to(value.dtype) for each in directions])
            for name, value in point.items()
        }
        with torch.no_grad(), differentiable_twice():
            if len(directions) > 1:
                try:
                    return torch.func.vmap(lambda tangent: derivative(batch, tangent))(tangents).cpu()
                except RuntimeError:  # an operation that vmap has no rule for, or does not allow
                    pass
            rows = [{name: value[index] for name, value in tangents.items()} for index in range(len(directions))]
            return torch.stack([derivative(batch, row) for row in rows]).cpu()

    return of_batch


def pullback(task: Task, params: Parameters, cotangents: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return J(θ)ᵀ w, the gradient of Σ w · f(x; θ).

    Args:
        task: The task.
        params: The point θ.
        cotangents: w, shaped like the outputs, one tensor a batch.

    Returns:
        The gradient by parameter name.
    """
    readout, crew = readout_of(task), team()
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}

    def own() -> list[Tensor]:
        total = zero_vector(leaves)
        for batch, weights in crew.mine(zip(task.batches, cotangents, strict=True)):
            outputs = readout.outputs(leaves, batch)
            product = (outputs * weights.to(outputs)).sum()
            slopes = torch.autograd.grad(product, list(leaves.values()), allow_unused=True, materialize_grads=True)
            accumulate(total, 1.0, slopes, leaves)
        return [total]

    return unflatten(crew.total(own)[0], leaves)
