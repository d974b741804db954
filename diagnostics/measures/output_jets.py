"""Outputs of a task's model with their first and second derivative along a direction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.inputs.tasks import Parameters, Task
from diagnostics.measures.outputs import directional_derivative, model_outputs
from diagnostics.measures.vectors import require_alike, shifted

__all__ = ["OutputJet", "output_jet"]


@dataclass(frozen=True)
class OutputJet:
    """Outputs along θ + s·v to second order in s, one tensor a batch.

    Attributes:
        value: f(x; θ).
        slope: J(x; θ)v.
        curvature: The second derivative d²f/ds².
    """

    value: list[Tensor]
    slope: list[Tensor]
    curvature: list[Tensor]

    def at_one(self, order: int) -> list[Tensor]:
        """Return the expansion at s = 1.

        Args:
            order: 0, 1 or 2.

        Returns:
            The outputs, one tensor a batch.
        """
        parts = zip(self.value, self.slope, self.curvature, strict=True)
        return [f + (order > 0) * j + (order > 1) * d / 2 for f, j, d in parts]


def output_jet(task: Task, params: Parameters, direction: Mapping[str, Tensor]) -> OutputJet:
    """Differentiate outputs twice along a direction: Jv by forward mode, its derivative by central differences.

    d²f/ds² ≈ (J(θ + hv)v − J(θ − hv)v)/2h with h = 4ε^(1/3), 0.02 in float32. Forward mode over forward mode will not
    do: PyTorch refuses SiLU, and gives wrong second derivatives of a layer norm without a word.

    Args:
        task: The task; where it has only a loss, the loss of each batch is the output.
        params: The point θ.
        direction: The direction v, with the names and shapes of ``params``.

    Returns:
        Value, slope and curvature. Cost: a forward pass and three Jacobian-vector products.

    Raises:
        InputError: If names or shapes do not fit, or outputs or derivatives are not finite.

    Example:
        >>> task = Task("t", lambda p, b: (p["w"] ** 3).sum(), [torch.zeros(1)])
        >>> found = output_jet(task, {"w": torch.tensor([2.0])}, {"w": torch.tensor([1.0])})
        >>> [round(part[0].item(), 3) for part in (found.value, found.slope, found.curvature)]
        [8.0, 12.0, 12.0]
    """
    require_alike(direction, params)
    point = {name: value.detach() for name, value in params.items()}
    tangent = {name: direction[name].detach().to(value.dtype) for name, value in point.items()}
    step = 4 * max(torch.finfo(value.dtype).eps for value in point.values()) ** (1 / 3)
    behind, here, ahead = (
        directional_derivative(task, shifted(point, along * step, tangent), tangent) for along in (-1, 0, 1)
    )
    value = model_outputs(task, point)
    curvature = [(after - before) / (2 * step) for before, after in zip(behind, ahead, strict=True)]
    if not all(bool(part.isfinite().all()) for parts in (value, here, curvature) for part in parts):
        raise InputError(
            f"task {task.name!r}: expected finite outputs and derivatives; found others. Look for overflow in half "
            "precision, or for an update that is far too large."
        )
    return OutputJet(value, here, curvature)
