"""Writing a file whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from diagnostics.errors import InputError

__all__ = ["write_atomic"]


def write_atomic(path: str | Path, text: str) -> None:
    """Write text to a file, so that whatever happens it holds the old text or the new.

    Args:
        path: Where to.
        text: What to write, stored as UTF-8.

    Raises:
        InputError: If the folder does not exist or cannot be written in, or something that is no file is there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomic(Path(folder) / "page.html", "text")
        ...     (Path(folder) / "page.html").read_text()
        'text'
    """
    # A link is written through: replacing it would leave the file it points to as it was.
    target = Path(path).resolve()
    if not target.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {target.parent} does not exist; create it first")
    if target.exists() and not target.is_file():
        raise InputError(f"cannot write {path}: it is there already and is not a file; give another name")
    draft = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        with draft.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(target)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; free or choose another folder") from error
    finally:
        draft.unlink(missing_ok=True)
