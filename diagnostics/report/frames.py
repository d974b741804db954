"""``result.to_frame()`` and ``to_frame(results)``: the tables of results as data frames of pandas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from diagnostics.errors import InputError
from diagnostics.report.extras import require
from diagnostics.report.frame_rows import Row
from diagnostics.report.frame_tables import TABLES, Table
from diagnostics.results import Estimate, Result, plain

__all__ = ["PARTS", "to_frame"]

# What an estimate adds to the column of its value, and what that says.
PARTS = {"lower": "lower end of its interval", "upper": "upper end of its interval", "status": "how far to trust it"}


def to_frame(results: Result | Sequence[Result] | Mapping[Any, Result], table: str | None = None) -> Any:
    """Return a table of one result, or of several of a kind below each other, as a data frame of pandas.

    An estimate has four columns: its value under its name, and ``_lower``, ``_upper`` and ``_status`` beside it. What
    every column holds is in ``frame.attrs["columns"]``, the confidence of the intervals in
    ``frame.attrs["confidence"]``.

    Args:
        results: A result, as ``result.to_frame()`` has it; a list, as from ``check_compatibility``; or a mapping, as
            from ``addition_bounds``, whose keys become a first column ``name``.
        table: Which of its tables; the first by default.

    Returns:
        The frame; an empty list gives an empty one.

    Raises:
        InputError: If results are of several kinds, there is no such table, or pandas is not installed.
        TypeError: If results of this class have no table.

    Example:
        >>> import torch
        >>> from diagnostics import geometry
        >>> experts = {"a": {"w": torch.tensor([3.0, 0.0])}, "b": {"w": torch.tensor([3.0, 4.0])}}
        >>> found = geometry({"w": torch.zeros(2)}, experts)
        >>> to_frame(found)[["first", "second", "cosine"]].to_dict("records")
        [{'first': 'a', 'second': 'b', 'cosine': 0.6}]
        >>> to_frame({"run 1": found}, "experts")[["name", "expert", "norm"]].values.tolist()
        [['run 1', 'a', 3.0], ['run 1', 'b', 5.0]]
    """
    if isinstance(results, Result):
        found = _chosen(type(results), table)
        return _build([dict(row) for row in found.rows(results)], found.columns)
    named = dict(results) if isinstance(results, Mapping) else dict(enumerate(results))
    kinds = list(dict.fromkeys(type(each) for each in named.values()))
    if len(kinds) > 1:
        found_kinds = ", ".join(kind.__name__ for kind in kinds)
        raise InputError(f"results: expected results of one kind; found {found_kinds}. Make a frame of each.")
    if not named:
        return _build([], {})
    found = _chosen(kinds[0], table)
    heads = [{"name": plain(key)} if isinstance(results, Mapping) else {} for key in named]
    rows = [head | dict(row) for head, each in zip(heads, named.values(), strict=True) for row in found.rows(each)]
    return _build(rows, ({"name": "key of the result"} if isinstance(results, Mapping) else {}) | found.columns)


def _chosen(kind: type, table: str | None) -> Table:
    """A table of a class, by name."""
    if kind not in TABLES:
        raise TypeError(f"{kind.__name__} has no table; print it, or use to_dict()")
    known = TABLES[kind]
    if table is not None and table not in known:
        raise InputError(f"table: expected one of {list(known)} of {kind.__name__}; found {table!r}. Check its name.")
    return known[table or next(iter(known))]


def _build(rows: Sequence[Row], columns: Mapping[str, str]) -> Any:
    """A frame with what its columns hold."""
    pandas = require("pandas", "a data frame", "pandas")
    flat = [dict(_flat(row)) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row)) or [n for n in columns if "*" not in n]
    built = pandas.DataFrame(flat, columns=names)
    built.attrs["columns"] = {name: _meaning(name, columns) for name in names}
    found = {key: item for row in rows for key, item in row.items() if isinstance(item, Estimate)}
    built.attrs["confidence"] = {key: item.confidence for key, item in found.items()}
    return built


def _flat(row: Row) -> Iterator[tuple[str, Any]]:
    """The cells of a row, four for an estimate."""
    for name, value in row.items():
        if isinstance(value, Estimate):
            yield name, value.value
            for part in PARTS:
                yield f"{name}_{part}", _cell(getattr(value, part))
        else:
            yield name, _cell(value)


def _cell(value: Any) -> Any:
    """A value as pandas keeps it: floats with their infinities and NaN, and text in place of members of enums."""
    return value if isinstance(value, float) else plain(value)


def _meaning(name: str, columns: Mapping[str, str]) -> str:
    """What a column holds, also where it is one of several or a part of an estimate."""
    stem, _, part = name.rpartition("_")
    if part in PARTS:
        return f"{PARTS[part]}, of {stem}"
    return next(meaning for pattern, meaning in columns.items() if fnmatchcase(name, pattern))
