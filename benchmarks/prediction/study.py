"""How well merges of MiniLM experts are predicted, next to other predictors, on tasks that nothing was fitted to.

python -m benchmarks.prediction.study            # predict and score; needs what benchmarks.prediction.measure stores
python -m benchmarks.prediction.study --show     # the tables from the stored rows
python -m benchmarks.prediction.study --quick    # a dry run on the shipped sample
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import rankdata

from benchmarks.minilm.data import SAMPLE, read_tasks
from benchmarks.minilm.experts import EXPERTS, QUICK, load_problem_parts, make_experts
from benchmarks.prediction.measure import FOLDER, measure_outcomes, measure_table, problem_of
from benchmarks.prediction.metrics import linear_predictor, load_metrics, pair_metrics
from benchmarks.prediction.plan import GROUPS
from benchmarks.prediction.predict import Row, rows_of
from diagnostics.report.json import write_json

RESULTS = Path(__file__).parent.parent / "results" / "prediction.json"
OURS = "coefficient process (ours)"
RESAMPLES, SEED = 1000, 0
TOLERANCE = 0.1


def vectors(rows: Sequence[Row], metrics: dict | None = None) -> dict[str, dict[str, np.ndarray]]:
    """Predicted retention and loss gap by predictor; a score without units stands for both."""
    expert = np.array([row["seen"]["expert_loss"] for row in rows])
    found = {
        OURS: {
            "retention": np.array([row["retention"]["examples"][0] for row in rows]),
            "gap": np.array([row["loss"]["examples"][0] for row in rows]) - expert,
        }
    }
    for rule in rows[0]["baselines"]:
        found[rule] = {
            "retention": np.array([row["baselines"][rule]["retention"] for row in rows]),
            "gap": np.array([row["baselines"][rule]["loss"] for row in rows]) - expert,
        }
    partners, own = partner_means(rows), own_means(rows)
    found["partner mean (leave-one-out)"], found["own-task mean (leave-one-out)"] = partners, own
    # A merge is as good as its task and its partners are on average: neither effect is counted twice.
    found["additive task effects (leave-one-out)"] = {
        kind: own[kind] + partners[kind] - truth(rows)[kind].mean() for kind in own
    }
    found["chance: the mean of all rows"] = {
        kind: np.full(len(rows), values.mean()) for kind, values in truth(rows).items()
    }
    if metrics:
        found["linear in pair metrics (fitted)"] = {"retention": linear_predictor(rows, metrics)}
    for rule in ("mean cosine with the partners", "size of the partners' updates"):
        score = np.array([row["similarities"][rule] for row in rows])
        found[rule] = {"score": score}
    return found


def truth(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Measured retention and loss gap on the examples that predictions were made from."""
    return {
        "retention": np.array([row["seen"]["retention"] for row in rows]),
        "gap": np.array([row["seen"]["loss"] - row["seen"]["expert_loss"] for row in rows]),
    }


def partner_means(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """What other tasks lost in merges with the same partners: a rule that needs evaluated merges."""
    return _means(
        rows,
        lambda row, other: (
            other["task"] != row["task"] and bool((set(row["merge"]) - {row["task"]}) & set(other["merge"]))
        ),
    )


def own_means(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """What the same task lost in merges with other partners: a rule that needs evaluated merges."""
    return _means(rows, lambda row, other: other["task"] == row["task"])


def _means(rows: Sequence[Row], alike: Callable[[Row, Row], bool]) -> dict[str, np.ndarray]:
    """Mean outcome over other merges of the family that are alike."""
    real, found = truth(rows), {"retention": [], "gap": []}
    for row in rows:
        chosen = [
            index
            for index, other in enumerate(rows)
            if other["family"] == row["family"] and other["merge"] != row["merge"] and alike(row, other)
        ]
        for kind, values in found.items():
            values.append(real[kind][chosen].mean() if chosen else math.nan)
    return {kind: np.array(values) for kind, values in found.items()}


def pearson(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson correlation over what both know; NaN where one side is constant."""
    known = np.isfinite(first) & np.isfinite(second)
    first, second = first[known], second[known]
    return (
        float(np.corrcoef(first, second)[0, 1])
        if len(first) > 2 and min(first.std(), second.std()) > 1e-12
        else math.nan
    )


def mean_error(told: np.ndarray, real: np.ndarray) -> float:
    """Mean absolute error in points, over the rows that are told at all; NaN where none is."""
    errors = np.abs(told - real)[np.isfinite(told)]
    return 100 * float(errors.mean()) if len(errors) else math.nan


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Rank correlation."""
    return pearson(rankdata(first), rankdata(second))


def auc(score: np.ndarray, good: np.ndarray) -> float:
    """Probability that a good merge is ranked above one that is not."""
    positive, negative = int(good.sum()), int((~good).sum())
    if not positive or not negative:
        return math.nan
    return float((rankdata(score)[good].sum() - positive * (positive + 1) / 2) / (positive * negative))


def residual(values: np.ndarray, rows: Sequence[Row]) -> np.ndarray:
    """What is left when the mean of the same task in the same family is taken away."""
    keys = [(row["family"], row["task"]) for row in rows]
    means = {key: values[[index for index, each in enumerate(keys) if each == key]].mean() for key in set(keys)}
    return values - np.array([means[key] for key in keys])


def merged(values: np.ndarray, rows: Sequence[Row]) -> np.ndarray:
    """The worst task of each merge, in order of first appearance."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        groups[f"{row['family']}{row.get('draw', '')}{row['merge']}"].append(index)
    return np.array([values[members].min() for members in groups.values()])


def scores(rows: Sequence[Row], found: dict[str, np.ndarray]) -> dict[str, float]:
    """Every figure of one predictor."""
    real = truth(rows)
    retention = found.get("retention", found.get("score"))
    gap = found.get("gap", -retention)
    mild = np.array([max(row["merge"].values()) <= 1 for row in rows])
    many = np.array([len(row["merge"]) > 2 for row in rows])
    pairs = [row for row in rows if len(row["merge"]) == 2]
    kept = merged(real["retention"], rows) >= 1 - TOLERANCE
    kept_pairs = merged(real["retention"][~many], pairs) >= 1 - TOLERANCE
    units = "retention" in found
    return {
        "retention r": pearson(retention, real["retention"]),
        "retention MAE": mean_error(retention, real["retention"]) if units else math.nan,
        "gap Spearman, coefficients to 1": spearman(gap[mild], real["gap"][mild]),
        "gap Spearman, all": spearman(gap, real["gap"]),
        "residual retention r": pearson(residual(retention, rows), residual(real["retention"], rows)),
        "residual gap r": pearson(residual(gap, rows), residual(real["gap"], rows)),
        "3-5-way retention Spearman": spearman(retention[many], real["retention"][many]),
        "3-5-way gap Spearman": spearman(gap[many], real["gap"][many]),
        "failure AUC, pairs": auc(merged(retention[~many], pairs), kept_pairs),
        "failure AUC, all": auc(merged(retention, rows), kept),
    }


def coverage(rows: Sequence[Row]) -> dict[str, float]:
    """Share of 90 % intervals that hold: on the same examples, and on unseen ones with their own sampling error."""
    found = {}
    for kind in ("retention", "loss"):
        held = [row[kind]["examples"][1] - 1e-9 <= row["seen"][kind] <= row[kind]["examples"][2] + 1e-9 for row in rows]
        found[f"{kind}, same examples"] = float(np.mean(held))
        inside = []
        for row in rows:
            value, lower, upper = row[kind]["population"]
            extra, real = 1.645 * row["unseen"][f"{kind}_stderr"], row["unseen"][kind]
            inside.append(value - math.hypot(value - lower, extra) <= real <= value + math.hypot(upper - value, extra))
        found[f"{kind}, unseen examples"] = float(np.mean(inside))
    return found


def resampled(
    rows: Sequence[Row], figure: Callable[[Sequence[int]], dict[str, float]]
) -> dict[str, tuple[float, float]]:
    """90 % intervals of figures over resampled tasks: all rows of a task in a family are drawn together."""
    clusters: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        clusters[row["family"], row["task"]].append(index)
    keys, rng, draws = list(clusters), np.random.default_rng(SEED), []
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(keys), size=len(keys))
        draws.append(figure([index for each in drawn for index in clusters[keys[each]]]))
    return {name: _middle([draw[name] for draw in draws]) for name in draws[0]}


def _middle(values: Sequence[float]) -> tuple[float, float]:
    """Where the middle 90 % of the values that exist lie."""
    known = [value for value in values if math.isfinite(value)]
    return tuple(np.quantile(known, [0.05, 0.95]).tolist()) if known else (math.nan, math.nan)


def show(rows: list[Row], console: Console, metrics: dict | None = None) -> None:
    """Print the tables."""
    found, lost = vectors(rows, metrics), truth(rows)["retention"] < 1 - TOLERANCE
    worst = merged(truth(rows)["retention"], rows)
    console.print(
        f"{len(worst)} merges, {len(rows)} rows; {np.mean(worst < 1 - TOLERANCE):.0%} of the merges lose more than "
        f"10 % on some task, {lost.mean():.0%} of the rows"
    )
    scored = {name: scores(rows, values) for name, values in found.items()}
    table = Table(title="Predictors of merges, no merge evaluated unless it says leave-one-out")
    table.add_column("")
    for name in scored:
        table.add_column(name, justify="right")
    for figure in scored[OURS]:
        table.add_row(figure, *(f"{values[figure]:.3f}" for values in scored.values()))
    console.print(table)
    ours = found[OURS]

    def of(chosen: Sequence[int]) -> dict[str, float]:
        part = [rows[index] for index in chosen]
        return scores(part, {kind: values[list(chosen)] for kind, values in ours.items()}) | coverage(part)

    intervals, values = resampled(rows, of), scored[OURS] | coverage(rows)
    table = Table(title="Ours, with 90 % intervals over resampled tasks")
    for column in ("figure", "value", "interval"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for name, value in values.items():
        table.add_row(name, f"{value:.3f}", f"{intervals[name][0]:.3f} to {intervals[name][1]:.3f}")
    console.print(table)
    console.print(by_slice(rows, ours))


def by_slice(rows: list[Row], ours: dict[str, np.ndarray]) -> Table:
    """Ours by family, number of experts and largest coefficient."""
    table = Table(title="Ours by kind of merge")
    for column in ("", "rows", "lose > 10 %", "retention r", "MAE", "gap Spearman", "coverage ret.", "coverage loss"):
        table.add_column(column, justify="right" if column else "left")
    slices: dict[str, Callable[[Row], bool]] = {f: (lambda row, f=f: row["family"] == f) for f in GROUPS}
    slices |= {f"{n} experts": (lambda row, n=n: len(row["merge"]) == n) for n in (2, 3, 4, 5)}
    slices["not looked at before"] = fresh
    slices["average"] = lambda row: len(set(row["merge"].values())) == 1 and abs(sum(row["merge"].values()) - 1) < 0.01
    slices["largest coefficient up to 1"] = lambda row: max(row["merge"].values()) <= 1
    slices["largest coefficient above 1"] = lambda row: max(row["merge"].values()) > 1
    for name, member in slices.items():
        chosen = [index for index, row in enumerate(rows) if member(row)]
        if len(chosen) < 3:
            continue
        part = [rows[index] for index in chosen]
        figures, real = scores(part, {kind: values[chosen] for kind, values in ours.items()}), truth(part)
        held = coverage(part)
        table.add_row(
            name, str(len(part)), f"{np.mean(real['retention'] < 0.9):.0%}", f"{figures['retention r']:.3f}",
            f"{figures['retention MAE']:.2f}", f"{figures['gap Spearman, all']:.3f}",
            f"{held['retention, same examples']:.2f}", f"{held['loss, same examples']:.2f}",
        )  # fmt: skip
    return table


def fresh(row: Row) -> bool:
    """Whether no outcome of the kind had been looked at when the process and its constants were chosen.

    Looked at were pairs of section-en, section-fr, role and toolkit in the family "full", the first group of "lora",
    and "lora-high".
    """
    names = set(row["merge"])
    if row["family"] == "full":
        return not (len(names) == 2 and names <= {"section-en", "section-fr", "role", "toolkit"})
    return row["family"] == "full-high" or (row["family"] == "lora" and names <= set(GROUPS["lora"][1]))


def collect() -> list[Row]:
    """Rows of every group that has been measured."""
    rows: list[Row] = []
    for family, groups in GROUPS.items():
        for number, group in enumerate(groups):
            folder = FOLDER / family / str(number)
            if not (folder / "outcomes.safetensors").exists():
                print(f"{family} {number}: run python -m benchmarks.prediction.measure --family {family} first")
                continue
            rows += rows_of(load_problem_parts(group, folder=EXPERTS / family), folder, family)
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Run the study or show what is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="dry run on the shipped sample")
    parser.add_argument("--show", action="store_true", help="print the tables from the stored rows")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    console = Console(width=200)
    if options.show:
        stored = json.loads(options.out.read_text())
        show(stored["rows"], console, stored["metrics"])
        return
    if options.quick:
        show(*quick_run(console))
        return
    rows, metrics = collect(), load_metrics()
    write_json(options.out, {"rows": rows, "metrics": metrics})
    show(rows, console, metrics)


def quick_run(console: Console) -> tuple[list[Row], Console, dict]:
    """Rows and pair metrics of experts of two steps on the shipped sample."""
    with tempfile.TemporaryDirectory() as name:
        tasks, folder = read_tasks(SAMPLE), Path(name)
        make_experts(tasks, QUICK, folder)
        parts = load_problem_parts(tasks=tasks, folder=folder)
        for task in tasks:
            measure_table(problem_of(parts, 0, 2), task, folder / "0" / f"{task}.safetensors")
        measure_outcomes(problem_of(parts, 0, 4), folder / "0" / "outcomes.safetensors")
        metrics = {"full": pair_metrics(problem_of(parts, 0, 4))}
        return rows_of(parts, folder / "0", "full", seen=2), console, metrics


if __name__ == "__main__":
    main()
