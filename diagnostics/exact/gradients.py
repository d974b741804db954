"""Task vectors and first gradients of a target task and its components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["FirstGradients"]


@dataclass(frozen=True)
class FirstGradients:
    """What the merge error and the gradient-alignment error are made of; the target's row comes first.

    Attributes:
        vectors: τ_*, τ_1, …, τ_K, [K + 1, d].
        gradients: g_*, g_1, …, g_K at θ0, [K + 1, d].
        alphas: α, [K].
    """

    vectors: Any
    gradients: Any
    alphas: Any

    @property
    def error(self) -> Any:
        """∇ℰ(θ0) = g_* − Σ α_i g_i, [d]."""
        return self.gradients[0] - self.alphas @ self.gradients[1:]

    @property
    def gram(self) -> Any:
        """Inner products of (τ_*, τ_1, …, g_*, g_1, …), [2(K + 1), 2(K + 1)]."""
        rows = np.concatenate([self.vectors, self.gradients])
        return rows @ rows.T

    def merge_error(self, coefficients: Any) -> Any:
        """Return Δ = τ_* − Σ λ_i τ_i, [d]."""
        return self.vectors[0] - coefficients @ self.vectors[1:]
