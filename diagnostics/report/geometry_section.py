"""Task vectors by their lengths and angles, each number beside what chance would give."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any, NamedTuple

from diagnostics.measures.geometry import Geometry
from diagnostics.report.document import Figure, Headline, Row, Section, Table
from diagnostics.report.drawing import BLUE, INK, VERMILLION
from diagnostics.report.wording import number, plural, short

__all__ = ["geometry_headline", "geometry_section"]

# More pairs than this are ranked but not listed; the heat map and the JSON hold them all.
_PAIRS = 20
# Cells up to this count are wide enough for their number.
_NUMBERED = 10
_STRONGEST = 0.6


class _Pair(NamedTuple):
    """Two experts, the cosine between them and the layer-wise null it is read against."""

    first: str
    second: str
    cosine: float
    null: float


def geometry_headline(geometry: Geometry) -> Headline:
    """Say in a sentence how alike the task vectors are.

    Args:
        geometry: The measured geometry.

    Returns:
        A headline without a verdict: geometry by itself decides nothing.
    """
    pairs = _pairs(geometry)
    sentence = f"{plural(len(geometry.names), 'task vector')} in {geometry.dimension:,} dimensions"
    if pairs and not math.isnan(pairs[0].cosine):
        top = pairs[0]
        sentence += f"; most alike are {top.first} and {top.second}, with a cosine of {number(top.cosine)}"
    return Headline(None, f"{sentence}.", "Computed from the weights alone, to rounding in float64.")


def geometry_section(geometry: Geometry) -> Section:
    """Show norms, angles, C, ε and β with their null values.

    Args:
        geometry: The measured geometry.

    Returns:
        The section.
    """
    pairs = _pairs(geometry)
    tables = [_norms(geometry), _summary(geometry)]
    if pairs:
        tables.insert(1, _similarity(geometry, pairs))
    paragraphs = [*_nulls(geometry), *(f"Note: {note}." for note in geometry.notes)]
    return Section("Geometry of the task vectors", tuple(paragraphs), tuple(tables), (_heat_map(geometry, pairs),))


def _pairs(geometry: Geometry) -> list[_Pair]:
    """All pairs, the most alike first and those without a direction last."""
    cosine, null = geometry.cosine.tolist(), geometry.null_cosine_layerwise.tolist()
    names = geometry.names
    pairs = [_Pair(names[i], names[j], cosine[i][j], null[i][j]) for i, j in combinations(range(len(names)), 2)]
    return sorted(pairs, key=lambda pair: math.inf if math.isnan(pair.cosine) else -abs(pair.cosine))


def _nulls(geometry: Geometry) -> list[str]:
    """What a cosine must be read against, in words."""
    text = (
        f"What to read the cosines against: random directions in {geometry.dimension:,} dimensions would give "
        f"|cosine| {number(geometry.null_cosine)} on average (2.9)"
    )
    known = [pair.null for pair in _pairs(geometry) if not math.isnan(pair.null)]
    if geometry.layers and known:
        text += (
            f"; vectors that are random inside each tensor but keep its norm would give up to {number(max(known))}. "
            "A cosine well above both is shared structure, not chance"
        )
    return [f"{text}."]


def _norms(geometry: Geometry) -> Table:
    """Length of every task vector."""
    rows: list[Row] = []
    lengths = list(zip(geometry.names, geometry.norms.tolist(), strict=True))
    if geometry.target_norm is not None:
        lengths.append(("target", geometry.target_norm))
    for name, length in lengths:
        share = _share_of(length, geometry.base_norm)
        rows.append([name, number(length), share, number(length**2)])
    return Table.of(
        "Length of each task vector, and how far that moves the base",
        ["Expert", "Norm", "Of the base norm", "Norm squared"],
        rows,
    )


def _share_of(part: float, whole: float) -> str:
    """A length as a share of the base's, with digits enough for small updates."""
    return f"{number(100 * part / whole)}%" if whole > 0 else "undefined"


def _similarity(geometry: Geometry, pairs: list[_Pair]) -> Table:
    """The pairs that are most alike."""
    shown = pairs[:_PAIRS]
    caption = "Cosine between task vectors, largest first"
    if len(shown) < len(pairs):
        caption += f" ({len(shown)} of {len(pairs):,} pairs; the others are smaller)"
    if not geometry.layers:
        return Table.of(caption, ["Pair", "Cosine"], [[f"{p.first}, {p.second}", number(p.cosine)] for p in shown])
    rows: list[Row] = [[f"{p.first}, {p.second}", number(p.cosine), number(p.null)] for p in shown]
    return Table.of(caption, ["Pair", "Cosine", "Random inside each tensor"], rows)


def _summary(geometry: Geometry) -> Table:
    """The quantities that enter the bounds."""
    rows: list[Row] = [
        ["C", number(geometry.C), "largest squared norm (A1)"],
        ["epsilon", number(geometry.epsilon), "largest |cosine| between two experts (A4)"],
        ["random |cosine|", number(geometry.null_cosine), "expected of random directions (2.9)"],
        ["base norm", number(geometry.base_norm), "over the shared parameters"],
        ["d", f"{geometry.dimension:,}", "number of shared parameters"],
    ]
    if geometry.beta is not None:
        rows.insert(2, ["beta", number(geometry.beta), "largest inner product with the target over C (A5)"])
    return Table.of("What enters the loss-gap bounds", ["Quantity", "Value", "Meaning"], rows)


def _heat_map(geometry: Geometry, pairs: list[_Pair]) -> Figure:
    """Cosines as shaded squares: shade for size, colour and sign of the number for direction."""
    names, cosine = geometry.names, geometry.cosine.tolist()
    count = len(names)
    side = min(54.0, max(12.0, 330.0 / count))
    labels = [short(name, 14) for name in names]

    def paint(ax: Any) -> None:
        for i, row in enumerate(cosine):
            for j, value in enumerate(row):
                _square(ax, j, i, value, side if count <= _NUMBERED else 0.0)
        size = min(10.5, 0.85 * side)
        ax.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), aspect="equal")
        ax.set_xticks(range(count), labels, rotation=40, ha="left", rotation_mode="anchor", fontsize=size)
        ax.set_yticks(range(count), labels, fontsize=size)
        ax.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        ax.spines[:].set_visible(False)

    room = min(110.0, 16.0 + 6.5 * max(map(len, labels)))
    caption = (
        "Cosine between task vectors. Blue is positive and orange negative, and the shade grows with the square "
        "root of the size, from 0 to 1. A dash has no direction."
    )
    alt = f"Heat map of the cosines between {plural(count, 'task vector')}"
    if pairs:
        alt += f"; largest between {pairs[0].first} and {pairs[0].second}, {number(pairs[0].cosine)}"
    return Figure(paint, room + count * side + 20, 0.8 * room + count * side, f"{alt}.", caption)


def _square(ax: Any, x: int, y: int, value: float, side: float) -> None:
    """One cell; its number too where there is room."""
    known = not math.isnan(value)
    # Ink on the strongest shade must stay readable, so no cell is fully opaque.
    shade = _STRONGEST * math.sqrt(abs(value)) if known else 0.0
    colour = VERMILLION if known and value < 0 else BLUE
    ax.fill(
        [x - 0.47, x + 0.47, x + 0.47, x - 0.47],
        [y - 0.47, y - 0.47, y + 0.47, y + 0.47],
        color=colour,
        alpha=shade,
        lw=0,
    )
    if side:
        text = f"{value:.2f}" if known else "–"
        ax.text(x, y, text, ha="center", va="center", fontsize=min(10.5, 0.32 * side), color=INK)
