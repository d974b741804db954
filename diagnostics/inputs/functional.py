"""A torch module as a function of named parameters."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diagnostics.errors import InputError

__all__ = ["FunctionalModule"]


class FunctionalModule:
    """A module as a function of its named parameters, isolated from the original's state."""

    def __init__(self, task: str, module: torch.nn.Module, parameters: Sequence[str] | None) -> None:
        own = dict(module.named_parameters())
        unknown = sorted(set(parameters or ()) - set(own))
        if unknown:
            raise InputError(f"task {task!r}: parameters {unknown} are not in the module, which has {sorted(own)}")
        self.task = task
        self.names = frozenset(own if parameters is None else parameters)
        self.allowed = frozenset(own) | {key for key, _ in module.named_buffers()}
        # Parameters are shared, everything else is copied: eval() and buffers of the original stay as they are.
        self.module = copy.deepcopy(module, {id(value): value for value in own.values()}).eval()

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
        inputs = batch[0]
        args, keywords = ((), dict(inputs)) if isinstance(inputs, Mapping) else ((inputs,), {})
        out = torch.func.functional_call(self.module, dict(params), args, keywords)
        out = getattr(out, "logits", out)
        if not isinstance(out, Tensor):
            raise InputError(
                f"task {self.task!r}: the module returned {type(out).__name__}, expected a tensor or .logits"
            )
        return out

    def _check_names(self, params: Mapping[str, Tensor]) -> None:
        """Refuse missing or unknown names: functional_call would pass over both in silence."""
        missing, unknown = self.names - params.keys(), params.keys() - self.allowed
        if missing or unknown:
            raise InputError(
                f"task {self.task!r}: the parameters do not fit the module; missing {sorted(missing)}, "
                f"unknown {sorted(unknown)}. Pass all of dict(module.named_parameters()), or name some by parameters="
            )
