"""(1.2), (1.3), (1.7) The loss error ℰ and its gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diagnostics.exact.relations import Relation
from diagnostics.exact.smooth import SmoothTask, five_points
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant

__all__ = ["DERIVATIONS"]


@dataclass(frozen=True)
class _Losses:
    """A target and its components as smooth losses, with θ0 = 0 and a way v."""

    target: SmoothTask
    components: tuple[SmoothTask, ...]
    alphas: Any
    way: Any

    def mixed(self, function: Any) -> Any:
        """f(L_*) − Σ α_i f(L_i)."""
        total = function(self.target)
        for alpha, task in zip(self.alphas, self.components, strict=True):
            total = total - alpha * function(task)
        return total

    @property
    def origin(self) -> Any:
        """θ0."""
        return 0.0 * self.way

    def error(self, step: float) -> Any:
        """ℰ(θ0 + step v)."""
        return self.mixed(lambda task: task.loss(step * self.way))

    @property
    def slope(self) -> Any:
        """⟨g_* − Σ α_i g_i, v⟩."""
        target, *components = (task.gradient(self.origin) for task in (self.target, *self.components))
        return (target - self.alphas @ np.stack(components)) @ self.way


def _cases(dimension: int) -> Any:
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import arrays, coefficients
    from diagnostics.testing.tasks import smooth_tasks

    def of(count: int) -> Any:
        tasks = [smooth_tasks(dimension, stationary=False) for _ in range(count + 1)]
        parts = st.tuples(st.tuples(*tasks), coefficients(count), arrays(dimension))
        return parts.map(lambda drawn: _Losses(drawn[0][0], drawn[0][1:], drawn[1], drawn[2]))

    return st.integers(1, 2).flatmap(of)


def _curvature(case: _Losses) -> Any:
    """∫₀¹ (1 − s) vᵀ(H_* − Σ α_i H_i)v ds."""
    return case.mixed(lambda task: task.remainder(case.origin, case.way))


LOSS_ERROR = Derivation(
    id="1.2",
    title="The loss error moves by the alignment error along the way and by the mismatch of curvatures.",
    source="Lee 2026, definition of the loss error, with Taylor's formula",
    kind=Kind.DEFINITION,
    claim=Claim(
        statement=r"\mathcal{E}(\theta) = L_*(\theta) - \sum_i \alpha_i L_i(\theta), \quad \mathcal{E}(\theta_0 + v) "
        r"- \mathcal{E}(\theta_0) = \langle \nabla\mathcal{E}(\theta_0), v \rangle + \int_0^1 (1 - s)\, v^\top \Big( "
        r"H_* - \sum_i \alpha_i H_i \Big)(\theta_0 + s v)\, v \,\mathrm{d}s",
        left=lambda case: case.error(1.0) - case.error(0.0),
        right=lambda case: case.slope + _curvature(case),
        relation=Relation.EQUAL,
        cases=_cases,
    ),
    mutants=(
        Mutant("without the mismatch of curvatures", right=lambda case: case.slope),
        Mutant("the curvature of the target alone", right=lambda case: case.slope + _own_curvature(case)),
    ),
    code=("diagnostics.gradient_alignment",),
)


def _own_curvature(case: _Losses) -> Any:
    return case.target.remainder(case.origin, case.way)


GRADIENT = Derivation(
    id="1.3",
    title="The gradient of the loss error is the target's gradient less the components', weighted by α.",
    source="Lee 2026",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\nabla\mathcal{E}(\theta_0) = g_* - \sum_i \alpha_i g_i",
        left=lambda case: five_points(case.error),
        right=lambda case: case.slope,
        relation=Relation.EQUAL,
        cases=_cases,
    ),
    mutants=(
        Mutant("the components added", right=lambda case: 2 * _own_slope(case) - case.slope),
        Mutant("the components forgotten", right=lambda case: _own_slope(case)),
    ),
    code=("diagnostics.gradient_alignment", "diagnostics.theory.alignment.alignment_row"),
)


def _own_slope(case: _Losses) -> Any:
    return case.target.gradient(case.origin) @ case.way


@dataclass(frozen=True)
class _Mixture:
    """Components as smooth losses, the weights of a target that is a mixture of them, a point θ and a way v."""

    components: tuple[SmoothTask, ...]
    weights: Any
    point: Any
    way: Any

    def target(self, step: float) -> Any:
        """L_*(θ + step v) with L_* = Σ α'_i L_i."""
        parts = zip(self.weights, self.components, strict=True)
        return sum((weight * task.loss(self.point + step * self.way) for weight, task in parts), start=0.0)

    def slope(self, alphas: Any) -> Any:
        """⟨Σ α_i ∇L_i(θ), v⟩."""
        return alphas @ np.stack([task.gradient(self.point) for task in self.components]) @ self.way


def _mixtures(dimension: int) -> Any:
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import arrays, coefficients
    from diagnostics.testing.tasks import smooth_tasks

    def of(count: int) -> Any:
        tasks = st.tuples(*[smooth_tasks(dimension, stationary=False) for _ in range(count)])
        return st.builds(_Mixture, tasks, coefficients(count), arrays(dimension), arrays(dimension))

    return st.integers(1, 3).flatmap(of)


MULTI_TASK = Derivation(
    id="1.7",
    title="For a target that is a mixture of the components the alignment error vanishes at every point.",
    source="Lee 2026",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"L_* = \sum_i \alpha'_i L_i,\; \alpha = \alpha' \;\Rightarrow\; \nabla\mathcal{E}(\theta) = 0 "
        r"\text{ for all } \theta",
        left=lambda case: five_points(case.target),
        right=lambda case: case.slope(case.weights),
        relation=Relation.EQUAL,
        cases=_mixtures,
    ),
    mutants=(
        Mutant("half of the weights", right=lambda case: case.slope(case.weights) / 2),
        Mutant("the plain sum of the components", right=lambda case: case.slope(0 * case.weights + 1)),
    ),
    code=("diagnostics.gradient_alignment",),
)
DERIVATIONS = (LOSS_ERROR, GRADIENT, MULTI_TASK)
