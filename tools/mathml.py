"""A hook for mkdocs: formulas between double dollars become MathML, which browsers draw without a network."""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(r"^\$\$\n(.+?)\n\$\$$", re.MULTILINE | re.DOTALL)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the formulas of a page."""
    return _FORMULA.sub(lambda found: convert(found[1].replace("\n", " "), display="block"), markdown)
