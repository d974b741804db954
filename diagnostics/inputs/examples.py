"""Examples read from data files: JSON lines of texts with labels, or tensors of a safetensors file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.inputs.checkpoints import load_parameters
from diagnostics.inputs.texts import parse_json, user_path

__all__ = [
    "COLUMNS",
    "TextExamples",
    "class_targets",
    "is_tensor_file",
    "listed",
    "looks_like_label",
    "read_pairs",
    "read_rows",
    "read_tensors",
    "read_texts",
    "refuse_input",
]

# What a column may be called when the caller does not say.
COLUMNS = {"text": ("text", "x"), "label": ("label", "y"), "inputs": ("inputs",), "targets": ("targets",)}
COLUMNS |= {"x": ("x",), "y": ("y",)}
# What a key without a column's name may still be meant as: labels under another name are not passed over.
_LIKE_LABELS = ("label", "target", "class", "category", "gold")
_PARTNERS = {"text": "label", "label": "text", "inputs": "targets", "targets": "inputs", "x": "y", "y": "x"}


@dataclass(frozen=True)
class TextExamples:
    """Texts with their labels as a file has them.

    Attributes:
        path: The file.
        texts: One text per example.
        labels: One label per example, an int or the name of a class; ``None`` where no line has one.
        lines: The line that each example comes from, for messages.
    """

    path: Path
    texts: tuple[str, ...]
    labels: tuple[int | str, ...] | None
    lines: tuple[int, ...]


def read_texts(path: str | Path, columns: Mapping[str, str] | None = None) -> TextExamples:
    """Read texts, and labels if there are any, from a file with one JSON object per line.

    Blank lines are no examples. Either every line has a label or none has.

    Args:
        path: The file.
        columns: Names of the keys, as ``{"text": …, "label": …}``; by default ``text`` or ``x`` and ``label`` or
            ``y``, whichever the file has. Keys that are not named are not read.

    Returns:
        The examples in the order of the file.

    Raises:
        InputError: If the file is missing or empty, a line is not an object with a text, only some lines have a
            label, or a key looks like one under another name.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        ...     _ = file.write('{"text": "good", "label": 1}')
        ...     file.flush()
        ...     read_texts(file.name).labels
        (1,)
    """
    file = user_path(path)
    rows = read_rows(file)
    given = columns or {}
    text = _choose(file, "text", given.get("text"), rows[0][1])
    texts = tuple(_text(file, line, text, row) for line, row in rows)
    return TextExamples(file, texts, _labels(file, given.get("label"), rows), tuple(line for line, _ in rows))


def read_pairs(path: str | Path, columns: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """Read what a language model is given and what it should answer, one JSON object per line.

    Args:
        path: The file.
        columns: Names of the keys, as ``{"x": …, "y": …}``; by default just these letters.

    Returns:
        Pairs (x, y) in the order of the file; x may be empty.

    Raises:
        InputError: If the file is missing or empty, or a line is not an object with texts under both keys.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        ...     _ = file.write('{"x": "2 + 2 =", "y": " 4"}')
        ...     file.flush()
        ...     read_pairs(file.name)
        [('2 + 2 =', ' 4')]
    """
    file = user_path(path)
    rows = read_rows(file)
    given = columns or {}
    x, y = (_choose(file, role, given.get(role), rows[0][1]) for role in ("x", "y"))
    return [(_string(file, line, x, row), _text(file, line, y, row)) for line, row in rows]


def read_rows(path: str | Path) -> list[tuple[int, dict[str, Any]]]:
    """Read the objects of a file with one JSON object per line.

    Args:
        path: The file.

    Returns:
        Number of the line, and object; at least one.

    Raises:
        InputError: If the file is missing or empty, or a line is no JSON object.
    """
    file = user_path(path)
    rows = list(_rows(file))
    if not rows:
        refuse_input(file, "at least one example, a JSON object on a line of its own", "none", "Add examples.")
    return rows


def class_targets(examples: TextExamples, names: Mapping[str, int], classes: int) -> Tensor | None:
    """Return labels as class indices, if there are labels.

    Args:
        examples: The examples.
        names: Index of each class that a label may name.
        classes: Number of classes of the model.

    Returns:
        Integer targets, [n]; ``None`` for unlabelled examples.

    Raises:
        InputError: If a label is no class of the model.

    Example:
        >>> examples = TextExamples(Path("a.jsonl"), ("good", "bad"), ("positive", 0), (1, 2))
        >>> class_targets(examples, {"negative": 0, "positive": 1}, 2).tolist()
        [1, 0]
    """
    if examples.labels is None:
        return None
    pairs = zip(examples.lines, examples.labels, strict=True)
    return torch.tensor([_index(examples.path, line, label, names, classes) for line, label in pairs])


def is_tensor_file(path: str | Path) -> bool:
    """Say whether a data file holds tensors rather than texts.

    Args:
        path: The file.

    Returns:
        True for ``.safetensors``.
    """
    return Path(path).suffix == ".safetensors"


def read_tensors(
    path: str | Path, columns: Mapping[str, str] | None = None
) -> tuple[Tensor | dict[str, Tensor], Tensor]:
    """Read inputs and targets from a safetensors file.

    Args:
        path: The file.
        columns: Names of the tensors, as ``{"inputs": …, "targets": …}``; by default just these words.

    Returns:
        ``(inputs, targets)`` with examples first; where the file has further tensors, ``inputs`` is a dict of all
        but the targets, to be passed as keywords.

    Raises:
        InputError: If a tensor is missing, empty, not finite, or has another number of examples than the targets.

    Example:
        >>> import tempfile
        >>> from safetensors.torch import save_file
        >>> with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        ...     save_file({"inputs": torch.eye(2), "targets": torch.tensor([0, 1])}, file.name)
        ...     read_tensors(file.name)[1]
        tensor([0, 1])
    """
    file = user_path(path)
    tensors, given = load_parameters(file), columns or {}
    inputs, targets = (_choose(file, role, given.get(role), tensors) for role in ("inputs", "targets"))
    for name, tensor in tensors.items():
        _check_tensor(file, name, tensor, tensors[targets])
    target = tensors.pop(targets)
    return (tensors[inputs] if len(tensors) == 1 else tensors), target


def looks_like_label(key: str) -> bool:
    """Say whether a key may well hold labels though it has not their name.

    Args:
        key: The key.

    Returns:
        Whether it names a label, a class or a target, or nearly is a label's usual name.

    Example:
        >>> [looks_like_label(key) for key in ("sentiment_label", "lable", "author")]
        [True, True, False]
    """
    name = key.lower()
    near = difflib.get_close_matches(name, COLUMNS["label"], cutoff=0.75)
    return any(word in name for word in _LIKE_LABELS) or bool(near)


def listed(items: Iterable[str]) -> str:
    """Return a few items, and how many more there are.

    Args:
        items: Any number of items.

    Returns:
        Their text.

    Example:
        >>> listed("abcdefg")
        'a, b, c, d, e and 2 more'
    """
    shown = list(items)
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return ", ".join(shown[:5]) + more if shown else "none"


def refuse_input(where: object, expected: str, found: str, remedy: str) -> NoReturn:
    """Raise the error for models or data that cannot be used.

    Args:
        where: File, folder or setting concerned.
        expected: What should have been there.
        found: What was there.
        remedy: What to do about it.

    Raises:
        InputError: Always.

    Example:
        >>> refuse_input("a.jsonl", "a text", "none", "Add one.")
        Traceback (most recent call last):
        diagnostics.errors.InputError: a.jsonl: expected a text; found none. Add one.
    """
    raise InputError(f"{where}: expected {expected}; found {found}. {remedy}")


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each JSON object with the number of its line."""
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        refuse_input(file, "a file with one JSON object per line", error.strerror or str(error), "Check the path.")
    except UnicodeDecodeError as error:
        refuse_input(file, "UTF-8 text", str(error), "Save it as UTF-8; tensors belong in a .safetensors file.")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, _row(f"{file}, line {number}", line)


def _row(where: str, line: str) -> dict[str, Any]:
    """One line as an object."""
    remedy = 'Write each example on a line of its own, as {"text": "…", "label": 0}.'
    try:
        row = parse_json(line)
    except ValueError as error:
        refuse_input(where, "a JSON object", f"{_short(line)} ({error})", remedy)
    if not isinstance(row, dict):
        refuse_input(where, "a JSON object", _short(line), remedy)
    return row


def _choose(file: Path, role: str, given: str | None, present: Iterable[str]) -> str:
    """The one name under which a file has what is looked for."""
    keys = list(present)
    candidates = (given,) if given else COLUMNS[role]
    found = [name for name in candidates if name in keys]
    expected = f"a key {' or '.join(map(repr, candidates))}"
    if not found:
        free = [key for key in keys if key not in COLUMNS[_PARTNERS[role]]]
        near = difflib.get_close_matches(candidates[0], free, n=1, cutoff=0.0)
        remedy = f"Name the one that holds the {role}: columns {{{role}: {near[0] if near else '…'}}}."
        refuse_input(file, expected, f"only {keys}", remedy)
    if len(found) > 1:
        refuse_input(
            file,
            expected.replace("a key", "one key", 1),
            f"both {found}",
            f"Say which one is meant: columns {{{role}: {found[0]}}}.",
        )
    return found[0]


def _value(file: Path, line: int, key: str, row: Mapping[str, Any]) -> Any:
    """A row's value of a key that every row must have."""
    if key not in row:
        refuse_input(f"{file}, line {line}", f"the key {key!r}", f"only {list(row)}", "Every line needs the same keys.")
    return row[key]


def _text(file: Path, line: int, key: str, row: Mapping[str, Any]) -> str:
    """A row's text."""
    value = _value(file, line, key, row)
    if not isinstance(value, str) or not value.strip():
        refuse_input(f"{file}, line {line}: {key}", "a text", _short(value), "Fill the text in or remove the line.")
    return value


def _string(file: Path, line: int, key: str, row: Mapping[str, Any]) -> str:
    """A row's text, which may be empty."""
    value = _value(file, line, key, row)
    if not isinstance(value, str):
        refuse_input(f"{file}, line {line}: {key}", "a text", _short(value), 'Write a text; "" if there is none.')
    return value


def _labels(file: Path, given: str | None, rows: list[tuple[int, dict[str, Any]]]) -> tuple[int | str, ...] | None:
    """The labels of all rows, or None where no row has one."""
    names = (given,) if given else COLUMNS["label"]
    first = next((row for _, row in rows if any(name in row for name in names)), None)
    if first is None and given is None:
        _refuse_unnamed_labels(file, list(dict.fromkeys(key for _, row in rows for key in row)))
        return None
    label = _choose(file, "label", given, rows[0][1] if first is None else first)
    lacking = {line: row for line, row in rows if label not in row}
    for line, row in lacking.items():
        remedy = (
            f"{len(rows) - len(lacking)} of {len(rows)} lines have it: label every line, or put those without a label "
            "into a file of their own, where no line has one."
        )
        refuse_input(f"{file}, line {line}", f"the key {label!r}", f"only {list(row)}", remedy)
    return tuple(_label(file, line, label, row) for line, row in rows)


def _refuse_unnamed_labels(file: Path, keys: list[str]) -> None:
    """Refuse keys that look like a label's under another name."""
    for key in keys:
        if looks_like_label(key):
            remedy = f"Name the one that holds the label: columns {{label: {key}}}; or remove it if it is none."
            refuse_input(file, "a key 'label' or 'y', or none that could be one", f"only {keys}", remedy)


def _label(file: Path, line: int, key: str, row: Mapping[str, Any]) -> int | str:
    """A row's label, whatever class it may stand for."""
    value = _value(file, line, key, row)
    if isinstance(value, bool) or not isinstance(value, int | str):
        remedy = "Give each class an integer from 0 on, or its name; real-valued targets go in a .safetensors file."
        refuse_input(f"{file}, line {line}: {key}", "an integer or the name of a class", _short(value), remedy)
    return value


def _index(file: Path, line: int, label: int | str, names: Mapping[str, int], classes: int) -> int:
    """The class index that a label stands for."""
    where = f"{file}, line {line}: label"
    if isinstance(label, int):
        if not 0 <= label < classes:
            refuse_input(
                where, f"a class from 0 to {classes - 1}", str(label), "Count classes from 0 as the model does."
            )
        return label
    if label not in names:
        near = difflib.get_close_matches(label, names, n=1, cutoff=0.0)
        hint = f"Did you mean {near[0]!r}? Or give class numbers." if near else "Give class numbers."
        refuse_input(where, f"a class of the model: {listed(map(repr, names))}", repr(label), hint)
    return names[label]


def _check_tensor(file: Path, name: str, tensor: Tensor, targets: Tensor) -> None:
    """Refuse a tensor without examples, with another number of them, or with NaN or infinite values."""
    where = f"{file}: {name}"
    if tensor.ndim == 0 or len(tensor) == 0:
        refuse_input(where, "at least one example, examples first", f"shape {list(tensor.shape)}", "Save it again.")
    if targets.ndim == 0 or len(tensor) != len(targets):
        expected = f"as many examples as targets {list(targets.shape)}"
        refuse_input(where, expected, f"shape {list(tensor.shape)}", "Put examples first in every tensor of the file.")
    bad = int((~tensor.isfinite()).sum())
    if bad:
        refuse_input(where, "finite values", f"{bad} of {tensor.numel()} NaN or infinite", "Clean the data first.")


def _short(value: object) -> str:
    """A value as messages give it, cut where it is long."""
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}…'"
