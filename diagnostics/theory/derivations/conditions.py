"""Assumptions of the loss-gap bounds, each one predicate on measured or drawn numbers."""

from __future__ import annotations

from diagnostics.theory.derivations.derivation import Condition
from diagnostics.theory.loss_gap import Curvature, LossGap

__all__ = [
    "ANCHORED",
    "DIFFERENTIABLE",
    "EXPERT_BEATS_BASE",
    "LOSS",
    "LOWER_SIDE",
    "POINTS_THE_WAY",
    "SIMILARITY",
    "SIMPLEX",
    "SMOOTH",
    "SMOOTH_ABOVE",
    "STATIONARY",
    "UNIT_COEFFICIENT",
]

# A sum of coefficients that is this far from one has been rounded, not chosen.
_OFF_SIMPLEX = 1e-9


def _gradient_limit(case: LossGap) -> float:
    """A gradient this small moves the bound by at most one part in a thousand of its curvature term."""
    return float(5e-4 * case.way.spectral.value * case.way.norm_squared**0.5)


def _largest_curvature(case: LossGap) -> float:
    """The largest curvature at any point that was measured, in any direction that was."""
    way = case.way
    along = [abs(c) / way.norm_squared for c in way.curvatures] if way.norm_squared else []
    return max([*along, *way.subspace, *way.spectral_along], default=0.0)


def _within_smoothness(case: LossGap) -> bool | None:
    """Whether the curvature on the way stays below L, which is known up to an interval."""
    value, limit = _largest_curvature(case), case.way.spectral
    return at_most(value, limit, 1e-5 * max(value, limit.value))


def at_most(value: float, limit: Curvature, rounding: float) -> bool | None:
    """Compare with a limit that is an interval.

    Args:
        value: A number.
        limit: The interval.
        rounding: What is allowed above it.

    Returns:
        ``None`` inside the interval.
    """
    if value <= limit.lower + rounding:
        return True
    return False if value > limit.upper + rounding else None


def _off_simplex(case: LossGap) -> float:
    """How far the coefficients are from non-negative numbers that add up to one."""
    return max(abs(sum(case.coefficients) - 1), -min(case.coefficients), 0.0)


def _outside_unit(case: LossGap) -> float:
    """How far the coefficient of a negation is outside [0, 1]."""
    return max(-case.coefficients[0], case.coefficients[0] - 1, 0.0)


STATIONARY = Condition(
    "stationary", "(A1) the gradient vanishes at the expert", lambda case: case.way.gradient_norm, _gradient_limit
)
# The same of a drawn merge, whose gradient is zero or not.
ANCHORED = Condition(
    "stationary",
    "(A1) the gradient vanishes at the expert",
    lambda merge: abs(merge.task.gradient(merge.task.anchor)).max(),
)
DIFFERENTIABLE = Condition(
    "differentiable",
    "(2.5) value, slope and curvature along the way agree, as for a twice differentiable loss",
    lambda case: case.way.mismatch,
    lambda case: case.way.tolerance,
)
SMOOTH = Condition(
    "smooth",
    "(A2, 2.6) curvature on the way, at the points measured, is at most L at the expert",
    _largest_curvature,
    lambda case: case.way.spectral.value,
    _within_smoothness,
)
LOWER_SIDE = Condition(
    "lower side",
    "(A2 from below) the base's loss is at least the expert's less L C / 2",
    lambda case: case.way.offset,
    lambda case: case.way.spectral.value * case.C / 2,
)
SMOOTH_ABOVE = Condition(
    "smooth",
    "(A2) as stated: the loss at the merge is at most that of the parabola of curvature L at the expert",
    lambda case: case.way.end - case.way.start,
    lambda case: case.way.slope + case.way.spectral.value * case.way.norm_squared / 2,
)
EXPERT_BEATS_BASE = Condition(
    "minimum", "(2.7) the expert's loss is no higher than the base's", lambda case: case.way.offset
)
SIMPLEX = Condition(
    "simplex", "(A3) coefficients are not negative and add up to one", _off_simplex, lambda case: _OFF_SIMPLEX
)
UNIT_COEFFICIENT = Condition(
    "coefficient",
    "(A3) the negated coefficient is between 0 and 1",
    lambda case: case.coefficients[0],
    lambda case: 1.0,
    lambda case: _outside_unit(case) == 0,
)
SIMILARITY = Condition(
    "similarity",
    "(A4) holds by definition with the measured eps",
    lambda case: case.epsilon,
    lambda case: 1.0,
)
POINTS_THE_WAY = Condition(
    "similarity",
    "(A5) some expert points the target's way",
    lambda case: case.beta,
    lambda case: 0.0,
    lambda case: case.beta > 0,
)
# What every bound assumes of the loss.
LOSS = (STATIONARY, DIFFERENTIABLE, SMOOTH)
