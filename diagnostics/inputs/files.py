"""Writing files whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from diagnostics.errors import InputError

__all__ = ["replace_file", "replaced_together", "write_atomic", "write_tensors", "writing"]


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

    replace_file(path, write)


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
    replace_file(path, lambda draft: save_file(dense, draft, dict(metadata) if metadata else None))


@contextmanager
def replaced_together(folder: str | Path, last: str) -> Iterator[Path]:
    """Write several files of a folder, so that whatever happens before all are written the old ones are still there.

    Args:
        folder: Their folder; made if it is not there.
        last: The name of the file that is moved in place after all others, and whose old version goes before them.

    Yields:
        An empty folder for drafts, which get their places when the block ends.

    Raises:
        InputError: If the folder cannot be written in.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as home:
        ...     with replaced_together(home, last="index") as drafts:
        ...         _, _ = (drafts / "a").write_text("1"), (drafts / "index").write_text("a")
        ...     sorted(path.name for path in Path(home).iterdir())
        ['a', 'index']
    """
    home = Path(folder)
    drafts = home / f".{secrets.token_hex(4)}.tmp"
    with writing(home):
        try:
            home.mkdir(parents=True, exist_ok=True)
            drafts.mkdir()
            yield drafts
            (home / last).unlink(missing_ok=True)
            for draft in sorted(drafts.iterdir(), key=lambda path: path.name == last):
                draft.replace(home / draft.name)
        finally:
            shutil.rmtree(drafts, ignore_errors=True)


def replace_file(path: str | Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name, then move it in place.

    Args:
        path: Where to.
        write: Writes a file at the path that it is given.

    Raises:
        InputError: If the folder does not exist or cannot be written in, or something that is no file is there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     replace_file(Path(folder) / "a", lambda draft: draft.write_bytes(b"text"))
        ...     (Path(folder) / "a").read_text()
        'text'
    """
    # A link is written through: replacing it would leave the file it points to as it was.
    target = Path(path).resolve()
    draft = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.tmp")
    with writing(path):
        if not target.parent.is_dir():
            raise InputError(f"{path}: expected a folder to write in; found no {target.parent}. Create it first.")
        if target.exists() and not target.is_file():
            raise InputError(f"{path}: expected a file to write; found something else there. Give another name.")
        try:
            write(draft)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Say which file could not be written, and why.

    Args:
        path: The file or folder.

    Yields:
        Nothing.

    Raises:
        InputError: If the system or the safetensors library reports an error in the block.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        remedy = "Make room or choose another place; what was there is as it was."
        raise InputError(f"{path}: expected to write it; found: {reason}. {remedy}") from error
