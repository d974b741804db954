"""Task vectors read when they are asked for: one tensor of one model at a time, however many models there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.inputs.adapters import open_expert
from diagnostics.inputs.alignment import BASE, Alignment, align
from diagnostics.inputs.checkpoints import Checkpoint, Source, open_checkpoint
from diagnostics.inputs.naming import name_experts

__all__ = ["TaskVector", "TaskVectors", "open_task_vectors"]


class TaskVector(Mapping[str, Tensor]):
    """τ = θ − θ0 of one expert over the shared parameters, each tensor read and subtracted when it is asked for.

    Args:
        base: The base.
        expert: The expert.
        alignment: What they and the other experts share.
        name: The expert's name in the alignment.
    """

    def __init__(self, base: Checkpoint, expert: Checkpoint, alignment: Alignment, name: str) -> None:
        self._base, self._expert, self._alignment, self._name = base, expert, alignment, name

    def __getitem__(self, key: str) -> Tensor:
        """One tensor of τ, in the wider dtype of the two models and at least float32."""
        if key not in self._alignment.shared:
            raise KeyError(key)
        before, after = self._base.tensor(self._alignment.stored_name(BASE, key)), self.expert(key)
        dtype = reduce(torch.promote_types, (before.dtype, after.dtype), torch.float32)
        # Models in memory may be on devices of their own.
        return after.detach().to(before.device, dtype) - before.detach().to(dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._alignment.shared)

    def __len__(self) -> int:
        return len(self._alignment.shared)

    def expert(self, key: str) -> Tensor:
        """Return one tensor of θ, the expert itself.

        Args:
            key: A shared name.

        Returns:
            The tensor as it is stored.
        """
        return self._expert.tensor(self._alignment.stored_name(self._name, key))


class TaskVectors(Mapping[str, TaskVector]):
    """The task vectors of experts of one base, by name.

    Attributes:
        base: The opened base.
        alignment: What the models share.

    Args:
        base: The base.
        experts: The experts by name.
        private: Names or patterns of parameters left out.
    """

    def __init__(self, base: Checkpoint, experts: Mapping[str, Checkpoint], private: Sequence[str] = ()) -> None:
        self.base, self._experts, self._private = base, dict(experts), tuple(private)
        self.alignment = align(base, experts, private)
        self._vectors = {name: TaskVector(base, expert, self.alignment, name) for name, expert in experts.items()}

    def __getitem__(self, name: str) -> TaskVector:
        return self._vectors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._vectors)

    def __len__(self) -> int:
        return len(self._vectors)

    def extended(self, name: str, source: Source) -> TaskVectors:
        """Return these task vectors and one more.

        Args:
            name: Name of the expert.
            source: A model, its parameters, or a path to them.

        Returns:
            The task vectors, in this order.

        Raises:
            InputError: If the name is taken.
            MismatchError: If parameters do not fit together.
        """
        if name in self._experts or name == BASE:
            raise InputError(f"expected a new name; found {name!r}, which is taken. Choose another.")
        expert = open_expert(self.base, source, label=name)
        return TaskVectors(self.base, {**self._experts, name: expert}, self._private)

    def base_parameters(self) -> dict[str, Tensor]:
        """Return the base's shared parameters, at least in float32.

        Returns:
            θ0 by name.
        """
        stored = {key: self.base.tensor(self.alignment.stored_name(BASE, key)) for key in self.alignment.shared}
        return {
            key: value.detach().to(torch.promote_types(value.dtype, torch.float32)) for key, value in stored.items()
        }


def open_task_vectors(
    base: Source,
    experts: Mapping[str, Source] | Sequence[str | Path],
    *,
    private: Sequence[str] = (),
    reserved: str = BASE,
) -> TaskVectors:
    """Open a base and its experts, reading headers only.

    Args:
        base: The base: a model, its parameters, or a path to them.
        experts: Models, parameters or paths by name; a list of paths is named by their last parts.
        private: Names or glob patterns of parameters left out.
        reserved: A name that no expert may have.

    Returns:
        The task vectors, by name.

    Raises:
        InputError: If there is no expert, two paths have the same last part, or a name is reserved.
        MismatchError: If parameters do not fit together; the message lists every one.

    Example:
        >>> vectors = open_task_vectors({"w": torch.zeros(2)}, {"a": {"w": torch.tensor([3.0, 4.0])}})
        >>> vectors["a"]["w"].tolist()
        [3.0, 4.0]
    """
    named = name_experts(experts, reserved=reserved)
    opened = open_checkpoint(base, label=BASE)
    return TaskVectors(
        opened, {name: open_expert(opened, source, label=name) for name, source in named.items()}, private
    )
