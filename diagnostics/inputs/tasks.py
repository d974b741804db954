"""A task: a loss over data as a function of named parameters, never of a module's own state."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diagnostics.errors import InputError, NotDeterministicError
from diagnostics.inputs.functional import FunctionalModule
from diagnostics.inputs.readout import Readout, class_accuracy, constant_prediction_loss

__all__ = ["Parameters", "Task"]

Parameters = Mapping[str, Tensor]
Loss = Callable[[Parameters, Any], Tensor]

# Two evaluations may differ by the order of summation, not by a dropout mask: dropout moves a loss by far more.
_REPEAT_RTOL = 1e-4


class Task:
    """A named mean loss L(θ) over batches of data.

    Args:
        name: The task's name, used in every result and message.
        loss: ``loss(params, batch)``, a 0-dimensional tensor: the mean over the examples of the batch.
        batches: A re-iterable of batches (a list, or a data loader; not a generator).
        sizes: Number of examples of each batch; inferred from the first tensor of a batch when not given.
        readout: How to read loss and score off model outputs, where the task has outputs.
        constant_loss: Loss of the best constant prediction, against which a bound is vacuous (2.11).
        notes: What a reader of results should know about the data.

    Raises:
        InputError: If there are no batches, they can be read only once, or their sizes cannot be told.

    Example:
        >>> task = Task("quadratic", lambda p, b: 0.5 * ((p["w"] - b) ** 2).sum(), [torch.zeros(3)], sizes=[1])
        >>> task.mean_loss({"w": torch.ones(3)})
        1.5
    """

    def __init__(
        self,
        name: str,
        loss: Loss,
        batches: Iterable[Any],
        *,
        sizes: Sequence[int] | None = None,
        readout: Readout | None = None,
        constant_loss: float | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        if iter(batches) is iter(batches):
            raise InputError(
                f"task {name!r}: batches can be read only once ({type(batches).__name__}); "
                "pass a list or a data loader, which can be read again"
            )
        self.name = name
        self.loss = loss
        self.batches = batches
        self.readout = readout
        self.constant_loss = constant_loss
        self.notes = tuple(notes)
        self.sizes = tuple(sizes) if sizes is not None else _sizes(name, batches)
        self._check_sizes()

    def _check_sizes(self) -> None:
        """Refuse a task without examples or with a size for another number of batches."""
        count = sum(1 for _ in self.batches)
        if count == 0:
            raise InputError(f"task {self.name!r} has no batches: at least one example is needed")
        if count != len(self.sizes):
            raise InputError(f"task {self.name!r}: {len(self.sizes)} sizes were given for {count} batches")
        if min(self.sizes) < 1:
            raise InputError(f"task {self.name!r}: every batch needs at least one example, found {self.sizes}")

    @property
    def examples(self) -> int:
        """Number of examples over all batches."""
        return sum(self.sizes)

    def weighted_batches(self) -> Iterator[tuple[float, Any]]:
        """Yield each batch with its share of the examples; the shares add up to one.

        Yields:
            Pairs ``(share, batch)``.
        """
        for size, batch in zip(self.sizes, self.batches, strict=True):
            yield size / self.examples, batch

    def mean_loss(self, params: Parameters) -> float:
        """Return the mean loss over all examples.

        Args:
            params: The parameters θ.

        Returns:
            L(θ), in the units of the loss.
        """
        with torch.no_grad():
            return sum(share * float(self.loss(params, batch)) for share, batch in self.weighted_batches())

    def outputs(self, params: Parameters) -> list[Tensor]:
        """Return the model outputs, one tensor a batch.

        Args:
            params: The parameters θ.

        Returns:
            The outputs f(x; θ) of each batch, examples first.
        """
        readout = self._need_readout()
        with torch.no_grad():
            return [readout.outputs(params, batch) for batch in self.batches]

    def score(self, params: Parameters) -> float:
        """Return the mean score (accuracy for class targets) over all examples.

        Args:
            params: The parameters θ.

        Returns:
            The score, 0 to 1 for accuracy.

        Raises:
            InputError: If the task has no score.
        """
        readout = self._need_readout()
        if readout.score is None:
            raise InputError(f"task {self.name!r} has no score; give score= to Task.from_module")
        scores = [readout.score(out, batch) for out, batch in zip(self.outputs(params), self.batches, strict=True)]
        return float(torch.cat(scores).double().mean())

    def _need_readout(self) -> Readout:
        """Return the readout or say how to get one."""
        if self.readout is None:
            raise InputError(f"task {self.name!r} has a loss but no outputs; build it with Task.from_module")
        return self.readout

    def bind(self, fixed: Parameters) -> Task:
        """Return the same task as a function of the remaining parameters only.

        Args:
            fixed: Parameters held at these values (a task's private head, say).

        Returns:
            A task whose parameters are those not fixed.
        """
        if not fixed:
            return self
        readout = self.readout and self.readout.bind(fixed)
        return Task(
            self.name,
            lambda params, batch: self.loss({**params, **fixed}, batch),
            self.batches,
            sizes=self.sizes,
            readout=readout,
            constant_loss=self.constant_loss,
            notes=self.notes,
        )

    def check(self, params: Parameters) -> float:
        """Evaluate the loss twice and refuse a task whose loss is not finite or not repeatable.

        Args:
            params: The parameters to evaluate at.

        Returns:
            The mean loss.

        Raises:
            InputError: If the loss is not a finite number.
            NotDeterministicError: If two evaluations differ.
        """
        first, second = self.mean_loss(params), self.mean_loss(params)
        if not (math.isfinite(first) and math.isfinite(second)):
            raise InputError(
                f"task {self.name!r}: the mean loss is {first}; a finite number is needed. "
                "Look for NaN in the inputs, labels out of range, or overflow in half precision"
            )
        if abs(first - second) > _REPEAT_RTOL * max(abs(first), abs(second)):
            raise NotDeterministicError(
                f"task {self.name!r}: the loss was {first:.6g} and then {second:.6g} at the same parameters. "
                "Switch off dropout, data augmentation and random sampling"
            )
        return first

    @classmethod
    def from_module(
        cls,
        name: str,
        module: torch.nn.Module,
        criterion: Callable[[Tensor, Tensor], Tensor],
        data: Any,
        *,
        batch_size: int = 64,
        score: Callable[[Tensor, Tensor], Tensor] | None = None,
        parameters: Sequence[str] | None = None,
    ) -> Task:
        """Build a task from a torch module, which is run in eval mode and never changed.

        Args:
            name: The task's name.
            module: The model; its structure and buffers are copied, its parameters are replaced at each call.
            criterion: ``criterion(outputs, targets)``, the mean loss over the batch.
            data: ``(inputs, targets)`` tensors with examples first, or a re-iterable of such pairs; ``inputs`` may
                be a dict of tensors, passed as keywords.
            batch_size: Examples per batch when ``data`` is one pair of tensors.
            score: ``score(outputs, targets)``, one value per example; accuracy for integer class targets by default.
            parameters: Names of the parameters the task is a function of; the others stay as they are in
                ``module``. All of them by default.

        Returns:
            A task with ``outputs``, ``score`` and ``mean_loss``.

        Raises:
            InputError: If names in ``parameters`` are not in the module, or data are empty or malformed.

        Example:
            >>> linear = torch.nn.Linear(2, 2)
            >>> data = (torch.eye(2), torch.tensor([0, 1]))
            >>> task = Task.from_module("t", linear, torch.nn.functional.cross_entropy, data)
            >>> task.score({"weight": torch.eye(2), "bias": torch.zeros(2)})
            1.0
        """
        model = FunctionalModule(name, module, parameters)
        own = {key: value.detach() for key, value in module.named_parameters() if key in model.names}
        given = _as_batches(name, data, batch_size)

        def loss(params: Parameters, batch: Any) -> Tensor:
            return criterion(model(params, batch), batch[1])

        _check_labels(name, model, own, given)
        cls(name, loss, given).check(own)
        # A loader may shuffle: from here on the order of examples is fixed, so outputs can be compared.
        batches = [(inputs, targets) for inputs, targets in given]
        targets = [target for _, target in batches]
        if score is None and all(map(_are_classes, targets)):
            score = class_accuracy
        readout = Readout.from_functions(model, criterion, score)
        with torch.no_grad():
            outputs = model(own, batches[0])
            constant_loss = constant_prediction_loss(outputs, targets, criterion)
            _check_mean(name, readout.losses(outputs, batches[0]), criterion(outputs, targets[0]))
        return cls(name, loss, batches, readout=readout, constant_loss=constant_loss)

    @classmethod
    def from_causal_lm(
        cls,
        name: str,
        model: torch.nn.Module,
        tokenizer: Any,
        examples: Iterable[tuple[Any, Any]],
        *,
        instruction: Any,
        batch_size: int = 16,
        parameters: Sequence[str] | str | None = None,
        bos: Any = "auto",
        layout: Any = None,
        max_length: int | None = None,
    ) -> Task:
        """Build a task from a causal language model: L(θ) = −E log p(y | BOS, instruction, x).

        The loss is summed over the tokens of y and is the mean over examples, in nats (1.8). Segments are tokenised
        apart and joined; an end-of-text token is scored where y has one.

        Args:
            name: The task's name.
            model: A causal language model of transformers, with or without a PEFT adapter; run in eval mode and
                never changed.
            tokenizer: Its tokenizer; ``None`` where all texts are lists of token ids.
            examples: Pairs (x, y) of strings or token ids.
            instruction: The instruction, a string or token ids.
            batch_size: Examples per batch.
            parameters: Names or glob patterns of the parameters the task is a function of; all by default.
            bos: Id of the token before every sequence, ``None`` for none; by default the tokenizer's or the model's.
            layout: A :class:`Layout` with the fixed text around the segments (a chat template's).
            max_length: Tokens per sequence, x being cut to fit, with a ``TruncationWarning``; by default a sequence
                that is longer than the model reads is refused.

        Returns:
            A task whose ``notes`` say what was found about BOS, seams and unknown text.

        Raises:
            InputError: If examples, tokenizer and model do not fit together, or the loss is not finite.

        Example:
            >>> from transformers import GPT2Config, GPT2LMHeadModel
            >>> sizes = {"vocab_size": 8, "n_embd": 4, "n_layer": 1, "n_head": 1}
            >>> model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
            >>> model.lm_head.weight.data.zero_()[0].sum().item()  # every token has probability 1/8
            0.0
            >>> task = Task.from_causal_lm("t", model, None, [([3], [4, 5])], instruction=[6])
            >>> round(task.mean_loss(dict(model.named_parameters())), 4)  # 2 log 8
            4.1589
        """
        from diagnostics.inputs.causal_lm import causal_lm_task  # it needs this module

        return causal_lm_task(
            name,
            model,
            tokenizer,
            examples,
            instruction=instruction,
            batch_size=batch_size,
            parameters=parameters,
            bos=bos,
            layout=layout,
            max_length=max_length,
        )


def _as_batches(name: str, data: Any, batch_size: int) -> Iterable[Any]:
    """Turn the two accepted forms of data into an iterable of (inputs, targets) pairs."""
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[1], Tensor):
        return _split(name, data[0], data[1], batch_size)
    if iter(data) is not iter(data):
        for batch in data:
            if not (isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[1], Tensor)):
                raise InputError(
                    f"task {name!r}: a batch must be a pair (inputs, targets), found {type(batch).__name__}"
                )
    return data


def _split(name: str, inputs: Any, targets: Tensor, batch_size: int) -> list[tuple[Any, Tensor]]:
    """Cut whole tensors into batches, after checking that every input has a target."""
    parts = inputs if isinstance(inputs, Mapping) else {"inputs": inputs}
    for key, value in parts.items():
        if len(value) != len(targets):
            raise InputError(
                f"task {name!r}: {key} has {len(value)} examples and targets {len(targets)}; they must agree"
            )
    cuts = range(0, len(targets), batch_size)
    if isinstance(inputs, Mapping):
        return [
            ({key: value[i : i + batch_size] for key, value in inputs.items()}, targets[i : i + batch_size])
            for i in cuts
        ]
    return [(inputs[i : i + batch_size], targets[i : i + batch_size]) for i in cuts]


def _check_labels(name: str, model: FunctionalModule, params: Parameters, batches: Iterable[Any]) -> None:
    """Refuse class labels that the model has no output for, before the loss fails on them."""
    for batch in batches:
        with torch.no_grad():
            outputs = model(params, batch)
        if not (_are_classes(batch[1]) and outputs.ndim == 2):
            return
        wrong = batch[1][(batch[1] < 0) | (batch[1] >= outputs.shape[1])]
        if len(wrong):
            raise InputError(
                f"task {name!r}: label {int(wrong[0])} is out of range, the model has {outputs.shape[1]} outputs "
                f"(labels 0 to {outputs.shape[1] - 1}). Check the label column, or give the model a head of its width"
            )


def _check_mean(name: str, losses: Tensor, whole: Tensor) -> None:
    """Refuse a criterion that is not the mean of what it gives for single examples: a sum, or a weighted mean."""
    mean, tolerance = float(losses.double().mean()), max(1e-3, 8 * torch.finfo(whole.dtype).eps)
    if not math.isclose(mean, float(whole), rel_tol=tolerance, abs_tol=1e-6):
        raise InputError(
            f"task {name!r}: the criterion gives {float(whole):.6g} for a batch and {mean:.6g} as the mean over its "
            "examples; it must be a plain mean (reduction='mean', no class weights, no examples left out)"
        )


def _are_classes(targets: Tensor) -> bool:
    """Whether targets are one class index per example."""
    return targets.ndim == 1 and not targets.is_floating_point()


def _sizes(name: str, batches: Iterable[Any]) -> tuple[int, ...]:
    """Number of examples of each batch; a single batch needs none to be weighted."""
    sizes = tuple(_size(batch) for batch in batches)
    if len(sizes) == 1:
        return (sizes[0] or 1,)
    if None in sizes:
        raise InputError(
            f"task {name!r}: cannot tell how many examples batch {sizes.index(None)} of {len(sizes)} has; give sizes="
        )
    return tuple(size for size in sizes if size is not None)


def _size(batch: Any) -> int | None:
    """Number of examples in a batch: the leading dimension of its first tensor, where it has one."""
    while isinstance(batch, tuple | list | Mapping) and len(batch) > 0:
        batch = next(iter(batch.values())) if isinstance(batch, Mapping) else batch[0]
    return len(batch) if isinstance(batch, Tensor) and batch.ndim > 0 else None
