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
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from numbers import Real
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from diagnostics.errors import InputError, MismatchError, require_count

__all__ = ["MERGE_METHODS", "Convention", "MajoritySign", "MergeMethod", "merged_update"]

Convention = Literal["peft", "mergekit"]
MajoritySign = Literal["total", "frequency"]

# Below these mergekit leaves a sum undivided, and an L1 norm as it is.
_NO_DIVISOR, _NO_NORM = 1e-8, 1e-7


@dataclass(frozen=True)
class MergeMethod:
    """What a method does to task vectors besides adding them.

    Attributes:
        keeps: Which entries of each task vector take part.
        elects: Whether entries against the majority sign are left out.
        divides: Whether the sum is divided, by default, in each convention.
    """

    keeps: Literal["all", "largest", "random"] = "all"
    elects: bool = False
    divides: Mapping[Convention, bool] | None = None


_ALWAYS: dict[Convention, bool] = {"peft": True, "mergekit": True}
MERGE_METHODS: Mapping[str, MergeMethod] = {
    "task_arithmetic": MergeMethod(),
    "mean": MergeMethod(divides=_ALWAYS),
    "linear": MergeMethod(divides=_ALWAYS),
    "magnitude_prune": MergeMethod(keeps="largest"),
    "ties": MergeMethod(keeps="largest", elects=True, divides=_ALWAYS),
    "dare_linear": MergeMethod(keeps="random"),
    "dare_ties": MergeMethod(keeps="random", elects=True, divides={"peft": True, "mergekit": False}),
}


@dataclass(frozen=True)
class _Plan:
    """A merge whose settings have been checked."""

    name: str
    weights: Mapping[str, float]
    density: Mapping[str, float]
    seed: int
    majority_sign: MajoritySign
    convention: Convention
    normalize: bool
    rescale: bool
    scale: float
    base_weight: float

    @property
    def method(self) -> MergeMethod:
        """What the method does."""
        return MERGE_METHODS[self.name]

    @property
    def divisor(self) -> float:
        """What a sum over all experts is divided by."""
        if self.name == "mean":
            return len(self.weights)
        total = math.fsum(self.weights.values()) + self.base_weight
        return total if self.normalize and abs(total) >= _NO_DIVISOR else 1.0


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
    name, known = method, MERGE_METHODS.get(method)
    if known is None:
        raise InputError(f"method: expected one of {', '.join(MERGE_METHODS)}; found {method!r}.")
    _require_choice("convention", convention, get_args(Convention))
    _require_choice("majority_sign", majority_sign, get_args(MajoritySign))
    require_count("seed", seed, least=0)
    _refuse_idle(name, known, density, majority_sign, convention, normalize, rescale, base_weight)
    weights = _weights(task_vectors, coefficients)
    divides = known.divides[convention] if known.divides else False
    plan = _Plan(
        name,
        weights,
        _densities(density, weights),
        seed,
        majority_sign,
        convention,
        divides if normalize is None else normalize,
        known.keeps == "random" if rescale is None else rescale,
        _number("scale", scale),
        _number("base_weight", base_weight),
    )
    _require_update(plan)
    return dict(_stream(plan, {expert: task_vectors[expert] for expert in weights}))


def _require_choice(setting: str, value: object, choices: Sequence[str]) -> None:
    """Refuse a setting that is none of its values."""
    if value not in choices:
        raise InputError(f"{setting}: expected {' or '.join(map(repr, choices))}; found {value!r}.")


def _refuse_idle(
    name: str,
    method: MergeMethod,
    density: float | Mapping[str, float],
    majority_sign: str,
    convention: str,
    normalize: bool | None,
    rescale: bool | None,
    base_weight: float,
) -> None:
    """Refuse settings that would have no effect."""
    idle = {
        "density": (method.keeps == "all" and density != 1, "every entry is kept"),
        "majority_sign": (not method.elects and majority_sign != "total", "no sign is elected"),
        "rescale": (rescale is not None and method.keeps == "all", "every entry is kept"),
        "normalize": (normalize is not None and name == "mean", "a mean is always divided by the number of experts"),
        "base_weight": (base_weight != 0 and name != "linear", "the base's task vector is zero"),
    }
    for setting, (given, reason) in idle.items():
        if given:
            raise InputError(f"{setting}: expected nothing for {name}, where {reason}. Leave it out.")
    for setting, value in {"normalize": normalize, "rescale": rescale}.items():
        if value is not None and convention == "peft":
            raise InputError(f"{setting}: PEFT has no such choice; found {value!r}. Add convention='mergekit'.")
        if value is not None and not isinstance(value, bool):
            raise InputError(f"{setting}: expected True or False; found {value!r}.")


def _number(setting: str, value: object) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise InputError(f"{setting}: expected a finite number; found {value!r}.")
    return float(value)


def _weights(task_vectors: Mapping[str, Any], coefficients: Mapping[str, float]) -> dict[str, float]:
    """The coefficients of the experts that take part."""
    unknown = [expert for expert in coefficients if expert not in task_vectors]
    if unknown or not coefficients:
        found = f"{unknown}, which has no task vector" if unknown else "none"
        raise InputError(f"coefficients: expected numbers for some of {list(task_vectors)}; found {found}.")
    return {expert: _number(f"coefficients.{expert}", value) for expert, value in coefficients.items()}


def _densities(density: float | Mapping[str, float], experts: Mapping[str, float]) -> dict[str, float]:
    """The density of each expert that takes part."""
    given = density if isinstance(density, Mapping) else dict.fromkeys(experts, density)
    if given.keys() != experts.keys():
        raise InputError(f"density: expected one number, or one for each of {list(experts)}; found {list(given)}.")
    found = {expert: _number(f"density of {expert}", value) for expert, value in given.items()}
    for expert, value in found.items():
        if not 0 < value <= 1:
            raise InputError(f"density of {expert}: expected a number above 0 and up to 1; found {value!r}.")
    return found


def _require_update(plan: _Plan) -> None:
    """Refuse a linear merge that is none: where the weights of all models do not add up to one, it scales θ0 too."""
    if plan.name != "linear":
        return
    total = math.fsum(plan.weights.values()) + plan.base_weight
    if plan.normalize and abs(total) < _NO_DIVISOR:
        raise InputError(f"coefficients: expected a sum other than zero for linear; found {dict(plan.weights)}.")
    if not plan.normalize and not math.isclose(total, 1):
        raise InputError(
            f"normalize: expected True for linear where the coefficients add up to {total:g}; found False. "
            "Σ λ_i θ_i would scale the base itself: let them add up to 1, or use task_arithmetic."
        )


def _stream(plan: _Plan, vectors: Mapping[str, Mapping[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Each tensor of the update, by name."""
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
        total = _elected(kept, weights, plan) if plan.method.elects else (weights * kept).sum(0) / plan.divisor
        yield name, plan.scale * total


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


def _sparsified(tensor: Tensor, plan: _Plan, name: str, expert: str) -> Tensor:
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


def _elected(kept: Tensor, weights: Tensor, plan: _Plan) -> Tensor:
    """The sum of the entries that have the majority's sign, divided as the convention says."""
    if plan.convention == "peft":
        agree = _peft("calculate_majority_sign_mask")(kept, method=plan.majority_sign)
        return _peft("disjoint_merge")(weights * kept, agree)
    ballots = weights * kept
    votes = ballots if plan.majority_sign == "total" else ballots.sign()
    agree = ballots.sign() == torch.where(votes.sum(0) >= 0, 1, -1)
    total, divisor = (ballots * agree).sum(0), (weights * agree).sum(0)
    return total / torch.where(divisor == 0, 1, divisor) if plan.normalize else total


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
