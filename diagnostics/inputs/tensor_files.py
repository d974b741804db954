"""Safetensors files: their headers, their tensors whole or in parts, and what a file that is none really is."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from diagnostics.errors import CheckpointError

AGAIN = "Download or save the model again."
CONVERT = (
    "Opening a pickle can run code, so none is read here: where you trust it, load it with transformers and "
    "call model.save_pretrained(folder, safe_serialization=True), or use safetensors.torch.save_file."
)
FROM_GGUF = "GGUF weights are quantised for inference: pass the safetensors model that they were made from."

# Reads values start … stop of a flattened tensor, in their own dtype; they may lie in the buffer of bytes given.
PartReader: TypeAlias = Callable[[int, int, Tensor], Tensor]

_DTYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "C64": torch.complex64},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "BOOL": torch.bool},
    **{"U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8},
}
_COMPLETE = "a complete safetensors file"


class Entry(NamedTuple):
    """What a header says about one tensor; `start` is the place of its first byte in the file."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    start: int


def read_header(path: Path) -> dict[str, Entry]:
    """Read what a file says about its tensors, refused now where torch has no such dtype.

    Args:
        path: The file.

    Returns:
        An entry for each tensor.

    Raises:
        CheckpointError: The file is truncated, corrupt or no safetensors file, or has a dtype unknown to torch.
    """
    # The library checks the header against the file's size; where the bytes of a tensor lie it does not tell.
    with _open_file(path) as handle:
        slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118
        starts = _starts(path)
    for name, entry in slices.items():
        if entry.get_dtype() not in _DTYPES:
            remedy = "Save it again in one of these."
            refuse(f"{path}: {name}", f"a dtype among {', '.join(_DTYPES)}", entry.get_dtype(), remedy)
    return {
        name: Entry(tuple(entry.get_shape()), _DTYPES[entry.get_dtype()], starts[name])
        for name, entry in slices.items()
    }


def read_tensor(path: Path, name: str) -> Tensor:
    """Read one tensor whole.

    Args:
        path: The file.
        name: The tensor.

    Returns:
        Its values, in its own dtype.

    Raises:
        CheckpointError: The file is gone, or no longer whole.
    """
    # A handle kept open keeps every page that was ever read through it in this process's memory.
    with _open_file(path) as handle:
        return handle.get_tensor(name)


@contextmanager
def open_parts(path: Path, name: str, entry: Entry) -> Iterator[PartReader]:
    """Open one tensor to be read in parts, into a buffer that is used again: no page of the file is mapped.

    Args:
        path: The file.
        name: The tensor, for messages.
        entry: What the header says about it.

    Yields:
        The reader; threads may share it, each with a buffer of its own.

    Raises:
        CheckpointError: The file is gone, or no longer whole.
    """
    size = entry.dtype.itemsize
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        _refuse_file(path, str(error))

    # Most parts are of one length, and making views of the buffer takes as long as reading a part that is cached.
    views: dict[tuple[int, int], tuple[Tensor, memoryview]] = {}

    def read(start: int, stop: int, buffer: Tensor) -> Tensor:
        key = (buffer.data_ptr(), stop - start)
        if key not in views:
            part = buffer[: (stop - start) * size]
            views[key] = part.view(entry.dtype), part.numpy().data
        part, view = views[key]
        if not _fill(descriptor, view, entry.start + start * size):
            _refuse_file(path, f"it ends within {name}")
        return part

    try:
        yield read
    finally:
        os.close(descriptor)


def refuse(where: object, expected: str, found: str, remedy: str) -> NoReturn:
    """Raise the error for a checkpoint that cannot be used.

    Args:
        where: File, folder or model concerned.
        expected: What should have been there.
        found: What was there.
        remedy: What to do about it.

    Raises:
        CheckpointError: Always.

    Example:
        >>> refuse("a.safetensors", "tensors", "none", "Save it again.")
        Traceback (most recent call last):
        diagnostics.errors.CheckpointError: a.safetensors: expected tensors; found none. Save it again.
    """
    raise CheckpointError(f"{where}: expected {expected}; found {found}. {remedy}")


def _fill(descriptor: int, view: memoryview, place: int) -> bool:
    """Fill a view with the bytes of a file from a place on; False where the file ends before."""
    while view:
        read = os.preadv(descriptor, [view], place)
        if not read:
            return False
        view, place = view[read:], place + read
    return True


def _starts(path: Path) -> dict[str, int]:
    """The place of each tensor's first byte, from a header that was checked already."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {name: 8 + length + entry["data_offsets"][0] for name, entry in header.items() if name != "__metadata__"}


@contextmanager
def _open_file(path: Path) -> Iterator[Any]:
    """Open a safetensors file, or say what it really is where it cannot be read as one."""
    try:
        with safe_open(path, framework="pt") as handle:
            yield handle
    except (SafetensorError, OSError) as error:
        _refuse_file(path, str(error))


def _refuse_file(path: Path, reason: str) -> NoReturn:
    """Refuse a file that cannot be read as safetensors."""
    found, remedy = _diagnose(path, reason)
    refuse(path, _COMPLETE, found, remedy)


def _diagnose(path: Path, reason: str) -> tuple[str, str]:
    """What an unreadable file is, and what to do, from its first bytes."""
    if not path.is_file():
        return reason, "Pass a safetensors file."
    try:
        with path.open("rb") as file:
            start = file.read(24)
    except OSError as error:
        return f"one that cannot be read ({error.strerror})", "Check its permissions."
    if start.startswith(b"GGUF"):
        return "a GGUF file", FROM_GGUF
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the weights", "Run `git lfs pull` in its folder."
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return "a pickled file under another name", CONVERT
    found = f"{path.stat().st_size} bytes that are truncated or corrupt ({reason})"
    return found, AGAIN
