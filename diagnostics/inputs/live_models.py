"""Models in memory: their parameters by the names that files give them, and the adapters of PEFT inside them.

PEFT puts its layers into a model in place, so that weights move to other names and the adapter's own lie between
them. Nothing here changes a model or copies a weight, and nothing imports PEFT or transformers: a model that needs
them has imported them.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from diagnostics.errors import InputError
from diagnostics.inputs.tensor_files import refuse

__all__ = [
    "PREFIX",
    "LiveAdapter",
    "has_adapters",
    "module_parameters",
    "peft_adapters",
    "untouched_parameters",
    "weight_changes",
]

PREFIX = "base_model.model."
# Initialisations that leave the base as it was; the others move part of it into the adapter.
_PLAIN_INIT = (True, False, None, "gaussian", "eva", "orthogonal", "mica")

_HIDDEN = frozenset({"base_layer", "original_module"})


@dataclass(frozen=True)
class LiveAdapter:
    """One adapter of a model that PEFT works on.

    Attributes:
        model: The model, a ``PeftModel`` or one with layers of PEFT in it.
        name: The adapter's name; by default the active one.
    """

    model: Any
    name: str | None = None

    @property
    def label(self) -> str:
        """How messages name it where no other name is known."""
        return f"{type(self.model).__name__} {self.name or ''}".rstrip()

    def config(self, label: str) -> dict[str, Any]:
        """What PEFT would write to `adapter_config.json`.

        Args:
            label: How messages name the model.

        Returns:
            The adapter's configuration.

        Raises:
            CheckpointError: If not exactly one adapter is active, it is switched off, or merged into the weights.
        """
        # Sets become lists, and enums what they stand for.
        return dict(json.loads(json.dumps(_configs(self.model)[self._chosen(label)].to_dict(), default=list)))

    def tensors(self, label: str) -> dict[str, Tensor]:
        """What PEFT would write to `adapter_model.safetensors`.

        Args:
            label: How messages name the model.

        Returns:
            The adapter's own tensors, by the names that they have in the file.
        """
        peft = importlib.import_module("peft")
        name = self._chosen(label)
        found = peft.get_peft_model_state_dict(self.model, adapter_name=name, save_embedding_layers=False)
        return {key if key.startswith(PREFIX) else f"{PREFIX}{key}": value for key, value in found.items()}

    def _chosen(self, label: str) -> str:
        """The adapter's name, which is also that of the one that the model runs with where none was named."""
        known = list(_configs(self.model))
        layers = list(_layers(self.model).values())
        merged = sorted({name for layer in layers for name in getattr(layer, "merged_adapters", ())})
        if merged:
            refuse(label, "weights without the adapter", f"{merged} merged into them", "Call model.unmerge_adapter().")
        if self.name is not None:
            return self.name
        if any(getattr(layer, "disable_adapters", False) for layer in layers):
            refuse(label, "an active adapter", "adapters that are switched off", "Call model.enable_adapter_layers().")
        active = sorted({name for layer in layers for name in layer.active_adapters} or known)
        if len(active) != 1:
            remedy = "Call model.set_adapter(name), or take each by itself: diagnostics.peft_adapters(model)."
            refuse(label, "one active adapter", f"{len(active)} of {known}: {active}", remedy)
        return active[0]


def peft_adapters(model: nn.Module) -> dict[str, LiveAdapter]:
    """Return the adapters of a model that holds several, to be passed as experts.

    Args:
        model: A ``PeftModel`` into which adapters were loaded.

    Returns:
        Each adapter by its name, read from the model when it is used; the model and which adapter is active stay as
        they are.

    Raises:
        InputError: If the model has none.

    Example:
        >>> peft_adapters(nn.Linear(2, 2))
        Traceback (most recent call last):
        diagnostics.errors.InputError: model: expected a PeftModel with adapters; found Linear without. Pass ...
    """
    if not has_adapters(model):
        found = type(model).__name__
        raise InputError(f"model: expected a PeftModel with adapters; found {found} without. Pass it as it is.")
    return {name: LiveAdapter(model, name) for name in _configs(model)}


def has_adapters(source: object) -> bool:
    """Say whether a source is a model with adapters of PEFT in it.

    Args:
        source: Anything that may be a model.

    Returns:
        True for a ``PeftModel``, and for a module that PEFT put layers into.

    Example:
        >>> has_adapters(nn.Linear(2, 2))
        False
    """
    return isinstance(source, nn.Module) and bool(_configs(source))


def module_parameters(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters of a module by the names that they have without PEFT; those of adapters left out.

    Args:
        module: The module.

    Returns:
        Its parameters, sharing memory; a tied one under each of its names.

    Example:
        >>> list(module_parameters(nn.Linear(2, 3)))
        ['weight', 'bias']
    """
    # The model inside a PeftModel; where PEFT wraps it without layers of its own, it is all there is.
    get: Any = getattr(module, "get_base_model", None)
    inner: nn.Module = get() if _is_peft(module) else module
    layers = _layers(inner)
    named = ((_plain_name(name, layers), value) for name, value in inner.named_parameters(remove_duplicate=False))
    return {name: value for name, value in named if name is not None}


def untouched_parameters(module: nn.Module, label: str) -> dict[str, Tensor]:
    """Return the parameters of a module as they were before any adapter: what can serve as a base.

    Args:
        module: The module, which PEFT may have put layers into.
        label: How messages name it.

    Returns:
        As for :func:`module_parameters`.

    Raises:
        CheckpointError: If it is a ``PeftModel``, or its adapters have changed the weights themselves.
    """
    if not has_adapters(module):
        return module_parameters(module)
    if _is_peft(module) or getattr(module, "_hf_peft_config_loaded", False):
        remedy = "Pass the model below, model.get_base_model(), or one that was loaded by itself."
        refuse(label, "a model without adapters", f"a {type(module).__name__} with {list(_configs(module))}", remedy)
    for name in _configs(module):
        adapter = LiveAdapter(module, name)
        changed = list(weight_changes(adapter.config(label)))
        if changed:
            found = f"an adapter {name!r} with {'; '.join(changed)}"
            refuse(label, "weights that no adapter has changed", found, "Load the base by itself.")
    return module_parameters(module)


def weight_changes(config: Mapping[str, Any]) -> Iterator[str]:
    """Name what in an adapter's configuration changes weights outside it.

    Args:
        config: The adapter's configuration.

    Yields:
        Each option, with its effect.

    Example:
        >>> list(weight_changes({"bias": "all"}))
        ["bias: 'all', trained biases"]
    """
    if config.get("bias", "none") != "none":
        yield f"bias: {config['bias']!r}, trained biases"
    init = config.get("init_lora_weights", True)
    if init not in _PLAIN_INIT:
        yield f"init_lora_weights: {init!r}, which changed the base weights when training began"


def _configs(model: nn.Module) -> Mapping[str, Any]:
    """The configuration of each adapter, as PEFT attaches them; none for a model without."""
    found = getattr(model, "peft_config", None)
    return found if isinstance(found, Mapping) else {}


def _is_peft(module: nn.Module) -> bool:
    """Whether a module is of a class of PEFT."""
    return any(kind.__module__.partition(".")[0] == "peft" for kind in type(module).__mro__)


def _layers(module: nn.Module) -> dict[str, Any]:
    """The layers that PEFT put around others, by name."""
    found = ((name, layer) for name, layer in module.named_modules() if _is_peft(layer))
    return {name: layer for name, layer in found if any(hasattr(layer, child) for child in _HIDDEN)}


def _plain_name(name: str, layers: Mapping[str, Any]) -> str | None:
    """Name of a parameter without the layers around it; none for a parameter of theirs."""
    kept, inside = [], ""
    for part in name.split("."):
        if inside not in layers:
            kept.append(part)
        elif part not in _HIDDEN:
            return None
        inside = f"{inside}.{part}" if inside else part
    return ".".join(kept)
