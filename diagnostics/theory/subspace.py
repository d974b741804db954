"""The curvature of a quadratic form on the span of the task vectors, from inner products alone (2.10)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["generalised_norm", "generalised_range"]

# Directions of the Gram matrix below this share of its largest are rounding.
_RCOND = 1e-10


def generalised_norm(matrix: Tensor, gram: Tensor) -> float:
    """Return max |xᵀMx| / xᵀGx over the range of G.

    Args:
        matrix: M, symmetric, [T, T].
        gram: G, positive semidefinite, [T, T]; directions that it takes to zero are left out.

    Returns:
        The largest absolute generalised eigenvalue; 0 where G is zero.

    Example:
        >>> generalised_norm(torch.diag(torch.tensor([2.0, -12.0])), torch.diag(torch.tensor([1.0, 4.0])))
        3.0
    """
    return max(abs(value) for value in generalised_range(matrix, gram))


def generalised_range(matrix: Tensor, gram: Tensor) -> tuple[float, float]:
    """Return the least and the largest xᵀMx / xᵀGx over the range of G.

    Args:
        matrix: M, symmetric, [T, T].
        gram: G, positive semidefinite, [T, T]; directions that it takes to zero are left out.

    Returns:
        The extreme generalised eigenvalues; zeros where G is zero.

    Example:
        >>> generalised_range(torch.diag(torch.tensor([2.0, -12.0])), torch.diag(torch.tensor([1.0, 4.0])))
        (-3.0, 2.0)
    """
    scale, vectors = torch.linalg.eigh(gram)
    keep = scale > _RCOND * scale.max()
    if not bool(keep.any()):
        return 0.0, 0.0
    whitened = vectors[:, keep] / scale[keep].sqrt()
    values = torch.linalg.eigvalsh(whitened.T @ matrix @ whitened)
    return float(values[0]), float(values[-1])
