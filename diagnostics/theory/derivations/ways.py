"""A drawn merge read as the measurements that a loss-gap bound is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diagnostics.exact.merge import Merge
from diagnostics.results import Status
from diagnostics.theory.loss_gap import Curvature, Displacement, LossGap

__all__ = ["MergeGap", "addition", "negation", "out_of_distribution", "spectral_norm", "weights"]


@dataclass(frozen=True)
class MergeGap(LossGap):
    """The numbers of a bound with the drawn merge that they are read from."""

    merge: Any = None


def weights(merge: Merge) -> Any:
    """Return t_j = α_j − [j = k], so that θ* − θ_k = Σ t_j τ_j.

    Args:
        merge: As drawn.

    Returns:
        t, [T].
    """
    return np.stack([alpha - (j == merge.index) for j, alpha in enumerate(merge.coefficients)])


def spectral_norm(matrix: Any) -> Any:
    """Return max |eigenvalue| of a symmetric matrix.

    Args:
        matrix: [d, d].

    Returns:
        The norm.
    """
    return np.max(abs(np.linalg.eigvalsh(matrix)))


def addition(merge: Merge) -> MergeGap:
    """Read a merge of all vectors, seen by one task.

    Args:
        merge: As drawn.

    Returns:
        The numbers of (2.1).
    """
    way = displacement(merge, against_base=False)
    return MergeGap(way, merge.C, tuple(merge.coefficients), merge.epsilon, merge=merge)


def negation(merge: Merge) -> MergeGap:
    """Read θ0 − ατ_i, seen by another task, whose loss counts from the base.

    Args:
        merge: As drawn, with coefficients (0, −α).

    Returns:
        The numbers of (2.2).
    """
    way = displacement(merge, against_base=True)
    return MergeGap(way, merge.C, (-merge.coefficients[1],), merge.epsilon, merge=merge)


def out_of_distribution(merge: Merge) -> MergeGap:
    """Read an unseen target at its nearest expert.

    Args:
        merge: As drawn.

    Returns:
        The numbers of (2.3).
    """
    way = displacement(merge, against_base=False)
    C = merge.C
    beta = np.max(merge.toward) / C if C > 0 else 0.0 * C
    return MergeGap(way, C, tuple(merge.coefficients), beta=beta, merge=merge)


def displacement(merge: Merge, *, against_base: bool) -> Displacement:
    """Measure the way from the expert to the merge, exactly.

    Args:
        merge: As drawn.
        against_base: Whether the gap counts from the base's loss instead of the expert's.

    Returns:
        The measurements; the norms of Hessians whose convex hull holds all those on the way stand for its spectral
        norms, so that no curvature between points is missed.
    """
    task, start, way, end = merge.task, merge.task.anchor, merge.way, merge.end
    gradient = task.gradient(start)
    corners = task.corners(start, end)
    norms = [spectral_norm(hessian) for hessian in corners]
    level = task.loss(start)
    return Displacement(
        start=level,
        end=task.loss(end),
        offset=level - task.loss(0.0 * start) if against_base else 0.0 * level,
        slope=gradient @ way,
        gradient_norm=np.sqrt((gradient**2).sum()),
        norm_squared=(way**2).sum(),
        nodes=(0.0, 0.5, 1.0),
        curvatures=tuple(task.curvature(point, way) for point in (start, (start + end) / 2, end)),
        integral=task.remainder(start, way),
        mismatch=0.0,
        tolerance=0.0,
        subspace=(),
        spectral=Curvature(norms[0], norms[0], norms[0], Status.EXACT),
        spectral_along=tuple(norms),
    )
