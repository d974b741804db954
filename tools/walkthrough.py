"""Write the page that walks a new user from two models to an answer, from a run of every command on it.

python -m tools.walkthrough               # docs/walkthrough.md; some minutes, most of them for the demonstration

Template lines that begin with @@ stand for a command to run, and a number there for how many lines to show. A test
carries out the same commands, but for the demonstration, and holds their exit statuses against those on the page.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from diagnostics.inputs.files import write_atomic
from tools.walkthrough_models import make_models

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "walkthrough.md"
TEMPLATE = Path(__file__).parent / "walkthrough.template.md"
EVALUATION = Path(__file__).parent / "walkthrough_evaluation.py"


class Run(NamedTuple):
    """A command that was carried out.

    Attributes:
        command: As a user types it.
        status: Its exit status.
        output: What it printed, without progress.
    """

    command: str
    status: int
    output: str


Runner = Callable[[str, Path], Run]


def main() -> None:
    """Write the page."""
    with tempfile.TemporaryDirectory() as folder:
        text = page(Path(folder), in_a_process)
    write_atomic(PAGE, text)
    print(f"wrote {PAGE}")


def page(folder: Path, runner: Runner) -> str:
    """Carry out the commands of the template, in order, and put their outputs in their places.

    Args:
        folder: An empty folder.
        runner: Carries out one.

    Returns:
        The page.
    """
    make_models(folder / "models")
    (folder / "data").mkdir()
    for part, suffix in (("probe", ""), ("test", "-unseen")):
        for file in sorted((folder / "models").glob(f"*-{part}.jsonl")):
            file.rename(folder / "data" / file.name.replace(f"-{part}", suffix))
    (folder / "evaluate.py").write_text(EVALUATION.read_text(), encoding="utf-8")
    return "\n".join(_shown(line, folder, runner) for line in TEMPLATE.read_text().splitlines()) + "\n"


def in_a_process(command: str, folder: Path) -> Run:
    """Carry out a command as a user would.

    Args:
        command: The command.
        folder: Where to.

    Returns:
        The run.
    """
    program, *rest = command.split()
    names = {"diagnostics": [sys.executable, "-m", "diagnostics"], "python": [sys.executable]}
    environment = os.environ | {"COLUMNS": "80", "PYTHONPATH": str(ROOT), "TERM": "dumb", "NO_COLOR": "1"}
    done = subprocess.run(
        [*names.get(program, [program]), *rest],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    return Run(command, done.returncode, done.stdout)


def recorded(text: str) -> list[tuple[str, int]]:
    """Read the commands of a page and their exit statuses.

    Args:
        text: The page.

    Returns:
        Each command with its status, in order.
    """
    blocks = re.findall(r"^```console\n(.*?)^```$(?:\n\nExit status (\d))?", text, flags=re.MULTILINE | re.DOTALL)
    return [(body.splitlines()[0].removeprefix("$ "), int(status or 0)) for body, status in blocks]


def _shown(line: str, folder: Path, runner: Runner) -> str:
    """A line of the page, or what stands in its place."""
    if line.startswith("@@file "):
        return f"```py\n{(folder / line.removeprefix('@@file ')).read_text()}```"
    command = re.fullmatch(r"@@(\d*) (.+)", line)
    return _block(runner(command[2], folder), folder, int(command[1] or 0)) if command else line


def _block(run: Run, folder: Path, shown: int) -> str:
    """A command and what it printed, or the first lines of that and how many more there are; no is an answer too."""
    lines = list(_normal(run.output, folder))
    if shown and len(lines) > shown:
        lines = [*lines[:shown], f"… {len(lines) - shown} more lines"]
    if run.status > run.command.startswith("diagnostics "):
        raise RuntimeError(f"{run.command} ended with exit status {run.status}:\n{run.output}")
    status = "\n\nExit status 1: the answer is no." if run.status else ""
    return "\n".join(["```console", f"$ {run.command}", *lines, f"```{status}"])


def _normal(output: str, folder: Path) -> Iterator[str]:
    """The lines of an output without what differs from run to run."""
    for line in output.replace(str(folder.resolve()), ".").rstrip().splitlines():
        yield re.sub(r"\bin \d+ seconds\b", "in … seconds", line.rstrip())


if __name__ == "__main__":
    main()
