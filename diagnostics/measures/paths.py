"""A task's loss along a straight way θ + s·v, s from 0 to 1: value, slope and curvature at nested nodes (2.5, 2.6)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diagnostics.inputs.tasks import Parameters, Task
from diagnostics.measures.curvature import jet
from diagnostics.measures.vectors import inner, norm, shifted

__all__ = ["Way", "measure_way"]

_LEVELS = (5, 9, 17)


@dataclass(frozen=True)
class Way:
    """φ(s) = L(θ + s·v) at the nodes.

    Attributes:
        nodes: The values of s, from 0 to 1.
        values: φ(s) at the nodes.
        curvatures: φ''(s) = vᵀ∇²L v at the nodes.
        slope: φ'(0) = ⟨∇L(θ), v⟩.
        gradient_norm: ‖∇L(θ)‖ at the start.
        norm_squared: ‖v‖².
        integral: ∫₀¹ (1−s) φ''(s) ds by interpolation through the nodes.
        tolerance: How far ``slope + integral`` may be from φ(1) − φ(0) before the loss counts as not smooth.
        hessian_products: Cost.
        products: ∇²L(θ + s·v)v at the nodes whose products were asked for.
    """

    nodes: tuple[float, ...]
    values: tuple[float, ...]
    curvatures: tuple[float, ...]
    slope: float
    gradient_norm: float
    norm_squared: float
    integral: float
    tolerance: float
    hessian_products: int
    products: dict[float, dict[str, Tensor]]

    @property
    def rise(self) -> float:
        """φ(1) − φ(0), measured."""
        return self.values[-1] - self.values[0]

    @property
    def mismatch(self) -> float:
        """|φ(1) − φ(0) − slope − integral|: zero for a loss that is twice differentiable along the way."""
        return abs(self.rise - self.slope - self.integral)


def measure_way(
    task: Task,
    start: Parameters,
    displacement: Mapping[str, Tensor],
    *,
    rtol: float = 0.02,
    keep: Collection[float] = (),
) -> Way:
    """Measure the loss and its curvature along a way, adding nodes until Taylor's formula closes.

    The exact form of (2.5), φ(1) − φ(0) = φ'(0) + ∫₀¹ (1−s) φ''(s) ds, is checked against the measured ends; where
    it does not close with the largest number of nodes, the loss is not smooth along the way at that resolution.

    Args:
        task: The task.
        start: θ, where the way begins.
        displacement: v, with the names and shapes of ``start``.
        rtol: Mismatch allowed, relative to the largest of slope, integral and total variation of the loss.
        keep: Nodes whose Hessian products to keep; 0, ½ and 1 are always nodes.

    Returns:
        The measurements. Cost: one Hessian-vector product per node, 5 to 17 of them.

    Example:
        >>> task = Task("q", lambda p, b: 0.5 * (p["w"] ** 2).sum(), [torch.zeros(1)])
        >>> way = measure_way(task, {"w": torch.zeros(2).double()}, {"w": torch.ones(2).double()})
        >>> round(way.integral, 6), way.rise
        (1.0, 1.0)
    """
    jets: dict[float, tuple[float, float, float]] = {}
    products = {}
    gradient_norm = math.nan
    for count in _LEVELS:
        nodes = _nodes(count)
        for s in nodes:
            if s not in jets:
                found = jet(task, shifted(start, s, displacement), displacement)
                jets[s] = (found.value, found.slope, found.curvature)
                gradient_norm = norm(found.gradient) if s == 0 else gradient_norm
                if s in keep:
                    products[s] = found.product
        values, curvatures = [jets[s][0] for s in nodes], [jets[s][2] for s in nodes]
        integral = float(np.dot(_weights(count), curvatures))
        slope = jets[0.0][1]
        scale = max(abs(slope), abs(integral), float(np.abs(np.diff(values)).sum()))
        tolerance = rtol * scale + _rounding(start) * max(map(abs, values))
        if abs(values[-1] - values[0] - slope - integral) <= tolerance:
            break
    return Way(
        nodes,
        tuple(values),
        tuple(curvatures),
        slope,
        gradient_norm,
        inner(displacement, displacement),
        integral,
        tolerance,
        len(jets),
        products,
    )


def _nodes(count: int) -> tuple[float, ...]:
    """Chebyshev-Lobatto points on [0, 1]; those of one level are among those of the next."""
    return tuple(float(x) for x in np.round((1 - np.cos(np.pi * np.arange(count) / (count - 1))) / 2, 15))


def _weights(count: int) -> np.ndarray:
    """Weights that integrate (1−s)·polynomial exactly through the nodes, up to degree ``count − 1``."""
    nodes = np.array(_nodes(count))
    points, gauss = np.polynomial.legendre.leggauss(count + 1)
    points, gauss = (points + 1) / 2, gauss / 2
    basis = np.polynomial.legendre.legvander(2 * points - 1, count - 1)
    moments = (gauss * (1 - points)) @ basis
    return np.linalg.solve(np.polynomial.legendre.legvander(2 * nodes - 1, count - 1).T, moments)


def _rounding(params: Parameters) -> float:
    """Relative error of a mean loss in the arithmetic of the parameters, a few hundred operations deep."""
    dtype = next(iter(params.values())).dtype
    return 100 * torch.finfo(dtype).eps
