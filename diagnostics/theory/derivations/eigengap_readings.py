"""(2.12) What the eigengap's three readings are, and for which groups each of them counts right."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from diagnostics.exact.relations import Relation
from diagnostics.exact.rounding import UNIT, Rounded, values
from diagnostics.theory.derivations.derivation import Claim, Condition, Derivation, Kind, Mutant
from diagnostics.theory.eigengap import Eigengap, eigengap

__all__ = ["DERIVATIONS"]

_SOURCE = "Zeng 2025, algorithm 1"
# A group: how many vectors, and the similarity of any two of them in sixteenths.
Blocks = list[tuple[int, int]]


def _similarities(size: int) -> Any:
    """Cosines of any kind, of three vectors or more."""
    from diagnostics.testing.numbers import arrays, numbers

    count = size + 2
    drawn = arrays(count, count, entries=numbers(-1, 1))
    return drawn.map(lambda matrix: np.triu(matrix, 1) + np.triu(matrix, 1).T + np.eye(count))


def _laplacian(matrix: Any) -> Any:
    """D − |M| by its rows, which add up to zero."""
    weights = abs(matrix) * (1.0 - np.eye(len(matrix)))
    return np.diag(weights.sum(1)) - weights


def _gaps(matrix: Any) -> Any:
    """λ^(i+1) − λ^(i) for i = 2, …, T − 1, counted from one."""
    spectrum = np.linalg.eigvalsh(_laplacian(matrix))
    return spectrum[2:] - spectrum[1:-1]


def _stated(matrix: Any) -> int:
    found = eigengap(torch.tensor(values(matrix))).stated
    assert found is not None  # there are three vectors or more
    return found


def _chosen(matrix: Any, shift: int = 0) -> Any:
    """The gap that the package chose, once for each gap; a shift goes round."""
    gaps = _gaps(matrix)
    return gaps[(_stated(matrix) - 2 + shift) % len(gaps)] + 0.0 * gaps


def _signed(matrix: Any) -> Any:
    spectrum = np.linalg.eigvalsh(np.diag(matrix.sum(1)) - matrix)
    return spectrum[2:] - spectrum[1:-1]


RULE = Derivation(
    id="2.12-rule",
    title="The published number of groups is from 2 to T − 1, and no gap of the Laplacian of |M| is larger than its.",
    source=_SOURCE,
    kind=Kind.DEFINITION,
    claim=Claim(
        statement=r"\lambda^{(i+1)} - \lambda^{(i)} \le \lambda^{(k+1)} - \lambda^{(k)}, \quad 1 < i, k \le T - 1",
        left=_gaps,
        right=_chosen,
        relation=Relation.AT_MOST,
        cases=_similarities,
        # The package takes the first of several gaps that are equal to one part in 10¹².
        tolerance=lambda matrix: 2e-12 * float(np.abs(matrix).sum()),
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("the next gap", right=lambda matrix: _chosen(matrix, 1), sizes=(2, 3)),
        Mutant("M for |M|", left=_signed),
    ),
    proof="The package's number indexes the gaps from 2 to T − 1, so one group and T groups are never found.",
    code=("diagnostics.theory.eigengap.eigengap",),
)


def _blocks(size: int) -> Any:
    """At least two groups, and one of more than one vector."""
    from hypothesis import strategies as st

    group = st.tuples(st.integers(1, size + 1), st.integers(1, 16))
    return st.lists(group, min_size=2, max_size=4).filter(lambda groups: any(count > 1 for count, _ in groups))


def _alike(size: int) -> Any:
    """Groups of a size or two, with similarities of ½ or more, among which equal ones are frequent."""
    from hypothesis import strategies as st

    group = st.tuples(st.sampled_from([1, size + 1, size + 2]), st.sampled_from([8, 12, 16]))
    return st.lists(group, min_size=2, max_size=4).filter(lambda groups: any(count > 1 for count, _ in groups))


def _matrix(blocks: Blocks) -> Any:
    """M; every other vector of a group points the opposite way."""
    signs = [np.where(np.arange(count) % 2, -1.0, 1.0) for count, _ in blocks]
    parts = [np.outer(s, s) * w / 16 for s, (_, w) in zip(signs, blocks, strict=True)]
    whole = torch.block_diag(*map(torch.tensor, parts)).numpy()
    np.fill_diagonal(whole, 1.0)
    return whole


def _levels(blocks: Blocks) -> Any:
    """s·w of the groups of more than one vector, ascending."""
    return np.sort([count * w / 16 for count, w in blocks if count > 1])


def _expected(blocks: Blocks) -> Any:
    """A zero for each group, and s·w as often as the group has vectors beyond the first; one is added to all."""
    # Rounding then has a scale to be small against.
    zeros = [0.0] * len(blocks)
    return 1 + np.sort(zeros + [count * w / 16 for count, w in blocks for _ in range(count - 1)])


def _spectrum(blocks: Blocks) -> Any:
    found = eigengap(torch.tensor(_matrix(blocks))).eigenvalues.numpy()
    # LAPACK's eigenvalues are those of a matrix that differs by a few n u ‖L‖.
    return 1 + Rounded(found, 4 * len(found) * UNIT * np.linalg.norm(found))


SPECTRUM = Derivation(
    id="2.12-spectrum",
    title="A perfect group of s vectors with |cosine| w gives one eigenvalue 0 and s − 1 eigenvalues s·w.",
    source=_SOURCE,
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\mathrm{spec}(D - |M|) = \bigcup_g \{0\} \cup \{ s_g w_g \}^{s_g - 1}",
        left=_spectrum,
        right=_expected,
        relation=Relation.EQUAL,
        cases=_blocks,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("(s − 1)·w for s·w", right=lambda blocks: _expected(blocks) - _one_less(blocks)),
        Mutant("a single zero, as for a graph in one piece", right=lambda blocks: _in_one_piece(blocks)),
    ),
    proof=(
        "The Laplacian of a group is w(s·I − 11ᵀ): zero along 1, and s·w on all that is orthogonal to it. Groups that "
        "have nothing in common are blocks, and signs inside a group do not matter to |M|."
    ),
    code=("diagnostics.theory.eigengap.laplacian",),
)


def _in_one_piece(blocks: Blocks) -> Any:
    """The least s·w in the place of every zero but the first."""
    found = _expected(blocks)
    found[1 : len(blocks)] = 1 + _levels(blocks)[0]
    return found


def _one_less(blocks: Blocks) -> Any:
    """W where an eigenvalue is s·w, in the order of ``_expected``."""
    zeros = [(0.0, 0.0)] * len(blocks)
    pairs = sorted(zeros + [(count * w / 16, w / 16) for count, w in blocks for _ in range(count - 1)])
    return np.array([weight for _, weight in pairs])


def _as_published(blocks: Any) -> Any:
    """The number of groups as published."""
    return _found(blocks).stated


def _normalised(blocks: Any) -> Any:
    """The number of groups by the normalised Laplacian."""
    return _found(blocks).normalised


def _found(blocks: Any) -> Eigengap:
    """The package's readings."""
    return eigengap(torch.tensor(_matrix(blocks)))


def _planted(blocks: Blocks) -> float:
    return float(len(blocks))


_RELATIVE = Claim(
    statement=r"\arg\max_{1 < i \le T-1} \big( 1 - \lambda^{(i)} / \lambda^{(i+1)} \big) = k \text{ for } k \text{ "
    r"groups of any sizes and similarities}",
    left=lambda blocks: _found(blocks).relative,
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
    claim=_RELATIVE,
    mutants=(
        Mutant("one more", right=lambda blocks: _planted(blocks) + 1),
        Mutant("the absolute gap", left=_as_published),
    ),
    published=Claim(
        statement=r"\arg\max_{1 < i \le T-1} \big( \lambda^{(i+1)} - \lambda^{(i)} \big) = k",
        left=_as_published,
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
    counterexample=[(2, 16), (2, 4)],
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


def _largest_step(blocks: Blocks) -> float:
    """The largest gap between the s·w of different groups."""
    return float(np.max(np.diff(_levels(blocks)), initial=0.0))


_EVEN = Condition(
    "even",
    "no gap between the s·w of groups is larger than the least s·w",
    _largest_step,
    lambda blocks: float(_levels(blocks)[0]),
)
STATED = Derivation(
    id="2.12-stated",
    title="The published rule counts perfect groups right where no gap between their s·w exceeds the least s·w.",
    source=f"sharper reading of {_SOURCE}",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"\max_j \big( \mu_{(j+1)} - \mu_{(j)} \big) \le \mu_{(1)},\; \mu_g = s_g w_g \;\Rightarrow\; "
        r"\arg\max_{1 < i \le T-1} \big( \lambda^{(i+1)} - \lambda^{(i)} \big) = k",
        left=_as_published,
        right=_planted,
        relation=Relation.EQUAL,
        cases=_alike,
        assumptions=(_EVEN,),
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("one more", left=lambda blocks: _as_published(blocks) + 1),
        Mutant("groups of any sizes and similarities", without="even", cases=_blocks),
    ),
    proof=(
        "By (2.12-spectrum) the gap at i = k is the least s·w, those below it are 0 and those above are the gaps "
        "between the s·w; of equal gaps the first counts. So groups whose s·w differ by a factor of two at most are "
        "counted right, and a group alone has no s·w and does no harm."
    ),
    code=("diagnostics.theory.eigengap.eigengap",),
)


def _least_similarity(blocks: Blocks) -> float:
    return min(w for count, w in blocks if count > 1) / 16


_SIMILAR = Condition(
    "similar",
    "vectors of one group have |cosines| of a third or more",
    lambda blocks: -_least_similarity(blocks),
    lambda blocks: -1 / 3,
)


def _close(size: int) -> Any:
    """Groups of very different sizes with |cosines| from 6/16 on."""
    from hypothesis import strategies as st

    group = st.tuples(st.sampled_from([1, 2, size + 1, 8 * size]), st.integers(6, 16))
    return st.lists(group, min_size=2, max_size=3).filter(lambda groups: any(count > 1 for count, _ in groups))


NORMALISED = Derivation(
    id="2.12-normalised",
    title="The normalised Laplacian counts perfect groups of any sizes right where |cosines| inside are above a third.",
    source=f"sharper reading of {_SOURCE}",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"w_g \ge \tfrac13 \text{ for all } g \;\Rightarrow\; \arg\max_{1 < i \le T-1} \big( "
        r"\tilde\lambda^{(i+1)} - \tilde\lambda^{(i)} \big) = k, \quad \tilde L = I - D^{-1/2} |M| D^{-1/2}",
        left=_normalised,
        right=_planted,
        relation=Relation.EQUAL,
        cases=_close,
        assumptions=(_SIMILAR,),
        sizes=(1, 2),
    ),
    mutants=(
        Mutant("one more", left=lambda blocks: _normalised(blocks) + 1),
        Mutant("|cosines| of any size", without="similar", cases=_blocks, sizes=(1, 2, 3)),
        Mutant("the published rule there", left=_as_published),
    ),
    proof=(
        "With a diagonal of 1 the row sums of a group are 1 + (s − 1)w, and its eigenvalues are 0 and s·w/(1 + (s − "
        "1)w). That grows with s and with w, so the least of them is at least 2w/(1 + w) ≥ ½ for w ≥ ⅓; all are at "
        "most 1, so no gap above is larger than ½. Below a third it can fail: pairs with |cosines| ¼ and 1 have 2/5 "
        "and 1, and three groups are found."
    ),
    code=("diagnostics.theory.eigengap.eigengap",),
)
DERIVATIONS = (EIGENGAP, RULE, SPECTRUM, STATED, NORMALISED)
