"""Derivations listed, and what checks of them found."""

from __future__ import annotations

from collections.abc import Sequence

from diagnostics.exact.describing import describe
from diagnostics.exact.evidence import Evidence
from diagnostics.report.document import Cell, Headline, Row, Section, Table
from diagnostics.report.wording import listing, number, plural, verdict_cell
from diagnostics.results import Verdict
from diagnostics.theory.derivations.derivation import Derivation, Kind
from diagnostics.verdicts.derivations import DerivationCheck

__all__ = ["checks_headline", "checks_sections", "derivation_section", "list_headline", "list_section"]

_READING = (
    "A check draws cases that meet the assumptions, smallest dimension first, and compares both sides to their own "
    "float64 rounding error. Supported: no counterexample, and every wrong form of the claim was refuted by the same "
    "search. A search proves nothing; the proofs are in the documentation."
)


def list_headline(derivations: Sequence[Derivation]) -> Headline:
    """Say how many claims there are and how many fail as their sources state them.

    Args:
        derivations: All of them.

    Returns:
        The headline.
    """
    wrong = [item for item in derivations if not item.as_stated]
    claims = [item for item in derivations if item.kind is not Kind.DEFINITION]
    counts = {"claim": len(claims), "definition": len(derivations) - len(claims)}
    said = listing(plural(count, noun) for noun, count in counts.items() if count)
    verb = "fails" if len(wrong) == 1 else "fail"
    failing = f"{len(wrong)} {verb} as stated: {listing(item.id for item in wrong)}" if wrong else "all hold as stated"
    sentence = f"{said}; {failing}."
    return Headline(None, sentence, "Nothing was run. --check runs them; an id shows one in full.")


def list_section(derivations: Sequence[Derivation]) -> Section:
    """Show every derivation in a line.

    Args:
        derivations: All of them.

    Returns:
        The section.
    """
    rows: list[Row] = [[item.id, item.title, str(item.kind), _as_stated(item)] for item in derivations]
    table = Table.of("Claims and definitions by equation number", ["id", "what it says", "kind", "as stated"], rows)
    return Section("Derivations", (), (table,))


def derivation_section(item: Derivation) -> Section:
    """Show one derivation in full.

    Args:
        item: The derivation.

    Returns:
        The section.
    """
    lines = [f"Source: {item.source}.", f"Statement: {item.statement}"]
    if not item.as_stated:
        lines += [f"It fails as stated. {item.correction}", f"By hand: {item.by_hand}"]
        lines += [f"What holds: {_what_holds(item)}"]
    lines += [f"Proof: {item.proof}"] if item.proof else []
    lines += [f"Computed by {listing(item.code)}."] if item.code else []
    tables = []
    if item.assumptions:
        rows: list[Row] = [[condition.name, condition.text] for condition in item.assumptions]
        tables.append(Table.of("Assumptions", ["name", "what is assumed"], rows))
    wrong: list[Row] = [[mutant.description] for mutant in item.mutants]
    tables.append(Table.of("Wrong forms that a check must refute", ["wrong form"], wrong))
    return Section(f"({item.id}) {item.title}", tuple(lines), tuple(tables))


def _what_holds(item: Derivation) -> str:
    """The right form, or what the published one needs besides."""
    assert item.published is not None
    if item.published.statement != item.claim.statement:
        return item.claim.statement
    return f"the same, assuming besides: {listing(condition.text for condition in item.added_assumptions)}."


def checks_headline(checks: Sequence[DerivationCheck]) -> Headline:
    """Say whether any claim was refuted.

    Args:
        checks: At least one.

    Returns:
        The headline, refuted where one was.
    """
    by = {verdict: [check.derivation.id for check in checks if check.verdict is verdict] for verdict in Verdict}
    verdict = next(v for v in (Verdict.REFUTED, Verdict.UNDECIDED, Verdict.SUPPORTED) if by[v])
    parts = [f"{len(by[v])} {v}" + (f" ({listing(by[v])})" if v is not Verdict.SUPPORTED else "") for v in by if by[v]]
    cases = sum(check.evidence.examples for check in checks)
    wrong = sum(len(check.mutants) for check in checks)
    survived = sum(len(check.survivors) for check in checks)
    certainty = f"{cases} cases; {wrong - survived} of {wrong} wrong forms refuted by the same searches."
    return Headline(verdict, f"{plural(len(checks), 'derivation')}: {listing(parts)}.", certainty)


def checks_sections(checks: Sequence[DerivationCheck]) -> tuple[Section, ...]:
    """Show what was found, then every counterexample to what should hold.

    Args:
        checks: At least one.

    Returns:
        The sections.
    """
    rows: list[Row] = [
        [
            check.derivation.id,
            verdict_cell(check.verdict),
            str(check.evidence.examples),
            "" if check.evidence.closest is None else number(check.evidence.closest),
            _published(check),
            f"{len(check.mutants) - len(check.survivors)} of {len(check.mutants)}",
        ]
        for check in checks
    ]
    columns = ["id", "verdict", "cases", "left/right", "as stated", "wrong forms refuted"]
    table = Table.of("Checks; left/right is 1 where a bound is attained", columns, rows)
    notes = [
        f"({check.derivation.id}) not told apart: {listing(check.survivors)}. Raise --examples."
        for check in checks
        if check.survivors
    ]
    found = [_counterexample(check.derivation, check.evidence) for check in checks if check.evidence.counterexample]
    return (Section("Checks", (_READING, *notes), (table,)), *found)


def _counterexample(item: Derivation, evidence: Evidence) -> Section:
    """A case that refutes a claim."""
    case = evidence.counterexample
    assert case is not None
    lines = [
        f"{number(case.left)} {case.relation} {number(case.right)} is wrong by more than rounding explains "
        f"({case.tolerance:.1g})."
    ]
    lines += list(describe(case.case))
    rows: list[Row] = [
        [name, number(condition.measured), number(condition.limit), condition.note]
        for name, condition in case.assumptions.items()
    ]
    tables = (Table.of("Assumptions on it", ["name", "measured", "limit", "what is assumed"], rows),) if rows else ()
    return Section(f"Counterexample to ({item.id})", tuple(lines), tables)


def _as_stated(item: Derivation) -> Cell:
    """Whether the published form holds."""
    return Cell("holds", "good") if item.as_stated else Cell("fails", "bad")


def _published(check: DerivationCheck) -> Cell:
    """What the search found of the published form."""
    if check.published is None:
        return Cell("holds", "good")
    if check.published.verdict is Verdict.REFUTED:
        return Cell("fails, found", "bad")
    return Cell("fails, not found", "unsure")
