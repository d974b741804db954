"""Predictions of merges of small language models, next to simpler rules, on seen and on unseen examples.

The experts are those of the composition study; the score is the share of an answer's tokens that are the model's first
choice, given those before them.

python -m benchmarks.composition.experts              # once: makes the experts
python -m benchmarks.language_predictions             # results/language_predictions.json, some minutes on 1 core
python -m benchmarks.language_predictions --show      # the tables from the stored results
python -m benchmarks.language_predictions --quick     # a dry run on the shipped sample
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import diagnostics as dx
from benchmarks.composition.base import QUICK_BASE, make_base
from benchmarks.composition.data import SAMPLE, load_entries, load_study
from benchmarks.composition.experts import EXPERTS, QUICK_RECIPE, Loaded, Recipe, load_expert, make_experts
from benchmarks.composition.outcomes import quick_study
from benchmarks.composition.tasks import Study
from benchmarks.method_predictions import Merge, Row, interval_of, point_of, table_of
from benchmarks.prediction.predict import similarities
from benchmarks.prediction.study import OURS
from diagnostics.inputs.tasks import Task
from diagnostics.measures.outputs import Observation, OutputTable
from diagnostics.report.json import write_json

RESULTS = Path(__file__).parent / "results" / "language_predictions.json"
# Two that move letters, two of one operation, one that sorts, and one that has nothing to do with strings of letters.
COMPONENTS = ("reverse", "swap ends", "sort", "next letter", "next letter, first letters", "to French")
# Predictions are made on the first examples of the test split; merges are evaluated on these and on others.
SEEN, UNSEEN = 48, 128
COEFFICIENTS = {2: (0.5, 1.0), 3: (round(1 / 3, 4), 0.6)}
TRIPLES = 6
SIMILARITIES = ("mean cosine with the partners", "size of the partners' updates")


class Parts(NamedTuple):
    """What a merge problem over any examples is made of."""

    study: Study
    base: Loaded
    experts: dict[str, dict[str, Tensor]]

    def problem(self, first: int, last: int) -> dx.MergeProblem:
        """The merge problem over some examples of the test splits."""
        tasks = {
            name: Task.from_causal_lm(
                name,
                self.base.model,
                self.base.tokenizer,
                self.study.tasks[name].test[first:last],
                instruction=self.study.tasks[name].instruction,
                batch_size=64,
            )
            for name in self.experts
        }
        return dx.MergeProblem(self.base.parameters, self.experts, tasks)


def merges(names: Sequence[str]) -> Iterator[Merge]:
    """Every pair and some triples, at an average and at a larger coefficient."""
    triples = list(combinations(names, 3))
    chosen = random.Random(0).sample(triples, min(TRIPLES, len(triples)))
    for group in (*combinations(names, 2), *chosen):
        for value in COEFFICIENTS[len(group)]:
            yield dict.fromkeys(group, value)


def run(parts: Parts, out: Path, counts: tuple[int, int], console: Console) -> None:
    """Predict every merge, then make it."""
    seen, unseen = parts.problem(0, counts[0]), parts.problem(counts[0], sum(counts))
    tables = {name: OutputTable(task, seen.base, seen.task_vectors) for name, task in seen.tasks.items()}
    for name, table in tables.items():  # single models that simpler rules need are those that predictions rest on
        seen.cached(("outputs", name), lambda table=table: table)
    shape = dx.geometry(seen.base, seen.experts)
    head = {
        "examples": {"seen": counts[0], "unseen": counts[1]},
        "models": {name: {"base": single(seen, name, seen.base), "expert": single(seen, name, seen.experts[name])}
                   for name in seen.names},
    }  # fmt: skip
    rows: list[Row] = []
    for merge in merges(seen.names):
        started = time.perf_counter()
        near, far = (dx.predict_merge(seen, merge, about=about) for about in ("examples", "population"))
        seconds = time.perf_counter() - started
        point = seen.merged(merge)
        for name in merge:
            scores = similarities(shape, name, merge)
            rows.append(
                {
                    "merge": merge,
                    "task": name,
                    "seen": outcome(seen, name, seen.tasks[name].outputs(point)),
                    "unseen": outcome(unseen, name, unseen.tasks[name].outputs(point), sampled=True),
                    "predicted": {OURS: point_of(near.tasks[name])}
                    | {rule: outcome(seen, name, told) for rule, told in simpler(tables[name], name, merge).items()}
                    | {rule: {"score": scores[rule]} for rule in SIMILARITIES},
                    "intervals": {"seen": interval_of(near.tasks[name]), "unseen": interval_of(far.tasks[name])},
                    "verdict": str(near.verdict),
                    "seconds": round(seconds, 1),
                }
            )
        write_json(out, {**head, "rows": rows})
        console.print(f"{len(rows)} rows: {', '.join(f'{value:g} {name}' for name, value in merge.items())}")


def simpler(table: OutputTable, name: str, merge: Merge) -> dict[str, list[Tensor]]:
    """Outputs as rules predict them that know no two experts together; one tensor a batch."""
    base = [batch[0].double() for batch in table.read([Observation()])]
    ends = [batch.double() for batch in table.read([Observation(each, value) for each, value in merge.items()])]
    own = list(merge).index(name)
    return {
        "own update alone": [end[own] for end in ends],
        "single models added": [start + (end - start).sum(0) for start, end in zip(base, ends, strict=True)],
    }


def outcome(problem: dx.MergeProblem, name: str, outputs: Sequence[Tensor], sampled: bool = False) -> dict[str, float]:
    """Loss and retention that outputs mean, and where they stand for a population their standard errors."""
    losses, scores = examples(problem.tasks[name], outputs)
    own_losses, own_scores = problem.cached(
        ("own", name), lambda: examples(problem.tasks[name], problem.tasks[name].outputs(problem.experts[name]))
    )
    own = own_scores.mean()
    retention = scores.mean() / own
    found = {"loss": losses.mean(), "expert_loss": own_losses.mean(), "retention": retention}
    if sampled:
        root = len(losses) ** 0.5
        found["loss_stderr"] = losses.std() / root
        found["retention_stderr"] = (scores - retention * own_scores).std() / own / root
    return {key: float(value) for key, value in found.items()}


def examples(task: Task, outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Loss and score of each example."""
    readout = task.readout
    assert readout is not None and readout.score is not None  # tasks of language models have both
    pairs = list(zip(outputs, task.batches, strict=True))
    losses = torch.cat([readout.losses(each.double(), batch) for each, batch in pairs])
    return losses, torch.cat([readout.score(each.double(), batch) for each, batch in pairs])


def single(problem: dx.MergeProblem, name: str, params: dict[str, Tensor]) -> dict[str, float]:
    """Loss and score of one model."""
    return {"loss": problem.tasks[name].mean_loss(params), "score": problem.tasks[name].score(params)}


def show(out: Path, console: Console) -> None:
    """Print the models and the figures by kind of merge and by task, on seen and on unseen examples."""
    stored = json.loads(out.read_text())
    rows, rules = stored["rows"], list(stored["rows"][0]["predicted"])
    models = Table(title="Loss and score of the base and of each expert on the seen examples")
    for column in ("task", "base loss", "expert loss", "base score", "expert score"):
        models.add_column(column, justify="left" if column == "task" else "right")
    for name, each in stored["models"].items():
        models.add_row(name, *(f"{each[who][key]:.3f}" for key in ("loss", "score") for who in ("base", "expert")))
    console.print(models)
    slices = {"all": rows}
    for size, values in COEFFICIENTS.items():
        for value in values:
            slices[f"{size} experts at {value:g}"] = [
                row for row in rows if len(row["merge"]) == size and row["merge"][row["task"]] == value
            ]
    slices |= {name: [row for row in rows if row["task"] == name] for name in stored["models"]}
    for where, count in stored["examples"].items():
        console.print(table_of(f"Merges of language models, on {count} {where} examples", slices, rules, where))


def quick(folder: Path) -> Parts:
    """Tiny models that have learned where answers end, so that no score is zero."""
    study, names = quick_study(), COMPONENTS[:3]
    make_base(load_entries(SAMPLE), QUICK_BASE, folder / "base")
    base, recipe = Loaded(folder / "base"), replace(QUICK_RECIPE, steps=40, learning_rate=1e-2)
    make_experts(study, names, base, recipe, folder)
    return parts_of(study, names, Loaded(folder / "base"), recipe, folder)


def parts_of(study: Study, names: Sequence[str], base: Loaded, recipe: Recipe, folder: Path) -> Parts:
    """Study, base and the experts by name."""
    return Parts(study, base, {name: load_expert(study.tasks[name], base, recipe, folder) for name in names})


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark or show what is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="dry run on the shipped sample")
    parser.add_argument("--show", action="store_true", help="print the tables from the stored results")
    parser.add_argument("--threads", type=int, default=1, help="threads (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    console = Console(width=210)
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            run(quick(Path(folder)), Path(folder) / "quick.json", (4, 4), console)
            show(Path(folder) / "quick.json", console)
        return
    if not options.show:
        run(parts_of(load_study(), COMPONENTS, Loaded(), Recipe(), EXPERTS), options.out, (SEEN, UNSEEN), console)
    show(options.out, console)


if __name__ == "__main__":
    main()
