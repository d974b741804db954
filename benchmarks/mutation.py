"""Mutation testing of the mathematics: how many wrong versions of each formula the tests notice.

python -m benchmarks.mutation                  # results/mutation.json, an hour on two cores
python -m benchmarks.mutation --only theory    # one group again, the others as stored
python -m benchmarks.mutation --show           # the tables from the stored results
python -m benchmarks.mutation --quick          # a dry run on one small module

mutmut makes every mutant of every function in a copy of the repository and runs the tests that reach it. In: all of
``theory/``, the derivations included, and the modules of ``measures/`` whose functions are formulas. Out: modules of
``measures/`` that read, copy and stream tensors (paths, storage, survey, contexts, folds, factors, ancestry,
update_structure, orthogonality, geometry's readers are in), whose errors are not those of a formula.

A survivor is a wording if it changes nothing but letters of a text; every other one needs an explanation in
``mutation_survivors.yaml``. A survivor without one, or an explanation without a survivor, ends the run with status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from diagnostics.report.json import write_json

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "mutation.json"
EXPLAINED = Path(__file__).parent / "mutation_survivors.yaml"
_MEASURES = (
    *("agreement", "column_angles", "curvature", "disagreement", "entries", "fisher", "lanczos", "merge_methods"),
    *(
        "orthoreg",
        "output_jets",
        "permutation",
        "profiles",
        "reductions",
        "row_profile",
        "sketch",
        "spectra",
        "vectors",
    ),
)
_BOUNDS = (
    "tests/verdicts/test_loss_gaps.py",
    "tests/verdicts/test_alignment.py",
    "tests/verdicts/test_gradient_fit.py",
)
# What is mutated, and the tests that are run; a wrong form of a claim is not what these tests are about.
GROUPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "theory": (("diagnostics/theory/*.py",), ("tests/theory", "diagnostics/theory", *_BOUNDS)),
    "measures": (
        tuple(f"diagnostics/measures/{name}.py" for name in _MEASURES),
        ("tests/measures", "diagnostics/measures", "tests/verdicts/test_loss_gaps.py"),
    ),
    "quick": (("diagnostics/theory/subspace.py",), ("tests/theory/test_subspace.py", "diagnostics/theory/subspace.py")),
}
_SETUP = """[mutmut]
source_paths =
    diagnostics
only_mutate =
    {modules}
also_copy =
    benchmarks
pytest_add_cli_args_test_selection =
    {tests}
pytest_add_cli_args =
    -p
    no:cacheprovider
    -k
    not wrong_form and not published_form
timeout_multiplier = 30
use_git_change_detection = false
"""
# Exit statuses of the tests as mutmut stores them.
_OUTCOMES = {0: "survived", 1: "killed", 3: "killed", 5: "no tests", 33: "no tests", 36: "timeout", 24: "timeout"}


def run_group(group: str, children: int) -> list[dict[str, Any]]:
    """Mutate a group in a copy of the working tree, and return its mutants."""
    modules, tests = GROUPS[group]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
        )
        for name in filter(lambda each: (ROOT / each).is_file(), listed.stdout.splitlines()):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
        (tree / "setup.cfg").write_text(_SETUP.format(modules="\n    ".join(modules), tests="\n    ".join(tests)))
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
        command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(children)]
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
        found = list(_mutants(tree))
        if not found or not any(item["outcome"] == "killed" for item in found):
            raise SystemExit(f"mutmut found nothing to judge:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return found


def _mutants(tree: Path) -> Any:
    """Every mutant with its outcome, and what it changes where it was not killed."""
    for path in sorted((tree / "mutants").rglob("*.py.meta")):
        meta = json.loads(path.read_text())["exit_code_by_key"]
        module = str(path.relative_to(tree / "mutants")).removesuffix(".py.meta")
        source = path.with_suffix("").read_text() if meta else ""
        for key, status in meta.items():
            outcome = _OUTCOMES.get(status, "timeout" if status and status < 0 else f"status {status}")
            item = {"module": module, "function": _function(key), "outcome": outcome}
            if outcome != "killed":
                item |= _change(source, key.rpartition(".")[-1])
            yield item


def _function(key: str) -> str:
    """The function's name inside mutmut's name of a mutant."""
    name = re.sub(r"__mutmut_\d+$", "", key.rpartition(".")[-1])
    return re.sub(r"^x_|^xǁ", "", name).replace("ǁ", ".")


def _body(source: str, name: str) -> list[str]:
    """Lines of a function that mutmut has written."""
    lines = source.splitlines()
    start = next((i for i, line in enumerate(lines) if re.match(rf"\s*def {re.escape(name)}\(", line)), None)
    if start is None:
        return []
    depth = len(lines[start]) - len(lines[start].lstrip())
    end = start + 1
    while end < len(lines) and (not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) > depth):
        end += 1
    return [line.strip() for line in lines[start + 1 : end] if line.strip()]


def _change(source: str, name: str) -> dict[str, Any]:
    """Lines that a mutant takes out and puts in."""
    before = _body(source, re.sub(r"_\d+$", "_orig", name))
    after = _body(source, name)
    out, into = Counter(before) - Counter(after), Counter(after) - Counter(before)
    removed = [line for line in before if line in out]
    added = [line for line in after if line in into]
    wording = _without_text(removed) == _without_text(added)
    return {"removed": removed, "added": added, "wording": wording}


def _without_text(lines: list[str]) -> list[str]:
    """Lines with every text taken out."""
    return [re.sub(r'"[^"]*"', '""', line) for line in lines]


def run(path: Path, groups: list[str], children: int) -> None:
    """Mutate the groups and store what was found, the others as they are stored."""
    stored = json.loads(path.read_text())["groups"] if path.exists() else {}
    for group in groups:
        stored[group] = _summary(run_group(group, children))
        write_json(path, {"groups": stored})


def _summary(mutants: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts by module, and what was not killed."""
    modules: dict[str, Counter[str]] = {}
    for item in mutants:
        wording = item["outcome"] == "survived" and item.get("wording")
        modules.setdefault(item["module"], Counter())["wording" if wording else item["outcome"]] += 1
    survivors = [item for item in mutants if item["outcome"] not in ("killed", "timeout") and not item["wording"]]
    return {"modules": {name: dict(counts) for name, counts in modules.items()}, "survivors": survivors}


def explained(survivors: list[dict[str, Any]], known: list[dict[str, str]]) -> tuple[list[str], list[str]]:
    """Survivors without an explanation, and explanations without a survivor."""
    used = set()
    missing = []
    for item in survivors:
        texts = "\n".join([*item["removed"], *item["added"]])
        fits = [i for i, each in enumerate(known) if _fits(each, item, texts)]
        used.update(fits)
        if not fits:
            missing.append(f"{item['module']}:{item['function']}: {item['removed']} -> {item['added']}")
    return missing, [f"{each}" for i, each in enumerate(known) if i not in used]


def _fits(each: dict[str, str], item: dict[str, Any], texts: str) -> bool:
    """Whether an explanation is about a survivor."""
    if item["module"].rpartition("/")[-1] != each["module"]:
        return False
    return each.get("function", item["function"]) == item["function"] and each["change"] in texts


def show(path: Path, console: Console) -> int:
    """Print the tables; the exit status is that of the explanations."""
    groups = json.loads(path.read_text())["groups"]
    table = Table(title="Mutants of the mathematics")
    for column in ("module", "mutants", "killed", "timeouts", "wordings", "other survivors", "killed of what computes"):
        table.add_column(column, justify="left" if column == "module" else "right")
    total: Counter[str] = Counter()
    for group in groups.values():
        for name, counts in group["modules"].items():
            total.update(counts)
            table.add_row(name.removeprefix("diagnostics/"), *_row(Counter(counts)))
    table.add_section()
    table.add_row("all", *_row(total))
    console.print(table)
    survivors = [item for group in groups.values() for item in group["survivors"]]
    known = yaml.safe_load(EXPLAINED.read_text()) if EXPLAINED.exists() else []
    missing, stale = explained(survivors, known or [])
    for line in missing:
        console.print(f"no explanation: {line}", highlight=False, markup=False)
    for line in stale if set(groups) >= {"theory", "measures"} else []:
        console.print(f"explains nothing: {line}", highlight=False, markup=False)
    return int(bool(missing or stale)) if "quick" not in groups else 0


def _row(counts: Counter[str]) -> list[str]:
    """Counts of a module, and the share killed with and without wordings."""
    killed = counts["killed"] + counts["timeout"]
    every, wordings = sum(counts.values()), counts["wording"]
    rest = every - killed - wordings
    share = killed / (every - wordings) if every > wordings else 1.0
    return [str(every), str(counts["killed"]), str(counts["timeout"]), str(wordings), str(rest), f"{100 * share:.1f} %"]


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark or show what is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a dry run")
    parser.add_argument("--show", action="store_true", help="print the tables from the stored results")
    parser.add_argument("--only", nargs="+", choices=["theory", "measures"], default=["theory", "measures"])
    parser.add_argument("--children", type=int, default=2, help="processes")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    console = Console(width=150)
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder) / "quick.json", ["quick"], 1)
            return show(Path(folder) / "quick.json", console)
    if not options.show:
        run(options.out, options.only, options.children)
    return show(options.out, console)


if __name__ == "__main__":
    sys.exit(main())
