"""(1.6) The best α: least squares over the Gram matrix of gradients, and the sine that is left."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from diagnostics.exact.gradients import FirstGradients
from diagnostics.exact.relations import Relation
from diagnostics.exact.rounding import UNIT, Rounded, values
from diagnostics.theory.alignment import best_alphas
from diagnostics.theory.derivations.derivation import Claim, Condition, Derivation, Kind, Mutant

__all__ = ["DERIVATIONS"]

_SOURCE = "least squares, for Lee 2026"


def _cases(dimension: int) -> Any:
    from diagnostics.testing.gradients import first_gradients

    return first_gradients(dimension)


def _nonnegative(dimension: int) -> Any:
    return _cases(dimension).map(lambda case: FirstGradients(case.vectors, case.gradients, abs(case.alphas)))


def _best(case: FirstGradients, sign: Any = "any") -> Any:
    rows = values(case.gradients)
    return best_alphas(torch.tensor(rows @ rows.T), sign=sign).numpy()


def _square(case: FirstGradients, alphas: Any) -> Any:
    """‖g_* − Σ α_i g_i‖²."""
    return ((case.gradients[0] - alphas @ case.gradients[1:]) ** 2).sum()


def _spread(case: FirstGradients) -> Any:
    """Eigenvalues of the Gram matrix of the components' directions, as shares of the largest."""
    rows = values(case.gradients)[1:]
    unit = rows / np.sqrt((rows**2).sum(1))[:, None]
    scale = np.linalg.eigvalsh(unit @ unit.T)
    return scale / scale[-1]


def _nearly_dependent(case: FirstGradients) -> float:
    """The largest share that is neither rounding nor clearly more."""
    shares = _spread(case)
    between = shares[(shares > 1e-13) & (shares < 1e-6)]
    return float(between.max(initial=0.0))


# Components that are dependent to six digits but not to rounding have no α that float64 can tell.
_CLEAR = Condition("clear", "components are dependent to rounding, or clearly independent", _nearly_dependent)


def _condition(case: FirstGradients) -> float:
    shares = _spread(case)
    return float(1 / shares[shares > 1e-12].min())


def _lost(case: FirstGradients) -> float:
    """What an α that is off by rounding times the condition number can add: its square, on the scale of ‖g_*‖²."""
    size = float((values(case.gradients)[0] ** 2).sum())
    return (64 * UNIT * _condition(case)) ** 2 * size


def _padded(case: FirstGradients, side: Any) -> Any:
    return Rounded(side.value, side.error + _lost(case))


BEST = Derivation(
    id="1.6",
    title="No coefficients leave a smaller alignment error than the least-squares ones.",
    source=_SOURCE,
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\min_\alpha \Big\Vert g_* - \sum_i \alpha_i g_i \Big\Vert^2 \text{ is attained at } \alpha = "
        r"G_{II}^{+}\, G_{I*}",
        left=lambda case: _padded(case, _square(case, _best(case))),
        right=lambda case: _square(case, case.alphas),
        relation=Relation.AT_MOST,
        cases=_cases,
        assumptions=(_CLEAR,),
    ),
    mutants=(
        Mutant("half of the coefficients", left=lambda case: _square(case, _best(case) / 2)),
        Mutant("each component fitted by itself", left=lambda case: _square(case, _one_by_one(case))),
    ),
    code=("diagnostics.gradient_alignment", "diagnostics.theory.alignment.best_alphas"),
)


def _one_by_one(case: FirstGradients) -> Any:
    """⟨g_*, g_i⟩/‖g_i‖², which forgets that components overlap."""
    rows = values(case.gradients)
    return rows[1:] @ rows[0] / (rows[1:] ** 2).sum(1)


NONNEGATIVE = Derivation(
    id="1.6-nonnegative",
    title="No coefficients that are not negative leave a smaller alignment error than the non-negative best.",
    source=_SOURCE,
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\min_{\alpha \ge 0} \Big\Vert g_* - \sum_i \alpha_i g_i \Big\Vert^2",
        left=lambda case: _padded(case, _square(case, _best(case, "nonnegative"))),
        right=lambda case: _square(case, case.alphas),
        relation=Relation.AT_MOST,
        cases=_nonnegative,
        assumptions=(_CLEAR,),
    ),
    mutants=(
        Mutant("against coefficients of any sign", cases=_cases),
        Mutant("the free best with its negative parts cut", left=lambda c: _square(c, np.maximum(_best(c), 0))),
    ),
    code=("diagnostics.theory.alignment.best_alphas",),
)


def _sine(case: FirstGradients) -> Any:
    """‖∇ℰ‖²/‖g_*‖² at the best α."""
    return _square(case, _best(case)) / (case.gradients[0] ** 2).sum()


def _angle(case: FirstGradients) -> Any:
    """One less the share of g_* in the components' span, by an orthonormal basis of it."""
    rows = values(case.gradients)
    unit = rows[1:] / np.sqrt((rows[1:] ** 2).sum(1))[:, None]
    _, sizes, basis = np.linalg.svd(unit, full_matrices=False)
    inside = basis[sizes > 1e-6 * sizes[0]] @ rows[0]
    # Rounding turns the basis by a few units over the least singular value that is kept.
    return Rounded(1 - (inside**2).sum() / (rows[0] ** 2).sum(), 64 * UNIT * np.sqrt(_condition(case)))


SINE = Derivation(
    id="1.6-sine",
    title="At the best α the relative alignment error is the sine of the angle between g_* and the span.",
    source="Lee 2026, with the projection theorem",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\Vert \nabla\mathcal{E} \Vert^2 / \Vert g_* \Vert^2 = \sin^2 \angle(g_*, \mathrm{span}\{g_i\})",
        left=_sine,
        right=_angle,
        relation=Relation.EQUAL,
        cases=_cases,
        assumptions=(_CLEAR,),
    ),
    mutants=(
        Mutant("the cosine", right=lambda case: 1 - _angle(case)),
        Mutant("the sine not squared", right=lambda case: np.sqrt(np.maximum(_angle(case), 0.0)), sizes=(2, 3, 4)),
    ),
    code=("diagnostics.gradient_alignment",),
)
DERIVATIONS = (BEST, NONNEGATIVE, SINE)
