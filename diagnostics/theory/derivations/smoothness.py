"""(2.6) Smoothness: which constant makes (A2) true on the way from an expert to a merge."""

from __future__ import annotations

from typing import Any

import numpy as np

from diagnostics.exact.merge import Merge
from diagnostics.exact.relations import Relation
from diagnostics.exact.smooth import SmoothTask
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant
from diagnostics.theory.derivations.ways import addition

__all__ = ["DERIVATIONS"]


def _cases(dimension: int) -> Any:
    from diagnostics.testing.tasks import merges

    return merges(dimension, kind="any", stationary=False)


def _rise(case: Any) -> Any:
    return case.way.end - case.way.start


def _parabola(case: Any, smoothness: Any) -> Any:
    return case.way.slope + smoothness * case.way.norm_squared / 2


def _along(case: Any) -> Any:
    return _parabola(case, max(case.way.spectral_along))


def _at_expert(case: Any) -> Any:
    return _parabola(case, case.way.spectral.value)


# w⁴, flat at its minimum.
_FLAT = SmoothTask(np.zeros(1), np.zeros((1, 1)), np.zeros(1), 0.0, np.ones((1, 1)), np.zeros(1), np.array([24.0]))

SMOOTHNESS = Derivation(
    id="2.6",
    title="The largest curvature on the way bounds the loss there; the curvature at the expert alone does not.",
    source="Zeng 2025, assumption of local smoothness",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"L_i(\theta) - L_i(\theta_i) \le \langle \theta - \theta_i, \nabla L_i(\theta_i) \rangle + "
        r"\tfrac12 \max_{0 \le s \le 1} \Vert \nabla^2 L_i(\theta_i + s(\theta - \theta_i)) \Vert_2 \, \Vert \theta - "
        r"\theta_i \Vert^2",
        left=_rise,
        right=_along,
        relation=Relation.AT_MOST,
        cases=_cases,
        read=addition,
    ),
    mutants=(
        Mutant("the factor ½ halved", right=lambda case: (_along(case) + case.way.slope) / 2),
        Mutant("the norm of the way not squared", right=lambda case: _linear(case)),
        Mutant("the gradient term lost", right=lambda case: _along(case) - case.way.slope),
    ),
    published=Claim(
        statement=r"L_i(\theta) - L_i(\theta_i) \le \langle \theta - \theta_i, \nabla L_i(\theta_i) \rangle + "
        r"\tfrac12 \Vert \nabla^2 L_i(\theta_i) \Vert_2 \Vert \theta - \theta_i \Vert^2",
        left=_rise,
        right=_at_expert,
        relation=Relation.AT_MOST,
        cases=_cases,
        read=addition,
    ),
    correction=(
        "The paper assumes this inequality together with L_i = ‖∇²L_i(θ_i)‖₂. It is no property of smooth losses: "
        "where the curvature grows away from the expert it fails, however near the point. With the largest norm on the "
        "way in place of the norm at the expert it holds for every twice differentiable loss."
    ),
    counterexample=Merge(np.array([[0.0], [1.0]]), np.array([0.0, 1.0]), _FLAT, 0),
    by_hand=(
        "One parameter, L(w) = w⁴, θ_i = 0 and θ = 1. Gradient and second derivative at 0 vanish, so the right side is "
        "0; the left side is 1. At θ = t it is t⁴ against 0: no distance is small enough. On the way from 0 to 1 the "
        "second derivative is at most 12, and 1 ≤ ½ · 12."
    ),
    proof="Taylor's formula (2.5) with vᵀ∇²L v ≤ ‖∇²L‖₂ ‖v‖² under the integral, and ∫(1 − s) ds = ½.",
    code=("diagnostics.addition_bounds",),
)


def _linear(case: Any) -> Any:
    return case.way.slope + max(case.way.spectral_along) * np.sqrt(case.way.norm_squared) / 2


DERIVATIONS = (SMOOTHNESS,)
