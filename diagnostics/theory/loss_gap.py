"""What the loss-gap bounds share: the chain (2.5) from a measured gap upwards, its assumptions and its report.

Numbers in, claims out: nothing here sees a model. Every bound is about one displacement v from an anchor a (the
task's own expert), with the gap counted from a reference loss:

    L(a + v) − L(reference) = offset + ⟨∇L(a), v⟩ + ∫₀¹ (1−s) vᵀ∇²L(a + s v)v ds,    offset = L(a) − L(reference).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diagnostics.results import Assumption, Result, Status, plain

__all__ = [
    "BoundReport",
    "Curvature",
    "Displacement",
    "build_report",
    "common_steps",
    "smoothness_assumptions",
    "spread_factor",
    "upper_sum",
]


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
class BoundReport(Result):
    """A loss gap held against its bounds.

    Attributes:
        name: The task.
        claim: Which bound, with its number.
        gap: The measured loss difference.
        bound: The paper's bound as stated, with the best estimate of L.
        bound_interval: The same at the lower and the upper end of L.
        chain: ``(label, value)`` from the gap to the bound; values not smaller than the one before wherever the
            assumptions hold. The gradient term, zero under (A1), is carried along.
        best: The tightest bound whose own assumptions hold; infinite if there is none.
        best_label: Its label in the chain.
        holds: Whether the gap is within the paper's bound; ``None`` where the interval of L leaves it open.
        assumptions: Each assumption of the theorem, measured.
        status: Trusted only if every assumption holds and every part converged.
        reference_loss: The loss that the gap counts from.
        constant_loss: The loss of the best constant prediction, where known.
        quantities: L, L^S, C, ε or β, ‖v‖² and what else entered.
    """

    name: str
    claim: str
    gap: float
    bound: float
    bound_interval: tuple[float, float]
    chain: tuple[tuple[str, float], ...]
    best: float
    best_label: str
    holds: bool | None
    assumptions: dict[str, Assumption]
    status: Status
    reference_loss: float
    constant_loss: float | None
    quantities: dict[str, float]

    def vacuous(self, value: float | None = None) -> bool | None:
        """Whether a bound allows a loss above that of a constant prediction (2.11).

        Args:
            value: The bound; the paper's by default.

        Returns:
            ``True`` if it says nothing, ``None`` where the constant prediction's loss is unknown.
        """
        if self.constant_loss is None:
            return None
        return self.reference_loss + (self.bound if value is None else value) >= self.constant_loss

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, and which bounds are vacuous, as plain types.

        Returns:
            A dictionary ready for JSON.
        """
        return super().to_dict() | {
            "vacuous": plain(self.vacuous()),
            "best_vacuous": plain(self.vacuous(self.best)),
        }

    def __str__(self) -> str:
        word = {True: "holds", False: "BROKEN", None: "undecided"}[self.holds]
        lines = [f"{self.name}: gap {self.gap:.4g}, bound {self.bound:.4g} ({self.claim}) {word}; best {self.best:.4g}"]
        lines += [f"  {value:>12.4g}  {label}" for label, value in self.chain]
        lines += [f"  {name}: {item}" for name, item in self.assumptions.items()]
        return "\n".join(lines)


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


# The rungs that need curvature at nodes only; the others need L at the expert to bound it everywhere.
_NODE_RUNGS = slice(3, 6)
_SPECTRAL_RUNGS = slice(6, None)


def smoothness_assumptions(way: Displacement) -> dict[str, Assumption]:
    """Measure the two assumptions on the loss: (A1) and (A2).

    Args:
        way: The measurements.

    Returns:
        ``stationary``, ``differentiable`` and ``smooth`` with what was measured.
    """
    # A gradient this small moves the bound by at most one part in a thousand of its curvature term.
    limit = 5e-4 * way.spectral.value * way.norm_squared**0.5
    along = [abs(c) / way.norm_squared for c in way.curvatures] if way.norm_squared else []
    largest = max([*along, *way.subspace, *way.spectral_along], default=0.0)
    rounding = 1e-5 * max(largest, way.spectral.value)
    return {
        "stationary": Assumption(
            way.gradient_norm <= limit, way.gradient_norm, limit, "(A1) the gradient vanishes at the expert"
        ),
        "differentiable": Assumption(
            way.mismatch <= way.tolerance,
            way.mismatch,
            way.tolerance,
            "(2.5) value, slope and curvature along the way agree, as for a twice differentiable loss",
        ),
        "smooth": Assumption(
            _at_most(largest, way.spectral, rounding),
            largest,
            way.spectral.value,
            "(A2, 2.6) curvature on the way, at the points measured, is at most L at the expert",
        ),
    }


def _at_most(value: float, limit: Curvature, rounding: float) -> bool | None:
    """Compare with a limit that is an interval."""
    if value <= limit.lower + rounding:
        return True
    return False if value > limit.upper + rounding else None


def build_report(
    name: str,
    claim: str,
    way: Displacement,
    tail: Sequence[tuple[str, float]],
    factor: float,
    assumptions: Mapping[str, Assumption],
    constant_loss: float | None,
    quantities: Mapping[str, float],
) -> BoundReport:
    """Put a chain, its assumptions and the verdict on the bound together.

    Args:
        name: The task.
        claim: Which bound, with its number.
        way: The measurements along the displacement.
        tail: The steps of the chain after ½L‖v‖².
        factor: The paper's bound is L times this.
        assumptions: Assumptions of this theorem beside those on the loss.
        constant_loss: Loss of the best constant prediction, where known.
        quantities: Numbers that entered.

    Returns:
        The report.
    """
    chain = [*common_steps(way), *tail]
    everything = {**smoothness_assumptions(way), **assumptions}
    valid = list(chain[_NODE_RUNGS]) if everything["differentiable"].holds else []
    if everything["differentiable"].holds and everything["smooth"].holds and way.spectral.status.trusted:
        valid += chain[_SPECTRAL_RUNGS]
    best_label, best = min(valid, key=lambda rung: rung[1], default=("none", float("inf")))
    interval = (way.spectral.lower * factor, way.spectral.upper * factor)
    rounding = way.tolerance * 1e-3 + 1e-9 * abs(way.start)
    met = all(item.holds for item in everything.values())
    status = way.spectral.status if met else Status.TAINTED
    return BoundReport(
        name=name,
        claim=claim,
        gap=way.gap,
        bound=way.spectral.value * factor,
        bound_interval=interval,
        chain=tuple(chain),
        best=best,
        best_label=best_label,
        holds=_within(way.gap, interval, rounding),
        assumptions=everything,
        status=status,
        reference_loss=way.reference,
        constant_loss=constant_loss,
        quantities={
            "L": way.spectral.value,
            "L_lower": way.spectral.lower,
            "L_upper": way.spectral.upper,
            "L_S": way.subspace_smoothness,
            "norm_squared": way.norm_squared,
            "slope": way.slope,
            "offset": way.offset,
            **({"L_along": max(way.spectral_along)} if way.spectral_along else {}),
            **quantities,
        },
    )


def _within(gap: float, interval: tuple[float, float], rounding: float) -> bool | None:
    """Whether the gap is below a bound that is known to an interval."""
    if gap <= interval[0] + rounding:
        return True
    return False if gap > interval[1] + rounding else None
