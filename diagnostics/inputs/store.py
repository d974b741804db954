"""Measured tensors kept on disk, each under a digest of all that it depends on."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.inputs.files import write_tensors, writing
from diagnostics.inputs.texts import user_path

__all__ = ["Store", "digest"]

# Other versions may compute otherwise; what they stored is left where it is, and not read.
_VERSIONS = tuple(importlib.metadata.version(name) for name in ("task-arithmetic-diagnostics", "torch"))


class Store:
    """A folder of measured tensors: an interrupted run finds there what it had done, a later one what is the same.

    Entries are never changed. What cannot be read is measured again and written anew. The folder can be deleted at
    any time, and be shared by several runs at once.

    Args:
        folder: Where to keep them; made if it is not there.

    Attributes:
        found: Entries that were read.
        added: Entries that were written.

    Raises:
        InputError: If the folder cannot be made, or is a file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     key = digest("outputs", torch.zeros(2))
        ...     Store(folder).write(key, {"0": torch.ones(2)})
        ...     Store(folder).read(key), Store(folder).read(digest("other"))
        ({'0': tensor([1., 1.])}, None)
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = user_path(folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cache: expected a folder, or a place where one can be made; found {folder} ({error.strerror}). "
                "Give another, or leave it out."
            ) from error
        self.found = self.added = 0

    def __str__(self) -> str:
        return f"cache {self._folder}: {self.found} results found in it, {self.added} added"

    def read(self, key: str) -> dict[str, Tensor] | None:
        """Return what is kept under a key.

        Args:
            key: A digest of all that the tensors depend on.

        Returns:
            The tensors by name, or ``None`` where there are none, or none that can be read.
        """
        path = self._path(key)
        try:
            found = load_file(path) if path.is_file() else None
        except (OSError, SafetensorError):
            return None
        self.found += found is not None
        return found

    def write(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors under a key.

        Args:
            key: A digest of all that they depend on.
            tensors: Tensors by name.

        Raises:
            InputError: If they cannot be written.
        """
        path = self._path(key)
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)  # the whole folder may have been deleted meanwhile
        write_tensors(path, {name: value.cpu() for name, value in tensors.items()})
        self.added += 1

    def _path(self, key: str) -> Path:
        """Where an entry lies: in one of 256 folders, as a folder with very many files is slow."""
        return self._folder / key[:2] / f"{key[2:]}.safetensors"


class _Hash(Protocol):
    """What takes bytes."""

    def update(self, data: Any, /) -> None: ...


def digest(*parts: Any) -> str:
    """Return a digest of values: equal for equal values, and otherwise different.

    Args:
        parts: Tensors, arrays, texts, numbers, and mappings or sequences of them.

    Returns:
        64 hexadecimal digits; other ones with another version of torch or of this package.

    Raises:
        InputError: If a part is of a kind whose content cannot be told.

    Example:
        >>> digest({"a": torch.zeros(2)}) == digest({"a": torch.zeros(2)}), digest([1]) == digest(["1"])
        (True, False)
    """
    found = hashlib.sha256()
    for part in (_VERSIONS, *parts):
        _feed(found, part)
    return found.hexdigest()


def _feed(found: _Hash, part: Any) -> None:
    """Add a value: its kind and size first, so that no two values give the same bytes."""
    if isinstance(part, Tensor) or (isinstance(part, np.ndarray) and part.dtype.kind in "biufc"):
        value = torch.as_tensor(part).detach()
        found.update(f"tensor {value.dtype} {tuple(value.shape)};".encode())
        found.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    elif isinstance(part, str):
        content = part.encode("utf-8", "surrogatepass")
        found.update(f"text {len(content)};".encode() + content)
    elif part is None or isinstance(part, bool | int | float | torch.dtype | torch.device):
        found.update(f"{type(part).__name__} {part!r};".encode())
    elif isinstance(part, Mapping):
        _feed_all(found, "mapping", [each for pair in part.items() for each in pair])
    elif isinstance(part, Sequence):
        _feed_all(found, "sequence", part)
    else:
        raise InputError(
            f"cache: expected data made of tensors, texts and numbers, whose content can be told; found "
            f"{type(part).__name__}. Leave the cache out."
        )


def _feed_all(found: _Hash, kind: str, values: Sequence[Any]) -> None:
    """Add several values."""
    found.update(f"{kind} {len(values)};".encode())
    for value in values:
        _feed(found, value)
