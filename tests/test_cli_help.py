"""What the program says about itself: help that fits 80 columns and loses nothing, and shell completion."""

import re
from importlib import import_module
from types import ModuleType

import pytest
from typer.testing import CliRunner, Result

from diagnostics import cli
from diagnostics.inputs.audit_config import AuditConfig

SUMMARIES = {info.name: info.help for info in cli.app.registered_commands}


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner(env={"COLUMNS": "80", **environment}).invoke(cli.app, list(arguments))


def module_of(name: str) -> ModuleType:
    return import_module(f"diagnostics.commands.{name}")


def test_the_list_of_commands_shows_every_summary() -> None:
    shown = " ".join(re.sub("[│─╭╮╰╯]", " ", run("--help").stdout).split())
    for name, summary in SUMMARIES.items():
        assert f"{name} {summary}" in shown
    assert "0 answered, 1 the answer is no, 2 the input is wrong, 3 a fault of this program" in shown


@pytest.mark.parametrize("name", SUMMARIES)
def test_help_shows_its_examples_first_and_unbroken(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0, result.output
    lines = [line.strip() for line in result.stdout.splitlines() if line.strip()]
    assert " ".join(lines[1:3]).startswith(SUMMARIES[name]), "the summary comes first"
    blocks = re.findall(r"\x08\n(.*?)(?:\n\n|$)", module_of(name).HELP, flags=re.DOTALL)
    assert f"diagnostics {name}" in blocks[0], "examples stand before everything else"
    written = [line.strip() for block in blocks for line in block.splitlines()]
    assert [line for line in written if line not in lines] == [], "these lines were broken or lost"


def test_help_is_not_read_as_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_of("demo"), "HELP", "\b\npip install 'task-arithmetic-diagnostics[all]'\n[bold]x[/bold]")
    shown = run("demo", "--help").stdout
    assert "task-arithmetic-diagnostics[all]" in shown and "[bold]x[/bold]" in shown


def test_mistakes_are_not_read_as_markup() -> None:
    for arguments in (("pre[bold]dict",), ("geometry", "a.yaml", "--[all]"), ("predict", "a[all].yaml")):
        assert re.sub("^.*(?=\\[)", "", arguments[-1]) in run(*arguments).stderr


def test_the_audit_names_every_key() -> None:
    missing = [key for key in AuditConfig.model_fields if key not in module_of("audit").HELP]
    assert missing == [], "keys of AuditConfig that diagnostics audit --help does not name"


@pytest.mark.parametrize(
    ("typed", "place", "expected"),
    [
        ("diagnostics pre", 1, ["predict"]),
        ("diagnostics re", 1, ["relations", "report"]),
        ("diagnostics report merge.yaml --skip bo", 4, ["bounds"]),
        ("diagnostics predict --fail", 2, ["--fail-on"]),
        ("diagnostics predict merge.yaml --fail-on un", 4, ["undecided"]),
        ("diagnostics check base news --priv", 4, ["--private"]),
    ],
)
def test_the_shell_completes_commands_and_their_options(typed: str, place: int, expected: list[str]) -> None:
    asked = {"_DIAGNOSTICS_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(place)}
    assert run(**asked).stdout.split() == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_shown(shell: str) -> None:
    script = run(_DIAGNOSTICS_COMPLETE=f"source_{shell}").stdout
    assert f"_DIAGNOSTICS_COMPLETE=complete_{shell}" in script
    assert "--show-completion" in run("--help").stdout
