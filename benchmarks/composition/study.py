"""Do the error terms of section 1 predict where task arithmetic fails? Rank correlations over all targets.

python -m benchmarks.composition.study           # collects terms and outcomes; results/composition_study.json
python -m benchmarks.composition.study --show    # the tables from the stored results
python -m benchmarks.composition.study --quick   # a dry run on the sample shipped with the scripts

What is predicted and by what was written down before any outcome on a test split was seen; the learning rate of the
fine-tunes had been chosen after a look at validation losses of three merges (README.md). Main outcome: the share of the
loss improvement of fine-tuning that the best merge misses. Main predictor: the relative alignment error.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from benchmarks.composition import outcomes, terms
from benchmarks.composition.data import load_study
from benchmarks.composition.experts import EXPERTS, QUICK_RECIPE, Loaded, Recipe
from benchmarks.records import read_record
from diagnostics.report.json import write_json

RESULTS = Path(__file__).parents[1] / "results" / "composition_study.json"
# A merge succeeds if it keeps this share of what fine-tuning gains.
SUCCESS = 0.9
RESAMPLES = 2000

Row = dict[str, Any]


def term(name: str) -> Callable[[Row], float]:
    """The norm of a term in units of ‖g_*‖."""
    return lambda row: row["audit"]["terms"][name]["norm_unbiased"] / gradient_norm(row)


def gradient_norm(row: Row) -> float:
    """‖g_*‖, from the relative error of ∇ℰ."""
    return row["audit"]["error"]["norm"] / row["audit"]["relative"]


PREDICTORS: dict[str, Callable[[Row], float]] = {
    "relative alignment error (main)": lambda row: row["audit"]["relative_estimate"]["value"],
    "relative alignment error, biased": lambda row: row["audit"]["relative"],
    "alignment error": lambda row: row["audit"]["error"]["norm_unbiased"],
    "delta_1 + delta_2": lambda row: term("delta_1")(row) + term("delta_2")(row),
    "delta_star": term("delta_star"),
    "no_instruction": term("no_instruction"),
    "interaction_x": term("interaction_x"),
    "interaction_xy": term("interaction_xy"),
    "seam": term("seam"),
    "sum of the terms' norms": lambda row: sum(term(name)(row) for name in ("delta_1", "delta_2", "delta_star")),
    "target gradient outside span of task vectors": lambda row: row["slope"]["value"],
    "exploratory: target's Adam step outside span of components'": lambda row: row["preconditioned"]["outside"],
    "baseline: 1 - cosine of the two task vectors": lambda row: 1 - row["vectors"]["cosines"][1][2],
    "baseline: norm of the two task vectors": lambda row: math.hypot(*row["vectors"]["norms"][1:]),
    "baseline: zero-shot loss of the target": lambda row: row["audit"]["losses"]["the target's data, its instruction"],
    "baseline: smaller loss of the two experts": lambda row: min(
        row["test"][name]["loss"] for name in ("first", "second")
    ),
    "oracle: target vector outside their span": lambda row: row["vectors"]["outside"],
}
OUTCOMES: dict[str, Callable[[Row], float]] = {
    "missed share (main)": lambda row: missed(row, "loss"),
    "loss gap": lambda row: row["test"]["best merge"]["loss"] - row["test"]["fine-tuned"]["loss"],
    "exact-match gap": lambda row: row["test"]["fine-tuned"]["exact"] - row["test"]["best merge"]["exact"],
}


def missed(row: Row, score: str) -> float:
    """The share of what fine-tuning gains over the base that the best merge does not."""
    base, tuned, merged = (row["test"][kind][score] for kind in ("base", "fine-tuned", "best merge"))
    return (merged - tuned) / (base - tuned)


def correlate(rows: list[Row], seed: int = 0) -> dict[str, dict[str, dict[str, float]]]:
    """Spearman's rank correlation of every predictor with every outcome, with 90 % intervals.

    Targets are resampled; they share components, so that the intervals are narrower than for independent targets.
    """
    draws = np.random.default_rng(seed).integers(len(rows), size=(RESAMPLES, len(rows)))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for outcome, of in OUTCOMES.items():
        measured = np.array([of(row) for row in rows])
        found[outcome] = {}
        for name, predictor in PREDICTORS.items():
            values = np.array([predictor(row) for row in rows])
            again = np.array([_spearman(values[draw], measured[draw]) for draw in draws])
            lower, upper = np.nanquantile(again, [0.05, 0.95]) if np.isfinite(again).any() else (math.nan, math.nan)
            found[outcome][name] = {"r": _spearman(values, measured), "lower": float(lower), "upper": float(upper)}
    return found


def _spearman(values: np.ndarray, measured: np.ndarray) -> float:
    """Rank correlation; NaN where one of the two does not vary."""
    if np.ptp(values) == 0 or np.ptp(measured) == 0:
        return math.nan
    return float(spearmanr(values, measured).statistic)


def judge(rows: list[Row]) -> dict[str, dict[str, int]]:
    """How often each verdict went with success and with failure."""
    counts = {verdict: {"succeeded": 0, "failed": 0} for verdict in ("supported", "undecided", "refuted")}
    for row in rows:
        counts[row["audit"]["verdict"]]["failed" if missed(row, "loss") > 1 - SUCCESS else "succeeded"] += 1
    return counts


def groups_of(rows: list[Row]) -> dict[str, list[Row]]:
    """All targets, and those of the families that are large enough for a correlation."""
    controls = [row for row in rows if row["family"] == "multi-task"]
    return {"all": rows, "without multi-task": [row for row in rows if row not in controls]}


def analyse(measured: list[Row], results: list[Row]) -> dict[str, Any]:
    """Terms and outcomes side by side, and everything that is concluded from them."""
    by_name = {row["name"]: row for row in results}
    rows = [{**by_name[row["name"]], **row} for row in measured]
    keep = (
        "preconditioned",
        "name",
        "family",
        "best",
        "test",
        "audit",
        "merge_error",
        "gradient_fit",
        "vectors",
        "slope",
    )
    return {
        "success": SUCCESS,
        "correlations": {name: correlate(group) for name, group in groups_of(rows).items() if len(group) > 2},
        "verdicts": judge(rows),
        "rows": [{key: row[key] for key in keep} for row in rows],
    }


def show(stored: dict[str, Any], console: Console) -> None:
    """Print what came out."""
    show_targets(stored["rows"], console)
    for group, correlations in stored["correlations"].items():
        table = Table(title=f"Spearman's r with 90 % intervals, {group}")
        for column in ("predictor", *correlations):
            table.add_column(column)
        for name in PREDICTORS:
            cells = [correlations[outcome][name] for outcome in correlations]
            table.add_row(name, *(f"{c['r']:.2f} [{c['lower']:.2f}, {c['upper']:.2f}]" for c in map(_filled, cells)))
        console.print(table)
    for verdict, counts in stored["verdicts"].items():
        console.print(f"{verdict}: {counts['succeeded']} succeeded, {counts['failed']} failed")
    terms = [row["audit"]["terms"] for row in stored["rows"]]
    longest = [max(each, key=lambda name: each[name]["norm"]) for each in terms]
    causes = Counter(row["audit"]["cause"] for row in stored["rows"])
    console.print(f"longest term: {dict(Counter(longest))}; cause: {dict(causes)}")
    show_first_order(stored["rows"], console)


def show_first_order(rows: list[Row], console: Console) -> None:
    """Print how far task vectors are gradient steps, and what that leaves of the merge error."""
    cosines = [fit["cosine_estimate"]["value"] for row in rows for fit in row["gradient_fit"]]
    steps = [step for row in rows for _, step in row["preconditioned"]["cosines"]]
    parts = [row["merge_error"] for row in rows]
    console.print(
        f"cos(task vector, gradient): median {np.median(cosines):.2f}; with Adam's step, exploratory: "
        f"{np.median(steps):.2f}. With the coefficients of (1.5) the alignment error leaves a median of "
        f"{np.median([p['miss'] for p in parts]):.3f} of the merge error unexplained "
        f"({np.median([p['miss_as_stated'] for p in parts]):.3f} with the published sign)"
    )


def show_targets(rows: list[Row], console: Console) -> None:
    """Print a line for each target."""
    table = Table(title="Targets: relative alignment error against the share of fine-tuning's gain that is missed")
    for column in (
        "target",
        "family",
        "relative error",
        "verdict",
        "cause",
        "cancellation",
        "best λ",
        "missed",
        "exact",
    ):
        table.add_column(column)
    for row in sorted(rows, key=OUTCOMES["missed share (main)"]):
        audit = row["audit"]
        relative = _filled(audit["relative_estimate"], "value", "lower", "upper")
        exact = [row["test"][kind]["exact"] for kind in ("base", "best merge", "fine-tuned")]
        table.add_row(
            row["name"],
            row["family"],
            f"{relative['value']:.2f} [{relative['lower']:.2f}, {relative['upper']:.2f}]",
            audit["verdict"],
            audit["cause"] or "undecided",
            f"{audit['cancellation']:.2g}",
            ", ".join(f"{each:g}" for each in row["best"]),
            f"{missed(row, 'loss'):.0%}",
            " / ".join(f"{each:.2f}" for each in exact),
        )
    console.print(table)


def _filled(cell: Mapping[str, Any], *names: str) -> dict[str, float]:
    """Numbers back from JSON, where NaN is null and infinity a word."""
    return {key: math.nan if cell[key] is None else float(cell[key]) for key in names or cell}


def main(arguments: list[str] | None = None) -> None:
    """Measure what is missing, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.composition.study", description=main.__doc__)
    parser.add_argument("--show", action="store_true", help="only print the stored results")
    parser.add_argument("--quick", action="store_true", help="a dry run on the sample, in a temporary folder")
    options = parser.parse_args(arguments)
    console = Console(width=170)
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            show(quick(Path(folder)), console)
        return
    if not options.show:
        study, base = load_study(), Loaded()
        measured = terms.run(study, list(study.targets), base, Recipe(), EXPERTS, terms.TERMS)
        write_json(RESULTS, analyse(measured, read_record(outcomes.RESULTS)["rows"]))
    show(read_record(RESULTS), console)


def quick(folder: Path) -> dict[str, Any]:
    """Everything once on tiny models."""
    stored = outcomes.dry_run(folder)
    study = outcomes.quick_study()
    names = [row["name"] for row in stored["rows"]]
    base = Loaded(folder / "base")
    measured = terms.run(study, names, base, QUICK_RECIPE, folder / "experts", folder / "terms", examples=8)
    write_json(folder / "study.json", analyse(measured, stored["rows"]))
    return read_record(folder / "study.json")


if __name__ == "__main__":
    main()
