"""A loss gap held against its bounds: the chain (2.5), the assumptions as measured, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diagnostics.results import Assumption, Result, Status, plain
from diagnostics.theory.derivations.derivation import Claim
from diagnostics.theory.loss_gap import LossGap, common_steps

__all__ = ["BoundReport", "build_report"]

# The rungs that need curvature at nodes only; the others need L at the expert to bound it everywhere.
_NODE_RUNGS = slice(3, 6)
_SPECTRAL_RUNGS = slice(6, None)


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


def build_report(
    name: str,
    title: str,
    case: LossGap,
    claim: Claim,
    tail: Sequence[tuple[str, float]],
    factor: float,
    constant_loss: float | None,
    quantities: Mapping[str, float],
) -> BoundReport:
    """Put a chain, its assumptions and the verdict on the bound together.

    Args:
        name: The task.
        title: Which bound, with its number.
        case: The measurements.
        claim: The bound as a derivation states it; its assumptions are measured on the case.
        tail: The steps of the chain after ½L‖v‖².
        factor: The paper's bound is L times this.
        constant_loss: Loss of the best constant prediction, where known.
        quantities: Numbers that entered.

    Returns:
        The report.
    """
    way = case.way
    chain = [*common_steps(way), *tail]
    everything = claim.audit(case)
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
        claim=title,
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
