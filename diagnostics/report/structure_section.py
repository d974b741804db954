"""What updates are made of: ranks, rows, entries that storage loses, and what smaller updates cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from diagnostics.measures.singular_values import random_rank, rank_text
from diagnostics.measures.storage import LOST
from diagnostics.measures.update_structure import TensorStructure, UpdateStructure
from diagnostics.report.document import Cell, Headline, Row, Section, Table, Tone
from diagnostics.report.structure_chart import rank_figure, row_figure
from diagnostics.report.wording import estimate, listing, merge_label, number, percent, plural
from diagnostics.results import Estimate
from diagnostics.verdicts.update_reduction import ReductionReport

__all__ = ["structure_headline", "structure_section"]

# Matrices listed, over all experts, and lines drawn; the JSON holds them all.
_MATRICES, _LINES = 8, 6
# Share of the gain below which a reduction counts as cheap.
_CHEAP = 0.1
_RANKS = (1, 8)
_ROWS = (0.1, 0.5)
_READING = (
    "Rank r keeps the share of ‖ΔW‖² that the r largest singular values hold, the most that any matrix of that rank "
    "can (3.4). Rows are ranked by norm in every matrix by itself. Random is a matrix of independent entries of the "
    "same shape: ranks by the law of Marchenko and Pastur, rows by chi-squared."
)
_LIMITS = (
    "A share of the squared length is no share of what was learned: the table of costs has that. Rows are those of the "
    "matrix as stored, outputs in Linear layers and inputs in Conv1D ones."
)
_COSTS = (
    "Change of the loss when the reduced updates stand for the whole ones. Predicted: read off the outputs expanded to "
    "second order at the whole update; its interval is for the expansion alone. Measured: evaluated on the same "
    "examples, its interval is for other examples. Random: as many random directions or rows. A reduction is cheap "
    "where it costs at most 10% of what the whole update gains over the base."
)


def structure_headline(structures: Mapping[str, UpdateStructure]) -> Headline:
    """Say in a sentence how concentrated the updates are.

    Args:
        structures: By expert, at least one.

    Returns:
        A headline without a verdict: structure by itself decides nothing.
    """
    moved = {name: each for name, each in structures.items() if each.square > 0}
    if not moved:
        return Headline(
            None, f"{plural(len(structures), 'expert')}, identical to the base.", "Compared entry by entry."
        )
    share = next(iter(moved.values())).shares[0]
    ranks = {name: each.rank_for(share) for name, each in moved.items()}
    least, most = (pick(ranks, key=lambda name: ranks[name].value) for pick in (min, max))
    span = rank_text(ranks[least]) if len(moved) == 1 else f"{rank_text(ranks[least])} ({least})"
    if ranks[least].value != ranks[most].value:
        span += f" to {rank_text(ranks[most])} ({most})"
    first = next(iter(moved))
    kept, null = percent(moved[first].kept(1).value), percent(moved[first].null_kept(1))
    sentence = (
        f"{percent(share)} of the squared length of {plural(len(moved), 'update')} needs rank {span}; "
        f"rank 1 keeps {kept} of {first}, where random matrices keep {null}"
    )
    exact = all(rank.status.trusted for rank in ranks.values())
    certainty = "Computed from the weights alone, to rounding in float64." if exact else "Some ranks are bounds."
    return Headline(None, f"{sentence}.", certainty)


def structure_section(
    structures: Mapping[str, UpdateStructure], costs: Sequence[ReductionReport] | None = None
) -> Section:
    """Show ranks, rows and entries of every update, and what smaller updates cost where that was measured.

    Args:
        structures: By expert, at least one.
        costs: Reports of reductions, of experts alone or of merges.

    Returns:
        The section.
    """
    text = [_READING, _LIMITS]
    notes = [f"{name}: {'; '.join(each.notes)}." for name, each in structures.items() if each.notes]
    text += [f"Notes. {' '.join(notes)}"] if notes else []
    moved = {name: each for name, each in structures.items() if each.matrices}
    tables = [_expert_table(structures), _storage_table(structures)]
    figures = []
    if moved:
        tables += [_matrix_table(moved)]
        tables += [_kind_table(moved)] if any(len(each.matrices) > _MATRICES for each in moved.values()) else []
        figures = [figure(_largest(moved), _about(moved)) for figure in (rank_figure, row_figure)]
    if costs:
        text += [_COSTS, *_untrusted(costs)]
        tables += [_cost_table(report) for report in costs]
    return Section("Structure of the updates", tuple(text), tuple(tables), tuple(figures))


def _expert_table(structures: Mapping[str, UpdateStructure]) -> Table:
    """A row for each update as a whole."""
    shares = next(iter(structures.values())).shares
    columns = ["Expert", "Norm", *(f"Rank for {percent(share)}" for share in shares)]
    columns += [title for rank in _RANKS for title in (f"Rank {rank} keeps", "Random")]
    columns += [title for share in _ROWS for title in (f"{percent(share)} of the rows hold", "Random")]
    rows: list[Row] = []
    for name, each in structures.items():
        row: Row = [name, number(math.sqrt(each.square)), *(_rank(each.rank_for(share)) for share in shares)]
        for rank in _RANKS:
            row += [_share(each.kept(rank)), percent(each.null_kept(rank))]
        for share in _ROWS:
            row += [percent(each.held(share)), percent(each.null_held(share))]
        rows.append(row)
    return Table.of("Updates as a whole: the same rank, or share of rows, in every matrix", columns, rows)


def _storage_table(structures: Mapping[str, UpdateStructure]) -> Table:
    """What storage has lost of each update, or would lose."""
    rows: list[Row] = []
    for name, each in structures.items():
        lost = each.rounding.lost if each.rounding.kept > 0 else math.nan
        entries = each.entries
        below = [percent(entries.below_shares.get(dtype, math.nan)) for dtype in ("bfloat16", "float16")]
        stored = listing(sorted({tensor.stored for tensor in each.tensors.values()}))
        tone: Tone | None = "bad" if lost > LOST else None
        rows.append([name, stored, percent(entries.zero_share), *below, Cell(percent(lost), tone)])
    columns = ["Expert", "Rounded to", "Exactly zero", "Below half a step: bfloat16", "float16", "Length lost already"]
    return Table.of("Entries that storage loses", columns, rows)


def _matrix_table(structures: Mapping[str, UpdateStructure]) -> Table:
    """The matrices that hold most of each update."""
    share = next(iter(structures.values())).shares[0]
    most = max(2, _MATRICES // len(structures))
    rows: list[Row] = []
    for name, structure in structures.items():
        rows += [[f"{name}: {each.name}", *_matrix_row(each, structure, share)] for each in structure.matrices[:most]]
    total = sum(len(each.matrices) for each in structures.values())
    caption = "Matrices that moved most"
    if len(rows) < total:
        caption += f" ({len(rows)} of {total:,}, at most {most} for each expert)"
    columns = ["Matrix", "Shape", "Of the update", "Of the base", f"Rank for {percent(share)}", "Random"]
    return Table.of(caption, [*columns, "Rank 1 keeps", "Effective rows"], rows)


def _matrix_row(each: TensorStructure, structure: UpdateStructure, share: float) -> Row:
    """One matrix; its name stands before."""
    if each.spectrum is None or each.rows is None:
        return [""] * 7
    relative = math.sqrt(each.square / each.base_square) if each.base_square > 0 else math.nan
    count = len(each.rows.squares)
    return [
        "×".join(map(str, each.shape)),
        percent(each.square / structure.square),
        percent(relative),
        _rank(each.spectrum.rank_for(share)),
        str(random_rank(each.spectrum.shape, share)),
        _share(each.spectrum.kept(1)),
        f"{number(each.rows.effective)} of {count}",
    ]


def _kind_table(structures: Mapping[str, UpdateStructure]) -> Table:
    """Matrices of one place in every layer, together."""
    share = next(iter(structures.values())).shares[0]
    rows: list[Row] = []
    for name, structure in structures.items():
        kinds: dict[str, list[TensorStructure]] = {}
        for each in structure.matrices:
            kinds.setdefault(_kind(each.name), []).append(each)
        parts = {kind: UpdateStructure({each.name: each for each in group}, (share,)) for kind, group in kinds.items()}
        for kind, part in sorted(parts.items(), key=lambda item: -item[1].square):
            null = max(random_rank(each.spectrum.shape, share) for each in part.matrices if each.spectrum is not None)
            sizes = [str(len(part.tensors)), percent(part.square / structure.square)]
            held = [percent(part.held(_ROWS[0])), percent(part.null_held(_ROWS[0]))]
            rows.append([f"{name}: {kind}", *sizes, _rank(part.rank_for(share)), str(null), *held])
    columns = ["Kind", "Matrices", "Of the update", f"Rank for {percent(share)}", "Random"]
    columns += [f"{percent(_ROWS[0])} of the rows hold", "Random"]
    return Table.of("Matrices by their place in a layer, every number a star", columns, rows)


def _kind(name: str) -> str:
    """A parameter's name with every number left out."""
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


def _largest(structures: Mapping[str, UpdateStructure]) -> dict[str, TensorStructure]:
    """The matrix of each update that moved most, or the first few of a single one."""
    if len(structures) == 1:
        (structure,) = structures.values()
        shown = structure.matrices[:_LINES]
        return dict(zip(_distinct([each.name for each in shown]), shown, strict=True))
    return {name: each.matrices[0] for name, each in list(structures.items())[:_LINES]}


def _about(structures: Mapping[str, UpdateStructure]) -> str:
    """Which matrices are drawn."""
    if len(structures) == 1:
        ((name, structure),) = structures.items()
        drawn = min(_LINES, len(structure.matrices))
        return f"Drawn: the {drawn} of {len(structure.matrices)} matrices of {name} that moved most."
    return (
        f"Drawn: the matrix that moved most of {min(_LINES, len(structures))} of {plural(len(structures), 'expert')}."
    )


def _distinct(names: Sequence[str]) -> list[str]:
    """Names without the parts that all of them begin or end with."""
    parts = [name.split(".") for name in names]
    shortest = min(map(len, parts))
    front = next((i for i in range(shortest) if len({each[i] for each in parts}) > 1), 0)
    back = next((i for i in range(shortest - front) if len({each[-1 - i] for each in parts}) > 1), 0)
    return [".".join(each[front : len(each) - back]) for each in parts]


def _cost_table(report: ReductionReport) -> Table:
    """What each reduction costs one task."""
    rows: list[Row] = []
    for cost in report.costs:
        said = [_loss(value) for value in (cost.predicted, cost.measured, cost.random)]
        amount = cost.reduction.amount
        label = f"rank {amount}" if cost.reduction.kind == "rank" else f"{percent(amount)} of the rows"
        told = cost.measured if cost.measured is not None else cost.predicted
        share = told.value / report.gain.value if told is not None and report.gain.value > 0 else math.nan
        rows.append([label, percent(cost.numbers), *said, _gain_cell(share)])
    merge, start = merge_label(report.coefficients), number(report.loss)
    caption = f"{report.task}, {merge}: change of the loss from {start}; gain {estimate(report.gain)}"
    columns = ["Kept", "Numbers", "Predicted", "Measured", "Random", "Of the gain"]
    return Table.of(caption, columns, rows)


def _gain_cell(share: float) -> Cell:
    """A cost as a share of what the update gains."""
    if math.isnan(share):
        return Cell("no gain")
    return Cell(percent(share), "good" if share <= _CHEAP else "bad")


def _untrusted(costs: Sequence[ReductionReport]) -> list[str]:
    """How many predictions are not to be trusted."""
    told = [cost.predicted for report in costs for cost in report.costs if cost.predicted is not None]
    doubtful = sum(not each.status.trusted for each in told)
    if not doubtful:
        return []
    return [
        f"{doubtful} of {plural(len(told), 'prediction')} are marked: the expansion's error is too large to use them."
    ]


def _loss(value: Estimate | None) -> str:
    """A change of the loss."""
    return "none" if value is None else estimate(value)


def _rank(rank: Estimate) -> Cell:
    """A rank, unsure where it is a wide range."""
    return Cell(rank_text(rank), None if rank.status.trusted else "unsure")


def _share(share: Estimate) -> str:
    """A share that a rank keeps, as a range where it is one."""
    if math.isnan(share.value) or share.upper - share.lower < 5e-4:
        return percent(share.value)
    return f"{percent(share.lower)} to {percent(share.upper)}"
