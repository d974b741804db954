"""Task vectors while they come about: a callback for the ``Trainer`` of transformers.

Needs transformers and accelerate, as the ``Trainer`` does: ``pip install 'task-arithmetic-diagnostics[transformers]'``.
Importing this module imports transformers, which ``import diagnostics`` does not.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diagnostics.errors import InputError
from diagnostics.inputs.adapters import AdapterCheckpoint, open_expert
from diagnostics.inputs.alignment import BASE, align
from diagnostics.inputs.checkpoints import Checkpoint, MemoryCheckpoint, Source, open_checkpoint
from diagnostics.inputs.live_models import has_adapters, module_parameters, untouched_parameters
from diagnostics.inputs.naming import name_experts
from diagnostics.inputs.task_vectors import TaskVectors
from diagnostics.measures.orthoreg import orthoreg_penalty
from diagnostics.measures.vectors import same_values

try:
    from transformers import TrainerCallback
except ModuleNotFoundError as problem:
    raise ModuleNotFoundError(
        "diagnostics.training needs transformers: pip install 'task-arithmetic-diagnostics[transformers]'",
        name="transformers",
    ) from problem

__all__ = ["TaskVectorCallback"]

RUN = "this run"
_NORM, _COSINE, _PENALTY = "task_vector_norm", "task_vector_cosine", "orthoreg_penalty"


class TaskVectorCallback(TrainerCallback):
    """Adds to the logs of a ``Trainer`` how long the task vector τ = θ − θ0 is by now, and where it points.

    At every logging step, under these keys and in ``state.log_history`` as well:

    - ``task_vector_norm``: ‖τ‖ over all parameters that the models share;
    - ``task_vector_norm/NAME``: the same of each tensor that is trained, with ``layers=True``;
    - ``task_vector_cosine/NAME``: cosine of the angle to the task vector of another expert, −1 to 1; not a number
      while τ is zero;
    - ``orthoreg_penalty``: the penalty (4.3) of the updates of all matrices that are trained, whether or not it is part
      of the loss.

    Between logging steps it costs nothing. At one, it reads every trained tensor once, with a product of each matrix
    with itself for the penalty, and the same tensors of the other experts from where they are, one at a time. Memory:
    one copy of the base's trained parameters; none where an adapter of PEFT is trained, as the base is below it.

    Call :meth:`attach` rather than passing it as ``callbacks=[…]``: the callbacks that report to TensorBoard, W&B and
    others stand before those, and would not see what is added.

    Args:
        base: θ0: a model, its parameters, or a path to them. By default the model as it is when training begins, which
            is not known any more in a run that goes on from a checkpoint, except below an adapter.
        others: Experts of the same base by name, or paths, to hold the angle against.
        penalty: ``"paper"`` or ``"code"``, the form of :func:`diagnostics.orthoreg_penalty`; ``None`` for none.
        layers: Whether to log the norm of each tensor.
        private: Names or glob patterns of parameters left out, a head that other experts have differently, say.
        device: Where to keep the base; where the model is by default. ``"cpu"`` leaves a GPU's memory to training, and
            costs a transfer of each tensor at a logging step.

    Raises:
        InputError: When training begins, if there is no base to count from, models do not fit together, or
            parameters are sharded; at a logging step, if a parameter is trained that was frozen at the beginning.

    Example:
        >>> from types import SimpleNamespace
        >>> model, callback = nn.Linear(2, 2, bias=False), TaskVectorCallback(penalty=None)
        >>> run = SimpleNamespace(global_step=0, is_world_process_zero=True, log_history=[])
        >>> args = SimpleNamespace(report_to=[], fsdp=None)
        >>> callback.on_train_begin(args, run, None, model=model)  # as the Trainer does
        >>> model.weight.data += 1.5
        >>> logs = {"loss": 0.7}
        >>> callback.on_log(args, run, None, model=model, logs=logs)
        >>> {name: round(value, 6) for name, value in logs.items()}
        {'loss': 0.7, 'task_vector_norm': 3.0}
    """

    def __init__(
        self,
        *,
        base: Source | None = None,
        others: Mapping[str, Source] | Sequence[str | Path] = (),
        penalty: str | None = "paper",
        layers: bool = False,
        private: Sequence[str] = (),
        device: str | torch.device | None = None,
    ) -> None:
        if penalty not in {"paper", "code", None}:
            raise InputError(f"penalty: expected 'paper', 'code' or None; found {penalty!r}.")
        self._given, self._penalty, self._layers = base, penalty, layers
        self._others = name_experts(others, reserved=RUN) if others else {}
        self._private, self._device = tuple(private), device
        self._first = False
        self._start: _Start | None = None

    def attach(self, trainer: Any) -> TaskVectorCallback:
        """Put the callback before those of a trainer that report, so that they see what it adds to the logs.

        Args:
            trainer: The ``Trainer``.

        Returns:
            The callback.
        """
        callbacks = trainer.callback_handler.callbacks
        callbacks[:] = [self, *(each for each in callbacks if each is not self)]
        self._first = True
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Take the base, and line the models up with it."""
        _refuse_sharded(args)
        if args.report_to and not self._first:
            warnings.warn(
                f"task vectors will be in state.log_history but not in {', '.join(args.report_to)}, whose callbacks "
                "stand before this one: call callback.attach(trainer) in place of callbacks=[callback].",
                stacklevel=2,
            )
        base = _base(self._given, model, state.global_step)
        self._start = _Start(base, model, self._others, self._private, self._device)
        if self._penalty and not self._start.matrices:
            raise InputError("penalty: expected at least one matrix that is trained; found none. Pass penalty=None.")

    def on_log(self, args: Any, state: Any, control: Any, model: Any = None, logs: Any = None, **kwargs: Any) -> None:
        """Add to the logs of a training step; those of evaluation and of the end stay as they are."""
        if self._start is None or logs is None or "loss" not in logs or not state.is_world_process_zero:
            return
        found = self._start.measure(model, self._penalty, self._layers)
        logs.update(found)
        # The entry was made of the same logs just before.
        if state.log_history and state.log_history[-1].get("step") == state.global_step:
            state.log_history[-1].update(found)


class _Start:
    """What is known when training begins: the base's tensors that can move, and the other experts.

    Args:
        base: θ0.
        model: The model to be trained.
        others: Other experts by name.
        private: Names or patterns of parameters left out.
        device: Where to keep the base.

    Attributes:
        base: Tensors of the base that the update can differ in, by common name.
        matrices: Those of them that are trained and have two dimensions.
    """

    def __init__(
        self,
        base: Checkpoint,
        model: nn.Module,
        others: Mapping[str, Source],
        private: Sequence[str],
        device: str | torch.device | None,
    ) -> None:
        run = open_expert(base, model, label=RUN)
        self._others = {name: open_expert(base, source, label=name) for name, source in others.items()}
        self._alignment = alignment = align(base, {RUN: run, **self._others}, private)
        self._below = base
        self._trained = _trained(model, run)
        changing = {value.data_ptr() for value in model.parameters() if value.requires_grad}
        self.base: dict[str, Tensor] = {}
        for key in alignment.shared:
            value, own = base.tensor(alignment.stored_name(BASE, key)), alignment.stored_name(RUN, key)
            # A frozen tensor has no part in τ, unless another base than the run's own was given.
            if own in self._trained or not same_values(value, run.tensor(own)):
                self.base[key] = value.to(device or value.device, copy=value.data_ptr() in changing)
        self.matrices = {key for key, value in self.base.items() if value.ndim == 2 and self._own(key) in self._trained}
        vectors = TaskVectors(base, self._others, private) if others else {}
        self._norms = {name: _norm(vector.values()) for name, vector in vectors.items()}

    def measure(self, model: nn.Module, penalty: str | None, layers: bool) -> dict[str, float]:
        """Measure the update so far, one tensor at a time.

        Args:
            model: The model in training.
            penalty: The form of the penalty, or none.
            layers: Whether to give the norm of each tensor.

        Returns:
            The numbers by the keys of the logs.

        Raises:
            InputError: If a parameter is trained that was frozen at the beginning.
        """
        run = open_expert(self._below, model, label=RUN)
        late = sorted(_trained(model, run) - self._trained)
        if late:
            raise InputError(
                f"model: expected {', '.join(late)} frozen, as when training began; found it trained, so that what it "
                "was is not known. Pass base= to the callback, a path say."
            )
        norms, penalties = {}, []
        inner: dict[str, list[float]] = {name: [] for name in self._others}
        for key, before in self.base.items():
            update = _update(before, run.tensor(self._own(key)))
            norms[key] = _norm([update])
            if penalty and key in self.matrices:
                penalties.append(float(orthoreg_penalty(update, penalty)))
            for name, products in inner.items():
                other = self._others[name].tensor(self._alignment.stored_name(name, key)).detach().to(update.device)
                products.append(_inner(update, _update(before, other)))
        whole = math.hypot(*norms.values())
        found = {_NORM: whole}
        found |= {f"{_NORM}/{key}": norms[key] for key in norms if layers}
        for name, products in inner.items():
            scale = whole * self._norms[name]
            found[f"{_COSINE}/{name}"] = math.fsum(products) / scale if scale > 0 else math.nan
        return found | ({_PENALTY: math.fsum(penalties)} if penalty else {})

    def _own(self, key: str) -> str:
        """The model's own name of a tensor."""
        return self._alignment.stored_name(RUN, key)


def _base(given: Source | None, model: nn.Module, step: int) -> Checkpoint:
    """The model that the update is counted from."""
    if given is not None:
        return open_checkpoint(given, label=BASE)
    if has_adapters(model):
        below: Any = getattr(model, "get_base_model", lambda: model)
        return MemoryCheckpoint(untouched_parameters(below(), BASE), BASE)
    if step:
        raise InputError(
            f"base: expected the model that training began from, as this run goes on from step {step}; found nothing. "
            "Pass base= to the callback, a path say."
        )
    return MemoryCheckpoint(module_parameters(model), BASE)


def _refuse_sharded(args: Any) -> None:
    """Refuse parameters of which each process holds a part."""
    zero = getattr(getattr(args, "deepspeed_plugin", None), "zero_stage", 0) == 3
    if args.fsdp or zero:
        found = "DeepSpeed ZeRO-3" if zero else "FSDP"
        raise InputError(
            f"model: expected whole parameters in every process; found {found}, which shards them. Measure saved "
            "checkpoints instead: diagnostics.geometry(base, checkpoints)."
        )


def _trained(model: nn.Module, run: Checkpoint) -> set[str]:
    """Names of the tensors that training changes, as the checkpoint has them."""
    names = {name for name, value in module_parameters(model).items() if value.requires_grad}
    return names | ({*run.adapted, *run.saved} if isinstance(run, AdapterCheckpoint) else set())


def _update(before: Tensor, after: Tensor) -> Tensor:
    """What a tensor was moved by, where the moved one is, in float32 at least."""
    dtype = torch.promote_types(torch.promote_types(before.dtype, after.dtype), torch.float32)
    return after.detach().to(dtype) - before.to(after.device, dtype)


def _inner(first: Tensor, second: Tensor) -> float:
    """⟨first, second⟩ in float64."""
    return float(torch.dot(first.flatten().double(), second.flatten().double()))


def _norm(parts: Iterable[Tensor]) -> float:
    """Length of all parts together."""
    return math.hypot(*(float(torch.linalg.vector_norm(part, dtype=torch.float64)) for part in parts))
