"""(2.5) From the measured gap to the paper's bound: Taylor's formula and every step above it."""

from __future__ import annotations

from typing import Any

import numpy as np

from diagnostics.exact.relations import Relation
from diagnostics.theory.derivations.addition import addition_bound
from diagnostics.theory.derivations.conditions import SIMILARITY, SIMPLEX, SMOOTH
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant
from diagnostics.theory.derivations.ways import addition, weights
from diagnostics.theory.loss_gap import common_steps, spread_factor

__all__ = ["DERIVATIONS"]


def _cases(dimension: int) -> Any:
    from diagnostics.testing.tasks import merges

    return merges(dimension, kind="any", stationary=False)


def _formula(case: Any) -> Any:
    return case.way.slope + case.way.integral


TAYLOR = Derivation(
    id="2.5",
    title="The gap is the slope plus the integral of the curvature on the way, weighted by 1 − s.",
    source="Taylor's formula, under Zeng 2025",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"L_k(\theta^*) - L_k(\theta_k) = \langle \nabla L_k(\theta_k), v \rangle + \int_0^1 (1 - s)\, "
        r"v^\top \nabla^2 L_k(\theta_k + s v)\, v \,\mathrm{d}s",
        left=lambda case: case.way.gap,
        right=_formula,
        relation=Relation.EQUAL,
        cases=_cases,
        read=addition,
    ),
    mutants=(
        Mutant("half the curvature at the expert", right=lambda case: case.way.slope + case.way.curvatures[0] / 2),
        Mutant("the gradient term lost", right=lambda case: case.way.integral),
        Mutant("the sign of the gradient term flipped", right=lambda case: case.way.integral - case.way.slope),
        Mutant("a weight of ½ for 1 − s", right=lambda case: case.way.slope + _flat_weight(case)),
    ),
    code=("diagnostics.addition_bounds",),
)


def _flat_weight(case: Any) -> Any:
    """½ ∫ vᵀHv ds, by Simpson's rule, which is exact for curvature of degree two."""
    first, middle, last = case.way.curvatures
    return (first + 4 * middle + last) / 12


def _falling(dimension: int) -> Any:
    from diagnostics.testing.tasks import merges

    # Curvature that is monotone on the way, which the upper sum of (2.6) needs.
    return merges(dimension, curving="shrinking", stationary=False) | merges(
        dimension, curving="constant", stationary=False
    )


def _rungs(case: Any) -> list[Any]:
    """Values of the chain's steps that are claimed to rise, from the measured gap to the paper's bound."""
    steps = [value for label, value in common_steps(case.way) if label.startswith("<=")]
    smoothness = case.way.spectral.value
    spread = smoothness * case.C * spread_factor(weights(case.merge), case.epsilon) / 2
    return [
        case.way.gap,
        *steps,
        case.way.linear + spread,
        case.way.linear + addition_bound(smoothness, case.C, case.epsilon),
    ]


CHAIN = Derivation(
    id="2.5-chain",
    title="Every step of the chain from the measured gap to L C (1 + ε) is at least the one before.",
    source="the steps between Taylor's formula and Zeng 2025, theorem on addition",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"\text{gap} \le \langle \nabla L_k, v \rangle + \{\text{upper sum}, \tfrac12 \max_s v^\top H v, "
        r"\tfrac12 L^S \Vert v \Vert^2, \tfrac12 L_k \Vert v \Vert^2, \tfrac12 L_k C Q, L_k C (1 + \varepsilon)\}",
        left=lambda case: np.stack(_rungs(case)[:-1]),
        right=lambda case: np.stack(_rungs(case)[1:]),
        relation=Relation.AT_MOST,
        cases=_falling,
        assumptions=(SMOOTH, SIMPLEX, SIMILARITY),
        read=addition,
    ),
    mutants=(
        Mutant("off the simplex", without="simplex", cases=_cases),
        Mutant("curvature that grows on the way", without="smooth", cases=_cases),
    ),
    proof=(
        "The weights of the upper sum are the integrals of 1 − s between nodes and add up to ½, so it lies between the "
        "integral, where the curvature is monotone between nodes, and half of the largest curvature. That curvature is "
        "a Rayleigh quotient of the subspace times ‖v‖², which L bounds. The last two steps are (2.4)."
    ),
    code=("diagnostics.theory.loss_gap.common_steps",),
)
DERIVATIONS = (TAYLOR, CHAIN)
