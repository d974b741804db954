"""The gradient of one batch, which everything that is added up over batches is made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diagnostics.inputs.tasks import Parameters, Task

__all__ = ["slopes_of"]


def slopes_of(task: Task, params: Parameters, batch: Any) -> tuple[Tensor, list[Tensor]]:
    """Return the loss of a batch and its gradient.

    Args:
        task: The task.
        params: The point θ.
        batch: The batch.

    Returns:
        The loss, and one tensor a parameter, in their order.

    Example:
        >>> task = Task("q", lambda p, b: 0.5 * (p["w"] ** 2).sum(), [torch.zeros(1)])
        >>> slopes_of(task, {"w": torch.tensor([3.0])}, None)
        (tensor(4.5000), [tensor([3.])])
    """
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    # Not torch.func: its transforms know nothing of parameters that several processes hold in parts.
    with torch.enable_grad():
        loss = task.loss(leaves, batch)
    if not loss.requires_grad:  # no parameter enters
        return loss, [torch.zeros_like(value) for value in leaves.values()]
    found = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    return loss.detach(), list(found)
