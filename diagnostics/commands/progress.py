"""What is being done and how far it is: a bar in a terminal, lines in a log."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from diagnostics.report.wording import clean

__all__ = ["Log", "Steps", "showing"]

# Seconds after which a log hears how far a step is.
_EVERY = 60.0


class Steps(ABC):
    """Shows steps one after the other."""

    @abstractmethod
    def __call__(self, step: str, done: float | None = None) -> None:
        """Begin a step.

        Args:
            step: What is being done.
            done: Share of a whole that is done before it, for one of several parts; the first of them has 0.
        """

    @abstractmethod
    def share(self, done: float) -> None:
        """Say how far the step is.

        Args:
            done: The share of it that is done.
        """


class Log(Steps):
    """A line for each step, and for a long one how far it is, once a minute.

    Args:
        console: Where to.
        clock: Gives the time in seconds.

    Example:
        >>> clock = iter([0, 30, 90, 100])
        >>> steps = Log(Console(), lambda: next(clock))
        >>> steps("measuring")
        measuring
        >>> steps.share(0.2)
        >>> steps.share(0.75)
        measuring: 75%, 1 min left
        >>> steps.share(0.8)
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._step, self._begun, self._told = "", 0.0, 0.0

    def __call__(self, step: str, done: float | None = None) -> None:
        """Begin a step by a line of its own."""
        if not done:
            self._begun = self._told = self._clock()
        self._step = step
        self._say(step)

    def share(self, done: float) -> None:
        """Say how far the step is, where the last line was a while ago."""
        now = self._clock()
        if 0 < done < 1 and now - self._told >= _EVERY:
            self._told = now
            left = _left(now - self._begun, done)
            self._say(f"{self._step}: {done:.0%}, {max(1, round(left / 60))} min left")

    def _say(self, text: str) -> None:
        """Print a line."""
        self._console.print(Text(clean(text), style="dim"), soft_wrap=True)


class Bar(Steps):
    """A spinner with the step, and a bar and the time left where its share is known."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("starting", total=None)

    def __call__(self, step: str, done: float | None = None) -> None:
        """Begin a step, in place of the one before."""
        if not done:
            self._progress.remove_task(self._task)
            self._task = self._progress.add_task(clean(step), total=None)
        if done is not None:
            self._progress.update(self._task, description=clean(step))
            self.share(done)

    def share(self, done: float) -> None:
        """Move the bar."""
        self._progress.update(self._task, total=1.0, completed=done)


class _Known(ProgressColumn):
    """A column that is empty as long as no share is known."""

    def __init__(self, inner: ProgressColumn) -> None:
        super().__init__()
        self._inner = inner

    def render(self, task: Task) -> RenderableType:
        """Show the column, if there is something to show."""
        return "" if task.total is None else self._inner(task)


class _Left(ProgressColumn):
    """The time left."""

    def render(self, task: Task) -> RenderableType:
        """Show hours, minutes and seconds once something is done."""
        done = task.percentage / 100
        known = 0 < done < 1 and task.elapsed is not None
        return f"{timedelta(seconds=round(_left(task.elapsed or 0.0, done)))} left" if known else ""


def _left(elapsed: float, done: float) -> float:
    """Seconds left, if all goes on as so far: steps of one measure may differ by a lot, so the last few say little."""
    return elapsed * (1 - done) / done


@contextmanager
def showing(console: Console) -> Iterator[Steps]:
    """Show steps on a console as long as the context lasts.

    Args:
        console: Where to.

    Yields:
        What to call with each step.
    """
    if not console.is_terminal:
        yield Log(console)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        _Known(BarColumn(bar_width=20)),
        _Known(TextColumn("{task.percentage:>3.0f}%")),
        _Known(_Left()),
    )
    with Progress(*columns, console=console, transient=True, expand=True) as progress:
        yield Bar(progress)
