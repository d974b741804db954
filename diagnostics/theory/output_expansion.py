"""Outputs of a merge from outputs of single models: rays, and one mixed term for each pair (5.1), (5.2).

    f(θ0 + Σ λ_j τ_j) ≈ f(θ0) + Σ_j ρ_j(λ_j) + Σ_{j<l} λ_j λ_l m_jl

ρ_j is a polynomial through the measured outputs on expert j's own ray. The mixed term is a difference of slopes,
which each of the two experts measures from its side:

    m_jl = J(θ_j)τ_l − J(θ0)τ_l   or   m_jl = J(θ_l)τ_j − J(θ0)τ_j.

The two agree when nothing beyond second order matters; their mean is the prediction and their difference is
evidence of its error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

__all__ = ["VARIANTS", "mixed_term", "ray_weights", "sum_of_terms"]

# How the two measurements of each mixed term are weighted: the prediction, each side alone, and none at all.
VARIANTS: dict[str, tuple[float, float]] = {
    "mean": (0.5, 0.5),
    "first": (1.0, 0.0),
    "second": (0.0, 1.0),
    "additive": (0.0, 0.0),
}


def ray_weights(nodes: Sequence[float], s: float) -> tuple[np.ndarray, float]:
    """Return the weights of the interpolating polynomial on a ray.

    The polynomial p has p(0) = 0, takes the increments measured at ``nodes`` and the slope measured at 0.

    Args:
        nodes: Where increments f(θ0 + s·τ) − f(θ0) are known.
        s: Where to evaluate.

    Returns:
        ``(weights of the increments, weight of the slope at 0)``.

    Example:
        >>> weights, slope = ray_weights([1.0], 0.5)  # the parabola through p(1) with slope p'(0)
        >>> weights.tolist(), slope
        ([0.25], 0.25)
    """
    powers = np.arange(1, len(nodes) + 2)
    rows = np.vstack([np.power.outer(np.asarray(nodes), powers), (powers == 1).astype(float)])
    solution = np.linalg.solve(rows.T, np.power(float(s), powers))
    return solution[:-1], float(solution[-1])


def mixed_term(own: Any, other: Any, base_own: Any, base_other: Any, weights: tuple[float, float]) -> Any:
    """Return m_jl, weighted between its two measurements.

    Args:
        own: J(θ_j)τ_l.
        other: J(θ_l)τ_j.
        base_own: J(θ0)τ_l.
        base_other: J(θ0)τ_j.
        weights: Weight of the first and of the second measurement.

    Returns:
        The mixed term, shaped like its inputs.

    Example:
        >>> mixed_term(3.0, 5.0, 1.0, 1.0, (0.5, 0.5))
        3.0
    """
    return weights[0] * (own - base_own) + weights[1] * (other - base_other)


def sum_of_terms(
    base: Any,
    coefficients: Mapping[str, float],
    ray: Callable[[str, float], Any],
    mixed: Callable[[str, str], Any],
) -> Any:
    """Return f(θ0) + Σ ρ_j(λ_j) + Σ λ_j λ_l m_jl.

    Args:
        base: f(θ0).
        coefficients: λ_j by expert.
        ray: ``ray(name, s)``, the increment on an expert's ray.
        mixed: ``mixed(first, second)``, the mixed term of a pair.

    Returns:
        The predicted outputs.

    Example:
        >>> sum_of_terms(1.0, {"a": 2.0, "b": 3.0}, lambda name, s: s, lambda j, l: 0.5)
        9.0
    """
    active = {name: value for name, value in coefficients.items() if value != 0}
    total = base
    for name, value in active.items():
        total = total + ray(name, value)
    for first, second in combinations(active, 2):
        total = total + active[first] * active[second] * mixed(first, second)
    return total
