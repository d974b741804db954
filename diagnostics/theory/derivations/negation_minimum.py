"""(2.7) Negation where the expert is no worse than the base: L C (1 + ε), the extra ½ L C is unnecessary."""

from __future__ import annotations

from typing import Any

from diagnostics.exact.relations import Relation
from diagnostics.theory.derivations.conditions import EXPERT_BEATS_BASE, LOSS, SIMILARITY, UNIT_COEFFICIENT
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant
from diagnostics.theory.derivations.ways import negation

__all__ = ["DERIVATIONS", "minimum_bound"]


def minimum_bound(smoothness: float, C: float, epsilon: float) -> float:
    """Return L·C·(1 + ε), the bound for negation where L_j(θ_j) ≤ L_j(θ0) (2.7).

    Args:
        smoothness: L, the Hessian spectral norm at the expert.
        C: max ‖τ‖².
        epsilon: max |cos| between different task vectors.

    Returns:
        The bound on L_j(θ0 − α_i τ_i) − L_j(θ0), in units of the loss; never above that of (2.2).

    Example:
        >>> minimum_bound(1.0, 4.0, 0.5)
        6.0
    """
    return smoothness * C * (1 + epsilon)


def _cases(dimension: int) -> Any:
    from diagnostics.testing.tasks import negations

    return negations(dimension, curving="constant") | negations(dimension, curving="shrinking")


def _worse_expert(dimension: int) -> Any:
    from diagnostics.testing.tasks import negations_at_expert

    return negations_at_expert(dimension)


def _bound(case: Any) -> Any:
    return minimum_bound(case.way.spectral.value, case.C, case.epsilon)


MINIMUM = Derivation(
    id="2.7-minimum",
    title="Where the expert's loss is no higher than the base's, negation costs at most L C (1 + ε).",
    source="sharper form of Zeng 2025, theorem on negation",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=(
            r"L_j(\theta_j) \le L_j(\theta_0) \;\Rightarrow\; "
            r"L_j(\theta_0 - \alpha \tau_i) - L_j(\theta_0) \le L_j C (1 + \varepsilon)"
        ),
        left=lambda case: case.way.gap,
        right=_bound,
        relation=Relation.AT_MOST,
        cases=_cases,
        assumptions=(*LOSS, EXPERT_BEATS_BASE, UNIT_COEFFICIENT, SIMILARITY),
        read=negation,
    ),
    mutants=(
        Mutant("the factor 1 + ε halved", right=lambda case: _bound(case) / 2),
        Mutant("an expert that is worse than the base", without="minimum", cases=_worse_expert),
    ),
    proof=(
        "L_j(θ*) − L_j(θ0) = [L_j(θ*) − L_j(θ_j)] + [L_j(θ_j) − L_j(θ0)], and the second bracket is not positive. The "
        "first is at most ½L‖v‖² with v = −ατ_i − τ_j, and ‖v‖² ≤ C(1 + α² + 2αε) ≤ 2C(1 + ε). It is below (2.2) by ½ "
        "L C and asks for nothing that a minimum does not give; (2.2) assumes no more than a bound from below."
    ),
    code=("diagnostics.negation_bounds",),
)
DERIVATIONS = (MINIMUM,)
