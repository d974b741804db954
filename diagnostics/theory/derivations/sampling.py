"""(1.14) Squared norms of mean gradients from a sample: too large by tr(Cov)/n, and unbiased from disjoint folds."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import numpy as np
import torch

from diagnostics.exact.relations import Relation
from diagnostics.exact.rounding import UNIT, Rounded, values
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant
from diagnostics.theory.fold_gram import FoldGram

__all__ = ["DERIVATIONS"]

_SOURCE = "Lee 2026, as measured from data"
# Draws of the samples that are all written out.
_FOLDED = 4


def _population(size: int) -> Any:
    """Gradients that examples can have, their probabilities, and n."""
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import arrays, coefficients

    return st.tuples(arrays(2, size), coefficients(2, "simplex"), st.integers(1, 3))


def _second_moment(case: Any) -> Any:
    """E‖mean of n draws‖², over every sample."""
    rows, shares, count = case
    total = 0.0 * shares[0]
    for sample in product(range(len(rows)), repeat=count):
        mean = sum((rows[i] for i in sample), start=0.0) / count
        weight = 1.0
        for i in sample:
            weight = weight * shares[i]
        total = total + weight * (mean**2).sum()
    return total


def _square(case: Any) -> Any:
    """‖E g‖²."""
    return ((case[1] @ case[0]) ** 2).sum()


def _trace(case: Any) -> Any:
    """Tr Cov(g)."""
    rows, shares, _ = case
    return shares @ (rows**2).sum(1) - _square(case)


def _data_sets(size: int) -> Any:
    """Gradients of all N examples, and n."""
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import arrays

    def of(count: int) -> Any:
        return st.tuples(arrays(count, size), st.integers(1, count))

    return st.integers(2, 4).flatmap(of)


def _without_replacement(case: Any) -> Any:
    """E‖mean‖² of n different examples, over every choice of them."""
    rows, count = case
    means = [sum((rows[i] for i in chosen), start=0.0) / count for chosen in combinations(range(len(rows)), count)]
    return sum(((mean**2).sum() for mean in means), start=0.0) / len(means)


def _over_all(case: Any) -> Any:
    """‖mean over the data set‖²."""
    rows, _ = case
    return ((rows.sum(0) / len(rows)) ** 2).sum()


def _share(case: Any) -> Any:
    """Tr Cov over the data set, divided by n."""
    rows, count = case
    return ((rows - rows.sum(0) / len(rows)) ** 2).sum() / len(rows) / count


def _finite(case: Any, below: int = 1) -> Any:
    size, count = len(case[0]), case[1]
    return _over_all(case) + _share(case) * ((size - count) / (size - below))


def _if_independent(case: Any) -> Any:
    return _over_all(case) + _share(case)


BIAS = Derivation(
    id="1.14",
    title="The squared norm of a mean of n independent gradients is too large by tr(Cov)/n on average.",
    source=_SOURCE,
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\mathbb{E} \Big\Vert \frac1n \sum_a g_a \Big\Vert^2 = \Vert \mathbb{E} g \Vert^2 + "
        r"\frac{\mathrm{tr}\,\mathrm{Cov}(g)}{n}",
        left=_second_moment,
        right=lambda case: _square(case) + _trace(case) / case[2],
        relation=Relation.EQUAL,
        cases=_population,
        sizes=(1, 2),
    ),
    mutants=(
        Mutant("no bias at all", right=_square),
        Mutant("n + 1 for n", right=lambda case: _square(case) + _trace(case) / (case[2] + 1)),
        Mutant("draws without replacement", left=_without_replacement, right=_if_independent, cases=_data_sets),
    ),
    proof=(
        "Cross terms of independent draws are ‖E g‖², the n equal ones E‖g‖². Draws without replacement from a data "
        "set are not independent, and their bias against the mean over that data set is smaller (1.14-finite)."
    ),
    code=("diagnostics.gradient_alignment",),
)


FINITE = Derivation(
    id="1.14-finite",
    title="Against the mean over a data set of N, n examples without replacement have (N − n)/(N − 1) of that bias.",
    source="survey sampling, for Lee 2026, as measured from data",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"\mathbb{E} \Big\Vert \frac1n \sum_a g_a \Big\Vert^2 = \Vert \bar g \Vert^2 + \frac{N - n}{N - 1} "
        r"\cdot \frac{\mathrm{tr}\,\mathrm{Cov}(g)}{n}, \quad \bar g = \frac1N \sum_{a=1}^N g_a",
        left=_without_replacement,
        right=_finite,
        relation=Relation.EQUAL,
        cases=_data_sets,
        sizes=(1, 2),
    ),
    mutants=(
        Mutant("as for independent draws", right=_if_independent),
        Mutant("N for N − 1", right=lambda case: _finite(case, below=0)),
        Mutant("no bias at all", right=_over_all),
    ),
    proof=(
        "Two different examples have E⟨g_a, g_b⟩ = (N²‖ḡ‖² − Σ‖g_a‖²)/(N(N − 1)) = ‖ḡ‖² − tr(Cov)/(N − 1), and one "
        "with itself ‖ḡ‖² + tr(Cov). Of the n² pairs n are of one with itself: the mean over them is ‖ḡ‖² + tr(Cov)/n "
        "· (1 − (n − 1)/(N − 1)). With n = N nothing is left, so an error measured on all the data has no bias against "
        "these data, and all of tr(Cov)/N against the distribution that they come from."
    ),
    code=("diagnostics.gradient_alignment",),
)
# How four draws are dealt into folds.
_DEALT = {1: (1, 3), 2: (2, 2), 3: (1, 1, 2)}


def _folded(case: Any) -> Any:
    """E of the package's unbiased square, over every sample of four draws in two or three folds."""
    rows, shares, dealt = values(case)
    sizes = _DEALT[dealt]
    weights = torch.tensor(sizes, dtype=torch.float64).reshape(-1, 1) / _FOLDED
    total = 0.0
    for sample in product(range(len(rows)), repeat=_FOLDED):
        drawn = torch.tensor(rows[list(sample)])
        folds = torch.stack([part.mean(0) for part in drawn.split(sizes)])
        products = (folds @ folds.T).reshape(len(sizes), 1, len(sizes), 1)
        plugin = drawn.mean(0) @ drawn.mean(0)
        gram = FoldGram(("g",), products, weights, plugin.reshape(1, 1))
        total += float(np.prod(shares[list(sample)])) * float(gram.unbiased)
    # Every square is below the largest norm's, and is made of some tens of operations.
    return Rounded(total, 64 * UNIT * float((rows**2).sum(1).max()))


FOLDS = Derivation(
    id="1.14-folds",
    title="Products of means over disjoint folds estimate the squared norm without bias.",
    source=_SOURCE,
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\mathbb{E} \langle \bar g_A, \bar g_B \rangle = \Vert \mathbb{E} g \Vert^2, \quad A \cap B = "
        r"\emptyset",
        left=_folded,
        right=_square,
        relation=Relation.EQUAL,
        cases=_population,
        sizes=(1, 2),
    ),
    mutants=(
        Mutant("the plug-in value", right=lambda case: _square(case) + _trace(case) / _FOLDED),
        Mutant("the sign of the correction flipped", right=lambda case: _square(case) - _trace(case) / _FOLDED),
    ),
    proof="Means over disjoint folds of independent draws are independent, and each has the expectation E g.",
    code=("diagnostics.theory.fold_gram.FoldGram",),
)
DERIVATIONS = (BIAS, FINITE, FOLDS)
