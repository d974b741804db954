"""Merge methods: the update Δ = θ* − θ0 that each makes of task vectors, known without data.

PEFT and mergekit give the same methods different meanings, so a convention is part of the question:

=====================  ===================================  ==========================================
step                   ``peft``                             ``mergekit``
=====================  ===================================  ==========================================
entries kept of n      ⌊density · n⌋, perhaps none          max(1, ⌊density · n⌋)
what elects the sign   the task vectors themselves          the task vectors times their coefficients
what a sum is over     the number of agreeing experts       their coefficients, or 1 (``normalize``)
scale of kept entries  1/density after a random drop        the L1 norm before it (``rescale``)
=====================  ===================================  ==========================================

Both trim tensor by tensor, where the TIES paper trims the whole vector at once. At density 1 and coefficients 1 they
agree on everything but ``dare_ties``, whose sum mergekit does not divide unless told to.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from functools import reduce

import torch
from torch import Tensor

from diagnostics.errors import InputError, MismatchError
from diagnostics.measures.merge_settings import (
    MERGE_METHODS,
    Convention,
    MajoritySign,
    MergeMethod,
    Plan,
    Settings,
    plan_merge,
)

__all__ = ["MERGE_METHODS", "Convention", "MajoritySign", "MergeMethod", "merged_update", "method_contributions"]

# Below this mergekit leaves an L1 norm as it is.
_NO_NORM = 1e-7


def merged_update(
    task_vectors: Mapping[str, Mapping[str, Tensor]],
    coefficients: Mapping[str, float],
    method: str = "task_arithmetic",
    *,
    density: float | Mapping[str, float] = 1.0,
    seed: int = 0,
    majority_sign: MajoritySign = "total",
    convention: Convention = "peft",
    normalize: bool | None = None,
    rescale: bool | None = None,
    scale: float = 1.0,
    base_weight: float = 0.0,
) -> dict[str, Tensor]:
    """Return the update Δ = θ* − θ0 that a merge method makes of task vectors, tensor by tensor.

    With s_i for τ_i after its entries are dropped, and a_i for "has the elected sign", entry by entry:

    - ``task_arithmetic``: Δ = Σ λ_i τ_i; ``mean``: Δ = (1/T) Σ λ_i τ_i.
    - ``linear``: Δ = Σ λ_i τ_i / Σ λ_i, which is θ* = Σ λ_i θ_i / Σ λ_i.
    - ``magnitude_prune``, ``dare_linear``: Δ = Σ λ_i s_i, of the largest entries or of random ones scaled up.
    - ``ties``, ``dare_ties``: Δ = Σ a_i λ_i s_i / Σ a_i for ``peft``. For ``mergekit`` ``ties`` is
      Σ a_i λ_i s_i / Σ a_i λ_i, where one factor common to all λ_i changes nothing and ``scale`` is what does, and
      ``dare_ties`` is Σ a_i λ_i s_i. A sum of zero elects +, so opposite vectors do not cancel.

    Which of several equal magnitudes are kept is left open. A random mask depends on the seed and the names of tensor
    and expert alone. Bfloat16 and float16 are computed in float32.

    Args:
        task_vectors: τ_i by expert; one tensor of each is held at a time, so a mapping may read them when asked.
        coefficients: λ_i by expert; an expert without one takes no part. Zero is not the same: its sign still counts
            in the election for ``peft``.
        method: One of ``MERGE_METHODS``.
        density: Share of the entries of each tensor that is kept, one number or by expert.
        seed: Seed of the random masks.
        majority_sign: Elect by the sum (``total``) or by the number (``frequency``) of the signed entries.
        convention: Whose meaning of the method; ``peft`` trims and elects by PEFT's own functions.
        normalize: For ``mergekit``: whether to divide by the coefficients; the method's own default by default.
        rescale: For ``mergekit``: whether kept entries get the L1 norm of all; the method's own default by default.
        scale: Factor of the whole update, mergekit's ``lambda``.
        base_weight: The base's own share in ``linear``.

    Returns:
        Δ by name of the tensor.

    Raises:
        InputError: If a setting is unknown, out of range or without effect in this method.
        MismatchError: If task vectors differ in their tensors.

    Example:
        >>> taus = {"a": {"w": torch.tensor([3.0, 1.0, 1.0])}, "b": {"w": torch.tensor([1.0, -2.0, 1.0])}}
        >>> merged_update(taus, {"a": 0.5, "b": 0.5})["w"].tolist()
        [2.0, -0.5, 1.0]
        >>> merged_update(taus, {"a": 1, "b": 1}, "ties", convention="mergekit")["w"].tolist()
        [2.0, -2.0, 1.0]
    """
    given = Settings(density, seed, majority_sign, convention, normalize, rescale, scale, base_weight)
    plan = plan_merge(task_vectors, coefficients, method, given)
    return {name: plan.scale * (terms.sum(0) / divisor) for name, terms, divisor in _stream(plan, task_vectors)}


def method_contributions(
    task_vectors: Mapping[str, Mapping[str, Tensor]],
    coefficients: Mapping[str, float],
    method: str = "task_arithmetic",
    *,
    density: float | Mapping[str, float] = 1.0,
    seed: int = 0,
    majority_sign: MajoritySign = "total",
    convention: Convention = "peft",
    normalize: bool | None = None,
    rescale: bool | None = None,
    scale: float = 1.0,
    base_weight: float = 0.0,
) -> dict[str, dict[str, Tensor]]:
    """Return each expert's own part Δ_i of the update of a merge method, Δ = Σ Δ_i.

    Every method adds up what survives of the experts, so what survives of expert i, over the divisor of the whole sum,
    is its part: λ_i τ_i for ``task_arithmetic``, a_i λ_i s_i / Σ a_j for ``ties`` of ``peft``, and so on in the words
    of :func:`merged_update`. A part depends on the other experts through the elected signs and the divisor alone. The
    base's own part is zero.

    Args:
        task_vectors: τ_i by expert; one tensor of each is read at a time, but the parts of all are held.
        coefficients: λ_i by expert; an expert without one takes no part.
        method: One of ``MERGE_METHODS``.
        density: As for :func:`merged_update`, like everything below.
        seed: Seed of the random masks.
        majority_sign: How the sign is elected.
        convention: Whose meaning of the method.
        normalize: For ``mergekit``: whether to divide by the coefficients.
        rescale: For ``mergekit``: whether kept entries get the L1 norm of all.
        scale: Factor of the whole update.
        base_weight: The base's own share in ``linear``.

    Returns:
        Δ_i by expert, then by name of the tensor.

    Raises:
        InputError: If a setting is unknown, out of range or without effect in this method.
        MismatchError: If task vectors differ in their tensors.

    Example:
        >>> taus = {"a": {"w": torch.tensor([3.0, 1.0, 1.0])}, "b": {"w": torch.tensor([1.0, -2.0, 1.0])}}
        >>> parts = method_contributions(taus, {"a": 1, "b": 1}, "ties", convention="mergekit")
        >>> parts["a"]["w"].tolist(), parts["b"]["w"].tolist()
        ([1.5, 0.0, 0.5], [0.5, -2.0, 0.5])
    """
    given = Settings(density, seed, majority_sign, convention, normalize, rescale, scale, base_weight)
    plan = plan_merge(task_vectors, coefficients, method, given)
    parts: dict[str, dict[str, Tensor]] = {expert: {} for expert in plan.weights}
    for name, terms, divisor in _stream(plan, task_vectors):
        for part, term in zip(parts.values(), terms, strict=True):
            part[name] = plan.scale * (term / divisor)
    return parts


def _stream(
    plan: Plan, task_vectors: Mapping[str, Mapping[str, Tensor]]
) -> Iterator[tuple[str, Tensor, Tensor | float]]:
    """For each tensor its name, what survives of each expert in the order of the plan, and what the sum is over."""
    vectors = {expert: task_vectors[expert] for expert in plan.weights}
    first, *others = vectors
    for other in others:
        differing = sorted(vectors[first].keys() ^ vectors[other].keys())
        if differing:
            raise MismatchError(f"task vectors of {first} and {other}: {differing} are in only one of them.")
    for name in vectors[first]:
        stack = _stacked(name, {expert: vectors[expert][name] for expert in vectors})
        kept = torch.stack(
            [_sparsified(tensor, plan, name, expert) for tensor, expert in zip(stack, vectors, strict=True)]
        )
        weights = torch.tensor(list(plan.weights.values()), dtype=kept.dtype, device=kept.device)
        weights = weights.view(-1, *[1] * (kept.ndim - 1))
        # A sum over all has one divisor; where signs are elected, each entry has its own.
        terms, divisor = _elected(kept, weights, plan) if plan.method.elects else (weights * kept, plan.divisor)
        yield name, terms, divisor


def _stacked(name: str, tensors: Mapping[str, Tensor]) -> Tensor:
    """One tensor of all experts, checked."""
    shapes = {expert: list(tensor.shape) for expert, tensor in tensors.items()}
    if len({tuple(shape) for shape in shapes.values()}) > 1:
        raise MismatchError(f"task vectors: expected one shape of {name}; found {shapes}.")
    for expert, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise InputError(f"task vector of {expert}: expected floating-point {name}; found {tensor.dtype}.")
        if not tensor.isfinite().all():
            raise InputError(f"task vector of {expert}: expected finite values; {name} has others. Check the model.")
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors.values()), torch.float32)
    return torch.stack([tensor.detach().to(dtype) for tensor in tensors.values()])


def _sparsified(tensor: Tensor, plan: Plan, name: str, expert: str) -> Tensor:
    """The entries of a tensor that take part, scaled up where the method says so."""
    density = plan.density[expert]
    if plan.method.keeps == "all" or density == 1:
        return tensor
    if plan.method.keeps == "largest":
        kept = (
            _peft("magnitude_based_pruning")(tensor, density) if plan.convention == "peft" else _trim(tensor, density)
        )
    else:
        # PEFT's own drop takes no seed and draws from the generator of the whole program.
        kept = tensor * _random_mask(tensor.shape, density, plan.seed, name, expert).to(tensor.device)
    if not plan.rescale:
        return kept
    return kept / density if plan.convention == "peft" else kept * _norm_ratio(tensor, kept)


def _trim(tensor: Tensor, density: float) -> Tensor:
    """The entries of largest magnitude, at least one."""
    flat = tensor.reshape(-1)
    if not flat.numel():
        return tensor
    kept = flat.abs().topk(max(1, int(density * flat.numel()))).indices
    return torch.zeros_like(flat).index_copy(0, kept, flat[kept]).view_as(tensor)


def _random_mask(shape: torch.Size, density: float, seed: int, name: str, expert: str) -> Tensor:
    """True with probability ``density``; the same wherever and in whatever order tensors are merged."""
    digest = hashlib.blake2b(repr((seed, name, expert)).encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest))
    return torch.rand(shape, generator=generator) < density


def _norm_ratio(tensor: Tensor, kept: Tensor) -> Tensor | float:
    """What brings the L1 norm back to that before the drop."""
    before, after = tensor.abs().sum(), kept.abs().sum()
    return before / after if min(before, after) >= _NO_NORM else 1.0


def _elected(kept: Tensor, weights: Tensor, plan: Plan) -> tuple[Tensor, Tensor | float]:
    """The terms that have the majority's sign, and what each entry of their sum is divided by."""
    terms = weights * kept
    if plan.convention == "peft":
        agree = _peft("calculate_majority_sign_mask")(kept, method=plan.majority_sign)
        # PEFT's own disjoint_merge divides by the same number, but gives the sum alone.
        return terms * agree, agree.sum(0).clamp(min=1)
    votes = terms if plan.majority_sign == "total" else terms.sign()
    agree = terms.sign() == torch.where(votes.sum(0) >= 0, 1, -1)
    divisor = (weights * agree).sum(0)
    return terms * agree, torch.where(divisor == 0, 1, divisor) if plan.normalize else 1.0


def _peft(function: str) -> Callable[..., Tensor]:
    """A function of PEFT's, which only its convention needs."""
    try:
        module = importlib.import_module("peft.utils.merge_utils")
    except ImportError as error:
        raise InputError(
            f"convention: 'peft' needs peft, which cannot be imported ({error}). Install it with: "
            "pip install 'task-arithmetic-diagnostics[transformers]', or use convention='mergekit'."
        ) from error
    return getattr(module, function)
