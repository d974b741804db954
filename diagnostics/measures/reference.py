"""Dense, slow, obvious versions of the measures, for tests and doubters; nothing here imports from this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

__all__ = ["dense_gradient", "dense_hessian", "dense_spectral_norm"]

Point = Mapping[str, Tensor]


def dense_gradient(loss: Callable[[Point], Tensor], params: Point, step: float = 1e-6) -> np.ndarray:
    """Return the gradient by central differences, one coordinate at a time.

    Args:
        loss: The loss as a function of named parameters, float64.
        params: The point.
        step: Half the distance between the two evaluations.

    Returns:
        The gradient, flattened in the order of ``params``, [d].

    Example:
        >>> dense_gradient(lambda p: (p["w"] ** 2).sum(), {"w": torch.ones(2).double()}).round(6).tolist()
        [2.0, 2.0]
    """
    gradient = []
    for name, value in params.items():
        for index in range(value.numel()):
            ends = []
            for sign in (1, -1):
                moved = value.clone()
                moved.view(-1)[index] += sign * step
                ends.append(float(loss({**params, name: moved})))
            gradient.append((ends[0] - ends[1]) / (2 * step))
    return np.array(gradient)


def dense_hessian(loss: Callable[[Point], Tensor], params: Point) -> np.ndarray:
    """Return the full Hessian by differentiating the gradient once for each coordinate.

    Args:
        loss: The loss as a function of named parameters.
        params: The point.

    Returns:
        The Hessian, [d, d], in the order of ``params``.

    Example:
        >>> dense_hessian(lambda p: (p["w"] ** 3).sum(), {"w": torch.tensor([1.0, 2.0])}).tolist()
        [[6.0, 0.0], [0.0, 12.0]]
    """
    leaves = [value.detach().clone().requires_grad_() for value in params.values()]
    value = loss(dict(zip(params, leaves, strict=True)))
    grads = torch.autograd.grad(value, leaves, create_graph=True, allow_unused=True)
    flat = torch.cat(
        [torch.zeros_like(p).view(-1) if g is None else g.reshape(-1) for g, p in zip(grads, leaves, strict=True)]
    )
    rows = []
    for entry in flat:
        row = (
            torch.autograd.grad(entry, leaves, retain_graph=True, allow_unused=True)
            if entry.requires_grad
            else [None] * len(leaves)
        )
        rows.append(
            torch.cat(
                [torch.zeros_like(p).view(-1) if r is None else r.reshape(-1) for r, p in zip(row, leaves, strict=True)]
            )
        )
    return torch.stack(rows).detach().numpy()


def dense_spectral_norm(matrix: np.ndarray) -> float:
    """Return max |eigenvalue| of a symmetric matrix by a dense eigensolver.

    Args:
        matrix: The matrix, [d, d].

    Returns:
        Its spectral norm.

    Example:
        >>> dense_spectral_norm(np.diag([2.0, -3.0]))
        3.0
    """
    return float(np.abs(np.linalg.eigvalsh(matrix)).max())
