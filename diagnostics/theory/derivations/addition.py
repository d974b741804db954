"""(2.1) Addition: the loss of task k at θ0 + Σ α_j τ_j exceeds its expert's by at most L C (1 + ε)."""

from __future__ import annotations

from typing import Any

import numpy as np

from diagnostics.exact.relations import Relation
from diagnostics.theory.derivations.conditions import LOSS, SIMILARITY, SIMPLEX
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant
from diagnostics.theory.derivations.ways import addition

__all__ = ["ADDITION", "DERIVATIONS", "addition_bound"]


def addition_bound(smoothness: float, C: float, epsilon: float) -> float:
    """Return L·C·(1 + ε), the paper's bound for addition (2.1).

    Args:
        smoothness: L, the Hessian spectral norm at the expert.
        C: max ‖τ‖².
        epsilon: max |cos| between different task vectors.

    Returns:
        The bound on L_i(θ*) − L_i(θ_i), in units of the loss.

    Example:
        >>> addition_bound(1.0, 4.0, 0.2)
        4.8
    """
    return smoothness * C * (1 + epsilon)


def _cases(dimension: int) -> Any:
    from diagnostics.testing.tasks import merges

    return merges(dimension, curving="shrinking") | merges(dimension, curving="constant")


def _without_simplex(dimension: int) -> Any:
    from diagnostics.testing.tasks import merges

    return merges(dimension, kind="any", curving="constant")


def _without_stationarity(dimension: int) -> Any:
    from diagnostics.testing.tasks import merges

    return merges(dimension, curving="constant", stationary=False)


def _without_smoothness(dimension: int) -> Any:
    from diagnostics.testing.tasks import merges

    return merges(dimension, curving="any")


def _bound(case: Any) -> Any:
    return addition_bound(case.way.spectral.value, case.C, case.epsilon)


ADDITION = Derivation(
    id="2.1",
    title="A merge on the simplex costs a task at most L C (1 + ε) over its own expert.",
    source="Zeng 2025, theorem on addition",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"L_i(\theta^*) - L_i(\theta_i) \le L_i C (1 + \varepsilon)",
        left=lambda case: case.way.gap,
        right=_bound,
        relation=Relation.AT_MOST,
        cases=_cases,
        assumptions=(*LOSS, SIMPLEX, SIMILARITY),
        read=addition,
    ),
    mutants=(
        Mutant("the factor 1 + ε halved", right=lambda case: _bound(case) / 2),
        Mutant(
            "norms instead of squared norms",
            right=lambda case: addition_bound(case.way.spectral.value, np.sqrt(case.C), case.epsilon),
        ),
        Mutant("off the simplex", without="simplex", cases=_without_simplex),
        Mutant("a gradient that is not zero at the expert", without="stationary", cases=_without_stationarity),
        Mutant("curvature that grows on the way", without="smooth", cases=_without_smoothness),
    ),
    code=("diagnostics.addition_bounds",),
)
DERIVATIONS = (ADDITION,)
