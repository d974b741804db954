"""Usage profiles: how the use of a layer is spread over its features, and how far two tasks' profiles overlap (4.2)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["IDLE", "SHARED", "assign_features", "chance_overlap", "normalised", "profile_overlap", "set_cosines"]

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
    ordered = second.sort().values
    below = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])
    place = torch.searchsorted(ordered, first.contiguous())
    return (below[place] + first * (len(ordered) - place)).sum() / len(ordered)


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
