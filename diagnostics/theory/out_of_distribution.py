"""Out of distribution (2.3): an unseen target task at θ0 + τ_{i*}, or at the best point of the span (2.7)."""

from __future__ import annotations

from diagnostics.theory.bound_report import BoundReport, build_report
from diagnostics.theory.derivations.best_in_span import SPAN, span_bound
from diagnostics.theory.derivations.out_of_distribution import OUT_OF_DISTRIBUTION, out_of_distribution_bound
from diagnostics.theory.loss_gap import Displacement, LossGap

__all__ = ["out_of_distribution_report", "span_report"]


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
    case = LossGap(way, C, beta=beta)
    smoothness = way.spectral.value
    tail = [("<= L C (1 - beta) (2.3)", way.linear + out_of_distribution_bound(smoothness, C, beta))]
    quantities = {
        "C": C,
        "beta": beta,
        "span_norm_squared": span_norm_squared,
        "span_bound": span_bound(smoothness, span_norm_squared),
    }
    factor = out_of_distribution_bound(1.0, C, beta)
    claim = OUT_OF_DISTRIBUTION.claim
    return build_report(name, "out of distribution (2.3)", case, claim, tail, factor, constant_loss, quantities)


def span_report(name: str, way: Displacement, C: float, constant_loss: float | None = None) -> BoundReport:
    """Hold the target's loss gap at the best point of the span against ½L‖v‖² (2.7).

    Args:
        name: The target task.
        way: Measurements along v = Σ α_i τ_i − τ_tar from θ_tar, α the best in the span.
        C: max ‖τ‖², the target included.
        constant_loss: Loss of the best constant prediction, where known.

    Returns:
        The report.
    """
    factor = span_bound(1.0, way.norm_squared)
    return build_report(
        name, "best in the span (2.7)", LossGap(way, C), SPAN.claim, [], factor, constant_loss, {"C": C}
    )
