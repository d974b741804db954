"""(1.14) Squared norms of mean gradients from a sample: too large by tr(Cov)/n, and unbiased from disjoint folds."""

from __future__ import annotations

from itertools import permutations, product
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


def _every_other(case: Any) -> Any:
    """E‖mean‖² of n draws without replacement from three examples, which are not independent."""
    rows, shares, count = case
    examples = np.stack([rows[0], rows[1], shares[0] * rows[0]])
    means = [sum((examples[i] for i in sample), start=0.0) / count for sample in permutations(range(3), count)]
    return sum((mean**2).sum() for mean in means) / len(means)


def _independent_bias(case: Any) -> Any:
    rows, shares, count = case
    examples = np.stack([rows[0], rows[1], shares[0] * rows[0]])
    thirds = 0 * examples[:, 0] + 1 / Rounded(3.0)
    return _square((examples, thirds, count)) + _trace((examples, thirds, count)) / count


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
        Mutant("draws without replacement", left=_every_other, right=_independent_bias),
    ),
    proof=(
        "Cross terms of independent draws are ‖E g‖², the n equal ones E‖g‖². Draws without replacement from a data "
        "set of N are not independent: the bias against the mean over that data set is (N − n)/(N − 1) times as large."
    ),
    code=("diagnostics.gradient_alignment",),
)


def _folded(case: Any) -> Any:
    """E of the package's unbiased square, over every sample of four draws in two folds."""
    rows, shares, _ = values(case)
    total = 0.0
    for sample in product(range(len(rows)), repeat=_FOLDED):
        drawn = torch.tensor(rows[list(sample)])
        folds = drawn.reshape(2, 2, -1).mean(1)
        products = (folds @ folds.T).reshape(2, 1, 2, 1)
        plugin = drawn.mean(0) @ drawn.mean(0)
        gram = FoldGram(("g",), products, torch.full((2, 1), 0.5, dtype=torch.float64), plugin.reshape(1, 1))
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
DERIVATIONS = (BIAS, FOLDS)
