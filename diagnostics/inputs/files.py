"""Writing a file whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from diagnostics.errors import InputError

__all__ = ["write_atomic", "write_tensors"]


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

    def write(draft: Path) -> None:
        with draft.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())

    _replace(path, write)


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors to a safetensors file, so that whatever happens it holds the old tensors or the new.

    Args:
        path: Where to.
        tensors: Tensors by name.
        metadata: Text to store in the file's header.

    Raises:
        InputError: If the folder does not exist or cannot be written in, or something that is no file is there.
    """
    dense = {name: value.detach().contiguous() for name, value in tensors.items()}
    _replace(path, lambda draft: save_file(dense, draft, dict(metadata) if metadata else None))


def _replace(path: str | Path, write: Callable[[Path], None]) -> None:
    """Write under another name, then move in place."""
    # A link is written through: replacing it would leave the file it points to as it was.
    target = Path(path).resolve()
    if not target.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {target.parent} does not exist; create it first")
    if target.exists() and not target.is_file():
        raise InputError(f"cannot write {path}: it is there already and is not a file; give another name")
    draft = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        write(draft)
        draft.replace(target)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot write {path}: {reason}; free or choose another folder") from error
    finally:
        draft.unlink(missing_ok=True)
