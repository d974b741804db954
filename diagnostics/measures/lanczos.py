"""Lanczos and power iteration on a symmetric operator, with ends that are proved rather than hoped for.

Both start from v = (s + ηg/√n)/N, where g is standard Gaussian, s a direction given or zero, and N the norm. For
any unit eigenvector x, |⟨v, x⟩| ≥ c = ηq/(√n N) with probability at least 1 − p, where q is the p/2-quantile
of |standard normal|: shifting a Gaussian by s only takes mass away from around zero (Anderson's inequality).
So the component of v on the extreme eigenvectors cannot be arbitrarily small, and that bounds them from above:

- Lanczos: v_{k+1} = p_k(H)v with the Lanczos polynomial p_k, and ‖v_{k+1}‖ = 1, hence |p_k(λ)| c ≤ 1 for every
  eigenvalue λ; outside the Ritz values |p_k| grows steeply, and where it reaches 1/c is the end of the interval
  (van Dorsselaer, Hochstenbach and van der Vorst, SIAM J. Matrix Anal. Appl. 22, 2000).
- Power iteration: ‖H^k v‖ ≥ c|λ|^k, hence |λ| ≤ (‖H^k v‖/c)^(1/k).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from scipy.special import ndtri
from torch import Tensor

from diagnostics.measures.space import Space
from diagnostics.results import Status

__all__ = ["Spectrum", "lanczos", "power_iteration"]

Matvec = Callable[[Tensor], Tensor]

# Share of randomness mixed into a start direction that the caller gives.
_MIX = 0.1
# A relation u'Hv = v'Hu broken by more than this share of ‖H‖ is not rounding any more.
_ASYMMETRY = 1e-2
# Two iterates closer than this count as one; it bounds how far their difference amplifies rounding.
_PARALLEL = 0.02


@dataclass(frozen=True)
class Spectrum:
    """The extreme eigenvalue found, what is proved about it, and at what cost."""

    eigenvalue: float
    lower: float
    upper: float
    residual: float
    products: int
    asymmetry: float
    status: Status


def _start(space: Space, noise: Tensor, start: Tensor | None, failure: float) -> tuple[Tensor, float]:
    """Return the unit start vector and the component c it has on any eigenvector, but for ``failure``."""
    random = noise / math.sqrt(space.dimension)
    if start is not None and space.norm(start) > 0:
        mixed, share = start / space.norm(start) + _MIX * random, _MIX
    else:
        mixed, share = random, 1.0
    length = space.norm(mixed)
    quantile = float(ndtri(0.5 + failure / 2))
    return mixed / length, share * quantile / (math.sqrt(space.dimension) * length)


def _rounding(dtype: torch.dtype, steps: int) -> float:
    """Relative allowance for rounding after some steps."""
    return 8 * (steps + 1) * torch.finfo(dtype).eps


def lanczos(
    matvec: Matvec,
    noise: Tensor,
    *,
    start: Tensor | None = None,
    rtol: float = 1e-2,
    max_products: int = 100,
    confidence: float = 0.999,
    upper_rtol: float | None = None,
    space: Space | None = None,
) -> Spectrum:
    """Run Lanczos with full reorthogonalisation until residual and interval are within tolerance.

    Args:
        matvec: The symmetric operator, [n] to [n].
        noise: Standard Gaussian vector, [n]; all randomness there is.
        start: A direction to begin with.
        rtol: Relative tolerance on the residual.
        max_products: Budget of products.
        confidence: Probability with which the upper end holds, 1/2 of the failures for each end of the spectrum.
        upper_rtol: Relative tolerance on the upper end; that on the residual by default. It is cheap to have the upper
            end within a factor of two, and costs twice the products or more to have it within 1 %.
        space: The space of the vectors, where processes hold parts of them.

    Returns:
        The extreme eigenvalue of largest absolute value and the interval of its absolute value.
    """
    space = space or Space(noise.numel())
    vector, component = _start(space, noise, start, (1 - confidence) / 2)
    basis, asymmetry = [vector], 0.0
    alphas: list[float] = []
    betas: list[float] = []
    budget, wanted = min(max_products, space.dimension), 1 + (rtol if upper_rtol is None else upper_rtol)
    while True:
        image = matvec(basis[-1])
        alphas.append(space.dot(basis[-1], image))
        if len(basis) > 1:
            asymmetry = max(asymmetry, abs(space.dot(basis[-2], image) - betas[-1]))
        image = _orthogonal(space, image, basis, alphas[-1], betas)
        betas.append(space.norm(image))
        if not math.isfinite(betas[-1]):
            return Spectrum(math.nan, 0.0, math.inf, math.nan, len(alphas), asymmetry, Status.UNDEFINED)
        found = _judge(space, alphas, betas, component, asymmetry, noise, rtol)
        close = found.residual <= rtol * abs(found.eigenvalue) and found.upper <= wanted * abs(found.eigenvalue)
        if close or found.status in {Status.EXACT, Status.TAINTED} or len(alphas) == budget:
            return found
        basis.append(image / betas[-1])


def _orthogonal(space: Space, image: Tensor, basis: list[Tensor], alpha: float, betas: list[float]) -> Tensor:
    """What of an image no earlier vector has: by the three-term recurrence, and once more by all of them."""
    rest = image.sub(basis[-1], alpha=alpha)  # a copy: an operator may return what it was given
    if betas:
        rest.sub_(basis[-2], alpha=betas[-1])
    # Twice is enough: the recurrence was the first time.
    for member in basis:
        rest.sub_(member, alpha=space.dot(member, rest))
    return rest


def _judge(
    space: Space,
    alphas: list[float],
    betas: list[float],
    component: float,
    asymmetry: float,
    noise: Tensor,
    rtol: float,
) -> Spectrum:
    """Read the extreme Ritz pair, its interval and its status off the tridiagonal matrix."""
    steps = len(alphas)
    ritz, vectors = eigh_tridiagonal(np.array(alphas), np.array(betas[:-1]))
    top = int(np.argmax(np.abs(ritz)))
    value, residual = abs(float(ritz[top])), betas[-1] * abs(float(vectors[-1, top]))
    slack = _rounding(noise.dtype, steps) * max(value, betas[-1])
    # A random start has a part in every eigenspace: an invariant Krylov space has seen every eigenvalue.
    exhausted = steps == space.dimension or betas[-1] <= slack
    if exhausted:
        upper = value + slack + residual
    else:
        ends = [_polynomial_end(sign, ritz, alphas, betas, 1 / component) for sign in (1, -1)]
        upper = max(ends) + slack
    status = _status(value, residual, upper, exhausted, rtol)
    if asymmetry > _ASYMMETRY * value + slack:
        status = Status.TAINTED
    return Spectrum(float(ritz[top]), max(value - slack, 0.0), upper, residual, steps, asymmetry, status)


def _status(value: float, residual: float, upper: float, exhausted: bool, rtol: float) -> Status:
    """Converged only if the residual is small and no larger eigenvalue remains likely."""
    if exhausted:
        return Status.EXACT
    if residual > rtol * value:
        return Status.NOT_CONVERGED
    return Status.CONVERGED if upper <= (1 + rtol) * value else Status.LOWER_BOUND


def _polynomial_end(sign: int, ritz: np.ndarray, alphas: list[float], betas: list[float], target: float) -> float:
    """Return t (times sign) beyond the Ritz values where the Lanczos polynomial reaches ``target``."""
    edge = float(ritz[-1] if sign > 0 else -ritz[0])

    def reached(t: float) -> bool:
        previous, current = 0.0, 1.0
        for before, alpha, beta in zip([0.0, *betas[:-1]], alphas, betas, strict=True):
            # Beyond the Ritz values all terms have one sign, so nothing cancels.
            previous, current = current, ((t - sign * alpha) * current - before * previous) / beta
            if current > 1e150:
                return True
        return current >= target

    width = max(betas[-1], 1e-12 * abs(edge)) or 1.0
    while not reached(edge + width):
        width *= 2
    low, high = 0.0, width
    while high - low > 1e-6 * max(abs(edge), high):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(edge + middle) else (middle, high)
    return edge + high


def power_iteration(
    matvec: Matvec,
    noise: Tensor,
    *,
    start: Tensor | None = None,
    rtol: float = 1e-2,
    max_products: int = 100,
    confidence: float = 0.999,
    space: Space | None = None,
) -> Spectrum:
    """Run power iteration until the residual is within tolerance.

    The eigenpair is read off the span of the last two iterates, which resolves a tie between λ and −λ that the
    plain Rayleigh quotient averages away.

    Args:
        matvec: The symmetric operator, [n] to [n].
        noise: Standard Gaussian vector, [n]; all randomness there is.
        start: A direction to begin with.
        rtol: Relative tolerance on the residual.
        max_products: Budget of products.
        confidence: Probability with which the upper end holds.
        space: The space of the vectors, where processes hold parts of them.

    Returns:
        The eigenvalue of largest absolute value and the interval of its absolute value. Power iteration proves
        little from above, so its status is rarely better than ``LOWER_BOUND``.
    """
    space = space or Space(noise.numel())
    vector, component = _start(space, noise, start, 1 - confidence)
    image, log_growth, asymmetry, products = matvec(vector), -math.log(component), 0.0, 1
    eigenvalue, residual, settled = space.dot(vector, image), math.inf, False
    while math.isfinite(length := space.norm(image)):
        if length == 0:
            # A random start that H takes to zero has probability zero, unless H = 0.
            return Spectrum(0.0, 0.0, 0.0, 0.0, products, asymmetry, Status.EXACT)
        log_growth += math.log(length)
        if settled or products == max_products:
            break
        following = image / length
        following_image = matvec(following)
        eigenvalue, residual, skew = _ritz_of_two(space, vector, image, following, following_image)
        asymmetry, products = max(asymmetry, skew), products + 1
        settled = residual <= rtol * abs(eigenvalue)
        vector, image = following, following_image
    else:
        return Spectrum(math.nan, 0.0, math.inf, math.nan, products, asymmetry, Status.UNDEFINED)
    value, slack = (
        abs(eigenvalue),
        _rounding(noise.dtype, products) / _PARALLEL * max(abs(eigenvalue), length),
    )
    exhausted = settled and space.dimension == 1
    upper = value + slack if exhausted else max(math.exp(log_growth / products), value) + slack
    status = _status(value, residual, upper, exhausted, rtol)
    if asymmetry > _ASYMMETRY * value + slack:
        status = Status.TAINTED
    return Spectrum(eigenvalue, max(value - slack, 0.0), upper, residual, products, asymmetry, status)


def _ritz_of_two(
    space: Space, vector: Tensor, image: Tensor, other: Tensor, other_image: Tensor
) -> tuple[float, float, float]:
    """Best eigenpair in the span of two unit vectors whose images are known: (eigenvalue, residual, asymmetry)."""
    overlap = space.dot(vector, other)
    second = other - overlap * vector
    size = space.norm(second)
    if size < _PARALLEL:  # the newer vector alone is accurate, the difference is not
        rayleigh = space.dot(other, other_image)
        return rayleigh, space.norm(other_image - rayleigh * other), 0.0
    second, second_image = second / size, (other_image - overlap * image) / size
    cross, mirrored = space.dot(vector, second_image), space.dot(second, image)
    mean = (cross + mirrored) / 2
    values, vectors = np.linalg.eigh([[space.dot(vector, image), mean], [mean, space.dot(second, second_image)]])
    top = int(np.argmax(np.abs(values)))
    a, b = vectors[:, top]
    ritz = a * vector + b * second
    residual = space.norm(a * image + b * second_image - values[top] * ritz)
    return float(values[top]), residual, abs(cross - mirrored)
