"""Usage profiles: how the use of a layer is spread over its features, and how far two tasks' profiles overlap (4.2)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "IDLE",
    "SHARED",
    "assign_features",
    "chance_deviation",
    "chance_overlap",
    "normalised",
    "profile_overlap",
    "set_cosines",
]

# Owners of features that no task has for itself.
SHARED, IDLE = -1, -2
_CHUNK = 1024


def normalised(use: Tensor) -> Tensor:
    """Return use as shares that add up to 1, û[k] = u[k] / Σ u; NaN where nothing is used.

    Args:
        use: Use of each feature, [..., features], not negative.

    Returns:
        The profiles, with the same shape.

    Example:
        >>> normalised(torch.tensor([1.0, 3.0])).tolist()
        [0.25, 0.75]
    """
    return use / use.sum(-1, keepdim=True)


def profile_overlap(first: Tensor, second: Tensor) -> Tensor:
    """Return Σ_k min(û_1[k], û_2[k]): 0 for tasks that use no feature in common, 1 for equal profiles.

    It is 1 minus the total variation distance.

    Args:
        first: Profiles, [..., features].
        second: Others of that shape.

    Returns:
        The overlaps.

    Example:
        >>> profile_overlap(torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.0, 0.75, 0.25])).item()
        0.5
    """
    return torch.minimum(first, second).sum(-1)


def chance_overlap(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean overlap when the features of one profile are exchanged at random, over all permutations.

    Args:
        first: A profile, [features].
        second: Another.

    Returns:
        (1/K) Σ_k Σ_l min(û_1[k], û_2[l]), exactly.

    Example:
        >>> chance_overlap(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0])).item()
        0.5
    """
    return _least(first, second, 1).sum() / len(first)


def chance_deviation(first: Tensor, second: Tensor) -> Tensor:
    r"""Return the standard deviation of the overlap when the features of one profile are exchanged at random.

    .. math:: \frac{1}{K-1} \sum_{kl} (m_{kl} − m_{k·} − m_{·l} + m_{··})^2, \quad m_{kl} = \min(û_1[k], û_2[l])

    is its variance over all permutations, exactly (Hoeffding 1951).

    Args:
        first: A profile, [features].
        second: Another.

    Returns:
        The standard deviation; 0 for a single feature.

    Example:
        >>> chance_deviation(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0])).item()  # 1 or 0, each half of the time
        0.5
    """
    count = len(first)
    rows, columns = _least(first, second, 1) / count, _least(second, first, 1) / count
    squares = _least(first, second, 2).sum()
    spread = squares - count * (rows.square().sum() + columns.square().sum()) + rows.sum() ** 2
    return (spread.clamp_min(0) / max(1, count - 1)).sqrt()


def _least(first: Tensor, second: Tensor, power: int) -> Tensor:
    """Σ_l min(û_1[k], û_2[l])^power for each k, by sorting instead of comparing all pairs."""
    ordered = second.sort().values
    below = torch.cat([ordered.new_zeros(1), (ordered**power).cumsum(0)])
    place = torch.searchsorted(ordered, first.contiguous())
    return below[place] + first**power * (len(ordered) - place)


def assign_features(profiles: Tensor, margin: float) -> Tensor:
    """Give each feature to the task that uses it most, if it does so by a margin.

    Args:
        profiles: Profiles of the tasks, [T, features].
        margin: How much more the owner must use it than any other task, as a share of the other's use.

    Returns:
        The owner's row for each feature, or ``SHARED``, or ``IDLE`` where no task uses it.

    Example:
        >>> assign_features(torch.tensor([[0.5, 0.0, 0.5, 0.0], [0.0, 0.5, 0.5, 0.0]]), 0.25).tolist()
        [0, 1, -1, -2]
    """
    most, owner = profiles.max(0)
    if len(profiles) > 1:
        others = profiles.topk(2, dim=0).values[1]
        owner = owner.where(most > (1 + margin) * others, SHARED)
    return owner.where(most > 0, IDLE)


def set_cosines(vectors: Tensor, owner: Tensor, tasks: int) -> tuple[Tensor, Tensor]:
    """Return mean |cos| of the vectors of features inside one task's set and across two sets, block by block.

    Args:
        vectors: Unit vectors w_k, [r, features], zero where there is no direction.
        owner: Owner of each feature, as :func:`assign_features` gives it.
        tasks: Number of tasks T.

    Returns:
        The means over pairs k ≠ l, [T, T], and the number of pairs, [T, T]; NaN without pairs.

    Example:
        >>> mean, pairs = set_cosines(torch.eye(3), torch.tensor([0, 0, 1]), 2)
        >>> mean.tolist(), pairs.tolist()
        ([[0.0, 0.0], [0.0, nan]], [[1.0, 2.0], [2.0, 0.0]])
    """
    members = (owner[:, None] == torch.arange(tasks)).to(vectors) * (vectors.norm(dim=0) > 0)[:, None]
    sums = vectors.new_zeros(tasks, tasks)
    for start in range(0, vectors.shape[1], _CHUNK):
        rows = slice(start, start + _CHUNK)
        sums += members[rows].T @ ((vectors[:, rows].T @ vectors).abs().clamp(max=1) @ members)
    counts = members.sum(0)
    sums -= counts.diag()  # every vector with itself
    pairs = torch.outer(counts, counts) - counts.diag()
    pairs = pairs - pairs.diag().diag() / 2
    halved = sums - sums.diag().diag() / 2
    return (halved / pairs).where(pairs > 0, torch.nan).clamp(min=0), pairs
