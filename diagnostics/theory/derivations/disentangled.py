"""(4.1) Weight disentanglement: the error ξ, and when it vanishes in the linear regime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diagnostics.exact.relations import Relation
from diagnostics.exact.rounding import values
from diagnostics.theory.derivations.derivation import Claim, Condition, Derivation, Kind, Mutant

__all__ = ["DERIVATIONS"]


@dataclass(frozen=True)
class _Linear:
    """Logits on the inputs of two tasks, linear in the coefficients: f(x) + λ_1 J(x)τ_1 + λ_2 J(x)τ_2.

    Attributes:
        base: f(x; θ0), [2, n, classes]; the first axis says whose inputs.
        moves: J(x)τ_1 and J(x)τ_2 there, [2, 2, n, classes]; the first axis says whose vector.
        coefficients: λ_1, λ_2.
    """

    base: Any
    moves: Any
    coefficients: Any

    def merged(self, task: int) -> Any:
        """Logits of the merge on the inputs of one task."""
        return self.base[task] + self.coefficients[0] * self.moves[0][task] + self.coefficients[1] * self.moves[1][task]

    def own(self, task: int) -> Any:
        """Logits of the task's own vector alone."""
        return self.base[task] + self.coefficients[task] * self.moves[task][task]


def _cases(examples: int) -> Any:
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import arrays, coefficients

    base, moves = arrays(2, examples, 2), arrays(2, 2, examples, 2)
    return st.builds(_Linear, base, moves, coefficients(2))


def _alone(examples: int) -> Any:
    """Cases in which a vector leaves the other task's logits as they are."""
    return _cases(examples).map(lambda case: _Linear(case.base, _diagonal(case.moves), case.coefficients))


def _diagonal(moves: Any) -> Any:
    return np.stack([np.stack([moves[0][0], 0 * moves[0][1]]), np.stack([0 * moves[1][0], moves[1][1]])])


def _disagreement(case: _Linear) -> float:
    """ξ: the share of each task's inputs whose prediction the merge changes, added over the tasks."""
    plain = values(case)
    return float(sum(np.mean(plain.own(t).argmax(-1) != plain.merged(t).argmax(-1)) for t in (0, 1)))


def _between(case: _Linear) -> Any:
    return np.array([0.0, _disagreement(case)])


def _without_coefficients(examples: int) -> Any:
    return _cases(examples).map(lambda case: _Linear(case.base, case.moves, 0 * case.coefficients))


RANGE = Derivation(
    id="4.1",
    title="The disentanglement error of two tasks lies between 0 and 2.",
    source="Ortiz-Jimenez 2023, as used in Liu 2026",
    kind=Kind.DEFINITION,
    claim=Claim(
        statement=r"0 \le \xi(\lambda_1, \lambda_2) = \sum_{t} \mathbb{E}_{x \sim \mu_t} \big[ \arg\max f(x; \theta_0 "
        r"+ \lambda_t \tau_t) \ne \arg\max f(x; \theta_0 + \lambda_1 \tau_1 + \lambda_2 \tau_2) \big] \le 2",
        left=_between,
        right=lambda case: np.array([_disagreement(case), 2.0]),
        relation=Relation.AT_MOST,
        cases=_cases,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("at most one", right=lambda case: np.array([_disagreement(case), 1.0])),
        Mutant("never zero", left=lambda case: np.array([0.5, _disagreement(case)])),
    ),
    code=("diagnostics.disentanglement_error",),
)
ORIGIN = Derivation(
    id="4.1-origin",
    title="Without coefficients nothing is entangled: ξ(0, 0) = 0.",
    source="Ortiz-Jimenez 2023, as used in Liu 2026",
    kind=Kind.DEFINITION,
    claim=Claim(
        statement=r"\xi(0, 0) = 0",
        left=_disagreement,
        right=lambda case: 0.0,
        relation=Relation.EQUAL,
        cases=_without_coefficients,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("at any coefficients", cases=_cases),
        Mutant("against the other task's vector alone", cases=lambda n: _cases(n).map(_second_dropped)),
    ),
    code=("diagnostics.disentanglement_error",),
)


def _second_dropped(case: _Linear) -> _Linear:
    return _Linear(case.base, case.moves, case.coefficients * np.array([1.0, 0.0]))


def _changes(case: _Linear) -> Any:
    """|f(x; merge) − f(x; own vector)| on each task's inputs."""
    return np.stack([abs(case.merged(t) - case.own(t)) for t in (0, 1)])


def _products(case: _Linear) -> Any:
    """|λ_j| |J(x)τ_j| for x of the other task."""
    return np.stack([abs(case.coefficients[1 - t]) * abs(case.moves[1 - t][t]) for t in (0, 1)])


_UNTOUCHED = Condition(
    "untouched",
    "τ_jᵀJ(x) = 0 for every x of the other task",
    lambda case: max(abs(case.moves[1 - t][t]).max() for t in (0, 1)),
)
NTK = Derivation(
    id="4.1-ntk",
    title="In the linear regime outputs are disentangled if and only if no vector moves the other task's outputs.",
    source="Liu 2026, lemma for the NTK regime",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"| f(x; \theta_0 + \lambda_1 \tau_1 + \lambda_2 \tau_2) - f(x; \theta_0 + \lambda_t \tau_t) | = "
        r"|\lambda_j| \, | \tau_j^\top J(x) |, \quad x \sim \mu_t,\; j \ne t",
        left=_changes,
        right=_products,
        relation=Relation.EQUAL,
        cases=_cases,
        sizes=(1, 2),
    ),
    mutants=(
        Mutant("a vector of its own inputs", right=lambda case: _own_products(case)),
        Mutant(
            "the coefficient forgotten", right=lambda c: _products(_Linear(c.base, c.moves, 0 * c.coefficients + 1))
        ),
    ),
    proof=(
        "Outputs are linear in the coefficients, so the difference is λ_j τ_jᵀJ(x). For predictions only one direction "
        "is left: a vector that adds the same number to every logit changes no prediction and no probability, though "
        "τ_jᵀJ(x) is not zero. So ξ can be zero at all coefficients without it."
    ),
    code=("diagnostics.disentanglement_error",),
)
PREDICTIONS = Derivation(
    id="4.1-predictions",
    title="If no vector moves the other task's outputs, the disentanglement error is zero; the converse fails.",
    source="Liu 2026, lemma for the NTK regime",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\tau_j^\top J(x) = 0 \text{ for all } x \sim \mu_t,\, t \ne j \;\Rightarrow\; \xi(\lambda_1, "
        r"\lambda_2) = 0",
        left=_disagreement,
        right=lambda case: 0.0,
        relation=Relation.EQUAL,
        cases=_alone,
        assumptions=(_UNTOUCHED,),
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("a vector that moves the other task's outputs", without="untouched", cases=_cases),
        Mutant("the base for the task's own vector", left=lambda case: _against_base(case)),
    ),
    proof=(
        "Equal outputs have equal predictions. The converse fails for predictions, as ξ measures them: with two "
        "classes, all logits 0 at θ0 and vectors that add 1 to both logits everywhere, ξ = 0 at all coefficients and "
        "J(x)τ_j = (1, 1). For outputs the lemma's equivalence holds (4.1-ntk), for distributions that of its centred "
        "form (4.1-centred)."
    ),
    code=("diagnostics.disentanglement_error",),
)


def _against_base(case: _Linear) -> float:
    plain = values(case)
    return float(sum(np.mean(plain.base[t].argmax(-1) != plain.merged(t).argmax(-1)) for t in (0, 1)))


def _own_products(case: _Linear) -> Any:
    return np.stack([abs(case.coefficients[t]) * abs(case.moves[t][t]) for t in (0, 1)])


DERIVATIONS = (RANGE, ORIGIN, NTK, PREDICTIONS)
