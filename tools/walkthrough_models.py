"""The two experts of the walk: small text classifiers on scikit-learn's digits, trained in seconds without downloads.

A real image of a digit becomes a text of eight words, one for each row of ink. A base that has learnt to tell the ten
digits apart is fine-tuned to say whether a digit is even, and whether it has a closed loop.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

__all__ = ["make_models"]

_WORDS = ["[PAD]", "[CLS]", "[UNK]", *(f"row{number:03d}" for number in range(256))]
_SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4}
_LOOPS = torch.tensor([1, 0, 0, 0, 0, 0, 1, 0, 1, 1])
# Fine-tuning, examples to predict from, and examples that only the evaluation at the end sees.
_PARTS = {"train": slice(0, 900), "probe": slice(900, 1300), "test": slice(1300, None)}


def make_models(folder: Path) -> None:
    """Write the base, two experts, and their examples with labels.

    Args:
        folder: Where to.
    """
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    rows = ((torch.tensor(digits.images) > 6).long() * 2 ** torch.arange(8)).sum(-1)[order]
    classes = torch.tensor(digits.target)[order]
    labels = {"even": 1 - classes % 2, "loops": _LOOPS[classes]}
    texts = torch.cat([torch.ones(len(rows), 1, dtype=torch.long), rows + 3], 1)
    base = _classifier(10)
    _train(base, texts[_PARTS["train"]], classes[_PARTS["train"]], 400, 1e-3)
    _save(base, folder / "base")
    for name, targets in labels.items():
        expert = _classifier(2)
        body = {key: value for key, value in base.state_dict().items() if not key.startswith("classifier")}
        expert.load_state_dict(body, strict=False)
        _train(expert, texts[_PARTS["train"]], targets[_PARTS["train"]], 100, 5e-4)
        _save(expert, folder / name)
        for part in ("probe", "test"):
            _write(folder / f"{name}-{part}.jsonl", rows[_PARTS[part]], targets[_PARTS[part]])


def _classifier(labels: int) -> BertForSequenceClassification:
    """A small network, the same in every run."""
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(_WORDS), max_position_embeddings=9, num_labels=labels, **_SIZES)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    return BertForSequenceClassification(config)


def _train(model: BertForSequenceClassification, texts: Tensor, targets: Tensor, steps: int, rate: float) -> None:
    """Fine-tune with Adam on batches drawn at random."""
    generator, optimizer = torch.Generator().manual_seed(1), torch.optim.AdamW(model.parameters(), lr=rate)
    for _ in range(steps):
        batch = torch.randint(0, len(texts), (64,), generator=generator)
        loss = torch.nn.functional.cross_entropy(model(input_ids=texts[batch]).logits, targets[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _save(model: BertForSequenceClassification, folder: Path) -> None:
    """Save model and tokenizer as anyone would."""
    model.save_pretrained(folder)
    words: Mapping[str, int] = {word: place for place, word in enumerate(_WORDS)}
    raw = Tokenizer(models.WordLevel(dict(words), unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=9, **special).save_pretrained(folder)


def _write(file: Path, rows: Tensor, targets: Tensor) -> None:
    """One example a line, text and label."""
    lines = (
        json.dumps({"text": " ".join(f"row{row:03d}" for row in image.tolist()), "label": int(target)})
        for image, target in zip(rows, targets, strict=True)
    )
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
