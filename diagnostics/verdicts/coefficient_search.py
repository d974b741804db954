"""Where to look for coefficients: grids, quasi-random points, and steps uphill from the best of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

__all__ = ["axis", "distinct", "search"]

# Merits of points, [K, T] -> [K]; larger is better.
Look = Callable[[np.ndarray], np.ndarray]

_SHARED_STEP, _PAIR_STEP = 0.05, 0.1
# Wide bounds get wider steps instead of more points.
_AXIS, _PAIR_AXIS = 121, 31
_SOBOL = 512
_STARTS, _FIRST_STEP, _LAST_STEP, _ROUNDS = 3, 0.16, 0.02, 40


def search(look: Look, count: int, bounds: tuple[float, float], *, shared: bool, seed: int) -> None:
    """Look at candidates: a grid for up to two coefficients, else quasi-random points and a pattern search from them.

    Args:
        look: Gives merits, and remembers what it was asked.
        count: Number of coefficients T.
        bounds: Least and largest value of each.
        shared: Whether all coefficients are the same.
        seed: Seed of the scrambling and of the directions.

    Example:
        >>> seen = []
        >>> look = lambda points: (seen.append(points), -((points - 0.3) ** 2).sum(1))[1]
        >>> search(look, 3, (0.0, 1.0), shared=False, seed=0)
        >>> best = min(np.vstack(seen), key=lambda point: ((point - 0.3) ** 2).sum())
        >>> bool(np.abs(best - 0.3).max() < 0.02)
        True
    """
    line = np.repeat(axis(bounds)[:, None], count, axis=1)
    merits = look(line)
    if shared or count == 1:
        return
    if count == 2:
        ticks = axis(bounds, _PAIR_STEP, _PAIR_AXIS)
        look(np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 2))
        return
    from scipy.stats import qmc  # takes half a second to import, which other searches need not wait for

    low, high = bounds
    cloud = qmc.Sobol(count, scramble=True, seed=seed).random(_SOBOL)
    cloud = np.clip((low + (high - low) * cloud).round(2), low, high)
    points, merits = np.vstack([line, cloud]), np.concatenate([merits, look(cloud)])
    best = distinct(points, np.argsort(-merits, kind="stable"), _STARTS, _FIRST_STEP)
    _climb(look, points[best], merits[best], bounds, np.random.default_rng(seed))


def axis(bounds: tuple[float, float], step: float = _SHARED_STEP, most: int = _AXIS) -> np.ndarray:
    """Return evenly spaced values from bound to bound.

    Args:
        bounds: The ends, both included.
        step: Largest distance of neighbours.
        most: Largest number of values; with wide bounds the distance grows instead.

    Returns:
        The values.

    Example:
        >>> axis((0.0, 0.2)).tolist()
        [0.0, 0.05, 0.1, 0.15, 0.2]
    """
    low, high = bounds
    count = math.ceil((high - low) / step - 1e-9) + 1
    return np.linspace(low, high, min(max(count, 2), most)).round(12)


def distinct(points: np.ndarray, order: Sequence[int] | np.ndarray, count: int, gap: float) -> list[int]:
    """Choose the first points of an order that differ from each other, then the first others where too few do.

    Args:
        points: The points, [K, T].
        order: Rows, best first.
        count: How many to choose.
        gap: Least difference in some coefficient.

    Returns:
        Rows in the order given.

    Example:
        >>> distinct(np.array([[0.0], [0.01], [0.2]]), [0, 1, 2], 2, 0.1)
        [0, 2]
    """
    chosen: list[int] = []
    for row in order:
        if len(chosen) == count:
            break
        if all(np.abs(points[row] - points[other]).max() >= gap - 1e-9 for other in chosen):
            chosen.append(int(row))
    others = (int(row) for row in order if int(row) not in chosen)
    kept = {*chosen, *(row for _, row in zip(range(count - len(chosen)), others, strict=False))}
    return [int(row) for row in order if int(row) in kept]


def _climb(
    look: Look, at: np.ndarray, merits: np.ndarray, bounds: tuple[float, float], rng: np.random.Generator
) -> None:
    """Pattern search from several points at once: to the best neighbour, or with half the step where none is better."""
    steps, rows = np.full(len(at), _FIRST_STEP), np.arange(len(at))
    for moves in _moves(at.shape[1], rng):
        trials = np.clip((at[:, None] + steps[:, None, None] * moves).round(2), *bounds)
        found = look(trials.reshape(-1, at.shape[1])).reshape(len(at), -1)
        best = found.argmax(1)
        better = found[rows, best] > merits
        at = np.where(better[:, None], trials[rows, best], at)
        merits, steps = np.maximum(merits, found[rows, best]), np.where(better, steps, steps / 2)
        if (steps < _LAST_STEP).all():
            return


def _moves(count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Directions of each round: every coefficient, all together, and mixed ones, for ridges where tasks compete."""
    fixed = np.vstack([np.eye(count), np.ones((1, count))])
    for _ in range(_ROUNDS):
        mixed = rng.integers(-1, 2, size=(count, count))
        yield np.vstack([fixed, -fixed, mixed])
