"""The demo at several seeds: how much its figures owe to one split and one set of initial weights.

python -m benchmarks.demo_seeds             # results/demo_seeds.json, a minute on 2 cores
python -m benchmarks.demo_seeds --show      # the table from the stored results
python -m benchmarks.demo_seeds --quick     # a dry run
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from diagnostics.demo.run import run_demo
from diagnostics.report.json import write_json
from diagnostics.verdicts.scoring import OURS

RESULTS = Path(__file__).parent / "results" / "demo_seeds.json"
SEEDS = range(5)


def run(out: Path, quick: bool, console: Console) -> None:
    """Run the demo at every seed and store the scorecards."""
    cards = {}
    for seed in SEEDS[: 2 if quick else None]:
        console.print(f"seed {seed}")
        cards[str(seed)] = run_demo(quick=quick, seed=seed)[1]["scorecard"]
        write_json(out, {"quick": quick, "scorecards": cards})


def show(out: Path, console: Console) -> None:
    """Print a row for each seed."""
    table = Table(title="The demo at several seeds")
    columns = (
        "seed",
        "failed",
        "right",
        "wrong",
        "open",
        "ret. MAE",
        "ret. r",
        "gap rank r",
        "AUC",
        "ret. held",
        "loss held",
    )
    for column in columns:
        table.add_column(column, justify="right")
    totals = [0, 0, 0]
    for seed, card in json.loads(out.read_text())["scorecards"].items():
        told, ours = card["verdicts"], card["predictors"][OURS]
        right = told["supported"]["kept"] + told["refuted"]["lost"]
        wrong = told["supported"]["lost"] + told["refuted"]["kept"]
        given = (right, wrong, sum(told["undecided"].values()))
        totals = [total + count for total, count in zip(totals, given, strict=True)]
        numbers = [ours[key] for key in ("retention_mae", "retention_r", "gap_spearman", "failure_auc")]
        numbers += [card["retention_coverage"], card["loss_coverage"]]
        row = [seed, f"{card['failures']}/{card['merges']}", *map(str, given)]
        table.add_row(*row, *("none" if value is None else f"{value:.3f}" for value in numbers))
    table.caption = "verdicts over all seeds: {} right, {} wrong, {} left open".format(*totals)
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
            run(Path(folder) / "quick.json", True, console)
            show(Path(folder) / "quick.json", console)
        return
    if not options.show:
        run(options.out, False, console)
    show(options.out, console)


if __name__ == "__main__":
    main()
