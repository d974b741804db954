"""The language model of the study: its tokenizer, its loss, and exact match.

Segments (BOS, instruction, input, answer) are tokenized apart and joined. The loss of an example is −log p(answer |
BOS, instruction, input), summed over the answer's tokens, its end-of-text token among them; a loss is the mean.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.composition.tasks import END, Instructed, Pair

BEGIN, PAD = "<bos>", "<pad>"
IGNORED = -100
EVALUATION_BATCH = 128

Tokens = tuple[list[int], int]


@dataclass(frozen=True)
class Architecture:
    """A small Llama."""

    vocabulary: int = 1536
    width: int = 192
    hidden: int = 512
    layers: int = 4
    heads: int = 4


class Batch(NamedTuple):
    """Rows of token ids, padded on the right, and the same ids as labels, ``IGNORED`` outside the answers."""

    ids: Tensor
    labels: Tensor


class Scores(NamedTuple):
    """The loss of each example, and whether greedy decoding gives exactly its answer."""

    losses: Tensor
    exact: Tensor

    def summary(self) -> dict[str, float]:
        """Mean loss and share of exact matches."""
        return {"loss": self.losses.mean().item(), "exact": self.exact.double().mean().item()}


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE; every letter, digit and star after a space is one token."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BEGIN, END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    symbols = "".join(f" {symbol}" for symbol in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789*")
    texts = list(texts)
    inner.train_from_iterator([symbols] * (10 + len(texts)) + texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=BEGIN, eos_token=END, pad_token=PAD)


def make_model(architecture: Architecture, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A model from scratch, input and output embedding tied."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=architecture.width,
        intermediate_size=architecture.hidden,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def tokens_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """The token ids of one segment."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def encode(tokenizer: PreTrainedTokenizerFast, instruction: str, pairs: Iterable[Pair]) -> list[Tokens]:
    """Of each pair the token ids of all four segments, and where the answer begins."""
    start = [tokenizer.bos_token_id, *tokens_of(tokenizer, instruction)]
    encoded = []
    for given, answer in pairs:
        prompt = [*start, *tokens_of(tokenizer, given)]
        encoded.append(([*prompt, *tokens_of(tokenizer, answer)], len(prompt)))
    return encoded


def collate(rows: list[Tokens], pad: int) -> Batch:
    """Encoded examples as one batch; causal attention never sees padding on the right, so it needs no mask."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), width), pad)
    labels = torch.full((len(rows), width), IGNORED)
    for row, (tokens, start) in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, start : len(tokens)] = ids[row, start : len(tokens)]
    return Batch(ids, labels)


def answer_losses(model: LlamaForCausalLM, batch: Batch) -> tuple[Tensor, Tensor]:
    """The loss of each example, and how many tokens of its answer are not the likeliest one.

    Only where an answer's token is predicted are logits computed: most tokens belong to prompts.
    """
    wanted = batch.labels[:, 1:]
    rows, columns = (wanted != IGNORED).nonzero(as_tuple=True)
    hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
    logits = model.lm_head(hidden[rows, columns])
    losses = cross_entropy(logits, wanted[rows, columns], reduction="none")
    missed = logits.argmax(-1) != wanted[rows, columns]
    start = losses.new_zeros(len(wanted))
    return start.index_add(0, rows, losses), start.index_add(0, rows, missed.to(losses.dtype))


@torch.no_grad()
def evaluate(model: LlamaForCausalLM, rows: list[Tokens], pad: int) -> Scores:
    """Loss and exact match of each example, in their order.

    Greedy decoding reproduces an answer exactly where, given the prompt and the answer so far, the likeliest token
    is the answer's at every position, the end-of-text token included: one forward pass decides it.
    """
    order = sorted(range(len(rows)), key=lambda row: len(rows[row][0]))
    losses, exact = torch.empty(len(rows)), torch.empty(len(rows), dtype=torch.bool)
    for start in range(0, len(order), EVALUATION_BATCH):
        chosen = order[start : start + EVALUATION_BATCH]
        losses[chosen], missed = answer_losses(model, collate([rows[row] for row in chosen], pad))
        exact[chosen] = missed == 0
    return Scores(losses, exact)


def encode_task(tokenizer: PreTrainedTokenizerFast, task: Instructed, split: str) -> list[Tokens]:
    """A split of a task, encoded."""
    return encode(tokenizer, task.instruction, getattr(task, split))


def parameters_of(model: torch.nn.Module) -> dict[str, Tensor]:
    """Every parameter once (tied embeddings have one name), detached but not copied."""
    return {name: each.detach() for name, each in model.named_parameters()}


@torch.no_grad()
def set_parameters(model: torch.nn.Module, parameters: Mapping[str, Tensor]) -> None:
    """Overwrite every parameter in place."""
    for name, each in model.named_parameters():
        each.copy_(parameters[name])


def save_folder(folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Save model and tokenizer as a ``transformers`` folder, which appears only when it is whole."""
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    if folder.exists():
        shutil.rmtree(folder)
    temporary.replace(folder)


def load_folder(folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The model and tokenizer that ``save_folder`` saved."""
    return LlamaForCausalLM.from_pretrained(folder).eval(), PreTrainedTokenizerFast.from_pretrained(folder)
