"""(3.1)–(3.3) Coefficients for margins of zero instead of one, and the conditions on a target written out.

The statements are theorems about a trained one-layer transformer, which cannot be written down here. Here two tasks
have unit patterns μ_1 and μ_2 with ⟨μ_1, μ_2⟩ = α, their task vectors are these patterns, and the margin of a task is
the inner product of its pattern with the merge μ_1 + λμ_2: 1 + λα for the first and α + λ for the second.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diagnostics.exact.relations import Relation
from diagnostics.exact.rounding import values
from diagnostics.results import Verdict
from diagnostics.theory.coefficient_conditions import TargetRegion, coefficient_region
from diagnostics.theory.derivations.derivation import Claim, Condition, Derivation, Kind, Mutant

__all__ = ["DERIVATIONS", "margins", "pairs"]

_MODEL = "in the model of linear margins"


def pairs(size: int) -> Any:
    """Draw α and λ in eighths, so that sums and products are exact.

    Args:
        size: Twice this is the largest |λ|.

    Returns:
        A strategy for pairs.
    """
    from hypothesis import strategies as st

    relations = st.integers(-8, 8).map(lambda eighths: eighths / 8)
    return st.tuples(relations, st.integers(-16 * size, 16 * size).map(lambda eighths: eighths / 8))


def margins(case: Any) -> Any:
    """Return both margins, from the Gram matrix of the patterns.

    Args:
        case: α and λ.

    Returns:
        1 + λα and α + λ.
    """
    alpha, weight = values(case)
    return np.array([[1.0, alpha], [alpha, 1.0]]) @ np.array([1.0, weight])


def _both_right(case: Any) -> float:
    return float(np.min(margins(case)) > 0)


def _between(case: Any, upper: bool = True) -> float:
    """−α < λ, and λ < 1/|α| where α < 0."""
    alpha, weight = values(case)
    return float(weight > -alpha and (alpha >= 0 or not upper or weight * -alpha < 1))


_UNIT = Condition("unit", "patterns have length one, so |α| ≤ 1", lambda case: abs(case[0]), lambda case: 1.0)
SIGNS = Derivation(
    id="3.1-signs",
    title="Both tasks are right, if not with a margin of one, for λ > −α and, where α < 0, λ < 1/|α|.",
    source=f"sharper reading of Li 2025, theorem on multi-task learning, {_MODEL}",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"\min(1 + \lambda\alpha,\; \alpha + \lambda) > 0 \iff \lambda > -\alpha \text{ and } (\alpha \ge 0 "
        r"\text{ or } \lambda < 1/|\alpha|)",
        left=_both_right,
        right=_between,
        relation=Relation.EQUAL,
        cases=pairs,
        assumptions=(_UNIT,),
    ),
    mutants=(
        Mutant("no upper end", right=lambda case: _between(case, upper=False)),
        Mutant("no λ for α < 0, as for margins of one", right=lambda case: _between(case) * (values(case[0]) >= 0)),
        Mutant("patterns of any length", without="unit", cases=lambda size: pairs(size).map(_doubled)),
    ),
    proof=(
        "α + λ > 0 is λ > −α. 1 + λα > 0 is λ < 1/|α| for α < 0; for α ≥ 0 it follows, as λα > −α² ≥ −1. For −1 < α < "
        "0 that leaves |α| < λ < 1/|α|: α = −½ and λ = 1 keep both tasks with margins of ½. (3.1) is about margins of "
        "one; an accuracy may survive where it says that no λ keeps both."
    ),
    code=("diagnostics.coefficient_region",),
)


def _doubled(case: Any) -> Any:
    """Patterns whose inner product is twice as large."""
    return 2 * case[0], case[1]


def _best_kept(case: Any) -> float:
    """The first task's largest margin among λ = −α, −α − ⅛, …, which forget the second."""
    alpha = values(case[0])
    tried = [-alpha - step / 8 for step in range(64)]
    return float(max(1 + weight * alpha for weight in tried if alpha + weight <= 0))


def _aligned(size: int) -> Any:
    return pairs(size).map(lambda case: (abs(case[0]), case[1]))


_ALIGNED = Condition("aligned", "the tasks are not contradictory, α ≥ 0", lambda case: -case[0] if case[0] < 0 else 0.0)
ALIGNED = Derivation(
    id="3.2-aligned",
    title="Forgetting an aligned task leaves the first a margin of 1 − α² at most: little is lost where α is small.",
    source=f"sharper reading of Li 2025, theorem on unlearning, {_MODEL}",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"\max_{\lambda:\, \alpha + \lambda \le 0} (1 + \lambda\alpha) = 1 - \alpha^2, \quad \alpha \ge 0",
        left=_best_kept,
        right=lambda case: 1 - case[0] ** 2,
        relation=Relation.EQUAL,
        cases=_aligned,
        assumptions=(_ALIGNED,),
    ),
    mutants=(
        Mutant("1 − α", right=lambda case: 1 - case[0]),
        Mutant("contradictory tasks too", without="aligned", cases=pairs),
    ),
    proof=(
        "1 + λα grows with λ for α > 0, so the best λ is the largest one allowed, −α. To keep a margin of 1 − κ needs "
        "α² ≤ κ, which is what 'only where α is small' says. For α < 0 the margin has no largest value: the lower end "
        "−Θ(α⁻²) of the statement comes from what linear margins leave out."
    ),
    code=("diagnostics.coefficient_region",),
)


def _targets(size: int) -> Any:
    """Γ, λ, c and β in quarters."""
    from hypothesis import strategies as st

    quarters = st.integers(-8, 8).map(lambda n: n / 4)
    # Several λ of one size, and of the signs of γ, so that both sums are often met.
    rows = st.lists(st.tuples(quarters, quarters, st.booleans()), min_size=size, max_size=size)
    small = st.integers(0, 4).map(lambda n: n / 4)
    return st.tuples(rows, small, small).map(_signed)


def _signed(drawn: Any) -> Any:
    rows, margin, beta = drawn
    gammas = np.array([gamma for gamma, _, _ in rows])
    weights = np.array([2 * abs(weight) if positive else weight for _, weight, positive in rows])
    return gammas, weights, margin, beta


def _region(case: Any) -> TargetRegion:
    gammas, _, margin, beta = values(case)
    found = coefficient_region(gammas=list(gammas), margin=margin, beta=beta).out_of_distribution
    assert found is not None  # γ is given
    return found


def _judged(case: Any) -> float:
    return float(_region(case).judge(list(values(case[1]))) is Verdict.SUPPORTED)


def _written_out(case: Any, form: str = "") -> float:
    """All four conditions, from orthonormal patterns e_i and a target x = Σ γ_i e_i + e_⊥."""
    gammas, weights, margin, beta = values(case)
    target = np.append(gammas, 1.0)
    merge = np.append(weights, 0.0)
    attention = np.diag(merge)
    linear, quadratic = target @ merge, target @ attention @ target
    enough = quadratic >= 1 + margin or form == "linear"
    small = bool((abs(weights) * beta <= margin).all()) or form == "large"
    return float(bool(gammas.any()) and linear >= 1 + margin and enough and small)


TARGET = Derivation(
    id="3.3-conditions",
    title="The region of a target is that of its four conditions, of which 'some γ_i ≠ 0' follows from the sums.",
    source="Li 2025, theorem on out-of-distribution generalisation",
    kind=Kind.DEFINITION,
    claim=Claim(
        statement=r"\exists i: \gamma_i \ne 0, \quad \sum_i \lambda_i \gamma_i \ge 1 + c, \quad \sum_i \lambda_i "
        r"\gamma_i^2 \ge 1 + c, \quad |\lambda_i| \beta \le c",
        left=_judged,
        right=_written_out,
        relation=Relation.EQUAL,
        cases=_targets,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("the sum of squares forgotten", right=lambda case: _written_out(case, "linear")),
        Mutant("coefficients of any size", right=lambda case: _written_out(case, "large")),
        Mutant("γ of the other sign", left=lambda case: _judged((-case[0], *case[1:]))),
    ),
    proof=(
        "The first sum is the target's inner product with the merge Σ λ_iμ_i, the second its quadratic form with Σ "
        "λ_iμ_iμ_iᵀ, for orthonormal patterns. With all γ_i = 0 both are 0, below 1 + c."
    ),
    code=("diagnostics.coefficient_region",),
)


def _one_value(size: int) -> Any:
    """Targets whose γ_i are zero or one negative number."""

    def flattened(case: Any) -> Any:
        gammas, weights, margin, beta = case
        return np.where(gammas > 0, 0.0, -1 - abs(gammas[0])), weights, margin, beta

    return _targets(size).map(flattened)


def _sums(case: Any) -> Any:
    gammas, weights, _, _ = case
    return np.stack([gammas @ weights, gammas**2 @ weights])


_SINGLE = Condition(
    "one negative value",
    "all γ_i that are not zero are one negative number",
    lambda case: float(len({gamma for gamma in values(case[0]).tolist() if gamma}) > 1 or bool((case[0] > 0).any())),
)
NEGATIVE = Derivation(
    id="3.3-negative",
    title="Where all γ_i that are not zero are one negative number, no λ meets both sums.",
    source="sharper reading of Li 2025, theorem on out-of-distribution generalisation",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"\gamma_i \in \{0, g\},\; g < 0 \;\Rightarrow\; \min \Big( \sum_i \lambda_i \gamma_i, \sum_i "
        r"\lambda_i \gamma_i^2 \Big) \le 0",
        left=lambda case: np.min(_sums(case)),
        right=lambda case: 0.0,
        relation=Relation.AT_MOST,
        cases=_one_value,
        assumptions=(_SINGLE,),
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("γ of any values", without="one negative value", cases=_targets),
        Mutant("either sum", left=lambda case: np.max(_sums(case))),
    ),
    proof=(
        "The second sum is g times the first. With any other γ there is a λ: one γ_i > 0 alone, and two different "
        "negative values because (γ_1, γ_2) and (γ_1², γ_2²) are linearly independent."
    ),
    code=("diagnostics.coefficient_region",),
)
DERIVATIONS = (SIGNS, ALIGNED, TARGET, NEGATIVE)
