"""(2.1) without (A1): an expert that is no stationary point costs its gradient along the way."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from diagnostics.exact.relations import Relation
from diagnostics.theory.derivations.addition import addition_bound
from diagnostics.theory.derivations.conditions import DIFFERENTIABLE, SIMILARITY, SIMPLEX, SMOOTH
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant
from diagnostics.theory.derivations.ways import addition

__all__ = ["DERIVATIONS"]

_SOURCE = "sharper form of Zeng 2025, theorem on addition"


def _cases(dimension: int) -> Any:
    from diagnostics.testing.tasks import merges

    constant = merges(dimension, curving="constant", stationary=False)
    return constant | merges(dimension, curving="shrinking", stationary=False)


def _bound(case: Any) -> Any:
    return addition_bound(case.way.spectral.value, case.C, case.epsilon)


def _reach(case: Any) -> Any:
    """‖∇L_k‖ times the farthest that a merge on the simplex can be."""
    return case.way.gradient_norm * np.sqrt(2 * case.C * (1 + case.epsilon))


_CLAIM = Claim(
    statement=r"L_k(\theta^*) - L_k(\theta_k) \le \langle \nabla L_k(\theta_k), v \rangle + L_k C (1 + \varepsilon)",
    left=lambda case: case.way.gap,
    right=lambda case: case.way.slope + _bound(case),
    relation=Relation.AT_MOST,
    cases=_cases,
    assumptions=(DIFFERENTIABLE, SMOOTH, SIMPLEX, SIMILARITY),
    read=addition,
)
SLOPE = Derivation(
    id="2.1-slope",
    title="With the measured slope added, the bound for addition needs no stationary expert.",
    source=_SOURCE,
    kind=Kind.SHARPER,
    claim=_CLAIM,
    mutants=(
        Mutant("the sign of the slope flipped", right=lambda case: _bound(case) - case.way.slope),
        Mutant("half of the slope", right=lambda case: _bound(case) + case.way.slope / 2),
    ),
    proof=(
        "(2.6) with the gradient kept, then (2.4). Under (A1) the slope is zero and this is (2.1); where the merge "
        "lies downhill from the expert it is below (2.1)."
    ),
    code=("diagnostics.addition_bounds",),
)
GRADIENT_NORM = Derivation(
    id="2.1-gradient",
    title="With the gradient's norm alone the price of an expert that is not stationary is ‖∇L_k‖ √(2C(1 + ε)).",
    source=_SOURCE,
    kind=Kind.SHARPER,
    claim=dataclasses.replace(
        _CLAIM,
        statement=r"L_k(\theta^*) - L_k(\theta_k) \le \Vert \nabla L_k(\theta_k) \Vert \sqrt{2 C (1 + \varepsilon)} + "
        r"L_k C (1 + \varepsilon)",
        right=lambda case: _reach(case) + _bound(case),
    ),
    mutants=(
        Mutant("half of the gradient's price", right=lambda case: _reach(case) / 2 + _bound(case)),
        Mutant("the gradient's price forgotten", right=_bound),
    ),
    proof="⟨∇L_k, v⟩ ≤ ‖∇L_k‖‖v‖, and ‖v‖² ≤ 2C(1 + ε) by (2.4). It needs no merge to be made, only the expert.",
)
DERIVATIONS = (SLOPE, GRADIENT_NORM)
