"""Which features a task uses: the size of ∂f/∂z_k for each pre-activation z_k of each layer (4.2)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from diagnostics.errors import InputError, require_count
from diagnostics.inputs.readout import Readout
from diagnostics.inputs.tasks import Parameters, Task
from diagnostics.results import Cost, Result, plain

__all__ = ["FeatureUse", "feature_use"]


@dataclass(frozen=True)
class FeatureUse(Result):
    """How much a task's outputs change with each feature, example by example.

    Attributes:
        task: The task.
        examples: u_k(x) by layer (the name of its weight), [examples, features].
        sides: Whether the layer's weight holds its features' vectors w_k as ``"rows"`` or ``"columns"``.
        not_covered: Parameters with two dimensions or more that are not the weight of a linear layer that was run,
            with the reason.
        outputs: Number of outputs of one example.
        projections: Random projections that stood for them; ``None`` where every output was differentiated.
        cost: Passes over the task's data.
    """

    task: str
    examples: dict[str, Tensor]
    sides: dict[str, str]
    not_covered: dict[str, str]
    outputs: int
    projections: int | None
    cost: Cost

    @property
    def mean(self) -> dict[str, Tensor]:
        """u[k] = E_x u_k(x) by layer, [features]."""
        return {name: values.mean(0) for name, values in self.examples.items()}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know before using the numbers."""
        notes = [f"not covered: {name}, {reason}" for name, reason in self.not_covered.items()]
        if self.projections is not None:
            error = 1 / math.sqrt(2 * self.projections)
            notes.append(
                f"{self.outputs:,} outputs seen through {self.projections} random projections: a single |∂f/∂z| is off "
                f"by about {error:.0%}"
            )
        return tuple(notes)

    def to_dict(self) -> dict[str, Any]:
        """Return the means and what they come from; single examples are left out.

        Returns:
            A dictionary ready for JSON.
        """
        count = len(next(iter(self.examples.values())))
        kept = {key: value for key, value in super().to_dict().items() if key != "examples"}
        return {**kept, "count": count, "mean": plain(self.mean), "notes": plain(self.notes)}

    def __str__(self) -> str:
        width = sum(values.shape[1] for values in self.examples.values())
        lines = [f"{self.task}: use of {width:,} features in {len(self.examples)} layers; {self.cost}"]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def feature_use(
    task: Task, params: Parameters, *, layers: Sequence[str] | None = None, max_outputs: int = 32, seed: int = 0
) -> FeatureUse:
    """Return u_k(x) = Σ_positions ‖∂f(x; θ)/∂z_k‖ for the pre-activations z of every linear layer (4.2).

    z = Wx + b are the outputs of a ``torch.nn.Linear`` or a GPT-2 ``Conv1D`` before anything else is done to them,
    and the length is over the outputs f: for one output it is |∂f/∂z_k| as the theory has it. A layer that is applied
    at several positions (tokens) counts each by itself, and positions that are padding add nothing.

    The task's model is run as it is and listened to, so it must be made of torch modules that take their weights from
    ``params``, as tasks of ``Task.from_module`` do; examples come first in all outputs and do not depend on each other.

    Args:
        task: A task with outputs.
        params: The point θ; the base's parameters for the theory's use.
        layers: Names of the weights to look at; all linear layers by default.
        max_outputs: Up to this many outputs each is differentiated by itself; of more, this many random ±1
            combinations are, whose mean square is the squared length on average.
        seed: Of the random combinations.

    Returns:
        The use of each feature by each example, in units of the outputs per unit of z. Cost: one forward pass, and a
        backward pass for each output or combination.

    Raises:
        InputError: If the task has no outputs, none of its layers can be seen, or a name is not that of one.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> data = (torch.eye(2), torch.tensor([0, 1]))
        >>> task = Task.from_module("t", model, nn.functional.cross_entropy, data)
        >>> feature_use(task, {"weight": torch.eye(2), "bias": torch.zeros(2)}).mean["weight"].tolist()
        [1.0, 1.0]
    """
    require_count("max_outputs", max_outputs)
    if task.readout is None:
        raise InputError(
            f"feature_use: expected a task with outputs; {task.name!r} has a loss only. Build it with Task.from_module."
        )
    # Fused layers that leave out the modules inside run only where no weight asks for a gradient.
    point = {name: value.detach().requires_grad_(value.is_floating_point()) for name, value in params.items()}
    wanted = _wanted(task, point, layers)
    generator = torch.Generator().manual_seed(seed)
    parts: dict[str, list[Tensor]] = {}
    listener = _Listener(wanted)
    outputs, directions = 0, 0
    for size, batch in zip(task.sizes, task.batches, strict=True):
        with listener.listening(size):
            found = _outputs(task.readout, point, batch, size)
        outputs = found[0].numel()
        signs = _signs(found, max_outputs, generator)
        directions = len(signs)
        for name, values in _lengths(found, signs, listener.probes, outputs <= max_outputs).items():
            parts.setdefault(name, []).append(values)
    if not parts:
        raise InputError(
            f"feature_use: task {task.name!r} ran no torch.nn.Linear or Conv1D on the parameters given, so it "
            "has no pre-activations to look at. Write its model as a torch module, for Task.from_module."
        )
    examples = {name: torch.cat(values) for name, values in parts.items()}
    reasons = {name: listener.reasons.get(name, _reason(value)) for name, value in point.items() if value.ndim >= 2}
    return FeatureUse(
        task=task.name,
        examples=examples,
        sides={name: listener.sides[name] for name in examples},
        not_covered={name: reason for name, reason in reasons.items() if name not in examples and name in wanted},
        outputs=outputs,
        projections=directions if outputs > max_outputs else None,
        cost=Cost(gradients=1, backwards=directions - 1),
    )


class _Listener:
    """Adds a zero to the output of every linear layer, by which the model's outputs can be differentiated."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.names = {id(value): name for name, value in weights.items()}
        self.probes: dict[str, list[Tensor]] = {}
        self.sides: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        self.size = 0

    @contextmanager
    def listening(self, size: int) -> Iterator[None]:
        """Listen to every module that runs meanwhile."""
        self.probes, self.size = {}, size
        handle = register_module_forward_hook(self._hear)  # type: ignore[arg-type]
        try:
            with torch.enable_grad():
                yield
        finally:
            handle.remove()

    def _hear(self, module: nn.Module, inputs: Any, output: Any) -> Tensor | None:
        """Add the zero, where the module's weight is one that is wanted."""
        # Modules get the very tensors of ``params`` for their weights, so these tell a layer's name.
        name = self.names.get(id(getattr(module, "weight", None)))
        if name is None:
            return None
        kind = type(module).__name__
        if not (isinstance(module, nn.Linear) or kind == "Conv1D"):
            self.reasons[name] = f"{kind}, not a linear layer of its input"
            return None
        if output.ndim < 2 or output.shape[0] != self.size:
            self.reasons[name] = f"its output {list(output.shape)} does not have {self.size} examples first"
            return None
        self.sides[name] = "rows" if isinstance(module, nn.Linear) else "columns"
        probe = torch.zeros_like(output, requires_grad=True)
        self.probes.setdefault(name, []).append(probe)
        return output + probe


def _wanted(task: Task, params: Parameters, layers: Sequence[str] | None) -> dict[str, Tensor]:
    """Weights to look at, by name."""
    weights = {name: value for name, value in params.items() if value.ndim >= 2}
    unknown = [name for name in layers or () if name not in weights]
    if unknown:
        raise InputError(f"layers: expected weights of task {task.name!r}, {sorted(weights)}; found {unknown}.")
    return weights if layers is None else {name: weights[name] for name in layers}


def _reason(value: Tensor) -> str:
    """Why a weight was not seen."""
    return "not the weight of a linear layer that was run" if value.ndim == 2 else f"{value.ndim} dimensions"


def _outputs(readout: Readout, params: Parameters, batch: Any, size: int) -> Tensor:
    """Outputs as a row for each example."""
    outputs = readout.outputs(params, batch)
    if outputs.ndim == 0 or outputs.shape[0] != size:
        raise InputError(
            f"feature_use: expected outputs of {size} examples first; found shape {list(outputs.shape)}. Outputs by "
            "token are not covered: give the task a readout with one row for each example."
        )
    return outputs.reshape(size, -1)


def _signs(outputs: Tensor, limit: int, generator: torch.Generator) -> Tensor:
    """Combinations of the outputs that are differentiated, [R, examples, outputs] or broadcast to it."""
    count = outputs.shape[1]
    if count <= limit:
        return torch.eye(count).to(outputs)[:, None, :]
    draws = torch.randint(2, (limit, *outputs.shape), generator=generator)
    return (2 * draws - 1).to(outputs)


def _lengths(outputs: Tensor, signs: Tensor, probes: Mapping[str, list[Tensor]], exact: bool) -> dict[str, Tensor]:
    """Σ_positions ‖∂f/∂z_k‖ of one batch by layer, [examples, features]."""
    flat = [probe for each in probes.values() for probe in each]
    squares = [torch.zeros_like(probe, dtype=torch.float64) for probe in flat]
    if flat and outputs.requires_grad:
        # Examples do not depend on each other, so the gradient of the sum over them is each one's own.
        for index, sign in enumerate(signs):
            total = (outputs * sign.to(outputs.device)).sum()
            last = index == len(signs) - 1
            found = torch.autograd.grad(total, flat, retain_graph=not last, allow_unused=True)
            for square, slope in zip(squares, found, strict=True):
                if slope is not None:
                    square += slope.double().square()
    if not exact:
        squares = [square / len(signs) for square in squares]
    sizes = iter(square.sqrt().flatten(1, -2).sum(1) if square.ndim > 2 else square.sqrt() for square in squares)
    return {name: sum(next(sizes) for _ in each) for name, each in probes.items()}  # type: ignore[misc]
