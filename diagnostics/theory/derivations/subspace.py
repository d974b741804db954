"""(2.10) The bounds need curvature on the span of the task vectors only: T products instead of an iteration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from diagnostics.exact.merge import Merge
from diagnostics.exact.relations import Relation
from diagnostics.exact.rounding import UNIT, Rounded, values
from diagnostics.theory.derivations.conditions import ANCHORED
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant
from diagnostics.theory.derivations.ways import spectral_norm
from diagnostics.theory.subspace import generalised_norm, generalised_range

__all__ = ["DERIVATIONS"]

_SOURCE = "sharper form of Zeng 2025, all three theorems"


def _cases(dimension: int) -> Any:
    from diagnostics.testing.tasks import merges

    return merges(dimension, kind="any") | merges(dimension, kind="any", curving="constant")


def _sloping(dimension: int) -> Any:
    from diagnostics.testing.tasks import merges

    return merges(dimension, kind="any", curving="constant", stationary=False)


def _on_span(merge: Merge, hessian: Any, read: Callable[[Any, Any], float]) -> Rounded:
    """A function of (τᵀHτ, G), with the error that whitening by G can make."""
    vectors = values(merge.vectors)
    gram = vectors @ vectors.T
    found = read(torch.tensor(vectors @ values(hessian) @ vectors.T), torch.tensor(gram))
    scale = np.linalg.eigvalsh(gram)
    kept = scale[scale > 1e-10 * scale[-1]] if scale[-1] > 0 else np.ones(1)
    # Rounding in G and in τᵀHτ is a few units of their norms, and whitening divides by the least eigenvalue kept.
    rounding = 64 * len(vectors) * UNIT * kept[-1] / kept[0]
    return Rounded(found, rounding * float(spectral_norm(values(hessian))))


def _corners(merge: Merge) -> list[Any]:
    return merge.task.corners(merge.task.anchor, merge.end)


def _smoothness(merge: Merge) -> Any:
    """L^S: the largest on the way from the expert to the merge."""
    return max(_on_span(merge, hessian, generalised_norm) for hessian in _corners(merge))


def _upper(merge: Merge) -> Any:
    """The largest eigenvalue on the span along the way, or zero where all are negative."""
    return max(_on_span(merge, h, lambda m, g: max(generalised_range(m, g)[1], 0.0)) for h in _corners(merge))


def _gap(merge: Merge) -> Any:
    return merge.task.loss(merge.end) - merge.task.loss(merge.task.anchor)


def _half(smoothness: Any, merge: Merge) -> Any:
    return smoothness * (merge.way**2).sum() / 2


_BOUND = Claim(
    statement=r"L_k(\theta^*) - L_k(\theta_k) \le \tfrac12 L^S \Vert v \Vert^2, \quad L^S = \max_{0 \le s \le 1}\; "
    r"\max_{u \in \mathrm{span}\{\tau\}} |u^\top \nabla^2 L_k(\theta_k + s v)\, u| / \Vert u \Vert^2",
    left=_gap,
    right=lambda merge: _half(_smoothness(merge), merge),
    relation=Relation.AT_MOST,
    cases=_cases,
    assumptions=(ANCHORED,),
)

SUBSPACE = Derivation(
    id="2.10",
    title="The largest curvature on the span of the task vectors along the way bounds the gap as L does.",
    source=_SOURCE,
    kind=Kind.SHARPER,
    claim=_BOUND,
    mutants=(
        Mutant("half of it", right=lambda merge: _half(_smoothness(merge), merge) / 2),
        Mutant(
            "the subspace's curvature at the expert alone",
            right=lambda merge: _half(_on_span(merge, merge.task.hessian, generalised_norm), merge),
        ),
        Mutant("a gradient that is not zero at the expert", without="stationary", cases=_sloping),
    ),
    proof=(
        "θ_k + sv − θ_k and v are in S = span{τ_1, …, τ_T}, so only vᵀ∇²L_k(θ_k + sv)v with v in S enters (2.5), and "
        "it is at most L^S‖v‖². The maximum over S is the largest |eigenvalue| of the T×T problem (τᵀHτ, G): T "
        "Hessian-vector products a point, no iteration. A theorem that ends at ½L‖v‖² or any multiple of it keeps its "
        "form with L^S for L. The maximum has to be taken along the way: at the expert alone it is (2.6) again, on the "
        "span."
    ),
    code=("diagnostics.theory.subspace.generalised_norm", "diagnostics.addition_bounds"),
)
NEVER_WORSE = Derivation(
    id="2.10-never-worse",
    title="The curvature on the span is never above the spectral norm.",
    source=_SOURCE,
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"L^S \le L",
        left=lambda merge: _on_span(merge, merge.task.hessian, generalised_norm),
        right=lambda merge: spectral_norm(merge.task.hessian),
        relation=Relation.AT_MOST,
        cases=_cases,
    ),
    mutants=(
        Mutant("half of the norm", right=lambda merge: spectral_norm(merge.task.hessian) / 2),
        Mutant("the mean of |eigenvalues|", right=lambda m: np.mean(abs(np.linalg.eigvalsh(m.task.hessian)))),
    ),
    proof="A maximum of |uᵀHu|/‖u‖² over a subspace is at most that over all of R^d, which is ‖H‖₂.",
    code=("diagnostics.theory.subspace.generalised_norm",),
)


def _on_basis(merge: Merge) -> Any:
    """Max |eigenvalue| of QᵀHQ for an orthonormal basis Q of the span."""
    left, sizes, _ = np.linalg.svd(values(merge.vectors).T, full_matrices=False)
    basis = left[:, sizes > 1e-5 * max(sizes[0], 1e-300)]
    if basis.shape[1] == 0:
        return Rounded(0.0)
    return spectral_norm(Rounded(basis.T @ values(merge.task.hessian) @ basis))


QUOTIENT = Derivation(
    id="2.10-eigenvalue",
    title="The curvature on the span is the largest |eigenvalue| of the problem (τᵀHτ, G).",
    source=_SOURCE,
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"\max_{u \in \mathrm{span}\{\tau\}} |u^\top H u| / \Vert u \Vert^2 = \max \{ |\lambda| : \tau^\top "
        r"H \tau\, x = \lambda G x \}",
        left=lambda merge: _on_span(merge, merge.task.hessian, generalised_norm),
        right=_on_basis,
        relation=Relation.EQUAL,
        cases=_cases,
    ),
    mutants=(
        Mutant(
            "the eigenvalue of τᵀHτ by itself", left=lambda m: spectral_norm(m.vectors @ m.task.hessian @ m.vectors.T)
        ),
        Mutant("the largest eigenvalue with its sign", left=lambda merge: _signed(merge)),
    ),
    proof="With u = Σ x_i τ_i, uᵀHu = xᵀ(τᵀHτ)x and ‖u‖² = xᵀGx; what G takes to zero is no direction of the span.",
    code=("diagnostics.theory.subspace.generalised_norm",),
)


def _signed(merge: Merge) -> Rounded:
    return _on_span(merge, merge.task.hessian, lambda matrix, gram: generalised_range(matrix, gram)[1])


SIGNED = Derivation(
    id="2.10-signed",
    title="From above only positive curvature counts: the largest eigenvalue on the span, or zero, does for L^S.",
    source=_SOURCE,
    kind=Kind.SHARPER,
    claim=dataclasses.replace(
        _BOUND,
        statement=r"L_k(\theta^*) - L_k(\theta_k) \le \tfrac12 \max\Big(0, \max_{0 \le s \le 1} "
        r"\lambda_{\max}^S\big(\nabla^2 L_k(\theta_k + s v)\big)\Big) \Vert v \Vert^2",
        right=lambda merge: _half(_upper(merge), merge),
    ),
    mutants=(
        Mutant("half of it", right=lambda merge: _half(_upper(merge), merge) / 2),
        Mutant("the least eigenvalue", right=lambda merge: _half(_lower(merge), merge)),
    ),
    proof=(
        "(2.5) is bounded from above by any upper bound on vᵀHv, and vᵀHv ≤ λ_max‖v‖² on the span. It is never above "
        "the bound with L^S = max(|λ_min|, |λ_max|), and smaller where negative curvature is the larger. The same "
        "holds for L itself."
    ),
    code=("diagnostics.theory.subspace.generalised_range",),
)


def _lower(merge: Merge) -> Any:
    return _on_span(merge, merge.task.hessian, lambda matrix, gram: generalised_range(matrix, gram)[0])


DERIVATIONS = (SUBSPACE, NEVER_WORSE, QUOTIENT, SIGNED)
