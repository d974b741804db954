"""What is imported when: public names on first use, a command's modules when it runs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import diagnostics

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "scipy.stats", "sklearn", "transformers", "matplotlib")


def loaded(code: str) -> set[str]:
    """Which of the heavy modules are there after some code, run in a process of its own."""
    report = f"import sys\n{code}\nprint('LOADED', *(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", report], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def called(*arguments: str) -> str:
    """Code that runs the command line and goes on."""
    return f"from diagnostics.cli import app\nassert app({list(arguments)}, standalone_mode=False) in (None, 0)"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import diagnostics", set()),
        ("import diagnostics\ndiagnostics.InputError", set()),
        (called("--help"), set()),
        (called("--version"), set()),
        ("from diagnostics import geometry, predict_merge, audit_composition", {"torch"}),
        (called("predict", "--help"), {"torch"}),
    ],
    ids=["package", "error", "help", "version", "measures", "command"],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str, expected: set[str]) -> None:
    found = loaded(code)
    assert found == expected, (
        f"imported without need: {sorted(found - expected)}; not found: {sorted(expected - found)}"
    )


def test_every_public_name_is_what_type_checkers_see() -> None:
    """The table that imports follow, and the imports that type checkers follow, name the same objects."""
    block = next(node for node in ast.parse(Path(diagnostics.__file__).read_text()).body if isinstance(node, ast.If))
    seen = {
        alias.asname: alias.name if node.module == "diagnostics" else node.module.removeprefix("diagnostics.")
        for node in block.body
        for alias in node.names
    }
    assert seen == diagnostics._HOMES, "a public name stands in the table and in the block for type checkers"
    assert diagnostics.__all__ == sorted(diagnostics.__all__)
    assert set(dir(diagnostics)) == {*diagnostics.__all__, "__version__"}


def test_a_name_that_is_not_public_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'diagnostics' has no attribute 'predict_merges'"):
        diagnostics.predict_merges  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'predict_merges'"):
        exec("from diagnostics import predict_merges")
