"""The package descriptions that apt keeps on Debian, in several languages, and splits by source package."""

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from diagnostics.errors import InputError

CACHE = Path.home() / ".cache" / "task-arithmetic-diagnostics"
LISTS = Path("/var/lib/apt/lists")
APT_HELPER = "/usr/lib/apt/apt-helper"
UPDATE = 'apt-get -o Acquire::Languages="en,fr,de,es,ja" update'

SEED = 0
SHARES = {"train": 1200, "probe": 256, "test": 512}

Stanza = dict[str, str]


def split_of(key: str) -> str:
    """The split of a source package, the same in every task: sibling packages never fall into two splits."""
    point = int(hashlib.sha256(f"{SEED}:{key}".encode()).hexdigest()[:8], 16) / 16**8
    for split, share in SHARES.items():
        point -= share / sum(SHARES.values())
        if point < 0:
            return split
    return "test"


def read_translations(languages: Iterable[str], lists: Path = LISTS) -> Iterator[tuple[Stanza, str, str]]:
    """Each package's stanza, a language, and its description in it, where it translates the current English one."""
    packages: dict[str, Stanza] = {}
    for stanza in _stanzas(_list_files(lists, "Packages")):
        packages.setdefault(stanza["Package"], stanza)
    for language in languages:
        for stanza in _stanzas(_list_files(lists, f"Translation-{language}")):
            package = packages.get(stanza["Package"], {})
            if package.get("Description-md5") == stanza["Description-md5"]:
                yield package, language, stanza[f"Description-{language}"]


def source_of(package: Stanza) -> str:
    """The source package that a package is built from."""
    return package.get("Source", package["Package"]).split()[0]


def split_description(value: str) -> tuple[str, str]:
    """The short description, and the first paragraph of the long one as it stands."""
    short, _, long = value.partition("\n")
    return short, re.split(r"^ \.$", long, maxsplit=1, flags=re.MULTILINE)[0]


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines under a temporary name and move them in place: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    temporary.write_text("".join(lines), encoding="utf-8")
    temporary.replace(path)


def _list_files(lists: Path, kind: str) -> list[Path]:
    """The files of one kind in apt's folder, compressed or not."""
    files = sorted([*lists.glob(f"*_{kind}"), *lists.glob(f"*_{kind}.*")])
    if not files:
        raise InputError(
            f"no *_{kind} file in {lists}; the descriptions come from apt's lists on a Debian machine: "
            f"run `{UPDATE}` as root, then try again"
        )
    return files


def _stanzas(files: Iterable[Path]) -> Iterator[Stanza]:
    """The stanzas of apt's lists as field → value; continuation lines keep their leading space."""
    for path in files:
        shown = subprocess.run([APT_HELPER, "cat-file", str(path)], check=True, capture_output=True)
        for stanza in filter(None, shown.stdout.decode().split("\n\n")):
            fields = re.findall(r"^(\S+?):[ ]?(.*(?:\n[ \t].*)*)", stanza, re.MULTILINE)
            yield dict(fields)
