"""A hook for mkdocs: every notebook as a page of the site, with the outputs it was stored with."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files

__all__ = ["on_files", "page"]

FOLDER = Path(__file__).parent.parent / "notebooks"


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the notebooks to the site's files."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page(path)))
    return files


def page(path: Path) -> str:
    """Return a notebook as Markdown.

    Args:
        path: Its file.

    Returns:
        Its text, code and outputs, and where it comes from.
    """
    cells = nbformat.read(path, as_version=4).cells
    # Notebooks link to pages as the repository has them.
    parts = [
        cell.source.replace("](../docs/", "](../") if cell.cell_type == "markdown" else _code(cell) for cell in cells
    ]
    return "\n\n".join([*parts, f"*Run it yourself: `notebooks/{path.name}`.*"]) + "\n"


def _code(cell: nbformat.NotebookNode) -> str:
    """Code and what it gave."""
    return "\n\n".join([f"```python\n{cell.source}\n```", *map(_output, cell.outputs)])


def _output(output: nbformat.NotebookNode) -> str:
    """Text as it was printed, a picture as a picture."""
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img alt="Figure" src="data:image/png;base64,{"".join(data["image/png"].split())}">'
    text = output.get("text") or data.get("text/plain", "")
    return f"<pre>{escape(text.rstrip())}</pre>"
