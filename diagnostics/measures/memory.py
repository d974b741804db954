"""How much memory is free, and how much of it the graph of a computation holds."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from diagnostics.inputs.parts import local
from diagnostics.inputs.shards import pack, unpack, without_weights

__all__ = ["SavedBytes", "available_bytes"]

# Where neither the kernel nor a container says: what the smallest machines have.
_UNKNOWN = 2 << 30
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_bytes(device: torch.device | str = "cpu") -> int:
    """Return the memory that can be allocated without swapping or exceeding the container's limit.

    Args:
        device: The device.

    Returns:
        Bytes.

    Example:
        >>> available_bytes() > 0
        True
    """
    place = torch.device(device)
    if place.type == "cuda":
        free, _ = torch.cuda.mem_get_info(place)
        # What PyTorch holds in reserve is free to it.
        return free + torch.cuda.memory_reserved(place) - torch.cuda.memory_allocated(place)
    return min(_of_the_machine(_MEMINFO), _of_the_container(_CGROUP))


def _of_the_machine(meminfo: Path) -> int:
    """What Linux says can be had without swapping; on other systems a guess."""
    if not meminfo.is_file():
        return _UNKNOWN
    found = [line.split()[1] for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:")]
    return int(found[0]) << 10 if found else _UNKNOWN


def _of_the_container(folder: Path) -> int:
    """What is left of a control group's limit; without a limit, more than any machine has."""
    limit, used = folder / "memory.max", folder / "memory.current"
    if not (limit.is_file() and used.is_file()) or limit.read_text().strip() == "max":
        return 1 << 62
    # Pages of files count as used and are dropped when memory is wanted.
    cached = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines()).get("inactive_file", "0")
    return max(int(limit.read_text()) - int(used.read_text()) + int(cached), 0)


class SavedBytes:
    """A context that counts the bytes which graphs made inside it hold, each storage once.

    Args:
        known: Tensors that are there anyway, parameters say.

    Example:
        >>> weight = torch.ones(4, requires_grad=True)
        >>> with SavedBytes([weight]) as saved:
        ...     loss = weight.exp().sum()
        >>> saved.total
        16
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        self._seen = {local(value).untyped_storage().data_ptr() for value in known}
        self.total = 0
        self._entered = ExitStack()

    def _pack(self, tensor: Tensor) -> Any:
        """Count a tensor that a graph keeps."""
        kept = pack(tensor)
        storage = tensor.untyped_storage()
        if isinstance(kept, Tensor) and storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.total += storage.nbytes()
        return kept

    def __enter__(self) -> SavedBytes:
        self._entered.enter_context(without_weights())
        self._entered.enter_context(saved_tensors_hooks(self._pack, unpack))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.close()
