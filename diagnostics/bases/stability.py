"""How stable groups of task vectors are: under resampled tensors, and against another partition of the same experts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diagnostics.bases.clustering import Groups, group
from diagnostics.measures.geometry import Geometry
from diagnostics.results import Result, Status
from diagnostics.theory.eigengap import eigengap

__all__ = ["Stability", "group_agreement", "group_stability"]

# Fewer tensors than this say nothing about how the groups would differ with others.
_LEAST = 5


@dataclass(frozen=True)
class Stability(Result):
    """What resampling the tensors, with replacement, does to the groups.

    Attributes:
        same: Share of the resamples in which the same partition comes out.
        same_k: Share in which the eigengap gives the same numbers of groups.
        agreement: Mean adjusted Rand index with the partition: 1 for the same, about 0 for an unrelated one.
        together: Share of the resamples in which each two experts are in one group, [T, T].
        resamples: Number of them.
        tensors: Number of tensors drawn from.
        status: Undefined where there are too few tensors to resample.
    """

    same: float
    same_k: float
    agreement: float
    together: Tensor
    resamples: int
    tensors: int
    status: Status

    def __str__(self) -> str:
        if self.status is Status.UNDEFINED:
            return f"stability not measured: {self.tensors} tensors are too few to resample"
        return (
            f"the same groups in {self.same:.0%} of {self.resamples} resamples of {self.tensors} tensors "
            f"(mean agreement {self.agreement:.2f})"
        )


def group_stability(
    geometry: Geometry, groups: Groups, *, resamples: int = 50, seed: int = 0, ungrouped: bool = False
) -> Stability:
    """Resample the tensors and cluster again with the number of groups held fixed, and with the eigengap's.

    The Gram matrix of a resample is the sum of those of tensors drawn with replacement: a group that only one tensor
    holds together falls apart.

    Args:
        geometry: Norms and angles, tensor by tensor.
        groups: The partition to hold against.
        resamples: Number of resamples.
        seed: Seed of the draws.
        ungrouped: Whether the partition is the one without groups, which no resample is asked to reproduce.

    Returns:
        The stability.
    """
    count, layers = len(geometry.names), list(geometry.layers.values())
    together = torch.eye(count, dtype=torch.float64)
    if len(layers) < _LEAST or ungrouped or len(groups) == 1:
        return Stability(torch.nan, torch.nan, torch.nan, together, 0, len(layers), Status.UNDEFINED)
    grams = torch.stack([layer.gram for layer in layers])
    generator = torch.Generator().manual_seed(seed)
    expected = eigengap(geometry.cosine).candidates
    same, same_k, agreement, together = 0, 0, 0.0, torch.zeros_like(together)
    for _ in range(resamples):
        drawn = torch.randint(len(layers), (len(layers),), generator=generator)
        cosine = _cosine(grams[drawn].sum(0))
        found = group(cosine, len(groups))
        same += set(found) == set(groups)
        same_k += eigengap(cosine).candidates == expected
        agreement += group_agreement(found, groups)
        for members in found:
            together[torch.tensor(members)[:, None], torch.tensor(members)] += 1
    each = 1 / resamples
    return Stability(
        same * each, same_k * each, agreement * each, together * each, resamples, len(layers), Status.CONVERGED
    )


def group_agreement(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]) -> float:
    """Return the adjusted Rand index of two partitions of the same vectors.

    Args:
        first: Indices by group.
        second: Indices by group.

    Returns:
        1 for the same partition, about 0 for unrelated ones.

    Example:
        >>> group_agreement([(0, 1), (2,)], [(2,), (0, 1)]), group_agreement([(0, 1), (2, 3)], [(0, 2), (1, 3)])
        (1.0, -0.5)
    """
    from sklearn.metrics import adjusted_rand_score  # clustering has said what to do where it is missing

    labels = [
        [number for _, number in sorted((index, number) for number, members in enumerate(groups) for index in members)]
        for groups in (first, second)
    ]
    return float(adjusted_rand_score(*labels))


def _cosine(gram: Tensor) -> Tensor:
    """Cosines of a resampled Gram matrix; a vector that has no drawn tensor is like no other."""
    squares = gram.diagonal().clamp_min(0)
    scale = torch.outer(squares, squares).sqrt()
    return torch.where(scale > 0, gram / scale, 0.0).clamp(-1, 1)
