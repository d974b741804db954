"""(2.7) Out of distribution at the best point of the span: ½ L min_α ‖Σ α_i τ_i − τ_tar‖², never above (2.3)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diagnostics.exact.merge import Merge
from diagnostics.exact.relations import Relation
from diagnostics.exact.rounding import UNIT, Rounded, values
from diagnostics.theory.derivations.conditions import LOSS
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant
from diagnostics.theory.derivations.out_of_distribution import out_of_distribution_bound
from diagnostics.theory.derivations.ways import addition, out_of_distribution

__all__ = ["DERIVATIONS", "SPAN", "best_in_span", "span_bound"]


def best_in_span(gram: Tensor, target_inner: Tensor) -> Tensor:
    """Return argmin_α ‖Σ α_i τ_i − τ_tar‖², from inner products alone (2.7).

    Args:
        gram: G_ij = ⟨τ_i, τ_j⟩, [T, T]; may be singular.
        target_inner: ⟨τ_tar, τ_i⟩, [T].

    Returns:
        The coefficients of smallest norm among the best ones, [T].

    Example:
        >>> best_in_span(torch.diag(torch.tensor([1.0, 4.0])), torch.tensor([0.5, 2.0])).tolist()
        [0.5, 0.5]
    """
    return torch.linalg.pinv(gram, hermitian=True, rtol=1e-12) @ target_inner


def span_bound(smoothness: float, norm_squared: float) -> float:
    """Return ½·L·‖v‖², the bound at the best point of the span (2.7).

    Args:
        smoothness: L, the Hessian spectral norm at the target's expert.
        norm_squared: ‖v‖² = min_α ‖Σ α_i τ_i − τ_tar‖².

    Returns:
        The bound on the target's loss gap there.

    Example:
        >>> span_bound(2.0, 0.5)
        0.5
    """
    return smoothness * norm_squared / 2


def _cases(dimension: int) -> Any:
    from diagnostics.testing.tasks import targets

    drawn = targets(dimension, curving="constant") | targets(dimension, curving="shrinking")
    return drawn.map(_at_best)


def _sloping(dimension: int) -> Any:
    from diagnostics.testing.tasks import targets

    return targets(dimension, curving="constant", stationary=False).map(_at_best)


def _nearest(dimension: int) -> Any:
    from diagnostics.testing.tasks import targets

    return targets(dimension, curving="constant").filter(lambda merge: merge.toward.max() > 0)


def _with_others(dimension: int) -> Any:
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import arrays
    from diagnostics.testing.tasks import targets

    drawn = targets(dimension, curving="constant")
    return drawn.flatmap(lambda merge: st.tuples(st.just(merge), arrays(len(merge.vectors))))


def _at_best(merge: Merge) -> Merge:
    """The same target at the best point of the span, of which rounding moves the bound by its square only."""
    found = best_in_span(torch.tensor(merge.gram), torch.tensor(merge.toward))
    return dataclasses.replace(merge, coefficients=found.numpy())


def _distance(merge: Merge, coefficients: Any) -> Any:
    """‖Σ α_i τ_i − τ_tar‖²."""
    return ((coefficients @ merge.vectors - merge.task.anchor) ** 2).sum()


def _least(merge: Merge) -> Any:
    """The distance at the best coefficients, which are known to the rounding of a pseudoinverse."""
    plain = values(merge)
    found, spectrum = _at_best(plain).coefficients, np.linalg.eigvalsh(plain.gram)
    kept = spectrum[spectrum > 1e-12 * spectrum[-1]] if spectrum[-1] > 0 else np.ones(1)
    sizes = abs(plain.toward).sum() + kept[-1] * abs(found).sum()
    return _distance(merge, Rounded(found, 64 * UNIT * sizes / kept[0] + 0.0 * found))


def _smaller(merge: Merge) -> Any:
    """½ L ‖v‖² at the best point, L = 1."""
    return span_bound(1.0, _least(merge))


def _one_by_one(merge: Merge) -> Any:
    """Where each expert gets the coefficient that is best by itself."""
    squares = (merge.vectors**2).sum(1)
    return _distance(merge, np.where(squares > 0, merge.toward / np.where(squares > 0, squares, 1.0), 0.0))


def _larger(merge: Merge) -> Any:
    """L C (1 − β) at the nearest expert, L = 1."""
    case = out_of_distribution(merge)
    return out_of_distribution_bound(1.0, case.C, case.beta)


BEST = Derivation(
    id="2.7-best",
    title="No coefficients bring a merge nearer to an unseen target than those from the Gram matrix, G⁺b.",
    source="least squares, for the sharper form of Zeng 2025, theorem on out-of-distribution tasks",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\min_\alpha \Vert \textstyle\sum_i \alpha_i \tau_i - \tau_{tar} \Vert^2 \text{ is attained at } "
        r"\alpha = G^{+} b, \quad b_i = \langle \tau_{tar}, \tau_i \rangle",
        left=lambda case: _least(case[0]),
        right=lambda case: _distance(*case),
        relation=Relation.AT_MOST,
        cases=_with_others,
    ),
    mutants=(
        Mutant("each expert fitted by itself", left=lambda case: _one_by_one(case[0])),
        Mutant("the nearest expert", left=lambda case: _distance(case[0], case[0].coefficients)),
    ),
    code=("diagnostics.theory.derivations.best_in_span.best_in_span",),
)
SPAN = Derivation(
    id="2.7-span",
    title="At the best point of the span an unseen target costs at most ½ L ‖v‖², v its distance from the span.",
    source="sharper form of Zeng 2025, theorem on out-of-distribution tasks",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"L_{tar}(\theta^*) - L_{tar}(\theta_{tar}) \le \tfrac12 L_{tar} \min_\alpha \Vert \textstyle\sum_i "
        r"\alpha_i \tau_i - \tau_{tar} \Vert^2",
        left=lambda case: case.way.gap,
        right=lambda case: span_bound(case.way.spectral.value, case.way.norm_squared),
        relation=Relation.AT_MOST,
        cases=_cases,
        assumptions=LOSS,
        read=addition,
    ),
    mutants=(
        Mutant("without the factor, a quarter", right=lambda case: case.way.spectral.value * case.way.norm_squared / 4),
        Mutant("a gradient that is not zero at the target", without="stationary", cases=_sloping),
    ),
    proof=(
        "(2.6) with a gradient of zero, at the point of the span that is nearest to τ_tar. Its distance needs inner "
        "products alone: ‖τ_tar‖² − bᵀG⁺b with b_i = ⟨τ_tar, τ_i⟩."
    ),
    code=("diagnostics.out_of_distribution_bound",),
)
NEVER_WORSE = Derivation(
    id="2.7-never-worse",
    title="The bound at the best point of the span is never above that of the nearest expert.",
    source="sharper form of Zeng 2025, theorem on out-of-distribution tasks",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"\tfrac12 \min_\alpha \Vert \textstyle\sum_i \alpha_i \tau_i - \tau_{tar} \Vert^2 \le C (1 - \beta)",
        left=_smaller,
        right=_larger,
        relation=Relation.AT_MOST,
        cases=_nearest,
    ),
    mutants=(
        Mutant("half of the bound", right=lambda merge: _larger(merge) / 2),
        Mutant("the other way round", left=_larger, right=_smaller),
    ),
    proof=(
        "θ0 + τ_{i*} is a point of the span, so the minimum is at most ‖τ_{i*} − τ_tar‖² = ‖τ_{i*}‖² + ‖τ_tar‖² − "
        "2⟨τ_{i*}, τ_tar⟩ ≤ 2C − 2βC; half of it is C(1 − β). Both bounds take L from the same place, the target's "
        "expert; (A2) is needed on the way to the best point for one and on the way to the expert for the other, and "
        "the first way is never the longer one."
    ),
    code=("diagnostics.theory.derivations.best_in_span.best_in_span",),
)
DERIVATIONS = (BEST, SPAN, NEVER_WORSE)
