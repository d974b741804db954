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
registry hold the objects. There a check of the copy tries 200 cases and shrinks nothing.
Out: modules of measures that carry numbers about, whose errors are not those of a formula: contexts (rows of a data
set), lora_merge (reading and refusing of adapters), merge_settings (checks of arguments), paths, storage (formats of
files) and survey (a loop over tensors).

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

from diagnostics.report.json import write_json

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "mutation.json"
EXPLAINED = Path(__file__).parent / "mutation_survivors.yaml"
THEORY = (
    *("addition", "alignment", "bound_report", "coefficient_conditions", "coefficient_process", "composition"),
    *("eigengap", "fold_gram", "loss_gap", "merge_error", "negation", "out_of_distribution", "subspace"),
)
MEASURES = (
    *("agreement", "ancestry", "column_angles", "curvature", "differences", "disagreement", "entries", "factors"),
    *("feature_use", "fisher", "folds", "geometry", "hessian", "lanczos", "memory", "merge_methods", "orthogonality"),
    *("orthoreg", "output_jets", "outputs", "permutation", "pieces", "profiles", "reductions", "reference"),
    *("row_profile", "signs", "singular_values", "sketch", "slopes", "space", "spectra", "streaming"),
    *("update_structure", "vectors"),
)
MODULES = (*(f"theory/{name}" for name in THEORY), *(f"measures/{name}" for name in MEASURES))
EXAMPLES = "tests/test_examples_of_the_documentation.py"
DERIVED = "theory/derivations"
MACHINERY = (f"{DERIVED}/derivation", f"{DERIVED}/registry")
TESTS = (EXAMPLES, "tests/theory", "tests/measures")
QUICK = (("theory/subspace",), (EXAMPLES, "tests/theory/test_subspace.py"))
PROFILE = """

from hypothesis import HealthCheck, Phase  # noqa: E402

settings.register_profile(
    "mutants",
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("mutants")
"""
# A search that finds a counterexample has noticed: it need not be shrunk, and most are found among the first cases.
QUICKER = {
    "diagnostics/testing/search.py": [(b"Phase.generate, Phase.target, Phase.shrink", b"Phase.generate, Phase.target")],
    "diagnostics/exact/claims.py": [(b"DEFAULT_EXAMPLES = 300", b"DEFAULT_EXAMPLES = 200")],
}
RUN_EXAMPLES = """
import doctest
import importlib
import json
from pathlib import Path

import pytest

CASES = json.loads(Path(__file__).with_suffix(".json").read_text())


@pytest.mark.parametrize(("module", "name", "text"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES])
def test_example(module, name, text):
    names = dict(vars(importlib.import_module(module)))
    case = doctest.DocTestParser().get_doctest(text, names, name, module, 0)
    assert doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS).run(case).failed == 0
"""
OUTCOMES = {0: "survived", 1: "killed", 3: "killed", 5: "no tests", 33: "no tests", None: "not run"}
KILLED = ("killed", "timeout")


def prepare(tree: Path, modules: Sequence[str], tests: Sequence[str]) -> None:
    """Copy the checkout, or what has changed in it, and write mutmut's configuration."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    wanted = [name for name in listed.stdout.splitlines() if re.match("diagnostics|tests|benchmarks|pyproject", name)]
    examples: list[tuple[str, str, str]] = []
    for name in filter(lambda each: (ROOT / each).is_file() and "/results/" not in each, wanted):
        content = (ROOT / name).read_bytes()
        if re.match(r"diagnostics/(theory|measures)/.*py$", name):
            examples += documented(name, content.decode())
        if name in {f"diagnostics/{module}.py" for module in modules}:
            content = without_properties(content.decode()).encode()
            content = (without_wrong_forms if DERIVED in name else str)(content.decode()).encode()
        for slow, quick in QUICKER.get(name, ()):
            content = content.replace(slow, quick)
        if name == "tests/conftest.py":
            content += PROFILE.encode()
        if name == "pyproject.toml":
            content += configuration(modules, tests).encode()
        replace(tree / name, content)
    replace(tree / EXAMPLES, RUN_EXAMPLES.encode())
    replace((tree / EXAMPLES).with_suffix(".json"), json.dumps(examples).encode())


def replace(path: Path, content: bytes) -> None:
    """Write a file unless it says so already: what has not changed is not mutated again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)


def configuration(modules: Sequence[str], tests: Sequence[str]) -> str:
    """The section of mutmut in pyproject.toml."""
    slow = () if any(module.startswith(DERIVED) for module in modules) else (f"--ignore=tests/{DERIVED}",)
    settings = {
        "source_paths": ["diagnostics"],
        "only_mutate": [f"diagnostics/{module}.py" for module in modules],
        "also_copy": ["benchmarks"],
        "pytest_add_cli_args": ["-p", "no:cacheprovider", "-o", "addopts=--strict-markers"],
        "pytest_add_cli_args_test_selection": [*tests, *slow],
        "timeout_multiplier": 2.5,
        "timeout_constant": 4.0,
        "track_dependencies": False,
        "use_git_change_detection": False,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    return "\n".join(["", "[tool.mutmut]", *lines, ""])


def documented(name: str, source: str) -> Iterator[tuple[str, str, str]]:
    """Examples in the documentation of a module: where, of what, and the text."""
    module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node) or ""
            if ">>>" in text:
                yield module, getattr(node, "name", "module"), text


def without_properties(source: str) -> str:
    """A module in which each property is a function, and an assignment of the property after it."""
    lines = source.splitlines()
    found = [
        (node, kind)
        for owner in ast.walk(ast.parse(source))
        if isinstance(owner, ast.ClassDef)
        for node in owner.body
        if isinstance(node, ast.FunctionDef)
        for kind in [ast.unparse(each) for each in node.decorator_list]
        if kind in ("property", "cached_property")
    ]
    for node, kind in sorted(found, key=lambda pair: -pair[0].lineno):
        lines.insert(node.end_lineno or 0, f"\n    {node.name} = {kind}(of_{node.name.lstrip('_')})")
        lines[node.lineno - 1] = lines[node.lineno - 1].replace(f"def {node.name}(", f"def of_{node.name.lstrip('_')}(")
        del lines[node.lineno - 2]
    return "\n".join(lines) + "\n"


def without_wrong_forms(source: str) -> str:
    """A module of derivations in which what wrong forms or drawn cases alone are made of has a decorator."""
    tree = ast.parse(source)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    waiting = [name for node in tree.body if not isinstance(node, ast.FunctionDef) for name in stated(node)]
    while waiting:
        waiting += stated(functions.pop(waiting.pop(), None))
    lines = source.splitlines()
    for node in sorted(functions.values(), key=lambda each: -each.lineno):
        lines.insert(node.lineno - 1, "@(lambda function: function)")
    return "\n".join(lines) + "\n"


def stated(node: ast.AST | None) -> Iterator[str]:
    """Names, and those in the list of what is public, but for wrong forms and what draws cases."""
    wrong = isinstance(node, ast.Call) and ast.unparse(node.func) == "Mutant"
    if node is None or wrong or (isinstance(node, ast.keyword) and node.arg == "cases"):
        return
    if isinstance(node, ast.Name | ast.Constant):
        yield str(node.id if isinstance(node, ast.Name) else node.value)
    for child in ast.iter_child_nodes(node):
        yield from stated(child)


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
    stored["modules"] = {**stored["modules"], **found}
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
    """The modules of a folder."""
    names = [f"{folder.relative_to(ROOT / 'diagnostics')}/{path.stem}" for path in sorted(folder.glob("[!_]*.py"))]
    return [name for name in names if name not in MACHINERY]


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark or show what is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a dry run")
    parser.add_argument("--show", action="store_true", help="print the table from the stored results")
    parser.add_argument("--explain", action="store_true", help="join the stored survivors with the explanations again")
    parser.add_argument("--only", nargs="+", metavar="MODULE", default=MODULES, help="theory, or measures/fisher")
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
