"""Tiny models of transformers with random weights, their tokenizer and data, in folders of their own."""

import json
import os
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from diagnostics import MergeProblem
from diagnostics.inputs.pretrained import load_problem

# No test may reach for a hub.
os.environ["HF_HUB_OFFLINE"] = "1"

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "good", "bad", "film", "and", "long", "dull"]
TEXTS = ["a good film", "a bad film", "dull and long and bad", "good", "a long film", "bad and dull"]
LABELS = [1, 0, 0, 1, 1, 0]
SIZES = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
HEAD = {"classifier.weight", "classifier.bias"}


def tokenizer(words: list[str] = WORDS, **options: object) -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    ids = [("[CLS]", words.index("[CLS]")), ("[SEP]", words.index("[SEP]"))]
    raw.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=raw, **{**special, **options})


def bert(seed: int, labels: int = 2, kind: type = BertForSequenceClassification, **options: object) -> torch.nn.Module:
    torch.manual_seed(seed)
    return kind(BertConfig(**SIZES, max_position_embeddings=12, num_labels=labels, **options)).eval()


def moved(model: torch.nn.Module, seed: int, scale: float = 0.05) -> torch.nn.Module:
    """The model after a step in a random direction, with the same names."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            value += scale * torch.randn_like(value)
    return model


def write_data(path: Path, texts: list[str] = TEXTS, labels: list = LABELS, keys: tuple = ("text", "label")) -> Path:
    rows = [dict(zip(keys, pair, strict=True)) for pair in zip(texts, labels, strict=True)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def write_folders(path: Path) -> Path:
    """A base with its tokenizer, two experts of the same width, and data for each."""
    bert(0).save_pretrained(path / "base")
    tokenizer().save_pretrained(path / "base")
    for seed, name in enumerate(["kind", "mood"], start=1):
        moved(bert(0), seed).save_pretrained(path / name)
        write_data(path / f"{name}.jsonl")
    return path


def load(folders: Path, *names: str, **options: object) -> MergeProblem:
    names = names or ("kind", "mood")
    experts = {name: folders / name for name in names}
    return load_problem(folders / "base", experts, {name: folders / f"{name}.jsonl" for name in names}, **options)
