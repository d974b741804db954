"""(5.1), (5.2) Outputs of a merge from outputs and directional derivatives of single models."""

from __future__ import annotations

from typing import Any

import numpy as np

from diagnostics.exact.relations import Relation
from diagnostics.exact.rounding import values
from diagnostics.exact.surface import Surface
from diagnostics.theory.coefficient_process import CoefficientProcess
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant
from diagnostics.theory.derivations.ways import spectral_norm

__all__ = ["DERIVATIONS", "with_monomials"]

_SOURCE = "Taylor's formula, for outputs of merges"


def _expansions(dimension: int) -> Any:
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import arrays
    from diagnostics.testing.tasks import smooth_tasks

    return st.tuples(smooth_tasks(dimension, stationary=False), arrays(dimension))


def _missed(case: Any) -> Any:
    """|f(θ + u) − f(θ) − J(θ)u| at the expert θ."""
    output, way = case
    start = output.anchor
    return abs(output.loss(start + way) - output.loss(start) - output.gradient(start) @ way)


def _second_order(case: Any) -> Any:
    """½ max ‖∇²f‖ ‖u‖² over a convex hull of the Hessians on the way."""
    output, way = case
    corners = output.corners(output.anchor, output.anchor + way)
    return max(spectral_norm(hessian) for hessian in corners) * (way**2).sum() / 2


EXPANSION = Derivation(
    id="5.1",
    title="The expansion about an expert misses an output by at most half its largest curvature times ‖u‖².",
    source=_SOURCE,
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\Big| f(\theta_i + u) - f(\theta_i) - J(\theta_i) u \Big| \le \tfrac12 \max_{0 \le s \le 1} \Vert "
        r"\nabla^2 f(\theta_i + s u) \Vert_2 \Vert u \Vert^2",
        left=_missed,
        right=_second_order,
        relation=Relation.AT_MOST,
        cases=_expansions,
    ),
    mutants=(
        Mutant("half of the bound", right=lambda case: _second_order(case) / 2),
        Mutant("no second order at all", right=lambda case: 0 * _second_order(case)),
    ),
    code=("diagnostics.predict_merge",),
)


def hermite(start: Any, end: Any, slope_start: Any, slope_end: Any, weight: Any) -> Any:
    """Return the cubic with given values and derivatives at 0 and 1.

    Args:
        start: Value at 0.
        end: Value at 1.
        slope_start: Derivative at 0.
        slope_end: Derivative at 1.
        weight: λ.

    Returns:
        Its value at λ.

    Example:
        >>> hermite(0.0, 1.0, 0.0, 3.0, 0.5)  # λ³
        0.125
    """
    rest = 1 - weight
    values_part = start * rest**2 * (1 + 2 * weight) + end * weight**2 * (3 - 2 * weight)
    return values_part + slope_start * weight * rest**2 - slope_end * weight**2 * rest


def with_monomials(pattern: Any, low: float = 0.0, high: float = 1.0) -> Any:
    """Return a claim's cases: surfaces that have some monomials only, whatever the size.

    Args:
        pattern: Whether λ_i^p λ_j^q is one of them.
        low: Least coefficient.
        high: Largest.

    Returns:
        A function from a size to a strategy.
    """

    def cases(size: int) -> Any:
        from diagnostics.testing.surfaces import surfaces

        return surfaces(pattern, low, high)

    return cases


def _own_ray(case: Surface) -> Any:
    """Cubic Hermite interpolation of the own ray between θ0 and θ_i."""
    ends = (case.value(0.0, 0.0), case.value(1.0, 0.0), case.toward_own(0.0, 0.0), case.toward_own(1.0, 0.0))
    return hermite(*ends, case.own)


def _linear_ray(case: Surface) -> Any:
    return case.value(0.0, 0.0) * (1 - case.own) + case.value(1.0, 0.0) * case.own


def _on_ray(case: Surface) -> Any:
    return case.value(case.own, 0.0)


HERMITE = Derivation(
    id="5.2-own",
    title="Values and derivatives at both ends give the own ray of an output exactly where it is cubic.",
    source="cubic Hermite interpolation",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"f(\theta_0 + \lambda \tau_i) = h_{00}(\lambda) f(\theta_0) + h_{01}(\lambda) f(\theta_i) + "
        r"h_{10}(\lambda) J(\theta_0)\tau_i + h_{11}(\lambda) J(\theta_i)\tau_i",
        left=_own_ray,
        right=_on_ray,
        relation=Relation.EQUAL,
        cases=with_monomials(lambda p, q: q == 0 and p <= 3),
        sizes=(1,),
    ),
    mutants=(
        Mutant("a straight line between the ends", left=_linear_ray),
        Mutant("of degree four", cases=with_monomials(lambda p, q: q == 0), sizes=(1,)),
    ),
    code=("diagnostics.predict_merge",),
)


def _fourth(case: Surface) -> Any:
    """Max |f⁗| / 384 of an own ray of degree four."""
    return abs(case.coefficients[4][0]) * 24 / 384


ERROR = Derivation(
    id="5.2-error",
    title="Between the ends the interpolation misses by at most max|f⁗|/384.",
    source="Peano's kernel for cubic Hermite interpolation",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\max_{0 \le \lambda \le 1} | f(\lambda) - h(\lambda) | \le \tfrac{1}{384} \max_{0 \le \lambda \le "
        r"1} | f''''(\lambda) |",
        left=lambda case: abs(_own_ray(case) - _on_ray(case)),
        right=_fourth,
        relation=Relation.AT_MOST,
        cases=with_monomials(lambda p, q: q == 0),
        sizes=(1,),
    ),
    mutants=(
        Mutant("half of it", right=lambda case: _fourth(case) / 2),
        Mutant("beyond the ends", cases=lambda size: with_monomials(lambda p, q: q == 0)(size).map(_extrapolated)),
    ),
    proof="The error at λ is f⁗(ξ)λ²(1 − λ)²/24 for some ξ, and λ²(1 − λ)² ≤ 1/16, attained at ½ for degree four.",
    code=("diagnostics.predict_merge",),
)


def _extrapolated(case: Surface) -> Surface:
    return Surface(case.coefficients, case.own + 1, case.partner)


def _prediction(case: Surface) -> Any:
    """(5.2): own ray, the partner's derivative at the expert, and the curvature of the partner's ray."""
    toward = case.toward_partner(1.0, 0.0)
    bend = case.value(0.0, 1.0) - case.value(0.0, 0.0) - case.toward_partner(0.0, 0.0)
    return _own_ray(case) + case.partner * toward + case.partner**2 * bend


def _shortfall(case: Surface) -> Any:
    """What (5.2) misses where the mixed part is c λ_i λ_j: it takes the mixed part as at the expert."""
    return case.value(case.own, case.partner) + case.coefficients[1][1] * case.partner * (1 - case.own)


_QUADRATIC_PARTNER = with_monomials(lambda p, q: (q == 0 and p <= 3) or (p == 0 and q <= 2) or (p == 1 and q == 1))
RAYS = Derivation(
    id="5.2",
    title="The sum of rays takes the mixed part as at the expert: for c λ_i λ_j it adds c λ_j (1 − λ_i) too much.",
    source="the expansion about the expert with both rays",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"h(\lambda_i) + \lambda_j J(\theta_i)\tau_j + \lambda_j^2 \big( f(\theta_j) - f(\theta_0) - "
        r"J(\theta_0)\tau_j \big) = f + c\, \lambda_j (1 - \lambda_i)",
        left=_prediction,
        right=_shortfall,
        relation=Relation.EQUAL,
        cases=_QUADRATIC_PARTNER,
        sizes=(1,),
    ),
    mutants=(
        Mutant("exact for mixed parts too", right=lambda case: case.value(case.own, case.partner)),
        Mutant("the partner's derivative at the base", left=lambda case: _from_base(case)),
    ),
    proof="J(θ_i)τ_j is ∂f/∂λ_j at (1, 0), which holds c where the merge at (λ_i, λ_j) has c λ_i.",
    code=("diagnostics.predict_merge",),
)


def _from_base(case: Surface) -> Any:
    return _prediction(case) - case.partner * (case.toward_partner(1.0, 0.0) - case.toward_partner(0.0, 0.0))


# Values and derivatives along both vectors at the base and at both experts.
_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
_POINTS = np.repeat(_CORNERS, 3, axis=0)
_DIRECTIONS = np.tile(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), (3, 1))


def _observed(case: Surface) -> Any:
    rows = [(case.value(*at), case.toward_own(*at), case.toward_partner(*at)) for at in _CORNERS.tolist()]
    return np.array([float(number) for row in rows for number in row])


def _by_process(case: Surface, degree: int = 2) -> float:
    plain = values(case)
    process = CoefficientProcess(_POINTS, _DIRECTIONS, degree=degree)
    return float(process.at([plain.own, plain.partner]).weights @ _observed(plain))


PROCESS = Derivation(
    id="5.3-process",
    title="The Gaussian process that predictions use is exact for outputs that are quadratic in the coefficients.",
    source="universal kriging with a trend of degree two",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"f(\lambda) = \sum_{p + q \le 2} c_{pq} \lambda_i^p \lambda_j^q \;\Rightarrow\; w(\lambda)^\top y "
        r"= f(\lambda)",
        left=_by_process,
        right=lambda case: case.value(case.own, case.partner),
        relation=Relation.EQUAL,
        cases=with_monomials(lambda p, q: p + q <= 2),
        # Nine weights of about one, solved for in a system of condition about 10⁴.
        tolerance=lambda case: 1e-10 * max(1.0, float(abs(case.coefficients).sum())),
        sizes=(1,),
    ),
    mutants=(
        Mutant("a trend of degree one", left=lambda case: _by_process(case, 1)),
        Mutant("for cubic outputs", cases=with_monomials(lambda p, q: p + q <= 3), sizes=(1,)),
    ),
    proof=(
        "The weights of universal kriging reproduce every polynomial of the trend's degree by construction, whatever "
        "the covariance, as long as the observations determine it: nine of them do for six coefficients."
    ),
    code=("diagnostics.theory.coefficient_process.CoefficientProcess",),
)
DERIVATIONS = (EXPANSION, RAYS, HERMITE, ERROR, PROCESS)
