"""(2.11) When a bound says nothing: above the loss of the best constant prediction."""

from __future__ import annotations

from typing import Any

import numpy as np

from diagnostics.exact.relations import Relation
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant

__all__ = ["DERIVATIONS"]


def _tables(size: int) -> Any:
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import arrays

    counts = st.lists(st.integers(1, 8), min_size=size + 1, max_size=size + 1)
    shares = counts.map(lambda n: np.array(n, dtype=np.float64) / sum(n))
    return st.tuples(shares, arrays(size + 1))


def _entropy(case: Any) -> Any:
    """Loss of the prediction that gives every class its share."""
    shares = case[0] / case[0].sum()
    return -(shares * np.log(shares)).sum()


def _constant(case: Any) -> Any:
    """Cross entropy of a constant prediction with these logits."""
    shares, logits = case[0] / case[0].sum(), case[1]
    return np.log(np.exp(logits).sum()) - (shares * logits).sum()


def _uniform(case: Any) -> Any:
    """Loss of the prediction that gives every class the same share."""
    return np.log(case[0].sum() * len(case[0]))


VACUOUS = Derivation(
    id="2.11",
    title="No constant prediction of classes loses less than the entropy of their shares.",
    source="Gibbs's inequality; which bounds are vacuous",
    kind=Kind.DEFINITION,
    claim=Claim(
        statement=r"-\sum_c p_c \log p_c \le -\sum_c p_c \log \mathrm{softmax}(z)_c \quad \text{for all } z",
        left=_entropy,
        right=_constant,
        relation=Relation.AT_MOST,
        cases=_tables,
    ),
    mutants=(
        Mutant("the logarithm of the number of classes", left=lambda case: _uniform(case)),
        Mutant("half of the logits' weight", right=lambda case: _constant((case[0], case[1])) / 2),
    ),
    code=("diagnostics.BoundReport.vacuous",),
)
DERIVATIONS = (VACUOUS,)
