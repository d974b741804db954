"""Tiny models of transformers with random weights, their tokenizer and data, in folders of their own."""

import json
import os
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

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


# Causal language models: architecture, configuration, and the names of its size options.
_FEW = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
_FEW |= {"max_position_embeddings": 32, "pad_token_id": None}
CAUSAL = {
    "gpt2": (GPT2LMHeadModel, GPT2Config, {"n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 32}),
    "llama": (LlamaForCausalLM, LlamaConfig, {**_FEW, "num_key_value_heads": 1}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {**_FEW, "num_key_value_heads": 1}),
    "phi": (PhiForCausalLM, PhiConfig, _FEW),
    "gemma": (GemmaForCausalLM, GemmaConfig, {**_FEW, "num_key_value_heads": 1, "head_dim": 4}),
}


def causal_lm(
    family: str, seed: int = 0, *, vocabulary: int = 7, dtype: torch.dtype = torch.float64, **options: object
) -> torch.nn.Module:
    """A causal language model whose predictions are far from uniform, so that instructions interact; BOS is 0."""
    kind, config, sizes = CAUSAL[family]
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    torch.manual_seed(seed)
    model = kind(config(**{**sizes, "vocab_size": vocabulary, **ids, **options}))
    return moved(model, seed, scale=0.4).to(dtype).eval()


def with_lora(
    model: torch.nn.Module, modules: list[str] | str = "all-linear", task_type: str | None = "CAUSAL_LM"
) -> PeftModel:
    """The model with an adapter whose B is zero, as training begins."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        # PEFT still asks transformers by a name that is on its way out.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        transposed = model.config.model_type == "gpt2"
        config = LoraConfig(r=2, target_modules=modules, task_type=task_type, fan_in_fan_out=transposed)
        return get_peft_model(model, config)


def word_tokenizer(words: list[str], *, adds_bos: bool = False, **options: object) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words; the first word is the BOS, ``[UNK]`` is for others where it is listed."""
    unknown = {"unk_token": "[UNK]"} if "[UNK]" in words else {}
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, **unknown))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if adds_bos:
        raw.post_processor = processors.TemplateProcessing(single=f"{words[0]} $A", special_tokens=[(words[0], 0)])
    return PreTrainedTokenizerFast(tokenizer_object=raw, **{"bos_token": words[0], **unknown, **options})


def letter_tokenizer(letters: str, merges: list[tuple[str, str]], **options: object) -> PreTrainedTokenizerFast:
    """A BPE tokenizer of letters behind a BOS, with some merges across which a seam is lost."""
    tokens = ["<s>", *letters, *("".join(pair) for pair in merges)]
    raw = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    return PreTrainedTokenizerFast(tokenizer_object=raw, **{"bos_token": "<s>", **options})
