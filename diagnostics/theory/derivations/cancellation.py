"""(1.15) Small terms or terms that cancel: the Gram matrix of the δ's tells them apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from diagnostics.exact.language import Audit
from diagnostics.exact.relations import Relation
from diagnostics.theory.derivations.audit_terms import terms
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant

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
DERIVATIONS = (CANCELLATION,)
