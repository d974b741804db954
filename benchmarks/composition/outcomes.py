"""Does the best merge of two fine-tuned models match the model fine-tuned on their composition? The measured answer.

python -m benchmarks.composition.base        # once: trains the base model (20 minutes on 2 cores)
python -m benchmarks.composition.experts     # once: fine-tunes every component and target (45 minutes on 1 core)
python -m benchmarks.composition.outcomes    # resumes where it stopped; results/composition_outcomes.json
python -m benchmarks.composition.outcomes --show    # the table from the stored results
python -m benchmarks.composition.outcomes --quick   # a dry run on the sample shipped with the scripts
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_args

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.composition.base import BASE, QUICK_BASE, make_base
from benchmarks.composition.data import FOLDER, SAMPLE, load_entries, load_study
from benchmarks.composition.experts import (
    EXPERTS,
    QUICK_RECIPE,
    Loaded,
    Recipe,
    file_of,
    load_expert,
    make_experts,
    names_of,
)
from benchmarks.composition.model import Scores, Tokens, evaluate, set_parameters
from benchmarks.composition.tasks import QUICK_SIZES, Family, Study, Target
from benchmarks.records import read_record, replace, write_record
from diagnostics.report.provenance import versions

OUTCOMES = FOLDER / "outcomes"

RESULTS = Path(__file__).parents[1] / "results" / "composition_outcomes.json"

Point = tuple[float, ...]


@dataclass(frozen=True)
class Search:
    """Coefficients tried on the validation split: a grid, and around its best point steps of half its spacing."""

    values: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
    refinement: float = 0.125


QUICK_SEARCH = Search((0.0, 1.0), 0.5)


class Merges:
    """θ0 + λ1 τ1 + λ2 τ2 for two experts, evaluated."""

    def __init__(self, base: Loaded, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
        self.base = base
        self.vectors = [{name: each[name] - base.parameters[name] for name in each} for each in (first, second)]

    def evaluate(self, point: Point, rows: list[Tokens]) -> Scores:
        """Losses and exact matches of the merge at a point."""
        merged = {
            name: start + sum(weight * vector[name] for weight, vector in zip(point, self.vectors, strict=True))
            for name, start in self.base.parameters.items()
        }
        return evaluate_at(self.base, merged, rows)


def evaluate_at(base: Loaded, parameters: Mapping[str, Tensor], rows: list[Tokens]) -> Scores:
    """Losses and exact matches at given parameters."""
    set_parameters(base.model, parameters)
    return evaluate(base.model, rows, base.pad)


def search(merges: Merges, rows: list[Tokens], settings: Search) -> tuple[Point, list[dict[str, Any]]]:
    """The coefficients of the smallest validation loss, and every point tried."""
    tried = [_try(merges, point, rows) for point in product(settings.values, repeat=2)]
    first, second = min(tried, key=lambda each: each["loss"])["point"]
    steps = product((-settings.refinement, 0.0, settings.refinement), repeat=2)
    tried += [_try(merges, (first + one, second + two), rows) for one, two in steps if (one, two) != (0.0, 0.0)]
    best = min(tried, key=lambda each: each["loss"])["point"]
    return tuple(best), tried


def _try(merges: Merges, point: Point, rows: list[Tokens]) -> dict[str, Any]:
    """Loss and exact match at a point."""
    scores = merges.evaluate(point, rows).summary()
    return {"point": list(point), "loss": round(scores["loss"], 4), "exact": round(scores["exact"], 4)}


def measure(study: Study, target: Target, base: Loaded, recipe: Recipe, settings: Search, folder: Path) -> dict:
    """The outcome of one target: the search on its validation split, and everything on its test split."""
    started = time.perf_counter()
    names = (*target.components, target.name)
    first, second, tuned = (load_expert(study.tasks[name], base, recipe, folder) for name in names)
    merges, task = Merges(base, first, second), study.tasks[target.name]
    best, tried = search(merges, base.rows(task, "val"), settings)
    test = base.rows(task, "test")
    scores = {
        "base": evaluate_at(base, base.parameters, test),
        "first": evaluate_at(base, first, test),
        "second": evaluate_at(base, second, test),
        "fine-tuned": evaluate_at(base, tuned, test),
        "best merge": merges.evaluate(best, test),
        "sum": merges.evaluate((1.0, 1.0), test),
        "mean": merges.evaluate((0.5, 0.5), test),
    }
    return {
        "best": list(best),
        "validation": tried,
        "test": {name: each.summary() for name, each in scores.items()},
        "test_losses": {name: [round(loss, 3) for loss in each.losses.tolist()] for name, each in scores.items()},
        "test_exact": {name: "".join(str(int(hit)) for hit in each.exact) for name, each in scores.items()},
        "seconds": round(time.perf_counter() - started, 1),
    }


def run(
    study: Study, names: Iterable[str], base: Loaded, recipe: Recipe, settings: Search, experts: Path, folder: Path
) -> list[dict[str, Any]]:
    """Measure targets, each into a file of its own, unless it is there already of the same experts and search."""
    rows = []
    for name in names:
        target, path = study.targets[name], folder / f"{file_of(name)}.json"
        identity = {
            "base": base.digest,
            "data": [study.tasks[each].digest for each in (*target.components, name)],
            "recipe": asdict(recipe),
            "search": asdict(settings) | {"values": list(settings.values)},
        }
        row = read_record(path)
        if any(row.get(key) != value for key, value in identity.items()):
            row = {**asdict(target), **identity, **measure(study, target, base, recipe, settings, experts)}
            write_record(path, row)
            print(f"{name}: {row['best']}, {row['seconds']} s", flush=True)
        rows.append(row)
    return rows


def collect(rows: list[dict[str, Any]], head: dict[str, Any], out: Path) -> None:
    """All outcomes in one file, a line each: indented, the losses of single examples would take a line each."""
    shared = ("base", "recipe", "search")
    head = {"versions": versions(), "machine": platform.machine(), **head, **{key: rows[0][key] for key in shared}}
    lines = [json.dumps({key: value for key, value in row.items() if key not in shared}) for row in rows]
    text = json.dumps(head, indent=2).removesuffix("\n}") + ',\n  "rows": [\n' + ",\n".join(lines) + "\n  ]\n}\n"
    replace(out, lambda temporary: temporary.write_text(text))


def show(stored: dict[str, Any], console: Console) -> None:
    """Print loss and exact match of every target."""
    kinds = ("base", "first", "second", "fine-tuned", "best merge", "sum", "mean")
    for score, title in (("loss", "Test loss"), ("exact", "Exact matches on the test split")):
        table = Table(title=title)
        for column in ("target", "family", "best λ", *kinds):
            table.add_column(column)
        for row in stored["rows"]:
            values = (f"{row['test'][kind][score]:.3f}" for kind in kinds)
            table.add_row(row["name"], row["family"], ", ".join(f"{each:g}" for each in row["best"]), *values)
        console.print(table)


def quick_study() -> Study:
    """Every task, a few examples each, from the sample."""
    return load_study(QUICK_SIZES, load_entries(SAMPLE))


def dry_run(folder: Path) -> dict[str, Any]:
    """Everything once: a tiny model, two steps of each training, the first target of each family."""
    study = quick_study()
    base_record = make_base(load_entries(SAMPLE), QUICK_BASE, folder / "base")
    base = Loaded(folder / "base")
    first = {target.family: target.name for target in reversed(study.targets.values())}
    names = list(first.values())
    made_of = [part for name in names for part in (*study.targets[name].components, name)]
    experts = make_experts(study, dict.fromkeys(made_of), base, QUICK_RECIPE, folder / "experts")
    rows = run(study, names, base, QUICK_RECIPE, QUICK_SEARCH, folder / "experts", folder / "outcomes")
    collect(rows, {"base_model": base_record, "experts": experts}, folder / "outcomes.json")
    return read_record(folder / "outcomes.json")


def main(arguments: list[str] | None = None) -> None:
    """Measure every target and print the outcomes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.composition.outcomes", description=main.__doc__)
    parser.add_argument("--families", nargs="+", choices=get_args(Family), help="measure these and do not collect")
    parser.add_argument("--threads", type=int, default=1, help="threads (%(default)s)")
    parser.add_argument("--show", action="store_true", help="only print the stored results")
    parser.add_argument("--quick", action="store_true", help="a dry run on the sample, in a temporary folder")
    options = parser.parse_args(arguments)
    console = Console(width=160)
    torch.set_num_threads(options.threads)
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            show(dry_run(Path(folder)), console)
        return
    if not options.show:
        study, base, recipe = load_study(), Loaded(), Recipe()
        chosen = set(options.families or get_args(Family))
        names = [each.name for each in study.targets.values() if each.family in chosen]
        rows = run(study, names, base, recipe, Search(), EXPERTS, OUTCOMES)
        if options.families:
            return
        experts = make_experts(study, names_of(study, get_args(Family)), base, recipe)
        collect(rows, {"base_model": read_record(BASE / "record.json"), "experts": experts}, RESULTS)
    show(read_record(RESULTS), console)


if __name__ == "__main__":
    main()
