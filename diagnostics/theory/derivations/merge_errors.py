"""(1.1), (1.4), (1.5), (1.15) The merge error Δ and how much of it the gradient-alignment error explains."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from diagnostics.exact.gradients import FirstGradients
from diagnostics.exact.relations import Relation
from diagnostics.exact.rounding import UNIT, Rounded, values
from diagnostics.theory.derivations.derivation import Claim, Condition, Derivation, Kind, Mutant
from diagnostics.theory.merge_error import (
    matched_alphas,
    matched_coefficients,
    merge_error_rows,
    remainder_shares,
    step_sizes,
)

__all__ = ["ALIGNED", "DERIVATIONS"]

_SOURCE = "Lee 2026, equation 4"
# Sines below this are none as far as inner products in float64 tell.
_TOLD = 1e-6


def _cases(dimension: int) -> Any:
    from diagnostics.testing.gradients import first_gradients

    return first_gradients(dimension)


ALIGNED = Condition(
    "aligned",
    "(1.4) every task vector is a multiple of its gradient: the largest ‖r‖/‖τ‖",
    lambda case: max(remainder_shares(_gram(case), len(case.gram) // 2)),
    lambda case: _TOLD,
)


def _aligned(dimension: int) -> Any:
    from diagnostics.testing.gradients import first_gradients

    return first_gradients(dimension, aligned=True)


def _steps(case: FirstGradients) -> list[float]:
    """η by the package, which sees the Gram matrix alone."""
    return step_sizes(_gram(case), len(case.vectors))


def _gram(case: Any) -> torch.Tensor:
    """Inner products without their rounding errors, drawn or measured."""
    return torch.as_tensor(values(case.gram))


def _coefficients(case: FirstGradients) -> Any:
    """λ_i = α_i η_*/η_i by the package, with the three roundings that it takes."""
    found = np.array(matched_coefficients(_steps(case), list(values(case.alphas))))
    return Rounded(found, 3 * UNIT * abs(found))


def _rows(case: FirstGradients) -> Any:
    """The package's rows, applied to (τ, g)."""
    etas, alphas = _steps(case), list(values(case.alphas))
    found = torch.stack(merge_error_rows(etas, alphas, matched_coefficients(etas, alphas))).numpy()
    # An entry is made of at most four factors.
    return Rounded(found, 4 * UNIT * abs(found)) @ np.concatenate([case.vectors, case.gradients])


def _delta(case: FirstGradients) -> Any:
    return case.merge_error(_coefficients(case))


def _parts(case: FirstGradients) -> Any:
    return _rows(case)[1:].sum(0)


def _explained(case: FirstGradients) -> Any:
    """η_* ∇ℰ(θ0)."""
    return _steps(case)[0] * case.error


ERROR = Derivation(
    id="1.1",
    title="The merge error is the target's task vector less the merge of the components'.",
    source="Lee 2026",
    kind=Kind.DEFINITION,
    claim=Claim(
        statement=r"\Delta = \tau_* - \sum_i \lambda_i \tau_i",
        left=lambda case: _rows(case)[0],
        right=_delta,
        relation=Relation.EQUAL,
        cases=_cases,
    ),
    mutants=(
        Mutant("the sign of the merge flipped", right=lambda case: 2 * case.vectors[0] - _delta(case)),
        Mutant("coefficients of gradients for those of task vectors", right=lambda c: c.merge_error(c.alphas)),
    ),
    code=("diagnostics.merge_error",),
)


def _remainder(case: FirstGradients, eta: Any) -> Any:
    return ((case.vectors[0] - eta * case.gradients[0]) ** 2).sum()


FIT = Derivation(
    id="1.4",
    title="No multiple of the gradient is nearer to the task vector than η g with η = ⟨τ, g⟩/‖g‖².",
    source="least squares, for Lee 2026's assumption τ ≈ η g",
    kind=Kind.DEFINITION,
    claim=Claim(
        statement=r"\Vert \tau_i - \eta_i g_i \Vert^2 \le \Vert \tau_i - t g_i \Vert^2, \quad \eta_i = \langle "
        r"\tau_i, g_i \rangle / \Vert g_i \Vert^2",
        left=lambda case: _remainder(case, _steps(case)[0]),
        right=lambda case: _remainder(case, case.alphas[0]),
        relation=Relation.AT_MOST,
        cases=_cases,
    ),
    mutants=(
        Mutant("divided by ‖g‖", left=lambda case: _remainder(case, _over_norm(case))),
        Mutant("the sign flipped", left=lambda case: _remainder(case, -_steps(case)[0])),
    ),
    code=("diagnostics.gradient_fit", "diagnostics.theory.merge_error.step_sizes"),
)


def _over_norm(case: FirstGradients) -> Any:
    return _steps(case)[0] * np.sqrt((case.gradients[0] ** 2).sum())


def _squares(case: FirstGradients) -> Any:
    found = _steps(case)[0]
    eta = Rounded(found, 4 * len(case.vectors[0]) * UNIT * _size(case))
    return eta**2 * (case.gradients[0] ** 2).sum() + _remainder(case, eta)


def _size(case: FirstGradients) -> float:
    """Σ|τ g| / ‖g‖², what the rounding of η is relative to."""
    plain = values(case)
    return float(abs(plain.vectors[0] * plain.gradients[0]).sum() / (plain.gradients[0] ** 2).sum())


PYTHAGORAS = Derivation(
    id="1.4-remainder",
    title="The remainder is orthogonal to the gradient: ‖τ‖² = η²‖g‖² + ‖r‖².",
    source="least squares, for Lee 2026's assumption τ ≈ η g",
    kind=Kind.DEFINITION,
    claim=Claim(
        statement=r"\Vert \tau_i \Vert^2 = \eta_i^2 \Vert g_i \Vert^2 + \Vert r_i \Vert^2, \quad r_i = \tau_i - "
        r"\eta_i g_i",
        left=lambda case: (case.vectors[0] ** 2).sum(),
        right=_squares,
        relation=Relation.EQUAL,
        cases=_cases,
    ),
    mutants=(
        Mutant("the remainder's norm not squared", right=lambda case: _not_squared(case)),
        Mutant("the remainder forgotten", right=lambda c: _squares(c) - _remainder(c, _steps(c)[0]), sizes=(2, 3, 4)),
    ),
    code=("diagnostics.gradient_fit",),
)


def _not_squared(case: FirstGradients) -> Any:
    rest = _remainder(case, _steps(case)[0])
    return _squares(case) - rest + np.sqrt(rest)


_EXAMPLE = FirstGradients(np.array([[1.0], [1.0]]), np.array([[1.0], [1.0]]), np.array([0.5]))
# Steps that are multiples in exact arithmetic are so to a few roundings of the vectors.
_ROUNDING = 1e-12

PARTS = Derivation(
    id="1.5",
    title="The merge error is η_* times the alignment error, and the remainders.",
    source=_SOURCE,
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\tau_* - \sum_i \frac{\alpha_i \eta_*}{\eta_i} \tau_i = \eta_* \nabla\mathcal{E}(\theta_0) + r_* "
        r"- \sum_i \frac{\alpha_i \eta_*}{\eta_i} r_i",
        left=_delta,
        right=_parts,
        relation=Relation.EQUAL,
        cases=_cases,
    ),
    mutants=(
        Mutant("the sign of ∇ℰ flipped", right=lambda case: _parts(case) - 2 * _explained(case)),
        Mutant("the target's remainder forgotten", right=lambda case: _parts(case) - _rows(case)[2]),
        Mutant("the signs of the components' remainders flipped", right=lambda c: _parts(c) - 2 * _rows(c)[3:].sum(0)),
    ),
    published=Claim(
        statement=r"\tau_* \approx \sum_i \frac{\alpha_i \eta_*}{\eta_i} \tau_i - \eta_* \nabla\mathcal{E}(\theta_0)",
        left=_delta,
        right=lambda case: -_explained(case),
        relation=Relation.EQUAL,
        cases=_aligned,
        assumptions=(ALIGNED,),
        tolerance=lambda case: _ROUNDING * max(1.0, float(abs(case.vectors).max())),
    ),
    correction=(
        "With τ_i ≈ η_i g_i, as the paper assumes, the last sign is a plus; the minus belongs to τ_i ≈ −η_i g_i, which "
        "is what a step downhill gives. The sign has no effect on norms, and decides which way ∇ℰ moves the target's "
        "vector. With the remainders r_i = τ_i − η_i g_i the approximation becomes an identity, for any η that are not "
        "zero."
    ),
    counterexample=_EXAMPLE,
    by_hand=(
        "One parameter, one component: g_* = g_1 = τ_* = τ_1 = 1, so η_* = η_1 = 1 and no remainder is left. With α = "
        "½, ∇ℰ = ½. As stated τ_* ≈ ½ · 1 − ½ = 0, yet τ_* = 1; with a plus it is ½ + ½ = 1."
    ),
    code=("diagnostics.merge_error", "diagnostics.theory.merge_error.merge_error_rows"),
)


def _least_miss(case: FirstGradients) -> Any:
    return np.sqrt((_explained(case) ** 2).sum())


def _norms(case: FirstGradients) -> Any:
    return np.sqrt((_rows(case) ** 2).sum(1))


def _most(case: FirstGradients) -> Any:
    """‖Δ‖ + ‖r_*‖ + Σ |λ_i| ‖r_i‖."""
    sizes = _norms(case)
    return sizes[0] + sizes[2:].sum()


MISS = Derivation(
    id="1.15-miss",
    title="A large alignment error makes the merge miss only as far as the remainders do not make up for it.",
    source="Lee 2026, on when task arithmetic fails",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"|\eta_*| \Vert \nabla\mathcal{E}(\theta_0) \Vert \le \Vert \Delta \Vert + \Vert r_* \Vert + "
        r"\sum_i |\lambda_i| \Vert r_i \Vert",
        left=_least_miss,
        right=_most,
        relation=Relation.AT_MOST,
        cases=_cases,
    ),
    mutants=(
        Mutant("the remainders forgotten: failing unless ∇ℰ is small", right=lambda case: _norms(case)[0]),
        Mutant("the components' remainders forgotten", right=lambda case: _norms(case)[0] + _norms(case)[2]),
    ),
    proof=(
        "The triangle inequality in (1.5). Without the remainders it says that a merge fails wherever ∇ℰ is large, "
        "which holds under (1.4) only. Two losses with the minimum (1, 1) and Hessians [[2, −1], [−1, 1]] and [[1, "
        "−1], [−1, 2]] have g_* = −(1, 0) and g_1 = −(0, 1) at θ0 = 0: no α makes ∇ℰ smaller than g_* itself, and τ_* "
        "= τ_1, so the merge with λ = 1 is perfect. Nor does ∇ℰ = 0 by itself make a merge succeed: the remainders can "
        "be anything."
    ),
    code=("diagnostics.merge_error",),
)


def _miss(case: FirstGradients) -> Any:
    """‖τ_* − Σ λ_i τ_i‖, with the drawn coefficients for λ."""
    return np.sqrt((case.merge_error(case.alphas) ** 2).sum())


def _predicted(case: FirstGradients, own: bool = False) -> Any:
    """|η_*| ‖g_* − Σ α_i g_i‖ with the α_i that belong to the λ_i, or with the λ_i themselves."""
    etas = _steps(case)
    alphas = case.alphas if own else np.array(matched_alphas(etas, list(values(case.alphas))))
    error = case.gradients[0] - alphas @ case.gradients[1:]
    return abs(etas[0]) * np.sqrt((error**2).sum())


def _rounding(case: FirstGradients) -> float:
    """Task vectors are multiples of gradients to a few roundings of themselves, and η and α to a few of the sums."""
    return 1e-12 * float(abs(case.vectors).max()) * (1 + float(abs(case.alphas).sum()))


FAILURE = Derivation(
    id="1.15-failure",
    title="Where task vectors are multiples of gradients a merge misses by the alignment error, whatever its λ.",
    source="Lee 2026, on when task arithmetic fails",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\tau_i = \eta_i g_i \;\Rightarrow\; \Big\Vert \tau_* - \sum_i \lambda_i \tau_i \Big\Vert = "
        r"|\eta_*| \, \Vert \nabla\mathcal{E}(\theta_0) \Vert \text{ with } \alpha_i = \lambda_i \eta_i / \eta_*",
        left=_miss,
        right=_predicted,
        relation=Relation.EQUAL,
        cases=_aligned,
        assumptions=(ALIGNED,),
        tolerance=_rounding,
    ),
    mutants=(
        Mutant("task vectors that are no multiples of gradients", without="aligned", cases=_cases),
        Mutant(
            "missing at least as far, with any task vectors",
            left=_predicted,
            right=_miss,
            relation=Relation.AT_MOST,
            without="aligned",
            cases=_cases,
        ),
        Mutant("α = λ", right=lambda case: _predicted(case, own=True)),
    ),
    proof=(
        "(1.5) without remainders. So under (1.4) a merge fails unless the terms of ∇ℰ are small or cancel, at any "
        "coefficients: none makes the miss smaller than |η_*| ‖g_*‖ times the sine of (1.6). Without (1.4) neither "
        "half is true: (1.15-miss) has the example of a perfect merge beside a large ∇ℰ."
    ),
    code=("diagnostics.merge_error", "diagnostics.theory.merge_error.matched_alphas"),
)
DERIVATIONS = (ERROR, FIT, PYTHAGORAS, PARTS, MISS, FAILURE)
