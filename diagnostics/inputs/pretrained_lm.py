"""Tasks of causal language models in folders: a JSONL file of pairs (x, y) for each expert."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diagnostics.errors import InputError
from diagnostics.inputs.encoding import open_tokenizer
from diagnostics.inputs.examples import read_pairs
from diagnostics.inputs.language_models import load_language_model
from diagnostics.inputs.tasks import Task

__all__ = ["causal_lm_tasks"]

_BATCH_SIZE = 16


def causal_lm_tasks(
    base: Path,
    experts: Mapping[str, Path],
    data: Mapping[str, Path],
    *,
    instructions: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    batch_size: int | None = None,
    max_length: int | None = None,
) -> dict[str, Task]:
    """Build the task of each expert: L(θ) = −E log p(y | BOS, instruction, x).

    Args:
        base: The base's folder, with its tokenizer, which reads all texts.
        experts: Folders of the experts by name; one with another tokenizer is refused.
        data: A file of JSON lines with ``x`` and ``y`` for each expert.
        instructions: What stands before x, by expert; nothing by default.
        columns: Names of the keys, as ``{"x": …, "y": …}``.
        batch_size: Examples per batch, 16 by default.
        max_length: Tokens per sequence, x being cut to fit; by default longer is an error.

    Returns:
        Tasks over the parameters of the whole model.

    Raises:
        InputError: If folders, data and instructions do not fit together.
    """
    given = instructions or {}
    unknown = sorted(set(given) - set(data))
    if unknown:
        raise InputError(f"instructions: expected names of experts, {list(data)}; found {unknown}.")
    pairs = {name: read_pairs(file, columns) for name, file in data.items()}
    for name, folder in experts.items():
        open_tokenizer(base, folder, [text for pair in pairs[name] for text in pair])
    language = load_language_model(base)
    model = language.model.float()
    return {
        name: Task.from_causal_lm(
            name,
            model,
            language.tokenizer,
            examples,
            instruction=given.get(name, ""),
            batch_size=batch_size or _BATCH_SIZE,
            max_length=max_length,
        )
        for name, examples in pairs.items()
    }
