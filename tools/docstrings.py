"""Docstrings in Google's style as Markdown."""

from __future__ import annotations

import inspect
import re

__all__ = ["docstring", "first_sentence", "plain"]

_SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Example):$", re.MULTILINE)
_ITEM = re.compile(r"^(?=\S)", re.MULTILINE)
_TITLES = {"Args": "Arguments", "Attributes": "Fields"}
# What Markdown or HTML would read as something else; code is left alone.
_SPECIAL = re.compile(r"([*\[\]_])")


def docstring(item: object) -> str:
    """Return an object's docstring as Markdown.

    Args:
        item: Anything with a docstring.

    Returns:
        Paragraphs, then a list for each section, and examples as code.
    """
    head, *rest = _SECTION.split(inspect.getdoc(item) or "")
    parts = [_prose(head)]
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        text = inspect.cleandoc(f"\n{body}")
        parts.append(_example(text) if title == "Example" else _section(title, text))
    return "\n\n".join(part for part in parts if part)


def first_sentence(item: object) -> str:
    """Return the first paragraph of an object's docstring as one line of Markdown, fit for a table."""
    text = (inspect.getdoc(item) or "").partition("\n\n")[0]
    return plain(" ".join(text.split())).replace("|", "\\|")


def plain(text: str) -> str:
    """Return text such that Markdown shows it as it is; double backticks become single ones.

    Example:
        >>> plain("x < y by ``f_g``")
        'x &lt; y by `f_g`'
    """
    pieces = re.split(r"(``.+?``|`[^`]+`)", text, flags=re.DOTALL)
    shown = [_code(piece) if number % 2 else _escape(piece) for number, piece in enumerate(pieces)]
    return "".join(shown)


def _escape(text: str) -> str:
    """Escape what Markdown would take for markup."""
    text = re.sub(r":(?:func|class|meth|mod|attr):$", "", text)
    return _SPECIAL.sub(r"\\\1", text).replace("<", "&lt;")


def _code(piece: str) -> str:
    """Code between single backticks, without the marks of Sphinx."""
    return f"`{piece.strip('`').removeprefix('~')}`"


def _prose(text: str) -> str:
    """Paragraphs; formulas, and code after a double colon, in blocks of their own."""
    text = text.strip()
    parts, code = [], False
    for block in re.split(r"\n\n+", text):
        if block.startswith(".. math::"):
            parts.append(f"$$\n{' '.join(block.removeprefix('.. math::').split())}\n$$")
        elif code and block.startswith(" "):
            parts.append(f"```text\n{inspect.cleandoc(block)}\n```")
            continue
        else:
            parts.append(plain(re.sub(r"::$", ":", block)))
        code = block.endswith("::")
    return "\n\n".join(parts)


def _section(title: str, text: str) -> str:
    """A section: a list of names and what they are, or prose where it has none."""
    head = f"**{_TITLES.get(title, title)}**"
    if title in {"Returns", "Yields"}:
        return f"{head}: {plain(' '.join(text.split()))}"
    lines = []
    for item in filter(None, (each.strip() for each in _ITEM.split(text))):
        name, _, about = item.partition(":")
        lines.append(f"- `{name.strip()}`: {plain(' '.join(about.split()))}")
    return "\n".join([f"{head}:\n", *lines])


def _example(text: str) -> str:
    """An example as an interactive session."""
    return f"**Example**:\n\n```pycon\n{text}\n```"
