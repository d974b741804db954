"""Do angles between columns, or overlaps of feature use, tell which pairs of experts lose what in a merge?

python -m benchmarks.orthogonality             # the digits at three seeds, a minute on one core
python -m benchmarks.orthogonality --minilm    # adds six MiniLM experts (see benchmarks.minilm), some minutes
python -m benchmarks.orthogonality --show      # the tables from the stored results
python -m benchmarks.orthogonality --quick     # a dry run
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

import diagnostics as dx
from benchmarks.records import read_record, write_record
from diagnostics.demo.digits import build_digits
from diagnostics.measures.orthogonality import Orthogonality, orthogonality
from diagnostics.verdicts.feature_use import FeatureSpecialisation, task_feature_specialisation

RESULTS = Path(__file__).parent / "results" / "orthogonality.json"
SEEDS = range(3)
COEFFICIENTS = (0.5, 1.0)
SIDES = ("columns", "rows")
MINILM = ("section-en", "section-fr", "language", "role", "toolkit", "purpose")
# Angles and use are measured on the first examples of the test split, merges evaluated on those that follow.
EXAMPLES, USE_EXAMPLES = 128, 32
EXCHANGES = 2000

Rows = dict[str, Any]


def measure(problem: dx.MergeProblem, test: Mapping[str, dx.Task], **options: int) -> Rows:
    """Everything about one set of experts: angles, use of features and the merges of all pairs."""
    angles = {side: orthogonality(problem.base, problem.experts, side=side) for side in SIDES}
    use = task_feature_specialisation(problem, **options)
    shape = dx.geometry(problem.base, problem.experts)
    own = {name: test[name].score(problem.experts[name]) for name in problem.names}
    pairs = []
    for i, j in combinations(range(len(problem.names)), 2):
        names = (problem.names[i], problem.names[j])
        lost = {}
        for coefficient in COEFFICIENTS:
            merged = problem.merged(dict.fromkeys(names, coefficient))
            kept = [test[name].score(merged) / own[name] for name in names]
            lost[f"{coefficient:g}"] = 1 - float(np.mean(kept))
        pairs.append({"pair": names, "lost": lost, "told": told(angles, use, shape, i, j)})
    experts = {name: expert(angles, use, index) for index, name in enumerate(problem.names)}
    totals = {"base": {side: angles[side].base / angles[side].base_null for side in SIDES}} | levels(use)
    return {"pairs": pairs, "experts": experts, "totals": totals, "cost": str(use.cost)}


def told(angles: Mapping[str, Orthogonality], use: FeatureSpecialisation, shape: dx.Geometry, i: int, j: int) -> Rows:
    """What each measure says of a pair; the more of it, the more should be lost."""
    found = {"|cosine| of task vectors": abs(float(shape.cosine[i, j]))}
    found["length of task vectors"] = float(shape.norms[[i, j]].mean())
    for side, each in angles.items():
        found[f"{side} between / null"] = float(each.cosine.ratio[i, j])
        found[f"same {side[:-1]} / null"] = float(each.matched.ratio[i, j])
        found[f"{side}, cos² between / null"] = float(each.square.ratio[i, j])
        found[f"{side} inside / null"] = float(each.cosine.ratio.diagonal()[[i, j]].mean())
    found["overlap of feature use"] = float(use.total.overlap[i, j])
    found["overlap over chance"] = float(use.total.overlap[i, j] / use.total.chance[i, j])
    return found


def expert(angles: Mapping[str, Orthogonality], use: FeatureSpecialisation, index: int) -> Rows:
    """Angles inside an expert's update, and how its task keeps to its own features."""
    inside = {side: float(each.cosine.ratio[index, index]) for side, each in angles.items()}
    parts = ("ceiling", "outside", "outside_chance")
    return {"inside": inside, "own": int(use.total.own[index])} | {
        key: float(getattr(use.total, key)[index]) for key in parts
    }


def levels(use: FeatureSpecialisation) -> Rows:
    """Means over tasks and pairs of what specialisation implies."""
    count = len(use.names)
    off = ~np.eye(count, dtype=bool)
    keys = ("overlap", "chance", "cosine", "weights")
    between = {key: float(np.nanmean(getattr(use.total, key).numpy()[off])) for key in keys}
    inside = float(np.nanmean(use.total.weights.diagonal().numpy()))
    rest = {"weights_inside": inside, "weights_null": use.total.weights_null, "shared": use.total.shared}
    return between | rest | {"ceiling": float(use.total.ceiling.mean()), "features": features(use)}


def features(use: FeatureSpecialisation) -> int:
    """Number of features looked at."""
    return int(use.total.own.sum()) + use.total.shared + use.total.idle


def run(out: Path, quick: bool, console: Console) -> None:
    """Measure the digits at every seed and store what was found."""
    record = {} if quick else read_record(out)
    record["digits"] = {}
    for seed in SEEDS[: 1 if quick else None]:
        console.print(f"digits, seed {seed}")
        demo = build_digits(steps=20 if quick else 300, seed=seed)
        record["digits"][str(seed)] = measure(demo.problem, demo.test)
        write_record(out, record)


def run_minilm(out: Path, console: Console) -> None:
    """Measure six MiniLM experts and store what was found."""
    from benchmarks.minilm.experts import load_problem_parts
    from benchmarks.prediction.measure import problem_of

    started = time.perf_counter()
    parts = load_problem_parts(MINILM)
    problem = problem_of(parts, 0, USE_EXAMPLES)
    test = problem_of(parts, USE_EXAMPLES, USE_EXAMPLES + EXAMPLES).tasks
    record = read_record(out)
    record["minilm"] = {"0": measure(problem, test, max_outputs=8)}
    write_record(out, record)
    console.print(f"MiniLM: {time.perf_counter() - started:.0f} s")


def show(out: Path, console: Console) -> None:
    """Print levels, and how each measure ranks the pairs."""
    record = json.loads(out.read_text())
    for part, sets in record.items():
        show_levels(part, sets, console)
        table = Table(title=f"{part}: rank correlation with the share of the score that a pair loses, chance beside it")
        for column in ("measure", *(f"at {coefficient:g}" for coefficient in COEFFICIENTS)):
            table.add_column(column, justify="left" if column == "measure" else "right")
        for name in next(iter(sets.values()))["pairs"][0]["told"]:
            table.add_row(name, *(ranked(sets, name, f"{coefficient:g}") for coefficient in COEFFICIENTS))
        console.print(table)


def show_levels(part: str, sets: Rows, console: Console) -> None:
    """Print what is orthogonal and what is specialised, in means over seeds."""

    def mean(values: Any) -> float:
        return float(np.mean(list(values)))

    table = Table(title=f"{part}: mean |cos| in multiples of chance, means over experts, pairs and {len(sets)} seed(s)")
    for column in ("", "inside the base", "inside an update", "between two", "same index, between two"):
        table.add_column(column, justify="right" if column else "left")
    for side in SIDES:
        base = mean(each["totals"]["base"][side] for each in sets.values())
        inside = mean(e["inside"][side] for each in sets.values() for e in each["experts"].values())
        keys = (f"{side} between / null", f"same {side[:-1]} / null")
        between = [mean(pair["told"][key] for each in sets.values() for pair in each["pairs"]) for key in keys]
        table.add_row(side, *(f"{value:.2f}" for value in (base, inside, *between)))
    console.print(table)
    totals = {key: mean(each["totals"][key] for each in sets.values()) for key in next(iter(sets.values()))["totals"]
              if key != "base"}  # fmt: skip
    outside, chance = (
        mean(e[key] for each in sets.values() for e in each["experts"].values())
        for key in ("outside", "outside_chance")
    )
    console.print(
        f"use of features: overlap {totals['overlap']:.3f}, by chance {totals['chance']:.3f}, with itself "
        f"{totals['ceiling']:.3f}; outside the own set {outside:.1%}, by chance {chance:.1%}; "
        f"{totals['shared'] / totals['features']:.0%} of features shared\nweight vectors of the base: mean |cos| "
        f"{totals['weights']:.3f} across sets, {totals['weights_inside']:.3f} inside, null {totals['weights_null']:.3f}"
    )


def ranked(sets: Rows, name: str, coefficient: str) -> str:
    """Mean over the sets of a measure's rank correlation, and how large |it| is by chance in 95 of 100 cases."""
    found, chance = [], []
    generator = np.random.default_rng(0)
    for each in sets.values():
        values = np.array([pair["told"][name] for pair in each["pairs"]])
        lost = np.array([pair["lost"][coefficient] for pair in each["pairs"]])
        members = [pair["pair"] for pair in each["pairs"]]
        found.append(spearmanr(values, lost).statistic)
        chance.append([spearmanr(relabelled(values, members, generator), lost).statistic for _ in range(EXCHANGES)])
    limit = np.quantile(np.abs(np.mean(chance, axis=0)), 0.95)
    value = float(np.mean(found))
    return "none" if math.isnan(value) else f"{value:+.2f} ({limit:.2f})"


def relabelled(values: np.ndarray, pairs: list[list[str]], generator: np.random.Generator) -> np.ndarray:
    """The values with the experts' names exchanged: pairs that have an expert in common are not independent."""
    names = sorted({name for pair in pairs for name in pair})
    other = dict(zip(names, generator.permutation(names), strict=True))
    place = {frozenset(pair): index for index, pair in enumerate(pairs)}
    return values[[place[frozenset((other[a], other[b]))] for a, b in pairs]]


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark or show what is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a dry run")
    parser.add_argument("--show", action="store_true", help="print the tables from the stored results")
    parser.add_argument("--minilm", action="store_true", help="measure the MiniLM experts, and not the digits")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    console = Console(width=110)
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder) / "quick.json", True, console)
            show(Path(folder) / "quick.json", console)
        return
    if options.minilm:
        run_minilm(options.out, console)
    elif not options.show:
        run(options.out, False, console)
    show(options.out, console)


if __name__ == "__main__":
    main()
