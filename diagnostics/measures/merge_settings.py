"""Settings of merge methods: what each method does besides adding, and what may be asked of it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal, get_args

from diagnostics.errors import InputError, require_count, require_one_of

__all__ = [
    "MERGE_METHODS",
    "Convention",
    "MajoritySign",
    "MergeMethod",
    "Plan",
    "Settings",
    "coefficients_of",
    "plan_merge",
]

Convention = Literal["peft", "mergekit"]
MajoritySign = Literal["total", "frequency"]

# Below this mergekit leaves a sum undivided.
_NO_DIVISOR = 1e-8


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
class Settings:
    """The keywords of :func:`diagnostics.merged_update`, as they were given."""

    density: float | Mapping[str, float]
    seed: int
    majority_sign: MajoritySign
    convention: Convention
    normalize: bool | None
    rescale: bool | None
    scale: float
    base_weight: float


@dataclass(frozen=True)
class Plan:
    """A merge whose settings have been checked, with the method's own defaults filled in."""

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


def plan_merge(experts: Collection[str], coefficients: Mapping[str, float], method: str, given: Settings) -> Plan:
    """Check the settings of a merge.

    Args:
        experts: Who has a task vector.
        coefficients: λ_i of the experts that take part.
        method: One of ``MERGE_METHODS``.
        given: The settings.

    Returns:
        The settings with the method's own defaults.

    Raises:
        InputError: If a setting is unknown, out of range or without effect in this method.
    """
    require_one_of("method", method, MERGE_METHODS)
    known = MERGE_METHODS[method]
    _require_choice("convention", given.convention, get_args(Convention))
    _require_choice("majority_sign", given.majority_sign, get_args(MajoritySign))
    require_count("seed", given.seed, least=0)
    _refuse_idle(method, known, given)
    weights = coefficients_of(experts, coefficients)
    divides = known.divides[given.convention] if known.divides else False
    plan = Plan(
        method,
        weights,
        _densities(given.density, weights),
        given.seed,
        given.majority_sign,
        given.convention,
        divides if given.normalize is None else given.normalize,
        known.keeps == "random" if given.rescale is None else given.rescale,
        _number("scale", given.scale),
        _number("base_weight", given.base_weight),
    )
    _require_update(plan)
    return plan


def _require_choice(setting: str, value: object, choices: Sequence[str]) -> None:
    """Refuse a setting that is none of its values."""
    if value not in choices:
        raise InputError(f"{setting}: expected {' or '.join(map(repr, choices))}; found {value!r}.")


def _refuse_idle(name: str, method: MergeMethod, given: Settings) -> None:
    """Refuse settings that would have no effect."""
    everything, all_kept = method.keeps == "all", "every entry is kept"
    idle = {
        "density": (everything and given.density != 1, all_kept),
        "majority_sign": (not method.elects and given.majority_sign != "total", "no sign is elected"),
        "rescale": (everything and given.rescale is not None, all_kept),
        "normalize": (
            name == "mean" and given.normalize is not None,
            "a mean is always divided by the number of experts",
        ),
        "base_weight": (name != "linear" and given.base_weight != 0, "the base's task vector is zero"),
    }
    for setting, (useless, reason) in idle.items():
        if useless:
            raise InputError(f"{setting}: expected nothing for {name}, where {reason}. Leave it out.")
    for setting, value in {"normalize": given.normalize, "rescale": given.rescale}.items():
        if value is not None and given.convention == "peft":
            raise InputError(f"{setting}: PEFT has no such choice; found {value!r}. Add convention='mergekit'.")
        if value is not None and not isinstance(value, bool):
            raise InputError(f"{setting}: expected True or False; found {value!r}.")


def _number(setting: str, value: object) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise InputError(f"{setting}: expected a finite number; found {value!r}.")
    return float(value)


def coefficients_of(experts: Collection[str], coefficients: Mapping[str, float]) -> dict[str, float]:
    """Check the coefficients of a merge.

    Args:
        experts: Who could take part.
        coefficients: Numbers for some of them.

    Returns:
        λ_i of those that take part.

    Raises:
        InputError: If there is none, one is no finite number, or one belongs to nobody.
    """
    unknown = [expert for expert in coefficients if expert not in experts]
    if unknown or not coefficients:
        found = f"{unknown}, which is none of them" if unknown else "none"
        raise InputError(f"coefficients: expected numbers for some of {list(experts)}; found {found}.")
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


def _require_update(plan: Plan) -> None:
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
