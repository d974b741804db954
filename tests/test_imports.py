"""What is imported when: public names on first use, a command's modules when it runs."""

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


def test_every_public_name_is_there() -> None:
    assert len(diagnostics.__all__) > 70 and diagnostics.__all__ == sorted(diagnostics.__all__)
    for name in diagnostics.__all__:
        assert getattr(diagnostics, name).__name__.rpartition(".")[2] == name, f"{name} is called otherwise at home"
    assert dir(diagnostics) == diagnostics.__all__


def test_a_name_that_is_not_public_is_refused() -> None:
    with pytest.raises(AttributeError, match="No diagnostics attribute predict_merges"):
        diagnostics.predict_merges  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'predict_merges'"):
        exec("from diagnostics import predict_merges")
