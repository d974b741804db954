"""(2.3) Out of distribution: an unseen target at its nearest expert costs at most L C (1 − β)."""

from __future__ import annotations

from typing import Any

import numpy as np

from diagnostics.exact.relations import Relation
from diagnostics.theory.derivations.conditions import LOSS, POINTS_THE_WAY
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant
from diagnostics.theory.derivations.ways import out_of_distribution

__all__ = ["DERIVATIONS", "OUT_OF_DISTRIBUTION", "out_of_distribution_bound"]


def out_of_distribution_bound(smoothness: float, C: float, beta: float) -> float:
    """Return L·C·(1 − β), the paper's bound out of distribution (2.3).

    Args:
        smoothness: L, the Hessian spectral norm at the target's expert.
        C: max ‖τ‖², the target included.
        beta: max ⟨τ_tar, τ_i⟩ / C.

    Returns:
        The bound on L_tar(θ*) − L_tar(θ_tar), in units of the loss.

    Example:
        >>> out_of_distribution_bound(2.0, 4.0, 0.75)
        2.0
    """
    return smoothness * C * (1 - beta)


def _cases(dimension: int) -> Any:
    from diagnostics.testing.tasks import targets

    drawn = targets(dimension, curving="constant") | targets(dimension, curving="shrinking")
    return drawn.filter(lambda merge: merge.toward.max() > 0)


def _sloping(dimension: int) -> Any:
    from diagnostics.testing.tasks import targets

    return targets(dimension, curving="constant", stationary=False)


def _growing(dimension: int) -> Any:
    from diagnostics.testing.tasks import targets

    return targets(dimension, curving="any")


def _bound(case: Any) -> Any:
    return out_of_distribution_bound(case.way.spectral.value, case.C, case.beta)


OUT_OF_DISTRIBUTION = Derivation(
    id="2.3",
    title="An unseen target at the expert that points its way most costs at most L C (1 − β).",
    source="Zeng 2025, theorem on out-of-distribution tasks",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=(
            r"L_{tar}(\theta_0 + \tau_{i^*}) - L_{tar}(\theta_{tar}) \le L_{tar} C (1 - \beta), "
            r"\quad \beta = \max_i \langle \tau_{tar}, \tau_i \rangle / C"
        ),
        left=lambda case: case.way.gap,
        right=_bound,
        relation=Relation.AT_MOST,
        cases=_cases,
        assumptions=(*LOSS, POINTS_THE_WAY),
        read=out_of_distribution,
    ),
    mutants=(
        Mutant("the factor 1 − β halved", right=lambda case: _bound(case) / 2),
        Mutant(
            "norms instead of squared norms",
            right=lambda case: out_of_distribution_bound(case.way.spectral.value, np.sqrt(case.C), case.beta),
        ),
        Mutant("a gradient that is not zero at the target", without="stationary", cases=_sloping),
        Mutant("curvature that grows on the way", without="smooth", cases=_growing),
    ),
    code=("diagnostics.out_of_distribution_bound",),
)
DERIVATIONS = (OUT_OF_DISTRIBUTION,)
