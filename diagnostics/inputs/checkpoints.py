"""Checkpoints: the only place that reads weights from disk, one tensor at a time, never unpickling.

A folder can hold weights in several ways, and picking one silently could diagnose another model than the one
meant: every choice that a folder leaves open is refused, with the candidates named.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import torch
from torch import Tensor, nn

from diagnostics.inputs.live_models import LiveAdapter, has_adapters, untouched_parameters
from diagnostics.inputs.parts import is_part
from diagnostics.inputs.tensor_files import (
    AGAIN,
    CONVERT,
    FROM_GGUF,
    Entry,
    PartReader,
    open_parts,
    read_header,
    read_tensor,
    refuse,
)
from diagnostics.inputs.texts import parse_json, user_path

Source: TypeAlias = Mapping[str, Tensor] | nn.Module | LiveAdapter | str | Path

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

_INDEX = ".safetensors.index.json"
_PICKLED = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})


class Checkpoint(ABC):
    """Named tensors of one model, read one at a time so that memory stays flat.

    Attributes:
        label: How messages name this model.
        names: Names of the tensors; tied tensors count once.
        aliases: Name of each tied tensor left out, with the name under which it is kept.
    """

    def __init__(self, label: str, names: Iterable[str], aliases: Mapping[str, str] | None = None) -> None:
        self.label = label
        self.names = tuple(names)
        self.aliases = dict(aliases or {})

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading its values."""

    @abstractmethod
    def dtype(self, name: str) -> torch.dtype:
        """Dtype of a tensor, without reading its values."""

    @abstractmethod
    def tensor(self, name: str) -> Tensor:
        """Values of a tensor in its own dtype, detached."""

    def parts(self, name: str) -> AbstractContextManager[PartReader]:
        """Open a tensor to be read in parts, `start` to `stop` of its flattened values.

        Files are read part by part. Anything else is held whole while it is open: what is in memory is there
        anyway, and an update B A is computed as one product.

        Args:
            name: The tensor.

        Returns:
            A context with the reader, which takes `start`, `stop` and a buffer of bytes that the part fits in;
            threads may share the reader, each with a buffer of its own.

        Example:
            >>> with open_checkpoint({"w": torch.arange(6.0).view(2, 3)}).parts("w") as read:
            ...     read(2, 4, torch.empty(8, dtype=torch.uint8))
            tensor([2., 3.])
        """
        return _hold(self.tensor(name))


class MemoryCheckpoint(Checkpoint):
    """Tensors held in memory; those that share their storage exactly count once.

    Args:
        tensors: Parameters by name, as from `dict(model.named_parameters())`.
        label: How messages name this model.

    Raises:
        CheckpointError: An entry is not a named tensor with values, or there is none.
    """

    def __init__(self, tensors: Mapping[str, Tensor], label: str = "parameters") -> None:
        _check_mapping(tensors, label)
        first: dict[tuple[Any, ...], str] = {}
        kept = {name: first.setdefault(_storage(tensor, name), name) for name, tensor in tensors.items()}
        names = (name for name, keeper in kept.items() if name == keeper)
        super().__init__(label, names, {name: keeper for name, keeper in kept.items() if name != keeper})
        self._tensors = {name: tensors[name].detach() for name in self.names}

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        """Dtype of a tensor."""
        return self._tensors[name].dtype

    def tensor(self, name: str) -> Tensor:
        """Values of a tensor, sharing memory with the mapping's."""
        return self._tensors[name]


class FileCheckpoint(Checkpoint):
    """Tensors of one or more safetensors files; opening reads their headers only.

    Args:
        label: How messages name this model.
        files: The shards.

    Raises:
        CheckpointError: A file cannot be read, or there is no tensor in any of them.
    """

    def __init__(self, label: str, files: Iterable[Path]) -> None:
        self._headers = {file: read_header(file) for file in files}
        self._file = {name: file for file, header in self._headers.items() for name in header}
        if not self._file:
            refuse(label, "at least one tensor", "an empty checkpoint", "Save the model again.")
        super().__init__(label, self._file)

    def names_in(self, file: Path) -> set[str]:
        """Names of the tensors that one shard holds."""
        return set(self._headers[file])

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, from the header."""
        return self._entry(name).shape

    def dtype(self, name: str) -> torch.dtype:
        """Dtype of a tensor, from the header."""
        return self._entry(name).dtype

    def tensor(self, name: str) -> Tensor:
        """Values of a tensor, read now."""
        return read_tensor(self._file[name], name)

    def parts(self, name: str) -> AbstractContextManager[PartReader]:
        """Open a tensor to be read in parts, each from the file when it is asked for."""
        if not hasattr(os, "preadv"):  # Windows
            return super().parts(name)
        return open_parts(self._file[name], name, self._entry(name))

    def _entry(self, name: str) -> Entry:
        """What its file's header says about a tensor."""
        return self._headers[self._file[name]][name]


def open_checkpoint(source: Source, label: str | None = None) -> Checkpoint:
    """Open a model or parameters in memory, a safetensors file, an index or a folder, reading no values yet.

    Args:
        source: A mapping of tensors; a module without adapters of its own; a `.safetensors` file; an index
            (`*.safetensors.index.json`); a folder with exactly one of the two, as `save_pretrained` of transformers
            and diffusers writes it.
        label: How messages name the model; by default the path.

    Returns:
        The checkpoint.

    Raises:
        CheckpointError: The source is missing, pickled, corrupt, ambiguous, empty, or an adapter alone.

    Example:
        >>> weight = torch.ones(2, 3)
        >>> checkpoint = open_checkpoint({"embed": weight, "head": weight, "bias": torch.zeros(2)})
        >>> checkpoint.names, checkpoint.aliases
        (('embed', 'bias'), {'head': 'embed'})
    """
    if isinstance(source, Mapping):
        return MemoryCheckpoint(source, label or "parameters")
    if isinstance(source, nn.Module):
        where = label or type(source).__name__
        return MemoryCheckpoint(untouched_parameters(source, where), where)
    if not isinstance(source, str | Path):
        found = type(source).__name__
        refuse(label or "checkpoint", "a module, a mapping of tensors or a path", found, "Pass one of these.")
    path = user_path(source)
    if is_adapter(path) or path.name == ADAPTER_WEIGHTS:
        remedy = "Open it as an expert beside its base: open_expert(base, folder)."
        refuse(path, "the weights of a whole model", "a PEFT adapter, which needs its base", remedy)
    return _open_path(path, label or str(source))


def load_parameters(source: Source) -> dict[str, Tensor]:
    """Read every tensor of a source into memory, tied tensors once.

    Args:
        source: Anything that `open_checkpoint` accepts.

    Returns:
        Detached tensors by name, in their stored dtypes.

    Example:
        >>> load_parameters({"w": torch.tensor([1.0, 2.0], requires_grad=True)})
        {'w': tensor([1., 2.])}
    """
    checkpoint = open_checkpoint(source)
    return {name: checkpoint.tensor(name) for name in checkpoint.names}


def is_adapter(source: Source) -> bool:
    """Say whether a source is a PEFT adapter: a folder with one in it, or a model in memory.

    Args:
        source: Anything that may be a checkpoint.

    Returns:
        True for a folder that holds `adapter_config.json`, and for a model that PEFT put layers into.

    Raises:
        CheckpointError: The folder holds an adapter and a whole model, so that either could be meant.
    """
    if isinstance(source, LiveAdapter) or has_adapters(source):
        return True
    if not isinstance(source, str | Path) or not (user_path(source) / ADAPTER_CONFIG).is_file():
        return False
    folder = user_path(source)
    whole = _weight_files(folder)
    if whole:
        remedy = f"Pass {whole[0]} to mean the whole model, or move the adapter to a folder of its own."
        refuse(folder, "an adapter or a whole model", f"both ({ADAPTER_CONFIG} and {whole[0].name})", remedy)
    return True


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file whose top level is an object.

    Args:
        path: The file.

    Returns:
        The object.

    Raises:
        CheckpointError: The file is not JSON, or not an object.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        refuse(path, "valid JSON", _reason(error), AGAIN)
    if not isinstance(content, dict):
        refuse(path, "a JSON object", type(content).__name__, AGAIN)
    return content


@contextmanager
def _hold(tensor: Tensor) -> Iterator[PartReader]:
    """A reader of parts of a tensor that is in memory."""
    flat = tensor.detach().reshape(-1)
    yield lambda start, stop, buffer: flat[start:stop].cpu()


def _check_mapping(tensors: Mapping[str, Tensor], label: str) -> None:
    """Refuse a mapping that is empty or holds anything but named, strided tensors with values."""
    if not tensors:
        refuse(label, "at least one tensor", "an empty mapping", "Pass dict(model.named_parameters()).")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            found = f"{type(name).__name__} {name!r}: {type(tensor).__name__}"
            refuse(label, "names and tensors", found, "Pass dict(model.named_parameters()).")
        if is_part(tensor):
            remedy = "Pass the folder, or whole tensors (value.full_tensor()), to compare or merge models."
            refuse(f"{label}: {name}", "a tensor that this process holds whole", "one held in parts (DTensor)", remedy)
        if tensor.is_meta or tensor.layout is not torch.strided:
            found = "a meta tensor, without values" if tensor.is_meta else f"layout {tensor.layout}"
            refuse(f"{label}: {name}", "a dense tensor", found, "Load the weights, dense, first.")


def _storage(tensor: Tensor, name: str) -> tuple[Any, ...]:
    """What tied tensors have in common; an empty one has no memory to share, so its name stands for it."""
    if tensor.numel() == 0:
        return (name,)
    address = (tensor.device, tensor.untyped_storage().data_ptr(), tensor.storage_offset())
    return (*address, tensor.shape, tensor.stride(), tensor.dtype)


def _open_path(path: Path, label: str) -> FileCheckpoint:
    """Open a file, an index or a folder."""
    if not path.exists():
        remedy = "Check the spelling; a model on a hub has to be downloaded first."
        refuse(path, "a safetensors file or a model folder", "nothing there", remedy)
    if path.is_dir():
        path = _find_weights(path)
    if path.suffix == ".json":
        return _open_index(path, label)
    if path.suffix in _PICKLED:
        refuse(path, "a safetensors file", f"a pickled file ({path.suffix})", CONVERT)
    return FileCheckpoint(label, [path])


def _weight_files(folder: Path) -> list[Path]:
    """Files to read a whole model from: indexes and model.safetensors if any, or else all shards."""
    files = sorted(file for file in folder.iterdir() if file.name.endswith((".safetensors", _INDEX)))
    named = [file for file in files if file.name.endswith(_INDEX) or file.name == "model.safetensors"]
    return named or [file for file in files if file.name != ADAPTER_WEIGHTS]


def _find_weights(folder: Path) -> Path:
    """The one file of a folder to read the model from."""
    found = _weight_files(folder)
    if len(found) != 1:
        _refuse_choice(folder, found)
    return found[0]


def _refuse_choice(folder: Path, found: list[Path]) -> NoReturn:
    """Refuse a folder that holds none or several to read, and say what it does hold."""
    if found:
        names = ", ".join(file.name for file in found)
        remedy = f"Pass the file that you mean; shards need their index (model{_INDEX})."
        refuse(folder, "one safetensors file or one index", f"{len(found)} candidates: {names}", remedy)
    expected = f"model.safetensors or model{_INDEX}"
    pickled = [file.name for file in sorted(folder.iterdir()) if file.suffix in _PICKLED]
    if pickled:
        refuse(folder, expected, f"pickled files only ({', '.join(pickled)})", CONVERT)
    gguf = [file.name for file in sorted(folder.glob("*.gguf"))]
    if gguf:
        refuse(folder, expected, f"GGUF files ({', '.join(gguf)})", FROM_GGUF)
    refuse(folder, expected, "no weights of a whole model", "Pass the folder that save_pretrained wrote.")


def _open_index(index: Path, label: str) -> FileCheckpoint:
    """Open the shards that an index names and check the two against each other, both ways."""
    expected: dict[Path, set[str]] = {}
    for name, shard in _read_weight_map(index).items():
        expected.setdefault(_shard_path(index, shard), set()).add(name)
    checkpoint = FileCheckpoint(label, expected)
    for file, names in expected.items():
        lost, extra = names - checkpoint.names_in(file), checkpoint.names_in(file) - names
        if lost or extra:
            found = f"missing from the shard: {_some(lost)}; not in the index: {_some(extra)}"
            remedy = f"Index and shards come from different saves. {AGAIN}"
            refuse(f"{index}: shard {file.name}", "the tensors that the index names", found, remedy)
    return checkpoint


def _read_weight_map(index: Path) -> dict[str, str]:
    """The index's map from tensor to shard."""
    weight_map = read_json(index).get("weight_map")
    valid = isinstance(weight_map, dict) and all(isinstance(shard, str) for shard in weight_map.values())
    if not valid or not weight_map:
        refuse(index, 'a "weight_map" from tensor names to file names', "none that is usable", AGAIN)
    return weight_map


def _shard_path(index: Path, shard: str) -> Path:
    """The path of a shard, which must stay in the index's folder: an index may come from anyone."""
    path, home = index.parent / shard, index.parent.resolve()
    # The hub's cache keeps `snapshots/REVISION/file` as a link to `blobs/HASH` of the same model.
    homes = [home, home.parents[1] / "blobs"] if home.parent.name == "snapshots" else [home]
    try:
        inside, there = any(path.resolve().is_relative_to(place) for place in homes), path.is_file()
    except (OSError, ValueError) as error:
        refuse(index, "a file name for every tensor", f"{shard[:80]!r} ({_reason(error)})", AGAIN)
    if not inside:
        remedy = "Put the shards beside their index and use plain file names."
        refuse(index, "shards inside the index's folder", f"{shard!r}, which leads outside", remedy)
    if not there:
        refuse(index, f"the shard {shard!r}", "no such file", AGAIN)
    return path


def _reason(error: Exception) -> str:
    """What is wrong with a file, in a line."""
    return getattr(error, "strerror", None) or str(error)


def _some(names: set[str]) -> str:
    """A few names, and how many more."""
    shown = sorted(names)[:5]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + more if names else "none"
