"""(3.4) What is lost by keeping few singular values or few rows of an update."""

from __future__ import annotations

from typing import Any

import numpy as np

from diagnostics.exact.relations import Relation
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant

__all__ = ["DERIVATIONS"]

_SOURCE = "Li 2025, on low-rank and sparse updates"


def _approximations(size: int) -> Any:
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import arrays

    def of(rank: int) -> Any:
        return st.tuples(arrays(size, size + 1), arrays(size, rank), arrays(rank, size + 1))

    return st.integers(0, size).flatmap(of)


def _tail(case: Any, skip: int = 0) -> Any:
    """Sum of the squares of all singular values beyond the rank."""
    update, left, _ = case
    sizes = np.linalg.svd(update, compute_uv=False)
    rank = left.shape[1] + skip
    return (sizes[rank:] ** 2).sum() if rank < sizes.shape[0] else 0 * (sizes**2).sum()


def _error(case: Any) -> Any:
    update, left, right = case
    return ((update - left @ right) ** 2).sum() if left.shape[1] else (update**2).sum()


RANK = Derivation(
    id="3.4",
    title="No update of rank r is nearer than the sum of the squared singular values beyond r.",
    source=f"{_SOURCE}, with the theorem of Eckart and Young",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\sum_{i > r} \sigma_i^2 \le \Vert \Delta W - A B \Vert_F^2 \quad \text{for all } A \in "
        r"\mathbb{R}^{m \times r}, B \in \mathbb{R}^{r \times n}",
        left=_tail,
        right=_error,
        relation=Relation.AT_MOST,
        cases=_approximations,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("one singular value too many", left=lambda case: _tail(case, -1) if case[1].shape[1] else 0.0),
        Mutant("rank one keeps all of it", right=lambda case: 0 * _error(case), sizes=(2, 3)),
    ),
    proof=(
        "The published result is that rank one suffices for the updates of its one-layer transformer. It is no "
        "property of updates: ΔW = I in two dimensions has σ = (1, 1), and rank one loses half of it and one of two "
        "directions."
    ),
    code=("diagnostics.update_structure",),
)


def _rows(size: int) -> Any:
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import arrays

    kept = st.lists(st.booleans(), min_size=size, max_size=size)
    return st.tuples(arrays(size, 2), kept.map(lambda flags: np.array(flags)))


def _without_rows(case: Any) -> Any:
    update, kept = case
    return ((update - np.where(kept[:, None], update, 0.0)) ** 2).sum()


def _row_norms(case: Any) -> Any:
    update, kept = case
    return np.where(kept, 0.0, (update**2).sum(1)).sum()


ROWS = Derivation(
    id="3.4-rows",
    title="Dropping rows of an update loses exactly the squares of their norms.",
    source=_SOURCE,
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\Vert \Delta W - \Delta W_S \Vert_F^2 = \sum_{k \notin S} \Vert \Delta W_{k,:} \Vert^2",
        left=_without_rows,
        right=_row_norms,
        relation=Relation.EQUAL,
        cases=_rows,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("norms not squared", right=lambda case: _plain_norms(case)),
        Mutant("the rows that are kept", right=lambda case: (case[0] ** 2).sum() - _row_norms(case)),
    ),
    code=("diagnostics.update_structure",),
)


def _plain_norms(case: Any) -> Any:
    update, kept = case
    return np.where(kept, 0.0, np.sqrt((update**2).sum(1))).sum()


DERIVATIONS = (RANK, ROWS)
