"""Valid files for the readers that are tried, and a model beside them that must never be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save, save_file
from torch import Tensor

from diagnostics import task_vector_bases

# Every tensor of every file is made of small whole numbers; the decoy beside the folder is made of these.
DECOY = 666.0


RUN = b"""base: models/base
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
RUN_LISTS = b"base: base\nexperts: {a: a}\ncoefficients: [0.5]\noptions: {density: {a: 1}, scale: 2, rescale: false}\n"
RUN_TOML = b"""base = "models/base"
coefficients = [0.5, 0.3]
tolerance = 0.1
private = ["a.*"]
[experts]
news = "models/news"
mail = "models/mail"
[options]
density = { news = 0.5, mail = 1 }
"""
AUDIT = b"""model: models/base
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
RECIPE = b"""merge_method: ties
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
LINEAR = (
    b"merge_method: linear\nbase_model: base\nmodels: [{model: news, parameters: {weight: 1}}]\nout_dtype: bfloat16\n"
)
TEXTS = b'{"text": "a good film", "label": 1}\n\n{"text": "\\u8981\\u7d04", "label": 0, "z": [1, {"a": null}]}\n'
PAIRS = b'{"x": "2 + 2 =", "y": " 4"}\n{"x": "", "y": "none"}\n'
TEMPLATE = (
    b"{% for message in messages %}{% if message['role'] == 'system' %}{{ '<s>' + message.content }}{% endif %}"
    b"{{ '<|' + message['role'] + '|>\\n' + message['content'] | trim + '</s>' }}{% endfor %}"
    b"{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


_ADAPTER = {
    **{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["proj", "head", "emb"], "use_rslora": False},
    **{"rank_pattern": {"proj": 1}, "alpha_pattern": {"^net.head": 3}, "modules_to_save": ["norm"], "bias": "none"},
    **{"fan_in_fan_out": False, "init_lora_weights": True, "task_type": None, "layer_replication": None},
}


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
    model = {name: torch.full_like(value, DECOY) for name, value in tensors().items()}
    for path in (outside.with_suffix(".safetensors"), outside / "model.safetensors"):
        save_file(model, path)


def text_files(**contents: bytes) -> Callable[[Path], None]:
    """Writes files, and the folders and data that configurations name."""

    def write(folder: Path) -> None:
        for name in ("models/base", "models/news", "models/mail", "base", "news", "mail"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "base" / "config.json").write_text('{"architectures": ["BertForSequenceClassification"]}')
        for name, content in {"a.jsonl": PAIRS, "b.jsonl": PAIRS, **contents}.items():
            (folder / name).write_bytes(content)

    return write


def write_file(folder: Path) -> None:
    """A model in one file."""
    save_file(tensors(), folder / "model.safetensors", {"format": "pt"})


def write_shards(folder: Path) -> None:
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


def write_adapter(folder: Path) -> None:
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


def write_data(folder: Path) -> None:
    """Inputs and targets."""
    save_file({"inputs": torch.ones(4, 3), "targets": torch.tensor([0, 1, 0, 1])}, folder / "data.safetensors")


def write_bases(folder: Path) -> None:
    """Two bases, their index, and a decoy outside."""
    _decoy(folder)
    base = {"net.proj.weight": torch.zeros(4, 3)}
    experts = {
        name: {"net.proj.weight": torch.full((4, 3), value)}
        for name, value in zip("abc", (1.0, 2.0, -3.0), strict=True)
    }
    task_vector_bases(base, experts, k=2, resamples=1).save(folder)


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of three tokens and one that was added."""
    (folder / "tokenizer.json").write_text(json.dumps(_TOKENIZER))
    (folder / "tokenizer_config.json").write_text(json.dumps(_SETTINGS))


def tensor_file(seed: int) -> bytes:
    """Another model in one file."""
    return save(tensors(seed))
