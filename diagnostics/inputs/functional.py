"""A torch module as a function of named parameters."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.inputs.parts import is_part
from diagnostics.inputs.shards import gather_where_used, refuse_fsdp, without_weights

__all__ = ["FunctionalModule"]


Place = tuple[torch.device, torch.dtype]


class FunctionalModule:
    """A module as a function of its named parameters, isolated from the original's state.

    Where parameters come on another device or in another type than the module's own, its other tensors and the inputs
    follow them: each call moves its batch, which is small beside the work on it.
    """

    def __init__(self, task: str, module: torch.nn.Module, parameters: Sequence[str] | None) -> None:
        own = dict(module.named_parameters())
        unknown = sorted(set(parameters or ()) - set(own))
        if unknown:
            raise InputError(f"task {task!r}: parameters {unknown} are not in the module, which has {sorted(own)}")
        self.task = task
        self.names = frozenset(own if parameters is None else parameters)
        self.allowed = frozenset(own) | {key for key, _ in module.named_buffers()}
        in_parts = any(map(is_part, own.values()))
        if in_parts:
            refuse_fsdp(module)
        # Parameters are shared, everything else is copied: eval() and buffers of the original stay as they are.
        self.module = copy.deepcopy(module, {id(value): value for value in own.values()}).eval()
        self._home = _place(own)
        # A parameter that is not studied is a constant: no derivative is traced through it.
        self._frozen = {name: value.detach() for name, value in own.items() if name not in self.names}
        self._computed = _computed(self.module)
        # Where a parameter is held in parts it goes by another name.
        self._renamed = gather_where_used(self.module) if in_parts else {}
        self._moved: tuple[Place | None, dict[str, Tensor]] = (None, {})

    def __call__(self, params: Mapping[str, Tensor], batch: tuple[Any, Any]) -> Tensor:
        """Return the outputs of a batch.

        Args:
            params: The parameters.
            batch: Inputs, a tensor or keywords, and anything else.

        Returns:
            The module's output, or its ``logits``.

        Raises:
            InputError: If the parameters do not fit, or the module returns something else.
        """
        self._check_names(params)
        inputs, rest, place = batch[0], self._frozen, _place(params)
        if place is not None and place != self._home:
            inputs, rest = _follow(inputs, place), self._rest(place)
        args, keywords = ((), dict(inputs)) if isinstance(inputs, Mapping) else ((inputs,), {})
        given = {self._renamed.get(name, name): value for name, value in {**rest, **params}.items()}
        with without_weights() if self._renamed else nullcontext():
            out = torch.func.functional_call(self.module, given, args, keywords)
        out = getattr(out, "logits", out)
        if not isinstance(out, Tensor):
            raise InputError(
                f"task {self.task!r}: the module returned {type(out).__name__}, expected a tensor or .logits"
            )
        return out

    def _rest(self, place: Place) -> dict[str, Tensor]:
        """What the module itself brings, where its parameters are and in their type; the last place is kept."""
        if self._moved[0] != place:
            tensors = {**self._frozen, **dict(self.module.named_buffers())}
            kinds = {name: tensors[name].dtype if name in self._computed else place[1] for name in tensors}
            moved = {name: _follow(value, (place[0], kinds[name])) for name, value in tensors.items()}
            self._moved = (place, moved)
        return self._moved[1]

    def _check_names(self, params: Mapping[str, Tensor]) -> None:
        """Refuse missing or unknown names: functional_call would pass over both in silence."""
        missing, unknown = self.names - params.keys(), params.keys() - self.allowed
        if missing or unknown:
            raise InputError(
                f"task {self.task!r}: the parameters do not fit the module; missing {sorted(missing)}, "
                f"unknown {sorted(unknown)}. Pass all of dict(module.named_parameters()), or name some by parameters="
            )


def _computed(module: torch.nn.Module) -> frozenset[str]:
    """Buffers that transformers computes and does not store (rotary frequencies), and keeps in float32."""
    # Rounded to bfloat16, a frequency turns the thousandth token by up to two radians too much or too little.
    unstored = {name for name, _ in module.named_buffers()} - module.state_dict().keys()
    owners = {name: module.get_submodule(name.rpartition(".")[0]) for name in unstored}
    return frozenset(name for name, owner in owners.items() if type(owner).__module__.startswith("transformers."))


def _place(params: Mapping[str, Tensor]) -> Place | None:
    """Device and type of the first parameter that has one to speak of."""
    return next(((value.device, value.dtype) for value in params.values() if value.is_floating_point()), None)


def _follow(values: Any, place: Place) -> Any:
    """Inputs or a tensor on a device, in a type where they are not integers."""
    if isinstance(values, Mapping):
        return {key: _follow(value, place) for key, value in values.items()}
    if isinstance(values, tuple | list):
        return type(values)(_follow(value, place) for value in values)
    if not isinstance(values, Tensor):
        return values
    return values.to(place[0], place[1] if values.is_floating_point() else None)
