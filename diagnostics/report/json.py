"""Results as a JSON file that another program can rely on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diagnostics.errors import InputError
from diagnostics.inputs.files import write_atomic
from diagnostics.report.provenance import versions
from diagnostics.results import plain

__all__ = ["SCHEMA", "write_json"]

# Raised whenever a reader of the files would have to change.
SCHEMA = 1


def write_json(path: str | Path, payload: Mapping[str, Any]) -> None:
    """Write results with the schema number and the versions that made them.

    Numbers that are not finite are ``null`` (undefined) or ``"inf"``, so that the file is strict JSON.

    Args:
        path: Where to.
        payload: Results by name; anything that :func:`diagnostics.results.plain` takes.

    Raises:
        InputError: If a name is reserved, or the file cannot be written.
    """
    head = {"schema": SCHEMA, "versions": versions()}
    taken = sorted(head.keys() & payload.keys())
    if taken:
        raise InputError(f"the names {taken} are reserved in a JSON report; give these results other names")
    text = json.dumps({**head, **plain(payload)}, indent=2, allow_nan=False)
    write_atomic(path, f"{text}\n")
