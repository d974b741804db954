"""Checkpoints: the only place that reads weights from disk, one tensor at a time, never unpickling.

A folder can hold weights in several ways, and picking one silently could diagnose another model than the one
meant: every choice that a folder leaves open is refused, with the candidates named.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from diagnostics.errors import CheckpointError

Source: TypeAlias = Mapping[str, Tensor] | str | Path

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

_INDEX = ".safetensors.index.json"
_PICKLED = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
_CONVERT = (
    "Opening a pickle can run code, so none is read here: where you trust it, load it with transformers and "
    "call model.save_pretrained(folder, safe_serialization=True), or use safetensors.torch.save_file."
)
_FROM_GGUF = "GGUF weights are quantised for inference: pass the safetensors model that they were made from."
_AGAIN = "Download or save the model again."
_DTYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "C64": torch.complex64},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "BOOL": torch.bool},
    **{"U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8},
}


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
        self._headers = {file: _read_header(file) for file in files}
        self._file = {name: file for file, header in self._headers.items() for name in header}
        if not self._file:
            refuse(label, "at least one tensor", "an empty checkpoint", "Save the model again.")
        super().__init__(label, self._file)

    def names_in(self, file: Path) -> set[str]:
        """Names of the tensors that one shard holds."""
        return set(self._headers[file])

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, from the header."""
        return self._headers[self._file[name]][name][0]

    def dtype(self, name: str) -> torch.dtype:
        """Dtype of a tensor, from the header."""
        return self._headers[self._file[name]][name][1]

    def tensor(self, name: str) -> Tensor:
        """Values of a tensor, read now."""
        # A handle kept open keeps every page that was ever read through it in this process's memory.
        with _open_file(self._file[name]) as handle:
            return handle.get_tensor(name)


def open_checkpoint(source: Source, label: str | None = None) -> Checkpoint:
    """Open parameters in memory, a safetensors file, an index or a folder, reading no values yet.

    Args:
        source: A mapping of tensors; a `.safetensors` file; an index (`*.safetensors.index.json`); a folder
            with exactly one of the two, as `save_pretrained` of transformers and diffusers writes it.
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
    if not isinstance(source, str | Path):
        found = type(source).__name__
        remedy = "For a module, pass dict(module.named_parameters())."
        refuse(label or "checkpoint", "a mapping of tensors or a path", found, remedy)
    path = Path(source).expanduser()
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
    """Say whether a source is a folder with a PEFT adapter in it.

    Args:
        source: Anything that may be a checkpoint.

    Returns:
        True for a folder that holds `adapter_config.json`.

    Raises:
        CheckpointError: The folder holds an adapter and a whole model, so that either could be meant.
    """
    if not isinstance(source, str | Path) or not (Path(source).expanduser() / ADAPTER_CONFIG).is_file():
        return False
    folder = Path(source).expanduser()
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
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        refuse(path, "valid JSON", str(error), _AGAIN)
    if not isinstance(content, dict):
        refuse(path, "a JSON object", type(content).__name__, _AGAIN)
    return content


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


def _check_mapping(tensors: Mapping[str, Tensor], label: str) -> None:
    """Refuse a mapping that is empty or holds anything but named, strided tensors with values."""
    if not tensors:
        refuse(label, "at least one tensor", "an empty mapping", "Pass dict(model.named_parameters()).")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            found = f"{type(name).__name__} {name!r}: {type(tensor).__name__}"
            refuse(label, "names and tensors", found, "Pass dict(model.named_parameters()).")
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
        refuse(path, "a safetensors file", f"a pickled file ({path.suffix})", _CONVERT)
    return FileCheckpoint(label, [path])


def _weight_files(folder: Path) -> list[Path]:
    """Files to read a whole model from: indexes and model.safetensors if any, or else all shards."""
    files = sorted(file for file in folder.iterdir() if file.name.endswith((".safetensors", _INDEX)))
    named = [file for file in files if file.name.endswith(_INDEX) or file.name == "model.safetensors"]
    return named or [file for file in files if file.name != ADAPTER_WEIGHTS]


def _find_weights(folder: Path) -> Path:
    """The one file of a folder to read the model from."""
    found = _weight_files(folder)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(file.name for file in found)
        remedy = f"Pass the file that you mean; shards need their index (model{_INDEX})."
        refuse(folder, "one safetensors file or one index", f"{len(found)} candidates: {names}", remedy)
    expected = f"model.safetensors or model{_INDEX}"
    pickled = [file.name for file in sorted(folder.iterdir()) if file.suffix in _PICKLED]
    if pickled:
        refuse(folder, expected, f"pickled files only ({', '.join(pickled)})", _CONVERT)
    gguf = [file.name for file in sorted(folder.glob("*.gguf"))]
    if gguf:
        refuse(folder, expected, f"GGUF files ({', '.join(gguf)})", _FROM_GGUF)
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
            remedy = f"Index and shards come from different saves. {_AGAIN}"
            refuse(f"{index}: shard {file.name}", "the tensors that the index names", found, remedy)
    return checkpoint


def _read_weight_map(index: Path) -> dict[str, str]:
    """The index's map from tensor to shard."""
    weight_map = read_json(index).get("weight_map")
    valid = isinstance(weight_map, dict) and all(isinstance(shard, str) for shard in weight_map.values())
    if not valid or not weight_map:
        refuse(index, 'a "weight_map" from tensor names to file names', "none that is usable", _AGAIN)
    return weight_map


def _shard_path(index: Path, shard: str) -> Path:
    """The path of a shard, which must stay in the index's folder: an index may come from anyone."""
    path, home = index.parent / shard, index.parent.resolve()
    # The hub's cache keeps `snapshots/REVISION/file` as a link to `blobs/HASH` of the same model.
    homes = [home, home.parents[1] / "blobs"] if home.parent.name == "snapshots" else [home]
    if not any(path.resolve().is_relative_to(place) for place in homes):
        remedy = "Put the shards beside their index and use plain file names."
        refuse(index, "shards inside the index's folder", f"{shard!r}, which leads outside", remedy)
    if not path.is_file():
        refuse(index, f"the shard {shard!r}", "no such file", _AGAIN)
    return path


def _some(names: set[str]) -> str:
    """A few names, and how many more."""
    shown = sorted(names)[:5]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + more if names else "none"


@contextmanager
def _open_file(path: Path) -> Iterator[Any]:
    """Open a safetensors file, or say what it really is where it cannot be read as one."""
    try:
        with safe_open(path, framework="pt") as handle:
            yield handle
    except (SafetensorError, OSError) as error:
        found, remedy = _diagnose(path, str(error))
        refuse(path, "a complete safetensors file", found, remedy)


def _read_header(path: Path) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of every tensor of a file, refused now where torch has no such dtype."""
    with _open_file(path) as handle:
        slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118
    for name, entry in slices.items():
        if entry.get_dtype() not in _DTYPES:
            remedy = "Save it again in one of these."
            refuse(f"{path}: {name}", f"a dtype among {', '.join(_DTYPES)}", entry.get_dtype(), remedy)
    return {name: (tuple(entry.get_shape()), _DTYPES[entry.get_dtype()]) for name, entry in slices.items()}


def _diagnose(path: Path, reason: str) -> tuple[str, str]:
    """What an unreadable file is, and what to do, from its first bytes."""
    if not path.is_file():
        return reason, "Pass a safetensors file."
    with path.open("rb") as file:
        start = file.read(24)
    if start.startswith(b"GGUF"):
        return "a GGUF file", _FROM_GGUF
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the weights", "Run `git lfs pull` in its folder."
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return "a pickled file under another name", _CONVERT
    found = f"{path.stat().st_size} bytes that are truncated or corrupt ({reason})"
    return found, _AGAIN
