"""(3.1)–(3.3) Which coefficients keep both tasks, forget one or reach a third, where margins are linear.

The statements are theorems about a trained one-layer transformer, which cannot be written down here. What is checked is
their reading in a model of two margins: the first task's is 1 + λα and the second's α + λ, a task succeeds where its
margin is at least one, and is forgotten where it is not positive.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.optimize import linprog

from diagnostics.exact.relations import Relation
from diagnostics.exact.rounding import values
from diagnostics.results import Verdict
from diagnostics.theory.coefficient_conditions import coefficient_region
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant
from diagnostics.theory.derivations.margins import margins, pairs

__all__ = ["DERIVATIONS"]

_MODEL = "in the model of linear margins"


def _judged(case: Any) -> float:
    """One where the package says that λ keeps both tasks."""
    alpha, weight = values(case)
    return float(coefficient_region(alpha).multi_task.judge(weight) is Verdict.SUPPORTED)  # type: ignore[union-attr]


def _both(case: Any, needed: float = 1.0) -> float:
    return float(np.min(margins(case)) >= needed)


MULTI_TASK = Derivation(
    id="3.1",
    title="Both tasks succeed for λ ≥ 1 − α where α ≥ 0, and for no λ where α < 0.",
    source=f"Li 2025, theorem on multi-task learning, {_MODEL}",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\min(1 + \lambda\alpha,\; \alpha + \lambda) \ge 1 \iff \alpha \ge 0 \text{ and } \lambda \ge 1 - "
        r"\alpha",
        left=_judged,
        right=_both,
        relation=Relation.EQUAL,
        cases=pairs,
    ),
    mutants=(
        Mutant("λ ≥ 1 + α", left=lambda case: _judged((-case[0], case[1]))),
        Mutant("the first task's margin forgotten", right=lambda case: float(sum(values(case)) >= 1)),
        Mutant("success as a margin above zero", right=lambda case: _both(case, 1e-9)),
    ),
    proof=(
        "1 + λα ≥ 1 asks for λα ≥ 0 and α + λ ≥ 1 for λ ≥ 1 − α. For α > 0 the second implies the first; for α < 0 the "
        "first asks for λ ≤ 0 and the second for λ ≥ 1 − α > 1. Mind what success means: with margins above zero, "
        "which is all that accuracy asks for, α = −½ and λ = 1 keep both tasks, each with a margin of ½. So a "
        "contradictory pair can keep its accuracy and not its confidence."
    ),
    code=("diagnostics.coefficient_region",),
)


def _forgets(case: Any) -> float:
    first, second = margins(case)
    return float(first >= 1 and second <= 0)


def _certain(case: Any) -> float:
    return float(_unlearning(case) is Verdict.SUPPORTED)


def _possible(case: Any) -> float:
    return float(_unlearning(case) is not Verdict.REFUTED)


def _unlearning(case: Any) -> Verdict:
    alpha, weight = values(case)
    return coefficient_region(alpha).unlearning.judge(weight)  # type: ignore[union-attr]


UNLEARNING = Derivation(
    id="3.2",
    title="What the region calls certain keeps the first task and forgets the second, and what does so is possible.",
    source=f"Li 2025, theorem on unlearning, {_MODEL}",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\text{certain} \Rightarrow 1 + \lambda\alpha \ge 1,\; \alpha + \lambda \le 0 \Rightarrow "
        r"\text{possible}",
        left=lambda case: np.array([_certain(case), _forgets(case)]),
        right=lambda case: np.array([_forgets(case), _possible(case)]),
        relation=Relation.AT_MOST,
        cases=pairs,
    ),
    mutants=(
        Mutant("possible taken for certain", left=lambda case: np.array([_possible(case), _forgets(case)])),
        Mutant("the first task may be lost too", right=lambda case: np.array([_lost(case), _lost(case)])),
    ),
    proof=(
        "For α = 0 both conditions say λ ≤ 0. For α < 0 they say λ ≤ 0 as well; the paper's lower end −Θ(α⁻²) and its "
        "upper end above zero come from what linear margins leave out, so only λ = 0 is certain there. For α > 0 the "
        "first asks for λ ≥ 0 and the second for λ ≤ −α: none."
    ),
    code=("diagnostics.coefficient_region",),
)


def _lost(case: Any) -> float:
    """The first task's margin below one and the second forgotten."""
    first, second = margins(case)
    return float(first < 1 and second <= 0)


def _patterns(size: int) -> Any:
    from hypothesis import strategies as st

    # Eighths: patterns that float64 cannot tell from no pattern have no finite coefficients either.
    return st.lists(st.integers(-16, 16).map(lambda n: n / 8), min_size=size, max_size=size).map(np.array)


def _reach(gammas: Any) -> float:
    found = coefficient_region(gammas=list(values(gammas))).out_of_distribution
    return found.reach if found is not None else math.nan


def _programme(gammas: Any, sums: int = 2) -> float:
    """Least t with |λ_i| ≤ t, Σ λ_i γ_i ≥ 1 and Σ λ_i γ_i² ≥ 1, by a linear programme."""
    gammas = values(gammas)
    count = len(gammas)
    bound = np.hstack([np.vstack([np.eye(count), -np.eye(count)]), -np.ones((2 * count, 1))])
    rows = np.vstack([bound, *(np.append(-(gammas**power), 0.0)[None] for power in range(1, sums + 1))])
    right = np.append(np.zeros(2 * count), -np.ones(sums))
    found = linprog(np.append(np.zeros(count), 1.0), rows, right, bounds=[(None, None)] * count + [(0, None)])
    return float(found.fun) if found.status == 0 else math.inf


REACH = Derivation(
    id="3.3",
    title="Some |λ_i| must reach the least bound for which both sums of a target's pattern can be met.",
    source="Li 2025, theorem on out-of-distribution generalisation",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\min_\lambda \Big\{ \max_i |\lambda_i| : \sum_i \lambda_i \gamma_i \ge 1,\; \sum_i \lambda_i "
        r"\gamma_i^2 \ge 1 \Big\} = \Big( \min_{0 \le w \le 1} \Vert w \gamma + (1 - w) \gamma^2 \Vert_1 \Big)^{-1}",
        left=_reach,
        right=_programme,
        relation=Relation.EQUAL,
        cases=_patterns,
        # A vertex of the programme is solved for in float64.
        tolerance=lambda gammas: 1e-9 * min(_reach(gammas), 1e12),
    ),
    mutants=(
        Mutant("the sum of squares forgotten", right=lambda gammas: _programme(gammas, 1)),
        Mutant("1/Σ|γ_i|", left=lambda gammas: _inverse(np.sum(abs(values(gammas))))),
    ),
    proof=(
        "Duality of linear programming; the norm is convex and piecewise linear in w, so its least value is at an end "
        "or where an entry changes sign. The condition that some γ_i ≠ 0 follows from either sum, and is not enough: a "
        "single negative γ asks for λ < 0 in the first sum and λ > 0 in the second."
    ),
    code=("diagnostics.coefficient_region",),
)


def _inverse(total: float) -> float:
    return 1 / total if total > 0 else math.inf


DERIVATIONS = (MULTI_TASK, UNLEARNING, REACH)
