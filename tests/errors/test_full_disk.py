"""No room for what is written: the file is named, the old one is untouched, and nothing is left beside it."""

from __future__ import annotations

import resource
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.records import write_record
from diagnostics import cli
from diagnostics.errors import InputError
from tests.errors.mistake import write_valid

COMMANDS = {
    "report.json": "check base.safetensors news.safetensors mail.safetensors --json report.json",
    "report.html": "geometry base.safetensors news.safetensors mail.safetensors --html report.html",
    "bases": "bases base.safetensors news.safetensors mail.safetensors -k 1 --out bases",
}


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Valid files."""
    folder = tmp_path_factory.mktemp("valid")
    write_valid(folder)
    return folder


@contextmanager
def room_for(count: int) -> Iterator[None]:
    """No file of this process can grow beyond so many bytes: writing more fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def run(command: str):
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, shlex.split(command))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("room", [0, 100])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_report(name: str, room: int, valid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(valid)
    assert run(COMMANDS[name]).exit_code in (0, 1), "with room, the command answers"
    before = content(valid)
    with room_for(room):
        result = run(COMMANDS[name])
    assert result.exit_code == 2, result.exception
    message = result.stderr.partition("Error: ")[2].strip()
    assert message.startswith(f"{name}: expected to write it; found: "), message
    assert "File too large" in message and message.endswith("what was there is as it was.")
    assert content(valid) == before


@pytest.mark.parametrize("option", ["json", "html"])
def test_a_device_is_no_file(option: str, valid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(valid)
    result = run(f"geometry base.safetensors news.safetensors --{option} /dev/full")
    expected = "Error: /dev/full: expected a file to write; found something else there. Give another name."
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, expected)


def test_a_record_of_a_benchmark(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_record(path, {"a": 1})
    with room_for(10), pytest.raises(InputError, match=r"record\.json: expected to write it; found: File too large"):
        write_record(path, {"a": list(range(100))})
    assert content(tmp_path) == {"record.json": b'{\n  "a": 1\n}\n'}
