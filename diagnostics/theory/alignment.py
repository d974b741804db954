"""The gradient-alignment error ∇ℰ(θ0) = g_* − Σ α_i g_i and its best coefficients (1.3), (1.6)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

__all__ = ["alignment_row", "best_alphas", "dependent"]

# Directions of the components' Gram matrix below this share of its largest are rounding.
_RCOND = 1e-12


def best_alphas(gram: Tensor, *, sign: Literal["any", "nonnegative"] = "any") -> Tensor:
    """Return argmin_α ‖g_* − Σ α_i g_i‖² (1.6), from inner products alone.

    Args:
        gram: Inner products of (g_*, g_1, …, g_K), [K + 1, K + 1].
        sign: Whether α ≥ 0 is required.

    Returns:
        α, [K], float64; with it ‖∇ℰ‖/‖g_*‖ is the sine of the angle between g_* and the span of the g_i. Where
        components are linearly dependent α is not unique, and the shortest one (in units of their norms) is returned.

    Example:
        >>> gram = torch.tensor([[5.0, 2.0, -1.0], [2.0, 1.0, 0.0], [-1.0, 0.0, 1.0]])
        >>> best_alphas(gram).tolist()
        [2.0, -1.0]
        >>> best_alphas(gram, sign="nonnegative").tolist()
        [2.0, 0.0]
    """
    scale, roots, basis = _spectrum(gram)
    toward = (gram[1:, 0].double() / scale).numpy()
    # Coordinates in which the components are the columns of a matrix and g_* is projected onto their span.
    columns, image = roots[:, None] * basis.T, (basis.T @ toward) / roots
    if sign == "nonnegative":
        solution = nnls(columns, image)[0] if len(roots) else np.zeros(len(scale))
    else:
        solution = basis @ (image / roots)
    return torch.from_numpy(solution) / scale


def dependent(gram: Tensor) -> bool:
    """Say whether the components' gradients are linearly dependent, so that the best α is not unique.

    Args:
        gram: Inner products of (g_*, g_1, …, g_K), [K + 1, K + 1].

    Returns:
        Whether they are, to rounding.

    Example:
        >>> dependent(torch.ones(3, 3)), dependent(torch.eye(3))
        (True, False)
    """
    return len(_spectrum(gram)[1]) < len(gram) - 1


def _spectrum(gram: Tensor) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Norms of the components, and the roots and eigenvectors of their Gram matrix of unit vectors, without zeros."""
    gram = gram.double()
    norms = gram.diagonal()[1:].clamp_min(0).sqrt()
    scale = torch.where(norms > 0, norms, 1.0)
    values, vectors = np.linalg.eigh((gram[1:, 1:] / scale[:, None] / scale[None, :]).numpy())
    kept = values > _RCOND * max(values.max(), 0.0)
    return scale, np.sqrt(values[kept]), vectors[:, kept]


def alignment_row(alphas: Tensor) -> Tensor:
    """Return ∇ℰ(θ0) as coefficients of (g_*, g_1, …, g_K) (1.3).

    Args:
        alphas: α, [K].

    Returns:
        (1, −α_1, …, −α_K), float64.

    Example:
        >>> alignment_row(torch.tensor([0.5])).tolist()
        [1.0, -0.5]
    """
    return torch.cat([torch.ones(1, dtype=torch.float64), -alphas.double()])
