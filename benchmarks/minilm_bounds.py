"""Loss-gap bounds on MiniLM experts of real text tasks: gap, chain, L and L^S.

python -m benchmarks.minilm.experts          # once: fine-tunes the experts (20 minutes on 2 cores)
python -m benchmarks.minilm_bounds           # resumes where it stopped; results/minilm_bounds.json
python -m benchmarks.minilm_bounds --show    # the tables from the stored results
python -m benchmarks.minilm_bounds --quick   # a dry run on the sample shipped with the scripts
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional

import diagnostics as dx
from diagnostics.report.json import write_json

RESULTS = Path(__file__).parent / "results" / "minilm_bounds.json"
TASKS = ("section-en", "section-fr", "implemented-in", "role", "toolkit", "interface")
# A gap below this is within what 64 examples can tell from zero; its ratio to a bound says nothing.
SMALL_GAP = 0.02
RUNGS = {
    "upper sum along the way": "upper sum",
    "largest curvature along the way": "largest curvature",
    "task subspace L^S (2.10)": "L^S",
    "spectral norm L (2.5)": "spectral norm",
    "paper, L C (1 + eps) (2.1)": "(2.1)",
}


def build(parts: Any, split: str, count: int) -> dx.MergeProblem:
    """A merge problem over the first examples of a split."""
    tasks = {}
    for name in parts.experts:
        inputs, targets = parts.data[name][split]
        data = ({key: value[:count] for key, value in inputs.items()}, targets[:count])
        tasks[name] = dx.Task.from_module(
            name, parts.module(name), functional.cross_entropy, data, batch_size=64, parameters=list(parts.base)
        )
    return dx.MergeProblem(parts.base, parts.experts, tasks)


def merges(names: tuple[str, ...]) -> Iterable[dict[str, float]]:
    """Every pair at one half each, some triples and the average of all: the simplex that (2.1) is about."""
    for pair in combinations(names, 2):
        yield dict.fromkeys(pair, 0.5)
    for first in range(0, len(names) - 2, 3):
        yield dict.fromkeys(names[first : first + 3], 1 / 3)
    if len(names) > 3:
        yield dict.fromkeys(names, 1 / len(names))


def measure(problem: dx.MergeProblem, merge: dict[str, float]) -> dict:
    """Bound the loss gaps of one merge."""
    started = time.perf_counter()
    reports = dx.addition_bounds(problem, merge, rtol=0.05)
    return {
        "merge": merge,
        "bounds": {name: report.to_dict() for name, report in reports.items()},
        "seconds": {"bounds": time.perf_counter() - started},
    }


def run(parts: Any, out: Path, count: int, console: Console) -> dict:
    """Measure every merge that is not yet in the file."""
    names = tuple(parts.experts)
    settings = {"tasks": list(names), "curvature": count}
    stored = json.loads(out.read_text()) if out.exists() else {}
    rows = stored.get("rows", []) if stored.get("settings") == settings else []
    done = [row["merge"] for row in rows]
    problem = build(parts, "probe", count)
    for merge in merges(names):
        if merge in done:
            continue
        rows.append(measure(problem, merge))
        head = {"settings": settings, "threads": torch.get_num_threads(), "machine": platform.machine()}
        write_json(out, {**head, "rows": rows})
        console.print(f"{len(rows)}: {', '.join(merge)} ({sum(rows[-1]['seconds'].values()):.0f} s)")
    return json.loads(out.read_text())


def rung(report: dict, key: str) -> float:
    """Value of the step of a stored chain whose label holds ``key``."""
    return next((value for label, value in report["chain"] if key in label), math.nan)


def show(stored: dict, console: Console) -> None:
    """Print the tables."""
    pairs = [(row, name, report) for row in stored["rows"] for name, report in row["bounds"].items()]
    table = Table(title="Loss gap and its bounds, per merge and task", show_lines=False)
    columns = ("merge", "task", "gap", "best", "L^S bound", "L bound", "paper", "const", "L^S", "L")
    for column in columns:
        table.add_column(column, justify="left" if column in {"merge", "task"} else "right")
    for row, name, report in pairs:
        label = "+".join(row["merge"]) if len(row["merge"]) < 4 else f"all {len(row['merge'])}"
        room = (report["constant_loss"] or math.nan) - report["reference_loss"]
        table.add_row(
            label, name, f"{report['gap']:.3f}", f"{report['best']:.3f}", f"{rung(report, 'L^S'):.2f}",
            f"{rung(report, 'spectral norm'):.1f}", f"{report['bound']:.0f}", f"{room:.2f}",
            f"{report['quantities']['L_S']:.2f}", f"{report['quantities']['L']:.0f}",
        )  # fmt: skip
    console.print(table)
    console.print("const: gap of a constant prediction")
    console.print(summary_of_bounds(pairs))
    console.print(summary_of_quantities(stored["rows"], pairs))


def summary_of_bounds(pairs: list) -> Table:
    """How tight each rung is, and how often it says nothing."""
    table = Table(title=f"Bounds over {len(pairs)} (merge, task) pairs")
    for column in ("bound", "median bound / gap", "holds", "not vacuous"):
        table.add_column(column, justify="left" if column == "bound" else "right")
    large = [item for item in pairs if item[2]["gap"] > SMALL_GAP]
    for title, key in RUNGS.items():
        ratios = [rung(report, key) / report["gap"] for _, _, report in large]
        holds = sum(report["gap"] <= rung(report, key) + 1e-6 for _, _, report in pairs)
        useful = sum(rung(report, key) + report["reference_loss"] < report["constant_loss"] for _, _, report in pairs)
        table.add_row(title, f"{statistics.median(ratios):.3g}", f"{holds}/{len(pairs)}", f"{useful}/{len(pairs)}")
    small = len(pairs) - len(large)
    table.caption = f"ratios over the {len(large)} pairs with a gap above {SMALL_GAP}; {small} smaller or negative gaps"
    return table


def summary_of_quantities(rows: list, pairs: list) -> Table:
    """The range of what entered, and how often each assumption failed."""
    reports = [report for _, _, report in pairs]
    seconds = sum(sum(row["seconds"].values()) for row in rows)
    table = Table(title=f"What entered ({seconds / 60:.0f} minutes in all)")
    for column in ("quantity", "smallest", "largest"):
        table.add_column(column, justify="left" if column == "quantity" else "right")
    values = {"gap": [report["gap"] for report in reports], "paper's bound": [report["bound"] for report in reports]}
    values |= {key: [report["quantities"][key] for report in reports] for key in ("L", "L_S", "slope")}
    values["best / gap"] = [report["best"] / report["gap"] for report in reports if report["gap"] > SMALL_GAP]
    for name, numbers in values.items():
        table.add_row(name, f"{min(numbers):.3g}", f"{max(numbers):.3g}")
    failed = {
        name: sum(report["assumptions"][name]["holds"] is False for report in reports)
        for name in reports[0]["assumptions"]
    }
    table.caption = "assumptions failed: " + ", ".join(f"{name} {count}/{len(pairs)}" for name, count in failed.items())
    return table


def quick_parts() -> Any:
    """Experts of two steps on the shipped sample."""
    from benchmarks.minilm.data import SAMPLE, read_tasks
    from benchmarks.minilm.experts import QUICK, load_problem_parts, make_experts

    with tempfile.TemporaryDirectory() as folder:
        tasks = read_tasks(SAMPLE)
        make_experts(tasks, QUICK, Path(folder))
        return load_problem_parts(tasks=tasks, folder=Path(folder))


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark or show what is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="dry run on the shipped sample")
    parser.add_argument("--show", action="store_true", help="print the tables from the stored results")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    console = Console(width=150)
    if options.show:
        show(json.loads(options.out.read_text()), console)
        return
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            show(run(quick_parts(), Path(folder) / "quick.json", 4, console), console)
        return
    from benchmarks.minilm.experts import load_problem_parts

    show(run(load_problem_parts(TASKS), options.out, 64, console), console)


if __name__ == "__main__":
    main()
