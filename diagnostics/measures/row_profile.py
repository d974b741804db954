"""How an update is spread over the rows of a matrix: which share of its squared length few rows hold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from scipy.special import chdtrc, chdtri
from torch import Tensor

from diagnostics.errors import InputError, require_share
from diagnostics.results import Result, plain

__all__ = ["RowProfile", "rows_of"]

# A share that is reached to rounding is reached.
_SLACK = 1e-12


@dataclass(frozen=True)
class RowProfile(Result):
    """Squared norms of the rows of a matrix, sorted.

    Attributes:
        squares: ‖row‖², the largest first, [m], float64.
        columns: Entries of a row.
    """

    squares: Tensor
    columns: int

    @property
    def total(self) -> float:
        """‖A‖_F²."""
        return float(self.squares.sum())

    @property
    def zeros(self) -> int:
        """Rows that are zero."""
        return int((self.squares == 0).sum())

    @property
    def effective(self) -> float:
        """Effective number of rows (Σ s)²/Σ s² of squared norms s; m where all are equal, NaN where all are zero."""
        return self.total**2 / float(self.squares.square().sum()) if self.total > 0 else math.nan

    @property
    def gini(self) -> float:
        """Gini coefficient of the squared norms: 0 where all are equal, 1 − 1/m where one row holds everything."""
        if not self.total > 0:
            return math.nan
        count = len(self.squares)
        weights = count + 1 - 2 * torch.arange(1, count + 1, dtype=torch.float64)
        return float(weights @ self.squares) / (count * self.total)

    def held(self, share: float) -> float:
        """Return the share of ‖A‖_F² in the largest rows (3.4).

        Args:
            share: Share of the rows, above 0 and up to 1; rounded to whole rows, at least one.

        Returns:
            Their share of the squared length; NaN for a zero matrix.

        Example:
            >>> RowProfile(torch.tensor([3.0, 1.0]).double(), 2).held(0.5)
            0.75
        """
        count = rows_of(share, len(self.squares))
        return float(self.squares[:count].sum()) / self.total if self.total > 0 else math.nan

    def needed(self, share: float) -> float:
        """Return the share of rows that hold a share of ‖A‖_F², the largest first.

        Args:
            share: Of the squared length, between 0 and 1.

        Returns:
            The least number of rows over m; NaN for a zero matrix.

        Example:
            >>> RowProfile(torch.tensor([3.0, 1.0]).double(), 2).needed(0.7)
            0.5
        """
        require_share("share", share, positive=True)
        if not self.total > 0:
            return math.nan
        reached = self.squares.cumsum(0) >= (share - _SLACK) * self.total
        return (1 + int(reached.int().argmax())) / len(self.squares)

    def null_held(self, share: float) -> float:
        """Return what :meth:`held` is for many rows of independent normal entries.

        Their squared norms are chi-squared with n degrees of freedom: rows above x are a share P(χ²_n > x) of all and
        hold P(χ²_{n+2} > x).

        Args:
            share: Share of the rows.

        Returns:
            Their share of the squared length.

        Example:
            >>> round(RowProfile(torch.ones(4).double(), 100).null_held(0.25), 3)
            0.296
        """
        return float(chdtrc(self.columns + 2, chdtri(self.columns, share)))

    def null_needed(self, share: float) -> float:
        """Return what :meth:`needed` is for many rows of independent normal entries.

        Args:
            share: Of the squared length.

        Returns:
            The share of rows.

        Example:
            >>> round(RowProfile(torch.ones(4).double(), 100).null_needed(0.9), 3)
            0.872
        """
        require_share("share", share, positive=True)
        return float(chdtrc(self.columns, chdtri(self.columns + 2, share)))

    def to_dict(self) -> dict[str, Any]:
        """Return the profile at a few shares of the rows.

        Returns:
            A dictionary ready for JSON.
        """
        shares = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75)
        return plain(
            {
                "rows": len(self.squares),
                "columns": self.columns,
                "total": self.total,
                "zeros": self.zeros,
                "effective": self.effective,
                "gini": self.gini,
                "held": {str(share): self.held(share) for share in shares},
                "null_held": {str(share): self.null_held(share) for share in shares},
            }
        )

    def __str__(self) -> str:
        return (
            f"{len(self.squares)} rows, {self.effective:.4g} effective, Gini {self.gini:.2g}: "
            f"{self.needed(0.9):.0%} hold 90% (random rows: {self.null_needed(0.9):.0%})"
        )


def rows_of(share: float, count: int) -> int:
    """Return how many rows a share of them is.

    Args:
        share: Above 0 and up to 1.
        count: All rows.

    Returns:
        The nearest whole number, at least one.

    Raises:
        InputError: If the share is out of range.

    Example:
        >>> rows_of(0.25, 10), rows_of(0.01, 10)
        (2, 1)
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise InputError(f"rows: expected a share of the rows above 0 and up to 1; found {share!r}. Write 0.25.")
    return max(1, round(share * count))
