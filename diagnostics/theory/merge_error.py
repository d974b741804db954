"""The merge error Δ = τ_* − Σ λ_i τ_i, split by what the first gradients explain of it (1.1), (1.4), (1.5)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["ALIGNMENT", "matched_alphas", "matched_coefficients", "merge_error_rows", "remainder_shares", "step_sizes"]

ALIGNMENT = "alignment error"


def step_sizes(gram: Tensor, count: int) -> list[float]:
    """Return the least-squares η_i = ⟨τ_i, g_i⟩/‖g_i‖² of (1.4); negative where training went downhill.

    Args:
        gram: Inner products of (τ_*, τ_1, …, g_*, g_1, …), [2 count, 2 count].
        count: Number of tasks K + 1.

    Returns:
        η_*, η_1, …, η_K; NaN for a zero gradient.

    Example:
        >>> step_sizes(torch.tensor([[1.0, -2.0], [-2.0, 4.0]]), 1)
        [-0.5]
    """
    squares = [float(gram[count + i, count + i]) for i in range(count)]
    return [float(gram[i, count + i]) / square if square > 0 else math.nan for i, square in enumerate(squares)]


def remainder_shares(gram: Tensor, count: int) -> list[float]:
    """Return ‖r_i‖/‖τ_i‖ of (1.4), the sine of the angle between a task vector and its gradient.

    Args:
        gram: Inner products of (τ_*, τ_1, …, g_*, g_1, …), [2 count, 2 count]; they tell sines from 1e-7 on.
        count: Number of tasks K + 1.

    Returns:
        One share a task; NaN for a zero gradient or task vector.

    Example:
        >>> remainder_shares(torch.tensor([[1.0, -0.6], [-0.6, 1.0]], dtype=torch.float64), 1)
        [0.8]
    """
    shares = []
    for i, eta in enumerate(step_sizes(gram, count)):
        square = float(gram[i, i])
        rest = square - eta * float(gram[i, count + i])
        shares.append(math.sqrt(max(rest, 0.0) / square) if square > 0 and math.isfinite(eta) else math.nan)
    return shares


def matched_coefficients(etas: Sequence[float], alphas: Sequence[float]) -> list[float]:
    """Return the λ_i = α_i η_*/η_i of (1.5), which turn coefficients of gradients into those of task vectors.

    Args:
        etas: η_*, η_1, …, η_K.
        alphas: α_1, …, α_K.

    Returns:
        λ_1, …, λ_K.

    Example:
        >>> matched_coefficients([-2.0, -1.0, -4.0], [0.5, 0.5])
        [1.0, 0.25]
    """
    return [alpha * etas[0] / eta for alpha, eta in zip(alphas, etas[1:], strict=True)]


def matched_alphas(etas: Sequence[float], coefficients: Sequence[float]) -> list[float]:
    """Return the α_i = λ_i η_i/η_* that belong to given coefficients of the task vectors.

    Args:
        etas: η_*, η_1, …, η_K.
        coefficients: λ_1, …, λ_K.

    Returns:
        α_1, …, α_K.

    Example:
        >>> matched_alphas([-2.0, -1.0, -4.0], [1.0, 0.25])
        [0.5, 0.5]
    """
    return [value * eta / etas[0] for value, eta in zip(coefficients, etas[1:], strict=True)]


def merge_error_rows(etas: Sequence[float], alphas: Sequence[float], coefficients: Sequence[float]) -> list[Tensor]:
    """Return the parts of Δ as coefficients of (τ_*, τ_1, …, g_*, g_1, …).

    With r_i = τ_i − η_i g_i and λ_i = α_i η_*/η_i, exactly::

        τ_* − Σ λ_i τ_i = η_* ∇ℰ(θ0) + r_* − Σ λ_i r_i

    The published form (1.5) has −η_* ∇ℰ(θ0); with τ_i ≈ η_i g_i as in (1.4) that sign is wrong, and with
    τ_i ≈ −η_i g_i it is right.

    Args:
        etas: η_*, η_1, …, η_K.
        alphas: α_1, …, α_K.
        coefficients: λ_1, …, λ_K, those that belong to the α.

    Returns:
        Δ, then η_* ∇ℰ(θ0), r_*, −λ_1 r_1, …, −λ_K r_K; each [2(K + 1)], float64. Δ is the sum of the others.
    """
    count = len(etas)
    unit = torch.eye(2 * count, dtype=torch.float64)
    vectors, gradients = unit[:count], unit[count:]
    remainders = [vectors[i] - etas[i] * gradients[i] for i in range(count)]
    delta, error = vectors[0].clone(), gradients[0].clone()
    for i, (alpha, value) in enumerate(zip(alphas, coefficients, strict=True), 1):
        delta -= value * vectors[i]
        error -= alpha * gradients[i]
    scaled = [-value * remainder for value, remainder in zip(coefficients, remainders[1:], strict=True)]
    return [delta, etas[0] * error, remainders[0], *scaled]
