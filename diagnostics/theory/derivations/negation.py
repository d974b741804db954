"""(2.2) Negation: θ0 − α τ_i costs another task at most L C (3/2 + ε) over its loss at the base."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from diagnostics.exact.merge import Merge
from diagnostics.exact.relations import Relation
from diagnostics.exact.smooth import SmoothTask
from diagnostics.theory.derivations.conditions import (
    DIFFERENTIABLE,
    LOSS,
    LOWER_SIDE,
    SIMILARITY,
    SMOOTH_ABOVE,
    STATIONARY,
    UNIT_COEFFICIENT,
)
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant
from diagnostics.theory.derivations.ways import negation

__all__ = ["DERIVATIONS", "NEGATION", "negation_bound"]


def negation_bound(smoothness: float, C: float, epsilon: float) -> float:
    """Return L·C·(3/2 + ε), the paper's bound for negation (2.2).

    Args:
        smoothness: L, the Hessian spectral norm at the expert.
        C: max ‖τ‖².
        epsilon: max |cos| between different task vectors.

    Returns:
        The bound on L_j(θ0 − α_i τ_i) − L_j(θ0), in units of the loss.

    Example:
        >>> negation_bound(1.0, 4.0, 0.5)
        8.0
    """
    return smoothness * C * (1.5 + epsilon)


def _cases(dimension: int) -> Any:
    from diagnostics.testing.tasks import negations

    return negations(dimension, curving="constant") | negations(dimension, curving="shrinking")


def _one_sided(dimension: int) -> Any:
    from diagnostics.testing.tasks import negations_at_expert

    return negations_at_expert(dimension)


def _beyond(dimension: int) -> Any:
    from diagnostics.testing.numbers import numbers
    from diagnostics.testing.tasks import negations

    return negations(dimension, coefficient=numbers(1, 4), curving="constant")


def _sloping(dimension: int) -> Any:
    from diagnostics.testing.tasks import negations

    return negations(dimension, curving="constant", stationary=False)


def _bound(case: Any) -> Any:
    return negation_bound(case.way.spectral.value, case.C, case.epsilon)


_CLAIM = Claim(
    statement=r"L_j(\theta_0 - \alpha \tau_i) - L_j(\theta_0) \le L_j C (3/2 + \varepsilon), \quad j \ne i",
    left=lambda case: case.way.gap,
    right=_bound,
    relation=Relation.AT_MOST,
    cases=_cases,
    assumptions=(*LOSS, LOWER_SIDE, UNIT_COEFFICIENT, SIMILARITY),
    read=negation,
)
# 1 − (w − 1)⁴: flat at its expert 1, and lower at the base than any L C / 2 allows.
_HILL = SmoothTask(np.ones(1), np.zeros((1, 1)), np.zeros(1), 1.0, np.ones((1, 1)), np.zeros(1), np.array([-24.0]))

NEGATION = Derivation(
    id="2.2",
    title="Negating a task on the simplex costs another task at most L C (3/2 + ε) over the base.",
    source="Zeng 2025, theorem on negation",
    kind=Kind.CLAIM,
    claim=_CLAIM,
    mutants=(
        Mutant("the factor 3/2 + ε halved", right=lambda case: _bound(case) / 2),
        Mutant("the coefficient above one", without="coefficient", cases=_beyond),
        Mutant("a gradient that is not zero at the expert", without="stationary", cases=_sloping),
        Mutant("smoothness from above only", without="lower side", cases=_one_sided),
    ),
    published=dataclasses.replace(
        _CLAIM, cases=_one_sided, assumptions=(STATIONARY, DIFFERENTIABLE, SMOOTH_ABOVE, UNIT_COEFFICIENT, SIMILARITY)
    ),
    correction=(
        "The ½ L C that pays for counting from the base needs L_j(θ0) ≥ L_j(θ_j) − ½ L_j C, a bound on the loss from "
        "below, and (A2) bounds it from above only. With that bound as an assumption of its own the claim holds; it is "
        "met where the curvature between expert and base is at most L_j in absolute value, and at once where the "
        "expert's loss is no higher than the base's."
    ),
    counterexample=Merge(np.array([[1.0], [-1.0]]), np.array([0.0, -1.0]), _HILL, 0),
    by_hand=(
        "One parameter, θ0 = 0, τ_j = 1, τ_i = −1, α = 1, and L_j(w) = 1 − (w − 1)⁴. At θ_j = 1 the gradient and the "
        "second derivative vanish, so L_j = 0 in (A2), which holds: 1 − (w − 1)⁴ ≤ 1. The merge is θ0 − ατ_i = 1, with "
        "loss 1; the base has loss 0. The gap is 1, the bound L_j C (3/2 + ε) = 0."
    ),
    code=("diagnostics.negation_bounds",),
)
DERIVATIONS = (NEGATION,)
