"""(5.1), (5.3) Several partners in the expansion, and the mixed part beyond what is bilinear."""

from __future__ import annotations

from typing import Any

import numpy as np

from diagnostics.exact.relations import Relation
from diagnostics.exact.surface import Surface
from diagnostics.theory.derivations.derivation import Claim, Condition, Derivation, Kind, Mutant
from diagnostics.theory.derivations.output_expansion import with_monomials

__all__ = ["DERIVATIONS"]


def _partners(dimension: int) -> Any:
    """An output about the expert, the partners' vectors, and their coefficients."""
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import arrays, numbers, task_vectors
    from diagnostics.testing.tasks import smooth_tasks

    def of(count: int) -> Any:
        weights = arrays(count, entries=numbers(-1, 2))
        return st.tuples(smooth_tasks(dimension, stationary=False), task_vectors(count, dimension), weights)

    return st.integers(1, 3).flatmap(of)


def _first_order(case: Any, ones: bool = False) -> Any:
    """f(θ_i) + Σ_j c_j J(θ_i)τ_j, one product for each partner."""
    output, vectors, weights = case
    slopes = [output.gradient(output.anchor) @ vector for vector in vectors]
    return output.loss(output.anchor) + sum(
        (1.0 if ones else weight) * slope for weight, slope in zip(weights, slopes, strict=True)
    )


def _less_remainder(case: Any, factor: float = 1.0) -> Any:
    """f(θ_i + u) − ∫₀¹ (1 − s) uᵀ∇²f(θ_i + su)u ds, u = Σ_j c_j τ_j."""
    output, vectors, weights = case
    way = weights @ vectors
    return output.loss(output.anchor + way) - factor * output.remainder(output.anchor, way)


def _apart(case: Any) -> Any:
    """The same with a remainder for each partner alone."""
    output, vectors, weights = case
    way = weights @ vectors
    parts = [output.remainder(output.anchor, weight * vector) for weight, vector in zip(weights, vectors, strict=True)]
    return output.loss(output.anchor + way) - sum(parts)


PARTNERS = Derivation(
    id="5.1-partners",
    title="One product J(θ_i)τ_j for each partner is the first order of any merge; the rest is an integral on the way.",
    source="Taylor's formula, for outputs of merges",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"f \Big( \theta_i + \sum_j c_j \tau_j \Big) = f(\theta_i) + \sum_j c_j J(\theta_i) \tau_j + "
        r"\int_0^1 (1 - s)\, u^\top \nabla^2 f(\theta_i + s u)\, u \,\mathrm{d}s, \quad u = \sum_j c_j \tau_j",
        left=_first_order,
        right=_less_remainder,
        relation=Relation.EQUAL,
        cases=_partners,
    ),
    mutants=(
        Mutant("the coefficients forgotten", left=lambda case: _first_order(case, ones=True)),
        Mutant("half of the remainder", right=lambda case: _less_remainder(case, 0.5)),
        Mutant("a remainder for each partner alone", right=_apart),
    ),
    proof=(
        "Taylor's formula with the remainder as an integral; the first order is linear in u. The remainder is not a "
        "sum over partners: two of them interact in it, at second order."
    ),
    code=("diagnostics.measures.outputs.directional_derivative", "diagnostics.predict_merge"),
)


def _each(case: Surface) -> Any:
    return np.stack([case.own * case.partner * estimate for estimate in case.estimates])


MIXED = Derivation(
    id="5.3",
    title="Both estimates of the mixed part are exact where it is bilinear, at any coefficients.",
    source="the square of own and partner coefficients",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"m = J(\theta_i)\tau_j - J(\theta_0)\tau_j = J(\theta_j)\tau_i - J(\theta_0)\tau_i, \quad f - "
        r"(\text{rays}) = m\, \lambda_i \lambda_j",
        left=_each,
        right=lambda case: np.stack([case.mixed, case.mixed]),
        relation=Relation.EQUAL,
        cases=with_monomials(lambda p, q: p * q == 0 or p == q == 1),
        sizes=(1,),
    ),
    mutants=(
        Mutant("half of it", left=lambda case: _each(case) / 2),
        Mutant("for cubic mixed parts", cases=with_monomials(lambda p, q: p + q <= 3), sizes=(1,)),
    ),
    code=("diagnostics.predict_merge",),
)


# Everything of degree three, off the ends too.
_CUBICS = with_monomials(lambda p, q: p + q <= 3, -1.0, 2.0)


def _estimated(case: Surface, first: Any, second: Any) -> Any:
    """λ_iλ_j times a weighted mean of both estimates."""
    one, two = case.estimates
    return case.own * case.partner * (first * one + second * two)


def _by_each(case: Surface) -> Any:
    """By the first estimate, by the second, and by their mean."""
    return np.stack([_estimated(case, *weights) for weights in ((1.0, 0.0), (0.0, 1.0), (0.5, 0.5))])


def _missed(case: Surface, sign: float = 1.0) -> Any:
    """The mixed part and what each of the three misses."""
    own, partner, p, q = case.own, case.partner, case.coefficients[2][1], case.coefficients[1][2]
    errors = (p * (1 - own) - q * partner, q * (1 - partner) - p * own, p * (0.5 - own) + q * (0.5 - partner))
    return np.stack([case.mixed + sign * own * partner * error for error in errors])


ERRORS = Derivation(
    id="5.3-errors",
    title="Of cubic mixed parts one estimate keeps λ_i²λ_j at the expert, the other λ_iλ_j² at the partner.",
    source="sharper form of the square of own and partner coefficients",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"\lambda_i \lambda_j m_1 - M = \lambda_i \lambda_j \big( p (1 - \lambda_i) - q \lambda_j \big), "
        r"\quad \lambda_i \lambda_j m_2 - M = \lambda_i \lambda_j \big( q (1 - \lambda_j) - p \lambda_i \big), \quad "
        r"\lambda_i \lambda_j \tfrac{m_1 + m_2}{2} - M = \lambda_i \lambda_j \big( p (\tfrac12 - \lambda_i) + q "
        r"(\tfrac12 - \lambda_j) \big)",
        left=_by_each,
        right=_missed,
        relation=Relation.EQUAL,
        cases=_CUBICS,
        sizes=(1,),
    ),
    mutants=(
        Mutant("exact", right=lambda case: _missed(case, 0.0)),
        Mutant("the sign of the error flipped", right=lambda case: _missed(case, -1.0)),
        Mutant("the estimates exchanged", left=lambda case: _by_each(case)[[1, 0, 2]]),
    ),
    proof=(
        "With M = kλ_iλ_j + pλ_i²λ_j + qλ_iλ_j² the estimates are m_1 = k + p and m_2 = k + q. At (1, 1) the first "
        "misses q, the second p and the mean half of p + q; at (½, ½) the mean is exact."
    ),
    code=("diagnostics.predict_merge",),
)


def _on_simplex(size: int) -> Any:
    from hypothesis import strategies as st

    def placed(case: Surface, own: float) -> Surface:
        return Surface(case.coefficients, own, 1 - own)

    return st.builds(placed, _CUBICS(size), st.integers(-8, 24).map(lambda n: n / 16))


_SIMPLEX = Condition("simplex", "λ_i + λ_j = 1", lambda case: abs(case.own + case.partner - 1))
WEIGHTED = Derivation(
    id="5.3-simplex",
    title="Where λ_i + λ_j = 1 the mean of both estimates, weighted by λ_i and λ_j, is exact for all cubic outputs.",
    source="sharper form of the square of own and partner coefficients",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"\lambda_i + \lambda_j = 1 \;\Rightarrow\; M(\lambda_i, \lambda_j) = \lambda_i \lambda_j "
        r"(\lambda_i m_1 + \lambda_j m_2)",
        left=lambda case: _estimated(case, case.own, case.partner),
        right=lambda case: case.mixed,
        relation=Relation.EQUAL,
        cases=_on_simplex,
        assumptions=(_SIMPLEX,),
        sizes=(1,),
    ),
    mutants=(
        Mutant("off the simplex", without="simplex", cases=_CUBICS),
        Mutant("the weights exchanged", left=lambda case: _estimated(case, case.partner, case.own)),
        Mutant("equal weights", left=lambda case: _estimated(case, 0.5, 0.5)),
    ),
    proof=(
        "λ_i(k + p) + λ_j(k + q) = k + pλ_i + qλ_j where the weights add up to one, and λ_iλ_j times that is M. With "
        "both rays by cubic Hermite interpolation every output of degree three is then exact on the whole segment "
        "between two experts, from values and first derivatives at θ_0, θ_i and θ_j alone. No other weights do: k asks "
        "for a sum of one, p for λ_i and q for λ_j."
    ),
    code=("diagnostics.predict_merge",),
)
DERIVATIONS = (PARTNERS, MIXED, ERRORS, WEIGHTED)
