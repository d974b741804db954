"""TIES and DARE merges of MiniLM experts, predicted without making them and then made.

python -m benchmarks.prediction.methods            # a run that was cut short goes on
python -m benchmarks.prediction.methods --show     # the table from the stored rows
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import diagnostics as dx
from benchmarks.minilm.experts import EXPERTS, load_problem_parts
from benchmarks.prediction.measure import FOLDER, problem_of
from benchmarks.prediction.predict import outcome
from benchmarks.prediction.study import RESULTS, pearson, spearman
from benchmarks.records import read_record, write_record
from diagnostics.report.json import write_json

EXAMPLES = 128
PAIRS = {
    "full": (("section-en", "section-shifted"),),
    "full-high": (("role", "role-shifted"),),
    "lora": (("purpose", "implemented-in"),),
    "lora-high": (("implemented-in", "works-with"),),
}
METHODS: dict[str, tuple[float, dict[str, Any]]] = {
    "TIES, density 0.2": (1.0, {"method": "ties", "density": 0.2}),
    "DARE with TIES, density 0.5": (1.0, {"method": "dare_ties", "density": 0.5}),
    "DARE, density 0.5": (0.5, {"method": "dare_linear", "density": 0.5}),
}


def rows_of(family: str, pair: tuple[str, str], folder: Path) -> list[dict]:
    """Predict and make the merges of a pair, each stored once."""
    rows = []
    problem = None
    for method, (value, settings) in METHODS.items():
        path = folder / family / "methods" / f"{'+'.join(pair)}, {method}.json"
        if not path.exists():
            if problem is None:
                problem = problem_of(load_problem_parts(pair, folder=EXPERTS / family), 0, EXAMPLES)
            write_record(path, {"rows": _predict(problem, family, method, dict.fromkeys(pair, value), settings)})
            print(f"{family}, {' + '.join(pair)}, {method}", flush=True)
        rows += read_record(path)["rows"]
    return rows


def _predict(
    problem: dx.MergeProblem, family: str, method: str, merge: dict[str, float], settings: dict[str, Any]
) -> list[dict]:
    """One row for each task of a merge."""
    told = dx.predict_merge(problem, merge, about="examples", **settings)
    parts = dx.method_contributions(problem.task_vectors, merge, **settings)
    update = {key: sum(part[key] for part in parts.values()) for key in problem.base}
    rows = []
    for name, task in problem.tasks.items():
        targets = task.batches[0][1]
        points = {"merge": update, "own part alone": parts[name], "expert": problem.task_vectors[name]}
        out = {key: task.outputs({k: v + move[k] for k, v in problem.base.items()})[0] for key, move in points.items()}
        rows.append(
            {
                "family": family,
                "merge": merge,
                "method": method,
                "task": name,
                "seen": outcome(out["merge"], out["expert"], targets),
                "own part alone": outcome(out["own part alone"], out["expert"], targets),
                "retention": [getattr(told.tasks[name].retention, end) for end in ("value", "lower", "upper")],
                "loss": [getattr(told.tasks[name].loss, end) for end in ("value", "lower", "upper")],
            }
        )
    return rows


def show(rows: list[dict], console: Console) -> None:
    """Print a row for each method."""
    table = Table(title="TIES and DARE on MiniLM: retention MAE in points / r / Spearman r of the loss gap")
    for column in ("", "rows", "lose > 10 %", "this package", "own part alone", "retention held", "loss held"):
        table.add_column(column, justify="right" if column else "left")
    for label in (*METHODS, "all"):
        part = [row for row in rows if label in ("all", row["method"])]
        real = np.array([row["seen"]["retention"] for row in part])
        loss, own = (np.array([row["seen"][kind] for row in part]) for kind in ("loss", "expert_loss"))
        told = {
            "this package": ([row["retention"][0] for row in part], [row["loss"][0] for row in part]),
            "own part alone": tuple([row["own part alone"][kind] for row in part] for kind in ("retention", "loss")),
        }
        cells = [
            f"{100 * np.abs(np.array(kept) - real).mean():.1f} / {pearson(np.array(kept), real):.3f} / "
            f"{spearman(np.array(lost) - own, loss - own):.3f}"
            for kept, lost in told.values()
        ]
        held = [
            np.mean([row[kind][1] - 1e-9 <= row["seen"][kind] <= row[kind][2] + 1e-9 for row in part])
            for kind in ("retention", "loss")
        ]
        table.add_row(label, str(len(part)), f"{np.mean(real < 0.9):.0%}", *cells, *(f"{each:.2f}" for each in held))
    console.print(table)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark or show what is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", action="store_true", help="print the table from the stored rows")
    parser.add_argument("--family", choices=PAIRS, action="append", help="measure these families and stop")
    options = parser.parse_args(arguments)
    out, console = RESULTS.with_name("prediction_methods.json"), Console(width=140)
    if not options.show:
        rows = [row for f in options.family or PAIRS for pair in PAIRS[f] for row in rows_of(f, pair, FOLDER)]
        if options.family:
            return
        write_json(out, {"examples": EXAMPLES, "rows": rows})
    show(json.loads(out.read_text())["rows"], console)


if __name__ == "__main__":
    main()
