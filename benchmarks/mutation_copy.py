"""The copy of the checkout that mutmut works in: what of it is changed, and how its tests are run."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["DERIVED", "EXAMPLES", "ROOT", "prepare"]

ROOT = Path(__file__).parent.parent
EXAMPLES = "tests/test_examples_of_the_documentation.py"
DERIVED = "theory/derivations"
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
# A search that finds a counterexample has noticed: it need not be shrunk.
QUICKER = {
    "diagnostics/testing/search.py": [(b"Phase.generate, Phase.target, Phase.shrink", b"Phase.generate, Phase.target")],
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
            source = without_properties(content.decode())
            content = (without_wrong_forms(source) if DERIVED in name else source).encode()
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
