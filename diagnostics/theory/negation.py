"""Negation (2.2): the loss of task j at θ0 − α τ_i against its loss at the base."""

from __future__ import annotations

from diagnostics.theory.bound_report import BoundReport, build_report
from diagnostics.theory.derivations.negation import NEGATION, negation_bound
from diagnostics.theory.derivations.negation_minimum import minimum_bound
from diagnostics.theory.loss_gap import Displacement, LossGap, spread_factor

__all__ = ["negation_report"]


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
    case = LossGap(way, C, (coefficient,), epsilon)
    audit = NEGATION.claim.audit(case)
    spread = spread_factor([-coefficient, -1.0], epsilon)
    smoothness = way.spectral.value
    tail = [
        (
            "<= L C Q / 2, norms and angles replaced by C and eps (2.4)",
            way.linear + smoothness * C * spread / 2,
        )
    ]
    if audit["coefficient"].holds:
        if way.offset <= 0:
            tail.append(
                (
                    "<= L C (1 + eps), the expert beats the base (2.7)",
                    way.slope + minimum_bound(smoothness, C, epsilon),
                )
            )
        if audit["lower side"].holds:
            tail.append(("<= L C (3/2 + eps) (2.2)", way.slope + negation_bound(smoothness, C, epsilon)))
    factor = negation_bound(1.0, C, epsilon)
    quantities = {"C": C, "epsilon": epsilon, "Q": spread}
    return build_report(name, "negation (2.2)", case, NEGATION.claim, tail, factor, constant_loss, quantities)
