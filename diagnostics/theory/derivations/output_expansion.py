"""(5.1)–(5.3) Outputs of a merge from outputs and directional derivatives of single models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diagnostics.exact.relations import Relation
from diagnostics.exact.rounding import values
from diagnostics.theory.coefficient_process import CoefficientProcess
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant
from diagnostics.theory.derivations.ways import spectral_norm

__all__ = ["DERIVATIONS"]

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
        statement=r"\Big| f(\theta_i + u) - f(\theta_i) - J(\theta_i) u \Big| \le \tfrac12 \max_{0 \le s \le 1} "
        r"\Vert \nabla^2 "
        r"f(\theta_i + s u) \Vert_2 \Vert u \Vert^2",
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


@dataclass(frozen=True)
class _Surface:
    """One output over (own, partner) coefficients: Σ c_pq λ_i^p λ_j^q with p + q ≤ 4.

    Attributes:
        coefficients: c, [5, 5].
        own: λ_i.
        partner: λ_j.
    """

    coefficients: Any
    own: Any
    partner: Any

    def value(self, own: Any, partner: Any) -> Any:
        """f(λ_i, λ_j)."""
        return self._sum(lambda p, q: _power(own, p) * _power(partner, q))

    def toward_own(self, own: Any, partner: Any) -> Any:
        """∂f/∂λ_i, a JVP along τ_i."""
        return self._sum(lambda p, q: p * _power(own, p - 1) * _power(partner, q) if p else 0.0)

    def toward_partner(self, own: Any, partner: Any) -> Any:
        """∂f/∂λ_j, a JVP along τ_j."""
        return self._sum(lambda p, q: q * _power(own, p) * _power(partner, q - 1) if q else 0.0)

    def _sum(self, term: Any) -> Any:
        used = [(p, q) for p in range(5) for q in range(5 - p)]
        return sum((self.coefficients[p][q] * term(p, q) for p, q in used), start=0.0)


def _power(base: Any, exponent: int) -> Any:
    return base**exponent if exponent else 1.0


def _surfaces(pattern: Any) -> Any:
    """Strategies for surfaces that have some monomials only."""

    def cases(size: int) -> Any:
        from hypothesis import strategies as st

        from diagnostics.testing.numbers import arrays, numbers

        kept = np.array([[float(p + q <= 4 and pattern(p, q)) for q in range(5)] for p in range(5)])
        return st.builds(
            lambda table, own, partner: _Surface(table * kept, own, partner), arrays(5, 5), numbers(0, 1), numbers(0, 1)
        )

    return cases


def _own_ray(case: _Surface) -> Any:
    """Cubic Hermite interpolation of the own ray between θ0 and θ_i."""
    ends = (case.value(0.0, 0.0), case.value(1.0, 0.0), case.toward_own(0.0, 0.0), case.toward_own(1.0, 0.0))
    return hermite(*ends, case.own)


def _linear_ray(case: _Surface) -> Any:
    return case.value(0.0, 0.0) * (1 - case.own) + case.value(1.0, 0.0) * case.own


def _on_ray(case: _Surface) -> Any:
    return case.value(case.own, 0.0)


HERMITE = Derivation(
    id="5.2-own",
    title="Values and derivatives at both ends give the own ray of an output exactly where it is cubic.",
    source="cubic Hermite interpolation",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"f(\theta_0 + \lambda \tau_i) = h_{00}(\lambda) f(\theta_0) + h_{01}(\lambda) f(\theta_i) + "
        r"h_{10}(\lambda) "
        r"J(\theta_0)\tau_i + h_{11}(\lambda) J(\theta_i)\tau_i",
        left=_own_ray,
        right=_on_ray,
        relation=Relation.EQUAL,
        cases=_surfaces(lambda p, q: q == 0 and p <= 3),
        sizes=(1,),
    ),
    mutants=(
        Mutant("a straight line between the ends", left=_linear_ray),
        Mutant("of degree four", cases=_surfaces(lambda p, q: q == 0), sizes=(1,)),
    ),
    code=("diagnostics.predict_merge",),
)


def _fourth(case: _Surface) -> Any:
    """Max |f⁗| / 384 of an own ray of degree four."""
    return abs(case.coefficients[4][0]) * 24 / 384


ERROR = Derivation(
    id="5.2-error",
    title="Between the ends the interpolation misses by at most max|f⁗|/384.",
    source="Peano's kernel for cubic Hermite interpolation",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\max_{0 \le \lambda \le 1} | f(\lambda) - h(\lambda) | \le \tfrac{1}{384} \max_{0 \le \lambda "
        r"\le 1} "
        r"| f''''(\lambda) |",
        left=lambda case: abs(_own_ray(case) - _on_ray(case)),
        right=_fourth,
        relation=Relation.AT_MOST,
        cases=_surfaces(lambda p, q: q == 0),
        sizes=(1,),
    ),
    mutants=(
        Mutant("half of it", right=lambda case: _fourth(case) / 2),
        Mutant("beyond the ends", cases=lambda size: _surfaces(lambda p, q: q == 0)(size).map(_extrapolated)),
    ),
    proof="The error at λ is f⁗(ξ)λ²(1 − λ)²/24 for some ξ, and λ²(1 − λ)² ≤ 1/16, attained at ½ for degree four.",
    code=("diagnostics.predict_merge",),
)


def _extrapolated(case: _Surface) -> _Surface:
    return _Surface(case.coefficients, case.own + 1, case.partner)


def _prediction(case: _Surface) -> Any:
    """(5.2): own ray, the partner's derivative at the expert, and the curvature of the partner's ray."""
    toward = case.toward_partner(1.0, 0.0)
    bend = case.value(0.0, 1.0) - case.value(0.0, 0.0) - case.toward_partner(0.0, 0.0)
    return _own_ray(case) + case.partner * toward + case.partner**2 * bend


def _shortfall(case: _Surface) -> Any:
    """What (5.2) misses where the mixed part is c λ_i λ_j: it takes the mixed part as at the expert."""
    return case.value(case.own, case.partner) + case.coefficients[1][1] * case.partner * (1 - case.own)


_QUADRATIC_PARTNER = _surfaces(lambda p, q: (q == 0 and p <= 3) or (p == 0 and q <= 2) or (p == 1 and q == 1))
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


def _from_base(case: _Surface) -> Any:
    return _prediction(case) - case.partner * (case.toward_partner(1.0, 0.0) - case.toward_partner(0.0, 0.0))


def _estimates(case: _Surface) -> tuple[Any, Any]:
    """The mixed part by the change of J τ_j on the own ray, and of J τ_i on the partner's."""
    first = case.toward_partner(1.0, 0.0) - case.toward_partner(0.0, 0.0)
    second = case.toward_own(0.0, 1.0) - case.toward_own(0.0, 0.0)
    return first, second


def _mixed(case: _Surface) -> Any:
    """F less its two rays and its value at the base, taken over."""
    rays = case.value(case.own, 0.0) + case.value(0.0, case.partner) - case.value(0.0, 0.0)
    return case.value(case.own, case.partner) - rays


def _by_mean(case: _Surface) -> Any:
    first, second = _estimates(case)
    return case.own * case.partner * (first + second) / 2


def _each(case: _Surface) -> Any:
    return np.stack([case.own * case.partner * estimate for estimate in _estimates(case)])


MIXED = Derivation(
    id="5.3",
    title="Both estimates of the mixed part are exact where it is bilinear, at any coefficients.",
    source="the square of own and partner coefficients",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"m = J(\theta_i)\tau_j - J(\theta_0)\tau_j = J(\theta_j)\tau_i - J(\theta_0)\tau_i, \quad "
        r"f - (\text{rays}) = m\, \lambda_i \lambda_j",
        left=_each,
        right=lambda case: np.stack([_mixed(case), _mixed(case)]),
        relation=Relation.EQUAL,
        cases=_surfaces(lambda p, q: p * q == 0 or p == q == 1),
        sizes=(1,),
    ),
    mutants=(
        Mutant("half of it", left=lambda case: _each(case) / 2),
        Mutant("for cubic mixed parts", cases=_surfaces(lambda p, q: p + q <= 3), sizes=(1,)),
    ),
    code=("diagnostics.predict_merge",),
)


def _halfway(size: int) -> Any:
    half = np.float64(0.5)
    cubic = _surfaces(lambda p, q: p * q == 0 or p + q <= 3)(size)
    return cubic.map(lambda case: _Surface(case.coefficients, float(half), float(half)))


MEAN = Derivation(
    id="5.3-mean",
    title="Halfway, at λ_i = λ_j = ½, the mean of both estimates is exact for cubic mixed parts as well.",
    source="the square of own and partner coefficients",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"f(\tfrac12, \tfrac12) - (\text{rays}) = \tfrac14 \cdot \tfrac12 \big( J(\theta_i)\tau_j - "
        r"J(\theta_0)\tau_j "
        r"+ J(\theta_j)\tau_i - J(\theta_0)\tau_i \big)",
        left=_by_mean,
        right=_mixed,
        relation=Relation.EQUAL,
        cases=_halfway,
        sizes=(1,),
    ),
    mutants=(
        Mutant("the first estimate alone", left=lambda case: _each(case)[0]),
        Mutant("the second estimate alone", left=lambda case: _each(case)[1]),
        Mutant("at any coefficients", cases=_surfaces(lambda p, q: p * q == 0 or p + q <= 3)),
    ),
    proof=(
        "For c λ_iλ_j + p λ_i²λ_j + q λ_iλ_j² the estimates are c + p and c + q. Their mean gives λ²(c + (p + q)/2) at "
        "equal coefficients λ, and the mixed part is λ²c + λ³(p + q): equal at λ = ½. Elsewhere the mean misses by "
        "λ²(p + q)(λ − ½)."
    ),
    code=("diagnostics.predict_merge",),
)

# Values and derivatives along both vectors at the base and at both experts.
_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
_POINTS = np.repeat(_CORNERS, 3, axis=0)
_DIRECTIONS = np.tile(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), (3, 1))


def _observed(case: _Surface) -> Any:
    rows = [(case.value(*at), case.toward_own(*at), case.toward_partner(*at)) for at in _CORNERS.tolist()]
    return np.array([float(number) for row in rows for number in row])


def _by_process(case: _Surface, degree: int = 2) -> float:
    plain = values(case)
    process = CoefficientProcess(_POINTS, _DIRECTIONS, degree=degree)
    return float(process.at([plain.own, plain.partner]).weights @ _observed(plain))


PROCESS = Derivation(
    id="5.3-process",
    title="The Gaussian process that predictions use is exact for outputs that are quadratic in the coefficients.",
    source="universal kriging with a trend of degree two",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"f(\lambda) = \sum_{p + q \le 2} c_{pq} \lambda_i^p \lambda_j^q \;\Rightarrow\; w(\lambda)^\top "
        r"y = f(\lambda)",
        left=_by_process,
        right=lambda case: case.value(case.own, case.partner),
        relation=Relation.EQUAL,
        cases=_surfaces(lambda p, q: p + q <= 2),
        # Nine weights of about one, solved for in a system of condition about 10⁴.
        tolerance=lambda case: 1e-10 * max(1.0, float(abs(case.coefficients).sum())),
        sizes=(1,),
    ),
    mutants=(
        Mutant("a trend of degree one", left=lambda case: _by_process(case, 1)),
        Mutant("for cubic outputs", cases=_surfaces(lambda p, q: p + q <= 3), sizes=(1,)),
    ),
    proof=(
        "The weights of universal kriging reproduce every polynomial of the trend's degree by construction, whatever "
        "the covariance, as long as the observations determine it: nine of them do for six coefficients."
    ),
    code=("diagnostics.theory.coefficient_process.CoefficientProcess",),
)
DERIVATIONS = (EXPANSION, RAYS, HERMITE, ERROR, MIXED, MEAN, PROCESS)
