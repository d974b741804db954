"""Measured loss gaps held against their bounds, with the slack of every step in sight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diagnostics.report.bounds_chart import chain_figure, relation, rungs
from diagnostics.report.document import Cell, Figure, Headline, Row, Section, Table
from diagnostics.report.wording import holds_cell, listing, number, plural
from diagnostics.results import Verdict
from diagnostics.theory.bound_report import BoundReport

__all__ = ["bounds_headline", "bounds_section"]

Reports = Mapping[str, BoundReport]
Merges = Reports | Sequence[tuple[str, Reports]]

# What the entries of BoundReport.quantities are; L has a table of its own.
_MEANING = {
    "L_along": "largest spectral norm measured on the way (2.6)",
    "L_S": "L^S, smoothness on the span of the task vectors (2.10)",
    "norm_squared": "squared distance from the expert",
    "slope": "gradient at the expert along the way (zero under A1)",
    "offset": "loss of the expert minus the loss that the gap counts from",
    "C": "C, largest squared norm (A1)",
    "epsilon": "epsilon, largest |cosine| (A4)",
    "Q": "Q, the coefficients' part of the distance (2.4)",
    "beta": "beta, nearness of the target (A5)",
    "span_norm_squared": "squared distance of the target from the span (2.7)",
    "span_bound": "bound by the best point of the span (2.7)",
}
_OF_L = ("L", "L_lower", "L_upper")


def bounds_headline(reports: Merges) -> Headline:
    """Say whether the paper's bounds hold, and whether they say anything.

    Args:
        reports: Reports by task, or pairs of a merge's label and its reports by task.

    Returns:
        The headline; refuted if any bound is broken, supported only if every assumption holds too.
    """
    flat = [report for _, group in _groups(reports) for report in group.values()]
    broken, open_ = sum(r.holds is False for r in flat), sum(r.holds is None for r in flat)
    vacuous = sum(r.vacuous() is True for r in flat)
    within = f"{len(flat) - broken - open_:,} of {plural(len(flat), 'loss gap')} within the paper's bound"
    sentence = listing([within, *([f"{broken:,} above it"] if broken else []), *([f"{open_:,} open"] if open_ else [])])
    sentence += "."
    if vacuous:
        sentence += f" The bound is vacuous for {vacuous:,}: it allows the loss of a constant prediction."
    met = sum(all(item.holds for item in r.assumptions.values()) for r in flat)
    # A gap below the bound supports the theorem only where the theorem applies.
    sure = not open_ and met == len(flat)
    verdict = Verdict.REFUTED if broken else Verdict.SUPPORTED if sure else Verdict.UNDECIDED
    certainty = f"Every assumption of the theorem holds, as far as measured, for {met:,} of {len(flat):,}."
    return Headline(verdict, sentence, certainty)


def bounds_section(reports: Merges) -> Section:
    """Show the chain from each measured gap to the paper's bound, and what it rests on.

    Args:
        reports: Reports by task, or pairs of a merge's label and its reports by task.

    Returns:
        The section.
    """
    groups = _groups(reports)
    tables: list[Table] = []
    figures: list[Figure] = []
    for label, group in groups:
        suffix = f": {label}" if label else ""
        figures.append(chain_figure(label, group))
        tables += [
            _gaps(group, suffix),
            _chain(group, suffix),
            _assumptions(group, suffix),
            _smoothness(group, suffix),
            _quantities(group, suffix),
        ]
    return Section("Loss gaps and their bounds", _paragraphs(groups), tuple(tables), tuple(figures))


def _groups(reports: Merges) -> list[tuple[str, Reports]]:
    """Merges with their labels; a single one needs none."""
    return [("", reports)] if isinstance(reports, Mapping) else list(reports)


def _paragraphs(groups: Sequence[tuple[str, Reports]]) -> tuple[str, ...]:
    """How to read the section."""
    flat = [report for _, group in groups for report in group.values()]
    claims = listing(sorted({report.claim for report in flat}))
    text = (
        f"The loss after the merge minus the loss before it, followed step by step up to the paper's bound "
        f"for {claims}. Where the assumptions hold, no step is below the one before."
    )
    vacuous = (
        "A bound is vacuous where it allows a loss as high as that of the best constant prediction (2.11): "
        "it is then true and says nothing."
    )
    unknown = sum(report.constant_loss is None for report in flat)
    if unknown:
        vacuous += f" This was not judged for {unknown:,} of {len(flat):,}, whose constant prediction is unknown."
    return text, vacuous


def _gaps(reports: Reports, suffix: str) -> Table:
    """Gap, best bound, the paper's bound, and whether it holds."""
    rows: list[Row] = []
    for name, report in reports.items():
        best = "none" if report.best_label == "none" else number(report.best)
        low, high = report.bound_interval
        bound = f"{number(report.bound)} [{number(low)}, {number(high)}]"
        row: Row = [name, number(report.gap), _says(best, report.vacuous(report.best)), _plain(report.best_label)]
        rows.append([*row, _says(bound, report.vacuous()), holds_cell(report.holds)])
    caption = f"Measured gap, tightest bound whose own assumptions hold, and the paper's bound{suffix}"
    return Table.of(
        caption, ["Task", "Measured gap", "Best valid bound", "Which is", "Paper's bound", "It holds"], rows
    )


def _says(text: str, vacuous: bool | None) -> Cell:
    """A bound, marked where it is vacuous."""
    if text == "none" or vacuous is None:
        return Cell(text)
    return Cell(f"{text}, vacuous", "bad") if vacuous else Cell(text, "good")


def _plain(label: str) -> str:
    """A step of a chain without the relation in front of it."""
    return label.lstrip("<=~ ")


def _chain(reports: Reports, suffix: str) -> Table:
    """Every step with its value, and the constant prediction to read them against."""
    chains = {name: dict(report.chain) for name, report in reports.items()}
    rows: list[Row] = []
    for rung in rungs(reports):
        values = [(chains[name].get(rung), report) for name, report in reports.items()]
        rows.append([relation(rung), *(Cell("not part of it") if v is None else _step(v, r) for v, r in values)])
    levels = [r.constant_loss for r in reports.values()]
    references = [r.reference_loss for r in reports.values()]
    constant = ["unknown" if c is None else number(c - ref) for c, ref in zip(levels, references, strict=True)]
    rows.append(["gap of a constant prediction (2.11)", *constant])
    return Table.of(f"From the measured gap to the paper's bound{suffix}", ["Step", *reports], rows)


def _step(value: float, report: BoundReport) -> Cell:
    """A step's value, marked where as a bound it would be vacuous."""
    return Cell(f"{number(value)}, vacuous", "bad") if report.vacuous(value) else Cell(number(value))


def _assumptions(reports: Reports, suffix: str) -> Table:
    """Each assumption with what was measured and what it may be."""
    rows: list[Row] = [
        [f"{name}: {key}", holds_cell(item.holds), number(item.measured), number(item.limit), item.note]
        for name, report in reports.items()
        for key, item in report.assumptions.items()
    ]
    return Table.of(f"Assumptions, measured{suffix}", ["Assumption", "Holds", "Measured", "Limit", "Meaning"], rows)


def _smoothness(reports: Reports, suffix: str) -> Table:
    """L with its interval and status."""
    rows: list[Row] = []
    for name, report in reports.items():
        value, low, high = (number(report.quantities[key]) for key in _OF_L)
        status = Cell(str(report.status), "good" if report.status.trusted else "unsure")
        rows.append([name, value, f"[{low}, {high}]", status, report.status.advice])
    columns = ["Task", "L", "Interval", "Status", "What the status means"]
    return Table.of(
        f"Spectral norm L of the Hessian at each expert, and status of the report on it{suffix}", columns, rows
    )


def _quantities(reports: Reports, suffix: str) -> Table:
    """What else entered."""
    keys = dict.fromkeys(key for report in reports.values() for key in report.quantities if key not in _OF_L)
    rows: list[Row] = []
    for key in keys:
        values = (report.quantities.get(key) for report in reports.values())
        rows.append([_MEANING.get(key, key), *("not part of it" if v is None else number(v) for v in values)])
    return Table.of(f"What else entered{suffix}", ["Quantity", *reports], rows)
