"""Does the disentanglement error rank merges by what they lose? ξ, its differential form, the cosine and outcomes.

ξ is measured on probe examples without labels, retention on test examples. ξ needs the merge itself, so it explains a
loss more than it predicts one; the differential form and the cosine need no merge.

python -m benchmarks.disentanglement            # digits at three seeds; results/disentanglement.json, a minute
python -m benchmarks.disentanglement --minilm   # MiniLM experts (benchmarks.minilm.experts once), in the same file
python -m benchmarks.disentanglement --show     # the tables from the stored results
python -m benchmarks.disentanglement --quick    # a dry run
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import rankdata

import diagnostics as dx
from benchmarks.records import read_record, write_record
from diagnostics.demo.digits import build_digits
from diagnostics.verdicts.disentanglement import DisentanglementError, disentanglement_errors

RESULTS = Path(__file__).parent / "results" / "disentanglement.json"
POINTS = (0.5, 1.0)
SEEDS = (0, 1, 2)
TASKS = ("section-en", "section-fr", "language", "role", "toolkit", "section-shifted")
PROBE = 128
DRAWS = 2000
# What a merge loses, as a share of the expert's score: beside the expert, and beside θ0 + λτ alone, as in ξ.
OUTCOMES = {"lost": lambda row: 1 - row["retention"], "added": lambda row: row["alone"] - row["retention"]}
# The columns of the table; at λ = 1 the two outcomes are one.
COLUMNS = {"lost at 0.5": ("lost", 0.5), "lost beside θ0 + 0.5τ": ("added", 0.5), "lost at 1": ("lost", 1.0)}
# What is set against the loss of retention; "merge" says whether the merge has to be run.
PREDICTORS = {
    "ξ hard": ("hard", "merge"),
    "ξ soft": ("soft", "merge"),
    "E‖Jτ‖ relative, centred": ("relative_centred", "no merge"),
    "E‖Jτ‖ relative": ("relative", "no merge"),
    "E‖Jτ‖ centred": ("centred", "no merge"),
    "E‖Jτ‖": ("raw", "no merge"),
    "cosine": ("cosine", "no merge"),
    "|cosine|": ("cosine_size", "no merge"),
}

Accuracy = Callable[[str, Mapping[str, torch.Tensor]], float]
Row = dict[str, Any]


def measure(problem: dx.MergeProblem, accuracy: Accuracy) -> list[Row]:
    """A row for each pair of experts, coefficient and task disturbed."""
    cosines = dx.geometry(problem.base, problem.experts).cosine
    own = {
        (name, point): accuracy(name, problem.merged({name: point}))
        for name in problem.names
        for point in (1.0, *POINTS)
    }
    rows = []
    for error in disentanglement_errors(problem, [(point, point) for point in POINTS]):
        pair = (error.first, error.second)
        cosine = float(cosines[problem.names.index(pair[0]), problem.names.index(pair[1])])
        for place, point in enumerate(POINTS):
            merged = problem.merged(dict.fromkeys(pair, point))
            for task in pair:
                score = accuracy(task, merged)
                rows.append(
                    {"pair": list(pair), "coefficient": point, "task": task}
                    | parts_of(error, task, place)
                    | {"cosine": cosine, "cosine_size": abs(cosine)}
                    | {"retention": score / own[task, 1.0], "alone": own[task, point] / own[task, 1.0]}
                )
    return rows


def parts_of(error: DisentanglementError, task: str, place: int) -> dict[str, float]:
    """What was measured on one task's inputs."""
    slopes = error.differential[task]
    kinds = ("raw", "centred", "relative", "relative_centred")
    hard, soft = error.hard_by_task[task], error.soft_by_task[task]
    found = {"hard": float(hard.values[place]), "hard_stderr": float(hard.stderr[place])}
    return found | {"soft": float(soft.values[place])} | {kind: getattr(slopes, kind).value for kind in kinds}


def digits(seeds: Sequence[int], steps: int, console: Console) -> dict[str, list[Row]]:
    """The digits demo at several seeds."""
    found = {}
    for seed in seeds:
        demo = build_digits(steps=steps, seed=seed)
        found[str(seed)] = measure(demo.problem, lambda name, params, test=demo.test: test[name].score(params))
        console.print(f"digits, seed {seed}: {len(found[str(seed)])} rows")
    return found


def minilm(parts: Any, count: int) -> list[Row]:
    """MiniLM experts of real text tasks."""
    from benchmarks.minilm_bounds import build

    def accuracy(name: str, params: Mapping[str, torch.Tensor]) -> float:
        inputs, targets = parts.data[name]["test"]
        with torch.no_grad():
            logits = torch.func.functional_call(parts.module(name), dict(params), args=(), kwargs=inputs)
        return float((logits.argmax(1) == targets).double().mean())

    return measure(build(parts, "probe", count), accuracy)


def by_pair(rows: Sequence[Row]) -> list[Row]:
    """Both tasks of a pair together: sums of what is disturbed, and the mean loss of retention."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((*row["pair"], row["coefficient"]), []).append(row)
    kinds = [kind for kind, _ in PREDICTORS.values()]
    return [
        {"pair": list(key[:2]), "coefficient": key[2]}
        | {outcome: float(np.mean([loss(row) for row in group])) for outcome, loss in OUTCOMES.items()}
        | {kind: sum(row[kind] for row in group) for kind in kinds}
        for key, group in groups.items()
    ]


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's; NaN where one side is constant."""
    one, two = rankdata(first), rankdata(second)
    return float(np.corrcoef(one, two)[0, 1]) if one.std() and two.std() else float("nan")


def correlation(runs: Sequence[Sequence[Row]], kind: str, outcome: str) -> tuple[float, float, float]:
    """Mean over runs of the rank correlation with an outcome, and its 90 % interval by resampling runs and tasks."""
    names = sorted({name for run in runs for row in run for name in row["pair"]})
    tables = [np.array([[row[kind], row[outcome]] for row in run]) for run in runs]
    members = [np.array([[names.index(name) for name in row["pair"]] for row in run]) for run in runs]
    generator, draws = np.random.default_rng(0), []
    for _ in range(DRAWS):
        copies = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))
        values = []
        for place in generator.integers(len(runs), size=len(runs)):
            # A pair counts as often as it could be formed out of the tasks drawn.
            often = copies[members[place]].prod(1)
            table = np.repeat(tables[place], often, axis=0)
            values.append(rank_correlation(*table.T) if (often > 0).sum() > 2 else np.nan)
        draws.append(np.mean(values))
    low, high = np.nanquantile(draws, [0.05, 0.95])
    return float(np.mean([rank_correlation(*table.T) for table in tables])), float(low), float(high)


def show(stored: dict, console: Console) -> None:
    """Print the tables."""
    groups = {"digits": list(stored["digits"].values())} | (
        {"MiniLM": [stored["minilm"]]} if "minilm" in stored else {}
    )
    for title, runs in groups.items():
        table = Table(title=f"{title}: rank correlation with what a pair loses")
        for column in ("measure", "needs", *COLUMNS):
            table.add_column(column, justify="left" if column in {"measure", "needs"} else "right")
        whole = [by_pair(run) for run in runs]
        for name, (kind, needs) in PREDICTORS.items():
            cells = []
            for outcome, point in COLUMNS.values():
                some = [[row for row in run if row["coefficient"] == point] for run in whole]
                value, low, high = correlation(some, kind, outcome)
                cells.append(f"{value:+.2f} [{low:+.2f}, {high:+.2f}]")
            table.add_row(name, needs, *cells)
        table.caption = (
            f"{len(runs)} run(s), {len(whole[0]) // len(POINTS)} pairs each; 90 % by resampling tasks and runs"
        )
        console.print(table)
        console.print(spread(whole))


def spread(runs: Sequence[Sequence[Row]]) -> Table:
    """How large ξ and the loss are, and the pairs at both ends."""
    table = Table(title="ξ and what is lost, mean of both tasks and all runs")
    for column in ("pair", *(f"{what} at {point:g}" for point in POINTS for what in ("ξ", "soft", "lost", "beside"))):
        table.add_column(column, justify="left" if column == "pair" else "right")
    rows: dict[str, list[list[float]]] = {}
    for row in sorted((row for run in runs for row in run), key=lambda row: row["coefficient"]):
        rows.setdefault(" + ".join(row["pair"]), []).append([row["hard"], row["soft"], row["lost"], row["added"]])
    for pair, values in sorted(rows.items(), key=lambda item: item[1][-1][0]):
        means = np.array(values).reshape(len(POINTS), -1, 4).mean(1)
        table.add_row(pair, *(f"{value:.2f}" for value in means.flatten()))
    return table


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark or show what is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a dry run")
    parser.add_argument("--minilm", action="store_true", help="the MiniLM experts instead of the digits")
    parser.add_argument("--show", action="store_true", help="print the tables from the stored results")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    console = Console(width=130)
    if options.show:
        show(read_record(options.out), console)
        return
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "quick.json" if options.quick else options.out
        stored, started = read_record(out), time.perf_counter()
        if options.minilm and not options.quick:
            from benchmarks.minilm.experts import load_problem_parts

            stored["minilm"] = minilm(load_problem_parts(TASKS), PROBE)
            stored["minilm_seconds"] = round(time.perf_counter() - started)
        else:
            stored["digits"] = digits(SEEDS[:1] if options.quick else SEEDS, 20 if options.quick else 300, console)
        write_record(out, stored)
        show(stored, console)


if __name__ == "__main__":
    main()
