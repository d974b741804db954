"""Which keys of a data file hold the texts and the labels, where they do not go by their usual names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diagnostics.inputs.examples import COLUMNS, looks_like_label, read_rows, refuse_input

__all__ = ["guess_columns"]


def guess_columns(path: str | Path, kind: str) -> dict[str, str]:
    """Guess the columns of a data file from its first line.

    Args:
        path: A file with one JSON object per line.
        kind: The kind of its task, ``sequence-classification`` or ``causal-lm``.

    Returns:
        Key by role, of the roles whose key has not its usual name.

    Raises:
        InputError: If the file cannot be read, or several keys could be meant.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        ...     _ = file.write('{"id": 1, "review": "good", "stars_class": 5}')
        ...     file.flush()
        ...     guess_columns(file.name, "sequence-classification")
        {'text': 'review', 'label': 'stars_class'}
    """
    row = read_rows(path)[0][1]
    return _pair(Path(path), row) if kind == "causal-lm" else _labelled(Path(path), row)


def _labelled(file: Path, row: Mapping[str, Any]) -> dict[str, str]:
    """A text, and a label if there is one."""
    found = {}
    if not any(name in row for name in COLUMNS["label"]):
        labels = [key for key in row if looks_like_label(key)]
        if labels:
            found["label"] = _only(file, "label", labels, row)
    if not any(name in row for name in COLUMNS["text"]):
        taken = (*COLUMNS["label"], *found.values())
        found = {"text": _only(file, "text", [key for key in _texts(row) if key not in taken], row), **found}
    return found


def _pair(file: Path, row: Mapping[str, Any]) -> dict[str, str]:
    """What a model is given and what it should answer: two texts, in this order."""
    free = [key for key in _texts(row) if key not in ("x", "y")]
    lacking = [role for role in ("x", "y") if role not in row]
    if len(free) != len(lacking) and lacking:
        _refuse(file, " and ".join(lacking), row)
    return dict(zip(lacking, free, strict=True)) if lacking else {}


def _texts(row: Mapping[str, Any]) -> list[str]:
    """Keys of a row's texts."""
    return [key for key, value in row.items() if isinstance(value, str)]


def _only(file: Path, role: str, keys: list[str], row: Mapping[str, Any]) -> str:
    """The one key that can be meant."""
    if len(keys) != 1:
        _refuse(file, role, row)
    return keys[0]


def _refuse(file: Path, role: str, row: Mapping[str, Any]) -> None:
    """Refuse to guess."""
    expected = f"one key that can hold the {role}"
    refuse_input(file, expected, str(list(row)), f"Name it: columns {{{role.split()[0]}: …}}.")
