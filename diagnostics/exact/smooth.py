"""Smooth losses in closed form: polynomials of degree four whose gradient and Hessian are known everywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["SmoothTask", "five_points"]


def five_points(function: Callable[[float], Any]) -> Any:
    """Return f'(0) by central differences, exact for polynomials of degree four.

    Args:
        function: f, of one number.

    Returns:
        (8 (f(1) − f(−1)) − (f(2) − f(−2))) / 12.

    Example:
        >>> five_points(lambda t: 3 * t + t**4)
        3.0
    """
    near, far = function(1.0) - function(-1.0), function(2.0) - function(-2.0)
    return (8 * near - far) / 12


@dataclass(frozen=True)
class SmoothTask:
    """A loss with a known gradient and Hessian at every point.

    With x = w − m::

        L(w) = c + gᵀx + ½ xᵀHx + Σ_r a_r (n_rᵀx)³/6 + Σ_r b_r (n_rᵀx)⁴/24

    so that at the anchor m the gradient is g and the Hessian H, and along a line the Hessian is a polynomial of degree
    two.

    Attributes:
        anchor: m, [d]; the expert, where ``slope`` is zero.
        hessian: H at the anchor, symmetric, [d, d].
        slope: g, the gradient at the anchor, [d].
        level: c, the loss at the anchor.
        normals: Directions n_r, [r, d]; may be empty.
        cubic: a_r, [r].
        quartic: b_r, [r].

    Example:
        >>> task = SmoothTask(np.zeros(1), np.eye(1), np.zeros(1), 0.0, np.ones((1, 1)), np.array([6.0]), np.zeros(1))
        >>> float(task.loss(np.array([1.0]))), task.gradient(np.array([1.0])).tolist()
        (1.5, [4.0])
        >>> task.hessian_at(np.array([1.0])).tolist()
        [[7.0]]
    """

    anchor: Any
    hessian: Any
    slope: Any
    level: Any
    normals: Any
    cubic: Any
    quartic: Any

    @property
    def dimension(self) -> int:
        """D."""
        return len(self.anchor)

    def loss(self, point: Any) -> Any:
        """Return L(w)."""
        x = point - self.anchor
        along = self.normals @ x
        higher = (self.cubic * along**3 / 6 + self.quartic * along**4 / 24).sum()
        return self.level + self.slope @ x + x @ (self.hessian @ x) / 2 + higher

    def gradient(self, point: Any) -> Any:
        """Return ∇L(w), [d]."""
        x = point - self.anchor
        along = self.normals @ x
        return self.slope + self.hessian @ x + (self.cubic * along**2 / 2 + self.quartic * along**3 / 6) @ self.normals

    def hessian_at(self, point: Any) -> Any:
        """Return ∇²L(w), [d, d]."""
        along = self.normals @ (point - self.anchor)
        weights = self.cubic * along + self.quartic * along**2 / 2
        return self.hessian + self.normals.T @ (weights.reshape(-1, 1) * self.normals)

    def curvature(self, point: Any, direction: Any) -> Any:
        """Return vᵀ∇²L(w)v."""
        return direction @ (self.hessian_at(point) @ direction)

    def remainder(self, start: Any, way: Any) -> Any:
        """Return ∫₀¹ (1 − s) vᵀ∇²L(a + sv)v ds, exactly: Gauss's two nodes do for degree three."""
        nodes = (0.5 - 1 / np.sqrt(12.0), 0.5 + 1 / np.sqrt(12.0))
        return sum((1 - node) * self.curvature(start + node * way, way) / 2 for node in nodes)

    def corners(self, start: Any, end: Any) -> list[Any]:
        """Return Hessians whose convex hull holds every Hessian on the way from ``start`` to ``end``.

        Along the way the Hessian is A + sB + s²C, and the parabola (s, s²) of 0 ≤ s ≤ 1 lies in the triangle of
        (0, 0), (½, 0) and (1, 1). So no convex function of the Hessian, such as its norm, is larger on the way than at
        the largest of these three.

        Args:
            start: Where the way starts, [d].
            end: Where it ends, [d].

        Returns:
            Three matrices [d, d]; the first and the last are the Hessians at the ends.
        """
        first, last = self.hessian_at(start), self.hessian_at(end)
        middle = self.hessian_at((start + end) / 2)
        linear = 4 * middle - 3 * first - last
        return [first, first + linear / 2, last]

    def torch_loss(self, params: Any, batch: Any) -> Any:
        """Return L at ``params["w"]`` as a torch tensor, so that ``dx.Task(name, task.torch_loss, [batch])`` works.

        Args:
            params: A mapping with the float64 tensor ``w``, [d].
            batch: A tensor; its values have no effect.

        Returns:
            A 0-dim tensor.
        """
        like = params["w"]
        fields = (self.anchor, self.hessian, self.slope, self.normals, self.cubic, self.quartic)
        anchor, hessian, slope, normals, cubic, quartic = (like.new_tensor(np.asarray(item)) for item in fields)
        return SmoothTask(anchor, hessian, slope, self.level, normals, cubic, quartic).loss(like) + 0 * batch.sum()
