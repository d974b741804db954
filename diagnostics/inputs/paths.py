"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path

from diagnostics.errors import InputError

__all__ = ["user_path"]


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
