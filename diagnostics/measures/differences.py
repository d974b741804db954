"""Hessian-vector products by differences of gradients: one gradient a product, no graph, and an error that is measured.

∇²L(θ)v ≈ (∇L(θ + hv) − ∇L(θ))/h misses (h/2)∇³L[v, v] by truncation and ρ/h by rounding, ρ being that of a gradient.
Both are small if the gradient changes by about √ε of its length, ε being the resolution of the arithmetic.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diagnostics.inputs.tasks import Parameters, Task
from diagnostics.measures.curvature import flat_gradient
from diagnostics.measures.space import Space
from diagnostics.measures.vectors import flatten, unflatten, widened

__all__ = ["DifferenceOperator"]

# The change of the gradient aimed at, in units of √ε of its length: rounding and truncation weigh alike from 3 to 10.
_CHANGE = 6.0


class DifferenceOperator:
    """∇²L(θ) of the mean loss over all batches, each product from one more gradient.

    The step is chosen from what earlier products were like, so a sequence as of Lanczos' method is what it is made for.
    It needs no second derivative of any operation, and no memory beyond that of gradients.

    Args:
        task: The task.
        params: The point θ.

    Attributes:
        value: L(θ).
        gradient: ∇L(θ), [d].

    Example:
        >>> scale = torch.tensor([2.0, -3.0], dtype=torch.float64)
        >>> task = Task("q", lambda p, b: 0.5 * (scale * p["w"] ** 2).sum(), [torch.zeros(1)])
        >>> hessian = DifferenceOperator(task, {"w": torch.ones(2, dtype=torch.float64)})
        >>> [round(value, 6) for value in hessian(torch.ones(2, dtype=torch.float64)).tolist()]
        [2.0, -3.0]
    """

    def __init__(self, task: Task, params: Parameters) -> None:
        self._task = task
        # In half precision a step would be lost in the rounding of the parameters.
        wide = widened(params)
        self._point = {name: value.detach().to(wide) for name, value in params.items()}
        self._theta, self._space = flatten(self._point), Space.of(self._point)
        self.value, self.gradient = self._slope(self._theta)
        self._change = _CHANGE * math.sqrt(torch.finfo(self.gradient.dtype).eps) * self._space.norm(self.gradient)
        # Lengths of products of unit vectors: what the first one promises of the next, and the longest since.
        self._promised, self._longest = 0.0, 0.0
        self._last: tuple[Tensor, Tensor, float] | None = None

    def __call__(self, vector: Tensor) -> Tensor:
        """Return ∇²L(θ) v.

        Args:
            vector: v, [d].

        Returns:
            The product, [d].
        """
        length = self._space.norm(vector)
        if length == 0:
            return torch.zeros_like(self.gradient)
        step, self._last = self._step(), None  # as long as the parameters are, and no longer wanted
        _, ahead = self._slope(torch.add(self._theta, vector, alpha=step / length))
        product = ahead - self.gradient
        self._note(self._space.norm(product), step)
        self._last = (vector, ahead, step / length)
        return product.mul_(length / step)

    def error(self) -> float:
        """Return how far the last product was off, per length of its vector.

        Returns:
            ‖∇L(θ + hv) + ∇L(θ − hv) − 2∇L(θ)‖/2h: the truncation of one difference, with the rounding of three. Cost:
            one gradient; zero before the first product.
        """
        if self._last is None:
            return 0.0
        vector, ahead, scale = self._last
        _, behind = self._slope(torch.sub(self._theta, vector, alpha=scale))
        return self._space.norm(ahead + behind - 2 * self.gradient) / (2 * scale * self._space.norm(vector))

    def _slope(self, theta: Tensor) -> tuple[float, Tensor]:
        """Loss and gradient at a point."""
        return flat_gradient(self._task, unflatten(theta, self._point))

    def _step(self) -> float:
        """How far to go along a unit vector."""
        length = self._longest or self._promised
        if length == 0:
            return math.sqrt(torch.finfo(self._theta.dtype).eps) * (1 + self._space.norm(self._theta))
        return self._change / length

    def _note(self, change: float, step: float) -> None:
        """Learn the size of products from one of them; one that is zero says nothing of the next."""
        if self._promised:
            self._longest = max(self._longest, change / step)
            return
        # Of a random unit vector ‖Hv‖ is about ‖H‖_F/√d, and ‖H‖_F bounds what the next one can give.
        self._promised = change / step * math.sqrt(self._space.dimension)
        self._change = max(self._change, math.sqrt(torch.finfo(self._theta.dtype).eps) * change)
