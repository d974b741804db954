"""The base model fine-tuned on every task of the study: components and targets, all with one recipe.

Run ``python -m benchmarks.composition.experts`` after ``python -m benchmarks.composition.base``.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.composition.base import BASE
from benchmarks.composition.data import FOLDER, load_study
from benchmarks.composition.model import (
    Tokens,
    answer_losses,
    collate,
    encode_task,
    evaluate,
    load_folder,
    parameters_of,
    set_parameters,
)
from benchmarks.composition.tasks import Family, Instructed, Study
from benchmarks.records import read_record, replace, write_record
from diagnostics.errors import InputError

EXPERTS = FOLDER / "experts"


@dataclass(frozen=True)
class Recipe:
    """What decides the outcome of a fine-tuning, beside base and data."""

    steps: int = 150
    batch_size: int = 32
    learning_rate: float = 1.5e-4
    weight_decay: float = 0.01
    warmup: float = 0.1
    seed: int = 0


QUICK_RECIPE = Recipe(steps=2, batch_size=4)


class Loaded:
    """The base model, its parameters, and its tokenizer."""

    def __init__(self, folder: Path = BASE) -> None:
        if not (folder / "model.safetensors").exists():
            raise InputError(f"no base model in {folder}: run `python -m benchmarks.composition.base`")
        self.model: LlamaForCausalLM
        self.tokenizer: PreTrainedTokenizerFast
        self.model, self.tokenizer = load_folder(folder)
        self.pad: int = self.tokenizer.pad_token_id
        self.parameters = {name: each.clone() for name, each in parameters_of(self.model).items()}
        self.digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]

    def rows(self, task: Instructed, split: str) -> list[Tokens]:
        """A split of a task, encoded."""
        return encode_task(self.tokenizer, task, split)

    def summaries(self, task: Instructed) -> dict[str, dict[str, float]]:
        """Loss and exact match on the validation and the test split."""
        return {each: evaluate(self.model, self.rows(task, each), self.pad).summary() for each in ("val", "test")}


def file_of(name: str) -> str:
    """The file name of a task, without its suffix."""
    return name.replace(",", "").replace(" + ", "+").replace(" ", "-").lower()


def names_of(study: Study, families: Iterable[Family]) -> list[str]:
    """The tasks of some families, components before the targets made of them."""
    chosen = [each for each in study.targets.values() if each.family in set(families)]
    return list(dict.fromkeys([name for each in chosen for name in (*each.components, each.name)]))


def identity_of(task: Instructed, base: Loaded, recipe: Recipe) -> dict[str, Any]:
    """What an expert was made of: with the same, it is not made again."""
    return {"base": base.digest, "data": task.digest, "recipe": asdict(recipe)}


def fine_tune(base: Loaded, rows: list[Tokens], recipe: Recipe) -> None:
    """AdamW on every parameter of ``base.model`` in place, the rate rising linearly and then falling to zero."""
    optimizer = torch.optim.AdamW(
        base.model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.98)
    )
    rising = math.ceil(recipe.warmup * recipe.steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / rising, (recipe.steps - step) / (recipe.steps - rising + 1)),
    )
    for chosen in _minibatches(len(rows), recipe):
        losses, _ = answer_losses(base.model, collate([rows[row] for row in chosen.tolist()], base.pad))
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
        schedule.step()


def make_experts(
    study: Study, names: Iterable[str], base: Loaded, recipe: Recipe, folder: Path = EXPERTS
) -> dict[str, dict[str, Any]]:
    """Fine-tune an expert for each named task, unless ``folder`` has it already of the same base, data and recipe.

    Returns:
        For each task the record stored beside its parameters.
    """
    records = {}
    for name in names:
        task, path = study.tasks[name], folder / f"{file_of(name)}.json"
        identity = identity_of(task, base, recipe)
        record = read_record(path)
        if any(record.get(key) != value for key, value in identity.items()):
            path.unlink(missing_ok=True)  # a record is never older than its parameters
            record = {"task": name, **identity, **_make_expert(task, base, recipe, path)}
            write_record(path, record)
        records[name] = record
        print(row_of(name, record), flush=True)
    return records


def load_expert(task: Instructed, base: Loaded, recipe: Recipe, folder: Path = EXPERTS) -> dict[str, Tensor]:
    """The parameters of an expert.

    Raises:
        InputError: There is none, or it was made of another base, other data or another recipe.
    """
    path = folder / f"{file_of(task.name)}.json"
    record = read_record(path)
    wanted = identity_of(task, base, recipe)
    if (found := {key: record.get(key) for key in wanted}) != wanted:
        raise InputError(f"{path}: expected an expert of {wanted}, found {found}; run `{__name__}` again")
    return load_file(path.with_suffix(".safetensors"))


def _minibatches(examples: int, recipe: Recipe) -> Tensor:
    """Row numbers [steps, batch size]: seeded permutations of the examples, one after the other."""
    generator = torch.Generator().manual_seed(recipe.seed)
    wanted = recipe.steps * recipe.batch_size
    epochs = [torch.randperm(examples, generator=generator) for _ in range(math.ceil(wanted / examples))]
    return torch.cat(epochs)[:wanted].view(recipe.steps, recipe.batch_size)


def _make_expert(task: Instructed, base: Loaded, recipe: Recipe, path: Path) -> dict[str, Any]:
    """Fine-tune one expert, store its parameters and return its measurements."""
    started = time.perf_counter()
    set_parameters(base.model, base.parameters)
    before = base.summaries(task)
    fine_tune(base, base.rows(task, "train"), recipe)
    expert = parameters_of(base.model)
    replace(path.with_suffix(".safetensors"), lambda temporary: save_file(expert, temporary))
    moved = sum((expert[name] - start).double().square().sum().item() for name, start in base.parameters.items())
    return {
        "examples": {split: len(getattr(task, split)) for split in ("train", "val", "test")},
        "before": before,
        "after": base.summaries(task),
        "squared_norm": moved,
        "seconds": round(time.perf_counter() - started, 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def row_of(name: str, record: dict[str, Any]) -> str:
    """A line of the table of experts."""
    loss, exact = ([record[when]["test"][score] for when in ("before", "after")] for score in ("loss", "exact"))
    return (
        f"{name:36} loss {loss[0]:7.3f} -> {loss[1]:7.3f}  exact {exact[0]:.3f} -> {exact[1]:.3f}  "
        f"squared norm {record['squared_norm']:7.3f}  {record['seconds']:.0f} s"
    )


def main(arguments: list[str] | None = None) -> None:
    """Fine-tune the experts and print their scores on the test split."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.composition.experts", description=main.__doc__)
    parser.add_argument(
        "--families", nargs="+", choices=get_args(Family), default=get_args(Family), help="default: all"
    )
    parser.add_argument("--base", type=Path, default=BASE, help="folder of the base model (%(default)s)")
    parser.add_argument("--folder", type=Path, default=EXPERTS, help="where experts go (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads (%(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    study = load_study()
    make_experts(study, names_of(study, options.families), Loaded(options.base), Recipe(), options.folder)


if __name__ == "__main__":
    main()
