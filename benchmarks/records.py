"""Small files beside what a benchmark has made, written so that no reader sees half of one, and tables of them."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from diagnostics.inputs.files import replace_file


def read_record(path: Path) -> dict[str, Any]:
    """A JSON record; empty where there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Store a JSON record."""
    replace(path, lambda temporary: temporary.write_text(json.dumps(record, indent=2) + "\n"))


def replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Write under a temporary name and move in place: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, write)


def print_tables(tables: Mapping[str, Sequence[Sequence[str]]], console: Console) -> None:
    """Print tables by title, each with its heads first; what names a row stands on the left."""
    for title, (heads, *rows) in tables.items():
        table = Table(title=title)
        for place, head in enumerate(heads):
            table.add_column(head, justify="right" if place else "left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
