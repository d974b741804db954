"""What a new configuration says, and what is left to its user."""

from __future__ import annotations

from pathlib import Path

from diagnostics.inputs.draft import Draft
from diagnostics.report.document import Headline, Row, Section, Table
from diagnostics.report.wording import plural

__all__ = ["draft_headline", "draft_section"]


def draft_headline(draft: Draft, file: Path) -> Headline:
    """Say where the configuration is and whether it is complete.

    Args:
        draft: What it says.
        file: Where it is.

    Returns:
        The headline.
    """
    experts = plural(len(draft.content["experts"]), "expert")
    if draft.gaps:
        missing = (
            f"Not complete: {plural(len(draft.gaps), 'thing')} could not be told and stand at the top of the file."
        )
        return Headline(None, f"{file} was written for {experts}.", missing)
    return Headline(None, f"{file} was written for {experts}.", "Complete; what was guessed is listed below.")


def draft_section(draft: Draft, file: Path) -> Section:
    """Show what the configuration says, what has to be filled in, and how to go on.

    Args:
        draft: What it says.
        file: Where it is.

    Returns:
        The section.
    """
    rows: list[Row] = [[key, _shown(value), draft.remarks.get(key, "")] for key, value in draft.content.items()]
    gaps = [f"To be filled in or looked at, {key}: {text}" for key, text in draft.gaps.items()]
    ready = "data" in draft.content and not draft.gaps
    steps = (f"diagnostics check {file}", f"diagnostics {'predict' if ready else 'geometry'} {file}")
    paragraphs = (*gaps, f"Next: {' and then '.join(steps)}")
    return Section(
        "The configuration", paragraphs, (Table.of("Keys that were written", ["Key", "Value", "Why"], rows),)
    )


def _shown(value: object) -> str:
    """A value on a line."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
