"""Causal language models: log p(y | instruction, x) as a function of parameters, and the tasks made of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from diagnostics.errors import InputError, require_count
from diagnostics.inputs.encoding import TruncationWarning
from diagnostics.inputs.examples import listed
from diagnostics.inputs.functional import FunctionalModule
from diagnostics.inputs.layout import Layout
from diagnostics.inputs.readout import Readout
from diagnostics.inputs.segments import Bos, Segmenter, Text, Tokens, collate
from diagnostics.inputs.tasks import Parameters, Task
from diagnostics.inputs.token_readout import token_accuracy, token_losses, token_outputs

__all__ = ["SegmentModel", "causal_lm_task", "note_seams", "select_parameters"]

_BATCH_SIZE = 16


class SegmentModel:
    """Log-likelihoods of the segments of a batch, from one forward pass.

    Args:
        name: Whose it is, for messages.
        model: A causal language model of transformers, with or without an adapter.
        parameters: Names of the parameters it is a function of; all by default.
    """

    def __init__(self, name: str, model: torch.nn.Module, parameters: Sequence[str] | None = None) -> None:
        self.module = FunctionalModule(name, model, parameters)

    def __call__(self, params: Parameters, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return log p(x | context) and log p(y | context, x) of each row, summed over the segment's tokens.

        Args:
            params: The parameters θ.
            batch: As :func:`~diagnostics.inputs.segments.collate` makes it.

        Returns:
            Two tensors [B], in nats; float32 for models in half precision.
        """
        batch = _beside(params, batch)
        logits = self._logits(params, batch)
        scored = batch["x"] | batch["y"]
        # Only scored positions are widened: the logits are the largest tensor of all.
        chosen = logits[scored]
        wide = chosen.to(torch.promote_types(chosen.dtype, torch.float32))
        each = -cross_entropy(wide, batch["input_ids"][:, 1:][scored], reduction="none")
        whole = torch.zeros(scored.shape, dtype=each.dtype, device=each.device).masked_scatter(scored, each)
        return (whole * batch["x"]).sum(1), (whole * batch["y"]).sum(1)

    def outputs(self, params: Parameters, batch: Mapping[str, Tensor]) -> Tensor:
        """Return log-odds and margin of each token of y, which are as smooth in θ as the model is.

        Args:
            params: The parameters θ.
            batch: As :func:`~diagnostics.inputs.segments.collate` makes it.

        Returns:
            The outputs [B, W, 2]; see :func:`~diagnostics.inputs.token_readout.token_outputs`.
        """
        batch = _beside(params, batch)
        return token_outputs(self._logits(params, batch), batch["input_ids"][:, 1:], batch["y"])

    def _logits(self, params: Parameters, batch: Mapping[str, Tensor]) -> Tensor:
        """Logits of each next token, [B, T − 1, V]."""
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "use_cache": False}
        return self.module(params, (inputs, batch["y"]))[:, :-1]


def _beside(params: Parameters, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A batch where the parameters are."""
    device = next(iter(params.values())).device
    return {key: value.to(device) for key, value in batch.items()}


def causal_lm_task(
    name: str,
    model: torch.nn.Module,
    tokenizer: Any,
    examples: Iterable[tuple[Text, Text]],
    *,
    instruction: Text,
    batch_size: int = _BATCH_SIZE,
    parameters: Sequence[str] | str | None = None,
    bos: Bos = "auto",
    layout: Layout | None = None,
    max_length: int | None = None,
) -> Task:
    """Build the task of answering y to an instruction and x; see :meth:`Task.from_causal_lm`.

    Args:
        name: The task's name.
        model: The model.
        tokenizer: Its tokenizer, or ``None`` for token ids.
        examples: Pairs (x, y).
        instruction: I.
        batch_size: Examples per batch.
        parameters: Which parameters the task is a function of.
        bos: The first token of every sequence.
        layout: What stands around the segments.
        max_length: Tokens per sequence; x is cut to fit.

    Returns:
        The task.

    Raises:
        InputError: If examples, tokenizer and model do not fit together, or the loss is not finite.
    """
    require_count("batch_size", batch_size)
    own = select_parameters(model, "all" if parameters is None else parameters)
    segments = Segmenter(tokenizer, model, bos=bos, max_length=max_length)
    parts = segments.layout(layout or Layout())
    tokens = segments.instruction(f"task {name!r}: instruction", instruction)
    given = list(examples) if isinstance(examples, Iterable) else []
    whole = segments.pairs(f"task {name!r}", given)
    overhead = len(segments.sequence(parts, tokens, ((), ())).tokens)
    pairs = segments.fit(f"task {name!r}", whole, overhead)
    cut = sum(before != after for before, after in zip(whole, pairs, strict=True))
    if cut:
        text = f"task {name!r}: {cut} of {len(pairs)} examples have their x cut to fit {segments.limit} tokens"
        warnings.warn(text, TruncationWarning, stacklevel=3)
    note_seams(segments, f"task {name!r}", layout or Layout(), instruction, given)
    rows = [segments.sequence(parts, tokens, pair) for pair in pairs]
    batches = [collate(rows[start : start + batch_size], segments.pad) for start in range(0, len(rows), batch_size)]
    function = SegmentModel(name, model, list(own))

    def loss(params: Parameters, batch: Mapping[str, Tensor]) -> Tensor:
        return -function(params, batch)[1].mean()

    readout = Readout(
        function.outputs,
        lambda outputs, batch: token_losses(outputs, batch["y"]),
        lambda outputs, batch: token_accuracy(outputs, batch["y"]),
    )
    # No constant_loss: what ignores x may still condition on the tokens of y before, so "constant" has no one meaning.
    task = Task(name, loss, batches, readout=readout, notes=segments.notes)
    task.check(own)
    return task


def select_parameters(model: torch.nn.Module, chosen: Sequence[str] | str | None) -> dict[str, Tensor]:
    """Return the parameters that are studied.

    Args:
        model: The model.
        chosen: Names or glob patterns; ``"all"``; or ``None``, which is the adapter of a PEFT model and all
            parameters of any other.

    Returns:
        The parameters by name, in the model's order; tied ones once.

    Raises:
        InputError: If a pattern fits no parameter, or one that fits is not of a floating type.

    Example:
        >>> list(select_parameters(torch.nn.Linear(1, 1), "b*"))
        ['bias']
    """
    own = {name: value.detach() for name, value in model.named_parameters()}
    if chosen is None:
        chosen = _adapter_patterns(model)
    patterns = ["*"] if chosen == "all" else [chosen] if isinstance(chosen, str) else list(chosen)
    unused = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in own)]
    if unused or not patterns:
        raise InputError(
            f"parameters: expected names or patterns of the model's parameters; found {unused or 'none'}. "
            f"It has {listed(own)}."
        )
    found = {name: value for name, value in own.items() if any(fnmatchcase(name, each) for each in patterns)}
    frozen = [name for name, value in found.items() if not value.is_floating_point()]
    if frozen:
        raise InputError(
            f"parameters: expected floating-point tensors; found {listed(frozen)} of other types. "
            "Quantised weights have no gradient: name the others, or load the model unquantised."
        )
    return found


def note_seams(
    segments: Segmenter, where: str, layout: Layout, instruction: Text, examples: Sequence[tuple[Text, Text]]
) -> None:
    """Note how often the tokenizer reads the whole prompt otherwise than its segments one by one.

    Args:
        segments: Where the note goes.
        where: Whose examples they are.
        layout: What stands around the segments.
        instruction: The instruction.
        examples: Pairs (x, y).
    """
    if segments.tokenizer is None or not isinstance(instruction, str):
        return
    texts = [(x, y) for x, y in examples if isinstance(x, str) and isinstance(y, str)]
    merged = 0
    for x, y in texts:
        parts = [part for part in (layout.head, instruction, layout.between, x, layout.tail, y) if part]
        apart: Tokens = sum((segments.tokens(where, part) for part in parts), ())
        merged += segments.tokens(where, "".join(parts)) != apart
    if merged:
        segments.note(
            f"{where}: in {merged} of {len(texts)} examples the tokenizer reads the whole prompt as other tokens than "
            "its segments one by one; the segments are what is measured. Let instruction and x end where a word does"
        )


def _adapter_patterns(model: torch.nn.Module) -> list[str]:
    """Patterns of what PEFT adds to a model; everything where it adds nothing."""
    if not hasattr(model, "peft_config"):
        return ["*"]
    prefix = getattr(model.base_model, "prefix", "lora_")
    names = [name for name, _ in model.named_parameters() if prefix in name or ".modules_to_save." in name]
    if not names:
        raise InputError(f"parameters: expected an adapter's, with {prefix!r} in their names; found none. Name some.")
    return [name.replace("[", "[[]") for name in names]
