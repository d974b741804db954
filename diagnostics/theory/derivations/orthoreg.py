"""(4.3) The OrthoReg penalty: its gradient, its two forms, and what reaching its target fixes."""

from __future__ import annotations

from typing import Any

import numpy as np

from diagnostics.exact.relations import Relation
from diagnostics.exact.smooth import five_points
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant

__all__ = ["DERIVATIONS", "paper_penalty"]

_SOURCE = "Liu 2026"


def _updates(size: int) -> Any:
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import arrays

    columns = st.integers(1, 3)
    return columns.flatmap(lambda count: st.tuples(arrays(size, count), arrays(size, count)))


def _excess(update: Any, *, rows: bool = False) -> Any:
    """ΔWᵀΔW − I, or ΔWΔWᵀ − I."""
    gram = update @ update.T if rows else update.T @ update
    return gram - np.eye(gram.shape[0])


def paper_penalty(update: Any) -> Any:
    """Return ‖ΔWᵀΔW − I‖_F².

    Args:
        update: ΔW, [r, c].

    Returns:
        The penalty.
    """
    return (_excess(update) ** 2).sum()


def _code(update: Any) -> Any:
    """The square of the released code's penalty: the Gram matrix of the smaller side."""
    return (_excess(update, rows=update.shape[0] < update.shape[1]) ** 2).sum()


def _slope(case: Any) -> Any:
    """d/dt of the penalty of ΔW + tV at t = 0."""
    update, direction = case
    return five_points(lambda step: paper_penalty(update + step * direction))


def _gradient(case: Any) -> Any:
    update, direction = case
    return 4 * ((update @ _excess(update)) * direction).sum()


GRADIENT = Derivation(
    id="4.3",
    title="The penalty's gradient is 4ΔW(ΔWᵀΔW − I): zero at ΔW = 0, and pure inflation where ΔW is small.",
    source=_SOURCE,
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\nabla \Vert \Delta W^\top \Delta W - I \Vert_F^2 = 4 \Delta W (\Delta W^\top \Delta W - I)",
        left=_slope,
        right=_gradient,
        relation=Relation.EQUAL,
        cases=_updates,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("a 2 for the 4", right=lambda case: _gradient(case) / 2),
        Mutant("the identity forgotten", right=lambda c: _gradient(c) + 4 * (c[0] * c[1]).sum()),
    ),
    proof=(
        "The derivative of tr(M²) with M = ΔWᵀΔW − I. At small ΔW it is −4ΔW up to third order, so a step downhill "
        "multiplies ΔW by a number above one and does not turn it."
    ),
    code=("diagnostics.orthoreg_penalty",),
)
FORMS = Derivation(
    id="4.3-forms",
    title="The paper's penalty is the square of the released code's, and one more for each column too many.",
    source=f"{_SOURCE}, and its released code",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\Vert \Delta W^\top \Delta W - I \Vert_F^2 = \Vert \Delta W \Delta W^\top - I \Vert_F^2 + (c - "
        r"r), \quad \Delta W \in \mathbb{R}^{r \times c},\; r < c",
        left=lambda case: paper_penalty(case[0]),
        right=lambda case: _code(case[0]) + _too_many(case[0]),
        relation=Relation.EQUAL,
        cases=_updates,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("without the columns too many", right=lambda case: _code(case[0])),
        Mutant("the code's form not squared", right=lambda c: np.sqrt(_code(c[0])) + _too_many(c[0])),
    ),
    proof=(
        "ΔWᵀΔW has the eigenvalues of ΔWΔWᵀ and c − r zeros, each of which adds (0 − 1)². A 16 × 64 update with "
        "orthonormal rows has penalty 48 in the paper's form and 0 in the code's."
    ),
    code=("diagnostics.orthoreg_penalty",),
)


def _too_many(update: Any) -> float:
    return float(max(update.shape[1] - update.shape[0], 0))


def _off_norm(case: Any) -> Any:
    return abs((case[0] ** 2).sum() - min(case[0].shape))


def _norm_bound(case: Any) -> Any:
    return np.sqrt(min(case[0].shape) * _code(case[0]))


TARGET = Derivation(
    id="4.3-norm",
    title="Near the target ‖ΔW‖_F² is near min(r, c), whatever the task: the norm is fixed, not small.",
    source=f"sharper reading of {_SOURCE}",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"\big| \Vert \Delta W \Vert_F^2 - \min(r, c) \big| \le \sqrt{\min(r, c)}\, \Vert M - I \Vert_F",
        left=_off_norm,
        right=_norm_bound,
        relation=Relation.AT_MOST,
        cases=_updates,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("half of it", right=lambda case: _norm_bound(case) / 2),
        Mutant("without the root of the rank", right=lambda c: np.sqrt(_code(c[0])), sizes=(2, 3)),
    ),
    proof=(
        "M is the Gram matrix of the smaller side, so tr(M − I) = ‖ΔW‖_F² − min(r, c), and |tr(A)| ≤ √n ‖A‖_F. The "
        "loss-gap bounds grow with ‖τ‖², so the target works against them."
    ),
    code=("diagnostics.orthoreg_penalty",),
)


def _orthonormal(size: int) -> Any:
    from hypothesis import strategies as st

    # Signed permutations: orthonormal without rounding.
    signs = st.lists(st.sampled_from([1.0, -1.0]), min_size=size, max_size=size)
    order = st.permutations(range(size))
    return st.builds(lambda s, p: (np.eye(size), np.array(s)[:, None] * np.eye(size)[list(p)]), signs, order)


def _cosine(case: Any) -> Any:
    first, second = case
    return (first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum())


def _penalties(case: Any) -> Any:
    return np.stack([paper_penalty(case[0]), paper_penalty(case[1])])


BETWEEN = Derivation(
    id="4.3-between",
    title="Two updates can have penalty zero and any of the cosines from −1 to 1: inside is not between.",
    source=_SOURCE,
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\Delta W_t^\top \Delta W_t = \Delta W_j^\top \Delta W_j = I \;\Rightarrow\; \text{both penalties "
        r"are } 0, \quad -1 \le \cos(\Delta W_t, \Delta W_j) \le 1",
        left=_penalties,
        right=lambda case: 0 * _penalties(case),
        relation=Relation.EQUAL,
        cases=_orthonormal,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("penalty zero means orthogonal updates", left=_cosine, right=lambda case: 0.0),
        Mutant(
            "penalty zero means a cosine of at most ½", left=_cosine, right=lambda c: 0.5, relation=Relation.AT_MOST
        ),
    ),
    proof="ΔW_t = ΔW_j = I has both penalties zero and cosine 1; with ΔW_j = −I it is −1.",
    code=("diagnostics.orthoreg_penalty", "diagnostics.orthogonality"),
)
DERIVATIONS = (GRADIENT, FORMS, TARGET, BETWEEN)
