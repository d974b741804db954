"""PEFT LoRA adapters read as whole checkpoints, W + s · B A, one tensor at a time; files without PEFT installed.

Only adapters whose merged weights follow from the stored tensors alone are read. Anything else is refused by
name: an adapter applied by the wrong formula gives weights that look plausible and belong to no model.
"""

import math
import re
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from diagnostics.inputs.checkpoints import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    Checkpoint,
    FileCheckpoint,
    MemoryCheckpoint,
    Source,
    is_adapter,
    open_checkpoint,
    read_json,
    refuse,
)
from diagnostics.inputs.live_models import PREFIX, LiveAdapter, has_adapters, module_parameters, weight_changes
from diagnostics.inputs.tensor_files import PartReader
from diagnostics.inputs.texts import user_path

_MERGE = (
    "Merge it first with PEFT: PeftModel.from_pretrained(base, folder).merge_and_unload(), then "
    "save_pretrained, and pass that folder."
)
_SAVE = "Save the adapter again with PEFT."
_MERGE_LIVE = "Merge it first: pass copy.deepcopy(model).merge_and_unload()."
_FACTOR = re.compile(r"(.+)\.(?:(lora_[AB])\.weight|(lora_embedding_[AB]))")

# Options that change what the stored tensors mean, or add to them.
_REFUSED = {
    "use_dora": "DoRA, which rescales the merged weight",
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
_UNDERSTOOD = {
    *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "modules_to_save"),
    *("peft_type", "bias", "init_lora_weights", "target_modules", "exclude_modules", "layers_to_transform"),
    *("layers_pattern", "lora_dropout", "inference_mode", "task_type", "auto_mapping", "runtime_config"),
    *("base_model_name_or_path", "revision", "peft_version", "megatron_core", "qalora_group_size"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
}


@dataclass(frozen=True)
class _Factors:
    """The low-rank factors of one module: the keys of A and B, their rank and scale, and the layer's kind."""

    module: str
    down: str
    up: str
    rank: int
    scale: float
    embedding: bool

    @property
    def name(self) -> str:
        """Name of the weight that they change."""
        return f"{self.module}.weight"


@dataclass(frozen=True)
class LoraFactors:
    """What an adapter holds for one weight, whose update is s · B A.

    Attributes:
        down: A, [r, in]; a convolution's is flattened.
        up: B, [out, r].
        scale: s.
    """

    down: Tensor
    up: Tensor
    scale: float


class AdapterCheckpoint(Checkpoint):
    """A base with a PEFT LoRA adapter applied: W + s · B A, with s = α/r, or α/√r where rank-stabilised.

    Linear, Conv1D, embedding and convolution layers are supported, with `rank_pattern`, `alpha_pattern` and
    `modules_to_save`. Changed weights are float32 or wider, where a merge on disk rounds to the base's dtype.

    Attributes:
        base: The model below the adapter.
        folder: The adapter's folder, if it has one.
        config: What its `adapter_config.json` says.
        adapted: Names of the weights that the factors change.
        saved: Names of the tensors that the adapter holds whole.

    Args:
        base: The model that the adapter was trained on; for a live one, the weights below it.
        source: Folder with `adapter_config.json` and `adapter_model.safetensors`, or an adapter in memory.
        label: How messages name this model; by default the folder.

    Raises:
        CheckpointError: The adapter is of another kind, incomplete, or does not fit the base.
    """

    def __init__(self, base: Checkpoint, source: str | Path | LiveAdapter, label: str | None = None) -> None:
        self.base = base
        if isinstance(source, LiveAdapter):
            self.folder, self._where = None, label or source.label
            self.config = _checked(source.config(self._where), self._where, live=True)
            self._weights: Checkpoint = MemoryCheckpoint(source.tensors(self._where), self._where)
        else:
            self.folder = user_path(source)
            self._where = str(self.folder)
            self.config = _checked(read_json(self.folder / ADAPTER_CONFIG), self.folder / ADAPTER_CONFIG)
            self._weights = FileCheckpoint(self._where, [_weights_file(self.folder)])
        keys, self._replaced = self._sort_keys()
        self._factors = {f"{module}.weight": self._pair(module, found) for module, found in keys.items()}
        self.adapted, self.saved = tuple(self._factors), tuple(self._replaced)
        self._check_ties()
        self._check_targets()
        self._transposed = self._orient()
        added = [name for name in self._replaced if name not in base.names]
        aliases = {name: kept for name, kept in base.aliases.items() if name not in self._replaced}
        super().__init__(label or self._where, (*base.names, *added), aliases)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading its values."""
        holder, key = self._holder(name)
        return holder.shape(key)

    def dtype(self, name: str) -> torch.dtype:
        """Dtype of a tensor: float32 at least where the adapter changes it."""
        holder, key = self._holder(name)
        stored = holder.dtype(key)
        return torch.promote_types(stored, torch.float32) if name in self._factors else stored

    def tensor(self, name: str) -> Tensor:
        """Values of a tensor with the adapter applied, computed now."""
        weight = self.before(name)
        if name not in self._factors:
            return weight
        factors, weight = self.factors(name), weight.to(self.dtype(name))
        return weight + self.shaped(name, factors.up.to(weight) @ factors.down.to(weight)) * factors.scale

    def parts(self, name: str) -> AbstractContextManager[PartReader]:
        """Open a tensor to be read in parts; where the adapter changes it, it is computed and held whole."""
        if name in self._factors:
            return super().parts(name)
        holder, key = self._holder(name)
        return holder.parts(key)

    def before(self, name: str) -> Tensor:
        """Values of a tensor below its factors: the adapter's own where it holds it whole, or the base's."""
        holder, key = self._holder(name)
        return holder.tensor(key)

    def factors(self, name: str) -> LoraFactors:
        """Factors of one of the `adapted` weights, read now; a convolution's B is 1×1, so flat ones serve any layer."""
        keys = self._factors[name]
        down, up = (self._weights.tensor(key).flatten(1) for key in (keys.down, keys.up))
        return LoraFactors(down, up, keys.scale)

    def shaped(self, name: str, product: Tensor) -> Tensor:
        """A product B A of flat factors as the weight is stored: transposed, or with a convolution's kernel."""
        return product.T if self._transposed[name] else product.reshape(self.shape(name))

    def _holder(self, name: str) -> tuple[Checkpoint, str]:
        """Where a tensor is before any update: with the adapter if that saved it whole, or in the base."""
        return (self._weights, self._replaced[name]) if name in self._replaced else (self.base, name)

    def _sort_keys(self) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
        """Sort the adapter's tensors into factors by module and replacements by name; refuse any other."""
        factors: dict[str, dict[str, str]] = {}
        replaced: dict[str, str] = {}
        unknown: list[str] = []
        for key in self._weights.names:
            name = key.removeprefix(PREFIX)
            match = _FACTOR.fullmatch(name)
            if match and key != name:
                factors.setdefault(match[1], {})[match[2] or match[3]] = key
            elif key != name and self._replaces(name):
                replaced[name.replace(".base_layer.", ".")] = key
            else:
                unknown.append(key)
        if unknown:
            expected = f"{PREFIX}*.lora_A.weight, *.lora_B.weight and modules of modules_to_save"
            self._refuse(expected, f"{len(unknown)} tensors of another kind: {', '.join(unknown)}")
        return factors, replaced

    def _replaces(self, name: str) -> bool:
        """Whether PEFT would load this tensor over the model's own: a saved module, or an embedding."""
        parts = name.split(".")
        modules = [".".join(parts[:end]) for end in range(1, len(parts))]
        saved = tuple(self.config.get("modules_to_save") or ())
        return name.replace(".base_layer.", ".") in self.base.names or any(m.endswith(saved) for m in modules)

    def _pair(self, module: str, keys: Mapping[str, str]) -> _Factors:
        """The two factors of a module with the scale that the configuration gives them."""
        embedding = any(factor.startswith("lora_embedding") for factor in keys)
        pair = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
        if set(keys) != set(pair):
            self._refuse(f"{pair[0]} and {pair[1]} for {module}", f"only {', '.join(sorted(keys))}")
        rank = _pattern_value(self.config.get("rank_pattern"), module, self.config["r"])
        alpha = _pattern_value(self.config.get("alpha_pattern"), module, self.config["lora_alpha"])
        scale = alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)
        return _Factors(module, keys[pair[0]], keys[pair[1]], rank, scale, embedding)

    def _check_ties(self) -> None:
        """Refuse to change one of two tied weights: the adapter ran with them apart, a merge changes both."""
        for name, kept in self.base.aliases.items():
            half = kept in self._replaced and name not in self._replaced
            if half or {name, kept} & self._factors.keys():
                self._refuse("changes to untied weights only", f"a change to {kept}, which is tied to {name}")

    def _check_targets(self) -> None:
        """Refuse factors for weights that the base lacks."""
        known = {*self.base.names, *self._replaced}
        lost = [name for name in self._factors if name not in known]
        if lost:
            found = f"{len(lost)} adapted weights that it lacks: {', '.join(lost)}"
            remedy = (
                f"The base's names begin with {self.base.names[0]}: pass the model that the adapter was "
                "trained on, saved by the same class; where a weight is tied to another, merge_and_unload()."
            )
            refuse(self._where, f"an adapter for base {self.base.label!r}", found, remedy)

    def _orient(self) -> dict[str, bool]:
        """Settle which weights are stored (in, out): by their shapes, and by fan_in_fan_out where square."""
        flips = {name: self._is_flipped(factors) for name, factors in self._factors.items()}
        flag = bool(self.config.get("fan_in_fan_out"))
        square = [name for name, flip in flips.items() if flip is None]
        layers = [name for name, factors in self._factors.items() if not factors.embedding]
        contrary = [name for name in layers if flips[name] not in (None, flag)]
        # A model may mix Linear and Conv1D layers, but PEFT keeps one flag for all of them.
        if square and contrary:
            found = f"{contrary[0]} the other way round, so that square {square[0]} could be either"
            self._refuse(f"every weight stored as fan_in_fan_out={flag} says", found)
        return {name: flag if flip is None else flip for name, flip in flips.items()}

    def _is_flipped(self, factors: _Factors) -> bool | None:
        """Whether the weight is stored (in, out); None where it is square and its shape cannot tell."""
        down, up = self._weights.shape(factors.down), self._weights.shape(factors.up)
        weight, product = self.shape(factors.name), _product_shape(down, up)
        flipped = product[::-1] if len(product) == 2 else ()
        allowed = (flipped,) if factors.embedding else (product, flipped)
        holder, key = self._holder(factors.name)
        quantised = not holder.dtype(key).is_floating_point
        if down[0] != factors.rank or weight not in allowed or not weight or quantised:
            expected = f"factors of rank {factors.rank} for {factors.name} {list(weight)} in floating point"
            found = f"A {list(down)}, B {list(up)}" + (" and a weight stored as integers" if quantised else "")
            self._refuse(expected, found)
        return None if product == flipped and not factors.embedding else weight == flipped

    def _refuse(self, expected: str, found: str) -> NoReturn:
        """Refuse this adapter, with the remedy that serves every kind."""
        refuse(self._where, expected, found, _MERGE if self.folder else _MERGE_LIVE)


def open_expert(base: Checkpoint, source: Source, label: str | None = None) -> Checkpoint:
    """Open a fine-tuned model: a PEFT adapter on top of its base, or anything `open_checkpoint` reads.

    A model in memory with an adapter of PEFT is what it computes: its own weights below the adapter, whatever the base.

    Args:
        base: The model that the expert was fine-tuned from, on top of which the adapter of a folder goes.
        source: An adapter folder, a model with an active adapter, or any other source of parameters.
        label: How messages name the expert.

    Returns:
        The expert's checkpoint, whole: an adapter's tensors have the base's names.

    Example:
        >>> base = open_checkpoint({"w": torch.zeros(2)})
        >>> open_expert(base, {"w": torch.ones(2)}).tensor("w")
        tensor([1., 1.])
    """
    if isinstance(source, LiveAdapter) or (isinstance(source, nn.Module) and has_adapters(source)):
        return open_live_adapter(source, label)
    if isinstance(source, str | Path) and is_adapter(source):
        return AdapterCheckpoint(base, source, label)
    return open_checkpoint(source, label)


def open_live_adapter(source: LiveAdapter | nn.Module, label: str | None = None) -> AdapterCheckpoint:
    """Open a model in memory with an adapter of PEFT on top of its own weights.

    Args:
        source: The model, whose active adapter is meant, or one of its adapters.
        label: How messages name it.

    Returns:
        The checkpoint: as `merge_and_unload` of PEFT would leave the model, which stays as it is.
    """
    adapter = LiveAdapter(source) if isinstance(source, nn.Module) else source
    below = MemoryCheckpoint(module_parameters(adapter.model), f"{label or adapter.label}, below its adapter")
    return AdapterCheckpoint(below, adapter, label)


def _checked(config: dict[str, Any], path: object, live: bool = False) -> dict[str, Any]:
    """The adapter's configuration, if its weights can be merged from it."""
    found = _unsupported(config, live)
    if found:
        refuse(path, "a plain LoRA adapter", "; ".join(found), _MERGE_LIVE if live else _MERGE)
    _check_kinds(path, config)
    ranks = [config.get("r"), *(config.get("rank_pattern") or {}).values()]
    alphas = [config.get("lora_alpha"), *(config.get("alpha_pattern") or {}).values()]
    if not all(_is_number(rank) and rank > 0 for rank in ranks) or not all(map(_is_number, alphas)):
        found_numbers = f"r {ranks}, lora_alpha {alphas}"
        refuse(path, "positive ranks and finite lora_alpha", found_numbers, _SAVE)
    return config


def _check_kinds(path: object, config: Mapping[str, Any]) -> None:
    """Refuse sections of the wrong kind, and patterns that are none or that could be tried for ever."""
    for key in ("rank_pattern", "alpha_pattern"):
        patterns = config.get(key) or {}
        if not isinstance(patterns, dict):
            refuse(f"{path}: {key}", "numbers by pattern", repr(patterns), _SAVE)
        for pattern in patterns:
            try:
                re.compile(pattern)
            except (re.error, OverflowError, RecursionError) as error:
                refuse(f"{path}: {key}", "patterns of names", f"{pattern!r} ({error})", _SAVE)
            # A repeated group takes time exponential in the length of a name, many repeats a high power of it.
            if re.search(r"\)[*+{]", pattern) or len(re.findall(r"[*+{]", pattern)) > 3:
                refuse(f"{path}: {key}", "patterns without repeated groups", repr(pattern), _SAVE)
    saved = config.get("modules_to_save") or []
    if not isinstance(saved, list) or not all(isinstance(name, str) for name in saved):
        refuse(f"{path}: modules_to_save", "a list of names", repr(saved), _SAVE)


def _is_number(value: object) -> bool:
    """Whether a JSON value is a finite number."""
    largest = sys.float_info.max
    return isinstance(value, int | float) and not isinstance(value, bool) and -largest <= value <= largest


def _unsupported(config: Mapping[str, Any], live: bool) -> list[str]:
    """Everything in a configuration that makes the merged weights other than W + s · B A."""
    if config.get("peft_type") != "LORA":
        return [f"peft_type {config.get('peft_type')!r}"]
    found = [f"{key}: {reason}" for key, reason in _REFUSED.items() if config.get(key)]
    # A model in memory has the weights below its adapter as they are now.
    found += [] if live else weight_changes(config)
    unknown = [key for key, value in config.items() if value and key not in _UNDERSTOOD | _REFUSED.keys()]
    return found + [f"{key}: {config[key]!r}, an unknown option" for key in unknown]


def _weights_file(folder: Path) -> Path:
    """The adapter's weights, in safetensors."""
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        pickled = sorted(file.name for file in folder.glob("adapter_model.*"))
        remedy = "Load the adapter with PEFT and save it with save_pretrained(folder, safe_serialization=True)."
        refuse(folder, ADAPTER_WEIGHTS, ", ".join(pickled) or "no weights", remedy)
    return path


def _pattern_value(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """PEFT's own rule: the first pattern that matches the end of the module's path, from a dot on."""
    matches = (value for key, value in (patterns or {}).items() if re.match(rf"(.*\.)?({key})$", module))
    return next(matches, default)


def _product_shape(down: tuple[int, ...], up: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of B A for A [r, in, *kernel] and B [out, r, 1, …]; empty where the two do not fit."""
    fits = len(down) == len(up) >= 2 and up[1] == down[0] and all(size == 1 for size in up[2:])
    return (up[0], *down[1:]) if fits else ()
