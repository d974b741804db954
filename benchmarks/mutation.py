"""Mutation testing of the mathematics: how many wrong versions of each formula the tests notice.

python -m benchmarks.mutation                  # results/mutation.json but for theory/derivations, hours
python -m benchmarks.mutation --only theory/derivations   # a folder or single modules, the others as stored
python -m benchmarks.mutation --work FOLDER    # keeps the copy: run again, it tests only what survived
python -m benchmarks.mutation --explain        # joins the stored survivors with their explanations again
python -m benchmarks.mutation --show           # the tables from the stored results
python -m benchmarks.mutation --quick          # a dry run on one small module, half a minute

mutmut changes one thing at a time in a copy of the checkout, and runs the tests that reach the changed function: those
of TESTS and the examples in its documentation. In the copy a property is written as a function, because mutmut leaves
decorated functions alone, and hypothesis does not shrink what it finds.

In: everything in theory, and the modules of measures that hold formulas. Of theory/derivations the sides, readings and
assumptions of claims: a wrong form that is changed is wrong still, what draws cases is no formula, and derivation and
registry hold the objects. There a search of the copy shrinks nothing.
Out: modules of measures that carry numbers about, whose errors are not those of a formula: contexts (rows of a data
set), lora_merge (reading and refusing of adapters), merge_settings (checks of arguments), outputs and reference (tables
of outputs, kept and found again), paths, storage (formats of files) and survey (a loop over tensors).

Killed is a mutant with which a test fails or does not end. Wording is one that changes nothing but the letters of a
text. Every survivor has an explanation in mutation_survivors.yaml, by module, function and changed line, or by a rule
for a kind of change that is equivalent everywhere. A survivor without explanation, or an explanation without survivor,
ends the run with status 1.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.mutation_copy import DERIVED, EXAMPLES, ROOT, prepare
from diagnostics.report.json import write_json

RESULTS = ROOT / "benchmarks" / "results" / "mutation.json"
EXPLAINED = Path(__file__).parent / "mutation_survivors.yaml"
_CARRIERS = ("contexts", "lora_merge", "merge_settings", "outputs", "paths", "reference", "storage", "survey")
NO_FORMULAS = (
    *(f"measures/{name}" for name in _CARRIERS),
    *(f"{DERIVED}/{name}" for name in ("derivation", "registry")),
)
FOLDERS = ("theory", "measures")
TESTS = (EXAMPLES, "tests/theory", "tests/measures")
QUICK = (("theory/subspace",), (EXAMPLES, "tests/theory/test_subspace.py"))
OUTCOMES = {0: "survived", 1: "killed", 3: "killed", 5: "no tests", 33: "no tests", None: "not run"}
KILLED = ("killed", "timeout")


def mutate(tree: Path, modules: Sequence[str], children: int) -> dict[str, Any]:
    """Run mutmut in the copy: every mutant that has no verdict, and those that survived the last time."""
    for module in modules:
        forget_survivors(tree / "mutants" / "diagnostics" / f"{module}.py.meta")
    command = [sys.executable, "-c", "from mutmut.__main__ import cli; cli()", "run", "--max-children", str(children)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    with (tree / "mutmut.log").open("a") as log:
        done = subprocess.run(command, cwd=tree, env=environment, stdout=log, stderr=log, check=False)
    if done.returncode:
        raise SystemExit(f"mutmut failed:\n{(tree / 'mutmut.log').read_text()[-3000:]}")
    return {module: summary(list(mutants(tree, module))) for module in modules}


def forget_survivors(path: Path) -> None:
    """Have the mutants that were not killed the last time tested again: tests may have changed."""
    if path.exists():
        stored = json.loads(path.read_text())
        codes = stored["exit_code_by_key"]
        stored["exit_code_by_key"] = {key: code if outcome(code) in KILLED else None for key, code in codes.items()}
        path.write_text(json.dumps(stored))


def outcome(code: int | None) -> str:
    """What an exit status of the tests means, as mutmut stores it; a signal is negative."""
    if code is not None and (code < 0 or code > 33):
        return "timeout"
    return OUTCOMES.get(code, f"status {code}")


def mutants(tree: Path, module: str) -> Iterator[dict[str, Any]]:
    """Every mutant of a module with its outcome and what it changes."""
    path = tree / "mutants" / "diagnostics" / f"{module}.py"
    if not path.with_suffix(".py.meta").exists():
        return
    codes = json.loads(path.with_suffix(".py.meta").read_text())["exit_code_by_key"]
    bodies = {node.name: node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
    for key, code in codes.items():
        name = key.rpartition(".")[2]
        stem = name.partition("__mutmut_")[0]
        before, after = bodies[f"{stem}__mutmut_orig"], bodies[name]
        yield {
            "key": key,
            "function": re.sub(r"^x_?", "", stem.replace("ǁ", ".")).strip("."),
            "outcome": outcome(code),
            "wording": skeleton(before) == skeleton(after),
            **difference(before, after),
        }


def skeleton(function: ast.FunctionDef) -> str:
    """A function without its name and with every text emptied."""
    tree = ast.parse(ast.unparse(function))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == function.name:
            node.name = "this"
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.dump(tree)


def difference(before: ast.FunctionDef, after: ast.FunctionDef) -> dict[str, str]:
    """The statements that a mutant takes out and puts in, without the layout of the source."""
    texts = [re.sub(rf"\b{re.escape(each.name)}\b", "this", ast.unparse(each)).splitlines() for each in (before, after)]
    lines = list(difflib.ndiff(*texts))
    return {
        "removed": "\n".join(line[2:].strip() for line in lines if line.startswith("- ")),
        "added": "\n".join(line[2:].strip() for line in lines if line.startswith("+ ")),
    }


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts of a module, and what was not killed."""
    wording = [item for item in found if item["wording"]]
    alive = [item for item in found if item["outcome"] not in KILLED]
    return {
        "mutants": len(found),
        **Counter(item["outcome"] for item in found),
        "wording": {"mutants": len(wording), "killed": sum(item["outcome"] in KILLED for item in wording)},
        "survivors": [{name: value for name, value in item.items() if name != "key"} for item in alive],
    }


def explain(stored: dict[str, Any]) -> list[str]:
    """Join survivors with their explanations; what does not fit, in words."""
    known = (yaml.safe_load(EXPLAINED.read_text()) if EXPLAINED.exists() else None) or {}
    rules = known.get("rules", [])
    reasons = {
        (module, function, line): entry["why"]
        for module, functions in known.get("modules", {}).items()
        if module in stored["modules"]
        for function, entries in functions.items()
        for entry in entries
        for line in entry["lines"]
    }
    unused, wrong = set(reasons), []
    for module, record in stored["modules"].items():
        for item in record["survivors"]:
            place = (module, item["function"], item["added"] or item["removed"])
            unused.discard(place)
            item["why"] = reasons.get(place) or next((rule["why"] for rule in rules if fits(rule, item)), None)
            if item["removed"] == item["added"]:
                item["why"] = "The same program: 1e150 + 1 is 1e150."
            if item["why"] is None:
                wrong.append(f"no explanation: {module} {item['function']}\n  - {item['removed']}\n  + {item['added']}")
    return wrong + [f"explains nothing: {module} {function}\n  + {line}" for module, function, line in sorted(unused)]


def fits(rule: dict[str, str], item: dict[str, Any]) -> bool:
    """Whether all that a mutant changes is what a rule is about; a mutant that changes nothing is for none."""
    before, after = (re.sub(rule["ignoring"], "", item[side]) for side in ("removed", "added"))
    return before == after and item["removed"] != item["added"]


def run(out: Path, modules: Sequence[str], tests: Sequence[str], work: Path | None, children: int) -> None:
    """Mutate the modules and store what was found, the other modules as they are stored."""
    stored = json.loads(out.read_text()) if out.exists() else {"modules": {}}
    with tempfile.TemporaryDirectory() as folder:
        tree = work or Path(folder) / "tree"
        prepare(tree, modules, tests)
        found = mutate(tree, modules, children)
    stored["modules"] = dict(sorted({**stored["modules"], **found}.items()))
    explain(stored)
    write_json(out, {"tool": f"mutmut {version('mutmut')}", "tests": tests, "modules": stored["modules"]})


def show(out: Path, console: Console) -> int:
    """Print the table and what lacks an explanation; the exit status."""
    stored = json.loads(out.read_text())
    table = Table(title="Mutants of the mathematics: how many the tests notice")
    for column in ("", "mutants", "killed", "timeout", "survived", "no tests", "killed of all", "wording aside"):
        table.add_column(column, justify="right" if column else "left")
    total: Counter[str] = Counter()
    for module, record in stored["modules"].items():
        counts = Counter({name: value for name, value in record.items() if isinstance(value, int)})
        counts.update({f"wording {name}": value for name, value in record["wording"].items()})
        total.update(counts)
        table.add_row(module, *row(counts))
    table.add_section()
    table.add_row("all", *row(total))
    console.print(table)
    wrong = explain(stored)
    for line in wrong:
        console.print(line, highlight=False, markup=False)
    return int(bool(wrong))


def row(counts: Counter[str]) -> list[str]:
    """Counts, and the shares killed with and without wording."""
    killed = counts["killed"] + counts["timeout"]
    rest = counts["mutants"] - counts["wording mutants"]
    shares = [killed / counts["mutants"], (killed - counts["wording killed"]) / rest if rest else 1.0]
    numbers = [counts[name] for name in ("mutants", "killed", "timeout", "survived", "no tests")]
    return [*map(str, numbers), *(f"{share:.1%}" for share in shares)]


def expanded(names: Sequence[str]) -> list[str]:
    """Modules by name, and those of a folder for its name."""
    package = ROOT / "diagnostics"
    found = [[name] if (package / f"{name}.py").exists() else inside(package / name) for name in names]
    return [name for names in found for name in names]


def inside(folder: Path) -> list[str]:
    """The modules of a folder that hold formulas."""
    names = [f"{folder.relative_to(ROOT / 'diagnostics')}/{path.stem}" for path in sorted(folder.glob("[!_]*.py"))]
    return [name for name in names if name not in NO_FORMULAS]


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark or show what is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a dry run")
    parser.add_argument("--show", action="store_true", help="print the table from the stored results")
    parser.add_argument("--explain", action="store_true", help="join the stored survivors with the explanations again")
    parser.add_argument("--only", nargs="+", metavar="MODULE", default=FOLDERS, help="a folder, or measures/fisher")
    parser.add_argument("--work", type=Path, help="a folder for the copy, kept between runs")
    parser.add_argument("--children", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    console = Console(width=150)
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder) / "quick.json", *QUICK, None, 1)
            return show(Path(folder) / "quick.json", console)
    if options.explain:
        stored = json.loads(options.out.read_text())
        explain(stored)
        write_json(options.out, {name: stored[name] for name in ("tool", "tests", "modules")})
    elif not options.show:
        run(options.out, expanded(options.only), TESTS, options.work, options.children)
    return show(options.out, console)


if __name__ == "__main__":
    sys.exit(main())
