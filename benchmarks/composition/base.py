"""The base model: trained from scratch to follow instructions, before it is good at the tasks of the study.

Run ``python -m benchmarks.composition.base``.
"""

import argparse
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.composition.data import FOLDER, LANGUAGES, Entry, load_entries, load_study, summarise, translate
from benchmarks.composition.model import (
    Architecture,
    Tokens,
    collate,
    encode,
    encode_task,
    evaluate,
    make_model,
    save_folder,
    tokens_of,
    train_tokenizer,
)
from benchmarks.composition.strings import MIXED_PRACTICE, OPERATIONS, OTHERS, PRACTICE, draw, instruction, pair
from benchmarks.composition.tasks import END, Instructed
from benchmarks.debian import split_of
from benchmarks.records import read_record, replace, write_record

BASE = FOLDER / "base"
LONGEST_TEXT = 96
# Beside the single operations, these are shown while the base model is trained.
WATCHED = (
    "reverse + upper",
    "reverse + drop first",
    "next letter + sort",
    "summarise",
    "to French",
    "summarise + to French",
)


ARCHITECTURE = Architecture()


@dataclass(frozen=True)
class BaseSettings:
    """What decides the base model, beside the data."""

    steps: int = 3200
    strings: int = 32
    texts: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: int = 100
    seed: int = 0
    # Of the string examples: operations of the study alone, in a composition with another one; other operations alone.
    # The rest are compositions of other operations.
    share_operations: float = 0.03
    share_mixed: float = 0.17
    share_others: float = 0.35
    # Of all instructed examples: without their instruction, so that "no instruction" is a context the model knows.
    share_bare: float = 0.1
    # Of the texts: plain text, summaries; the rest are translations.
    share_plain: float = 0.5
    share_summaries: float = 0.2
    # Weight of the tokens before the answer: enough to model instructions and inputs, most of which are random.
    prompt_weight: float = 0.1
    tokenizer_texts: int = 6000
    architecture: Architecture = ARCHITECTURE


QUICK_BASE = BaseSettings(
    steps=2,
    strings=8,
    texts=4,
    warmup=1,
    architecture=Architecture(width=16, hidden=32, layers=1, heads=2, vocabulary=384),
)


def texts_of(entries: list[Entry]) -> dict[str, list[str]]:
    """Plain training text by language: short description, long description."""
    texts: dict[str, list[str]] = {language: [] for language in LANGUAGES}
    for entry in entries:
        for language, short in entry.short.items():
            texts[language].append(f" {short}. {entry.long[language]}")
    return texts


def make_tokenizer(entries: list[Entry], settings: BaseSettings) -> PreTrainedTokenizerFast:
    """A tokenizer of the training text, every language weighing about the same."""
    rng = random.Random(f"{settings.seed}:tokenizer")
    texts = texts_of(entries)
    chosen = [text for each in texts.values() for text in rng.sample(each, min(len(each), settings.tokenizer_texts))]
    return train_tokenizer(chosen, settings.architecture.vocabulary)


class Mixture:
    """An endless, seeded stream of training examples for the base model, from training splits only."""

    def __init__(self, entries: list[Entry], tokenizer: PreTrainedTokenizerFast, settings: BaseSettings) -> None:
        self.tokenizer, self.settings = tokenizer, settings
        self.rng = random.Random(f"{settings.seed}:mixture")
        self.texts = texts_of(entries)
        self.summaries = [made for each in entries if (made := summarise(each))]
        self.translations = {
            code: [made for each in entries if (made := translate(each, code))] for code in LANGUAGES if code != "en"
        }

    def strings(self) -> Iterator[Tokens]:
        """Instructed operations and compositions."""
        chosen = self.settings
        pools = ([(word,) for word in OPERATIONS], MIXED_PRACTICE, [(word,) for word in OTHERS], PRACTICE)
        shares = [chosen.share_operations, chosen.share_mixed, chosen.share_others]
        while True:
            (pool,) = self.rng.choices(pools, [*shares, 1.0 - sum(shares)])
            words = self.rng.choice(pool)
            yield self._instructed(instruction(*words), pair(draw(self.rng, "train"), *words))

    def documents(self) -> Iterator[Tokens]:
        """Plain text, summaries and translations."""
        while True:
            kind = self.rng.random() - self.settings.share_plain
            if kind < 0:
                text = self.rng.choice(self.texts[self.rng.choice(list(LANGUAGES))]) + END
                yield [self.tokenizer.bos_token_id, *tokens_of(self.tokenizer, text)][:LONGEST_TEXT], 1
            elif kind < self.settings.share_summaries:
                yield self._instructed(instruction("summarise"), self.rng.choice(self.summaries))
            else:
                code = self.rng.choice(list(self.translations))
                pairs = self.translations[code]
                yield self._instructed(instruction(f"to {LANGUAGES[code]}"), self.rng.choice(pairs))

    def _instructed(self, words: str, example: tuple[str, str]) -> Tokens:
        """An example under its instruction, or now and then under none."""
        bare = self.rng.random() < self.settings.share_bare
        return encode(self.tokenizer, "" if bare else words, [example])[0]


def token_loss(model: LlamaForCausalLM, rows: list[Tokens], pad: int, prompt_weight: float) -> torch.Tensor:
    """The weighted mean over tokens of −log p, the tokens before an answer counting ``prompt_weight``."""
    ids, labels = collate(rows, pad)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    losses = cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), ignore_index=pad, reduction="none")
    weights = (torch.where(labels[:, 1:] >= 0, 1.0, prompt_weight) * (ids[:, 1:] != pad)).flatten()
    return (losses * weights).sum() / weights.sum()


def train_base(
    entries: list[Entry], settings: BaseSettings, watched: list[Instructed], progress: Path
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """AdamW on string examples and texts, the rate rising linearly and then falling to zero.

    Where ``progress`` holds an interrupted training with the same settings, it goes on from there.
    """
    kept = [each for each in entries if split_of(each.source) == "train"]
    tokenizer = make_tokenizer(kept, settings)
    model = make_model(settings.architecture, tokenizer, settings.seed).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / settings.warmup, (settings.steps - step) / settings.steps)
    )
    mixture, pad = Mixture(kept, tokenizer, settings), tokenizer.pad_token_id
    strings, documents = mixture.strings(), mixture.documents()
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    started, done = time.perf_counter(), _resume(progress, settings, parts, mixture.rng)
    for step in range(done + 1, settings.steps + 1):
        groups = ([next(strings) for _ in range(settings.strings)], [next(documents) for _ in range(settings.texts)])
        optimizer.zero_grad()
        shown = []
        for rows in groups:
            loss = token_loss(model, rows, pad, settings.prompt_weight)
            loss.backward()
            shown.append(loss.item())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step}: {shown[0]:.3f} {shown[1]:.3f}, {time.perf_counter() - started:.0f} s", flush=True)
        if step % 250 == 0:
            _keep(progress, settings, parts, mixture.rng, step)
        if step % 500 == 0:
            watch(model, tokenizer, watched)
    return model.eval(), tokenizer


def _keep(path: Path, settings: BaseSettings, parts: dict[str, Any], rng: random.Random, step: int) -> None:
    """Store the state of a training, so that it can go on after an interruption."""
    states = {name: part.state_dict() for name, part in parts.items()}
    kept = {"settings": asdict(settings), "states": states, "rng": rng.getstate(), "step": step}
    replace(path, lambda temporary: torch.save(kept, temporary))


def _resume(path: Path, settings: BaseSettings, parts: dict[str, Any], rng: random.Random) -> int:
    """The steps that were made before an interruption, their state restored; 0 where there are none."""
    kept = torch.load(path, weights_only=False) if path.exists() else {}
    if kept.get("settings") != asdict(settings):
        return 0
    for name, part in parts.items():
        part.load_state_dict(kept["states"][name])
    rng.setstate(kept["rng"])
    return kept["step"]


def watch(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tasks: list[Instructed]) -> None:
    """Print loss and exact match on the first quarter of each validation split."""
    model.eval()
    for task in tasks:
        rows = encode_task(tokenizer, task, "val")
        scores = evaluate(model, rows[: len(rows) // 4], tokenizer.pad_token_id).summary()
        print(f"  {task.name:32} loss {scores['loss']:7.3f}  exact {scores['exact']:.3f}", flush=True)
    model.train()


def make_base(entries: list[Entry], settings: BaseSettings, folder: Path = BASE, watched: Any = ()) -> dict[str, Any]:
    """Train the base model, unless ``folder`` has it already with the same settings; returns its record."""
    record = read_record(folder / "record.json")
    if record.get("settings") != asdict(settings):
        started = time.perf_counter()
        progress = folder.with_name(f"{folder.name}.progress.pt")
        model, tokenizer = train_base(entries, settings, list(watched), progress)
        folder.parent.mkdir(parents=True, exist_ok=True)
        save_folder(folder, model, tokenizer)
        record = {
            "settings": asdict(settings),
            "parameters": sum(each.numel() for each in model.parameters()),
            "seconds": round(time.perf_counter() - started, 1),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        write_record(folder / "record.json", record)
        progress.unlink(missing_ok=True)
    return record


def main(arguments: list[str] | None = None) -> None:
    """Train the base model and print its record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.composition.base", description=main.__doc__)
    parser.add_argument("--folder", type=Path, default=BASE, help="where the model goes (%(default)s)")
    parser.add_argument("--steps", type=int, default=BaseSettings.steps, help="optimiser steps (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads (%(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    entries = load_entries()
    tasks = load_study(entries=entries).tasks
    watched = [tasks[name] for name in (*OPERATIONS, *WATCHED)]
    print(make_base(entries, BaseSettings(steps=options.steps), options.folder, watched))


if __name__ == "__main__":
    main()
