"""Gradients and Hessian-vector products of a task's mean loss, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from diagnostics.inputs.tasks import Parameters, Task
from diagnostics.measures.hessian import HessianOperator, Slopes
from diagnostics.measures.slopes import slopes_of
from diagnostics.measures.vectors import accumulate, flatten, inner, require_alike, unflatten, zero_vector
from diagnostics.processes import team

__all__ = ["Jet", "flat_gradient", "gradient", "hessian_vector_product", "jet", "subspace_hessian"]


def gradient(task: Task, params: Parameters) -> tuple[float, dict[str, Tensor]]:
    """Return the mean loss and its gradient over all batches.

    Args:
        task: The task.
        params: The point θ.

    Returns:
        ``(L(θ), ∇L(θ))``, the gradient by parameter name.

    Example:
        >>> task = Task("q", lambda p, b: 0.5 * (p["w"] ** 2).sum(), [torch.zeros(1)])
        >>> value, slope = gradient(task, {"w": torch.tensor([3.0])})
        >>> value, slope["w"].item()
        (4.5, 3.0)
    """
    value, total = flat_gradient(task, params)
    return value, unflatten(total, params)


def flat_gradient(task: Task, params: Parameters) -> tuple[float, Tensor]:
    """Return the mean loss and its gradient over all batches, as one vector.

    Args:
        task: The task.
        params: The point θ.

    Returns:
        ``(L(θ), ∇L(θ))``, the gradient [d] in the order of the parameters.
    """
    point, crew = {name: value.detach() for name, value in params.items()}, team()

    def own() -> list[Tensor]:
        value, total = torch.zeros((), dtype=torch.float64), zero_vector(point)
        for share, batch in crew.mine(task.weighted_batches()):
            loss, slopes = slopes_of(task, point, batch)
            value += share * float(loss)
            accumulate(total, share, slopes, point)
        return [value, total]

    value, total = crew.total(own)
    return float(value), total


def hessian_vector_product(task: Task, params: Parameters, vector: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ∇²L(θ) v for the mean loss over all batches, by differentiating the gradient once more.

    Args:
        task: The task.
        params: The point θ.
        vector: v, with the names and shapes of ``params``.

    Returns:
        The product, by parameter name. Cost: three gradients; for many products at one point see
        :class:`~diagnostics.measures.hessian.HessianOperator`.

    Raises:
        InputError: If the vector's names or shapes are not those of ``params``.

    Example:
        >>> task = Task("q", lambda p, b: 0.5 * 4 * (p["w"] ** 2).sum(), [torch.zeros(1)])
        >>> hessian_vector_product(task, {"w": torch.ones(2)}, {"w": torch.tensor([1.0, 0.0])})["w"].tolist()
        [4.0, 0.0]
    """
    return jet(task, params, vector).product


@dataclass(frozen=True)
class Jet:
    """Loss, gradient along a direction and Hessian product along it, from one pass.

    Attributes:
        value: L(θ).
        slope: ⟨∇L(θ), v⟩.
        curvature: vᵀ∇²L(θ)v.
        gradient: ∇L(θ), by parameter name.
        product: ∇²L(θ)v, by parameter name.
    """

    value: float
    slope: float
    curvature: float
    gradient: dict[str, Tensor]
    product: dict[str, Tensor]


def jet(task: Task, params: Parameters, vector: Mapping[str, Tensor]) -> Jet:
    """Differentiate a task's mean loss twice along a direction.

    Args:
        task: The task.
        params: The point θ.
        vector: The direction v, with the names and shapes of ``params``.

    Returns:
        Value, slope and curvature along v, with the gradient and the Hessian product they come from.

    Raises:
        InputError: If the vector's names or shapes are not those of ``params``.
    """
    require_alike(vector, params)
    leaves, crew = {name: value.detach().requires_grad_() for name, value in params.items()}, team()
    tangent = {name: vector[name].detach().to(value.dtype) for name, value in leaves.items()}

    def own() -> list[Tensor]:
        value, slope, product = torch.zeros((), dtype=torch.float64), zero_vector(leaves), zero_vector(leaves)
        for share, batch in crew.mine(task.weighted_batches()):
            found = Slopes(task, leaves, batch)
            value += share * found.value
            accumulate(slope, share, found.gradient, leaves)
            accumulate(product, share, found.product(tuple(tangent.values()), keep=False), leaves)
        return [value, slope, product]

    value, *vectors = crew.total(own)
    slope, product = (unflatten(each, leaves) for each in vectors)
    return Jet(float(value), inner(slope, tangent), inner(product, tangent), slope, product)


def subspace_hessian(
    task: Task,
    params: Parameters,
    directions: Mapping[str, Mapping[str, Tensor]],
    known: tuple[Mapping[str, float], Mapping[str, Tensor]] | None = None,
) -> Tensor:
    """Return τᵀ∇²L(θ)τ, the Hessian restricted to the span of some directions (2.10).

    Args:
        task: The task.
        params: The point θ.
        directions: Vectors τ_1 … τ_T by name. At least one.
        known: Weights w by direction, not all zero, and ∇²L(θ)·Σ w_j τ_j where that has been measured already: it
            saves one product.

    Returns:
        The symmetric matrix, [T, T], float64. Cost: one gradient and T Hessian-vector products, or T − 1.
    """
    pivot = max(directions, key=lambda name: abs(known[0][name])) if known else None
    wanted = {name: flatten({key: direction[key] for key in params}) for name, direction in directions.items()}
    hessian = HessianOperator(task, params) if len(wanted) > (pivot is not None) else None
    products = {name: hessian(vector) for name, vector in wanted.items() if hessian and name != pivot}
    if known and pivot is not None:
        weights, product = known
        rest = flatten({name: product[name] for name in params})
        for name, image in products.items():
            rest = rest - weights[name] * image
        # The largest weight is divided by, so that rounding in the others is not amplified.
        products[pivot] = rest / weights[pivot]
    rows = [[float(products[row].double() @ wanted[col].double()) for col in directions] for row in directions]
    matrix = torch.tensor(rows, dtype=torch.float64)
    return (matrix + matrix.T) / 2
