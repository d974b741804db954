"""(4.3) What a step down the OrthoReg penalty does to a small update, and to one that is orthogonal already."""

from __future__ import annotations

from typing import Any

import numpy as np

from diagnostics.exact.relations import Relation
from diagnostics.exact.smooth import five_points
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant
from diagnostics.theory.derivations.orthoreg import paper_penalty

__all__ = ["DERIVATIONS"]

_SOURCE = "sharper reading of Liu 2026"


def _updates(size: int) -> Any:
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import arrays

    # Not so small that the third order drowns in the rounding of the first.
    scales = st.sampled_from([1.0, 0.5, 0.125])
    quarters = st.integers(-8, 8).map(lambda n: n / 4)
    return st.integers(1, 3).flatmap(lambda n: st.builds(lambda a, s: s * a, arrays(size, n, entries=quarters), scales))


def _gradient(update: Any) -> Any:
    """∇‖ΔWᵀΔW − I‖_F², an entry at a time."""
    rows, columns = update.shape
    units = np.eye(rows * columns).reshape(rows * columns, rows, columns)

    def slope(unit: Any) -> Any:
        return five_points(lambda step: paper_penalty(update + step * unit))

    return np.stack([slope(unit) for unit in units]).reshape(rows, columns)


def _length(matrix: Any) -> Any:
    return np.sqrt((matrix**2).sum())


def _turned(update: Any, share: float = 4.0) -> Any:
    """How far the gradient is from −4ΔW."""
    return _length(_gradient(update) + share * update)


def _cubed(update: Any, factor: float = 4.0) -> Any:
    """4 ‖ΔW‖₂² ‖ΔW‖_F."""
    return factor * np.max(np.linalg.svd(update, compute_uv=False)) ** 2 * _length(update)


INFLATION = Derivation(
    id="4.3-inflation",
    title="The penalty's gradient is −4ΔW up to 4‖ΔW‖₂²‖ΔW‖_F: small updates get longer and do not turn.",
    source=_SOURCE,
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"\Vert \nabla P + 4 \Delta W \Vert_F \le 4 \Vert \Delta W \Vert_2^2 \Vert \Delta W \Vert_F, \quad "
        r"P = \Vert \Delta W^\top \Delta W - I \Vert_F^2",
        left=_turned,
        right=_cubed,
        relation=Relation.AT_MOST,
        cases=_updates,
        sizes=(1, 2),
    ),
    mutants=(
        Mutant("half of it", right=lambda update: _cubed(update, 2.0)),
        Mutant("−2ΔW", left=lambda update: _turned(update, 2.0)),
        Mutant("the sign of the gradient flipped", left=lambda update: _turned(update, -4.0)),
    ),
    proof=(
        "∇P = 4ΔW(ΔWᵀΔW − I), so ∇P + 4ΔW = 4ΔWΔWᵀΔW, whose length is at most 4‖ΔW‖₂²‖ΔW‖_F; one singular value that "
        "is not zero attains it. At ΔW = 0 both sides are zero: the penalty has no gradient there."
    ),
    code=("diagnostics.orthoreg_penalty",),
)


def _growth(update: Any) -> Any:
    """−⟨∇P, ΔW⟩, the speed at which a step down changes ½‖ΔW‖²."""
    return -(_gradient(update) * update).sum()


def _by_values(update: Any, level: float = 1.0) -> Any:
    """4 Σ σ_i²(1 − σ_i²)."""
    squares = np.linalg.svd(update, compute_uv=False) ** 2
    return 4 * (squares * (level - squares)).sum()


GROWTH = Derivation(
    id="4.3-growth",
    title="A step down the penalty lengthens singular values below one and shortens those above, and no other.",
    source=_SOURCE,
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"-\langle \nabla P, \Delta W \rangle = 4 \sum_i \sigma_i^2 (1 - \sigma_i^2)",
        left=_growth,
        right=_by_values,
        relation=Relation.EQUAL,
        cases=_updates,
        sizes=(1, 2),
    ),
    mutants=(
        Mutant("all are lengthened", right=lambda update: _by_values(update, 2.0)),
        Mutant("the sign flipped", right=lambda update: -_by_values(update)),
    ),
    proof=(
        "In the singular bases ∇P is diagonal with 4σ_i(σ_i² − 1): a step down moves the singular values towards one "
        "and turns no singular vector. So an update shorter than one in every direction is inflated, whatever its task."
    ),
    code=("diagnostics.orthoreg_penalty",),
)
DERIVATIONS = (INFLATION, GROWTH)
