"""Rules of the house that a machine can check: import direction, sizes, documentation, honest tests."""

import ast
import re
from pathlib import Path

import pytest

import diagnostics

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "diagnostics"
# A package imports only from its left.
ORDER = [
    *("processes", "exact", "testing", "inputs", "measures", "training", "theory", "derivations"),
    *("bases", "verdicts", "report", "demo", "commands", "cli", "__main__"),
]
EVERYWHERE = {"results", "errors", "__init__"}
THEORY_MAY_NOT = {"inputs", "measures"}
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
SOURCES = [*MODULES, *TESTS, *sorted((ROOT / "benchmarks").rglob("*.py"))]


def part_of(path):
    """The package that a module belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path):
    """Packages of ours that a module imports outside functions and type-checking blocks."""
    tree = ast.parse(path.read_text())
    names = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("diagnostics.")}


def forbidden(part, imported):
    """Imports of a package that point to its right, or from theory into models."""
    right = set(ORDER[ORDER.index(part) + 1 :])
    return imported & (right | (THEORY_MAY_NOT if part == "theory" else set()))


@pytest.mark.parametrize("path", [p for p in MODULES if part_of(p) not in EVERYWHERE], ids=lambda p: p.stem)
def test_imports_point_left(path):
    found = forbidden(part_of(path), imports_of(path))
    assert not found, f"{path.relative_to(ROOT)} imports {sorted(found)}; the order is {' <- '.join(ORDER)}"


def test_the_import_rule_would_catch_a_wrong_import():
    assert forbidden("measures", {"verdicts", "inputs"}) == {"verdicts"}
    assert forbidden("theory", {"measures", "results"}) == {"measures"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_stay_small(path):
    lines = len(path.read_text().splitlines())
    assert lines <= 400, f"{path.relative_to(ROOT)} has {lines} lines"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_functions_stay_short(path):
    """Statements count, docstrings do not."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert length <= 50, f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {length} lines"


def test_every_public_name_is_documented_with_an_example_or_is_plain_data():
    functions = [getattr(diagnostics, name) for name in diagnostics.__all__]
    bare = [item.__name__ for item in functions if not (item.__doc__ or "").strip()]
    assert bare == []
    examples = [f.__name__ for f in functions if not isinstance(f, type) and ">>>" not in f.__doc__]
    assert examples == []


@pytest.mark.parametrize("path", TESTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_tests_have_a_body_and_no_hidden_condition(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            assert not isinstance(node.body[-1], ast.If), f"{path.name}: the body of {node.name} sits in an if"
            body = node.body[1:] if ast.get_docstring(node) else node.body
            assert body and not isinstance(body[0], ast.Pass), f"{path.name}: {node.name} is empty"


@pytest.mark.parametrize("path", TESTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_skips_give_a_reason(path):
    bare = re.findall(r"pytest\.(?:skip|mark\.skip(?:if)?)\((?!.*reason)[^)]*\)", path.read_text())
    assert path.name == "test_repository.py" or bare == []
