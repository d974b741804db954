"""A case in words: its numbers, field by field."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

__all__ = ["describe"]


def describe(case: Any, name: str = "") -> Iterator[str]:
    """Write the numbers of a case, one field a line.

    Args:
        case: A number, array, tuple, mapping or dataclass of these.
        name: What to call it.

    Yields:
        Lines ``name = numbers``.

    Example:
        >>> list(describe({"alphas": np.array([1.0, 0.5]), "k": 0}))
        ['alphas = [1, 0.5]', 'k = 0']
    """
    if dataclasses.is_dataclass(case) and not isinstance(case, type):
        case = {field.name: getattr(case, field.name) for field in dataclasses.fields(case)}
    if isinstance(case, Mapping):
        for key, item in case.items():
            yield from describe(item, f"{name}.{key}" if name else str(key))
    elif isinstance(case, tuple | list) and any(dataclasses.is_dataclass(item) for item in case):
        for number, item in enumerate(case):
            yield from describe(item, f"{name}[{number}]")
    else:
        yield f"{name or 'case'} = {_text(case)}"


def _text(item: Any) -> str:
    """Numbers as short as they can be told apart."""
    if isinstance(item, np.ndarray):
        return _text(item.tolist())
    if isinstance(item, tuple | list):
        return "[" + ", ".join(map(_text, item)) + "]"
    return f"{item:.10g}" if isinstance(item, float) else str(item)
