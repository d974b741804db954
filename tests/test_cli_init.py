"""The init command: from model folders to a prediction in two commands, without overwriting anything."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from diagnostics import cli
from diagnostics.inputs.config import load_config
from tests.inputs.tiny_models import causal_lm, moved, with_lora, word_tokenizer, write_folders


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folders(tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def here(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folders)


def run(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(cli.app, [str(argument) for argument in arguments])


def answered(result: Result, status: int = 0) -> Result:
    assert result.exit_code == status, (result.output, result.exception)
    return result


def said(shown: str) -> str:
    """What is shown, without the frame and the ends of lines."""
    return " ".join(shown.replace("│", " ").split())


def test_two_commands_from_folders_to_a_prediction(tmp_path: Path) -> None:
    shown = answered(run("init", "base", "kind", "mood", "--out", tmp_path / "merge.yaml")).stdout
    assert "was written for 2 experts" in said(shown)
    assert "Complete; what was guessed is listed below." in shown
    predicted = run("predict", tmp_path / "merge.yaml", "--fail-on", "never")
    assert "Will the merge work?" in answered(predicted).stdout


def test_what_could_not_be_told_is_named(tmp_path: Path) -> None:
    for name in ("base", "kind"):
        (tmp_path / name).symlink_to(Path(name).resolve())  # without the data beside it
    models = (tmp_path / "base", tmp_path / "kind")
    result = answered(run("init", *models, "--out", tmp_path / "merge.yaml"))
    assert "To be filled in or looked at, data: no examples were found for kind" in said(result.stdout)
    text = (tmp_path / "merge.yaml").read_text()
    assert "# - data: no examples were found for kind" in text
    assert load_config(tmp_path / "merge.yaml").data == {}
    found = answered(run("init", *models, "--data", "kind=kind.jsonl", "--out", tmp_path / "b.yaml"))
    assert "To be filled in" not in found.stdout + (tmp_path / "b.yaml").read_text()


def test_nothing_is_overwritten_unless_asked_for(tmp_path: Path) -> None:
    (tmp_path / "merge.yaml").write_text("base: mine\n")
    command = ("init", "base", "kind", "--out", tmp_path / "merge.yaml")
    result = answered(run(*command), 2)
    assert "--out: expected a new file;" in result.stderr and "add --force" in result.stderr
    assert (tmp_path / "merge.yaml").read_text() == "base: mine\n"
    quiet = answered(run(*command, "--force", "--quiet"))
    assert (quiet.stdout, quiet.stderr) == ("", "")
    assert list(load_config(tmp_path / "merge.yaml").experts) == ["kind"]


BAD = {
    "ending": (("--out", "merge.toml"), "--out: expected a file ending in .yaml; found merge.toml"),
    "no folder": (
        ("--out", "none/merge.yaml"),
        "--out: expected a file in a folder that is there; found none/merge.yaml. Create none",
    ),
    "data": (("--data", "kind.jsonl"), "--data: expected NAME=FILE; found 'kind.jsonl'"),
    "data twice": (("--data", "kind=kind.jsonl", "--data", "kind=b"), "--data: expected every name once"),
    "unknown data": (("--data", "knid=kind.jsonl"), "Did you mean 'kind'?"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_input_has_status_2(name: str, tmp_path: Path) -> None:
    options, message = BAD[name]
    where = () if "--out" in options else ("--out", tmp_path / "merge.yaml")
    result = answered(run("init", "base", "kind", *options, *where), 2)
    assert message in result.stderr and result.stdout == ""
    assert not (tmp_path / "merge.yaml").exists()


def test_language_models_with_an_adapter_and_other_keys(tmp_path: Path) -> None:
    words = ["<s>", "2", "3", "plus", "is", "4", "5"]
    causal_lm("llama").save_pretrained(tmp_path / "base")
    word_tokenizer(words).save_pretrained(tmp_path / "base")
    moved(causal_lm("llama"), 1).save_pretrained(tmp_path / "sums")
    with_lora(causal_lm("llama")).save_pretrained(tmp_path / "chat")
    for name in ("sums", "chat"):
        rows = [{"prompt": "2 plus 2 is", "answer": " 4"}, {"prompt": "2 plus 3 is", "answer": " 5"}]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    file = tmp_path / "merge.yaml"
    shown = answered(run("init", tmp_path / "base", tmp_path / "sums", tmp_path / "chat", "--out", file)).stdout
    assert "causal-lm" in shown and "x: prompt, y: answer" in shown
    answered(run("predict", file, "--fail-on", "never", "--quiet"))
