"""Squared norms and inner products of mean gradients without the bias of a finite sample (1.14)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from scipy.special import ndtri, stdtrit
from torch import Tensor

from diagnostics.results import Estimate, Status

__all__ = ["CONFIDENCE", "FoldGram", "FormValue", "norm_stderr"]

CONFIDENCE = 0.9

Name = Any  # hashable
Coefficients = Mapping[Name, float]


@dataclass(frozen=True)
class FormValue:
    """An unbiased estimate of a quadratic form in mean gradients, from disjoint folds of the data.

    Attributes:
        value: The estimate; that of a square may be negative.
        stderr: Its standard error; NaN with fewer than four folds.
        folds: How many folds it comes from.
    """

    value: float
    stderr: float
    folds: int

    @property
    def margin(self) -> float:
        """Half-width of the 90 % interval, by Student's t for the folds."""
        return float(stdtrit(max(self.folds - 1, 1), (1 + CONFIDENCE) / 2)) * self.stderr

    def norm(self, evidence: str = "") -> Estimate:
        """Return the norm whose square this estimates.

        The estimate of a squared norm is skewed: too low, it also looks too sure. So the interval reaches up as far as
        on a logarithmic scale, and down as far as on the scale of squares, which includes zero where it should.

        Args:
            evidence: What the estimate rests on.

        Returns:
            The root of the value, 0 where that is negative, with its interval.

        Example:
            >>> print(FormValue(4.0, 0.5, 8).norm())
            2 [1.747, 2.251]
        """
        if math.isnan(self.stderr):
            return Estimate(_root(self.value), math.nan, math.nan, CONFIDENCE, Status.UNDEFINED, evidence)
        lower, upper = _root(self.value - self.margin), _root(self._above())
        return Estimate(_root(self.value), lower, upper, CONFIDENCE, Status.CONVERGED, evidence)

    def doubt(self, what: str, then: str) -> str:
        """Say why nothing can be divided by this.

        Args:
            what: What it is.
            then: What follows where it cannot be told from zero.

        Returns:
            A phrase.
        """
        if math.isnan(self.stderr):
            return f"no standard error with {self.folds} folds: it takes four"
        return f"{what} cannot be told from zero: {then}"

    def _above(self) -> float:
        """Upper end for a square: logarithmic where zero is excluded, additive at zero, joined without a step."""
        if self.value > 0 and self.value >= self.margin:
            return self.value * math.exp(self.margin / self.value)
        return self.margin + (math.e - 1 if self.value > 0 else 1) * self.value


@dataclass(frozen=True)
class FoldGram:
    """All inner products of the fold means of some gradients.

    A product of means over *disjoint* folds estimates the product of the expectations without bias, while the
    square of one mean of n gradients is too large by tr(Cov)/n (1.14).

    Attributes:
        names: The gradients.
        products: ⟨a_f, b_f'⟩ for gradients a, b and folds f, f', [F, A, F, A], float64.
        weights: Share of each gradient's examples in each fold, [F, A]; columns add up to one.
        plugin: Inner products of the means over all examples, [A, A].
    """

    names: tuple[Name, ...]
    products: Tensor
    weights: Tensor
    plugin: Tensor

    @property
    def folds(self) -> int:
        """Number of folds F."""
        return len(self.weights)

    @cached_property
    def unbiased(self) -> Tensor:
        """Unbiased inner products of the expected gradients, [A, A]; NaN with a single fold."""
        same = torch.einsum("fa,fb,fafb->ab", self.weights, self.weights, self.products)
        kept = 1 - self.weights.T @ self.weights
        return torch.where(kept > 1e-12, (self.plugin - same) / kept, math.nan)

    def row(self, coefficients: Coefficients) -> Tensor:
        """Write a linear combination of the gradients as a row.

        Args:
            coefficients: By name; the others are zero.

        Returns:
            The coefficients in the order of ``names``, [A], float64.
        """
        row = torch.zeros(len(self.names), dtype=torch.float64)
        for name, value in coefficients.items():
            row[self.names.index(name)] = value
        return row

    def form(self, matrix: Tensor) -> FormValue:
        """Estimate Σ_ab M_ab ⟨E a, E b⟩ with its standard error.

        Args:
            matrix: The coefficients M, [A, A].

        Returns:
            The estimate; exactly unbiased for independent folds.
        """
        matrix = (matrix + matrix.T) / 2
        scaled = self.folds * self.weights
        pairs = torch.einsum("fa,ab,gb,fagb->fg", scaled, matrix, scaled, self.products)
        return FormValue(float((matrix * self.unbiased).sum()), _stderr((pairs + pairs.T) / 2), self.folds)

    def square(self, row: Tensor) -> FormValue:
        """Estimate the squared norm of a linear combination.

        Args:
            row: Its coefficients, [A].

        Returns:
            The estimate of ‖Σ c_a E a‖².
        """
        return self.form(torch.outer(row, row))

    def ratio(self, above: Tensor, below: Tensor) -> FormValue:
        """Estimate the quotient of two quadratic forms.

        The error of the numerator and that of the denominator are correlated, so the standard error is that of
        their difference at the estimated quotient (the delta method).

        Args:
            above: Coefficients of the numerator, [A, A].
            below: Coefficients of the denominator, [A, A].

        Returns:
            The estimate; NaN where the denominator is not positive.
        """
        divisor = self.form(below).value
        if not divisor > 0:
            return FormValue(math.nan, math.nan, self.folds)
        quotient = self.form(above).value / divisor
        return FormValue(quotient, self.form(above - quotient * below).stderr / divisor, self.folds)


def norm_stderr(estimate: Estimate) -> float:
    """Return a standard error such that value ± 1.645 of it spans the estimate's interval.

    The interval of a root is not symmetric near zero; its wider side counts.

    Args:
        estimate: A norm.

    Returns:
        The standard error.

    Example:
        >>> round(norm_stderr(Estimate(0.0, 0.0, 1.645, 0.9, Status.CONVERGED)), 3)
        1.0
    """
    wider = max(estimate.value - estimate.lower, estimate.upper - estimate.value)
    return wider / float(ndtri((1 + estimate.confidence) / 2))


def _stderr(pairs: Tensor) -> float:
    """Standard error of the mean of h(f, f') over distinct folds, a U-statistic of order two."""
    # Its variance is [2 (E h₁₂² − θ²) + 4 (F − 2)(E h₁₂h₁₃ − θ²)] / F(F − 1) with θ² = E h₁₂h₃₄. Each expectation is a
    # mean over all folds that fit. Neither part of a variance is negative, and cutting both at zero errs toward wide
    # intervals near θ = 0, where they would be too narrow without.
    count = len(pairs)
    if count < 4:
        return math.nan
    off = pairs - torch.diag(pairs.diagonal())
    squares, rows, total = float((off**2).sum()), float((off.sum(1) ** 2).sum()), float(off.sum())
    two = count * (count - 1)
    three = two * (count - 2)
    same = squares / two
    shared = (rows - squares) / three
    apart = (total**2 - 4 * rows + 2 * squares) / (three * (count - 3))
    return math.sqrt((2 * max(same - apart, 0.0) + 4 * (count - 2) * max(shared - apart, 0.0)) / two)


def _root(value: float) -> float:
    """The root, 0 below zero; NaN stays, as the first of two arguments does."""
    return math.sqrt(max(value, 0.0))
