"""(2.8) Any coefficients: ½ L tᵀGt from the Gram matrix still bounds the gap."""

from __future__ import annotations

from typing import Any

from diagnostics.exact.relations import Relation
from diagnostics.theory.derivations.conditions import LOSS
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant
from diagnostics.theory.derivations.ways import addition, weights

__all__ = ["DERIVATIONS"]


def _cases(dimension: int) -> Any:
    from diagnostics.testing.tasks import merges

    constant = merges(dimension, kind="any", curving="constant")
    return constant | merges(dimension, kind="any", curving="shrinking")


def _growing(dimension: int) -> Any:
    from diagnostics.testing.tasks import merges

    return merges(dimension, kind="any")


def _sloping(dimension: int) -> Any:
    from diagnostics.testing.tasks import merges

    return merges(dimension, kind="any", curving="constant", stationary=False)


def _half_form(case: Any) -> Any:
    """½ L tᵀGt."""
    t = weights(case.merge)
    return case.way.spectral.value * (t @ (case.merge.gram @ t)) / 2


def _diagonal(case: Any) -> Any:
    """The same with the angles forgotten."""
    return case.way.spectral.value * (weights(case.merge) ** 2 @ case.merge.squared_norms) / 2


OFF_SIMPLEX = Derivation(
    id="2.8",
    title="With any coefficients the gap is at most ½ L tᵀGt, from the Gram matrix.",
    source="what is left of Zeng 2025, theorem on addition, off the simplex",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"L_k(\theta^*) - L_k(\theta_k) \le \tfrac12 L_k\, t^\top G t, \quad t_j = \alpha_j - [j = k]",
        left=lambda case: case.way.gap,
        right=_half_form,
        relation=Relation.AT_MOST,
        cases=_cases,
        assumptions=LOSS,
        read=addition,
    ),
    mutants=(
        Mutant("half of it", right=lambda case: _half_form(case) / 2),
        Mutant("the angles forgotten", right=_diagonal),
        Mutant("curvature that grows on the way", without="smooth", cases=_growing),
        Mutant("a gradient that is not zero at the expert", without="stationary", cases=_sloping),
    ),
    proof=(
        "θ* − θ_k = Σ t_j τ_j whatever the α, so ‖v‖² = tᵀGt exactly, and (2.6) with a gradient of zero gives ½ L "
        "‖v‖². On the simplex it is never above L C (1 + ε), by (2.4)."
    ),
    code=("diagnostics.addition_bounds",),
)
DERIVATIONS = (OFF_SIMPLEX,)
