"""Write the page on data frames from the tables that results have.

python -m tools.frame_page               # docs/how-to/frames.md

The page is committed; a test fails where it is not what this script writes.
"""

from __future__ import annotations

from pathlib import Path

from diagnostics.inputs.files import write_atomic
from diagnostics.report.frame_tables import TABLES, Table
from diagnostics.report.frames import PARTS

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "how-to" / "frames.md"
TEMPLATE = Path(__file__).parent / "frames.template.md"


def main() -> None:
    """Write the page."""
    write_atomic(PAGE, page())
    print(f"wrote {PAGE}")


def page() -> str:
    """What the page says."""
    parts = [f"- `_{name}`: {meaning};" for name, meaning in PARTS.items()]
    sections = [_section(kind.__name__, tables) for kind, tables in TABLES.items()]
    text = TEMPLATE.read_text().replace("@@PARTS@@", "\n".join(parts).removesuffix(";") + ".")
    return text.replace("@@TABLES@@", "\n\n".join(sections))


def _section(kind: str, tables: dict[str, Table]) -> str:
    """The tables of one class."""
    lines = [f"### {kind}"]
    for name, table in tables.items():
        lines += ["", f"`to_frame({name!r})`".replace("'", '"'), "", "| column | holds |", "| --- | --- |"]
        lines += [f"| `{column}` | {meaning.replace('|', '&#124;')} |" for column, meaning in table.columns.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
