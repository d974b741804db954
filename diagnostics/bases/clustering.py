"""Groups of task vectors by spectral clustering of their cosines (2.12), opposite directions apart (2.13)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from diagnostics.errors import InputError, require_count
from diagnostics.results import Result, Verdict
from diagnostics.theory.eigengap import Eigengap, eigengap

__all__ = ["SPREAD", "Clustering", "cluster_similarities", "group", "separation"]

# Similarities that differ by a quarter of their mean, at random, still count as near-uniform.
SPREAD = 0.25
# Share of group-less matrices that separate as well: below the first there are groups, above the second there are none.
_LEVELS = (0.01, 0.1)
# Added to similarities, which are at most 1: it joins a graph in pieces and changes no group.
_JOIN = 1e-6

Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Clustering(Result):
    """A partition of T vectors, and whether there is anything to partition.

    Attributes:
        groups: Indices of the vectors of each group, larger groups first.
        proposal: What the eigengap proposes, whether or not it is used, before opposite directions are split.
        eigengap: The spectrum and the three numbers of groups read off it.
        separation: Standard deviation of the |cosines| that the proposal explains, over their mean.
        null: The same for near-uniform similarities without groups: their 99 % quantile.
        p_value: Share of such matrices that separate as well; NaN where there are fewer than three vectors.
        verdict: Whether the vectors fall into groups.
        given: Whether the number of groups was given.
        split: Groups that were split because two of their vectors are opposite.
        notes: What a reader must know before using the groups.
    """

    groups: Groups
    proposal: Groups
    eigengap: Eigengap
    separation: float
    null: float
    p_value: float
    verdict: Verdict
    given: bool
    split: Groups
    notes: tuple[str, ...]

    @property
    def k(self) -> int:
        """Number of groups."""
        return len(self.groups)

    def __str__(self) -> str:
        lines = [
            f"{self.k} groups of {sum(map(len, self.groups))} vectors; that they fall into groups is {self.verdict} "
            f"(separation {self.separation:.3g}, near-uniform similarities up to {self.null:.3g})"
        ]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def cluster_similarities(
    cosine: Tensor,
    *,
    k: int | None = None,
    noise: Tensor | float = 0.0,
    opposite: float = -0.1,
    draws: int = 199,
    seed: int = 0,
) -> Clustering:
    r"""Group vectors by their cosines: eigengap, spectral clustering, opposite directions apart (2.12), (2.13).

    Spectral clustering into the published number of groups, and into those of two other readings of the eigengap, and
    all cuts of average linkage are looked at; the partition that separates the similarities best is proposed. It is
    used only where near-uniform similarities, which have no groups, would not separate as well:

    .. math:: M_{ij} = |m_{ij} (1 + 0.25 (\sqrt{½} z_{ij} + ½ (u_i + u_j)))|

    with the cosines m of random vectors that have one direction in common, so that their mean is the measured one and
    their noise σ, and standard normal z of pairs and u of vectors. Otherwise every vector is a group of its own:
    nothing is merged on the strength of nothing.

    Args:
        cosine: M, [T, T].
        k: Number of groups, if it is known; the eigengap is then reported and not used.
        noise: Standard deviation σ of the cosine of unrelated vectors, one number or [T, T].
        opposite: A group with a cosine below this is split in two (δ1 of 2.13), if it is below −3σ or −0.5 too.
        draws: Matrices without groups that are compared with.
        seed: Seed of these.

    Returns:
        The groups and the evidence for them.

    Raises:
        InputError: If the matrix is not one of cosines, or a setting is out of range.

    Example:
        >>> blocks = torch.block_diag(*[torch.full((s, s), 0.6) for s in (5, 2)]) + 0.02
        >>> found = cluster_similarities(blocks.fill_diagonal_(1.0))
        >>> found.groups, str(found.verdict)
        (((0, 1, 2, 3, 4), (5, 6)), 'supported')
        >>> str(cluster_similarities(torch.full((6, 6), 0.3).fill_diagonal_(1.0)).verdict)
        'refuted'
    """
    matrix, sigma = _checked(cosine, k, noise, opposite)
    # Fewer could not show that a separation is rarer than the first level.
    require_count("draws", draws, 99)
    require_count("seed", seed, 0)
    gap, size = eigengap(matrix), len(matrix)
    if size < 3:
        few = group(matrix, k or size)
        note = "fewer than three vectors have no eigengap: each is a group of its own unless k says otherwise"
        groups, split = _split_all(matrix, few, min(opposite, -min(3 * float(sigma.max()), 0.5)))
        rest = (math.nan, math.nan, math.nan, Verdict.UNDECIDED, k is not None, split, (note,))
        return Clustering(_ordered(groups), few, gap, *rest)
    proposal = group(matrix, k) if k else _propose(matrix, gap)
    found = separation(matrix, proposal)
    null = _null(matrix, sigma, k, draws, seed)
    p_value = (1 + int((null >= found).sum())) / (1 + draws)
    verdict = _judge(p_value) if found > 0 else Verdict.REFUTED
    kept = proposal if k or verdict is Verdict.SUPPORTED else tuple((index,) for index in range(size))
    groups, split = _split_all(matrix, kept, min(opposite, -min(3 * float(sigma.max()), 0.5)))
    notes = _notes(gap, proposal, verdict, k, float(_pairs(matrix).mean()))
    limit = float(torch.quantile(null, 1 - _LEVELS[0]))
    return Clustering(_ordered(groups), proposal, gap, found, limit, p_value, verdict, k is not None, split, notes)


def group(matrix: Tensor, k: int) -> Groups:
    """Return k groups: those of spectral clustering or those of average linkage, whichever separate better.

    Spectral clustering is scikit-learn's, of |M| and with the normalised Laplacian. Where most vectors are like no
    other, k is large and it goes astray; average linkage does not.

    Args:
        matrix: M, [T, T].
        k: Number of groups, 1 to T.

    Returns:
        Indices by group, larger groups first.
    """
    if k >= len(matrix):
        return tuple((index,) for index in range(len(matrix)))
    if k == 1:
        return (tuple(range(len(matrix))),)
    return _best(matrix, [_spectral(matrix, k), _linkage(matrix)[k]])


def separation(matrix: Tensor, groups: Sequence[Sequence[int]]) -> float:
    """Return how far groups explain similarities: the spread between and within groups, over the mean similarity.

    It is the standard deviation, over the pairs, of the mean |M| of their kind (same group or not), divided by the mean
    |M| of all pairs: 0 where the groups explain nothing, or all are equally alike.

    Args:
        matrix: M, [T, T].
        groups: A partition of its rows.

    Returns:
        The separation, without a unit; negative where pairs of a group are less alike than others.

    Example:
        >>> round(separation(torch.tensor([[1.0, 0.8, 0.1], [0.8, 1.0, 0.1], [0.1, 0.1, 1.0]]), [[0, 1], [2]]), 4)
        0.9899
    """
    label = np.empty(len(matrix), dtype=int)
    for number, members in enumerate(groups):
        label[list(members)] = number
    return _separations(matrix, [label])[0]


def _separations(matrix: Tensor, labels: Sequence[np.ndarray]) -> list[float]:
    """Separation of the groups of each array of labels."""
    rows, columns = np.triu_indices(len(matrix), 1)
    sizes = matrix.abs().numpy()[rows, columns]
    mean, found = sizes.mean() if len(sizes) else 0.0, []
    for label in labels:
        same = label[rows] == label[columns]
        share = same.mean()
        if share in {0, 1} or mean == 0:
            found.append(0.0)
        else:
            between = sizes[same].mean() - sizes[~same].mean()
            found.append(math.sqrt(share * (1 - share)) * float(between / mean))
    return found


def _checked(cosine: Tensor, k: int | None, noise: Tensor | float, opposite: float) -> tuple[Tensor, Tensor]:
    """The matrix and its noise in float64, refused where they are none."""
    matrix = torch.as_tensor(cosine, dtype=torch.float64).detach().cpu().clone()
    square = matrix.ndim == 2 and len(matrix) == matrix.shape[-1] > 0
    if not square or not bool(matrix.isfinite().all()) or not torch.allclose(matrix, matrix.T, atol=1e-6):
        raise InputError(
            "similarities: expected a symmetric matrix of finite cosines; found "
            f"{list(matrix.shape)}, {int((~matrix.isfinite()).sum())} of them not finite. A zero vector has no cosine: "
            "leave out experts that are identical to the base."
        )
    if k is not None:
        require_count("k", k)
        if k > len(matrix):
            raise InputError(f"k: expected at most {len(matrix)}, the number of vectors; found {k}.")
    if not -1 <= opposite < 0:
        raise InputError(f"opposite: expected a cosine from -1 to below 0; found {opposite}. Write -0.1.")
    sigma = torch.as_tensor(noise, dtype=torch.float64).nan_to_num().expand(matrix.shape).clone()
    return matrix.fill_diagonal_(1.0), sigma.fill_diagonal_(0.0)


def _propose(matrix: Tensor, gap: Eigengap) -> Groups:
    """The partition that separates best, of spectral clustering into the eigengap's numbers and of average linkage."""
    tree = _linkage(matrix)
    found = [_spectral(matrix, candidate) for candidate in gap.candidates]
    return _best(matrix, [*found, *(tree[k] for k in range(2, len(matrix)))])


def _spectral(matrix: Tensor, k: int) -> np.ndarray:
    """Labels of k groups by scikit-learn."""
    cluster: Any = _sklearn().SpectralClustering(k, affinity="precomputed", assign_labels="cluster_qr", random_state=0)
    labels: np.ndarray = cluster.fit_predict((matrix.abs() + _JOIN).fill_diagonal_(1.0).numpy())
    return labels


def _linkage(matrix: Tensor) -> dict[int, np.ndarray]:
    """Labels by number of groups, of average linkage with the distance 1 − |M|."""
    distance = (1 - matrix.abs()).clamp_min(0).fill_diagonal_(0.0)
    tree = linkage(squareform(distance.numpy(), checks=False), "average")
    return {len(matrix) - column: labels for column, labels in enumerate(cut_tree(tree).T)}


def _best(matrix: Tensor, labels: Sequence[np.ndarray]) -> Groups:
    """The partition that separates best; the first of several as good."""
    scores = [round(value, 9) for value in _separations(matrix, labels)]
    chosen = labels[scores.index(max(scores))]
    return _ordered([tuple(np.flatnonzero(chosen == each).tolist()) for each in np.unique(chosen)])


def _null(matrix: Tensor, sigma: Tensor, k: int | None, draws: int, seed: int) -> Tensor:
    """Separations of near-uniform matrices without groups, each clustered as the measured one was."""
    generator = np.random.default_rng(seed)
    mean, found = float(_pairs(matrix).abs().mean()), []
    for _ in range(draws):
        spread, own = generator.standard_normal(matrix.shape), generator.standard_normal(len(matrix))
        # Half of the variance is of pairs, half of vectors that are more alike to all others: no group either way.
        spread = math.sqrt(0.5) * spread + 0.5 * (own[:, None] + own)
        drawn = torch.tensor(_alike(mean, sigma.numpy(), generator) * (1 + SPREAD * spread))
        drawn = drawn.abs().triu(1).clamp_max(1)
        drawn = (drawn + drawn.T).fill_diagonal_(1.0)
        groups = group(drawn, k) if k else _propose(drawn, eigengap(drawn))
        found.append(separation(drawn, groups))
    return torch.tensor(found, dtype=torch.float64)


def _alike(mean: float, sigma: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Cosines of random vectors that have one direction in common, and differ from their mean by chance alone."""
    count, noise = len(sigma), math.sqrt(float((sigma**2).sum()) / max(1, len(sigma) * (len(sigma) - 1)))
    if noise == 0:
        return np.full(sigma.shape, mean)
    # Bartlett: inner products of random vectors of any dimension, from a triangle of their number.
    freedom = max(noise**-2, 1.0)
    rows = np.tril(generator.standard_normal((count + 1, count + 1)), -1)
    np.fill_diagonal(rows, np.sqrt(generator.chisquare(np.maximum(freedom - np.arange(count + 1), 1.0))))
    own, common = rows[1:] / math.sqrt(freedom), rows[0] / np.linalg.norm(rows[0])
    vectors = math.sqrt(1 - mean) * own + math.sqrt(mean) * common
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return mean + (unit @ unit.T - mean) * sigma / noise


def _judge(p_value: float) -> Verdict:
    """Whether there are groups."""
    if p_value <= _LEVELS[0]:
        return Verdict.SUPPORTED
    return Verdict.REFUTED if p_value > _LEVELS[1] else Verdict.UNDECIDED


def _split_all(matrix: Tensor, groups: Groups, limit: float) -> tuple[list[tuple[int, ...]], Groups]:
    """Groups with opposite vectors in two, and which those were (2.13)."""
    parts: list[tuple[int, ...]] = []
    split = []
    for members in groups:
        inside = matrix[list(members)][:, list(members)]
        if float(inside.min()) < limit:
            # All similarities are raised by the same amount, so that the opposite ones become the weakest.
            halves = group((inside + inside.min().abs()).clamp_max(2) / 2, 2)
            parts += [tuple(members[index] for index in half) for half in halves]
            split.append(members)
        else:
            parts.append(members)
    return parts, tuple(split)


def _notes(gap: Eigengap, proposal: Groups, verdict: Verdict, k: int | None, mean: float) -> tuple[str, ...]:
    """What limits the reading of the groups."""
    notes = []
    if k is None and len(set(gap.candidates)) > 1:
        notes.append(
            f"the eigengap is ambiguous: as published it gives {gap.stated} groups, by ratios {gap.relative}, of the "
            f"normalised Laplacian {gap.normalised}; {len(proposal)} separate the similarities best"
        )
    if verdict is not Verdict.SUPPORTED:
        less = "are no more separated than" if verdict is Verdict.REFUTED else "are hardly more separated than"
        used = "the groups are those of the k that was given" if k else "each vector is a group of its own"
        alike = " As alike as they all are, one group (k=1) is worth a look" if mean > 0.5 else ""
        notes.append(f"the best groups {less} near-uniform similarities would be: {used}.{alike}".rstrip("."))
    return tuple(notes)


def _pairs(matrix: Tensor) -> Tensor:
    """The entries above the diagonal."""
    return matrix[torch.ones_like(matrix, dtype=torch.bool).triu(1)]


def _ordered(groups: Sequence[tuple[int, ...]]) -> Groups:
    """Larger groups first, equal ones by their first member."""
    return tuple(sorted(groups, key=lambda members: (-len(members), members)))


def _sklearn() -> ModuleType:
    """scikit-learn's clustering, which only this needs."""
    state = random.getstate()  # importing it draws from the generator of the whole program
    try:
        from sklearn import cluster
    except ImportError as error:
        raise InputError(
            f"task-vector bases need scikit-learn, which cannot be imported ({error}). Install it with: "
            "pip install 'task-arithmetic-diagnostics[bases]'"
        ) from error
    finally:
        random.setstate(state)
    return cluster
