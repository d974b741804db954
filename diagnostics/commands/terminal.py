"""What the command line says: reports on stdout, everything else on stderr."""

from __future__ import annotations

import os
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

from diagnostics.commands.group import NO
from diagnostics.commands.progress import Steps, showing
from diagnostics.inputs.encoding import TruncationWarning
from diagnostics.inputs.files import write_atomic
from diagnostics.processes import team
from diagnostics.report.document import Document, Headline, Section
from diagnostics.report.html import render_html
from diagnostics.report.json import write_json
from diagnostics.report.provenance import footer
from diagnostics.report.text import render_text
from diagnostics.report.wording import clean
from diagnostics.results import Cost

__all__ = ["Answer", "Output", "say"]


@dataclass(frozen=True)
class Answer:
    """What a command found out.

    Attributes:
        title: The report's title.
        headline: The answer in a sentence.
        sections: The report.
        payload: The results by name, for JSON.
        negative: Whether the answer is no.
        cost: Passes over a task's data, where they were counted.
    """

    title: str
    headline: Headline
    sections: tuple[Section, ...]
    payload: Mapping[str, Any]
    negative: bool = False
    cost: Cost | None = None


@dataclass(frozen=True)
class Output:
    """Where the answer goes.

    Attributes:
        json: File for the results.
        html: File for the report.
        quiet: Whether to print neither report nor progress.
        notes: What was noted on the way, kept for the report; put in words at the end.
    """

    json: Path | None
    html: Path | None
    quiet: bool
    notes: list[object] = field(default_factory=list)

    @contextmanager
    def working(self) -> Iterator[Steps]:
        """Show progress, and note texts that were cut.

        Yields:
            What to call with each step.
        """
        console = Console(stderr=True, quiet=self.quiet or team().rank > 0)
        with warnings.catch_warnings(), showing(console) as steps:
            warnings.simplefilter("always", TruncationWarning)
            warnings.showwarning = self._noting(warnings.showwarning)
            yield steps

    def _noting(self, otherwise: Callable[..., None]) -> Callable[..., None]:
        """Keep our own warnings as notes and pass on others."""

        def show(message: Any, category: type[Warning], *rest: Any, **options: Any) -> None:
            if issubclass(category, TruncationWarning):
                self.notes.append(str(message))
                say(f"Note: {message}", "yellow")
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
        document = Document(answer.title, answer.headline, (*answer.sections, *self.notes_sections()), footer())
        self.publish(document, {**answer.payload, "notes": [*map(str, self.notes)]})
        if answer.negative and team().rank == 0:
            raise typer.Exit(NO)

    def notes_sections(self) -> tuple[Section, ...]:
        """Return the notes in words.

        Returns:
            A section, where there are any.
        """
        told = tuple(map(str, self.notes))
        return (Section("Notes on the input", told),) if told else ()

    def publish(self, document: Document, payload: Mapping[str, Any], brief: Document | None = None) -> None:
        """Write the files that were asked for and print the report; of several processes, one does.

        Args:
            document: The report.
            payload: The results by name.
            brief: What to print where a page holds the whole report; the same by default.
        """
        crew = team()

        def write() -> list[Tensor]:
            if crew.rank == 0:
                self._write(document, payload, brief)
            return []

        # The others wait for it: torchrun ends all processes as soon as one has ended with another status than 0.
        crew.total(write)

    def _write(self, document: Document, payload: Mapping[str, Any], brief: Document | None) -> None:
        """Write the files and print the report."""
        if self.json is not None:
            write_json(self.json, payload)
        if self.html is not None:
            write_atomic(self.html, render_html(document))
        if not self.quiet:
            printed = document if brief is None or self.html is None else brief
            render_text(printed, Console(), page=self.html)


def say(message: str, style: str) -> None:
    """Print a message on stderr, unbroken so that paths in it can be copied.

    Args:
        message: The message.
        style: How rich shows it.
    """
    rank = os.environ.get("RANK")  # the group is gone by now
    lines = (clean(line) for line in (f"[process {rank}] {message}" if rank else message).splitlines())
    Console(stderr=True).print(Text("\n".join(lines), style=style), soft_wrap=True)
