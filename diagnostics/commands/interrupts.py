"""What happens to a command that is interrupted: it ends in order, and says so in a line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

__all__ = ["interruptible"]

# By the status that shells give: 128 and the number of the signal.
_ENDINGS: dict[object, str] = {128 + signal.SIGINT: "Interrupted", 128 + signal.SIGTERM: "Ended from outside"}


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
        if status in _ENDINGS:
            typer.echo(f"{_ENDINGS[status]}: no answer was given; every file is whole, or as it was before.", err=True)
        sys.exit(status)
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, frame: FrameType | None) -> None:
    """End this process as an exception does, which leaves nothing half done behind."""
    sys.exit(128 + number)
