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
from safetensors.torch import save, save_file
from torch import Tensor

from benchmarks.fuzzing.mutate import break_bytes, break_json, break_lines, break_safetensors, break_toml, break_yaml
from diagnostics import load_bases, task_vector_bases
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

# Every tensor of every file is made of small whole numbers; the decoy beside the folder is made of these.
_DECOY = 666.0


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


_RUN = b"""base: models/base
experts: {news: models/news, mail: models/mail}
data:
  news: news.jsonl
  mail: mail.jsonl
kind: sequence-classification
coefficients: {news: 0.5, mail: 1e-1}
private: ['classifier.*']
method: ties
options: {density: 0.5, convention: mergekit, normalize: true, seed: 3}
tolerance: 0.1
batch_size: 64
columns: {text: review, label: stars}
instructions: {news: 'Summarise: '}
seed: 0
target: news
"""
_RUN_LISTS = b"base: base\nexperts: {a: a}\ncoefficients: [0.5]\noptions: {density: {a: 1}, scale: 2, rescale: false}\n"
_RUN_TOML = b"""base = "models/base"
coefficients = [0.5, 0.3]
tolerance = 0.1
private = ["a.*"]
[experts]
news = "models/news"
mail = "models/mail"
[options]
density = { news = 0.5, mail = 1 }
"""
_AUDIT = b"""model: models/base
components:
  summarise: {instruction: 'Summarise: ', data: a.jsonl}
  translate: {instruction: 'In German: ', data: b.jsonl}
target: {data: a.jsonl}
alphas: {summarise: 1, translate: 0.5}
parameters: ['*.self_attn.*']
limit: 0.7
folds: 4
examples: 1
columns: {x: x, y: y}
bos: auto
"""
_RECIPE = b"""merge_method: ties
base_model: base
models:
  - model: base
  - model: news
    parameters: {weight: 0.5, density: 0.5}
  - model: base+mail
    parameters: {weight: 0.3, density: 1}
parameters: {normalize: true, lambda: 1.0, int8_mask: true}
dtype: float32
tokenizer_source: base
"""
_LINEAR = (
    b"merge_method: linear\nbase_model: base\nmodels: [{model: news, parameters: {weight: 1}}]\nout_dtype: bfloat16\n"
)
_TEXTS = b'{"text": "a good film", "label": 1}\n\n{"text": "\\u8981\\u7d04", "label": 0, "z": [1, {"a": null}]}\n'
_PAIRS = b'{"x": "2 + 2 =", "y": " 4"}\n{"x": "", "y": "none"}\n'
_TEMPLATE = (
    b"{% for message in messages %}{% if message['role'] == 'system' %}{{ '<s>' + message.content }}{% endif %}"
    b"{{ '<|' + message['role'] + '|>\\n' + message['content'] | trim + '</s>' }}{% endfor %}"
    b"{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def tensors(seed: int = 0) -> dict[str, Tensor]:
    """A small model of several dtypes."""
    draw = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> Tensor:
        return torch.randint(-9, 9, shape, generator=draw)

    return {
        **{"net.proj.weight": some(4, 3).float(), "net.head.weight": some(4, 4).float()},
        **{"net.emb.weight": some(5, 3).bfloat16(), "net.steps": some(2).long(), "net.norm.bias": some(4).double()},
    }


def _decoy(folder: Path) -> None:
    """A model beside the folder, under names that broken paths lead to."""
    outside = folder.parent / "outside"
    outside.mkdir(exist_ok=True)
    model = {name: torch.full_like(value, _DECOY) for name, value in tensors().items()}
    for path in (outside.with_suffix(".safetensors"), outside / "model.safetensors"):
        save_file(model, path)


def _text_files(**contents: bytes) -> Callable[[Path], None]:
    """Writes files, and the folders and data that configurations name."""

    def write(folder: Path) -> None:
        for name in ("models/base", "models/news", "models/mail", "base", "news", "mail"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "base" / "config.json").write_text('{"architectures": ["BertForSequenceClassification"]}')
        for name, content in {"a.jsonl": _PAIRS, "b.jsonl": _PAIRS, **contents}.items():
            (folder / name).write_bytes(content)

    return write


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


def _write_file(folder: Path) -> None:
    save_file(tensors(), folder / "model.safetensors", {"format": "pt"})


def _write_shards(folder: Path) -> None:
    """Two shards and their index, with a decoy outside."""
    _decoy(folder)
    shards = {"one.safetensors": {}, "two.safetensors": {}}
    names = list(shards)
    weight_map = {name: names[number % 2] for number, name in enumerate(tensors())}
    for name, value in tensors().items():
        shards[weight_map[name]][name] = value
    for name, content in shards.items():
        save_file(content, folder / name)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


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
            assert not (value == value.new_tensor(_DECOY)).any(), "read from outside"


_ADAPTER = {
    **{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["proj", "head", "emb"], "use_rslora": False},
    **{"rank_pattern": {"proj": 1}, "alpha_pattern": {"^net.head": 3}, "modules_to_save": ["norm"], "bias": "none"},
    **{"fan_in_fan_out": False, "init_lora_weights": True, "task_type": None, "layer_replication": None},
}


def _write_adapter(folder: Path) -> None:
    """An adapter of two layers, an embedding and a saved module, in a folder beside its base."""
    _decoy(folder)
    save_file(tensors(), folder / "base.safetensors")
    home = folder / "adapter"
    home.mkdir()
    (home / "adapter_config.json").write_text(json.dumps(_ADAPTER))
    start = "base_model.model.net."
    factors = {
        **{f"{start}proj.lora_A.weight": torch.ones(1, 3), f"{start}proj.lora_B.weight": torch.ones(4, 1)},
        **{f"{start}head.lora_A.weight": torch.ones(2, 4), f"{start}head.lora_B.weight": torch.ones(4, 2)},
        **{f"{start}emb.lora_embedding_A": torch.ones(2, 5), f"{start}emb.lora_embedding_B": torch.ones(3, 2)},
        f"{start}norm.bias": torch.ones(4).double(),
    }
    save_file(factors, home / "adapter_model.safetensors")


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


def _write_data(folder: Path) -> None:
    save_file({"inputs": torch.ones(4, 3), "targets": torch.tensor([0, 1, 0, 1])}, folder / "data.safetensors")


def _write_bases(folder: Path) -> None:
    """Two bases, their index, and a decoy outside."""
    _decoy(folder)
    base = {"net.proj.weight": torch.zeros(4, 3)}
    experts = {
        name: {"net.proj.weight": torch.full((4, 3), value)}
        for name, value in zip("abc", (1.0, 2.0, -3.0), strict=True)
    }
    task_vector_bases(base, experts, k=2, resamples=1).save(folder)


def _read_bases(folder: Path) -> None:
    """Bases: each from its own file in the folder."""
    found = load_bases(folder, {"net.proj.weight": torch.zeros(4, 3)})
    assert len(found.vectors) == len(found.clusters) and str(found)
    assert found.add()
    for vector in found.vectors.values():
        _no_decoy(vector)


_TOKENIZER = {
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b", ["a", "b"]]},
    "added_tokens": [{"id": 3, "content": "<s>", "special": True}],
    "normalizer": None,
    "pre_tokenizer": {"type": "Whitespace"},
}
_SETTINGS = {
    "bos_token": "<s>",
    "eos_token": {"content": "</s>"},
    "add_bos_token": True,
    "chat_template": "{{ messages }}",
}


def _write_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text(json.dumps(_TOKENIZER))
    (folder / "tokenizer_config.json").write_text(json.dumps(_SETTINGS))


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


def _tensor_file(seed: int) -> bytes:
    return save(tensors(seed))


READERS: dict[str, Reader] = {
    "configuration, YAML": Reader(
        _text_files(**{"run.yaml": _RUN}),
        {"run.yaml": break_yaml},
        lambda folder: _read_run(folder / "run.yaml"),
        (_RUN_LISTS, _AUDIT, _RECIPE),
    ),
    "configuration, TOML": Reader(
        _text_files(**{"run.toml": _RUN_TOML}), {"run.toml": break_toml}, lambda folder: _read_run(folder / "run.toml")
    ),
    "audit": Reader(
        _text_files(**{"audit.yaml": _AUDIT}),
        {"audit.yaml": break_yaml, "a.jsonl": break_lines},
        lambda folder: _read_audit(folder / "audit.yaml"),
        (_RUN,),
    ),
    "mergekit recipe": Reader(
        _text_files(**{"recipe.yaml": _RECIPE}),
        {"recipe.yaml": break_yaml, "base/config.json": break_json},
        _read_recipe,
        (_LINEAR, _RUN),
    ),
    "safetensors": Reader(_write_file, {"model.safetensors": break_safetensors}, _read_file, (_tensor_file(1),)),
    "index and shards": Reader(
        _write_shards,
        {"model.safetensors.index.json": break_json, "one.safetensors": break_safetensors},
        _read_shards,
        (_tensor_file(1),),
    ),
    "adapter": Reader(
        _write_adapter,
        {"adapter/adapter_config.json": break_json, "adapter/adapter_model.safetensors": break_safetensors},
        _read_adapter,
    ),
    "bases": Reader(_write_bases, {"bases.json": break_json, "basis-1.safetensors": break_safetensors}, _read_bases),
    "texts": Reader(_text_files(**{"data.jsonl": _TEXTS}), {"data.jsonl": break_lines}, _read_texts, (_PAIRS,)),
    "pairs": Reader(_text_files(**{"data.jsonl": _PAIRS}), {"data.jsonl": break_lines}, _read_pairs, (_TEXTS,)),
    "tensors of data": Reader(_write_data, {"data.safetensors": break_safetensors}, _read_data, (_tensor_file(1),)),
    "tokenizer files": Reader(
        _write_tokenizer, {"tokenizer.json": break_json, "tokenizer_config.json": break_json}, _read_tokenizer
    ),
    "chat template": Reader(
        lambda folder: (folder / "template").write_bytes(_TEMPLATE), {"template": break_bytes}, _read_layout
    ),
}
