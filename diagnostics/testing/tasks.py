"""Strategies for smooth tasks with known Hessians, and for one task of a merge of them."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st

from diagnostics.exact.merge import Merge
from diagnostics.exact.smooth import SmoothTask
from diagnostics.testing.numbers import arrays, coefficients, numbers, symmetric, task_vectors

__all__ = ["Curving", "merges", "negations", "negations_at_expert", "smooth_tasks", "targets"]

# How curvature changes on the way from the anchor.
Curving = Literal["constant", "shrinking", "any"]


@cache  # building a strategy costs more than drawing from it
@st.composite
def _losses(draw: Any, dimension: int, curving: Curving, convex: bool, stationary: bool) -> SmoothTask:
    """Smooth tasks about the origin."""
    # Flat losses among them: whatever rests on the gradient alone shows there.
    scale = draw(st.sampled_from([1.0, 1.0, 0.25, 0.0]))
    hessian = scale * draw(symmetric(dimension, positive=convex or curving == "shrinking"))
    slope = np.zeros(dimension) if stationary else draw(arrays(dimension, entries=numbers(-2, 2)))
    ridges = 0 if curving == "constant" else draw(st.integers(0, 2))
    normals = draw(arrays(ridges, dimension, entries=numbers(-1, 1)))
    cubic = np.zeros(ridges) if curving != "any" else draw(arrays(ridges, entries=numbers(-2, 2)))
    quartic = draw(arrays(ridges, entries=numbers(-1, 0) if curving == "shrinking" else numbers(-2, 2)))
    return SmoothTask(np.zeros(dimension), hessian, slope, draw(numbers(0, 2)), normals, cubic, quartic)


@st.composite
def smooth_tasks(
    draw: Any,
    dimension: int,
    *,
    anchor: Any = None,
    curving: Curving = "any",
    convex: bool = False,
    stationary: bool = True,
) -> SmoothTask:
    """Draw smooth tasks whose loss, gradient and Hessian are known everywhere.

    Args:
        draw: Given by Hypothesis.
        dimension: d.
        anchor: The point about which the loss is given, the expert; drawn by default.
        curving: Constant: quadratic losses. Shrinking: curvature falls away from the anchor. Any: it may grow.
        convex: Whether the Hessian at the anchor is positive semidefinite.
        stationary: Whether the gradient at the anchor is zero.

    Returns:
        A task.

    Example:
        >>> from hypothesis import find, settings
        >>> task = find(smooth_tasks(1), lambda task: task.hessian[0, 0] > 1, settings=settings(database=None))
        >>> task.hessian.tolist(), task.slope.tolist()
        ([[2.0]], [0.0])
    """
    task = draw(_losses(dimension, curving, convex, stationary))
    place = draw(arrays(dimension)) if anchor is None else np.asarray(anchor, dtype=np.float64)
    return dataclasses.replace(task, anchor=place)


@cache
@st.composite
def merges(
    draw: Any,
    dimension: int,
    *,
    kind: Literal["simplex", "box", "any"] = "simplex",
    curving: Curving = "any",
    convex: bool = False,
    stationary: bool = True,
    count: int | None = None,
) -> Merge:
    """Draw one task of a merge θ0 + Σ α_i τ_i.

    Args:
        draw: Given by Hypothesis.
        dimension: d.
        kind: Where the coefficients lie.
        curving: How curvature changes away from the task's expert.
        convex: Whether the Hessian at the expert is positive semidefinite.
        stationary: Whether the gradient at the expert is zero.
        count: T; between one and four by default.

    Returns:
        A merge; the task is the first one.
    """
    number = draw(st.integers(1, 4)) if count is None else count
    vectors = draw(task_vectors(number, dimension))
    options: Any = {"curving": curving, "convex": convex, "stationary": stationary}
    task = draw(smooth_tasks(dimension, anchor=vectors[0], **options))
    return Merge(vectors, draw(coefficients(number, kind)), task, 0)


@cache
@st.composite
def negations(
    draw: Any,
    dimension: int,
    *,
    coefficient: st.SearchStrategy[float] | None = None,
    curving: Curving = "any",
    convex: bool = False,
    stationary: bool = True,
) -> Merge:
    """Draw θ0 − ατ_i, seen by another task.

    Args:
        draw: Given by Hypothesis.
        dimension: d.
        coefficient: Strategy for α; from 0 to 1 by default.
        curving: How curvature changes away from the other task's expert.
        convex: Whether the Hessian there is positive semidefinite.
        stationary: Whether the gradient there is zero.

    Returns:
        A merge with coefficients (0, −α); the task is the first vector's, the second is negated.
    """
    options: Any = {"curving": curving, "convex": convex, "stationary": stationary, "count": 2}
    merge = draw(merges(dimension, **options))
    alpha = draw(numbers(0, 1) if coefficient is None else coefficient)
    return Merge(merge.vectors, np.array([0.0, -alpha]), merge.task, 0)


def negations_at_expert(dimension: int) -> st.SearchStrategy[Merge]:
    """Draw negations with τ_i = −τ_j and α = 1, which end at the other task's expert.

    All of the gap then lies between that expert and the base, where smoothness at the expert says nothing.

    Args:
        dimension: d.

    Returns:
        A strategy for merges.
    """

    def moved(merge: Merge) -> Merge:
        own = merge.vectors[0]
        return Merge(np.stack([own, -own]), np.array([0.0, -1.0]), merge.task, 0)

    return negations(dimension).map(moved)


@cache
@st.composite
def targets(
    draw: Any,
    dimension: int,
    *,
    curving: Curving = "any",
    convex: bool = False,
    stationary: bool = True,
) -> Merge:
    """Draw an unseen target task at θ0 + τ_i of the expert i with the largest ⟨τ_tar, τ_i⟩.

    Args:
        draw: Given by Hypothesis.
        dimension: d.
        curving: How curvature changes away from the target's own expert.
        convex: Whether the Hessian there is positive semidefinite.
        stationary: Whether the gradient there is zero.

    Returns:
        A merge whose task is none of the vectors'; none of these points away from the target.
    """
    options: Any = {"curving": curving, "convex": convex, "stationary": stationary}
    vectors = draw(task_vectors(draw(st.integers(1, 3)), dimension))
    task = draw(smooth_tasks(dimension, **options))
    inner = vectors @ task.anchor
    # Turned round where they point away: an expert that points the target's way is what (A5) is about.
    vectors = np.where((inner < 0)[:, None], -vectors, vectors)
    chosen = np.eye(len(vectors))[int(np.argmax(vectors @ task.anchor))]
    return Merge(vectors, chosen, task, None)
