"""A merge problem: one base, its fine-tuned experts and a task for each, over the parameters they share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from diagnostics.errors import InputError, nearest
from diagnostics.inputs.adapters import open_expert
from diagnostics.inputs.alignment import BASE, Alignment, align, assert_finite
from diagnostics.inputs.checkpoints import Checkpoint, Source, open_checkpoint
from diagnostics.inputs.placement import Placement
from diagnostics.inputs.store import Store
from diagnostics.inputs.tasks import Task

__all__ = ["Coefficients", "MergeProblem", "chosen_coefficients"]

Coefficients = float | Sequence[float] | Mapping[str, float]
T = TypeVar("T")


class MergeProblem:
    """A base model θ0, experts θ_i and tasks L_i, keyed by the same names.

    Merges and norms are over the shared parameters; private ones (a classifier head of another width, say)
    stay with their task. Arithmetic is done in the widest dtype found, unless
    another is asked for, and never below float32.

    Args:
        base: The base: a model, its parameters, or a path to them.
        experts: Models, parameters or paths of the experts, keyed by name.
        tasks: One task per expert, keyed by the same names; an unlabelled one is labelled by its expert.
        private: Names or glob patterns of parameters that are not merged.
        device: Where models are evaluated, ``"cuda"`` say; where the base is by default. Data stay where they are, and
            each batch follows the parameters.
        dtype: The type in which models are evaluated. In ``"bfloat16"`` and ``"float16"`` vectors are still held, and
            gradients added up, in float32.
        cache: A folder where measured outputs are kept by content: a run that was interrupted goes on from there,
            and another expert or other coefficients cost only what is new. Deleted at will.

    Raises:
        InputError: If the names differ, the cache cannot be made, there is no such device or type, or a task's loss
            is not finite or not repeatable.
        MismatchError: If parameters do not fit together; the message lists every one.

    Example:
        >>> loss = lambda p, b: 0.5 * ((p["w"] - b) ** 2).sum()
        >>> tasks = {n: Task(n, loss, [torch.eye(2)[i]], sizes=[1]) for i, n in enumerate("ab")}
        >>> experts = {n: {"w": torch.eye(2)[i]} for i, n in enumerate("ab")}
        >>> problem = MergeProblem({"w": torch.zeros(2)}, experts, tasks)
        >>> problem.merged({"a": 0.5, "b": 0.5})["w"].tolist()
        [0.5, 0.5]
    """

    def __init__(
        self,
        base: Source,
        experts: Mapping[str, Source],
        tasks: Mapping[str, Task],
        *,
        private: Sequence[str] = (),
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        cache: str | Path | None = None,
    ) -> None:
        _check_names(experts, tasks)
        placement = Placement.named(device, dtype)
        self.store = None if cache is None else Store(cache)
        opened: dict[str, Checkpoint] = {BASE: open_checkpoint(base, label=BASE)}
        opened |= {name: open_expert(opened[BASE], source, label=name) for name, source in experts.items()}
        alignment = align(opened[BASE], {name: opened[name] for name in experts}, private)
        for checkpoint in opened.values():
            assert_finite(checkpoint)
        self.names = tuple(experts)
        self.shared = alignment.shared
        widest = _widest_dtype(alignment)
        if device is None:  # models in memory may be on several; arithmetic is done where the base is
            placement = replace(placement, device=_device_of(opened[BASE], alignment))
        shared = {
            model: {
                name: placement.held(checkpoint.tensor(alignment.stored_name(model, name)), widest)
                for name in alignment.shared
            }
            for model, checkpoint in opened.items()
        }
        self.base = shared.pop(BASE)
        self.experts = shared
        self.private = {
            name: {key: placement.held(opened[name].tensor(key), widest) for key in alignment.private[name]}
            for name in experts
        }
        # Every measure sees a task as a function of the shared parameters alone.
        self.tasks = {name: placement.evaluated(tasks[name]).bind(self.private[name]) for name in self.names}
        # Where nothing says what is right, retention can still be held against what the task's own expert says.
        self.tasks |= {
            name: task.labelled_by(self.experts[name]) for name, task in self.tasks.items() if task.unlabelled
        }
        self.task_vectors = {
            name: {key: expert[key] - self.base[key] for key in self.shared} for name, expert in self.experts.items()
        }
        self._memo: dict[Any, Any] = {}
        for name, task in self.tasks.items():
            task.check(self.experts[name])

    @classmethod
    def from_pretrained(
        cls,
        base: str | Path,
        experts: Mapping[str, str | Path],
        data: Mapping[str, str | Path],
        *,
        kind: str = "sequence-classification",
        private: Sequence[str] = (),
        columns: Mapping[str, str] | None = None,
        batch_size: int | None = None,
        max_length: int | None = None,
        instructions: Mapping[str, str] | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        cache: str | Path | None = None,
    ) -> MergeProblem:
        """Build a problem from folders that transformers or PEFT wrote and a data file for each expert.

        Args:
            base: The base's folder, with weights and tokenizer.
            experts: Folders of the experts by name, whole models or PEFT adapters.
            data: A data file for each expert: JSON lines with ``text`` and ``label`` (or ``x`` and ``y``), or
                ``.safetensors`` with ``inputs`` and ``targets``; for language models JSON lines with ``x`` and ``y``.
                Where no line of a file has a label, its expert's predictions stand for them.
            kind: ``"sequence-classification"``, ``"causal-lm"``, or ``"module:function"`` for tasks of your own, where
                ``function(name, base=…, expert=…, data=…)`` gets the paths and returns a :class:`Task`.
            private: Names or glob patterns of parameters that are not merged. A classification head that does not
                fit in every model, or that the base lacks, is private without being named.
            columns: Names of the keys or tensors in the data files, as ``{"text": …, "label": …}``.
            batch_size: Examples per batch; 64 by default, 16 for language models.
            max_length: Tokens per text; by default what tokenizer and model allow. Longer texts are cut, with a
                ``TruncationWarning``; for language models they are refused unless this is given.
            instructions: What stands before x in a task of a language model, by expert.
            device: Where models are evaluated.
            dtype: The type in which models are evaluated.
            cache: A folder where measured outputs are kept by content.

        Returns:
            The problem.

        Raises:
            InputError: If names, folders, data or models do not fit together.
        """
        from diagnostics.inputs.pretrained import load_problem  # it needs this module

        return load_problem(
            base,
            experts,
            data,
            kind=kind,
            private=private,
            columns=columns,
            batch_size=batch_size,
            max_length=max_length,
            instructions=instructions,
            device=device,
            dtype=dtype,
            cache=cache,
        )

    def __repr__(self) -> str:
        count = sum(value.numel() for value in self.base.values())
        return f"MergeProblem({len(self.names)} experts {list(self.names)}, {count:,} shared parameters)"

    @property
    def dimension(self) -> int:
        """Number of shared parameters d."""
        return sum(value.numel() for value in self.base.values())

    def coefficients(self, given: Coefficients) -> dict[str, float]:
        """Return the coefficients as a mapping over the experts that take part.

        Args:
            given: One number for all experts, one per expert in order, or a mapping; an expert that a mapping
                does not name takes no part in the merge.

        Returns:
            Coefficient λ_i by expert name, in the problem's order.

        Raises:
            InputError: If a name is unknown, the number of values is wrong, or a value is not finite.
        """
        return chosen_coefficients(given, self.names)

    def displacement(self, coefficients: Mapping[str, float]) -> dict[str, Tensor]:
        """Return Σ λ_i τ_i over the shared parameters.

        Args:
            coefficients: λ_i by expert name.

        Returns:
            The displacement from the base, by parameter name.
        """
        return {
            key: sum(
                (lam * self.task_vectors[name][key] for name, lam in coefficients.items()),
                torch.zeros_like(value),
            )
            for key, value in self.base.items()
        }

    def merged(self, coefficients: Coefficients) -> dict[str, Tensor]:
        """Return the merged shared parameters θ0 + Σ λ_i τ_i.

        Args:
            coefficients: In any of the forms that :meth:`coefficients` takes.

        Returns:
            The merged parameters, by name.
        """
        move = self.displacement(self.coefficients(coefficients))
        return {key: value + move[key] for key, value in self.base.items()}

    def cached(self, key: Any, compute: Callable[[], T]) -> T:
        """Return a measurement of this problem, computing it on first use.

        Args:
            key: What identifies the measurement, its settings included.
            compute: The measurement.

        Returns:
            The stored or new result. A problem never changes, so neither does the result.
        """
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]


def chosen_coefficients(given: Coefficients, names: Sequence[str], noun: str = "expert") -> dict[str, float]:
    """Return coefficients as a mapping over those that take part.

    Args:
        given: One number for all, one for each in order, or a mapping; whoever it does not name takes no part.
        names: Who can take part.
        noun: What they are, for messages.

    Returns:
        Coefficient by name, in the order of the names.

    Raises:
        InputError: If a name is unknown, the number of values is wrong, or a value is not finite.

    Example:
        >>> chosen_coefficients(0.5, ["a", "b"]), chosen_coefficients({"b": 1}, ["a", "b"])
        ({'a': 0.5, 'b': 0.5}, {'b': 1.0})
    """
    if isinstance(given, Mapping):
        unknown = [name for name in given if name not in names]
        if unknown:
            near = nearest(str(unknown[0]), names)
            raise InputError(f"coefficients: expected one of the {noun}s {list(names)}; found {unknown[0]!r}. {near}")
        values = {name: _number(given[name], noun) for name in names if name in given}
    elif isinstance(given, Sequence) and not isinstance(given, str):
        if len(given) != len(names):
            raise InputError(
                f"coefficients: expected one number for each of {list(names)}; found {list(given)}. "
                "Or give one number for all."
            )
        values = {name: _number(value, noun) for name, value in zip(names, given, strict=True)}
    else:
        values = dict.fromkeys(names, _number(given, noun))
    return values or {name: _number(given, noun) for name in names[:1]}


def _number(value: object, noun: str) -> float:
    """A finite number."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or isinstance(value, str | bool):
        raise InputError(f"coefficients: expected a finite number for at least one {noun}; found {value!r}. Write 0.5.")
    return number


def _check_names(experts: Mapping[str, Source], tasks: Mapping[str, Task]) -> None:
    """Refuse experts without a task and tasks without an expert."""
    lone_experts, lone_tasks = sorted(set(experts) - set(tasks)), sorted(set(tasks) - set(experts))
    if lone_experts or lone_tasks or not experts:
        raise InputError(
            "experts and tasks: expected the same names in both, at least one; "
            f"found experts without a task: {lone_experts}, tasks without an expert: {lone_tasks}. "
            "Give each its partner."
        )


def _device_of(base: Checkpoint, alignment: Alignment) -> torch.device:
    """Where the base's shared parameters are, by the first of them."""
    return base.tensor(alignment.stored_name(BASE, alignment.shared[0])).device


def _widest_dtype(alignment: Alignment) -> torch.dtype:
    """The widest floating dtype stored, and at least float32."""
    stored = {dtype for counts in alignment.dtypes.values() for dtype in counts}
    return functools.reduce(torch.promote_types, stored, torch.float32)
