"""What the loss-gap bounds share: the chain (2.5) from a measured gap upwards, its assumptions and its report.

Numbers in, claims out: nothing here sees a model. Every bound is about one displacement v from an anchor a (the
task's own expert), with the gap counted from a reference loss:

    L(a + v) − L(reference) = offset + ⟨∇L(a), v⟩ + ∫₀¹ (1−s) vᵀ∇²L(a + s v)v ds,    offset = L(a) − L(reference).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diagnostics.results import Status

__all__ = ["Curvature", "Displacement", "LossGap", "common_steps", "spread_factor", "upper_sum"]


def spread_factor(weights: Sequence[float], epsilon: float) -> float:
    """Return Q = Σ t_j² + 2ε Σ_{i<j} |t_i t_j|, so that ‖Σ t_j τ_j‖² ≤ C·Q (2.4), on or off the simplex.

    Args:
        weights: t_j; for task k of an addition t_j = α_j − [j = k].
        epsilon: max |cos| between different task vectors.

    Returns:
        The factor Q.

    Example:
        >>> spread_factor([-1.0, 1.0], 0.5)
        3.0
    """
    squares = sum(t * t for t in weights)
    total = sum(abs(t) for t in weights)
    return squares + epsilon * (total * total - squares)


def upper_sum(nodes: Sequence[float], curvatures: Sequence[float]) -> float:
    """Return Σ_i max(φ''(s_i), φ''(s_{i+1})) ∫ (1−s) ds, an upper sum of the remainder in (2.5).

    Args:
        nodes: s_0 = 0 < … < s_n = 1.
        curvatures: φ'' at the nodes.

    Returns:
        An upper bound on ∫₀¹ (1−s) φ'' ds where φ'' is monotone between nodes; half of the largest curvature is
        never smaller.

    Example:
        >>> upper_sum([0.0, 1.0], [1.0, 3.0])
        1.5
    """
    pieces = zip(nodes, nodes[1:], curvatures, curvatures[1:], strict=False)
    return sum(max(left, right) * ((1 - a) ** 2 - (1 - b) ** 2) / 2 for a, b, left, right in pieces)


@dataclass(frozen=True)
class Curvature:
    """A smoothness constant with its certain lower and probable upper end."""

    value: float
    lower: float
    upper: float
    status: Status


@dataclass(frozen=True)
class Displacement:
    """What was measured along one way from an anchor to where the model is moved.

    Attributes:
        start: L(a).
        end: L(a + v).
        offset: L(a) − L(reference).
        slope: ⟨∇L(a), v⟩.
        gradient_norm: ‖∇L(a)‖.
        norm_squared: ‖v‖².
        nodes: Values of s along the way.
        curvatures: vᵀ∇²L v at the nodes.
        integral: ∫₀¹ (1−s) vᵀ∇²L v ds.
        mismatch: How far Taylor's formula is from closing.
        tolerance: How far it may be.
        subspace: L^S at the points where it was measured (2.10).
        spectral: L = ‖∇²L(a)‖₂ at the anchor.
        spectral_along: Certain lower ends of ‖∇²L‖₂ at points of the way, where they were asked for (2.6).
    """

    start: float
    end: float
    offset: float
    slope: float
    gradient_norm: float
    norm_squared: float
    nodes: tuple[float, ...]
    curvatures: tuple[float, ...]
    integral: float
    mismatch: float
    tolerance: float
    subspace: tuple[float, ...]
    spectral: Curvature
    spectral_along: tuple[float, ...] = ()

    @property
    def gap(self) -> float:
        """L(a + v) − L(reference)."""
        return self.end - self.start + self.offset

    @property
    def reference(self) -> float:
        """L(reference)."""
        return self.start - self.offset

    @property
    def subspace_smoothness(self) -> float:
        """L^S: the largest over the points measured, the directional curvatures along the way among them."""
        along = [abs(c) / self.norm_squared for c in self.curvatures] if self.norm_squared > 0 else []
        return max([*self.subspace, *along], default=0.0)

    @property
    def linear(self) -> float:
        """Offset and slope, the part of the gap that is not curvature."""
        return self.offset + self.slope


@dataclass(frozen=True)
class LossGap:
    """The numbers that a loss-gap bound is about, measured on models or drawn in a test.

    Attributes:
        way: Measurements along the displacement from the task's expert.
        C: max ‖τ‖² over the vectors involved, the target included.
        coefficients: α_j, or the one of a negated task.
        epsilon: max |cos| between different task vectors.
        beta: max_i ⟨τ_tar, τ_i⟩ / C, out of distribution.
    """

    way: Displacement
    C: float
    coefficients: tuple[float, ...] = ()
    epsilon: float = 0.0
    beta: float = 0.0


def common_steps(way: Displacement) -> list[tuple[str, float]]:
    """Return the chain from the gap to ½L‖v‖², which all three bounds share (2.5).

    Args:
        way: The measurements.

    Returns:
        Pairs ``(label, value)``.
    """
    return [
        ("measured gap", way.gap),
        ("= slope + integral of curvature (2.5)", way.linear + way.integral),
        ("~ quadratic model at the expert (2.5)", way.linear + way.curvatures[0] / 2),
        ("<= upper sum of curvature along the way (2.6)", way.linear + upper_sum(way.nodes, way.curvatures)),
        ("<= largest curvature along the way (2.6)", way.linear + max(way.curvatures) / 2),
        (
            "<= task-subspace smoothness L^S (2.10)",
            way.linear + way.subspace_smoothness * way.norm_squared / 2,
        ),
        ("<= spectral norm L at the expert (2.5)", way.linear + way.spectral.value * way.norm_squared / 2),
    ]
