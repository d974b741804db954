"""The error of a mean over examples that were drawn."""

from __future__ import annotations

import math

from torch import Tensor

__all__ = ["score_unit", "standard_error"]


def standard_error(values: Tensor, unit: float = 0.0) -> float:
    """Return the standard error of a mean; where no example differed, some that were not drawn would have.

    Args:
        values: One value an example, [n].
        unit: How much one example can change. Two more examples are counted that change by it, one each way; none
            where it is zero.

    Returns:
        The standard error.

    Example:
        >>> import torch
        >>> standard_error(torch.zeros(6)), round(standard_error(torch.zeros(6), 1.0), 3)
        (0.0, 0.189)
    """
    more = 2 if unit else 0
    squares = float((values - values.mean()).double().square().sum()) + more * unit**2
    return math.sqrt(squares / max(1, len(values) + more - 1) / (len(values) + more))


def score_unit(scores: Tensor) -> float:
    """Return how much the score of one example can change.

    Args:
        scores: Scores that were seen.

    Returns:
        1 for shares from 0 to 1, else the range that was seen.
    """
    low, high = float(scores.min()), float(scores.max())
    return 1.0 if low >= 0 and high <= 1 else high - low
