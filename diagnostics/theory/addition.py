"""Addition (2.1): the loss of task k at θ0 + Σ α_j τ_j against its loss at its own expert."""

from __future__ import annotations

from collections.abc import Mapping

from diagnostics.results import Assumption
from diagnostics.theory.loss_gap import BoundReport, Displacement, build_report, spread_factor

__all__ = ["addition_bound", "addition_report"]


def addition_bound(smoothness: float, C: float, epsilon: float) -> float:
    """Return L·C·(1 + ε), the paper's bound for addition (2.1).

    Args:
        smoothness: L, the Hessian spectral norm at the expert.
        C: max ‖τ‖².
        epsilon: max |cos| between different task vectors.

    Returns:
        The bound on L_i(θ*) − L_i(θ_i), in units of the loss.

    Example:
        >>> addition_bound(1.0, 4.0, 0.2)
        4.8
    """
    return smoothness * C * (1 + epsilon)


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
    weights = [alpha - (other == name) for other, alpha in coefficients.items()]
    spread = spread_factor(weights, epsilon)
    smoothness = way.spectral.value
    off = max(abs(sum(coefficients.values()) - 1), -min(coefficients.values()), 0.0)
    on_simplex = off <= 1e-9
    tail = [
        (
            "<= L C Q / 2, norms and angles replaced by C and eps (2.4)",
            way.linear + smoothness * C * spread / 2,
        )
    ]
    if on_simplex:
        tail.append(("<= L C (1 + eps) (2.1)", way.linear + addition_bound(smoothness, C, epsilon)))
    assumptions = {
        "simplex": Assumption(on_simplex, off, 1e-9, "(A3) coefficients are not negative and add up to one"),
        "similarity": Assumption(True, epsilon, 1.0, "(A4) holds by definition with the measured eps"),
    }
    factor = addition_bound(1.0, C, epsilon)
    quantities = {"C": C, "epsilon": epsilon, "Q": spread}
    return build_report(name, "addition (2.1)", way, tail, factor, assumptions, constant_loss, quantities)
