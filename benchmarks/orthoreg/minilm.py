"""OrthoReg on MiniLM and four real text tasks, three seeds.

python -m benchmarks.orthoreg.minilm             # results/orthoreg_minilm.json, an hour on one core; resumes
python -m benchmarks.orthoreg.minilm --show      # the tables from the stored results
python -m benchmarks.orthoreg.minilm --quick     # a dry run on the sample shipped with the scripts
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace as changed
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

from benchmarks.minilm.data import CACHE, SAMPLE, TextTask, load_tasks, read_tasks
from benchmarks.minilm.experts import (
    FAMILIES,
    PACKAGE,
    QUICK,
    Settings,
    as_batch,
    fine_tune,
    load_base,
    make_classifier,
    trainable,
)
from benchmarks.orthoreg import study
from benchmarks.orthoreg.figures import Lab, scores
from benchmarks.orthoreg.study import Plan
from benchmarks.orthoreg.tables import command
from benchmarks.orthoreg.variants import Parameters, Variant, penalise
from benchmarks.records import read_record, replace, write_record
from diagnostics.inputs.tasks import Task

RESULTS = Path(__file__).parent.parent / "results" / "orthoreg_minilm.json"
EXPERTS = CACHE / "orthoreg" / "minilm"
TASKS = ("section-en", "role", "toolkit", "interface")
# Without weight decay, so that the penalty alone acts on the size of the updates.
SETTINGS = changed(FAMILIES["full"], steps=60, weight_decay=0.0)
CANDIDATES = (Variant("paper", 0.1), Variant("paper", 1.0), Variant("code", 1.0))
COEFFICIENTS = (0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
PROBE, PAIRS = 128, 128


class Bench:
    """The encoder, its zero-shot classifiers and the tasks, the same at every seed.

    Args:
        texts: The text tasks.
        settings: Of the fine-tuning; the seed is set at each.
        folder: Where experts are stored.
    """

    def __init__(self, texts: Mapping[str, TextTask], settings: Settings, folder: Path) -> None:
        self.texts, self.settings, self.folder = texts, settings, folder
        self.bert, self.tokenizer = load_base()
        self.base = {f"bert.{name}": value for name, value in trainable(self.bert).items()}
        self.probe = self._tasks("probe", PROBE)
        self.test = self._tasks("test", None)
        self.pairs = self._tasks("test", PAIRS)
        self.base_scores = scores(self.test, self.base)

    def lab(self, seed: int) -> Lab:
        """The bench at a seed."""

        @functools.cache
        def expert(name: str, variant: Variant) -> Parameters:
            return self._expert(name, variant, changed(self.settings, seed=seed))

        return Lab(self.base, self.probe, self.test, self.pairs, expert, self.base_scores)

    def _tasks(self, split: str, count: int | None) -> dict[str, Task]:
        """Every task over the first examples of a split."""
        tasks = {}
        for name, text in self.texts.items():
            classifier = make_classifier(self.bert, self.tokenizer, text)
            data = as_batch(self.tokenizer, getattr(text, split)[:count])
            tasks[name] = Task.from_module(name, classifier, cross_entropy, data, parameters=list(self.base))
        return tasks

    def _expert(self, name: str, variant: Variant, settings: Settings) -> Parameters:
        """An expert's layers, fine-tuned unless they are stored with the same settings and data."""
        folder = self.folder / variant.name / f"seed-{settings.seed}"
        identity = {
            "base": f"{PACKAGE} {version(PACKAGE)}",
            "data": self.texts[name].digest,
            "settings": settings.identity,
            "penalty": {"form": variant.form, "strength": variant.strength},
        }
        record = read_record(folder / f"{name}.json")
        if any(record.get(key) != value for key, value in identity.items()):
            print(f"{variant.name}, seed {settings.seed}, {name}", flush=True)
            write_record(folder / f"{name}.json", identity | self._fine_tuned(name, variant, settings, folder))
        return load_file(folder / f"{name}.safetensors")

    def _fine_tuned(self, name: str, variant: Variant, settings: Settings, folder: Path) -> dict[str, Any]:
        """Fine-tune and store one expert; what it took."""
        started = time.perf_counter()
        (folder / f"{name}.json").unlink(missing_ok=True)  # a record is never older than its parameters
        model = make_classifier(deepcopy(self.bert), self.tokenizer, self.texts[name])
        penalise(model, variant)
        fine_tune(model, as_batch(self.tokenizer, self.texts[name].train), settings)
        replace(folder / f"{name}.safetensors", lambda path: save_file(trainable(model), path))
        seconds = round(time.perf_counter() - started, 1)
        return {"seconds": seconds, "threads": torch.get_num_threads(), "torch": torch.__version__}


def run(out: Path, quick: bool, console: Console) -> None:
    """Measure what is not stored yet; a dry run keeps its experts beside its results."""
    texts = read_tasks(SAMPLE) if quick else load_tasks(TASKS)
    bench = Bench(texts, QUICK if quick else SETTINGS, out.parent if quick else EXPERTS)
    plan = Plan(
        candidates=CANDIDATES[:1] if quick else CANDIDATES,
        finals=("paper",),
        first=() if quick else CANDIDATES,
        coefficients=COEFFICIENTS[:1] if quick else COEFFICIENTS,
        pair_coefficients=(),
        seeds=(0,) if quick else (0, 1, 2),
        settings={
            "base": f"{PACKAGE} {version(PACKAGE)}",
            "data": {name: text.digest for name, text in texts.items()},
            "fine-tuning": {key: value for key, value in bench.settings.identity.items() if key != "seed"},
            "examples": {"probe": PROBE, "pairs": PAIRS},
        },
    )
    study.run(plan, functools.cache(bench.lab), out, console)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark or show what is stored."""
    command(__doc__, arguments, RESULTS, run)


if __name__ == "__main__":
    main()
