"""Out of distribution (2.3): an unseen target task at θ0 + τ_{i*}, or at the best point of the span (2.7)."""

from __future__ import annotations

import torch
from torch import Tensor

from diagnostics.results import Assumption
from diagnostics.theory.loss_gap import BoundReport, Displacement, build_report

__all__ = ["best_in_span", "out_of_distribution_bound", "out_of_distribution_report"]


def out_of_distribution_bound(smoothness: float, C: float, beta: float) -> float:
    """Return L·C·(1 − β), the paper's bound out of distribution (2.3).

    Args:
        smoothness: L, the Hessian spectral norm at the target's expert.
        C: max ‖τ‖², the target included.
        beta: max ⟨τ_tar, τ_i⟩ / C.

    Returns:
        The bound on L_tar(θ*) − L_tar(θ_tar), in units of the loss.

    Example:
        >>> out_of_distribution_bound(2.0, 4.0, 0.75)
        2.0
    """
    return smoothness * C * (1 - beta)


def best_in_span(gram: Tensor, target_inner: Tensor) -> Tensor:
    """Return argmin_α ‖Σ α_i τ_i − τ_tar‖², from inner products alone (2.7).

    Args:
        gram: G_ij = ⟨τ_i, τ_j⟩, [T, T]; may be singular.
        target_inner: ⟨τ_tar, τ_i⟩, [T].

    Returns:
        The coefficients of smallest norm among the best ones, [T].

    Example:
        >>> best_in_span(torch.diag(torch.tensor([1.0, 4.0])), torch.tensor([0.5, 2.0])).tolist()
        [0.5, 0.5]
    """
    return torch.linalg.pinv(gram, hermitian=True, rtol=1e-12) @ target_inner


def out_of_distribution_report(
    name: str,
    way: Displacement,
    C: float,
    beta: float,
    span_norm_squared: float,
    constant_loss: float | None = None,
) -> BoundReport:
    """Hold the target's loss gap at its nearest expert against (2.3).

    Args:
        name: The target task.
        way: Measurements along v = τ_{i*} − τ_tar from θ_tar.
        C: max ‖τ‖², the target included.
        beta: max_i ⟨τ_tar, τ_i⟩ / C.
        span_norm_squared: min_α ‖Σ α_i τ_i − τ_tar‖², of which half times L is the sharper bound (2.7).
        constant_loss: Loss of the best constant prediction, where known.

    Returns:
        The report.
    """
    smoothness = way.spectral.value
    tail = [("<= L C (1 - beta) (2.3)", way.linear + out_of_distribution_bound(smoothness, C, beta))]
    assumptions = {"similarity": Assumption(beta > 0, beta, 0.0, "(A5) some expert points the target's way")}
    quantities = {
        "C": C,
        "beta": beta,
        "span_norm_squared": span_norm_squared,
        "span_bound": smoothness * span_norm_squared / 2,
    }
    factor = out_of_distribution_bound(1.0, C, beta)
    return build_report(name, "out of distribution (2.3)", way, tail, factor, assumptions, constant_loss, quantities)


def span_report(name: str, way: Displacement, constant_loss: float | None = None) -> BoundReport:
    """Hold the target's loss gap at the best point of the span against ½L‖v‖² (2.7).

    Args:
        name: The target task.
        way: Measurements along v = Σ α_i τ_i − τ_tar from θ_tar, α the best in the span.
        constant_loss: Loss of the best constant prediction, where known.

    Returns:
        The report.
    """
    return build_report(name, "best in the span (2.7)", way, [], way.norm_squared / 2, {}, constant_loss, {})
