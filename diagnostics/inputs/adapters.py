"""PEFT LoRA adapters read as whole checkpoints: base + scaling · B A, one tensor at a time, without PEFT installed.

Only adapters whose merged weights follow from the stored tensors alone are read. Anything else is refused by name,
because an adapter applied by the wrong formula gives weights that look plausible and belong to no model.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from diagnostics.inputs.checkpoints import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    Checkpoint,
    FileCheckpoint,
    Source,
    is_adapter,
    open_checkpoint,
    read_json,
    refuse,
)

_MERGE = (
    "Merge it first with PEFT, PeftModel.from_pretrained(base, folder).merge_and_unload(), save that model with "
    "save_pretrained and pass its folder."
)
_PREFIX = "base_model.model."
_LORA_KEY = re.compile(
    r"(?P<module>.+)\.(?:(?P<linear>lora_[AB])\.weight|(?P<embedding>lora_embedding_[AB]))"
)

# Options that change what the stored tensors mean, or add to them.
_REFUSED = {
    "use_dora": "DoRA, which rescales the columns of the merged weight",
    "lora_bias": "a trained bias in lora_B",
    "use_qalora": "QALoRA, which pools the input features",
    "use_bdlora": "block-diagonal LoRA",
    "kasa_config": "KaSA, which truncates the base weight",
    "monteclora_config": "MonteCLoRA, whose weights are sampled",
    "velora_config": "VeLoRA",
    "arrow_config": "Arrow routing between several adapters",
    "alora_invocation_tokens": "activated LoRA, which applies to some tokens only",
    "layer_replication": "replicated layers",
    "target_parameters": "LoRA on bare parameters (mixture of experts)",
    "trainable_token_indices": "separately trained token rows",
    "megatron_config": "Megatron parallel layers",
    "ensure_weight_tying": "adapters shared between tied layers",
}
# Options that are read here, or that say how the adapter was trained and not what its weights are.
_UNDERSTOOD = frozenset(
    "r lora_alpha use_rslora rank_pattern alpha_pattern fan_in_fan_out modules_to_save bias init_lora_weights peft_type "
    "target_modules exclude_modules layers_to_transform layers_pattern lora_dropout inference_mode task_type auto_mapping "
    "base_model_name_or_path revision peft_version megatron_core qalora_group_size loftq_config eva_config "
    "corda_config lora_ga_config runtime_config".split()
)
# Initialisations that leave the base as it was; the others move part of it into the adapter.
_PLAIN_INIT = (True, False, None, "gaussian", "eva", "orthogonal", "mica")


@dataclass(frozen=True)
class _Update:
    """One low-rank update: the keys of its factors, its scale, and whether the weight is stored transposed."""

    down: str
    up: str
    scale: float
    transposed: bool


class AdapterCheckpoint(Checkpoint):
    """A base with a PEFT LoRA adapter applied: W + s · B A in float32 or wider, s = α/r, or α/√r for rank-stabilised.

    Linear, Conv1D, embedding and convolution layers are supported, with `rank_pattern`, `alpha_pattern` and
    `modules_to_save`. Updated weights are not rounded to the base's dtype, as merging them on disk would.

    Args:
        base: The model that the adapter was trained on.
        folder: Folder with `adapter_config.json` and `adapter_model.safetensors`.
        label: How messages name this model; by default the folder.

    Raises:
        CheckpointError: The adapter is of another kind, incomplete, or does not fit the base.
    """

    def __init__(self, base: Checkpoint, folder: str | Path, label: str | None = None) -> None:
        self.base, self.folder = base, Path(folder).expanduser()
        self._config = _read_config(self.folder / ADAPTER_CONFIG)
        self._weights = FileCheckpoint(str(self.folder), [_weights_file(self.folder)])
        factors, self._replaced = self._sort_keys()
        self._updates = self._plan(factors)
        added = [name for name in self._replaced if name not in base.names]
        self._check_ties()
        aliases = {name: kept for name, kept in base.aliases.items() if name not in self._replaced}
        super().__init__(label or str(folder), (*base.names, *added), aliases)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading its values."""
        return self._weights.shape(self._replaced[name]) if name in self._replaced else self.base.shape(name)

    def dtype(self, name: str) -> torch.dtype:
        """Dtype of a tensor: at least float32 where the adapter updates it."""
        if name in self._replaced:
            stored = self._weights.dtype(self._replaced[name])
        else:
            stored = self.base.dtype(name)
        return torch.promote_types(stored, torch.float32) if name in self._updates else stored

    def tensor(self, name: str) -> Tensor:
        """Values of a tensor with the adapter applied, computed now."""
        replaced = self._replaced.get(name)
        weight = self.base.tensor(name) if replaced is None else self._weights.tensor(replaced)
        if name not in self._updates:
            return weight
        weight = weight.to(self.dtype(name))
        return weight + self._delta(self._updates[name], weight)

    def _delta(self, update: _Update, like: Tensor) -> Tensor:
        """The update s · B A; a convolution's B is 1×1, so that flattened factors serve every kind of layer."""
        down = self._weights.tensor(update.down).to(like)
        up = self._weights.tensor(update.up).to(like)
        product = (up.flatten(1) @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:]) * update.scale
        return product.T if update.transposed else product

    def _sort_keys(self) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
        """Sort the adapter's tensors into factors by module and replacements by name; refuse all others."""
        factors: dict[str, dict[str, str]] = {}
        replaced: dict[str, str] = {}
        unknown: list[str] = []
        for key in self._weights.names:
            name = key.removeprefix(_PREFIX)
            match = _LORA_KEY.fullmatch(name)
            if not key.startswith(_PREFIX):
                unknown.append(key)
            elif match:
                factors.setdefault(match["module"], {})[match["linear"] or match["embedding"]] = key
            elif self._replaces(name):
                replaced[name.replace(".base_layer.", ".")] = key
            else:
                unknown.append(key)
        if unknown:
            expected = (
                f"factors {_PREFIX}*.lora_A.weight, *.lora_B.weight and whole modules of modules_to_save"
            )
            self._refuse(expected, f"{len(unknown)} tensors of another kind: {', '.join(unknown)}")
        return factors, replaced

    def _replaces(self, name: str) -> bool:
        """Whether PEFT would load this tensor over the model's own: a saved module, or a resized embedding."""
        parts = name.split(".")
        modules = [".".join(parts[:end]) for end in range(1, len(parts))]
        saved = tuple(self._config.get("modules_to_save") or ())
        return name.replace(".base_layer.", ".") in self.base.names or any(m.endswith(saved) for m in modules)

    def _plan(self, factors: Mapping[str, Mapping[str, str]]) -> dict[str, _Update]:
        """Check every pair of factors against its weight and settle how it is applied."""
        if not factors and not self._replaced:
            self._refuse("LoRA factors", "no tensor that changes the base")
        self._check_targets(factors)
        flips = {module: self._is_flipped(module, keys) for module, keys in factors.items()}
        flag = bool(self._config.get("fan_in_fan_out"))
        contrary = [
            m for m, flip in flips.items() if flip is not None and flip != flag and "lora_A" in factors[m]
        ]
        square = [module for module, flip in flips.items() if flip is None]
        if contrary and square:
            expected = (
                f"every layer stored as fan_in_fan_out={flag} says, so that square weights can be oriented"
            )
            self._refuse(expected, f"{contrary[0]} the other way round and {square[0]} square")
        return {
            f"{module}.weight": self._update(
                module, keys, flag if flips[module] is None else bool(flips[module])
            )
            for module, keys in factors.items()
        }

    def _check_targets(self, factors: Mapping[str, object]) -> None:
        """Refuse factors for weights that the base lacks."""
        known = {*self.base.names, *self._replaced, *self.base.aliases}
        lost = [module for module in factors if f"{module}.weight" not in known]
        if lost:
            found = f"{len(lost)} modules without one: {', '.join(lost)}; base {self.base.label!r} has {self.base.names[0]}, …"
            remedy = (
                "Pass the base that the adapter was trained on, saved with the same class (a prefix such as "
                "'transformer.' tells them apart); where the weight is tied to another, merge the adapter first "
                "with merge_and_unload()."
            )
            refuse(self.folder, "a base weight for every adapted module", found, remedy)

    def _is_flipped(self, module: str, keys: Mapping[str, str]) -> bool | None:
        """Whether the weight is stored (in, out); None where it is square and its shape cannot tell."""
        embedding = any(factor.startswith("lora_embedding") for factor in keys)
        down, up = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
        if set(keys) != {down, up}:
            self._refuse(f"{down} and {up} for {module}", f"only {', '.join(sorted(keys))}")
        weight, floating = self._target(module)
        a, b = self._weights.shape(keys[down]), self._weights.shape(keys[up])
        product = _product_shape(a, b)
        allowed = (
            [product[::-1]] if embedding else [product, product[::-1]] if len(product) == 2 else [product]
        )
        if not floating or not product or a[0] != self._rank(module) or weight not in allowed:
            expected = f"factors of rank {self._rank(module)} for the floating-point weight of {module} {list(weight)}"
            found = f"A {list(a)}, B {list(b)}" + ("" if floating else " and a quantised weight")
            self._refuse(expected, found)
        if embedding:
            return True
        return None if len(product) == 2 and product[0] == product[1] else weight != product

    def _target(self, module: str) -> tuple[tuple[int, ...], bool]:
        """Shape of the weight that a module's factors change, and whether it is floating point."""
        name = self.base.aliases.get(f"{module}.weight", f"{module}.weight")
        holder, key = (self._weights, self._replaced[name]) if name in self._replaced else (self.base, name)
        return holder.shape(key), holder.dtype(key).is_floating_point

    def _rank(self, module: str) -> int:
        """Rank of a module's factors according to the configuration."""
        return _pattern_value(self._config.get("rank_pattern") or {}, module, self._config["r"])

    def _update(self, module: str, keys: Mapping[str, str], flipped: bool) -> _Update:
        """The update of one module with its scale."""
        rank = self._rank(module)
        alpha = _pattern_value(self._config.get("alpha_pattern") or {}, module, self._config["lora_alpha"])
        scale = alpha / (math.sqrt(rank) if self._config.get("use_rslora") else rank)
        down, up = (keys[factor] for factor in sorted(keys))
        return _Update(down, up, scale, flipped)

    def _check_ties(self) -> None:
        """Refuse a change to one of two tied weights: the adapter ran with them apart, a merge changes both."""
        for name, kept in self.base.aliases.items():
            half = kept in self._replaced and name not in self._replaced
            if half or {name, f"{kept}"} & self._updates.keys():
                self._refuse("changes to untied weights only", f"a change to {kept}, tied to {name}")

    def _refuse(self, expected: str, found: str) -> NoReturn:
        """Refuse this adapter, with the remedy that serves every kind."""
        refuse(self.folder, expected, found, _MERGE)


def open_expert(base: Checkpoint, source: Source, label: str | None = None) -> Checkpoint:
    """Open a fine-tuned model: a PEFT adapter folder on top of its base, or anything `open_checkpoint` reads.

    Args:
        base: The model that the expert was fine-tuned from.
        source: An adapter folder, or any other source of parameters.
        label: How messages name the expert.

    Returns:
        The expert's checkpoint, whole: an adapter's tensors have the base's names.

    Example:
        >>> base = open_checkpoint({"w": torch.zeros(2)})
        >>> open_expert(base, {"w": torch.ones(2)}).tensor("w")
        tensor([1., 1.])
    """
    if not isinstance(source, Mapping) and is_adapter(source):
        return AdapterCheckpoint(base, source, label)
    return open_checkpoint(source, label)


def _read_config(path: Path) -> dict[str, Any]:
    """The adapter's configuration, if its weights can be merged from it."""
    config = read_json(path)
    found = _unsupported(config)
    if found:
        refuse(path, "a plain LoRA adapter", "; ".join(found), _MERGE)
    for key in ("r", "lora_alpha"):
        value = config.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            refuse(path, f"a number for {key}", repr(value), "Save the adapter again with PEFT.")
    return config


def _unsupported(config: Mapping[str, Any]) -> list[str]:
    """Everything in a configuration that makes the merged weights other than W + s · B A."""
    if config.get("peft_type") != "LORA":
        return [f"peft_type {config.get('peft_type')!r}"]
    found = [f"{key}: {reason}" for key, reason in _REFUSED.items() if config.get(key)]
    if config.get("bias", "none") != "none":
        found.append(f"bias: {config['bias']!r}, trained biases")
    init = config.get("init_lora_weights", True)
    if init not in _PLAIN_INIT:
        found.append(f"init_lora_weights: {init!r}, which changed the base weights when training began")
    unknown = [key for key, value in config.items() if value and key not in _UNDERSTOOD | _REFUSED.keys()]
    return found + [f"{key}: {config[key]!r}, an unknown option" for key in unknown]


def _weights_file(folder: Path) -> Path:
    """The adapter's weights, in safetensors."""
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        pickled = sorted(file.name for file in folder.glob("adapter_model.*"))
        remedy = (
            "Load the adapter with PEFT and save it with save_pretrained(folder, safe_serialization=True)."
        )
        refuse(folder, ADAPTER_WEIGHTS, ", ".join(pickled) or "no weights", remedy)
    return path


def _pattern_value(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """PEFT's own rule: the first pattern that matches the end of the module's path, from a dot on."""
    matches = (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module))
    return next(matches, default)


def _product_shape(down: tuple[int, ...], up: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of B A for A [r, in, *kernel] and B [out, r, 1, …]; empty where the two do not fit."""
    fits = len(down) == len(up) >= 2 and up[1] == down[0] and all(size == 1 for size in up[2:])
    return (up[0], *down[1:]) if fits else ()
