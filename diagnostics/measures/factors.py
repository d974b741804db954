"""Low-rank adapters merged factor by factor, held against the sum of their updates."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from diagnostics.inputs.adapters import AdapterCheckpoint
from diagnostics.measures.lora_merge import weighted_factors

__all__ = ["factor_error"]


def factor_error(adapters: Mapping[str, AdapterCheckpoint]) -> float | None:
    """Return ‖(Σ √s_i B_i)(Σ √s_j A_j) − Σ s_i B_i A_i‖/‖Σ s_i B_i A_i‖, the error of merging A and B apart.

    The difference is Σ_{i≠j} √(s_i s_j) B_i A_j: updates that belong to no task. All norms follow from products of
    the small factors, one module of all adapters at a time.

    Args:
        adapters: Adapters of one base, by name.

    Returns:
        The error over all modules with equal weights, or nothing where ranks differ, so that there is no such merge.
    """
    modules = sorted({name for adapter in adapters.values() for name in adapter.adapted})
    error = whole = 0.0
    for module in modules:
        factors = [weighted_factors(adapter, module) for adapter in adapters.values() if module in adapter.adapted]
        if len({down.shape[0] for down, _ in factors}) > 1:
            return None
        wrong, right = _squares(factors)
        error, whole = error + wrong, whole + right
    return math.sqrt(error / whole) if whole > 0 else 0.0


def _squares(factors: list[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """‖Σ_{i≠j} B_i A_j‖² and ‖Σ_i B_i A_i‖², from ⟨B_i A_j, B_k A_l⟩ = ⟨B_iᵀB_k, A_jA_lᵀ⟩."""
    down, up = torch.cat([a.cpu() for a, _ in factors]), torch.cat([b.cpu() for _, b in factors], dim=1)
    count, rank = len(factors), factors[0][0].shape[0]
    ups = (up.T @ up).reshape(count, rank, count, rank)
    downs = (down @ down.T).reshape(count, rank, count, rank)
    products = torch.einsum("iakb,jalb->ijkl", ups, downs)
    own = torch.eye(count, dtype=torch.float64)
    cross = 1 - own
    wrong = torch.einsum("ij,ijkl,kl->", cross, products, cross)
    right = torch.einsum("ij,ijkl,kl->", own, products, own)
    return max(float(wrong), 0.0), max(float(right), 0.0)
