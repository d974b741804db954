"""(2.15) What bases save, and how many vectors have to be held while they are made."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np

from diagnostics.exact.relations import Relation
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant

__all__ = ["DERIVATIONS"]

_SOURCE = "Zeng 2025, table 1"


def _partitions(size: int) -> Any:
    """A cluster for each vector, and the numbers in a vector."""
    from hypothesis import strategies as st

    labels = st.lists(st.integers(0, 2), min_size=1, max_size=3 * size)
    return st.tuples(labels, st.integers(1, 4))


def _numbers_saved(case: Any) -> float:
    """The share of all numbers that need not be stored, counted one by one."""
    labels, length = case
    before = sum(1 for _ in labels for _ in range(length))
    after = sum(1 for _ in set(labels) for _ in range(length))
    return (before - after) / before


def _share_saved(case: Any) -> float:
    """1 − m/T."""
    labels, _ = case
    return 1 - len(set(labels)) / len(labels)


SAVED = Derivation(
    id="2.15",
    title="m bases in the place of T vectors save the share 1 − m/T of the memory.",
    source=_SOURCE,
    kind=Kind.DEFINITION,
    claim=Claim(
        statement=r"\frac{T d - m d}{T d} = 1 - \frac{m}{T}",
        left=_numbers_saved,
        right=_share_saved,
        relation=Relation.EQUAL,
        cases=_partitions,
        # Two roundings of numbers that are at most one.
        tolerance=lambda case: 2.0**-51,
    ),
    mutants=(
        Mutant("the share that is kept", right=lambda case: 1 - _share_saved(case)),
        Mutant("one basis more", right=lambda case: _share_saved(case) - 1 / len(case[0])),
        Mutant("T/m for m/T", right=lambda case: 1 - len(case[0]) / len(set(case[0]))),
    ),
    proof="Vectors have one length. 70 vectors to 3 bases save 67/70 = 95.71 %.",
    code=("diagnostics.task_vector_bases",),
)


def _sizes(size: int) -> Any:
    from hypothesis import strategies as st

    return st.lists(st.integers(1, 9), min_size=1, max_size=size)


def _held(order: Any) -> int:
    """Most vectors in memory while clusters are merged in an order and their bases kept, and then the bases."""
    most = 0
    for done, members in enumerate(order):
        most = max(most, done + members)
    return max(most, len(order))


def _put_aside(sizes: list[int]) -> float:
    """Vectors held at a time where finished bases are not: those of one cluster, or the bases."""
    return float(max(*sizes, len(sizes)))


def _fewest(sizes: list[int]) -> float:
    return float(min(_held(order) for order in permutations(sizes)))


def _largest_first(sizes: list[int], more: int = 0) -> float:
    """Max |c| + c − 1 over the clusters by size."""
    return float(max(members + place + more for place, members in enumerate(sorted(sizes, reverse=True))))


def _smallest_first(sizes: list[int]) -> float:
    return float(_held(sorted(sizes)))


KEPT = Derivation(
    id="2.15-kept",
    title="Where finished bases stay in memory, largest cluster first holds the fewest: max_c (|c| + c − 1).",
    source=f"sharper reading of {_SOURCE}",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"\min_{\text{order}} \max \Big( \max_c \big( |C_c| + c - 1 \big), m \Big) = \max_c \big( |C_{(c)}| "
        r"+ c - 1 \big), \quad |C_{(1)}| \ge |C_{(2)}| \ge \dots",
        left=_fewest,
        right=_largest_first,
        relation=Relation.EQUAL,
        cases=_sizes,
        sizes=(1, 2, 3, 5),
    ),
    mutants=(
        Mutant("as published, with the finished bases put aside", right=_put_aside),
        Mutant("smallest cluster first", right=_smallest_first),
        Mutant("one basis more", right=lambda sizes: _largest_first(sizes, 1)),
    ),
    proof=(
        "Let the larger of two neighbours come second. Exchanged, its size plus place falls by one, and that of the "
        "smaller one is at most what the larger one's was: no order is better than largest first. The last place has "
        "|c| + m − 1 ≥ m. The published max(max|c|, m) counts finished bases as put aside, on disk: two clusters of "
        "two need 2 vectors, and 3 where the first basis stays."
    ),
    code=("diagnostics.task_vector_bases",),
)


def _lower_bound(sizes: list[int]) -> Any:
    return np.array([_put_aside(sizes), _fewest(sizes)])


def _upper_bound(sizes: list[int], slack: int = -1) -> Any:
    return np.array([_fewest(sizes), float(max(sizes) + len(sizes) + slack)])


BOUNDS = Derivation(
    id="2.15-between",
    title="Finished bases that stay cost at most m − 1 vectors beyond the largest cluster.",
    source=f"sharper reading of {_SOURCE}",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"\max \big( \max_c |C_c|, m \big) \le \max_c \big( |C_{(c)}| + c - 1 \big) \le \max_c |C_c| + m - 1",
        left=_lower_bound,
        right=_upper_bound,
        relation=Relation.AT_MOST,
        cases=_sizes,
        sizes=(1, 2, 3, 5),
    ),
    mutants=(
        Mutant("m − 2 vectors", right=lambda sizes: _upper_bound(sizes, -2)),
        Mutant("as many as are put aside", right=lambda sizes: _lower_bound(sizes)[[0, 0]]),
    ),
    proof="Each place adds at most m − 1 to a size; equal sizes attain it.",
    code=("diagnostics.task_vector_bases",),
)
SEARCH = Derivation(
    id="2.15-search",
    title="A search for coefficients holds max(largest cluster, m) vectors at a time, between √T and T of them.",
    source=_SOURCE,
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\sqrt{T} \le \max(\max_c |C_c|, m) \le T",
        left=lambda sizes: np.array([np.sqrt(sum(sizes)), _put_aside(sizes)]),
        right=lambda sizes: np.array([_put_aside(sizes), float(sum(sizes))]),
        relation=Relation.AT_MOST,
        cases=_sizes,
        # One root of a number that is exact.
        tolerance=lambda sizes: 2.0**-52 * sum(sizes),
        sizes=(1, 2, 3, 5),
    ),
    mutants=(
        Mutant("the number of bases alone", right=lambda sizes: np.array([float(len(sizes)), float(sum(sizes))])),
        Mutant("the largest cluster alone", right=lambda sizes: np.array([float(max(sizes)), float(sum(sizes))])),
    ),
    proof="m clusters of at most s vectors hold T ≤ sm ≤ max(s, m)².",
    code=("diagnostics.search_coefficients",),
)
DERIVATIONS = (SAVED, SEARCH, KEPT, BOUNDS)
