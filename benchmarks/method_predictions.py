"""Predictions of merges by methods that trim, drop or elect, next to simpler rules, on the digit experts.

python -m benchmarks.method_predictions             # results/method_predictions.json, some minutes on 1 core
python -m benchmarks.method_predictions --show      # the tables from the stored results
python -m benchmarks.method_predictions --quick     # a dry run
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import diagnostics as dx
from benchmarks.prediction.study import OURS, TOLERANCE, pearson, spearman
from diagnostics.demo.digits import build_digits
from diagnostics.inputs.tasks import Parameters
from diagnostics.measures.merge_methods import method_contributions
from diagnostics.measures.vectors import inner, shifted
from diagnostics.report.json import write_json
from diagnostics.verdicts.mergeability import LOSS_SHARE, QUANTILE, SCORE_SHARE

RESULTS = Path(__file__).parent / "results" / "method_predictions.json"
SEEDS = (2, 3, 4)
# How many sets of so many experts are drawn.
DRAWN = {2: 15, 3: 8, 5: 4}
# With equal coefficients the two conventions of ties agree, so one of them gets these, in the order of the experts.
UNEQUAL = (1.0, 0.4, 0.7, 0.5, 0.8)
# Method, coefficient of every expert, settings: adding methods at the usual coefficients, and at 1 those that divide.
METHODS: dict[str, tuple[str, float | tuple[float, ...], dict[str, Any]]] = {
    "task arithmetic, 0.5": ("task_arithmetic", 0.5, {}),
    "task arithmetic, 1": ("task_arithmetic", 1.0, {}),
    "mean": ("mean", 1.0, {}),
    "ties, density 0.2": ("ties", 1.0, {"density": 0.2}),
    "ties, density 0.5": ("ties", 1.0, {"density": 0.5}),
    "ties of mergekit, unequal, 0.5": ("ties", UNEQUAL, {"density": 0.5, "convention": "mergekit"}),
    "dare linear, density 0.5, 0.5": ("dare_linear", 0.5, {"density": 0.5}),
    "dare ties, density 0.5": ("dare_ties", 1.0, {"density": 0.5}),
    "magnitude prune, density 0.2": ("magnitude_prune", 1.0, {"density": 0.2}),
}
PLAIN = "as task arithmetic"
NEAREST = "as the nearest task arithmetic"
ALONE = "own part alone"

Row = dict[str, Any]
Merge = dict[str, float]


def run(out: Path, quick: bool, console: Console) -> None:
    """Predict and then make every merge, at every seed."""
    rows: list[Row] = []
    for seed in SEEDS[: 1 if quick else None]:
        problem = build_digits(steps=20 if quick else 300, seed=seed).problem
        for label in METHODS:
            # What is measured for a merge of this kind serves no other: a problem of its own lets go of it.
            own = dx.MergeProblem(problem.base, problem.experts, problem.tasks)
            for names in sets(problem.names, seed, {2: 1, 3: 1} if quick else DRAWN):
                rows += rows_of(problem, own, names, label, seed)
            console.print(f"seed {seed}, {label}: {len(rows)} rows")
            shares = {"loss": LOSS_SHARE, "retention": SCORE_SHARE}
            write_json(out, {"quick": quick, "shares": shares, "rows": rows})


def sets(names: Sequence[str], seed: int, drawn: dict[int, int]) -> Iterator[tuple[str, ...]]:
    """The sets of experts that are merged: distinct, and in the order of the problem."""
    chooser = random.Random(seed)
    for size, count in drawn.items():
        found: dict[tuple[str, ...], None] = {}
        while len(found) < count:
            found.setdefault(tuple(sorted(chooser.sample(names, size), key=list(names).index)))
        yield from found


def rows_of(
    plain: dx.MergeProblem, problem: dx.MergeProblem, names: tuple[str, ...], label: str, seed: int
) -> Iterator[Row]:
    """Predict one merge by all rules, then make it: one row a task."""
    method, given, settings = METHODS[label]
    merge = dict(zip(names, given, strict=False)) if isinstance(given, tuple) else dict.fromkeys(names, given)
    ours = dx.predict_merge(problem, merge, method=method, about="examples", **settings)
    parts = method_contributions(problem.task_vectors, merge, method, **settings)
    nearest = {
        name: inner(parts[name], tau) / inner(tau, tau) for name, tau in plain.task_vectors.items() if name in merge
    }
    others = {PLAIN: merge, NEAREST: nearest}
    told = {OURS: ours} | {rule: dx.predict_merge(plain, each, about="examples") for rule, each in others.items()}
    merged = shifted(problem.base, 1.0, dx.merged_update(problem.task_vectors, merge, method, **settings))
    for name in merge:
        alone = measured(problem, name, shifted(problem.base, 1.0, parts[name]))
        rules = {rule: point_of(each.tasks[name]) for rule, each in told.items()}
        yield {
            "family": f"seed {seed}",
            "method": label,
            "merge": merge,
            "task": name,
            "seen": measured(problem, name, merged),
            "predicted": rules | {ALONE: {key: alone[key] for key in ("loss", "retention")}},
            "intervals": {"seen": interval_of(ours.tasks[name])},
        }


def measured(problem: dx.MergeProblem, name: str, params: Parameters) -> dict[str, float]:
    """Loss and retention of a task at given parameters, on all its examples."""
    task, expert = problem.tasks[name], problem.experts[name]
    own = problem.cached(("own", name), lambda: (task.mean_loss(expert), task.score(expert)))
    return {"loss": task.mean_loss(params), "expert_loss": own[0], "retention": task.score(params) / own[1]}


def point_of(told: dx.TaskPrediction) -> dict[str, float]:
    """The predicted values."""
    return {"loss": told.loss.value, "retention": told.retention.value}


def interval_of(told: dx.TaskPrediction) -> dict[str, list[float]]:
    """Their 90 % intervals."""
    return {key: [getattr(told, key).lower, getattr(told, key).upper] for key in ("loss", "retention")}


def figures(rows: Sequence[Row], rule: str, where: str = "seen") -> dict[str, float]:
    """How well a rule predicts what was measured ``where``; a score without units is only ranked."""
    real = np.array([row[where]["retention"] for row in rows])
    gap = np.array([row[where]["loss"] - row[where]["expert_loss"] for row in rows])
    told = [row["predicted"][rule] for row in rows]
    if "score" in told[0]:
        score = np.array([each["score"] for each in told])
        return {"MAE": math.nan, "r": pearson(score, real), "gap": spearman(-score, gap)}
    retention = np.array([each["retention"] for each in told])
    rise = np.array([each["loss"] - row["seen"]["expert_loss"] for each, row in zip(told, rows, strict=True)])
    return {
        "MAE": 100 * float(np.abs(retention - real).mean()),
        "r": pearson(retention, real),
        "gap": spearman(rise, gap),
    }


def coverage(rows: Sequence[Row], where: str = "seen") -> dict[str, float]:
    """Share of our intervals that hold what was measured, each widened by the measurement's own error."""
    return {kind: float(np.mean([_held(row, kind, where) for row in rows])) for kind in ("retention", "loss")}


def _held(row: Row, kind: str, where: str) -> bool:
    """Whether an interval holds."""
    value, (lower, upper) = row["predicted"][OURS][kind], row["intervals"][where][kind]
    extra, real = QUANTILE * row[where].get(f"{kind}_stderr", 0.0), row[where][kind]
    below, above = math.hypot(value - lower, extra), math.hypot(upper - value, extra)
    return value - below - 1e-6 <= real <= value + above + 1e-6  # float32 and float64 differ in the last digits


def lost(rows: Sequence[Row], where: str = "seen") -> float:
    """Share of rows that lose more than the tolerance."""
    return float(np.mean([row[where]["retention"] < 1 - TOLERANCE for row in rows]))


def table_of(title: str, slices: dict[str, list[Row]], rules: Sequence[str], where: str = "seen") -> Table:
    """For each slice of the rows how many there are, and the figures of ours in full and of other rules."""
    table = Table(title=title, caption="retention MAE in points / Pearson r of retention / Spearman r of the loss gap")
    for column in ("", "rows", "lose > 10 %", *rules, "90 % held: retention", "loss"):
        table.add_column(column, justify="right" if column else "left")
    filled = {name: rows for name, rows in slices.items() if rows}  # a run that was cut short has not come to all
    for name, rows in filled.items():
        held = coverage(rows, where)
        cells = [_cell(figures(rows, rule, where)) for rule in rules]
        table.add_row(
            name, str(len(rows)), f"{lost(rows, where):.0%}", *cells, f"{held['retention']:.2f}", f"{held['loss']:.2f}"
        )
    return table


def _cell(found: dict[str, float]) -> str:
    """Three figures."""
    error = "-" if math.isnan(found["MAE"]) else f"{found['MAE']:.2f}"
    return f"{error} / {found['r']:.3f} / {found['gap']:.3f}"


def show(out: Path, console: Console) -> None:
    """Print the figures by method and by number of experts."""
    rows = json.loads(out.read_text())["rows"]
    rules = list(rows[0]["predicted"])
    by_method = {label: [row for row in rows if row["method"] == label] for label in METHODS}
    other = [row for row in rows if not row["method"].startswith(("task arithmetic", "mean"))]
    slices = by_method | {"all that trim or drop": other}
    for size in sorted({len(row["merge"]) for row in rows}):
        slices[f"of these, {size} experts"] = [row for row in other if len(row["merge"]) == size]
    console.print(table_of("Merges of digit experts by every method, on the examples of the prediction", slices, rules))


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark or show what is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a dry run")
    parser.add_argument("--show", action="store_true", help="print the tables from the stored results")
    parser.add_argument("--threads", type=int, default=1, help="threads (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    console = Console(width=210)
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder) / "quick.json", True, console)
            show(Path(folder) / "quick.json", console)
        return
    if not options.show:
        run(options.out, False, console)
    show(options.out, console)


if __name__ == "__main__":
    main()
