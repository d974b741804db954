"""Do the first steps of fine-tuning already give the groups of the last ones (2.15)? MiniLM on twelve text tasks.

python -m benchmarks.bases.history            # results/bases_history.json, 5 minutes on one core
python -m benchmarks.bases.history --show     # the table from the stored results
python -m benchmarks.bases.history --quick    # a dry run on the sample

Every expert is fine-tuned anew for a few steps, with the batches that the stored experts began with and the learning
rate of a run of that length: these are short runs, not checkpoints of the long ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import Tensor

import diagnostics as dx
from benchmarks.minilm.data import RULES, SAMPLE, TextTask, load_tasks, read_tasks
from benchmarks.minilm.experts import (
    FAMILIES,
    as_batch,
    fine_tune,
    load_base,
    load_problem_parts,
    make_classifier,
    trainable,
)
from diagnostics.report.json import write_json

RESULTS = Path(__file__).parent.parent / "results" / "bases_history.json"
STEPS = (1, 10)


def early(task: TextTask, steps: int) -> dict[str, Tensor]:
    """An expert after its first steps."""
    bert, tokenizer = load_base()
    model = make_classifier(bert, tokenizer, task)
    fine_tune(model, as_batch(tokenizer, task.train), dataclasses.replace(FAMILIES["full"], steps=steps))
    return trainable(model)


def base_of(task: TextTask) -> dict[str, Tensor]:
    """The model that all experts begin as."""
    bert, tokenizer = load_base()
    return {name: value.clone() for name, value in trainable(make_classifier(bert, tokenizer, task)).items()}


def run(
    tasks: Mapping[str, TextTask], counts: tuple[int, ...], last: dict[str, Any], out: Path, console: Console
) -> None:
    """Cluster the experts after each number of steps, and at the end."""
    moments: dict[str, Any] = {}
    for steps in counts:
        moments[f"{steps} step{'s' * (steps > 1)}"] = {name: early(task, steps) for name, task in tasks.items()}
        console.print(f"{steps} steps done")
    base = base_of(next(iter(tasks.values())))
    moments |= last
    shapes = {label: dx.geometry(base, experts) for label, experts in moments.items()}
    history = dx.cluster_history(base, moments)
    rows = [
        {**moment.to_dict(), "norm": float(shape.norms.mean()), "cosine": shape.cosine.tolist(), "names": shape.names}
        for moment, shape in zip(history, shapes.values(), strict=True)
    ]
    write_json(out, {"settings": FAMILIES["full"].identity, "moments": rows})


def show(out: Path, console: Console) -> None:
    """Print the groups at every moment."""
    table = Table(title="Groups of experts early in fine-tuning and at its end")
    for column in ("after", "mean norm", "falls into groups", "agreement with the end", "groups of several"):
        table.add_column(column)
    for row in json.loads(out.read_text())["moments"]:
        groups = "; ".join(", ".join(members) for members in row["clusters"] if len(members) > 1) or "none"
        agreement = "undefined" if row["agreement"] is None else f"{row['agreement']:.2f}"
        table.add_row(row["label"], f"{row['norm']:.3f}", row["verdict"], agreement, groups)
    console.print(table)


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
            run(read_tasks(SAMPLE), (1, 2), {}, Path(folder) / "quick.json", console)
            show(Path(folder) / "quick.json", console)
        return
    if not options.show:
        parts = load_problem_parts(list(RULES))
        # The parts call the encoder's layers by where it sits in the classifier, as the short runs do.
        run(load_tasks(), STEPS, {"120 steps": parts.experts}, options.out, console)
    show(options.out, console)


if __name__ == "__main__":
    main()
