"""A task: a loss over data as a function of named parameters, never of a module's own state."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diagnostics.errors import InputError, NotDeterministicError
from diagnostics.inputs.readout import Readout
from diagnostics.processes import team

__all__ = ["Parameters", "Task", "require_rereadable"]

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
        label: For a task without targets ``label(params)``, the same task with the targets that a model gives; until
            then ``loss`` and the readout's losses and scores should refuse.

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
        label: Callable[[Parameters], Task] | None = None,
    ) -> None:
        require_rereadable(name, batches)
        self.name = name
        self.loss = loss
        self.batches = batches
        self.readout = readout
        self.constant_loss = constant_loss
        self.notes = tuple(notes)
        self.label = label
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
        crew = team()

        def own() -> list[Tensor]:
            with torch.no_grad():
                parts = crew.mine(self.weighted_batches())
                value = sum(share * float(self.loss(params, batch)) for share, batch in parts)
            return [torch.tensor(value, dtype=torch.float64)]

        return float(crew.total(own)[0])

    def outputs(self, params: Parameters) -> list[Tensor]:
        """Return the model outputs, one tensor a batch.

        Args:
            params: The parameters θ.

        Returns:
            The outputs f(x; θ) of each batch, examples first, on the CPU.
        """
        readout = self._need_readout()

        def of_batch(batch: Any) -> Tensor:
            with torch.no_grad():
                return readout.outputs(params, batch).cpu()

        return team().collect(self.batches, of_batch)

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
            raise InputError(
                f"task {self.name!r} has a loss but no outputs; build it with Task.from_module or from_causal_lm"
            )
        return self.readout

    @property
    def unlabelled(self) -> bool:
        """Whether the task has inputs without targets, and so outputs but no loss and no score."""
        return self.label is not None

    def labelled_by(self, params: Parameters) -> Task:
        """Return the same task with the classes that a model predicts as its targets.

        Score and retention then mean agreement with that model's predictions, and loss is the criterion against
        its predicted classes; a note says so.

        Args:
            params: The parameters of the model that labels.

        Returns:
            The labelled task.

        Raises:
            InputError: If the task has targets already, or its loss at ``params`` is not finite.

        Example:
            >>> linear = torch.nn.Linear(2, 2)
            >>> task = Task.from_module("t", linear, torch.nn.functional.cross_entropy, (torch.eye(2), None))
            >>> labelled = task.labelled_by({"weight": torch.eye(2), "bias": torch.zeros(2)})
            >>> task.unlabelled, labelled.unlabelled, labelled.score({"weight": -torch.eye(2), "bias": torch.zeros(2)})
            (True, False, 0.0)
        """
        if self.label is None:
            raise InputError(
                f"task {self.name!r}: expected a task without targets; found one that has them. Build it with "
                "(inputs, None) to have a model label it"
            )
        return self.label(params)

    def bind(self, fixed: Parameters) -> Task:
        """Return the same task as a function of the remaining parameters only.

        Args:
            fixed: Parameters held at these values (a task's private head, say).

        Returns:
            A task whose parameters are those not fixed.
        """
        return self.through(lambda params: {**params, **fixed}) if fixed else self

    def through(self, change: Callable[[Parameters], Parameters]) -> Task:
        """Return the same task as a function of other parameters.

        Args:
            change: What makes this task's parameters of the other ones.

        Returns:
            A task θ ↦ L(change(θ)), with outputs and targets alike.
        """
        label = self.label
        return Task(
            self.name,
            lambda params, batch: self.loss(change(params), batch),
            self.batches,
            sizes=self.sizes,
            readout=self.readout and self.readout.through(change),
            constant_loss=self.constant_loss,
            notes=self.notes,
            label=label and (lambda params: label(change(params)).through(change)),
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
                be a dict of tensors, passed as keywords. With ``None`` for all targets the task is *unlabelled*: it
                has outputs, but no loss and no score until :meth:`labelled_by` takes a model's predicted classes
                for targets, as a merge problem does with the task's own expert.
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
        from diagnostics.inputs.module_tasks import module_task  # it needs this module

        return module_task(name, module, criterion, data, batch_size=batch_size, score=score, parameters=parameters)

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
            A task whose ``notes`` say what was found about BOS, seams and unknown text. Its outputs are the log-odds
            and the margin of each token of y against all other tokens; its score is the share of y's tokens that are
            the model's first choice, given those before them.

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


def require_rereadable(name: str, batches: Iterable[Any]) -> None:
    """Refuse batches that are gone after one reading.

    Args:
        name: The task's name.
        batches: The batches.

    Raises:
        InputError: If they are a generator or another iterator.

    Example:
        >>> require_rereadable("t", iter([1]))  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        diagnostics.errors.InputError: task 't': batches can be read only once
    """
    if iter(batches) is iter(batches):
        raise InputError(
            f"task {name!r}: batches can be read only once ({type(batches).__name__}); "
            "pass a list or a data loader, which can be read again"
        )


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
