"""A page made of parts: one verdict for all of it, each part in a line, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from diagnostics.report.document import Cell, Headline, Listing, Row, Section, Table
from diagnostics.report.wording import listing, number, verdict_cell
from diagnostics.results import Cost, Verdict

__all__ = ["Making", "PagePart", "State", "glance_section", "making_section", "page_headline"]

# The part that decides the verdict of a page is the first in its sentence.
_WORST_FIRST = (Verdict.REFUTED, Verdict.UNDECIDED, Verdict.SUPPORTED)
_OPEN = "It stays open whether this merge will work"


class State(StrEnum):
    """Whether a part of a page has an answer; each member is the word that stands where there is no verdict."""

    ANSWERED = "measured"
    IDLE = "does not apply"
    FAILED = "failed"


@dataclass(frozen=True)
class PagePart:
    """One part of a page.

    Attributes:
        command: The command that gives it alone.
        question: What it answers.
        headline: Its answer; what went wrong where it failed.
        sections: Its sections.
        seconds: How long it took.
        cost: Passes over a task's data, where they were counted.
        state: Whether there is an answer.
    """

    command: str
    question: str
    headline: Headline
    sections: tuple[Section, ...]
    seconds: float
    cost: Cost | None = None
    state: State = State.ANSWERED

    @property
    def failed(self) -> bool:
        """Whether there is no answer because something in the input was wrong."""
        return self.state is State.FAILED

    @classmethod
    def of_failure(cls, command: str, question: str, title: str, message: str, seconds: float) -> PagePart:
        """Make the part that says what failed.

        Args:
            command: The command that gives the part alone.
            question: What it would have answered.
            title: Heading of its section.
            message: What was wrong, and the remedy.
            seconds: How long it took to find out.

        Returns:
            The part.
        """
        text = ("This part could not be made, because something that it needs is wrong or missing:", message)
        return cls(command, question, Headline(None, message, ""), (Section(title, text),), seconds, state=State.FAILED)


@dataclass(frozen=True)
class Making:
    """How a page was made.

    Attributes:
        command: The command line.
        seed: Seeds by file.
        files: Contents of configurations by path.
        skipped: Parts that were left out as asked.
        place: Where models were evaluated, and in which type.
        reading: Seconds that models and data took to read.
    """

    command: str
    seed: Mapping[str, int]
    files: Mapping[str, str]
    skipped: Sequence[str]
    place: str
    reading: float


def page_headline(parts: Sequence[PagePart], advice: str = "") -> Headline:
    """Give the verdict of a page: that of its check where that is a no, else of its prediction and audits together.

    Args:
        parts: Its parts, in order.
        advice: What to do instead, in a sentence, where the prediction is not supported.

    Returns:
        The headline; without a prediction and an audit it is a finding and no verdict.

    Example:
        >>> fine = PagePart("check", "?", Headline(Verdict.SUPPORTED, "They fit.", "Without data."), (), 0.0)
        >>> page_headline([fine])
        Headline(verdict=None, sentence='They fit.', certainty='Without data. Whether the merge works was not asked.')
    """
    by_command: dict[str, list[PagePart]] = {}
    for part in parts:
        by_command.setdefault(part.command, []).append(part)
    refused = [part for part in by_command.get("check", []) if part.headline.verdict is Verdict.REFUTED]
    if refused:
        rest = "Nothing else was measured."
        return Headline(Verdict.REFUTED, refused[0].headline.sentence, f"{refused[0].headline.certainty} {rest}")
    judged = [part for name in ("predict", "audit") for part in by_command.get(name, [])]
    judged.sort(key=lambda part: _WORST_FIRST.index(_judged(part)))
    if not judged:
        first = parts[0].headline
        return Headline(None, first.sentence, f"{first.certainty} Whether the merge works was not asked.".strip())
    sentences = [_sentence(part, advice) for part in judged]
    certainties = [part.headline.certainty for part in judged if part.headline.certainty]
    others = [part.command for part in parts if part.failed and part not in judged]
    if others:
        certainties.append(f"Not everything could be measured: {listing(others)} failed.")
    return Headline(_judged(judged[0]), " ".join(sentences), " ".join(dict.fromkeys(certainties)))


def _judged(part: PagePart) -> Verdict:
    """The verdict of a part that has one, or of one that should have."""
    return Verdict.UNDECIDED if part.failed or part.headline.verdict is None else part.headline.verdict


def _sentence(part: PagePart, advice: str) -> str:
    """What a part with a verdict says on top of the page."""
    if part.failed:
        return f"{_OPEN}: the {'prediction' if part.command == 'predict' else 'audit'} could not be made."
    unsure = part.command == "predict" and part.headline.verdict is not Verdict.SUPPORTED
    return f"{part.headline.sentence} {advice}" if advice and unsure else part.headline.sentence


def glance_section(parts: Sequence[PagePart]) -> Section:
    """Show every part in a line.

    Args:
        parts: The parts, in order.

    Returns:
        The section.
    """
    rows: list[Row] = [[part.question, _verdict(part), part.headline.sentence] for part in parts]
    return Section("At a glance", tables=(Table.of("What was asked", ["Question", "Verdict", "Answer"], rows),))


def _verdict(part: PagePart) -> Cell:
    """A part's verdict; that it has none is a word too."""
    if part.failed:
        return Cell(str(part.state), "bad")
    return Cell(str(part.state)) if part.headline.verdict is None else verdict_cell(part.headline.verdict)


def making_section(parts: Sequence[PagePart], making: Making) -> Section:
    """Show what the page cost, and all that is needed to make it again.

    Args:
        parts: The parts, in order.
        making: How it was made.

    Returns:
        The section.
    """
    seeds = listing(f"{seed} ({file})" for file, seed in making.seed.items())
    text = [f"Seed: {seeds}. {making.place}".strip()]
    if making.skipped:
        text.append(f"Left out as asked: {listing(making.skipped)}.")
    text.append(
        "Passes are counted as if each part stood alone, each over one task's data; what several parts need was "
        "measured once, for the first of them."
    )
    rows: list[Row] = [["models and data", number(making.reading), "none"]] if making.reading else []
    rows += [
        [part.command, number(part.seconds), "not counted" if part.cost is None else str(part.cost)] for part in parts
    ]
    table = Table.of("Cost of each part", ["Part", "Seconds", "Passes"], rows)
    listings = (
        Listing(making.command, "The command"),
        *(Listing(content, f"What {path} holds") for path, content in making.files.items()),
    )
    return Section("How this page was made", tuple(text), (table,), listings=listings)
