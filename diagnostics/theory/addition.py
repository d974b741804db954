"""Addition (2.1): the loss of task k at θ0 + Σ α_j τ_j against its loss at its own expert."""

from __future__ import annotations

from collections.abc import Mapping

from diagnostics.theory.bound_report import BoundReport, build_report
from diagnostics.theory.derivations.addition import ADDITION, addition_bound
from diagnostics.theory.loss_gap import Displacement, LossGap, spread_factor

__all__ = ["addition_report"]


def addition_report(
    name: str,
    way: Displacement,
    coefficients: Mapping[str, float],
    C: float,
    epsilon: float,
    constant_loss: float | None = None,
) -> BoundReport:
    """Hold the loss gap of one task of a merge against (2.1) and the chain (2.5) below it.

    Off the simplex (2.8) the last step of (2.4) is lost: the chain then ends at ½L·C·Q, and the paper's value is
    given but its assumption fails.

    Args:
        name: The task k.
        way: Measurements along v = θ* − θ_k.
        coefficients: α_j by expert.
        C: max ‖τ‖² over these experts.
        epsilon: max |cos| over these experts.
        constant_loss: Loss of the best constant prediction, where known.

    Returns:
        The report.
    """
    case = LossGap(way, C, tuple(coefficients.values()), epsilon)
    spread = spread_factor([alpha - (other == name) for other, alpha in coefficients.items()], epsilon)
    smoothness = way.spectral.value
    tail = [
        (
            "<= L C Q / 2, norms and angles replaced by C and eps (2.4)",
            way.linear + smoothness * C * spread / 2,
        )
    ]
    if ADDITION.claim.audit(case)["simplex"].holds:
        tail.append(("<= L C (1 + eps) (2.1)", way.linear + addition_bound(smoothness, C, epsilon)))
    factor = addition_bound(1.0, C, epsilon)
    quantities = {"C": C, "epsilon": epsilon, "Q": spread}
    return build_report(name, "addition (2.1)", case, ADDITION.claim, tail, factor, constant_loss, quantities)
