"""The diagonal of the Fisher information, from the gradient of every example by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.inputs.tasks import Parameters, Task
from diagnostics.measures.pieces import single_examples
from diagnostics.measures.slopes import slopes_of

__all__ = ["diagonal_fisher"]


def diagonal_fisher(task: Task, params: Parameters, *, limit: int | None = None) -> dict[str, Tensor]:
    r"""Return the diagonal of the empirical Fisher information, the mean of squared per-example gradients.

    .. math:: F = \frac{1}{n} \sum_{n} (∇\ell_n(θ))^2

    The square of a batch's gradient is something else: gradients of different examples cancel in it, and at a minimum
    it is zero.

    Args:
        task: The task; its loss must be a mean over examples, in batches that can be cut.
        params: The point θ, an expert's own parameters for Fisher-weighted merging.
        limit: Use the first so many examples; all by default.

    Returns:
        F by parameter name, shaped like the parameters and never negative. Cost: one gradient of one example for each.

    Raises:
        InputError: If batches cannot be cut into examples.

    Example:
        >>> task = Task("q", lambda p, b: (0.5 * (p["w"] - b) ** 2).mean(), [torch.tensor([-1.0, 1.0])])
        >>> diagonal_fisher(task, {"w": torch.zeros(1)})["w"].item()  # the gradient of the batch is zero
        1.0
    """
    point = {name: value.detach() for name, value in params.items()}
    total = {name: torch.zeros_like(value) for name, value in point.items()}
    count = 0
    for example in single_examples(task, point):
        if limit is not None and count >= limit:
            break
        for each, slope in zip(total.values(), slopes_of(task, point, example)[1], strict=True):
            each += slope.square()
        count += 1
    if count == 0:
        raise InputError(f"limit: expected at least one example of task {task.name!r}; found {limit}.")
    return {name: value / count for name, value in total.items()}
