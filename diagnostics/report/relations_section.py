"""How experts are related by their outputs, and which coefficients that leaves to a pair."""

from __future__ import annotations

import math
from collections.abc import Sequence

from diagnostics.report.document import Cell, Figure, Headline, Row, Section, Table, Tone
from diagnostics.report.heat_map import cosine_heat_map
from diagnostics.report.wording import estimate, listing, number, percent, plural, status_notes
from diagnostics.results import Cost, Estimate
from diagnostics.theory.coefficient_conditions import Regime, Region, Span
from diagnostics.verdicts.relation_outcomes import CLAIMS, Agreement
from diagnostics.verdicts.relations import OutputRelation

__all__ = ["relations_headline", "relations_section"]

# Pairs named in the headline for each relation; the tables hold them all.
_NAMED = 3
_READING = (
    "α is the mean cosine similarity of two experts' outputs over the inputs of both tasks. Centred: each model's mean "
    "output over a task's inputs is removed first; this one decides. Uncentred: the outputs as they are. Changes: the "
    "base's output at the same input is removed."
)
_LIMITS = (
    "The regions are statements about a one-layer transformer with binary tasks, read at β = 0 where none was given: a "
    "λ inside is inside only up to unknown constants, and no upper end is stated for (3.1)."
)
_TONES: dict[str, Tone] = {"agrees": "good", "undecided": "unsure"}


def relations_headline(relations: Sequence[OutputRelation]) -> Headline:
    """Say in a sentence which experts are related how.

    Args:
        relations: One for each pair.

    Returns:
        A headline without a verdict: a relation by itself decides nothing.
    """
    parts = []
    for kind in Regime:
        pairs = [_pair(relation) for relation in relations if relation.kind is kind]
        if pairs:
            rest = [plural(len(pairs) - _NAMED, "more pair")] if len(pairs) > _NAMED else []
            parts.append(f"{len(pairs)} {kind} ({'; '.join([*pairs[:_NAMED], *rest])})")
    certainty = f"Read off the interval of the centred α; it holds the mean over all inputs {_confidence(relations)}."
    return Headline(None, f"{plural(len(relations), 'pair')} of experts: {listing(parts)}.", certainty)


def relations_section(relations: Sequence[OutputRelation]) -> Section:
    """Show α of every pair, the coefficients that it implies, and measured merges where there are any.

    Args:
        relations: One for each pair, at least one.

    Returns:
        The section.
    """
    low, high = relations[0].thresholds
    cost = sum((relation.cost for relation in relations), Cost())
    text = [
        _READING,
        f"Aligned above {number(high)}, contradictory below {number(low)}, undecided where the interval crosses one.",
        _LIMITS,
        f"Cost: {cost}, each over one task's data, counted as if each pair were measured alone.",
    ]
    text += [f"Note: {_pair(relation)}: {note}." for relation in relations for note in relation.notes]
    text += [f"{note[0].upper()}{note[1:]}" for note in status_notes(_estimates(relations))]
    tables = [_alpha_table(relations), _task_table(relations), _region_table(relations)]
    measured = {_pair(relation): relation.agreement for relation in relations if relation.agreement is not None}
    tables += [_agreement_table(pair, agreement) for pair, agreement in measured.items()]
    tables += [_count_table(list(measured.values()))] if measured else []
    return Section("Relations between the experts' outputs", tuple(text), tuple(tables), _figures(relations))


def _pair(relation: OutputRelation) -> str:
    """The two names."""
    return f"{relation.first}, {relation.second}"


def _confidence(relations: Sequence[OutputRelation]) -> str:
    """How often the intervals are meant to hold."""
    return f"{percent(relations[0].centred.confidence)} of the time"


def _estimates(relations: Sequence[OutputRelation]) -> dict[str, Estimate]:
    """Every α by what it is."""
    kinds = {"centred": "the centred α", "uncentred": "the uncentred α", "change": "α of the changes"}
    return {f"{text} of {_pair(r)}": getattr(r, kind) for r in relations for kind, text in kinds.items()}


def _alpha_table(relations: Sequence[OutputRelation]) -> Table:
    """α by what is removed."""
    rows: list[Row] = []
    for relation in relations:
        tone: Tone | None = "unsure" if relation.kind is Regime.UNDECIDED else None
        alphas = [estimate(value) for value in (relation.centred, relation.uncentred, relation.change)]
        rows.append([_pair(relation), Cell(str(relation.kind), tone), *alphas])
    return Table.of("Relation of each pair", ["Pair", "Relation", "α centred", "α uncentred", "α of changes"], rows)


def _task_table(relations: Sequence[OutputRelation]) -> Table:
    """Centred α on the inputs of each task: where the two differ, their mean describes neither."""
    rows: list[Row] = []
    for relation in relations:
        values = [relation.by_task[name] for name in (relation.first, relation.second)]
        rows.append([_pair(relation), *(number(value["centred"]) for value in values)])
    return Table.of("Centred α by task", ["Pair", "Inputs of the first", "Inputs of the second"], rows)


def _region_table(relations: Sequence[OutputRelation]) -> Table:
    """What α implies for λ."""
    rows: list[Row] = []
    for relation in relations:
        if relation.regions is None:
            rows.append([_pair(relation), "unknown", "unknown"])
        else:
            rows.append([_pair(relation), *(_region(getattr(relation.regions, claim)) for claim in CLAIMS)])
    columns = ["Pair", "Both succeed (3.1)", "Second unlearned (3.2)"]
    return Table.of("λ of θ0 + τ_first + λ τ_second that the theory allows", columns, rows)


def _region(region: Region) -> str:
    """The λ of a region in words."""
    text = _span(region.certain)
    return f"{text}; undecided: {' and '.join(map(_span, region.undecided))}" if region.undecided else text


def _span(span: Span | None) -> str:
    """An interval of λ in words."""
    if span is None:
        return "none"
    low, high = span
    if math.isinf(low) or math.isinf(high):
        whole = math.isinf(low) and math.isinf(high)
        return "any" if whole else f"up to {number(high)}" if math.isinf(low) else f"from {number(low)}"
    return number(low) if low == high else f"{number(low)} to {number(high)}"


def _agreement_table(pair: str, agreement: Agreement) -> Table:
    """Measured merges of a pair."""
    rows: list[Row] = []
    for outcome in agreement.outcomes:
        checks = [getattr(outcome, claim).word for claim in CLAIMS]
        kept = [estimate(value, percent) for value in (outcome.first, outcome.second)]
        rows.append([number(outcome.coefficient), *kept, *(Cell(word, _TONES.get(word, "bad")) for word in checks)])
    caption = f"{pair}: share of the score that is left at each λ; {percent(1 - agreement.tolerance)} counts as kept"
    return Table.of(caption, ["λ", "First task", "Second task", *CLAIMS.values()], rows)


def _count_table(agreements: Sequence[Agreement]) -> Table:
    """Over all measured merges, how often the regions were right."""
    words = list(agreements[0].counts["multi_task"])
    rows: list[Row] = [
        [label, *(number(sum(agreement.counts[claim][word] for agreement in agreements)) for word in words)]
        for claim, label in CLAIMS.items()
    ]
    caption = (
        "All measured merges by statement: inside but not met speaks against the region as sufficient, outside but met "
        "against it as necessary"
    )
    return Table.of(caption, ["Statement", *(word.capitalize() for word in words)], rows)


def _figures(relations: Sequence[OutputRelation]) -> tuple[Figure, ...]:
    """Heat maps of the centred α and of that of the changes."""
    names = list(dict.fromkeys(name for relation in relations for name in (relation.first, relation.second)))
    titles = {"centred": "Centred α between experts.", "change": "α of the changes between experts."}
    return tuple(_heat_map(relations, names, kind, title) for kind, title in titles.items())


def _heat_map(relations: Sequence[OutputRelation], names: list[str], kind: str, title: str) -> Figure:
    """One α of all pairs as shaded squares; the diagonal is 1 by definition."""
    values = {frozenset((r.first, r.second)): getattr(r, kind).value for r in relations}
    matrix = [[1.0 if a == b else values.get(frozenset((a, b)), math.nan) for b in names] for a in names]
    known = {pair: value for pair, value in values.items() if not math.isnan(value)}
    alt = f"Heat map. {title}"
    if known:
        alt = f"Heat map. {title[:-1]}: from {number(min(known.values()))} to {number(max(known.values()))}."
    return cosine_heat_map(names, matrix, alt, title)
