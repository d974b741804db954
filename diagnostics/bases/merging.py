"""Merging several vectors into one: what makes a basis out of a cluster, and an update out of bases (2.14)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diagnostics.errors import InputError, require_one_of
from diagnostics.measures.merge_methods import merged_update

__all__ = ["BASIS_MERGES", "largest_entries", "merge_vectors", "require_merge"]

Vectors = Mapping[str, Mapping[str, Tensor]]

# What is kept of each tensor where nothing else is said: the published 5 %, and the usual 20 % of TIES.
_DENSITIES = {"ties": 0.2, "topk": 0.05, "localize_and_stitch": 0.05, "mask_sharing": 0.05}
BASIS_MERGES = ("mean", "task_arithmetic", *_DENSITIES, "fisher")


def merge_vectors(
    vectors: Vectors,
    method: str = "mean",
    *,
    weights: Mapping[str, float] | None = None,
    density: float | None = None,
    fisher: Vectors | None = None,
    stitched: bool = False,
) -> dict[str, Tensor]:
    r"""Return one vector made of several, tensor by tensor (2.14).

    With n vectors τ_i, weights λ_i, s_i for what ``density`` keeps of τ_i and γ_i for the mask of where that is, entry
    by entry:

    - ``mean``: (1/n) Σ λ_i τ_i; ``task_arithmetic``: Σ λ_i τ_i.
    - ``ties``: the mean of those λ_i s_i that have the elected sign, in mergekit's convention.
    - ``topk``: (1/n) Σ λ_i s_i of the entries of largest magnitude.
    - ``fisher``: Σ λ_i F_i τ_i / Σ F_i, and the mean where no F_i is above 0.
    - ``localize_and_stitch``: Σ λ_i γ_i τ_i / Σ γ_i. Stitched again, bases are localised already: γ_i is where they are
      not zero.
    - ``mask_sharing``: γ̄ · (1/n) Σ λ_i τ_i with γ̄ the mean of the masks, rounded; one half rounds to zero, so of two
      vectors only the common entries are kept.

    Args:
        vectors: τ_i by name; one tensor of one is held at a time, for TIES one of each.
        method: One of ``BASIS_MERGES``.
        weights: λ_i, 1 by default.
        density: Share of the entries of each tensor that is kept; 0.05, or 0.2 for TIES.
        fisher: Diagonals of the Fisher information, for ``fisher``.
        stitched: Whether the vectors are bases made by ``localize_and_stitch`` or ``mask_sharing``.

    Returns:
        The merged vector, by name of the tensor.

    Raises:
        InputError: If the method is unknown, or lacks what it needs.

    Example:
        >>> vectors = {"a": {"w": torch.tensor([3.0, 1.0])}, "b": {"w": torch.tensor([1.0, -1.0])}}
        >>> merge_vectors(vectors)["w"].tolist()
        [2.0, 0.0]
        >>> merge_vectors(vectors, "localize_and_stitch", density=0.5)["w"].tolist()
        [2.0, 0.0]
        >>> fisher = {"a": {"w": torch.tensor([1.0, 0.0])}, "b": {"w": torch.tensor([3.0, 0.0])}}
        >>> merge_vectors(vectors, "fisher", fisher=fisher)["w"].tolist()
        [1.5, 0.0]
    """
    share = require_merge(method, density)
    lambdas = dict.fromkeys(vectors, 1.0) if weights is None else {name: float(weights[name]) for name in vectors}
    if method == "fisher" and (fisher is None or set(fisher) < set(vectors)):
        raise InputError("fisher: expected the Fisher information of every vector. Give tasks=, or another method.")
    if method == "ties":
        # The weights are inside the vectors: mergekit divides by them, so that they would not scale the whole.
        settings: dict[str, Any] = {"density": share, "convention": "mergekit"}
        return merged_update(_scaled(vectors, lambdas), dict.fromkeys(vectors, 1.0), "ties", **settings)

    def weight(name: str, key: str, tensor: Tensor) -> Tensor | None:
        if method == "fisher" and fisher is not None:
            return fisher[name][key]
        if method not in _DENSITIES:
            return None
        return ((tensor != 0) if stitched else largest_entries(tensor, share)).to(tensor)

    return {
        key: _combined(method, _summed(vectors, key, lambdas, weight), len(vectors))
        for key in next(iter(vectors.values()))
    }


def require_merge(method: str, density: float | None) -> float:
    """Refuse an unknown method or a density out of range or without effect.

    Args:
        method: The method.
        density: Share of the entries to keep, ``None`` for the method's own.

    Returns:
        The density.

    Raises:
        InputError: If the two do not fit.
    """
    require_one_of("merge", method, BASIS_MERGES)
    if density is None:
        return _DENSITIES.get(method, 1.0)
    if method not in _DENSITIES:
        raise InputError(f"density: expected nothing for {method}, where every entry is kept; found {density}.")
    if not 0 < density <= 1:
        raise InputError(f"density: expected a number above 0 and up to 1; found {density}.")
    return density


def largest_entries(tensor: Tensor, density: float) -> Tensor:
    """Return the mask of the entries of largest magnitude, at least one of a tensor.

    Args:
        tensor: Any tensor.
        density: Share of its entries.

    Returns:
        True for max(1, ⌊density · n⌋ ) entries; which of several equal ones is left open.

    Example:
        >>> largest_entries(torch.tensor([1.0, -3.0, 2.0]), 0.7).tolist()
        [False, True, True]
    """
    flat = tensor.reshape(-1).abs()
    chosen = flat.topk(min(len(flat), max(1, int(density * len(flat))))).indices
    return torch.zeros_like(flat, dtype=torch.bool).index_fill(0, chosen, True).view_as(tensor)


class _Scaled(Mapping[str, Tensor]):
    """A vector times a number, each tensor when it is asked for."""

    def __init__(self, vector: Mapping[str, Tensor], factor: float) -> None:
        self._vector, self._factor = vector, factor

    def __getitem__(self, key: str) -> Tensor:
        return self._factor * self._vector[key]

    def __iter__(self) -> Any:
        return iter(self._vector)

    def __len__(self) -> int:
        return len(self._vector)


def _scaled(vectors: Vectors, weights: Mapping[str, float]) -> Vectors:
    """Every vector times its weight."""
    return {name: _Scaled(vector, weights[name]) for name, vector in vectors.items()}


class _Sums(NamedTuple):
    """Sums over the vectors: λτ, λwτ and w, with w what the method weighs entries by."""

    plain: Tensor
    weighted: Tensor
    weight: Tensor


def _summed(
    vectors: Vectors, key: str, lambdas: Mapping[str, float], weight: Callable[[str, str, Tensor], Tensor | None]
) -> _Sums:
    """The sums of one tensor, one vector after the other."""
    sums: _Sums | None = None
    for name, vector in vectors.items():
        tensor = vector[key]
        scaled, part = lambdas[name] * tensor, weight(name, key, tensor)
        if sums is None:
            zero = torch.zeros_like(scaled if part is None else part)
            sums = _Sums(torch.zeros_like(scaled), torch.zeros_like(scaled), zero)
        sums.plain.add_(scaled)
        if part is not None:
            sums.weighted.add_(scaled.mul_(part))
            sums.weight.add_(part)
    assert sums is not None  # there is at least one vector
    return sums


def _combined(method: str, sums: _Sums, count: int) -> Tensor:
    """The merged tensor."""
    mean = sums.plain / count
    if method == "task_arithmetic":
        return sums.plain
    if method == "topk":
        return sums.weighted / count
    if method == "localize_and_stitch":
        return sums.weighted / sums.weight.clamp(min=1)
    if method == "mask_sharing":
        return (sums.weight / count).round() * mean
    if method == "fisher":
        known = sums.weight > 0
        return torch.where(known, sums.weighted / torch.where(known, sums.weight, 1), mean)
    return mean
