"""Sums of means over the examples of several tasks, with what the examples leave open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.special import betaincinv, stdtrit
from torch import Tensor

from diagnostics.results import Result

__all__ = ["GridEstimate", "add_up", "mean_of", "no_error", "share_of"]


@dataclass(frozen=True)
class GridEstimate(Result):
    """Numbers at many points, each with its standard error and its interval, all of one shape.

    Attributes:
        values: The numbers, float64.
        stderr: Their standard errors over examples; 0 where every example agrees, NaN for a single example.
        lower: Lower ends of the intervals, each for itself.
        upper: Upper ends; above the value even where the standard error is 0, unless no sample was needed.
    """

    values: Tensor
    stderr: Tensor
    lower: Tensor
    upper: Tensor

    def __getitem__(self, index: int | tuple[int, ...]) -> GridEstimate:
        parts = (self.values, self.stderr, self.lower, self.upper)
        return GridEstimate(*(part[index] for part in parts))

    def reshape(self, shape: Sequence[int]) -> GridEstimate:
        """Return the same numbers in another shape.

        Args:
            shape: The shape.

        Returns:
            The numbers.
        """
        parts = (self.values, self.stderr, self.lower, self.upper)
        return GridEstimate(*(part.reshape(tuple(shape)) for part in parts))


def no_error(count: int) -> GridEstimate:
    """Return zeros that no sample is needed for: a model compared with itself.

    Args:
        count: How many.

    Returns:
        The zeros, [count].

    Example:
        >>> no_error(2).upper.tolist()
        [0.0, 0.0]
    """
    return GridEstimate(*torch.zeros(4, count, dtype=torch.float64).unbind())


def share_of(rows: Tensor, confidence: float) -> GridEstimate:
    """Return shares of examples with Clopper–Pearson intervals.

    The squared standard error p(1 − p)/(n − 1) is the unbiased estimate of the variance of the share p.

    Args:
        rows: Zeros and ones, [n, m]: n examples at m points.
        confidence: Of each interval; it holds for every n and every true share.

    Returns:
        The shares, [m].

    Example:
        >>> found = share_of(torch.zeros(50, 1), 0.9)
        >>> found.values.item(), found.stderr.item(), round(found.upper.item(), 3)
        (0.0, 0.0, 0.058)
    """
    count, hits = len(rows), rows.double().sum(0).numpy()
    tail, share = (1 - confidence) / 2, torch.as_tensor(hits / count)
    # The formula has no value at its ends, where the interval reaches them.
    lower = torch.as_tensor(betaincinv(hits, count - hits + 1, tail)).nan_to_num(0.0)
    upper = torch.as_tensor(betaincinv(hits + 1, count - hits, 1 - tail)).nan_to_num(1.0)
    stderr = (share * (1 - share) / (count - 1)).sqrt() if count > 1 else torch.full_like(share, math.nan)
    return GridEstimate(share, stderr, lower, upper)


def mean_of(rows: Tensor, ceiling: float | None, confidence: float) -> GridEstimate:
    """Return means of values that are not negative, with Student's intervals and room for what was not seen.

    Args:
        rows: Values, [n, m]: n examples at m points.
        ceiling: The largest value possible. A share of up to 1 − q^(1/n) of all inputs, q = (1 − confidence)/2, may lie
            beyond every value seen, and that much is added; without a ceiling Student's interval stands alone.
        confidence: Of each interval, nearly.

    Returns:
        The means, [m].

    Example:
        >>> found = mean_of(torch.zeros(50, 1), 1.0, 0.9)
        >>> found.values.item(), round(found.upper.item(), 3)
        (0.0, 0.058)
    """
    rows, count, tail = rows.double(), len(rows), (1 - confidence) / 2
    mean, top = rows.mean(0), math.inf if ceiling is None else ceiling
    if count < 2:
        ends = torch.zeros_like(mean), torch.full_like(mean, top)
        return GridEstimate(mean, torch.full_like(mean, math.nan), *ends)
    stderr = rows.std(0) / math.sqrt(count)
    half = float(stdtrit(count - 1, 1 - tail)) * stderr
    unseen = 1 - tail ** (1 / count)
    lower = (mean - half - unseen * rows.amin(0)).clamp_min(0)
    if ceiling is None:
        # Equal values say nothing about how far others may lie from them.
        return GridEstimate(mean, stderr, lower, torch.where(stderr > 0, mean + half, math.inf))
    upper = (mean + half + unseen * (ceiling - rows.amax(0))).clamp_max(ceiling)
    return GridEstimate(mean, stderr, lower, upper)


def add_up(parts: Sequence[GridEstimate]) -> GridEstimate:
    """Return sums of independent estimates: distances to the ends of the intervals add up by their squares.

    Args:
        parts: The estimates, of one shape.

    Returns:
        Their sums.

    Example:
        >>> one = share_of(torch.zeros(50, 1), 0.9)
        >>> round((add_up([one, one]).upper / one.upper).item(), 4)  # the root of 2
        1.4142
    """
    sums = {key: torch.stack([getattr(part, key) for part in parts]) for key in ("values", "stderr", "lower", "upper")}
    values, stderr = sums["values"].sum(0), sums["stderr"].square().sum(0).sqrt()
    below, above = (
        # A single example gives no spread that could average out: there the ends themselves add up.
        torch.where(stderr.isnan(), distance.sum(0), distance.square().sum(0).sqrt())
        for distance in (sums["values"] - sums["lower"], sums["upper"] - sums["values"])
    )
    return GridEstimate(values, stderr, (values - below).clamp_min(0), values + above)
