"""An interrupt, at whatever moment: the shell's status, one line, whole files and nothing else beside them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from diagnostics import cli
from diagnostics.inputs import files
from diagnostics.inputs.files import replaced_together, write_atomic
from tests.errors.mistake import TASKS, write_valid

# A task that interrupts its own process at the moment that an environment variable names.
INTERRUPTED = (
    TASKS
    + '''
import os
import signal

make_in_peace = make

def now(moment):
    """Send the signal, if this is the moment."""
    if os.environ["MOMENT"] == moment:
        signal.raise_signal(int(os.environ["SIGNAL"]))

def make(name, *, base, expert, data):
    """The task, interrupted while its loss is measured."""
    task = make_in_peace(name, base=base, expert=expert, data=data)
    loss = task.loss
    task.loss = lambda params, batch: (now("measuring"), loss(params, batch))[1]
    now("reading")
    return task
'''
)
SAID = {
    signal.SIGINT: "Interrupted: no answer was given; every file is whole, or as it was before.",
    signal.SIGTERM: "Ended from outside: no answer was given; every file is whole, or as it was before.",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Valid files with a task that interrupts, and reports of an earlier run."""
    write_valid(tmp_path)
    (tmp_path / "mistaken_tasks.py").write_text(INTERRUPTED)
    for name in ("report.json", "report.html"):
        (tmp_path / name).write_text("old")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mistaken_tasks", raising=False)
    yield tmp_path
    sys.modules.pop("mistaken_tasks", None)


def content(folder: Path) -> dict[str, str | None]:
    """Every file with its text, where it is text of a report."""
    paths = [path for path in sorted(folder.iterdir()) if path.name != "__pycache__"]
    return {path.name: path.read_text() if path.suffix in (".json", ".html") else None for path in paths}


@pytest.mark.parametrize("number", SAID, ids=lambda number: number.name)
@pytest.mark.parametrize("moment", ["reading", "measuring", "storing"])
def test_a_command(folder: Path, number: signal.Signals, moment: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr(
        sys, "argv", ["diagnostics", *["predict", "merge.yaml", "--json", "report.json", "--html", "report.html"]]
    )
    monkeypatch.setenv("MOMENT", moment)
    monkeypatch.setenv("SIGNAL", str(int(number)))
    monkeypatch.setattr(os, "fsync", lambda descriptor: moment == "storing" and signal.raise_signal(number))
    before, handler = content(folder), signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 128 + number
    told = capsys.readouterr()
    assert told.err.splitlines()[-1] == SAID[number] and "Traceback" not in told.err and told.out == ""
    assert content(folder) == before
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_process_as_the_shell_sees_it(folder: Path) -> None:
    settings = {"MOMENT": "measuring", "SIGNAL": str(int(signal.SIGTERM)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "diagnostics", "predict", "merge.yaml", "--json", "report.json"],
        env={**os.environ, **settings, "PYTHONPATH": str(Path(cli.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (143, ""), done.stderr
    assert done.stderr.splitlines()[-1] == SAID[signal.SIGTERM] and (folder / "report.json").read_text() == "old"


class Moments:
    """Counts lines of a module as they are run, and interrupts at one of them."""

    def __init__(self, module: object, at: int) -> None:
        self.file, self.left = module.__file__, at

    def __call__(self, frame, event, argument):
        """The trace function of every frame of the module."""
        if frame.f_code.co_filename != self.file:
            return None
        # Cleaning up is what an interrupt leads to.
        if event == "line" and not self._cleans(frame):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self

    def _cleans(self, frame) -> bool:
        """Whether a line is one that removes drafts, or what led there is under way already."""
        line = Path(self.file).read_text().splitlines()[frame.f_lineno - 1]
        return "unlink(missing_ok" in line or "rmtree" in line or "finally" in line


@contextlib.contextmanager
def interrupted(at: int) -> Iterator[Moments]:
    """Interrupt at so many lines of the module that writes files."""
    moments, before = Moments(files, at), sys.gettrace()
    sys.settrace(moments)
    try:
        yield moments
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)


# An interrupt between opening a file and entering its block leaves it to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_at_every_line_of_writing_a_file(tmp_path: Path) -> None:
    path, moment, reached = tmp_path / "page.html", 0, True
    found = []
    while reached:
        moment += 1
        path.write_text("old")
        with interrupted(moment) as moments:
            write_atomic(path, "new")
        reached = moments.left <= 0
        assert content(tmp_path).keys() == {"page.html"}, f"a draft is left after line {moment}"
        found.append(path.read_text())
    assert set(found) == {"old", "new"} and moment > 10
    assert found == sorted(found, reverse=True), "old up to some moment, then new"


def test_at_every_line_of_writing_a_folder(tmp_path: Path) -> None:
    moment, reached, found = 0, True, set()
    while reached:
        moment += 1
        for name in ("a", "index"):
            (tmp_path / name).write_text("old")
        with interrupted(moment) as moments, replaced_together(tmp_path, last="index") as drafts:
            for name in ("a", "index"):
                (drafts / name).write_text("new")
        reached = moments.left <= 0
        names = {path.name: path.read_text() for path in tmp_path.iterdir()}
        assert names in ({"a": "old", "index": "old"}, {"a": "old"}, {"a": "new"}, {"a": "new", "index": "new"}), moment
        found.add(len(names))
    assert found == {1, 2}
