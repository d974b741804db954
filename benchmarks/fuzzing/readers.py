"""The readers that are tried, each with the files that it is given and what must hold of whatever it accepts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from benchmarks.fuzzing.mutate import break_bytes, break_json, break_lines, break_safetensors, break_toml, break_yaml
from benchmarks.fuzzing.samples import (
    AUDIT,
    DECOY,
    LINEAR,
    PAIRS,
    RECIPE,
    RUN,
    RUN_LISTS,
    RUN_TOML,
    TEMPLATE,
    TEXTS,
    tensor_file,
    text_files,
    write_adapter,
    write_bases,
    write_data,
    write_file,
    write_shards,
    write_tokenizer,
)
from diagnostics import load_bases
from diagnostics.errors import InputError
from diagnostics.inputs.adapters import open_expert
from diagnostics.inputs.audit_config import load_audit_config
from diagnostics.inputs.checkpoints import Checkpoint, open_checkpoint
from diagnostics.inputs.config import load_config
from diagnostics.inputs.examples import read_pairs, read_tensors, read_texts
from diagnostics.inputs.layout import Layout
from diagnostics.inputs.recipe_config import recipe_config
from diagnostics.inputs.tokenizer_files import read_tokenizer

__all__ = ["READERS", "Reader"]

Breaker = Callable[[Random, bytes, list[bytes]], bytes]


@dataclass(frozen=True)
class Reader:
    """A reader of files.

    Attributes:
        write: Writes valid files into a folder; whatever lies beside that folder must not be read.
        broken: Which of the files are broken and how, each time one of them.
        read: Reads the folder and checks whatever was accepted.
        others: Further valid contents, to begin with or to splice in.
    """

    write: Callable[[Path], None]
    broken: Mapping[str, Breaker]
    read: Callable[[Path], None]
    others: tuple[bytes, ...] = ()


def _read_run(path: Path) -> None:
    """A run's configuration: numbers are finite, and what it says is a configuration again."""
    config = load_config(path)
    _same_again(config)
    assert 0 <= config.tolerance < 1 and config.seed >= 0, config
    _finite_numbers(config.settings)
    for use in (config.models, config.unseen):
        _allowed(use)
    _finite_numbers(_allowed(config.merge) or {})


def _read_audit(path: Path) -> None:
    """An audit's configuration, and the data that it names."""
    config = load_audit_config(path)
    _same_again(config)
    assert config.components and (config.limit is None or 0 < config.limit < math.inf), config
    found = _allowed(config.data)
    if found is not None:
        alphas = found.keywords["alphas"]
        assert alphas in ("best", "nonnegative") or len(alphas) == len(config.components), alphas
        _finite_numbers(alphas)


def _read_recipe(folder: Path) -> None:
    """A recipe with data for its experts, as a configuration."""
    path = folder / "recipe.yaml"
    config, notes = recipe_config(path, dict.fromkeys(("news", "mail"), folder / "a.jsonl"))
    assert all(isinstance(note, str) for note in notes)
    assert set(config.experts) == set(config.merge()) and config.method, config
    _finite_numbers(config.settings)
    _finite_numbers(config.merge())


def _same_again(config: Any) -> None:
    """What a configuration says, said again, is the same."""
    said = config.model_dump(exclude_unset=True)
    assert type(config).model_validate(said).model_dump(exclude_unset=True) == said, said


def _finite_numbers(value: Any) -> None:
    """No number in what was accepted is infinite or NaN."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    for item in items:
        _finite_numbers(item)
    assert not isinstance(value, float) or math.isfinite(value), value


def _allowed(use: Callable[[], Any]) -> Any:
    """What a use of an accepted configuration gives; it may still be refused there."""
    try:
        return use()
    except InputError:
        return None


def _library(path: Path) -> dict[str, Tensor] | None:
    """What the safetensors library reads of a file, if it does."""
    try:
        with safe_open(path, framework="pt") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        return None


def _equal(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors are the same to the bit."""
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    return first.numel() == 0 or torch.equal(
        *(each.contiguous().reshape(-1).view(torch.uint8) for each in (first, second))
    )


def _agrees(found: Checkpoint, expected: Mapping[str, Tensor]) -> None:
    """A checkpoint says what the library says, whole and in parts."""
    assert set(found.names) == set(expected), (found.names, list(expected))
    for name, value in expected.items():
        assert _equal(found.tensor(name), value), name
        assert (found.shape(name), found.dtype(name)) == (tuple(value.shape), value.dtype), name
        _in_parts(found, name, value)


def _in_parts(found: Checkpoint, name: str, value: Tensor) -> None:
    """A tensor read in parts is the tensor."""
    buffer = torch.empty(3 * 8, dtype=torch.uint8)
    with found.parts(name) as read:
        parts = [
            read(start, min(start + 3, value.numel()), buffer).view(torch.uint8).clone()
            for start in range(0, value.numel(), 3)
        ]
    assert not parts or _equal(torch.cat(parts).view(value.dtype), value.reshape(-1)), name


def _read_file(folder: Path) -> None:
    """A file of tensors: accepted only where the library accepts it, and then the same."""
    path = folder / "model.safetensors"
    expected = _library(path)
    try:
        found = open_checkpoint(path)
    except InputError as error:
        known = ("a dtype among", "at least one tensor")
        assert expected is None or any(reason in str(error) for reason in known), f"the library reads it; {error}"
        raise
    assert expected is not None, "the library refuses it"
    _agrees(found, expected)


def _read_shards(folder: Path) -> None:
    """An index: what it names, from shards in its folder."""
    found = open_checkpoint(folder)
    weight_map = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))["weight_map"]
    expected = {name: (_library(folder / shard) or {})[name] for name, shard in weight_map.items()}
    assert all((folder / shard).resolve().parent == folder.resolve() for shard in weight_map.values()), weight_map
    _agrees(found, expected)
    _no_decoy(expected)


def _no_decoy(found: Mapping[str, Tensor]) -> None:
    """Nothing was read from beside the folder."""
    for value in found.values():
        if value.dtype in (torch.float32, torch.float64, torch.bfloat16, torch.int64):
            assert not (value == value.new_tensor(DECOY)).any(), "read from outside"


def _read_adapter(folder: Path) -> None:
    """An adapter: every weight of the base is there in its shape, with values read."""
    base = open_checkpoint(folder / "base.safetensors")
    found = open_expert(base, folder / "adapter")
    assert set(base.names) <= set(found.names)
    for name in found.names:
        value = found.tensor(name)
        assert (value.shape, value.dtype) == (torch.Size(found.shape(name)), found.dtype(name)), name
        assert name not in base.names or name in found.saved or base.shape(name) == tuple(value.shape), name
    _no_decoy({name: found.tensor(name) for name in found.names})


def _read_texts(folder: Path) -> None:
    """Texts with labels: one for each line that is not blank."""
    path = folder / "data.jsonl"
    found = read_texts(path)
    lines = [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    assert len(found.texts) == len(lines) and all(text.strip() for text in found.texts)
    assert found.labels is None or len(found.labels) == len(lines)


def _read_pairs(folder: Path) -> None:
    """Pairs: one for each line that is not blank."""
    path = folder / "data.jsonl"
    found = read_pairs(path)
    assert len(found) == sum(bool(line.strip()) for line in path.read_text(encoding="utf-8-sig").split("\n"))
    assert all(isinstance(x, str) and y.strip() for x, y in found)


def _read_data(folder: Path) -> None:
    """Inputs and targets: as many of each, all finite."""
    inputs, targets = read_tensors(folder / "data.safetensors")
    for value in inputs.values() if isinstance(inputs, dict) else (inputs,):
        assert len(value) == len(targets) > 0


def _read_bases(folder: Path) -> None:
    """Bases: each from its own file in the folder."""
    found = load_bases(folder, {"net.proj.weight": torch.zeros(4, 3)})
    assert len(found.vectors) == len(found.clusters) and str(found)
    assert found.add()
    for vector in found.vectors.values():
        _no_decoy(vector)


def _read_tokenizer(folder: Path) -> None:
    """Tokenizer files: rows of tokens and rules, or nothing."""
    found = read_tokenizer(folder)
    if found is not None:
        assert all(isinstance(token, str) and isinstance(row, int) for token, row in found.tokens.items())
        assert all(isinstance(text, str) for text in (*found.rules, *found.special.values()))


def _read_layout(folder: Path) -> None:
    """A chat template: the user's message once and unchanged."""
    from tests.inputs.tiny_models import word_tokenizer

    words = word_tokenizer(["<s>", "a"])
    words.chat_template = (folder / "template").read_bytes().decode(errors="replace")
    layout = Layout.from_chat_template(words, system="b")
    assert layout.between == "" and "instructionmark" not in layout.head + layout.tail


READERS: dict[str, Reader] = {
    "configuration, YAML": Reader(
        text_files(**{"run.yaml": RUN}),
        {"run.yaml": break_yaml},
        lambda folder: _read_run(folder / "run.yaml"),
        (RUN_LISTS, AUDIT, RECIPE),
    ),
    "configuration, TOML": Reader(
        text_files(**{"run.toml": RUN_TOML}), {"run.toml": break_toml}, lambda folder: _read_run(folder / "run.toml")
    ),
    "audit": Reader(
        text_files(**{"audit.yaml": AUDIT}),
        {"audit.yaml": break_yaml, "a.jsonl": break_lines},
        lambda folder: _read_audit(folder / "audit.yaml"),
        (RUN,),
    ),
    "mergekit recipe": Reader(
        text_files(**{"recipe.yaml": RECIPE}),
        {"recipe.yaml": break_yaml, "base/config.json": break_json},
        _read_recipe,
        (LINEAR, RUN),
    ),
    "safetensors": Reader(write_file, {"model.safetensors": break_safetensors}, _read_file, (tensor_file(1),)),
    "index and shards": Reader(
        write_shards,
        {"model.safetensors.index.json": break_json, "one.safetensors": break_safetensors},
        _read_shards,
        (tensor_file(1),),
    ),
    "adapter": Reader(
        write_adapter,
        {"adapter/adapter_config.json": break_json, "adapter/adapter_model.safetensors": break_safetensors},
        _read_adapter,
    ),
    "bases": Reader(write_bases, {"bases.json": break_json, "basis-1.safetensors": break_safetensors}, _read_bases),
    "texts": Reader(text_files(**{"data.jsonl": TEXTS}), {"data.jsonl": break_lines}, _read_texts, (PAIRS,)),
    "pairs": Reader(text_files(**{"data.jsonl": PAIRS}), {"data.jsonl": break_lines}, _read_pairs, (TEXTS,)),
    "tensors of data": Reader(write_data, {"data.safetensors": break_safetensors}, _read_data, (tensor_file(1),)),
    "tokenizer files": Reader(
        write_tokenizer, {"tokenizer.json": break_json, "tokenizer_config.json": break_json}, _read_tokenizer
    ),
    "chat template": Reader(
        lambda folder: (folder / "template").write_bytes(TEMPLATE), {"template": break_bytes}, _read_layout
    ),
}
