"""(2.2) sharper: from the base instead of the expert, negation costs L C (α + α²/2), whatever the similarity."""

from __future__ import annotations

from typing import Any

import numpy as np

from diagnostics.exact.merge import Merge
from diagnostics.exact.relations import Relation
from diagnostics.theory.derivations.conditions import ANCHORED
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant
from diagnostics.theory.derivations.negation import negation_bound
from diagnostics.theory.derivations.ways import spectral_norm

__all__ = ["DERIVATIONS", "direct_bound"]


def direct_bound(smoothness: float, C: float, alpha: float) -> float:
    """Return L·C·(α + α²/2), a bound for negation that needs no ε.

    Args:
        smoothness: L, the largest Hessian norm between expert and base and between base and merge.
        C: max ‖τ‖².
        alpha: α, the negated coefficient.

    Returns:
        The bound on L_j(θ0 − α τ_i) − L_j(θ0), in units of the loss; for α ≤ 1 never above that of (2.2).

    Example:
        >>> direct_bound(1.0, 4.0, 1.0), direct_bound(1.0, 4.0, 0.5)
        (6.0, 2.5)
    """
    return smoothness * C * (alpha + alpha**2 / 2)


def _cases(dimension: int) -> Any:
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import numbers
    from diagnostics.testing.tasks import negations

    alphas = st.just(1.0) | numbers(0, 4)
    return negations(dimension, coefficient=alphas, curving="constant") | negations(dimension, coefficient=alphas)


def _sloping(dimension: int) -> Any:
    from diagnostics.testing.tasks import negations

    return negations(dimension, stationary=False)


def _coefficients(count: int) -> Any:
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import numbers

    return st.tuples(numbers(0, 1), numbers(0, 1))


def _gap(merge: Merge) -> Any:
    return merge.task.loss(merge.end) - merge.task.loss(0.0 * merge.end)


def _smoothness(merge: Merge) -> Any:
    """The largest Hessian norm on the ways expert to base and base to merge."""
    task, base = merge.task, 0.0 * merge.end
    corners = [*task.corners(task.anchor, base), *task.corners(base, merge.end)]
    return max(spectral_norm(hessian) for hessian in corners)


def _with_norms(merge: Merge) -> Any:
    alpha = -merge.coefficients[1]
    own, negated = np.linalg.norm(merge.vectors[0]), np.linalg.norm(merge.vectors[1])
    return _smoothness(merge) * (alpha * own * negated + alpha**2 * negated**2 / 2)


def _with_C(merge: Merge) -> Any:
    return direct_bound(_smoothness(merge), merge.C, -merge.coefficients[1])


DIRECT = Derivation(
    id="2.2-direct",
    title="Negation costs another task at most L (α‖τ_i‖‖τ_j‖ + ½α²‖τ_i‖²), whatever their similarity.",
    source="sharper form of Zeng 2025, theorem on negation",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"L_j(\theta_0 - \alpha \tau_i) - L_j(\theta_0) \le L \big( \alpha \Vert \tau_i \Vert \Vert \tau_j "
        r"\Vert + \tfrac12 \alpha^2 \Vert \tau_i \Vert^2 \big) \le L C (\alpha + \tfrac12 \alpha^2)",
        left=lambda merge: np.stack([_gap(merge), _with_norms(merge)]),
        right=lambda merge: np.stack([_with_norms(merge), _with_C(merge)]),
        relation=Relation.AT_MOST,
        cases=_cases,
        assumptions=(ANCHORED,),
    ),
    mutants=(
        Mutant("half of the bound", right=lambda merge: np.stack([_with_norms(merge), _with_C(merge)]) / 2),
        Mutant("the product of norms lost", right=lambda merge: _with_C(merge) - _cross(merge)),
        Mutant("a gradient that is not zero at the expert", without="stationary", cases=_sloping),
    ),
    proof=(
        "Let L bound ‖∇²L_j‖ on the way from θ_j to θ0 and on the way from θ0 to θ0 − ατ_i. On the first the gradient "
        "changes by at most L‖τ_j‖, and at θ_j it is zero, so ‖∇L_j(θ0)‖ ≤ L‖τ_j‖. On the second (2.6) gives a gap of "
        "at most −α⟨∇L_j(θ0), τ_i⟩ + ½Lα²‖τ_i‖² ≤ L(α‖τ_i‖‖τ_j‖ + ½α²‖τ_i‖²) ≤ LC(α + ½α²). For 0 ≤ α ≤ 1 that is at "
        "most (3/2)LC ≤ LC(3/2 + ε): never above (2.2), by a factor of 1/(1 + ⅔ε) at α = 1 and without limit as α "
        "falls. It needs no coefficient below one, no bound on the similarity and no lower side of (A2); what it needs "
        "is L on these two ways rather than on the way from θ_j to the merge."
    ),
    code=("diagnostics.theory.derivations.negation_direct.direct_bound",),
)


def _cross(merge: Merge) -> Any:
    """L α C, the part that the gradient at the base can add."""
    return _smoothness(merge) * merge.C * -merge.coefficients[1]


NEVER_WORSE = Derivation(
    id="2.2-never-worse",
    title="For coefficients up to one, L C (α + α²/2) is never above L C (3/2 + ε).",
    source="sharper form of Zeng 2025, theorem on negation",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"\alpha + \tfrac12 \alpha^2 \le \tfrac32 + \varepsilon, \quad 0 \le \alpha \le 1",
        left=lambda case: direct_bound(1.0, 1.0, case[0]),
        right=lambda case: negation_bound(1.0, 1.0, case[1]),
        relation=Relation.AT_MOST,
        cases=_coefficients,
        sizes=(1,),
    ),
    mutants=(Mutant("1 + ε for 3/2 + ε", right=lambda case: 1 + case[1]),),
    proof="α + ½α² is increasing and 3/2 at α = 1.",
)
DERIVATIONS = (DIRECT, NEVER_WORSE)
