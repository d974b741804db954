"""Each mistake has its message, word for word, from the command line and from Python; nothing is left behind."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from diagnostics import cli
from diagnostics.errors import InputError
from diagnostics.inputs.checkpoints import open_checkpoint
from diagnostics.inputs.config import load_config
from diagnostics.inputs.examples import read_texts
from diagnostics.inputs.files import write_atomic
from tests.errors.files import FILES
from tests.errors.mistake import write_valid
from tests.errors.models import MODELS
from tests.errors.options import OPTIONS

MISTAKES = {**MODELS, **FILES, **OPTIONS}
MESSAGES = yaml.safe_load((Path(__file__).parent / "messages.yaml").read_text())


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files without a mistake."""
    folder = tmp_path_factory.mktemp("valid")
    write_valid(folder)
    return folder


@pytest.fixture
def folder(valid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of them, from which commands are run."""
    home = tmp_path / "run"
    shutil.copytree(valid, home)
    monkeypatch.chdir(home)
    monkeypatch.syspath_prepend(str(home))
    return home


def run(command: str) -> tuple[int, str]:
    """Exit status of a command line, and what it prints on stderr from the error on."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, shlex.split(command))
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result.exit_code, "Error: " + result.stderr.rstrip("\n").partition("Error: ")[2]


def plain(message: str) -> str:
    """A message without the words of the safetensors library, which change with its version."""
    return re.sub(r"truncated or corrupt \(.*?\)\. ", "truncated or corrupt (…). ", message)


def content(folder: Path) -> set[str]:
    """Names of all files and folders, but those of Python's cache."""
    paths = (path.relative_to(folder) for path in folder.rglob("*"))
    return {str(path) for path in paths if "__pycache__" not in path.parts}


def test_every_mistake_has_one_message_and_every_message_its_mistake() -> None:
    assert list(MESSAGES) == list(MISTAKES)
    assert len(MISTAKES) == len(MODELS) + len(FILES) + len(OPTIONS), "two mistakes of one name"


@pytest.mark.parametrize("label", [label for label, mistake in MISTAKES.items() if mistake.command])
def test_command_line(label: str, folder: Path) -> None:
    mistake = MISTAKES[label]
    mistake.change(folder)
    before = content(folder)
    status, printed = run(mistake.command)
    assert (status, plain(printed)) == (2, f"Error: {MESSAGES[label]}")
    assert content(folder) == before, "something was written"


@pytest.mark.parametrize("label", [label for label, mistake in MISTAKES.items() if mistake.call])
def test_python(label: str, folder: Path) -> None:
    mistake = MISTAKES[label]
    mistake.change(folder)
    before = content(folder)
    with pytest.raises(InputError) as caught:
        mistake.call()
    # What is read from no file cannot name one.
    assert plain(str(caught.value)) in (MESSAGES[label], MESSAGES[label].removeprefix("wrong.yaml: "))
    assert content(folder) == before, "something was written"


@pytest.mark.parametrize("label", MESSAGES)
def test_messages_say_what_was_found_and_what_to_do(label: str) -> None:
    message = MESSAGES[label]
    assert "expected" in message and re.search(r"found|matches|is missing|is none|beside it|Did you mean", message), (
        message
    )
    assert re.search(r"[.?}\])'\w]$", message), message


def test_the_files_are_right_without_a_mistake(folder: Path) -> None:
    commands = (
        "geometry base.safetensors news.safetensors",
        "predict merge.yaml",
        "predict texts.yaml --tolerance 0.9",
    )
    recipe = "predict recipe.yaml --data news=data.safetensors --data mail=data.safetensors"
    assert [run(f"{command} -q") for command in commands] == [(0, "Error: ")] * 3
    assert "mistaken_tasks" not in run(recipe)[1]


@pytest.fixture
def as_nobody() -> None:
    """The rest of the test without the rights of root, which reads everything."""
    user = os.geteuid()
    os.seteuid(user or 65534)
    yield
    os.seteuid(user)


@pytest.mark.parametrize(
    ("name", "read", "message"),
    [
        ("news.safetensors", open_checkpoint, "a complete safetensors file; found one that cannot be read (Permission"),
        ("merge.yaml", load_config, "a configuration file; found Permission denied. Check the path."),
        ("kind.jsonl", read_texts, "a file with one JSON object per line; found Permission denied. Check the path."),
    ],
)
def test_files_that_may_not_be_read_are_named(name: str, read: object, message: str, folder: Path, request) -> None:
    folder.chmod(0o755)
    (folder / name).chmod(0)
    request.getfixturevalue("as_nobody")
    with pytest.raises(InputError) as caught:
        read(name)
    assert str(caught.value).startswith(f"{name}: expected {message}")


def test_a_folder_that_may_not_be_written_in_is_named(folder: Path, request) -> None:
    folder.chmod(0o555)
    request.getfixturevalue("as_nobody")
    with pytest.raises(InputError, match=r"^page\.html: expected to write it; found: Permission denied"):
        write_atomic("page.html", "text")
