"""The walk of a new user: what is on the page can be carried out, and ends as it says."""

import contextlib
import io
import re
import runpy
import sys
from pathlib import Path

import pytest
from transformers.utils import logging
from typer.testing import CliRunner

from diagnostics.cli import app
from tools import walkthrough

STORED = walkthrough.PAGE.read_text()


def inside(command: str, folder: Path) -> walkthrough.Run:
    """A command in this process, where everything is imported already; the demonstration has tests of its own."""
    program, *rest = command.split()
    if rest == ["demo"]:
        return walkthrough.Run(command, 0, "")
    if program == "diagnostics":
        done = CliRunner().invoke(app, rest)
        return walkthrough.Run(command, done.exit_code, done.stdout)
    if program == "python":
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            runpy.run_path(rest[0], run_name="__main__")
        return walkthrough.Run(command, 0, printed.getvalue())
    return walkthrough.in_a_process(command, folder)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    folder, bars = tmp_path_factory.mktemp("walk"), logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        text = walkthrough.page(folder, inside)
    if bars:
        logging.enable_progress_bar()
    return text


def without_outputs(page: str) -> str:
    return re.sub(r"^(```console\n\$ [^\n]*\n).*?(^```$)", r"\1\2", page, flags=re.MULTILINE | re.DOTALL)


def test_every_command_ends_as_the_page_says(fresh):
    commands = walkthrough.recorded(STORED)
    assert walkthrough.recorded(fresh) == commands
    assert [status for _, status in commands].count(1) == 1 and len(commands) >= 9


def test_everything_but_the_outputs_is_what_the_script_writes(fresh):
    stale = "run python -m tools.walkthrough: docs/walkthrough.md is not what it writes"
    assert without_outputs(fresh) == without_outputs(STORED), stale


def test_the_merge_that_is_recommended_keeps_what_the_one_that_is_doubted_loses():
    kept = [float(found) for found in re.findall(r"and keeps ([\d.]+)", STORED)]
    assert len(kept) == 4 and min(kept[2:]) >= 0.9 > kept[1]


@pytest.mark.parametrize(("command", "status"), [("diagnostics check a b", 2), ("python evaluate.py", 1)])
def test_a_command_that_fails_is_no_page(command, status, tmp_path):
    with pytest.raises(RuntimeError, match=f"{command} ended with exit status {status}"):
        walkthrough._block(walkthrough.Run(command, status, "Error"), tmp_path, 0)


def test_paths_and_times_of_a_run_are_not_on_the_page(tmp_path):
    output = f"read {tmp_path}/models  \nin 216 seconds on\n\n"
    assert list(walkthrough._normal(output, tmp_path)) == ["read ./models", "in … seconds on"]
    assert sys.prefix not in STORED and "/tmp" not in STORED
