"""Findings about models that are to be merged, by model, the worst first, each with what to do."""

from __future__ import annotations

from collections.abc import Sequence

from diagnostics.report.document import Cell, Headline, Row, Section, Table, Tone
from diagnostics.report.wording import listing, plural
from diagnostics.results import Verdict
from diagnostics.verdicts.findings import Finding, Severity

__all__ = ["compatibility_headline", "compatibility_section"]

_TONES: dict[Severity, Tone | None] = {Severity.ERROR: "bad", Severity.WARNING: "unsure", Severity.NOTE: None}
# Tensors named in one row of a table; the JSON names them all.
_SHOWN = 3


def compatibility_headline(findings: Sequence[Finding], experts: Sequence[str]) -> Headline:
    """Say in a sentence whether the models can be merged.

    Args:
        findings: All findings, the worst first.
        experts: Names of the experts.

    Returns:
        The headline: refuted with an error, else supported.

    Example:
        >>> compatibility_headline([], ["news", "mail"]).sentence
        'Nothing speaks against merging news and mail into this base.'
    """
    errors = list(dict.fromkeys(each.model for each in findings if each.severity is Severity.ERROR))
    others = len({each.model for each in findings if each.severity is Severity.WARNING})
    certainty = "Found from weights and files alone, without data: what fits together may still merge badly."
    if errors:
        return Headline(Verdict.REFUTED, f"These cannot be merged as they are: {listing(errors)}.", certainty)
    sentence = f"Nothing speaks against merging {listing(experts)} into this base."
    if others:
        sentence = f"{listing(experts)} can be merged into this base; {plural(others, 'model')} with warnings."
    return Headline(Verdict.SUPPORTED, sentence, certainty)


def compatibility_section(findings: Sequence[Finding], experts: Sequence[str]) -> Section:
    """Show the findings by model, the worst first, with remedies.

    Args:
        findings: All findings, the worst first.
        experts: Names of the experts.

    Returns:
        The section.
    """
    models = list(dict.fromkeys(each.model for each in findings))
    tables = tuple(_table(model, [each for each in findings if each.model == model]) for model in models)
    clean = [name for name in experts if name not in models]
    severities = dict.fromkeys(each.severity for each in findings)
    paragraphs = [f"{severity}: {severity.advice}" for severity in severities]
    if clean:
        paragraphs.append(f"Nothing was found in {listing(clean)}.")
    return Section("Compatibility of the checkpoints", tuple(paragraphs), tables)


def _table(model: str, findings: Sequence[Finding]) -> Table:
    """What was found in one model; tensors with the same finding share a row."""
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for each in findings:
        groups.setdefault((each.severity, each.code, each.remedy), []).append(each)
    counts = {severity: sum(each.severity is severity for each in findings) for severity in Severity}
    caption = ", ".join(plural(count, severity) for severity, count in counts.items() if count)
    rows = [_row(group) for group in groups.values()]
    return Table.of(f"{model}: {caption}", ["Finding", "Severity", "Where", "What was found", "What to do"], rows)


def _row(group: Sequence[Finding]) -> Row:
    """One kind of finding in one model."""
    first = group[0]
    tensors = [each.tensor for each in group if each.tensor]
    where = ", ".join(tensors[:_SHOWN]) or "whole model"
    if len(tensors) > _SHOWN:
        where += f" and {plural(len(tensors) - _SHOWN, 'more tensor')}"
    messages = list(dict.fromkeys(each.message for each in group))
    what = messages[0] if len(messages) == 1 else f"{messages[0]} (Of {first.tensor}; the others are alike.)"
    return [first.code, Cell(str(first.severity), _TONES[first.severity]), where, what, first.remedy]
