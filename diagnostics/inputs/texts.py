"""Paths, JSON and texts as users write them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from diagnostics.errors import InputError

__all__ = ["is_text", "parse_json", "user_path"]


def is_text(value: str) -> bool:
    """Say whether a string is text, and has no halves of characters, which escapes in YAML and JSON can stand for.

    Args:
        value: The string.

    Returns:
        Whether UTF-8 can hold it.

    Example:
        >>> is_text("é"), is_text(chr(0xD800))
        (True, False)
    """
    return not any("\ud800" <= character <= "\udfff" for character in value)


def parse_json(text: str) -> Any:
    """Read JSON, with whatever cannot be used of it as an error of one kind.

    Args:
        text: The document.

    Returns:
        Its content.

    Raises:
        ValueError: If it is not JSON, is nested too deeply, or has half a character.

    Example:
        >>> parse_json('{"a": 1}')
        {'a': 1}
    """
    try:
        content = json.loads(text)
        if "\\u" in text:
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("brackets nested too deeply") from None
    except UnicodeEncodeError as error:
        raise ValueError(f"half a character: {error.object[error.start : error.end]!r}") from None
    return content


def user_path(path: str | Path) -> Path:
    """Return a path with the home folder filled in, if it is one that can be looked up at all.

    Args:
        path: As it was written.

    Returns:
        The path; whether anything is there is not asked.

    Raises:
        InputError: If it is no path, names an unknown user, or is one that the system cannot look up.

    Example:
        >>> user_path("models/base").as_posix()
        'models/base'
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"expected a path; found {type(path).__name__} {path!r}. Pass a string or a pathlib.Path.")
    try:
        full = Path(path).expanduser()
        full.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        shown = str(path) if len(str(path)) <= 80 else f"{str(path)[:79]}…"
        raise InputError(f"{shown!r}: expected a path; found one that cannot be read: {reason}. Correct it.") from error
    return full
