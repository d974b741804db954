"""(2.13), (2.14) What splitting a cluster in two leaves, and what a basis stands for in place of its vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from diagnostics.exact.relations import Relation
from diagnostics.exact.rounding import values
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant
from diagnostics.theory.eigengap import laplacian

__all__ = ["DERIVATIONS"]

_SOURCE = "Zeng 2025, algorithm 1"


def _sides(size: int) -> Any:
    """Signs of the vectors, b between the sides and w inside them, b ≤ w ≤ 1, in sixteenths."""
    from hypothesis import strategies as st

    signs = st.lists(st.sampled_from([1.0, -1.0]), min_size=size + 1, max_size=size + 3)
    across = st.tuples(st.integers(1, 16), st.integers(0, 15)).map(lambda n: (n[0] / 16, min(16, sum(n)) / 16))
    return st.tuples(signs.filter(lambda drawn: len(set(drawn)) == 2).map(np.array), across)


def _cosines(case: Any) -> Any:
    """Cosine w inside a side and −b between the sides, which vectors with a common direction ±v have."""
    signs, (across, inside) = values(case)
    same = np.equal.outer(signs, signs)
    return np.where(np.eye(len(signs)) > 0, 1.0, np.where(same, inside, -across))


def _halves(matrix: Any) -> Any:
    """Which pairs spectral clustering leaves together: where the null space of the Laplacian is the same."""
    spectrum, vectors = torch.linalg.eigh(laplacian(torch.tensor(matrix)))
    null = vectors[:, spectrum < 1e-9]
    # One is added, so that rounding has a scale to be small against.
    return 1 + (null @ null.T).numpy()


def _apart(case: Any) -> Any:
    """One and 1/n for each two of the n vectors of a side, one between the sides."""
    signs = values(case)[0]
    same = np.equal.outer(signs, signs)
    return 1 + same / same.sum(0)


def _raised(case: Any, share: float = 1.0) -> Any:
    matrix = _cosines(case)
    return matrix + share * abs(matrix.min())


PARTS = Derivation(
    id="2.13",
    title="Raised by |min M|, a cluster of two opposite sides is a graph in two pieces, and the pieces are the sides.",
    source=_SOURCE,
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"M_{ij} = \min M \text{ between the sides},\; M_{ij} > \min M \text{ inside} \;\Rightarrow\; \ker "
        r"L(M + |\min M|) = \mathrm{span}\{ 1_{+}, 1_{-} \}",
        left=lambda case: _halves(_raised(case)),
        right=_apart,
        relation=Relation.EQUAL,
        cases=_sides,
        # Eigenvectors turn by the rounding of the matrix over the gap above zero, which is at least 1/8 here.
        tolerance=lambda case: 1e-12,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("raised by half as much", left=lambda case: _halves(abs(_raised(case, 0.5)))),
        Mutant("raised by twice as much", left=lambda case: _halves(_raised(case, 2.0))),
        Mutant("|M|, as for the number of groups", left=lambda case: _halves(_cosines(case))),
    ),
    proof=(
        "Raised, the similarities between the sides are zero and those inside are not, so the graph has two pieces, "
        "and the null space of a Laplacian is spanned by the indicators of the pieces. By |M| alone two opposite "
        "vectors are as alike as two equal ones."
    ),
    code=("diagnostics.cluster_similarities",),
)


def _clusters(dimension: int) -> Any:
    """Clusters of vectors, and a coefficient for each."""
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import arrays, coefficients

    sizes = st.lists(st.integers(1, 3), min_size=1, max_size=3)
    return sizes.flatmap(lambda ns: st.tuples(st.tuples(*(arrays(n, dimension) for n in ns)), coefficients(len(ns))))


def _mean(rows: Any) -> Any:
    return rows.sum(0) / len(rows)


def _through_bases(case: Any) -> Any:
    """Σ_c λ_c b_c with the means b_c."""
    clusters, weights = case
    return sum(weight * _mean(rows) for weight, rows in zip(weights, clusters, strict=True))


def _one_by_one(case: Any, share: Any = len) -> Any:
    """Σ_i λ_i τ_i with the coefficient that a share of the cluster gives to each vector."""
    clusters, weights = case
    return sum((weight / share(rows)) * row for weight, rows in zip(weights, clusters, strict=True) for row in rows)


def _all_of(case: Any) -> Any:
    """The number of all vectors, in the place of each cluster's."""
    return sum(len(rows) for rows in case[0])


WEIGHTS = Derivation(
    id="2.14",
    title="A basis that is a mean, at λ, is each vector of its cluster of n at λ/n; λ < 0 negates all of them.",
    source=_SOURCE,
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\sum_c \lambda_c \Big( \tfrac{1}{n_c} \sum_{i \in c} \tau_i \Big) = \sum_i "
        r"\frac{\lambda_{c(i)}}{n_{c(i)}} \tau_i",
        left=_through_bases,
        right=_one_by_one,
        relation=Relation.EQUAL,
        cases=_clusters,
        sizes=(1, 2),
    ),
    mutants=(
        Mutant("λ for each vector", right=lambda case: _one_by_one(case, lambda rows: 1.0)),
        Mutant("one share for all vectors", right=lambda case: _one_by_one(case, lambda rows: _all_of(case))),
    ),
    proof="Merging is linear; so is negation, which subtracts the other experts of the cluster with the one named.",
    code=("diagnostics.Bases.add", "diagnostics.Bases.negate"),
)


def _cluster(dimension: int) -> Any:
    """One cluster, some of whose vectors are of one direction or one length."""
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import task_vectors

    return st.integers(1, 3).flatmap(lambda count: task_vectors(count, dimension))


def _pairs(rows: Any) -> Any:
    """⟨τ_j, τ_k⟩ for j ≠ k."""
    gram = rows @ rows.T
    return np.stack([gram[j][k] for j in range(len(rows)) for k in range(j)])


def _kappa(rows: Any) -> Any:
    """κ = min ⟨τ_j, τ_k⟩/C over j ≠ k, times C."""
    return np.min(_pairs(rows)) if len(rows) > 1 else 0.0


def _radius(rows: Any, factor: float = 2.0) -> Any:
    """((n − 1)/n)² 2C(1 − κ)."""
    share = (len(rows) - 1) / len(rows)
    return share**2 * factor * (np.max((rows**2).sum(1)) - _kappa(rows)) + 0.0 * rows[:, 0]


def _distances(rows: Any) -> Any:
    """‖τ_i − b‖² for every vector of the cluster."""
    return ((rows - _mean(rows)) ** 2).sum(1)


def _by_cosine(rows: Any) -> Any:
    """The same with the least cosine in the place of κ."""
    square = (rows**2).sum(1)
    sizes = np.sqrt(np.where(square > 0, square, 1.0))
    cosine = np.min(_pairs(rows / sizes.reshape(-1, 1))) if len(rows) > 1 else 1.0
    return ((len(rows) - 1) / len(rows)) ** 2 * 2 * np.max(square) * (1 - cosine) + 0.0 * rows[:, 0]


STANDS_FOR = Derivation(
    id="2.14-negation",
    title="Negating the basis instead of the expert moves the merge by at most λ (n − 1)/n √(2C(1 − κ)).",
    source=f"sharper reading of {_SOURCE}",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"\Vert \tau_i - b \Vert^2 \le \Big( \frac{n-1}{n} \Big)^2 2 C (1 - \kappa), \quad \kappa = \min_{j "
        r"\ne k} \langle \tau_j, \tau_k \rangle / C",
        left=_distances,
        right=_radius,
        relation=Relation.AT_MOST,
        cases=_cluster,
    ),
    mutants=(
        Mutant("the 2 lost", right=lambda rows: _radius(rows, 1.0)),
        Mutant("the least cosine for κ", right=_by_cosine),
    ),
    proof=(
        "τ_i − b is the mean of the differences τ_i − τ_j over the cluster, one of which is zero, and each other one "
        "has ‖τ_i − τ_j‖² ≤ 2C − 2κC. Two vectors of one length attain it."
    ),
    code=("diagnostics.Bases.negate",),
)


def _with_target(dimension: int) -> Any:
    """A cluster, and the vector of a new task."""
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import arrays

    return st.tuples(_cluster(dimension), arrays(dimension))


def _largest(case: Any) -> Any:
    """C, the target's included."""
    rows, target = case
    return np.max(np.concatenate([(rows**2).sum(1), (target**2).sum().reshape(1)]))


def _half_distance(case: Any) -> Any:
    rows, target = case
    return ((_mean(rows) - target) ** 2).sum() / 2


def _at_mean(case: Any) -> Any:
    """C(1 − β̄)."""
    rows, target = case
    return _largest(case) - (rows @ target).sum() / len(rows)


def _at_best(case: Any) -> Any:
    rows, target = case
    return _largest(case) - np.max(rows @ target)


TARGET = Derivation(
    id="2.14-target",
    title="A new task at a basis costs at most L C (1 − β̄), β̄ the mean over the cluster in the place of the largest.",
    source="sharper reading of Zeng 2025, theorem on out-of-distribution tasks, for bases",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"\tfrac12 \Vert b - \tau_{tar} \Vert^2 \le C (1 - \bar\beta), \quad \bar\beta = \frac1n \sum_{i "
        r"\in c} \langle \tau_{tar}, \tau_i \rangle / C",
        left=_half_distance,
        right=_at_mean,
        relation=Relation.AT_MOST,
        cases=_with_target,
    ),
    mutants=(
        Mutant("β of the nearest expert", right=_at_best),
        Mutant("a distance that is not halved", left=lambda case: 2 * _half_distance(case)),
    ),
    proof=(
        "‖b‖² ≤ C because a mean is no longer than the longest, and ⟨τ_tar, b⟩ = β̄C: ½‖b − τ_tar‖² = ½‖b‖² + "
        "½‖τ_tar‖² − β̄C. So (2.3) holds with the basis in the place of the expert, and β falls to the cluster's mean."
    ),
    code=("diagnostics.Bases.generalise",),
)


def _masks(size: int) -> Any:
    from hypothesis import strategies as st

    row = st.lists(st.sampled_from([0.0, 1.0]), min_size=3, max_size=3)
    return st.lists(row, min_size=size, max_size=size).map(np.array)


def _shared_mask(masks: Any) -> Any:
    """γ̄ = round(mean of the masks), in float64."""
    return np.round(values(masks).mean(0))


def _majority(masks: Any, least: int = 1) -> Any:
    """Where more masks have an entry than have not."""
    counts = values(masks).sum(0)
    return (2 * counts >= len(masks) + least).astype(float)


MASK = Derivation(
    id="2.14-mask",
    title="Mask sharing keeps the entries of most masks; of two masks, those of both.",
    source=_SOURCE,
    kind=Kind.DEFINITION,
    claim=Claim(
        statement=r"\bar\gamma = \mathrm{round}\Big( \tfrac1n \sum_i \gamma_i \Big) = \Big[ \sum_i \gamma_i > "
        r"\tfrac{n}{2} \Big]",
        left=_shared_mask,
        right=_majority,
        relation=Relation.EQUAL,
        cases=_masks,
        sizes=(1, 2, 3, 6),
    ),
    mutants=(
        Mutant("an entry of half of the masks", right=lambda masks: _majority(masks, 0)),
        Mutant("an entry of all masks", right=lambda masks: values(masks).min(0)),
        Mutant("an entry of any mask", right=lambda masks: values(masks).max(0)),
    ),
    proof="One half is rounded to the even number, which is 0.",
    code=("diagnostics.bases.merging.merge_vectors",),
)
DERIVATIONS = (PARTS, WEIGHTS, STANDS_FOR, TARGET, MASK)
