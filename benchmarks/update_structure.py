"""What updates are made of (3.4), and what smaller ones cost: predicted against measured.

python -m benchmarks.update_structure             # digits; results/update_structure.json, a minute on one core
python -m benchmarks.update_structure --minilm    # MiniLM experts (benchmarks.minilm.experts), the same file, 8 minutes
python -m benchmarks.update_structure --show      # the tables from the stored results
python -m benchmarks.update_structure --quick     # a dry run
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from benchmarks.records import read_record, write_record
from diagnostics.demo.digits import build_digits
from diagnostics.inputs.problem import MergeProblem
from diagnostics.measures.curvature import jet
from diagnostics.measures.outputs import directional_derivative
from diagnostics.measures.reductions import Reducer, Reduction
from diagnostics.measures.update_structure import UpdateStructure, update_structure
from diagnostics.verdicts.update_reduction import ROWS, ReductionReport, reduction_costs

RESULTS = Path(__file__).parent / "results" / "update_structure.json"
SEEDS = range(6)
# The width of the intervals was chosen at the seeds below this one.
UNSEEN = 3
RANKS = (1, 2, 4, 8, 16)
PAIRS = (("digits", "noisy"), ("digits", "rotated"), ("parity", "loops"), ("large", "reversed"), ("digits", "reversed"))
MINILM = ("section-en", "section-fr", "implemented-in", "role", "toolkit", "interface")
MINILM_PAIRS = (("section-en", "role"), ("toolkit", "interface"))
# LoRA's usual ranks. Predicting costs some eleven forward passes a reduction, so that not all are predicted.
PREDICTED, MEASURED = {"ranks": (1, 8), "rows": ()}, {"ranks": (2, 4, 16, 32), "rows": ROWS}
EXAMPLES = 128
# A task is kept where its accuracy falls by no more.
POINTS = 0.02


def describe(structure: UpdateStructure) -> dict[str, Any]:
    """The totals of one update, and the ranks of the matrices that hold most of it."""
    matrices = {
        each.name: {
            "share": each.square / structure.square,
            "ranks": [each.spectrum.rank_for(share).value for share in structure.shares],
            "rank_1": each.spectrum.kept(1).value,
        }
        for each in structure.matrices[:6]
        if each.spectrum is not None
    }
    return {
        "ranks": [structure.rank_for(share).value for share in structure.shares],
        "kept": {str(rank): [structure.kept(rank).value, structure.null_kept(rank)] for rank in (1, 2, 4, 8, 16, 32)},
        "held": {str(share): [structure.held(share), structure.null_held(share)] for share in ROWS},
        "zero": structure.entries.zero_share,
        "below": structure.entries.below_shares,
        "outside": structure.outside,
        "matrices": matrices,
    }


def records_of(report: ReductionReport, **about: Any) -> Iterator[dict[str, Any]]:
    """A record for each reduction of a report."""
    for each in report.costs:
        found = {
            key: None if value is None else [value.value, value.lower, value.upper, value.status.trusted]
            for key, value in (
                ("predicted", each.predicted),
                ("measured", each.measured),
                ("random", each.random),
                ("score", each.score),
            )
        }
        yield about | {
            "task": report.task,
            "coefficients": report.coefficients,
            "kind": each.reduction.kind,
            "amount": each.reduction.amount,
            "distance": each.distance,
            "numbers": each.numbers,
            "gain": report.gain.value,
            **found,
        }


def expansions(problem: MergeProblem, row: dict[str, Any]) -> dict[str, float]:
    """Two cheaper predictions: of the loss to second order, of the outputs to first."""
    task, lambdas = problem.tasks[row["task"]], row["coefficients"]
    point = problem.merged(lambdas)
    reduction = Reduction(row["kind"], row["amount"])
    change = {key: torch.zeros_like(value) for key, value in point.items()}
    for name, weight in lambdas.items():
        part = Reducer(problem.task_vectors[name], max(RANKS)).reduce(reduction)
        change = {key: each + weight * (part[key] - problem.task_vectors[name][key]) for key, each in change.items()}
    along = jet(task, point, change)
    outputs = zip(task.outputs(point), directional_derivative(task, point, change), strict=True)
    losses = [task.readout.losses(f + j, batch) for (f, j), batch in zip(outputs, task.batches, strict=True)]
    linear = float(torch.cat(losses).double().mean()) - task.mean_loss(point)
    return {"loss_quadratic": along.slope + along.curvature / 2, "outputs_linear": linear}


def digits(quick: bool, console: Console) -> dict[str, Any]:
    """Experts and merges of the digits at every seed."""
    rows, structures = [], {}
    ranks, shares = ((1, 8), (0.25,)) if quick else (RANKS, ROWS)
    for seed in SEEDS[: 1 if quick else None]:
        console.print(f"digits, seed {seed}")
        problem = build_digits(steps=40 if quick else 300, seed=seed).problem
        names = problem.names[: 2 if quick else None]
        structures[str(seed)] = {
            name: describe(update_structure(problem.base, problem.experts[name])) for name in names
        }
        merges = [({name: 1.0}, name) for name in names]
        merges += [(dict.fromkeys(pair, 0.5), name) for pair in PAIRS[: 1 if quick else None] for name in pair]
        for lambdas, name in merges:
            report = reduction_costs(problem, name, ranks=ranks, rows=shares, coefficients=lambdas, seed=seed)
            rows += [row | expansions(problem, row) for row in records_of(report, seed=seed)]
    return {"rows": rows, "structures": structures}


def minilm(console: Console) -> dict[str, Any]:
    """Experts and merges of MiniLM on the first probe examples."""
    from benchmarks.minilm.experts import load_problem_parts
    from benchmarks.minilm_bounds import build

    problem = build(load_problem_parts(MINILM), "probe", EXAMPLES)
    started, rows, structures = time.perf_counter(), [], {}
    for name in MINILM:
        console.print(f"MiniLM, {name}: {time.perf_counter() - started:.0f} s")
        structures[name] = describe(update_structure(problem.base, problem.experts[name]))
        rows += records_of(reduction_costs(problem, name, **PREDICTED))
        rows += records_of(reduction_costs(problem, name, **MEASURED, predict=False))
    for pair in MINILM_PAIRS:
        for name in pair:
            console.print(f"MiniLM, {name} of {pair}: {time.perf_counter() - started:.0f} s")
            merge = dict.fromkeys(pair, 0.5)
            rows += records_of(reduction_costs(problem, name, ranks=(1,), rows=(), coefficients=merge))
            rows += records_of(
                reduction_costs(problem, name, ranks=(8, 32), rows=(0.25,), coefficients=merge, predict=False)
            )
    return {"rows": rows, "structures": {"0": structures}, "seconds": time.perf_counter() - started}


def run(out: Path, part: str, quick: bool, console: Console) -> None:
    """Measure one part and store it beside the other."""
    record = read_record(out)
    measured = minilm(console) if part == "minilm" else digits(quick, console)
    write_record(out, record | {part: rounded(measured)})


def rounded(value: Any) -> Any:
    """The same with six significant digits, so that the file stays small."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


def score(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, float]:
    """How one prediction does: rank correlation, and errors as such and relative to what was measured."""
    told = [row[key] if isinstance(row[key], float) else row[key][0] for row in rows]
    seen = [row["measured"][0] for row in rows]
    errors = [abs(one - other) for one, other in zip(told, seen, strict=True)]
    return {
        "spearman": float(spearmanr(told, seen)[0]),
        "median": statistics.median(errors),
        "relative": statistics.median(error / abs(value) for error, value in zip(errors, seen, strict=True) if value),
    }


def verdicts(rows: Sequence[Mapping[str, Any]]) -> str:
    """How often the interval held the measured change, was not to be trusted, and was trusted and far off."""
    held = sum(row["predicted"][1] <= row["measured"][0] <= row["predicted"][2] for row in rows)
    trusted = [row for row in rows if row["predicted"][3]]
    return f"{len(rows)} predictions, {held} held, {len(trusted)} trusted, {sum(map(_far, trusted))} of these far off"


def _far(row: Mapping[str, Any]) -> bool:
    """Whether a prediction is off by more than half of itself and a twentieth of the gain."""
    told, seen = row["predicted"][0], row["measured"][0]
    return abs(told - seen) > max(0.5 * abs(told), 0.05 * abs(row["gain"]))


def show(out: Path, console: Console) -> None:
    """Print what is stored."""
    record = read_record(out)
    for part in ("digits", "minilm"):
        if part in record:
            console.print(_structure_table(part, record[part]["structures"]))
            for title, rows in _groups(record[part]["rows"]):
                console.print(_cost_table(f"{part}, {title}", rows))
                console.print(_score_table(f"{part}, {title}", [row for row in rows if row["predicted"]]))


def _groups(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Experts alone, and merges."""
    yield "experts alone", [row for row in rows if len(row["coefficients"]) == 1]
    yield "merges at 0.5", [row for row in rows if len(row["coefficients"]) > 1]


def _structure_table(part: str, structures: Mapping[str, Mapping[str, Any]]) -> Table:
    """Ranks and rows of every expert, as medians over the seeds."""
    table = _table(
        f"{part}: updates, medians over {len(structures)} seeds",
        ["expert", "rank 90%", "rank 99%", "rank 1", "random", "10% rows", "random", "below bf16", "below fp16"],
    )
    for name in next(iter(structures.values())):
        found = [each[name] for each in structures.values()]
        numbers = [
            *(f"{statistics.median(each['ranks'][i] for each in found):g}" for i in (0, 1)),
            *(_percent(each["kept"]["1"][i] for each in found) for i in (0, 1)),
            *(_percent(each["held"]["0.1"][i] for each in found) for i in (0, 1)),
            *(_percent(each["below"][dtype] for each in found) for dtype in ("bfloat16", "float16")),
        ]
        table.add_row(name, *numbers)
    return table


def _cost_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """What each reduction costs."""
    columns = [
        "kept",
        "of the numbers",
        "of the length",
        "loss",
        "of the gain",
        "random, of the gain",
        "accuracy",
        "kept",
    ]
    table = _table(f"{title}: medians of what each reduction costs", columns)
    for kind, amount in sorted({(row["kind"], row["amount"]) for row in rows}):
        some = [row for row in rows if (row["kind"], row["amount"]) == (kind, amount)]
        kept = sum(row["score"][0] >= -POINTS for row in some)
        table.add_row(
            f"{kind} {amount:g}",
            _percent(row["numbers"] for row in some),
            _percent(1 - row["distance"] ** 2 for row in some),
            f"{statistics.median(row['measured'][0] for row in some):.4f}",
            _percent(row["measured"][0] / row["gain"] for row in some),
            _percent(row["random"][0] / row["gain"] for row in some),
            f"{100 * statistics.median(row['score'][0] for row in some):+.1f}",
            f"{kept}/{len(some)}",
        )
    table.caption = f"kept: accuracy falls by at most {100 * POINTS:g} points"
    return table


def _score_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """How each expansion predicts the measured change of the loss."""
    table = _table(f"{title}: predicted against measured", ["expansion", "rank r", "median error", "relative"])
    for key in ("predicted", "outputs_linear", "loss_quadratic"):
        if all(key in row for row in rows):
            found = score(rows, key)
            table.add_row(key, f"{found['spearman']:.3f}", f"{found['median']:.4f}", f"{found['relative']:.1%}")
    seen, unseen = ([row for row in rows if (row.get("seed", UNSEEN) >= UNSEEN) is new] for new in (False, True))
    told = {"seeds that chose the width": seen, "others": unseen}
    table.caption = "\n".join(f"{title}: {verdicts(some)}" for title, some in told.items() if some)
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    """A table whose numbers are flush right."""
    table = Table(title=title)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    return table


def _percent(values: Iterable[float]) -> str:
    """The median of shares."""
    return f"{statistics.median(values):.1%}"


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark or show what is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a dry run")
    parser.add_argument("--minilm", action="store_true", help="measure the MiniLM experts")
    parser.add_argument("--show", action="store_true", help="print the tables from the stored results")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    console = Console(width=120)
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder) / "quick.json", "digits", True, console)
            show(Path(folder) / "quick.json", console)
        return
    if not options.show:
        run(options.out, "minilm" if options.minilm else "digits", False, console)
    show(options.out, console)


if __name__ == "__main__":
    main()
