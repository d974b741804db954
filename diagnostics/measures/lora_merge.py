"""LoRA adapters merged factor by factor, as PEFT's ``add_weighted_adapter`` does with ``combination_type="linear"``.

The sum of the A's times the sum of the B's is not the sum of the updates: beside B_i A_i it holds every B_i A_j with
i ≠ j, which belong to no expert. For independent adapters these cross terms are as long as the sum that was meant.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from diagnostics.errors import InputError, MismatchError
from diagnostics.inputs.adapters import AdapterCheckpoint, open_live_adapter
from diagnostics.inputs.checkpoints import Checkpoint, Source, is_adapter, open_checkpoint
from diagnostics.inputs.live_models import LiveAdapter, weight_changes
from diagnostics.measures.merge_settings import coefficients_of
from diagnostics.measures.vectors import same_values

__all__ = ["CROSS_TERMS", "linear_lora_contributions", "linear_lora_update", "weighted_factors"]

CROSS_TERMS = "A x B cross terms"

# The merged adapter has these from the first adapter: PEFT would leave out, in silence, layers that only others have.
_FROM_THE_FIRST = ("layers_to_transform", "layers_pattern", "exclude_modules", "fan_in_fan_out")
_INSTEAD = "Merge the updates themselves: combination_type 'cat' of PEFT, or merged_update."


def linear_lora_update(
    adapters: Mapping[str, AdapterCheckpoint | Source],
    coefficients: Mapping[str, float],
    *,
    base: Source | None = None,
) -> dict[str, Tensor]:
    """Return the update Δ that PEFT makes of LoRA adapters by merging their A and B apart.

    With s_i for the scale of adapter i, and the sign of λ_i s_i on the side of A alone:

    Δ = (Σ_i √|λ_i s_i| B_i)(Σ_j ±√|λ_j s_j| A_j), as PEFT 0.21 has it for ``combination_type="linear"``.

    The merged adapter is rank-stabilised where the first of the coefficients is; PEFT then scales Δ by √r once more.

    Args:
        adapters: LoRA adapters of one base by name, opened, as folders or as models; r is the same for all.
        coefficients: λ_i by adapter, in the order in which PEFT is given them; one without takes no part.
        base: The model that the folders were trained on; nothing where every adapter is open.

    Returns:
        Δ by name of the weight, for every weight that some adapter changes.

    Raises:
        InputError: If an adapter is none, is of a kind that has no such merge, or holds whole tensors.
        MismatchError: If adapters differ in rank, in shape or in how they choose their layers.

    Example:
        >>> import json, tempfile
        >>> from safetensors.torch import save_file
        >>> factors = {"a": ([[1.0, 0.0]], [[1.0], [0.0]]), "b": ([[0.0, 1.0]], [[0.0], [1.0]])}
        >>> with tempfile.TemporaryDirectory() as home:
        ...     for name, (down, up) in factors.items():
        ...         Path(home, name).mkdir()
        ...         config = json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 1})
        ...         _ = Path(home, name, "adapter_config.json").write_text(config)
        ...         key = "base_model.model.layer.lora_{}.weight"
        ...         tensors = {key.format("A"): torch.tensor(down), key.format("B"): torch.tensor(up)}
        ...         save_file(tensors, Path(home, name, "adapter_model.safetensors"))
        ...     folders = {name: Path(home, name) for name in factors}
        ...     linear_lora_update(folders, {"a": 1, "b": 1}, base={"layer.weight": torch.zeros(2, 2)})
        {'layer.weight': tensor([[1., 1.],
                [1., 1.]])}

        The updates are diag(1, 0) and diag(0, 1), and their sum is the identity: the other two entries are cross terms.
    """
    stream = _stream(_opened(adapters, coefficients, base), coefficients)
    return {name: torch.stack(list(parts.values())).sum(0) for name, parts in stream}


def linear_lora_contributions(
    adapters: Mapping[str, AdapterCheckpoint | Source],
    coefficients: Mapping[str, float],
    *,
    base: Source | None = None,
) -> dict[str, dict[str, Tensor]]:
    """Return the parts of :func:`linear_lora_update`: each expert's own, and what belongs to none.

    Δ = Σ_i λ_i s_i B_i A_i + Σ_{i≠j} ±√|λ_i s_i λ_j s_j| B_i A_j. An own part is λ_i τ_i, times √r where the merged
    adapter is rank-stabilised; the second sum is under the reserved name ``CROSS_TERMS``.

    Args:
        adapters: As for :func:`linear_lora_update`, like everything below.
        coefficients: λ_i by adapter.
        base: The model that the folders were trained on.

    Returns:
        The parts by expert, and the cross terms last, each by name of the weight: the same weights in all.

    Raises:
        InputError: As for :func:`linear_lora_update`.
        MismatchError: As for :func:`linear_lora_update`.
    """
    opened = _opened(adapters, coefficients, base)
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in (*opened, CROSS_TERMS)}
    for name, found in _stream(opened, coefficients):
        for part, tensor in found.items():
            parts[part][name] = tensor
    return parts


def weighted_factors(adapter: AdapterCheckpoint, name: str, weight: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return ±√|λ s| A and √|λ s| B of one weight, the halves that PEFT adds up.

    Args:
        adapter: The adapter, whose scale is s.
        name: One of the weights that it changes.
        weight: λ.

    Returns:
        A, with the sign, and B: flat, in float64.
    """
    factors = adapter.factors(name)
    strength = weight * factors.scale
    root = math.sqrt(abs(strength))
    return math.copysign(root, strength) * factors.down.double(), root * factors.up.double()


def _opened(
    adapters: Mapping[str, AdapterCheckpoint | Source], coefficients: Mapping[str, float], base: Source | None
) -> dict[str, AdapterCheckpoint]:
    """The adapters that take part, in the order of the coefficients, checked."""
    if CROSS_TERMS in adapters:
        raise InputError(f"adapters: expected names other than {CROSS_TERMS!r}, which is reserved. Rename that one.")
    given = {name: adapters[name] for name in coefficients_of(adapters, coefficients)}
    if base is not None and all(isinstance(adapter, AdapterCheckpoint) for adapter in given.values()):
        raise InputError("base: expected nothing, as every adapter has its own already; found a model. Leave it out.")
    below = None if base is None else open_checkpoint(base)
    opened = {name: _open(name, adapter, below) for name, adapter in given.items()}
    _require_alike(opened)
    for name, adapter in opened.items():
        _refuse_whole_tensors(name, adapter)
    return opened


def _open(name: str, adapter: AdapterCheckpoint | Source, base: Checkpoint | None) -> AdapterCheckpoint:
    """An adapter, opened if it is not yet."""
    if isinstance(adapter, AdapterCheckpoint):
        return adapter
    if isinstance(adapter, str | Path):
        if base is None:
            raise InputError(f"base: expected the model that {name} was trained on; found nothing. Add base=.")
        return AdapterCheckpoint(base, adapter, name)
    if not isinstance(adapter, nn.Module | LiveAdapter) or not is_adapter(adapter):
        found = type(adapter).__name__
        raise InputError(f"adapter {name}: expected a LoRA adapter, as a folder or a model; found {found}. {_INSTEAD}")
    return open_live_adapter(adapter, name)


def _require_alike(adapters: Mapping[str, AdapterCheckpoint]) -> None:
    """Refuse adapters that PEFT cannot merge factor by factor, or of which it would lose layers."""
    settings: dict[str, dict[str, object]] = {
        "ranks": {name: _rank(adapter) for name, adapter in adapters.items()},
        "kinds of target_modules": {n: type(a.config.get("target_modules")).__name__ for n, a in adapters.items()},
    }
    for option in _FROM_THE_FIRST:
        settings[option] = {name: _comparable(adapter.config.get(option)) for name, adapter in adapters.items()}
    for setting, found in settings.items():
        if len(set(found.values())) > 1:
            raise MismatchError(f"adapters: expected equal {setting} to merge A and B apart; found {found}. {_INSTEAD}")


def _rank(adapter: AdapterCheckpoint) -> int:
    """The rank that PEFT compares, and gives to the merged adapter."""
    patterns: Mapping[str, int] = adapter.config.get("rank_pattern") or {}
    return max([adapter.config["r"], *patterns.values()])


def _comparable(value: object) -> object:
    """An option as a value that can be compared: a list in any order, and every way to write none."""
    return tuple(sorted(map(str, value))) if isinstance(value, list) and value else value or None


def _refuse_whole_tensors(name: str, adapter: AdapterCheckpoint) -> None:
    """Refuse tensors besides A and B: PEFT refuses to merge those of two adapters and forgets those of one."""
    whole = [key for key in adapter.saved if adapter.config.get("modules_to_save") or _differs(adapter, key)]
    if whole:
        raise InputError(
            f"adapter {name}: expected factors A and B alone; found {', '.join(whole)}, held whole "
            f"(modules_to_save), which PEFT does not merge. {_INSTEAD}"
        )
    changed = "; ".join(weight_changes(adapter.config))
    if changed:
        raise InputError(f"adapter {name}: expected factors A and B alone; found {changed}. {_INSTEAD}")


def _differs(adapter: AdapterCheckpoint, name: str) -> bool:
    """Whether a tensor held whole is not the base's own; PEFT saves an embedding with its factors, trained or not."""
    if name not in adapter.base.names:
        return True
    return not same_values(adapter.before(name), adapter.base.tensor(name))


def _stream(
    adapters: Mapping[str, AdapterCheckpoint], coefficients: Mapping[str, float]
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Each weight that some adapter changes, with the parts of its update."""
    first = next(iter(adapters.values()))
    # PEFT sets alpha to r, so that the merged adapter's own scale is r/r, or r/√r.
    scale = math.sqrt(_rank(first)) if first.config.get("use_rslora") else 1.0
    for name in dict.fromkeys(name for adapter in adapters.values() for name in adapter.adapted):
        holders = {expert: adapter for expert, adapter in adapters.items() if name in adapter.adapted}
        halves = {e: weighted_factors(adapter, name, coefficients[e]) for e, adapter in holders.items()}
        _require_fit(name, halves)
        like = next(iter(holders.values()))
        found = {
            part: like.shaped(name, scale * product).contiguous()
            for part, product in _products(halves, like.dtype(name))
        }
        empty = {e: torch.zeros_like(found[CROSS_TERMS]) for e in adapters if e not in holders}
        yield name, {part: (found | empty)[part] for part in (*adapters, CROSS_TERMS)}


def _require_fit(name: str, halves: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Refuse factors that cannot be added up."""
    shapes = {expert: (list(down.shape), list(up.shape)) for expert, (down, up) in halves.items()}
    if len({str(shape) for shape in shapes.values()}) > 1:
        raise MismatchError(f"adapters: expected A and B of {name} in one shape; found {shapes}. {_INSTEAD}")
    for expert, factors in halves.items():
        if not all(factor.isfinite().all() for factor in factors):
            raise InputError(f"adapter {expert}: expected finite A and B; those of {name} are not. Check its training.")


def _products(halves: Mapping[str, tuple[Tensor, Tensor]], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """B_i A_i by expert, and Σ_i B_i (Σ_j A_j − A_i)."""
    for expert, (down, up) in halves.items():
        yield expert, up.to(dtype) @ down.to(dtype)
    downs = torch.stack([down for down, _ in halves.values()])
    ups = torch.cat([up for _, up in halves.values()], dim=1)
    yield CROSS_TERMS, ups.to(dtype) @ (downs.sum(0) - downs).flatten(0, 1).to(dtype)
