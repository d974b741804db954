"""What a new configuration says, and what is left to its user."""

from __future__ import annotations

from pathlib import Path

from diagnostics.inputs.draft import Draft
from diagnostics.report.document import Headline, Row, Section, Table
from diagnostics.report.wording import listing, plural

__all__ = ["draft_headline", "draft_section"]


def draft_headline(draft: Draft, file: Path) -> Headline:
    """Say where the configuration is and whether it is complete.

    Args:
        draft: What it says.
        file: Where it is.

    Returns:
        The headline.
    """
    certainty = "Complete; what was guessed is listed below."
    if draft.gaps:
        certainty = f"Not complete: {listing(list(draft.gaps))} could not be told; see the top of the file."
    return Headline(None, f"{file} was written for {plural(len(draft.content['experts']), 'expert')}.", certainty)


def draft_section(draft: Draft, file: Path) -> Section:
    """Show what the configuration says, what has to be filled in, and how to go on.

    Args:
        draft: What it says.
        file: Where it is.

    Returns:
        The section.
    """
    rows: list[Row] = [[key, _shown(value)] for key, value in draft.content.items()]
    reasons: list[Row] = [[key, why] for key, why in draft.remarks.items()]
    tables = (Table.of("What was written", ["Key", "Value"], rows), Table.of("Why", ["Key", "Reason"], reasons))
    gaps = [f"To be filled in or looked at, {key}: {text}" for key, text in draft.gaps.items()]
    ready = "data" in draft.content and not draft.gaps
    steps = (f"diagnostics check {file}", f"diagnostics {'predict' if ready else 'geometry'} {file}")
    paragraphs = (*gaps, f"Next: {' and then '.join(steps)}")
    return Section("The configuration", paragraphs, tables)


def _shown(value: object) -> str:
    """A value on a line."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
