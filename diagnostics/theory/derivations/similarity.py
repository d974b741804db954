"""(A4), (A5) What ε and β can be: neither is ever above one."""

from __future__ import annotations

from typing import Any

import numpy as np

from diagnostics.exact.relations import Relation
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant

__all__ = ["DERIVATIONS"]


def _pairs(dimension: int) -> Any:
    from diagnostics.testing.numbers import task_vectors

    return task_vectors(2, dimension)


def _inner(rows: Any) -> Any:
    return abs(rows[0] @ rows[1])


def _norms(rows: Any) -> Any:
    return np.linalg.norm(rows[0]) * np.linalg.norm(rows[1])


def _smaller(rows: Any) -> Any:
    return np.minimum((rows[0] ** 2).sum(), (rows[1] ** 2).sum())


COSINE = Derivation(
    id="2.0-epsilon",
    title="No cosine is above one in absolute value, so (A4) with ε ≥ 1 assumes nothing.",
    source="Cauchy and Schwarz, for Zeng 2025, assumption on similarity",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"|\langle \tau_i, \tau_j \rangle| \le \Vert \tau_i \Vert\, \Vert \tau_j \Vert",
        left=_inner,
        right=_norms,
        relation=Relation.AT_MOST,
        cases=_pairs,
    ),
    mutants=(
        Mutant("the smaller squared norm for the product of norms", right=_smaller),
        Mutant("norms of largest entries", right=lambda rows: np.max(abs(rows[0])) * np.max(abs(rows[1]))),
    ),
)
BETA = Derivation(
    id="2.0-beta",
    title="No inner product of task vectors is above C, so β is at most one.",
    source="Cauchy and Schwarz, for Zeng 2025, assumption on the target",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\langle \tau_{tar}, \tau_i \rangle \le C = \max \Vert \tau \Vert^2",
        left=lambda rows: rows[0] @ rows[1],
        right=lambda rows: np.max((rows**2).sum(1)),
        relation=Relation.AT_MOST,
        cases=_pairs,
    ),
    mutants=(
        Mutant("the smaller squared norm", right=_smaller),
        Mutant("the largest norm, not squared", right=lambda rows: np.sqrt(np.max((rows**2).sum(1)))),
    ),
)
DERIVATIONS = (COSINE, BETA)
