"""(2.12)–(2.15) Groups of task vectors: how many, which way they point, what they add up to, what they cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from diagnostics.exact.relations import Relation
from diagnostics.exact.rounding import values
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant
from diagnostics.theory.eigengap import eigengap, laplacian

__all__ = ["DERIVATIONS"]

_SOURCE = "Zeng 2025, algorithm 1"
# A group: how many vectors, and their similarity to each other.
Blocks = list[tuple[int, float]]


def _blocks(size: int) -> Any:
    from hypothesis import strategies as st

    group = st.tuples(st.integers(1, size + 1), st.integers(1, 4).map(lambda quarters: quarters / 4))
    drawn = st.lists(group, min_size=2, max_size=4)
    return drawn.filter(lambda groups: sum(n for n, _ in groups) > max(2, len(groups)))


def _matrix(blocks: Blocks) -> torch.Tensor:
    return torch.block_diag(*(torch.full((n, n), w, dtype=torch.float64) for n, w in blocks))


def _read(reading: str) -> Any:
    """The number of groups by one of the package's readings."""
    return lambda blocks: float(getattr(eigengap(_matrix(values(blocks))), reading))


def _planted(blocks: Blocks) -> float:
    return float(len(blocks))


_RULE = Claim(
    statement=r"\arg\max_{1 < i \le T-1} \big( 1 - \lambda^{(i)} / \lambda^{(i+1)} \big) = k \text{ for } k \text{ "
    r"groups "
    r"of any sizes and similarities}",
    left=_read("relative"),
    right=_planted,
    relation=Relation.EQUAL,
    cases=_blocks,
    sizes=(1, 2, 3),
)
EIGENGAP = Derivation(
    id="2.12",
    title="The largest relative gap of the Laplacian's eigenvalues counts groups; the largest absolute gap may not.",
    source=_SOURCE,
    kind=Kind.CLAIM,
    claim=_RULE,
    mutants=(
        Mutant("one more", right=lambda blocks: _planted(blocks) + 1),
        Mutant("the absolute gap", left=_read("stated")),
    ),
    published=Claim(
        statement=r"\arg\max_{1 < i \le T-1} \big( \lambda^{(i+1)} - \lambda^{(i)} \big) = k",
        left=_read("stated"),
        right=_planted,
        relation=Relation.EQUAL,
        cases=_blocks,
        sizes=(1, 2, 3),
    ),
    correction=(
        "A group of s vectors with similarity w has the eigenvalues 0 and, s − 1 times, s·w, so groups that differ in "
        "size or in similarity open gaps of their own above the one that counts groups. The rule as published is right "
        "for groups that are alike. The gap as a share of the upper eigenvalue is one exactly at k, whatever the sizes "
        "and similarities. Neither can say that there is one group, or that all are alone."
    ),
    counterexample=[(2, 1.0), (2, 0.25)],
    by_hand=(
        "Two pairs, one with cosine 1 and one with cosine ¼, orthogonal to each other. The Laplacian of a pair with "
        "weight w is [[w, −w], [−w, w]], with eigenvalues 0 and 2w. All four are 0, 0, ½, 2: the gaps at i = 2 and 3 "
        "are ½ and 3/2, so the rule finds three groups. The relative gaps are 1 and ¾."
    ),
    proof=(
        "The Laplacian of perfect blocks has exactly k eigenvalues of zero and T − k above it, and there are some as T "
        "> k. At i = k the relative gap is 1 − 0 = 1; above it is below 1, and below k it is 0 by convention."
    ),
    code=("diagnostics.theory.eigengap.eigengap", "diagnostics.task_vector_bases"),
)


def _signs(size: int) -> Any:
    from hypothesis import strategies as st

    drawn = st.lists(st.sampled_from([1.0, -1.0]), min_size=size + 1, max_size=size + 2)
    return drawn.filter(lambda signs: len(set(signs)) == 2).map(np.array)


def _zeros(matrix: Any) -> float:
    """Number of connected parts: eigenvalues of the Laplacian that are zero."""
    return float((torch.linalg.eigvalsh(laplacian(torch.tensor(matrix))) < 1e-9).sum())


def _shifted(signs: Any) -> Any:
    cosines = np.outer(values(signs), values(signs))
    return cosines + abs(cosines.min())


DIRECTIONS = Derivation(
    id="2.13",
    title="Adding |min M| to a cluster of opposite vectors cuts its graph into the two directions.",
    source=_SOURCE,
    kind=Kind.DEFINITION,
    claim=Claim(
        statement=r"M_{ij} = s_i s_j,\; s \in \{\pm 1\}^n \;\Rightarrow\; M + |\min M| \text{ has two connected parts}",
        left=lambda signs: _zeros(_shifted(signs)),
        right=lambda signs: 2.0,
        relation=Relation.EQUAL,
        cases=_signs,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("without adding |min M|", left=lambda signs: _zeros(np.outer(values(signs), values(signs)))),
        Mutant("half of |min M|", left=lambda signs: _zeros(_shifted(signs) - 0.5)),
    ),
    code=("diagnostics.cluster_similarities",),
)


def _clusters(dimension: int) -> Any:
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import arrays

    sizes = st.lists(st.integers(1, 3), min_size=1, max_size=3)
    return sizes.flatmap(lambda ns: st.tuples(*(arrays(n, dimension) for n in ns)))


def _sum_of(clusters: Any, merge_in: Any, merge_out: Any) -> Any:
    return merge_out(np.stack([merge_in(rows) for rows in clusters]))


def _total(rows: Any) -> Any:
    return rows.sum(0)


def _mean(rows: Any) -> Any:
    return rows.sum(0) / len(rows)


ADDITION = Derivation(
    id="2.14",
    title="With sums in and out, merging the bases is merging all vectors: grouping changes nothing.",
    source=_SOURCE,
    kind=Kind.DEFINITION,
    claim=Claim(
        statement=r"\sum_b \sum_{i \in b} \tau_i = \sum_i \tau_i",
        left=lambda clusters: _sum_of(clusters, _total, _total),
        right=lambda clusters: _total(np.concatenate(list(clusters))),
        relation=Relation.EQUAL,
        cases=_clusters,
        sizes=(1, 2),
    ),
    mutants=(
        Mutant("means in, sum out", left=lambda clusters: _sum_of(clusters, _mean, _total)),
        Mutant(
            "a mean of means for the mean of all",
            left=lambda clusters: _sum_of(clusters, _mean, _mean),
            right=lambda clusters: _mean(np.concatenate(list(clusters))),
        ),
    ),
    proof="The clusters are a partition. With means the weight of a vector depends on the size of its cluster.",
    code=("diagnostics.Bases.add",),
)


def _sizes(size: int) -> Any:
    from hypothesis import strategies as st

    return st.lists(st.integers(1, 4 * size), min_size=1, max_size=4 * size)


def _at_a_time(sizes: list[int]) -> float:
    """Vectors that a search for coefficients holds at a time: those of one cluster, or the bases."""
    return float(max(*sizes, len(sizes)))


MEMORY = Derivation(
    id="2.15",
    title="A search for coefficients holds max(largest cluster, m) vectors at a time, between √T and T of them.",
    source="Zeng 2025, table 1",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\sqrt{T} \le \max(\max_b |b|, m) \le T",
        left=lambda sizes: np.array([np.sqrt(sum(sizes)), _at_a_time(sizes)]),
        right=lambda sizes: np.array([_at_a_time(sizes), float(sum(sizes))]),
        relation=Relation.AT_MOST,
        cases=_sizes,
        tolerance=lambda sizes: 1e-12 * sum(sizes),
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("the number of bases alone", right=lambda sizes: np.array([float(len(sizes)), float(sum(sizes))])),
        Mutant("the largest cluster alone", right=lambda sizes: np.array([float(max(sizes)), float(sum(sizes))])),
    ),
    proof=(
        "m clusters of at most s vectors hold T ≤ sm ≤ max(s, m)². Storing m vectors for T saves 1 − m/T of the "
        "memory: 95.71 % for 3 of 70."
    ),
    code=("diagnostics.task_vector_bases", "diagnostics.search_coefficients"),
)
DERIVATIONS = (EIGENGAP, DIRECTIONS, ADDITION, MEMORY)
