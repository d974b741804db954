"""Outputs of a merge from outputs of single models: a Gaussian process over the coefficients (5.1)-(5.3).

Every output of every example is a smooth function of the coefficients, f(λ) = f(x; θ0 + Σ λ_j τ_j). Its values are
known where one expert stands alone, and so are its derivatives towards every other expert there. All these functions
are taken as draws of one Gaussian process,

    f(λ) = (polynomial trend) + g(λ),   Cov(g(u), g(v)) = σ² (1 + ‖u − v‖²_G / (2 a ℓ²))^(−a),

where ‖w‖²_G = wᵀ G w over the mean of G's diagonal is the squared distance of two merges in parameter space: equal
merges have equal outputs, whichever experts they are made of. The posterior mean is the prediction, the posterior
variance its uncertainty. The mean is linear in the data with weights that depend on the coefficients alone, so they
are computed once for all examples and outputs; a polynomial of the trend's degree is reproduced exactly. σ² is
estimated from the data of each output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

__all__ = ["CoefficientProcess", "Posterior", "coordinates", "fit_process"]

# ℓ where nothing tells it, in units of one expert's whole update, and a: on this scale outputs bend.
LENGTH, SHAPE = 1.5, 2.0
# Values of ℓ that data choose among.
LENGTHS = (0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
# Variance of a measured derivative beyond the smooth function's, in units of σ²: kinks of activations are smaller
# than ℓ. It also keeps the system well-conditioned, as _NUGGET does for values.
ROUGHNESS, _NUGGET = 1e-3, 1e-8


@dataclass(frozen=True)
class Posterior:
    """What the process says at one point.

    Attributes:
        weights: One weight for each observation, [N]: the prediction is their sum with the observed outputs.
        variance: Variance of the prediction in units of σ².
    """

    weights: np.ndarray
    variance: float


def coordinates(gram: np.ndarray) -> np.ndarray:
    """Return where each expert alone lies, in units in which the mean squared length is one.

    Args:
        gram: Inner products of the task vectors, [T, T].

    Returns:
        One row an expert, [T, T], whose inner products are those of ``gram``, scaled.

    Example:
        >>> opposite = coordinates(np.array([[4.0, -4.0], [-4.0, 4.0]]))
        >>> np.abs(opposite.sum(0)).max().round(9).item()  # they cancel
        0.0
    """
    scale = np.diagonal(gram).mean()
    if scale <= 0:
        return np.zeros_like(gram, dtype=float)
    values, directions = np.linalg.eigh(np.asarray(gram, float) / scale)
    # Below rounding there is no direction left: collinear vectors span one.
    kept = np.where(values > 1e-10 * values[-1], values, 0.0)
    return directions * np.sqrt(kept)


class CoefficientProcess:
    """A Gaussian process over coefficients, conditioned on values and directional derivatives.

    Args:
        points: Coefficients at which outputs were observed, [N, T].
        directions: Direction of the derivative observed there, [N, T]; a row of zeros for a value.
        gram: Inner products of the task vectors, [T, T]; orthonormal ones by default.
        degree: Degree of the polynomial trend, 1 or 2.
        length: ℓ, in units of the root mean square norm of the task vectors.

    Example:
        >>> points, directions = np.array([[0.0], [1.0], [0.0]]), np.array([[0.0], [0.0], [1.0]])
        >>> process = CoefficientProcess(points, directions)  # f(0) = 1, f(1) = 3 and f'(0) = 2: a line
        >>> round(float(process.at([1.5]).weights @ [1.0, 3.0, 2.0]), 9)
        4.0
    """

    def __init__(
        self,
        points: Sequence[Sequence[float]] | np.ndarray,
        directions: Sequence[Sequence[float]] | np.ndarray,
        gram: np.ndarray | None = None,
        *,
        degree: int = 1,
        length: float = LENGTH,
    ) -> None:
        towards = np.asarray(directions, float)
        self._basis = np.eye(towards.shape[1]) if gram is None else coordinates(gram)
        self._points, self._directions = np.asarray(points, float) @ self._basis, towards @ self._basis
        self._degree, self.length = degree, length
        covariance = _covariance(self._points, self._directions, self._points, self._directions, length)
        covariance += np.diag(_NUGGET + ROUGHNESS * (self._directions**2).sum(1))
        trend = _trend(self._points, self._directions, degree)
        size = trend.shape[1]
        system = np.block([[covariance, trend], [trend.T, np.zeros((size, size))]])
        # A derivative along a vector of no length says nothing.
        used = ~towards.any(1) | self._directions.any(1)
        kept = np.flatnonzero(np.append(used, np.ones(size, bool)))
        self._inverse = np.zeros_like(system)
        # Where the observations do not determine the trend, the least change of it is taken.
        self._inverse[np.ix_(kept, kept)] = np.linalg.pinv(system[np.ix_(kept, kept)], rcond=1e-12, hermitian=True)
        self._trend = np.where(used[:, None], trend, 0.0)
        self._fit = np.linalg.pinv(self._trend)
        self._free = max(1, int(used.sum() - np.linalg.matrix_rank(trend[used])))

    def at(self, coefficients: Sequence[float]) -> Posterior:
        """Return weights and variance of the prediction at λ.

        Args:
            coefficients: λ, [T].

        Returns:
            The posterior.
        """
        return Posterior(self.weights([coefficients])[0], max(0.0, float(self.covariance([coefficients])[0, 0])))

    def weights(self, points: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
        """Return the weights of :meth:`at` for many λ at once.

        Args:
            points: λ of each point, [K, T].

        Returns:
            One row of weights for each point, [K, N].
        """
        right, count = self._right(np.asarray(points, float)), len(self._points)
        weights = right @ self._inverse[:, :count]
        # What rounding has left over of the trend's polynomials, which are to be exact.
        return weights + (right[:, count:] - weights @ self._trend) @ self._fit

    def covariance(self, points: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
        """Return how the errors of predictions at several λ go together.

        Args:
            points: λ of each point, [K, T].

        Returns:
            Joint posterior covariance in units of σ², [K, K]; its diagonal is the variance of :meth:`at`.
        """
        right, at = self._right(np.asarray(points, float)), np.asarray(points, float) @ self._basis
        values = np.zeros_like(at)
        return _covariance(at, values, at, values, self.length) - right @ self._inverse @ right.T

    def _right(self, points: np.ndarray) -> np.ndarray:
        """Covariance of the values at some points with the observations, and the trend there."""
        at = points @ self._basis
        values = np.zeros_like(at)
        covariance = _covariance(at, values, self._points, self._directions, self.length)
        return np.hstack([covariance, _trend(at, values, self._degree)])

    def held_out_error(self, block: np.ndarray, moments: np.ndarray) -> float:
        """Return the squared error of a block of observations, predicted from all others.

        With Q of :meth:`energy`, the errors are Q_BB⁻¹ (Q y)_B: no second fit is needed.

        Args:
            block: True for the observations left out, [N].
            moments: Sum of y yᵀ over the outputs, [N, N].

        Returns:
            The squared error, summed over the block and the outputs.
        """
        count = len(self._points)
        left = np.flatnonzero(block)
        rows = self._inverse[left, :count]
        solved = np.linalg.pinv(rows[:, left], hermitian=True) @ rows
        return float(np.einsum("ij,jk,ik->", solved, moments, solved))

    def energy(self) -> np.ndarray:
        """Return Q [N, N] with σ² = yᵀ Q y for the observations y of one output.

        Returns:
            The matrix of the restricted likelihood's estimate of σ²; polynomials of the trend have σ² = 0.
        """
        count = len(self._points)
        return self._inverse[:count, :count] / self._free


def fit_process(
    points: np.ndarray, directions: np.ndarray, gram: np.ndarray, degree: int, block: np.ndarray, moments: np.ndarray
) -> CoefficientProcess:
    """Return the process whose ℓ predicts a block of the observations best from all others.

    Args:
        points: Coefficients at which outputs were observed, [N, T].
        directions: Direction of the derivative observed there, [N, T]; a row of zeros for a value.
        gram: Inner products of the task vectors, [T, T].
        degree: Degree of the polynomial trend.
        block: True for the observations to predict, [N]; ℓ is 1.5 where there are none.
        moments: Sum of y yᵀ over the outputs, [N, N].

    Returns:
        The process, conditioned on all observations.

    Example:
        >>> points, slopes = np.array([[0.0], [0.5], [1.0], [1.0]]), np.array([[0.0], [0.0], [0.0], [1.0]])
        >>> wave = np.sin(3 * points[:, 0]) * (slopes[:, 0] == 0) + 3 * np.cos(3 * points[:, 0]) * (slopes[:, 0] == 1)
        >>> fit_process(points, slopes, np.eye(1), 1, slopes[:, 0] == 1, np.outer(wave, wave)).length  # it bends early
        1.0
    """
    if not block.any():
        return CoefficientProcess(points, directions, gram, degree=degree)
    candidates = [CoefficientProcess(points, directions, gram, degree=degree, length=each) for each in LENGTHS]
    return min(candidates, key=lambda process: process.held_out_error(block, moments))


def _covariance(u: np.ndarray, a: np.ndarray, v: np.ndarray, b: np.ndarray, length: float) -> np.ndarray:
    """Covariance of values (zero rows of ``a``, ``b``) and derivatives along ``a`` at ``u`` and ``b`` at ``v``."""
    u, a, v, b = (array / length for array in (u, a, v, b))
    is_slope, is_slope_too = (a != 0).any(1)[:, None], (b != 0).any(1)[None]
    base = 1 + ((u[:, None] - v[None]) ** 2).sum(-1) / (2 * SHAPE)
    # k as a function of s = ‖u − v‖²/2, and its first two derivatives.
    k, k1, k2 = base**-SHAPE, -(base ** (-SHAPE - 1)), (SHAPE + 1) / SHAPE * base ** (-SHAPE - 2)
    along_a = (a * u).sum(1)[:, None] - a @ v.T
    along_b = (b * v).sum(1)[None] - u @ b.T
    both = k2 * along_a * along_b - k1 * (a @ b.T)
    one = np.where(is_slope, k1 * along_a, np.where(is_slope_too, k1 * along_b, k))
    return np.where(is_slope & is_slope_too, both, one)


def _trend(points: np.ndarray, directions: np.ndarray, degree: int) -> np.ndarray:
    """Monomials up to a degree, or their derivatives, at each observation."""
    is_slope = (directions != 0).any(1)[:, None]
    columns = [np.where(is_slope, 0.0, 1.0), np.where(is_slope, directions, points)]
    if degree == 2:
        for j, k in combinations_with_replacement(range(points.shape[1]), 2):
            slope = directions[:, j] * points[:, k] + points[:, j] * directions[:, k]
            columns.append(np.where(is_slope[:, 0], slope, points[:, j] * points[:, k])[:, None])
    return np.hstack(columns)
