"""(2.4) How far a merge is from an expert, by coefficients, the largest norm and the largest cosine alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from diagnostics.exact.merge import Merge
from diagnostics.exact.relations import Relation
from diagnostics.theory.derivations.derivation import Claim, Condition, Derivation, Kind, Mutant
from diagnostics.theory.derivations.ways import weights
from diagnostics.theory.loss_gap import spread_factor

__all__ = ["DERIVATIONS"]

_SOURCE = "Zeng 2025, proof of the theorem on addition"


def _any(dimension: int) -> Any:
    from diagnostics.testing.tasks import merges

    return merges(dimension, kind="any", curving="constant") | merges(dimension, curving="constant")


def _distance(merge: Merge) -> Any:
    return (merge.way**2).sum()


def _spread(merge: Merge) -> Any:
    return merge.C * spread_factor(weights(merge), merge.epsilon)


def _single(merge: Merge) -> Any:
    """Each pair counted once instead of twice."""
    return merge.C * spread_factor(weights(merge), merge.epsilon / 2)


DISTANCE = Derivation(
    id="2.4",
    title="A merge is at most C Q from an expert in squared distance, with any coefficients.",
    source=_SOURCE,
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\Vert \theta^* - \theta_k \Vert^2 \le C \Big[ \sum_j t_j^2 + 2 \varepsilon \sum_{i<j} |t_i t_j| "
        r"\Big], \quad t_j = \alpha_j - [j = k]",
        left=_distance,
        right=_spread,
        relation=Relation.AT_MOST,
        cases=_any,
    ),
    mutants=(
        Mutant("each pair counted once", right=_single),
        Mutant(
            "the largest norm not squared", right=lambda merge: _spread(merge) * np.sqrt(merge.C) / _nonzero(merge.C)
        ),
        Mutant("the mean of the squared norms for the largest", right=lambda m: _spread(m) * _mean(m) / _nonzero(m.C)),
    ),
    code=("diagnostics.theory.loss_gap.spread_factor",),
)


def _nonzero(x: Any) -> Any:
    return x if x > 0 else 1.0


def _mean(merge: Merge) -> Any:
    return merge.squared_norms.sum() / len(merge.squared_norms)


def _drawn(count: int, kind: Any) -> Any:
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import coefficients, numbers

    return st.tuples(coefficients(count + 1, kind), numbers(0, 1))


def _simplex(count: int) -> Any:
    return _drawn(count, "simplex")


def _anything(count: int) -> Any:
    return _drawn(count, "any")


def _moved(case: Any) -> Any:
    """t_j = α_j − [j = 0]."""
    return np.stack([alpha - (j == 0) for j, alpha in enumerate(case[0])])


def _factor(case: Any) -> Any:
    return spread_factor(_moved(case), case[1])


def _closed(case: Any) -> Any:
    alphas, epsilon = case
    return (1 - epsilon) * ((alphas**2).sum() - 2 * alphas[0] + 1) + 4 * epsilon * (alphas[0] - 1) ** 2


def _closed_with_two(case: Any) -> Any:
    alphas, epsilon = case
    return _closed(case) - 2 * epsilon * (alphas[0] - 1) ** 2


_ON_SIMPLEX = Condition(
    "simplex",
    "(A3) coefficients are not negative and add up to one",
    lambda case: max(abs(sum(case[0]) - 1), -min(case[0]), 0.0),
)

CLOSED = Derivation(
    id="2.4-closed",
    title="On the simplex Q is (1 − ε)(Σα² − 2α_k + 1) + 4ε(α_k − 1)².",
    source=_SOURCE,
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\sum_j t_j^2 + 2 \varepsilon \sum_{i<j} |t_i t_j| = (1 - \varepsilon) \Big( \sum_j \alpha_j^2 - 2 "
        r"\alpha_k + 1 \Big) + 4 \varepsilon (\alpha_k - 1)^2",
        left=_factor,
        right=_closed,
        relation=Relation.EQUAL,
        cases=_simplex,
        assumptions=(_ON_SIMPLEX,),
    ),
    mutants=(
        Mutant("a 2 for the 4", right=_closed_with_two),
        Mutant("off the simplex", without="simplex", cases=_anything),
    ),
)
LIMIT = Derivation(
    id="2.4-limit",
    title="On the simplex Q is at most 2 + 2ε.",
    source=_SOURCE,
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"(1 - \varepsilon) \Big( \sum_j \alpha_j^2 - 2 \alpha_k + 1 \Big) + 4 \varepsilon (\alpha_k - 1)^2 "
        r"\le 2 + 2 \varepsilon",
        left=_closed,
        right=lambda case: 2 + 2 * case[1],
        relation=Relation.AT_MOST,
        cases=_simplex,
        assumptions=(_ON_SIMPLEX,),
    ),
    mutants=(
        Mutant("2 + ε", right=lambda case: 2 + case[1]),
        Mutant("off the simplex", without="simplex", cases=_anything),
    ),
)


def _worst_vectors(case: Any) -> Any:
    """‖Σ t_j τ_j‖² for unit vectors with cosine ε·sign(t_i t_j), from their Gram matrix."""
    t, epsilon = _moved(case), case[1]
    signs = np.where(t < 0, -1.0, 1.0)
    gram = np.outer(signs, signs) * (epsilon + (1 - epsilon) * np.eye(len(signs)))
    return t @ (gram @ t)


ATTAINED = Derivation(
    id="2.4-attained",
    title="For any coefficients there are task vectors with these C and ε whose merge is exactly C Q away.",
    source="sharper reading of Zeng 2025, proof of the theorem on addition",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"\max_{\Vert \tau_i \Vert^2 \le C,\; |\cos| \le \varepsilon} \Big\Vert \sum_j t_j \tau_j "
        r"\Big\Vert^2 = C \Big[ \sum_j t_j^2 + 2 \varepsilon \sum_{i<j} |t_i t_j| \Big]",
        left=_worst_vectors,
        right=_factor,
        relation=Relation.EQUAL,
        cases=_anything,
    ),
    mutants=(
        Mutant("each pair counted once", right=lambda case: _factor((case[0], case[1] / 2))),
        Mutant("all cosines ε", left=lambda case: _same_cosines(case)),
    ),
    proof=(
        "Take ‖τ_j‖² = C and cos(τ_i, τ_j) = ε s_i s_j with s_j the sign of t_j. Their Gram matrix is C S((1 − ε)I + "
        "ε11ᵀ)S, which is positive semidefinite, so there are such vectors, and tᵀGt = C[Σt_j² + 2εΣ|t_i t_j|]. So no "
        "bound on the distance from α, C and ε alone is better than (2.4); what is better needs the Gram matrix "
        "itself."
    ),
)


def _same_cosines(case: Any) -> Any:
    t, epsilon = _moved(case), case[1]
    return (1 - epsilon) * (t**2).sum() + epsilon * t.sum() ** 2


DERIVATIONS = (DISTANCE, CLOSED, LIMIT, ATTAINED)
