"""The check command: the library's findings, in a table, a page and a file, and an exit status to rely on."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

import diagnostics as dx
from diagnostics import cli

CONFIG = "base: base.safetensors\nexperts: {news: news.safetensors, mail: mail.safetensors}\nprivate: ['head.*']\n"


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base, two experts with heads of their own, and one with its units in another order."""
    generator = torch.Generator().manual_seed(0)
    base = {"up": torch.randn(64, 32, generator=generator), "down": torch.randn(32, 64, generator=generator)}
    save_file(base, tmp_path / "base.safetensors")
    for count, name in enumerate(["news", "mail", "moved"], start=2):
        expert = {key: value + 0.1 * torch.randn(value.shape, generator=generator) for key, value in base.items()}
        expert["head.weight"] = torch.ones(count, 32)
        if name == "moved":
            expert |= {"up": expert["up"].roll(1, 0), "down": expert["down"].roll(1, 1).contiguous()}
        save_file(expert, tmp_path / f"{name}.safetensors")
    (tmp_path / "merge.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: object, columns: int = 200) -> Result:
    """Run the command in this process."""
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(cli.app, ["check", *map(str, arguments)])


def answered(result: Result, status: int = 0) -> Result:
    assert result.exit_code == status, (result.output, result.exception)
    return result


def test_compatible_models_have_status_0(files: Path) -> None:
    result = answered(run("merge.yaml", "--json", "found.json"))
    assert "SUPPORTED  Nothing speaks against merging news and mail into this base." in result.stdout
    stored = json.loads((files / "found.json").read_text())
    assert (stored["compatible"], stored["findings"]) == (True, [])


def test_paths_and_options_are_those_of_the_configuration() -> None:
    paths = ("base.safetensors", "news.safetensors", "mail.safetensors")
    answered(run(*paths, "--private", "head.*"))
    result = answered(run(*paths), 1)
    assert "REFUTED  These cannot be merged as they are: news and mail." in result.stdout


def test_the_findings_are_those_of_the_library(files: Path) -> None:
    paths = ["base.safetensors", "moved.safetensors", "news.safetensors"]
    result = answered(run(*paths, "--json", "found.json", "--html", "found.html"), 1)
    expected = dx.check_compatibility(paths[0], paths[1:])
    stored = json.loads((files / "found.json").read_text())
    assert stored["findings"] == [each.to_dict() for each in expected]
    assert stored["compatible"] is False
    assert result.stdout.index("moved: 3 errors") < result.stdout.index("news: 1 error")
    assert all(text in result.stdout for text in ("permuted_units", "down, up", "matching"))
    page = (files / "found.html").read_text()
    assert "permuted_units" in page and "weight matching" in page
    assert "reading the headers of the models\ncomparing weights\n" in result.stderr


def test_warnings_leave_the_status_at_0() -> None:
    save_file(load_file("base.safetensors"), "same.safetensors")
    result = answered(run("base.safetensors", "same.safetensors"))
    assert "same: 1 warning" in result.stdout
    assert "identical_to_base" in result.stdout


def test_the_gate_decides_from_which_finding_on_the_status_is_1(files: Path) -> None:
    save_file(load_file("base.safetensors"), "same.safetensors")
    statuses = {"moved": {"error": 1, "warning": 1, "never": 0}, "same": {"error": 0, "warning": 1, "never": 0}}
    for name, expected in statuses.items():
        for gate, status in expected.items():
            answered(run("base.safetensors", f"{name}.safetensors", "--fail-on", gate, "--json", "found.json"), status)
            stored = json.loads((files / "found.json").read_text())
            assert stored["compatible"] is (name == "same"), "what was found does not depend on the gate"
    private = ("base.safetensors", "news.safetensors", "--private", "head.*", "--fail-on", "warning")
    answered(run(*private), 0)


def test_a_narrow_terminal_loses_nothing() -> None:
    result = answered(run("base.safetensors", "moved.safetensors", columns=60), 1)
    assert "permuted_units" in result.stdout
    words = " ".join(result.stdout.split())
    assert "Of head" not in words and "64 of 64" in words and "matching" in words


def test_quiet() -> None:
    result = answered(run("base.safetensors", "moved.safetensors", "--quiet"), 1)
    assert (result.stdout, result.stderr) == ("", "")


BAD = {
    "one path": (("base.safetensors",), "check: expected one configuration, or BASE and at least one EXPERT"),
    "two configurations": (("merge.yaml", "merge.yaml"), "check: expected one configuration, or BASE and"),
    "no file": (("base.safetensors", "none"), "none: expected a safetensors file or a model folder; found nothing"),
    "same names": (("base.safetensors", "news.safetensors", "./news.safetensors"), "whose last parts differ"),
    "private": (("merge.yaml", "--private", "haed.*"), "private: expected names of tensors; 'haed.*' matches none"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_input_has_status_2(name: str) -> None:
    arguments, message = BAD[name]
    result = answered(run(*arguments), 2)
    assert message in result.stderr
    assert result.stdout == ""


def test_help_teaches_by_example() -> None:
    shown = answered(run("--help")).stdout
    assert "diagnostics check base/ news/ mail/" in shown
    assert "Exit status 1 if an error was found" in shown
    assert "check" in CliRunner().invoke(cli.app, ["--help"]).stdout
