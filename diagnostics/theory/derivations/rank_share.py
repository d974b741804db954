"""(3.4) The share of an update that a rank keeps, and the least share that it can keep."""

from __future__ import annotations

from typing import Any

import numpy as np

from diagnostics.exact.relations import Relation
from diagnostics.exact.rounding import values
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant

__all__ = ["DERIVATIONS"]

_SOURCE = "Li 2025, on low-rank updates"


def _updates(size: int) -> Any:
    """An update that is not zero, and a rank from 1 to its smaller side."""
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import arrays

    shape = st.tuples(st.just(size), st.integers(1, size + 1)) | st.tuples(st.integers(1, size + 1), st.just(size))

    def of(sides: tuple[int, int]) -> Any:
        matrices = arrays(*sides) | st.just(np.eye(*sides))
        return st.tuples(matrices.filter(lambda a: (abs(a) > 0.1).any()), st.integers(1, min(sides)))

    return shape.flatmap(of)


def _share(case: Any, beyond: int = 0) -> Any:
    """Σ_{i≤r} σ_i² / Σ σ_i²."""
    update, rank = case
    squares = np.linalg.svd(update, compute_uv=False) ** 2
    return squares[: rank + beyond].sum() / squares.sum()


def _kept(case: Any) -> Any:
    """1 − ‖ΔW − ΔW V_rV_rᵀ‖²/‖ΔW‖² with the eigenvectors of ΔWᵀΔW."""
    update, rank = case
    plain = values(update)
    _, vectors = np.linalg.eigh(plain.T @ plain)
    top = vectors[:, -rank:]
    return 1 - ((update - (update @ top) @ top.T) ** 2).sum() / (update**2).sum()


def _not_squared(case: Any) -> Any:
    update, rank = case
    sizes = np.linalg.svd(update, compute_uv=False)
    return sizes[:rank].sum() / sizes.sum()


SHARE = Derivation(
    id="3.4-share",
    title="The best update of rank r keeps the share Σ_{i≤r} σ_i² / Σ σ_i² of the squared length.",
    source=f"{_SOURCE}, with the theorem of Eckart and Young",
    kind=Kind.DEFINITION,
    claim=Claim(
        statement=r"1 - \frac{\Vert \Delta W - \Delta W_r \Vert_F^2}{\Vert \Delta W \Vert_F^2} = \frac{\sum_{i \le r} "
        r"\sigma_i^2}{\sum_i \sigma_i^2}",
        left=_share,
        right=_kept,
        relation=Relation.EQUAL,
        cases=_updates,
        # Both are shares; of eigenvectors that are off by δ the share is off by δ², and by some u from normalising.
        tolerance=lambda case: 1e-13,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("one rank less", left=lambda case: _share(case, -1)),
        Mutant("singular values not squared", left=_not_squared),
        Mutant("the share that is lost", left=lambda case: 1 - _share(case)),
    ),
    proof="ΔW_r is ΔW projected on its r leading right singular vectors, and the squared length is Σ σ_i².",
    code=("diagnostics.update_structure",),
)


def _even(case: Any, factor: float = 1.0) -> Any:
    """The rank over the smaller side."""
    update, rank = case
    return factor * rank / min(update.shape)


LEAST = Derivation(
    id="3.4-least",
    title="Rank r keeps at least r of the p parts of an update, and no more where all singular values are equal.",
    source=f"sharper reading of {_SOURCE}",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"\frac{r}{p} \le \frac{\sum_{i \le r} \sigma_i^2}{\sum_i \sigma_i^2}, \quad p = \min(m, n)",
        left=_even,
        right=_share,
        relation=Relation.AT_MOST,
        cases=_updates,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("rank one keeps nine tenths", left=lambda case: 0.9 + 0.0 * _share(case), sizes=(2, 3)),
        Mutant("r + 1 parts", left=lambda case: _even((case[0], case[1] + 1))),
        Mutant("twice as many parts", left=lambda case: _even(case, 2.0)),
    ),
    proof=(
        "The r largest of p numbers have a mean of at least that of all. It is attained by ΔW = I: in two dimensions "
        "rank one keeps half of it. So that rank one keeps the merge is a property of the updates of the paper's "
        "setting, to be measured for any others."
    ),
    code=("diagnostics.update_structure",),
)
DERIVATIONS = (SHARE, LEAST)
