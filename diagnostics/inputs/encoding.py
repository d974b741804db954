"""Texts as batches of token ids for a model of transformers, by the tokenizer that its base keeps."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.inputs.examples import TextExamples, listed, refuse_input

__all__ = [
    "UNREADABLE",
    "TruncationWarning",
    "encode",
    "open_tokenizer",
    "positions",
    "read_tokenizer",
    "transformers",
]

# What transformers raises for a folder that it cannot read.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, ImportError)

_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.*")
_INSTALL = "pip install 'task-arithmetic-diagnostics[transformers]'"


class TruncationWarning(UserWarning):
    """Some texts were longer than the model reads and were cut."""


def encode(
    examples: TextExamples,
    targets: Tensor | None,
    tokenizer: Any,
    module: Any,
    *,
    batch_size: int,
    max_length: int | None,
) -> list[tuple[dict[str, Tensor], Tensor | None]]:
    """Return batches of token ids with their mask, each padded to its longest text.

    Args:
        examples: The texts.
        targets: Their class indices, if they have any.
        tokenizer: As :func:`open_tokenizer` returns it.
        module: The model that will read them, for the positions that it has.
        batch_size: Texts per batch.
        max_length: Tokens per text; by default what tokenizer and model allow.

    Returns:
        Pairs of the model's keyword inputs and the targets.

    Raises:
        InputError: If a text has no token, the tokenizer cannot pad, or the model cannot read so many tokens.
    """
    texts = list(examples.texts)
    lengths = [len(each) for each in tokenizer(texts, verbose=False)["input_ids"]]
    _check_lengths(examples, lengths, tokenizer)
    limit = _limit(max_length, tokenizer, module)
    _warn_of_truncation(examples.path, lengths, limit)
    cut = {"truncation": limit is not None, "max_length": limit, "padding": tokenizer.pad_token is not None}
    ranges = [slice(start, start + batch_size) for start in range(0, len(texts), batch_size)]
    return [
        (dict(tokenizer(texts[part], return_tensors="pt", **cut)), None if targets is None else targets[part])
        for part in ranges
    ]


def open_tokenizer(base: Path, expert: Path, texts: list[str]) -> Any:
    """Open the tokenizer of a base, and refuse an expert that reads the texts as other tokens.

    Args:
        base: The base's folder.
        expert: The expert's folder, which may have no tokenizer.
        texts: The texts to compare the two on.

    Returns:
        The base's tokenizer.

    Raises:
        InputError: If the base has none, one cannot be read, or the two differ.
    """
    tokenizer = read_tokenizer("base", base)
    if _has_tokenizer(expert):
        _compare(tokenizer, read_tokenizer("expert", expert), expert, texts)
    return tokenizer


def read_tokenizer(role: str, folder: Path) -> Any:
    """Read the tokenizer that lies beside a model's weights.

    Args:
        role: Whose it is, for messages.
        folder: The model's folder.

    Returns:
        The tokenizer.

    Raises:
        InputError: If there is none, or transformers cannot read it.
    """
    if not _has_tokenizer(folder):
        remedy = "Copy the tokenizer's files there, or tokenizer.save_pretrained(folder)."
        refuse_input(f"{role}: {folder}", "a tokenizer beside the weights", "none", remedy)
    try:
        return transformers().AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except UNREADABLE as error:
        refuse_input(folder, "a tokenizer that transformers reads", str(error), "Save the tokenizer again.")


def transformers() -> Any:
    """Return the transformers package, which only models in its format need.

    Returns:
        The package.

    Raises:
        InputError: If it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise InputError(f"models and tokenizers in folders need transformers ({error}): {_INSTALL}") from error


def _has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer."""
    return any(True for pattern in _FILES for _ in folder.glob(pattern))


def _compare(base: Any, expert: Any, folder: Path, texts: list[str]) -> None:
    """Refuse two tokenizers with other vocabularies, or with the same one but other rules."""
    expected = "the base's tokenizer"
    remedy = "Merged models need one tokenizer: fine-tune with the base's, or remove a copy that is not in use."
    ours, theirs = base.get_vocab(), expert.get_vocab()
    moved = sorted(token for token in {**ours, **theirs} if ours.get(token) != theirs.get(token))
    if moved:
        refuse_input(folder, expected, f"{len(moved)} tokens with other ids: {listed(map(repr, moved))}", remedy)
    pairs = (tokenizer(texts, verbose=False)["input_ids"] for tokenizer in (base, expert))
    for text, first, second in zip(texts, *pairs, strict=True):
        if first != second:
            found = f"the same vocabulary, but {text[:60]!r} becomes {second[:20]} instead of {first[:20]}"
            refuse_input(folder, expected, found, remedy)


def _check_lengths(examples: TextExamples, lengths: list[int], tokenizer: Any) -> None:
    """Refuse a text without tokens, and texts of several lengths that nothing can pad."""
    for line, length in zip(examples.lines, lengths, strict=True):
        if not length:
            refuse_input(f"{examples.path}, line {line}", "a text with at least one token", "none", "Remove the line.")
    if tokenizer.pad_token is None and len(set(lengths)) > 1:
        remedy = "Set tokenizer.pad_token and config.pad_token_id, and save both."
        refuse_input(f"{tokenizer.name_or_path}: tokenizer", "a padding token, to make batches", "none", remedy)


def _limit(given: int | None, tokenizer: Any, module: Any) -> int | None:
    """Tokens that a text may have; None where nothing limits them."""
    most = positions(module)
    least = tokenizer.num_special_tokens_to_add() + 1
    if given is not None and not least <= given <= (most or given):
        expected = f"between {least} and {most}" if most else f"at least {least}"
        refuse_input(
            "max_length", f"{expected} for {type(module).__name__}", str(given), "Leave it out for the longest."
        )
    if given is not None:
        return given
    # A tokenizer that knows no limit reports 1e30.
    known = [value for value in (most, tokenizer.model_max_length) if value and value < 1 << 30]
    return min(known, default=None)


def positions(module: Any) -> int | None:
    """Return how many positions a model has for tokens; models of RoBERTa's kind count from after the padding.

    Args:
        module: A model of transformers.

    Returns:
        The number; ``None`` where nothing limits it.
    """
    most = getattr(module.config.get_text_config(), "max_position_embeddings", None)
    if not most or most < 0:
        return None
    paddings = [
        layer.padding_idx
        for key, layer in module.named_modules()
        if key.endswith("position_embeddings") and getattr(layer, "padding_idx", None) is not None
    ]
    return most - (paddings[0] + 1) if paddings else most


def _warn_of_truncation(file: Path, lengths: list[int], limit: int | None) -> None:
    """Say how many texts are cut, and how long the longest was."""
    cut = [length for length in lengths if limit is not None and length > limit]
    if cut:
        warnings.warn(
            f"{file}: {len(cut)} of {len(lengths)} texts are cut to {limit} tokens (max_length); "
            f"the longest has {max(cut)}",
            TruncationWarning,
            stacklevel=2,
        )
