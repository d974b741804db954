"""What the command line says: reports on stdout, everything else on stderr."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.text import Text
from torch import Tensor
from typer.core import TyperGroup

from diagnostics.errors import InputError, ProcessError
from diagnostics.inputs.encoding import TruncationWarning
from diagnostics.inputs.files import write_atomic
from diagnostics.processes import launched, team
from diagnostics.report.document import Document, Headline, Section
from diagnostics.report.html import render_html
from diagnostics.report.json import write_json
from diagnostics.report.provenance import footer
from diagnostics.report.text import render_text
from diagnostics.report.wording import clean

__all__ = ["Answer", "Commands", "Output", "by_share", "interruptible"]

ANSWERED, NO, WRONG_INPUT, FAULT = 0, 1, 2, 3
_INTERRUPTED: dict[Any, str] = {128 + signal.SIGINT: "Interrupted", 128 + signal.SIGTERM: "Ended from outside"}


class Commands(TyperGroup):
    """Commands that answer wrong input by a message instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command.

        Args:
            ctx: The command's context.

        Returns:
            What the command returns.

        Raises:
            Exit: If the input was wrong, or another process failed.
        """
        try:
            with launched():
                return super().invoke(ctx)
        except (InputError, ProcessError) as error:
            _say(f"Error: {error}", "red")
            raise typer.Exit(WRONG_INPUT if isinstance(error, InputError) else FAULT) from error


@dataclass(frozen=True)
class Answer:
    """What a command found out.

    Attributes:
        title: The report's title.
        headline: The answer in a sentence.
        sections: The report.
        payload: The results by name, for JSON.
        negative: Whether the answer is no.
    """

    title: str
    headline: Headline
    sections: tuple[Section, ...]
    payload: Mapping[str, Any]
    negative: bool = False


@dataclass(frozen=True)
class Output:
    """Where the answer goes.

    Attributes:
        json: File for the results.
        html: File for the report.
        quiet: Whether to print neither report nor progress.
        notes: What was noted on the way, kept for the report.
    """

    json: Path | None
    html: Path | None
    quiet: bool
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def working(self) -> Iterator[Callable[[str], None]]:
        """Show progress, and note texts that were cut.

        Yields:
            A function to call with each step.
        """
        console = Console(stderr=True, quiet=self.quiet or team().rank > 0)
        with warnings.catch_warnings(), console.status("starting") as status:
            warnings.simplefilter("always", TruncationWarning)
            warnings.showwarning = self._noting(warnings.showwarning)
            # Where nothing can be redrawn, a log gets a line for each step.
            yield status.update if console.is_terminal else lambda step: console.print(Text(clean(step), style="dim"))

    def _noting(self, otherwise: Callable[..., None]) -> Callable[..., None]:
        """Keep our own warnings as notes and pass on others."""

        def show(message: Any, category: type[Warning], *rest: Any, **options: Any) -> None:
            if issubclass(category, TruncationWarning):
                self.notes.append(str(message))
                _say(f"Note: {message}", "yellow")
            else:
                otherwise(message, category, *rest, **options)

        return show

    def give(self, answer: Answer) -> None:
        """Give an answer, with the notes, and end with its exit status.

        Args:
            answer: The answer.

        Raises:
            Exit: If the answer is no.
        """
        notes = (Section("Notes on the input", tuple(self.notes)),) if self.notes else ()
        document = Document(answer.title, answer.headline, (*answer.sections, *notes), footer())
        self.publish(document, {**answer.payload, "notes": self.notes})
        if answer.negative and team().rank == 0:
            raise typer.Exit(NO)

    def publish(self, document: Document, payload: Mapping[str, Any]) -> None:
        """Write the files that were asked for and print the report; of several processes, one does.

        Args:
            document: The report.
            payload: The results by name.
        """
        crew = team()

        def write() -> list[Tensor]:
            if crew.rank == 0:
                self._write(document, payload)
            return []

        # The others wait for it: torchrun ends all processes as soon as one has ended with another status than 0.
        crew.total(write)

    def _write(self, document: Document, payload: Mapping[str, Any]) -> None:
        """Write the files and print the report."""
        if self.json is not None:
            write_json(self.json, payload)
        if self.html is not None:
            write_atomic(self.html, render_html(document))
        if not self.quiet:
            render_text(document, Console(), page=self.html)


@contextmanager
def interruptible() -> Iterator[None]:
    """End this process in order where it is interrupted or asked to end, with the status that shells give.

    Files are written whole or not at all, and what was only begun is removed on the way out.

    Yields:
        Nothing.
    """
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as end:
        status = end.code if isinstance(end, SystemExit) else 128 + signal.SIGINT
        if status in _INTERRUPTED:
            _say(f"{_INTERRUPTED[status]}: no answer was given; every file is whole, or as it was before.", "red")
        sys.exit(status)
    finally:
        signal.signal(signal.SIGTERM, before)


def by_share(progress: Callable[[str], None], step: str) -> Callable[[float], None]:
    """Report a long step by the share of it that is done, every tenth once.

    Args:
        progress: Shows a text.
        step: What is done.

    Returns:
        A function to call with the share.

    Example:
        >>> show = by_share(print, "measuring")
        >>> for share in (0.01, 0.11, 0.15, 0.5):
        ...     show(share)
        measuring: 0%
        measuring: 10%
        measuring: 50%
    """
    shown: set[int] = set()

    def show(share: float) -> None:
        tenth = int(10 * share)
        if tenth not in shown:
            shown.add(tenth)
            progress(f"{step}: {10 * tenth}%")

    return show


def _end(number: int, frame: Any) -> None:
    """End this process as an exception does, which leaves nothing half done behind."""
    sys.exit(128 + number)


def _say(message: str, style: str) -> None:
    """Print a message on stderr, unbroken so that paths in it can be copied."""
    rank = os.environ.get("RANK")  # the group is gone by now
    lines = (clean(line) for line in (f"[process {rank}] {message}" if rank else message).splitlines())
    Console(stderr=True).print(Text("\n".join(lines), style=style), soft_wrap=True)
