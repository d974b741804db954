"""Every derivation searched for counterexamples: 10,000 cases each, its wrong forms within the default budget.

python -m benchmarks.derivations                   # results/derivations.json, an hour on two cores
python -m benchmarks.derivations --only 2.1 2.2    # these again, the others as stored
python -m benchmarks.derivations --show            # the tables from the stored results
python -m benchmarks.derivations --quick           # a dry run

Wrong forms and published forms that fail are searched with the default budget.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from diagnostics import derivations
from diagnostics.exact.claims import DEFAULT_EXAMPLES
from diagnostics.report.json import write_json
from diagnostics.results import Verdict
from diagnostics.theory.derivations.derivation import Kind
from diagnostics.verdicts.derivations import DerivationCheck

RESULTS = Path(__file__).parent / "results" / "derivations.json"
CASES, JOBS = 10_000, 2
QUICK = ("1.3", "2.2", "2.4-closed")


def measure(id: str, cases: int) -> dict[str, Any]:
    """Check one derivation: its claim at length, everything that must be refuted with the default budget."""
    item = derivations.get(id)
    started = time.perf_counter()
    evidence = item.check(cases, seed=1)
    seconds = time.perf_counter() - started
    published = None if item.as_stated else item.check_as_stated()
    check = DerivationCheck(item, evidence, published, item.check_mutants())
    return check.to_dict() | {"seconds_per_case": seconds / max(evidence.examples, 1)}


def run(path: Path, ids: Sequence[str], cases: int, console: Console) -> None:
    """Check the derivations and store what was found, after each of them."""
    known = [item.id for item in derivations.all()]
    found = {item["id"]: item for item in json.loads(path.read_text())["derivations"]} if path.exists() else {}
    with ProcessPoolExecutor(JOBS) as pool:
        waiting = {id: pool.submit(measure, id, cases) for id in ids}
        for id, future in waiting.items():
            found[id] = future.result()
            console.print(f"({id}) {found[id]['verdict']}")
            stored = [found[each] for each in known if each in found]
            settings = {"cases": cases, "mutant_cases": DEFAULT_EXAMPLES}
            write_json(path, {"settings": settings, "derivations": stored})


def show(path: Path, console: Console) -> None:
    """Print the table and the totals."""
    stored = json.loads(path.read_text())
    table = Table(title="Derivations searched for counterexamples")
    for column in ("id", "kind", "verdict", "cases", "left/right", "ms a case", "as stated", "wrong forms refuted"):
        table.add_column(column, justify="left" if column in ("id", "kind", "verdict", "as stated") else "right")
    for item in stored["derivations"]:
        evidence = item["evidence"]
        closest = "" if evidence["closest"] is None else f"{evidence['closest']:.4g}"
        stands = "holds" if item["as_stated"] else f"fails, {item['published']['verdict']}"
        wrong = f"{refuted(item)} of {len(item['mutants'])}"
        cells = (item["id"], item["kind"], item["verdict"], f"{evidence['examples']:,}", closest)
        table.add_row(*cells, f"{1e3 * item['seconds_per_case']:.1f}", stands, wrong)
    console.print(table)
    console.print(totals(stored["derivations"]))


def refuted(item: dict[str, Any]) -> int:
    """How many of the wrong forms were refuted."""
    return sum(found["verdict"] == Verdict.REFUTED for found in item["mutants"].values())


def totals(items: Sequence[dict[str, Any]]) -> str:
    """The run in a sentence."""
    claims = [item for item in items if item["kind"] != Kind.DEFINITION]
    held = sum(item["evidence"]["verdict"] == Verdict.SUPPORTED for item in items)
    wrong = sum(not item["as_stated"] for item in items)
    seen = sum(item["published"] is not None and item["published"]["verdict"] == Verdict.REFUTED for item in items)
    caught, of = sum(map(refuted, items)), sum(len(item["mutants"]) for item in items)
    return (
        f"{len(claims)} claims and {len(items) - len(claims)} definitions: {held} not refuted; {wrong} fail as stated, "
        f"{seen} of these found; {caught} of {of} wrong forms refuted within {DEFAULT_EXAMPLES} cases."
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark or show what is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a dry run")
    parser.add_argument("--show", action="store_true", help="print the table from the stored results")
    parser.add_argument("--only", nargs="+", metavar="ID", help="check only these")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    console = Console(width=150)
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder) / "quick.json", QUICK, 100, console)
            show(Path(folder) / "quick.json", console)
        return
    if not options.show:
        run(options.out, options.only or [item.id for item in derivations.all()], CASES, console)
    show(options.out, console)


if __name__ == "__main__":
    main()
