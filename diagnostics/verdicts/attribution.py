"""Through which layers a partner changes a task's loss, to first order along the predicted change of the outputs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from diagnostics.inputs.tasks import Parameters, Task
from diagnostics.measures.outputs import pullback, readout_of

__all__ = ["layer_effects", "layer_of"]

_STEPS = 8
_SHOWN = 3


def layer_of(name: str) -> str:
    """Return the layer a parameter belongs to: its name up to the first number, or without its last part.

    Args:
        name: A parameter's name.

    Returns:
        The layer's name.

    Example:
        >>> layer_of("bert.encoder.layer.3.attention.self.query.weight"), layer_of("head.dense.bias"), layer_of("w")
        ('bert.encoder.layer.3', 'head.dense', 'w')
    """
    parts = name.split(".")
    numbered = next((index for index, part in enumerate(parts) if part.isdigit()), None)
    kept = parts[:-1] if numbered is None else parts[: numbered + 1]
    return ".".join(kept) or name


def layer_effects(
    task: Task,
    point: Parameters,
    before: Sequence[Tensor],
    after: Sequence[Tensor],
    moves: Mapping[str, tuple[float, Mapping[str, Tensor]]],
) -> dict[str, tuple[tuple[str, float], ...]]:
    """Split the change of a task's loss that each partner makes over the layers of its update.

    With w the gradient of the mean loss by the outputs, averaged between ``before`` and ``after``, partner j works
    through a layer by ⟨J(θ)ᵀ w, λ_j τ_j⟩ over that layer's parameters: one backward pass for all partners.

    Args:
        task: The task.
        point: θ, the task's own expert as it stands in the merge.
        before: Outputs there, one tensor a batch.
        after: Predicted outputs of the merge.
        moves: λ_j and τ_j by partner.

    Returns:
        By partner the layers with the largest effects on the loss, in its units, largest first.
    """
    gradient = pullback(task, point, _mean_gradients(task, before, after))
    effects = {}
    for partner, (coefficient, vector) in moves.items():
        layers: dict[str, float] = defaultdict(float)
        for name, slope in gradient.items():
            layers[layer_of(name)] += coefficient * float((slope.double() * vector[name].double()).sum())
        effects[partner] = tuple(sorted(layers.items(), key=lambda item: -item[1])[:_SHOWN])
    return effects


def _mean_gradients(task: Task, before: Sequence[Tensor], after: Sequence[Tensor]) -> list[Tensor]:
    """∂L/∂f, averaged over the straight way from one version of the outputs to another."""
    losses, gradients = readout_of(task).losses, []
    for (share, batch), start, end in zip(task.weighted_batches(), before, after, strict=True):
        total = torch.zeros_like(start)
        for step in range(_STEPS):
            outputs = torch.lerp(start, end, (step + 0.5) / _STEPS).requires_grad_()
            loss = share * losses(outputs, batch).mean()
            total += torch.autograd.grad(loss, outputs)[0] / _STEPS
        gradients.append(total)
    return gradients
