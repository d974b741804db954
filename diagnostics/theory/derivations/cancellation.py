"""(1.15) Small terms or terms that cancel: the Gram matrix of the δ's tells them apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from diagnostics.exact.gradients import FirstGradients
from diagnostics.exact.language import Audit
from diagnostics.exact.relations import Relation
from diagnostics.exact.rounding import values
from diagnostics.theory.derivations.audit_terms import terms
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant
from diagnostics.theory.derivations.merge_errors import ALIGNED
from diagnostics.theory.merge_error import matched_alphas, step_sizes

__all__ = ["DERIVATIONS"]


def _cases(count: int) -> Any:
    from diagnostics.testing.language import audits

    return audits(count)


def _rows(audit: Audit) -> Any:
    """δ_1, …, δ_K, δ_*."""
    names = [f"delta_{i}" for i in range(1, len(audit.instructions) + 1)]
    return np.stack([terms(audit, name) for name in (*names, "delta_star")])


def _square(audit: Audit) -> Any:
    return (terms(audit, "error") ** 2).sum()


def _gram_sum(audit: Audit) -> Any:
    rows = _rows(audit)
    return (rows @ rows.T).sum()


CANCELLATION = Derivation(
    id="1.15",
    title="The squared alignment error is the sum of the Gram matrix of its terms, so they can be large and cancel.",
    source="Lee 2026, on terms that are small or cancel",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\Vert \nabla\mathcal{E}(\theta_0) \Vert^2 = \sum_{a,b} \langle \delta_a, \delta_b \rangle, \quad "
        r"a, b \in \{1, \dots, K, *\}",
        left=_square,
        right=_gram_sum,
        relation=Relation.EQUAL,
        cases=_cases,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("the diagonal alone: no cancellation", right=lambda audit: (_rows(audit) ** 2).sum()),
        Mutant("each pair counted once", right=lambda a: (_gram_sum(a) + (_rows(a) ** 2).sum()) / 2),
    ),
    code=("diagnostics.audit_composition",),
)


def _along_gradients(dimension: int) -> Any:
    from diagnostics.testing.gradients import first_gradients

    return first_gradients(dimension, aligned=True)


def _anywhere(dimension: int) -> Any:
    from diagnostics.testing.gradients import first_gradients

    return first_gradients(dimension)


def _steps(case: FirstGradients) -> list[float]:
    """η_*, η_1, …, η_K."""
    plain = values(case)
    rows = np.concatenate([plain.vectors, plain.gradients])
    return step_sizes(torch.tensor(rows @ rows.T), len(rows) // 2)


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
        cases=_along_gradients,
        assumptions=(ALIGNED,),
        tolerance=_rounding,
    ),
    mutants=(
        Mutant("task vectors that are no multiples of gradients", without="aligned", cases=_anywhere),
        Mutant(
            "missing at least as far, with any task vectors",
            left=_predicted,
            right=_miss,
            relation=Relation.AT_MOST,
            without="aligned",
            cases=_anywhere,
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
DERIVATIONS = (CANCELLATION, FAILURE)
