"""One task of a merge with a loss in closed form; the base model is the origin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diagnostics.exact.smooth import SmoothTask

__all__ = ["Merge"]


@dataclass(frozen=True)
class Merge:
    """Task vectors, coefficients, and the loss of one task; θ0 = 0, so an expert is its task vector.

    Attributes:
        vectors: τ_i, [T, d].
        coefficients: α_i, [T]; the merge is θ* = Σ α_i τ_i.
        task: The loss that is looked at; its anchor is its own expert.
        index: Which of the vectors is that expert; ``None`` for a target that is none of them.

    Example:
        >>> flat = SmoothTask(np.ones(1), np.eye(1), np.zeros(1), 0.0, np.zeros((0, 1)), np.zeros(0), np.zeros(0))
        >>> merge = Merge(np.array([[1.0], [-1.0]]), np.array([0.5, 0.5]), flat, 0)
        >>> merge.end.tolist(), merge.way.tolist(), float(merge.C), float(merge.epsilon)
        ([0.0], [-1.0], 1.0, 1.0)
    """

    vectors: Any
    coefficients: Any
    task: SmoothTask
    index: int | None

    @property
    def end(self) -> Any:
        """θ*, [d]."""
        return self.coefficients @ self.vectors

    @property
    def way(self) -> Any:
        """V = θ* − θ_k, [d]."""
        return self.end - self.task.anchor

    @property
    def gram(self) -> Any:
        """G_ij = ⟨τ_i, τ_j⟩, [T, T]."""
        return self.vectors @ self.vectors.T

    @property
    def squared_norms(self) -> Any:
        """‖τ_i‖², and that of the target where it is none of them."""
        own = (self.vectors**2).sum(1)
        return own if self.index is not None else np.concatenate([own, (self.task.anchor**2).sum().reshape(1)])

    @property
    def C(self) -> Any:
        """Max ‖τ‖², the target included."""
        return np.max(self.squared_norms)

    @property
    def epsilon(self) -> Any:
        """Max |cos(τ_i, τ_j)| over i ≠ j; a vector of norm zero has no angle and counts as 0."""
        squares = (self.vectors**2).sum(1)
        sizes = np.where(squares > 0, np.sqrt(squares), 1.0)
        cosines = abs(self.gram) / np.outer(sizes, sizes)
        pairs = np.triu(cosines, 1)
        return np.max(np.where(pairs > 1, 1.0, pairs))

    @property
    def toward(self) -> Any:
        """⟨τ_tar, τ_i⟩, [T], for the task's own vector τ_tar."""
        return self.vectors @ self.task.anchor
