"""Small files beside what a benchmark has made: what it was made of, written so that no reader sees half of one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
