"""Negation (2.2): the loss of task j at θ0 − α τ_i against its loss at the base."""

from __future__ import annotations

from diagnostics.results import Assumption
from diagnostics.theory.loss_gap import BoundReport, Displacement, build_report, spread_factor

__all__ = ["negation_bound", "negation_report"]


def negation_bound(smoothness: float, C: float, epsilon: float) -> float:
    """Return L·C·(3/2 + ε), the paper's bound for negation (2.2).

    Args:
        smoothness: L, the Hessian spectral norm at the expert.
        C: max ‖τ‖².
        epsilon: max |cos| between different task vectors.

    Returns:
        The bound on L_j(θ0 − α_i τ_i) − L_j(θ0), in units of the loss.

    Example:
        >>> negation_bound(1.0, 4.0, 0.5)
        8.0
    """
    return smoothness * C * (1.5 + epsilon)


def negation_report(
    name: str,
    way: Displacement,
    coefficient: float,
    C: float,
    epsilon: float,
    constant_loss: float | None = None,
) -> BoundReport:
    """Hold what the negation of one task does to another against (2.2) and the chain below it.

    Where the expert is no worse than the base on its own task, the extra ½LC of (2.2) is unnecessary (2.7).

    Args:
        name: The task j that is to be kept.
        way: Measurements along v = −ατ_i − τ_j from θ_j, with offset L_j(θ_j) − L_j(θ0).
        coefficient: α, of the negated task i.
        C: max ‖τ‖² over the experts.
        epsilon: max |cos| over the experts.
        constant_loss: Loss of the best constant prediction, where known.

    Returns:
        The report.
    """
    spread = spread_factor([-coefficient, -1.0], epsilon)
    smoothness = way.spectral.value
    outside = max(-coefficient, coefficient - 1, 0.0)
    tail = [
        (
            "<= L C Q / 2, norms and angles replaced by C and eps (2.4)",
            way.linear + smoothness * C * spread / 2,
        )
    ]
    if outside == 0:
        if way.offset <= 0:
            tail.append(
                (
                    "<= L C (1 + eps), the expert beats the base (2.7)",
                    way.slope + smoothness * C * (1 + epsilon),
                )
            )
        tail.append(("<= L C (3/2 + eps) (2.2)", way.slope + negation_bound(smoothness, C, epsilon)))
    assumptions = {
        "coefficient": Assumption(outside == 0, coefficient, 1.0, "(A3) the negated coefficient is between 0 and 1"),
        "similarity": Assumption(True, epsilon, 1.0, "(A4) holds by definition with the measured eps"),
    }
    factor = negation_bound(1.0, C, epsilon)
    quantities = {"C": C, "epsilon": epsilon, "Q": spread}
    return build_report(name, "negation (2.2)", way, tail, factor, assumptions, constant_loss, quantities)
