"""Tokenizer files beside a model, read as JSON and text: what token each row of an embedding stands for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diagnostics.errors import CheckpointError
from diagnostics.inputs.checkpoints import Source, read_json, refuse
from diagnostics.inputs.texts import user_path

__all__ = ["TokenizerFiles", "read_tokenizer"]

# Parts of tokenizer.json that decide how a text is cut; truncation and padding are settings of a run.
_RULES = ("normalizer", "pre_tokenizer", "post_processor")


@dataclass(frozen=True)
class TokenizerFiles:
    """What the tokenizer files of one folder say.

    Attributes:
        tokens: Row of each token; empty where only a binary model is there.
        rules: How texts are cut, by part, in a form that can be compared.
        special: Text of each special token by its role, as far as it is given.
        template: The chat template, if there is one.
        digest: Hash of the binary model, if there is one.
    """

    tokens: Mapping[str, int] = field(default_factory=dict)
    rules: Mapping[str, str] = field(default_factory=dict)
    special: Mapping[str, str] = field(default_factory=dict)
    template: str | None = None
    digest: str | None = None


def read_tokenizer(source: Source) -> TokenizerFiles | None:
    """Read the tokenizer files beside a model, without loading a tokenizer.

    Args:
        source: A model; for one in a file, its folder is looked at.

    Returns:
        What they say, or nothing where there are none or the model is in memory.

    Raises:
        CheckpointError: A file is not what its name says.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "vocab.json").write_text('{"a": 0, "b": 1}')
        ...     read_tokenizer(folder).tokens
        {'a': 0, 'b': 1}
    """
    if not isinstance(source, str | Path):
        return None
    path = user_path(source)
    folder = path if path.is_dir() else path.parent
    try:
        tokens, rules = _vocabulary(folder)
        special, template = _settings(folder)
        _check_types(tokens, special)
    except CheckpointError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        found = f"{type(error).__name__}: {error}"
        refuse(folder, "tokenizer files as transformers writes them", found, "Save the tokenizer again.")
    binary = sorted(file for file in folder.glob("*.model") if file.is_file())
    digest = hashlib.sha256(binary[0].read_bytes()).hexdigest() if binary else None
    if not tokens and digest is None:
        return None
    return TokenizerFiles(tokens, rules, special, template, digest)


def _check_types(tokens: Mapping[Any, Any], special: Mapping[str, Any]) -> None:
    """Refuse tokens without a row and special tokens that are no texts."""
    for token, row in tokens.items():
        if not isinstance(token, str) or isinstance(row, bool) or not isinstance(row, int):
            raise TypeError(f"token {token!r} has row {row!r}")
    for role, text in special.items():
        if not isinstance(text, str):
            raise TypeError(f"{role} is {text!r}")


def _vocabulary(folder: Path) -> tuple[dict[str, int], dict[str, str]]:
    """Rows of tokens and rules of cutting, from the most complete file there is."""
    if (folder / "tokenizer.json").is_file():
        return _fast(read_json(folder / "tokenizer.json"))
    added = folder / "added_tokens.json"
    tokens: dict[str, int] = {}
    if (folder / "vocab.json").is_file():
        tokens = read_json(folder / "vocab.json")
    elif (folder / "vocab.txt").is_file():
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        tokens = {line: row for row, line in enumerate(lines)}
    merges = folder / "merges.txt"
    rules = {"merges": merges.read_text(encoding="utf-8")} if merges.is_file() else {}
    return {**tokens, **(read_json(added) if tokens and added.is_file() else {})}, rules


def _fast(content: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, str]]:
    """The same from tokenizer.json, whose vocabulary is a map, or a list of tokens with scores."""
    model = content.get("model") or {}
    vocabulary = model.get("vocab") or {}
    if isinstance(vocabulary, list):
        tokens = {entry[0]: row for row, entry in enumerate(vocabulary)}
    else:
        tokens = dict(vocabulary)
    tokens |= {entry["content"]: entry["id"] for entry in content.get("added_tokens") or ()}
    # Versions write a merge as "a b" or as ["a", "b"].
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model.get("merges") or ()]
    rules = {"model": model.get("type"), "merges": merges} | {part: content.get(part) for part in _RULES}
    return tokens, {part: json.dumps(value, sort_keys=True) for part, value in rules.items()}


def _settings(folder: Path) -> tuple[dict[str, str], str | None]:
    """Special tokens by role, and the chat template."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        settings |= read_json(folder / name) if (folder / name).is_file() else {}
    roles = {key: value for key, value in settings.items() if key.endswith("_token") and value}
    special = {key: value["content"] if isinstance(value, dict) else str(value) for key, value in roles.items()}
    flags = {key: str(value) for key, value in settings.items() if key in ("add_bos_token", "add_eos_token")}
    file = folder / "chat_template.jinja"
    template = file.read_text(encoding="utf-8") if file.is_file() else settings.get("chat_template")
    return special | flags, template if template is None or isinstance(template, str) else json.dumps(template)
