"""Gradients and Hessian-vector products of a task's mean loss, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from diagnostics.inputs.tasks import Parameters, Task
from diagnostics.measures.vectors import flatten, inner, unflatten

__all__ = ["Jet", "gradient", "hessian_vector_product", "jet", "subspace_hessian"]


@contextmanager
def differentiable_twice() -> Iterator[None]:
    """Switch to the attention kernel that can be differentiated in forward mode and twice.

    Yields:
        Nothing; the fused kernels are back on leaving.
    """
    with sdpa_kernel(SDPBackend.MATH):
        yield


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
    point = {name: value.detach() for name, value in params.items()}
    value, total = 0.0, torch.zeros_like(flatten(point))
    for share, batch in task.weighted_batches():
        grads, loss = torch.func.grad_and_value(task.loss)(point, batch)
        value += share * float(loss)
        total.add_(flatten(grads), alpha=share)
    return value, unflatten(total, point)


def hessian_vector_product(task: Task, params: Parameters, vector: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ∇²L(θ) v for the mean loss over all batches, by forward over reverse differentiation.

    Args:
        task: The task.
        params: The point θ.
        vector: v, with the names and shapes of ``params``.

    Returns:
        The product, by parameter name. Cost: three to four gradients.

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
    inner(vector, params)  # names and shapes must agree
    point = {name: value.detach() for name, value in params.items()}
    tangent = {name: vector[name].detach().to(value.dtype) for name, value in point.items()}
    value, slope, product = 0.0, torch.zeros_like(flatten(point)), torch.zeros_like(flatten(point))
    with differentiable_twice():
        for share, batch in task.weighted_batches():

            def gradient_at(theta: Parameters, batch: object = batch) -> tuple[Parameters, Tensor]:
                return torch.func.grad_and_value(task.loss)(theta, batch)

            (grads, loss), (products, _) = torch.func.jvp(gradient_at, (point,), (tangent,))  # type: ignore[misc]
            value += share * float(loss)
            slope.add_(flatten(grads), alpha=share)
            product.add_(flatten(products), alpha=share)
    grad, hessian = unflatten(slope, point), unflatten(product, point)
    return Jet(value, inner(grad, tangent), inner(hessian, tangent), grad, hessian)


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
        The symmetric matrix, [T, T], float64. Cost: T Hessian-vector products, or T − 1.
    """
    pivot = max(directions, key=lambda name: abs(known[0][name])) if known else None
    products = {
        name: flatten(jet(task, params, direction).product) for name, direction in directions.items() if name != pivot
    }
    if known and pivot is not None:
        weights, product = known
        rest = flatten({name: product[name] for name in params})
        for name, image in products.items():
            rest = rest - weights[name] * image
        # The largest weight is divided by, so that rounding in the others is not amplified.
        products[pivot] = rest / weights[pivot]
    vectors = {name: flatten({key: direction[key] for key in params}) for name, direction in directions.items()}
    rows = [[float(products[row].double() @ vectors[col].double()) for col in directions] for row in directions]
    matrix = torch.tensor(rows, dtype=torch.float64)
    return (matrix + matrix.T) / 2
