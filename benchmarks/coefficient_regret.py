"""Chosen coefficients against the best of a full grid of evaluated merges, on the digits demo.

python -m benchmarks.coefficient_regret             # results/coefficient_regret.json, some minutes on 2 cores
python -m benchmarks.coefficient_regret --show      # the table from the stored results
python -m benchmarks.coefficient_regret --quick     # a dry run
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import diagnostics as dx
from diagnostics.demo.digits import build_digits
from diagnostics.report.json import write_json

RESULTS = Path(__file__).parent / "results" / "coefficient_regret.json"
# Aligned, independent, contradictory and crowded ones.
SETS = (
    ("digits", "noisy"),
    ("digits", "rotated"),
    ("digits", "reversed"),
    ("parity", "loops"),
    ("rotated", "large"),
    ("noisy", "parity"),
    ("digits", "noisy", "parity"),
    ("rotated", "loops", "large"),
    ("digits", "reversed", "parity"),
)
JOIN = {"mean": np.mean, "worst": np.min}
VERIFY = (0, 5)
GUESSES = (0.3, 0.5, 1.0)


def run(out: Path, quick: bool, console: Console) -> None:
    """Choose and evaluate for every set of experts, and store one row for each choice."""
    problem = build_digits(steps=20 if quick else 300, seed=0).problem
    rows: list[dict[str, Any]] = []
    for names in SETS[:1] if quick else SETS:
        console.print(" + ".join(names))
        axis = np.linspace(0, 1.5, 4 if quick else 16).round(2)
        grid = np.array([retentions(problem, names, point) for point in product(axis, repeat=len(names))])
        rows += choices(problem, names, grid)
        write_json(out, {"quick": quick, "examples": 400, "grid": axis.tolist(), "choices": rows})


def retentions(problem: dx.MergeProblem, names: tuple[str, ...], point: tuple[float, ...]) -> list[float]:
    """Retention of each task at a merge, evaluated."""
    merged, tasks = problem.merged(dict(zip(names, point, strict=True))), problem.tasks
    own = {name: problem.cached(("own", name), lambda n=name: tasks[n].score(problem.experts[n])) for name in names}
    return [tasks[name].score(merged) / own[name] for name in names]


def choices(problem: dx.MergeProblem, names: tuple[str, ...], grid: np.ndarray) -> Iterator[dict[str, Any]]:
    """One row for each objective and number of verifications."""
    for objective, join in JOIN.items():
        best = float(join(grid, axis=1).max())
        guesses = {f"{value:g} each": value for value in GUESSES} | {"average": 1 / len(names)}
        others = {key: float(join(retentions(problem, names, (v,) * len(names)))) for key, v in guesses.items()}
        for verify in VERIFY:
            choice = dx.best_coefficients(problem, names, objective=objective, verify=verify)
            value = float(join(retentions(problem, names, tuple(choice.coefficients[name] for name in names))))
            yield {
                "experts": names,
                "objective": objective,
                "verify": verify,
                "coefficients": choice.coefficients,
                "predicted": choice.objective.to_dict(),
                "regret_bound": choice.regret.upper,
                "value": value,
                "best": best,
                "guesses": others,
                "candidates": choice.candidates,
                "cost": choice.cost.to_dict(),
                "grid_evaluations": len(grid),
            }


def show(out: Path, console: Console) -> None:
    """Print a row for each set of experts and objective, and means."""
    rows = json.loads(out.read_text())["choices"]
    table = Table(title="Regret of chosen coefficients, points of retention below the best of the grid")
    for column in ("experts", "objective", "best", *map("verify {}".format, VERIFY), *guess_names(rows)):
        table.add_column(column, justify="left" if column in {"experts", "objective"} else "right")
    keys = list(dict.fromkeys((tuple(row["experts"]), row["objective"]) for row in rows))
    for key in keys:
        found = [row for row in rows if (tuple(row["experts"]), row["objective"]) == key]
        values = [row["value"] for row in found] + [found[0]["guesses"][name] for name in guess_names(rows)]
        lost = [points(found[0]["best"] - value) for value in values]
        table.add_row(" + ".join(key[0]), key[1], f"{100 * found[0]['best']:.1f}", *lost)
    console.print(table)
    for verify in VERIFY:
        told = [row for row in rows if row["verify"] == verify]
        lost = [row["best"] - row["value"] for row in told]
        held = sum(each <= row["regret_bound"] + 1e-9 for each, row in zip(lost, told, strict=True))
        inside = sum(
            row["predicted"]["lower"] - 1e-6 <= row["value"] <= row["predicted"]["upper"] + 1e-6 for row in told
        )
        console.print(
            f"verify {verify}: mean regret {points(float(np.mean(lost)))}, largest {points(max(lost))}; "
            f"within the bound told in {held} of {len(told)}, objective inside its interval in {inside}"
        )
    first = [row for row in rows if row["verify"] == VERIFY[0]]
    for name in guess_names(rows):
        lost = [row["best"] - row["guesses"][name] for row in first]
        console.print(f"{name}: mean regret {points(float(np.mean(lost)))}, largest {points(max(lost))}")


def guess_names(rows: list[dict[str, Any]]) -> list[str]:
    """Names of the usual guesses."""
    return list(rows[0]["guesses"])


def points(value: float) -> str:
    """A difference of retentions in percentage points."""
    return f"{100 * value:.2f}"


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark or show what is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a dry run")
    parser.add_argument("--show", action="store_true", help="print the table from the stored results")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    console = Console(width=110)
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
