"""Angles between the columns of updates, and overlap of feature use, each beside what chance would give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from diagnostics.measures.orthogonality import Orthogonality
from diagnostics.report.document import Figure, Headline, Row, Section, Table
from diagnostics.report.drawing import BLUE, INK, VERMILLION
from diagnostics.report.heat_map import cosine_heat_map
from diagnostics.report.wording import estimate, listing, number, percent, plural, short
from diagnostics.verdicts.feature_use import FeatureSpecialisation

__all__ = ["orthogonality_headline", "orthogonality_section"]

# Pairs and tensors listed; more are in the JSON.
_PAIRS, _LAYERS = 20, 20
# Cells up to this count are wide enough for their number.
_NUMBERED = 10
_STRONGEST = 0.6
_SIDES = {
    "columns": "Columns are those of the tensors as they are stored: of a torch Linear layer (out, in), one for each "
    "input. The theory's weight vectors w_k of features are its rows.",
    "rows": "Rows are those of the tensors as they are stored: of a torch Linear layer (out, in), one for each output "
    "feature, the theory's w_k.",
}
_READING = (
    "1 times chance is what independent random {side} of the same length give on average; 0 is orthogonal. Large "
    "values inside an update come with its low rank. Values inside do not tell about values between: equal updates "
    "with orthogonal {side} are 0 inside and have a |cos| of 1 in the same {one}."
)
_USE = (
    "Use of a feature is the mean length of the derivative of a task's outputs by its pre-activation, at the base. "
    "Overlap is what two tasks' usage profiles have in common: 0 if they use different features, as task-feature "
    "specialisation has it, and 1 if they are equal. Profiles that are spread evenly overlap by chance; a task's "
    "overlap with itself on other examples is what noise leaves of 1."
)


def orthogonality_headline(found: Orthogonality) -> Headline:
    """Say in a sentence how far from chance the angles are.

    Args:
        found: The measured angles.

    Returns:
        A headline without a verdict: angles by themselves decide nothing.
    """
    ratio, names = found.cosine.ratio.tolist(), found.names
    inside = [ratio[i][i] for i in range(len(names)) if not math.isnan(ratio[i][i])]
    pairs = [(ratio[i][j], i, j) for i, j in combinations(range(len(names)), 2) if not math.isnan(ratio[i][j])]
    parts = []
    if inside:
        parts.append(f"inside an update |cosine| is {_span(inside)} times chance")
    if pairs:
        text = f"between two it is {_span([value for value, _, _ in pairs])} times chance"
        if len(pairs) > 1:
            _, i, j = max(pairs)
            text += f", most for {names[i]} and {names[j]}"
        parts.append(text)
    angles = "; ".join(parts) or "no update has two directions to compare"
    drawn = found.drawn < found.columns
    certainty = "from drawn columns, with standard errors" if drawn else "to rounding in float64"
    sentence = f"{plural(len(names), 'update')}, {found.side} of {plural(len(found.layers), 'tensor')}: {angles}."
    return Headline(None, sentence, f"Computed from the weights alone, {certainty}.")


def _span(values: Sequence[float]) -> str:
    """The range of some numbers."""
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} to {high}"


def orthogonality_section(found: Orthogonality, use: FeatureSpecialisation | None = None) -> Section:
    """Show angles inside and between updates with their nulls, and the overlap of feature use where it is given.

    Args:
        found: The measured angles.
        use: Feature use of the same tasks.

    Returns:
        The section.
    """
    text = [_SIDES[found.side], _READING.format(side=found.side, one=found.side[:-1])]
    text += [f"Note: {note}." for note in found.notes]
    tables, figures = [_inside_table(found)], []
    if len(found.names) > 1:
        tables.append(_between_table(found))
        figures.append(_ratio_map(found))
    tables.append(_layer_table(found))
    if use is not None:
        text += [_USE, *(f"Note: {note}." for note in use.notes), f"Cost of feature use: {use.cost}."]
        if use.not_covered:
            text.append(f"Note: feature use not covered: {_not_covered(use)}.")
        tables += [_overlap_table(use), _sets_table(use)]
        figures.append(_overlap_map(use))
    return Section("Orthogonality and task-feature specialisation", tuple(text), tuple(tables), tuple(figures))


def _not_covered(use: FeatureSpecialisation) -> str:
    """Weights whose features were not seen, by reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in use.not_covered.items():
        reasons.setdefault(reason, []).append(name)
    return "; ".join(f"{listing(names)} ({reason})" for reason, names in reasons.items())


def _inside_table(found: Orthogonality) -> Table:
    """Angles inside each update, and inside the base."""
    cosine, square = found.cosine, found.square
    rows: list[Row] = []
    for i, name in enumerate(found.names):
        cells = [cosine.value[i, i], cosine.null[i, i], cosine.ratio[i, i], square.value[i, i], square.null[i, i]]
        rows.append([name, *(number(float(cell)) for cell in cells), number(float(found.floor[i]))])
    base = (found.base, found.base_null, found.base_ratio)
    rows.append(["the base's own weights", *map(number, base), "", "", ""])
    columns = ["Update", "Mean |cos|", "By chance", "Times chance", "Mean cos²", "By chance", "Least possible"]
    return Table.of(f"Inside each update: different {found.side}", columns, rows)


def _between_table(found: Orthogonality) -> Table:
    """Angles between updates, the largest first."""
    ratio = found.cosine.ratio
    pairs = list(combinations(range(len(found.names)), 2))
    pairs.sort(key=lambda pair: math.inf if ratio[pair].isnan() else -float(ratio[pair]))
    rows: list[Row] = []
    for i, j in pairs[:_PAIRS]:
        values = [found.cosine.value[i, j], found.cosine.null[i, j], ratio[i, j]]
        values += [found.matched.value[i, j], found.matched.ratio[i, j], found.square.ratio[i, j]]
        rows.append([f"{found.names[i]}, {found.names[j]}", *(number(float(value)) for value in values)])
    caption = "Between updates, largest first"
    if len(pairs) > len(rows):
        caption += f" ({len(rows)} of {len(pairs):,} pairs; the others are smaller)"
    one = found.side[:-1]
    columns = ["Pair", "Mean |cos|", "By chance", "Times chance", f"Same {one}", "Times chance", "cos², times chance"]
    return Table.of(caption, columns, rows)


def _layer_table(found: Orthogonality) -> Table:
    """Angles by tensor; of a model with many, by kind of tensor."""
    many = len(found.layers) > _LAYERS
    layers = found.by_kind() if many else found.layers
    rows: list[Row] = []
    for name, layer in list(layers.items())[:_LAYERS]:
        ratio = layer.cosine.ratio.tolist()
        inside = [ratio[i][i] for i in range(len(ratio)) if not math.isnan(ratio[i][i])]
        between = [ratio[i][j] for i, j in combinations(range(len(ratio)), 2) if not math.isnan(ratio[i][j])]
        spans = [_span(values) if values else "undefined" for values in (inside, between)]
        rows.append([name, *spans, number(layer.base_ratio)])
    caption = "Mean |cos| in multiples of chance, by " + (
        "kind of tensor, numbers in names left out" if many else "tensor"
    )
    if len(layers) > _LAYERS:
        caption += f" ({_LAYERS} of {len(layers)})"
    return Table.of(caption, ["Tensor", "Inside updates", "Between updates", "Inside the base"], rows)


def _overlap_table(use: FeatureSpecialisation) -> Table:
    """Overlap of usage profiles."""
    pairs = list(combinations(range(len(use.names)), 2))
    pairs.sort(key=lambda pair: -float(use.total.overlap[pair].nan_to_num(-1)))
    rows: list[Row] = []
    for i, j in pairs[:_PAIRS]:
        first, second = use.names[i], use.names[j]
        chance = " ± ".join(number(float(each[i, j])) for each in (use.total.chance, use.total.chance_deviation))
        values = [estimate(use.overlap(first, second)), chance, number(float(use.total.cosine[i, j]))]
        rows.append([f"{first}, {second}", *values])
    caption = (
        f"Overlap of feature use, mean over {plural(len(use.layers), 'layer')}, {percent(use.confidence)} intervals"
    )
    if len(pairs) > len(rows):
        caption += f" ({len(rows)} of {len(pairs):,} pairs; the others are smaller)"
    return Table.of(caption, ["Pair", "Overlap", "By chance", "Cosine of profiles"], rows)


def _sets_table(use: FeatureSpecialisation) -> Table:
    """How far each task keeps to its own features."""
    total = use.total
    rows: list[Row] = []
    for i, name in enumerate(use.names):
        outside = f"{percent(float(total.outside[i]))} ± {percent(float(total.outside_stderr[i]))}"
        values = [percent(float(total.outside_chance[i])), number(float(total.ceiling[i]))]
        rows.append([name, f"{int(total.own[i]):,}", outside, *values, number(float(total.weights[i, i]))])
    caption = (
        f"Features that a task uses {percent(use.margin)} more than any other; {total.shared:,} are shared and "
        f"{total.idle:,} idle. Random weight vectors would have a mean |cos| of {number(total.weights_null)}"
    )
    columns = ["Task", "Own features", "Use outside them", "By chance", "Overlap with itself", "|cos| of their weights"]
    return Table.of(caption, columns, rows)


def _overlap_map(use: FeatureSpecialisation) -> Figure:
    """Overlaps as a picture; a task with itself on the diagonal."""
    overlap = use.total.overlap.clone()
    overlap.diagonal().copy_(use.total.ceiling)
    title = "Overlap of feature use; on the diagonal a task with itself, on other examples."
    alt = f"Heat map. Overlap of feature use between {plural(len(use.names), 'task')}."
    return cosine_heat_map(use.names, overlap.tolist(), alt, title)


def _ratio_map(found: Orthogonality) -> Figure:
    """Mean |cos| in multiples of chance as a picture."""
    ratio, names = found.cosine.ratio.tolist(), found.names
    count, labels = len(names), [short(name, 14) for name in names]
    side = min(54.0, max(12.0, 330.0 / count))

    def paint(ax: Any) -> None:
        for i, row in enumerate(ratio):
            for j, value in enumerate(row):
                _square(ax, j, i, value, side if count <= _NUMBERED else 0.0)
        size = min(10.5, 0.85 * side)
        ax.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), aspect="equal")
        ax.set_xticks(range(count), labels, rotation=40, ha="left", rotation_mode="anchor", fontsize=size)
        ax.set_yticks(range(count), labels, fontsize=size)
        ax.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        ax.spines[:].set_visible(False)

    known = [value for row in ratio for value in row if not math.isnan(value)]
    alt = f"Heat map. Mean |cos| of {found.side} in multiples of chance"
    alt += f": from {number(min(known))} to {number(max(known))}." if known else "; none is known."
    caption = (
        f"Mean |cos| between {found.side} in multiples of chance; on the diagonal inside an update. Orange is above "
        "chance, blue closer to orthogonal than chance; the shade is full at ten times and at a tenth. A dash has no "
        "direction."
    )
    room = min(110.0, 16.0 + 6.5 * max(map(len, labels)))
    return Figure(paint, room + count * side + 20, 0.8 * room + count * side, alt, caption)


def _square(ax: Any, x: int, y: int, value: float, side: float) -> None:
    """One cell; its number too where there is room."""
    known = not math.isnan(value)
    # Ink on the strongest shade must stay readable, so no cell is fully opaque.
    strength = min(1.0, abs(math.log10(value))) if known and value > 0 else float(known)
    colour = VERMILLION if known and value > 1 else BLUE
    edges = ([x - 0.47, x + 0.47, x + 0.47, x - 0.47], [y - 0.47, y - 0.47, y + 0.47, y + 0.47])
    ax.fill(*edges, color=colour, alpha=_STRONGEST * strength, lw=0)
    if side:
        text = f"{value:.2g}" if known else "–"
        ax.text(x, y, text, ha="center", va="center", fontsize=min(10.5, 0.32 * side), color=INK)
