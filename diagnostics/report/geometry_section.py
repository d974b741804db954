"""Task vectors by their lengths and angles, each number beside what chance would give."""

from __future__ import annotations

import math
from itertools import combinations
from typing import NamedTuple

from diagnostics.measures.geometry import Geometry
from diagnostics.report.document import Figure, Headline, Row, Section, Table
from diagnostics.report.heat_map import cosine_heat_map
from diagnostics.report.wording import number, plural

__all__ = ["geometry_headline", "geometry_section"]

# More pairs than this are ranked but not listed; the heat map and the JSON hold them all.
_PAIRS = 20


class _Pair(NamedTuple):
    """Two experts: their cosine, the layer-wise null that it is read against, and how often their signs conflict."""

    first: str
    second: str
    cosine: float
    null: float
    conflict: float


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
    names, counted = geometry.names, geometry.sign_conflict
    conflict = [[math.nan] * len(names)] * len(names) if counted is None else counted.tolist()
    pairs = [
        _Pair(names[i], names[j], cosine[i][j], null[i][j], conflict[i][j])
        for i, j in combinations(range(len(names)), 2)
    ]
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
    rows: list[Row] = [
        [
            f"{p.first}, {p.second}",
            number(p.cosine),
            number(p.null),
            _percent(p.conflict),
            _percent(_expected(p.cosine)),
        ]
        for p in shown
    ]
    columns = ["Pair", "Cosine", "Random inside each tensor", "Signs in conflict", "Expected of the cosine"]
    return Table.of(caption, columns, rows)


def _expected(cosine: float) -> float:
    """Share of signs in conflict of jointly Gaussian coordinates with this correlation."""
    return math.nan if math.isnan(cosine) else math.acos(max(-1.0, min(1.0, cosine))) / math.pi


def _percent(share: float) -> str:
    """A share of coordinates."""
    return "undefined" if math.isnan(share) else f"{share:.1%}"


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
    """The cosines as a picture."""
    alt = f"Heat map of the cosines between {plural(len(geometry.names), 'task vector')}"
    if pairs:
        alt += f"; largest between {pairs[0].first} and {pairs[0].second}, {number(pairs[0].cosine)}"
    return cosine_heat_map(geometry.names, geometry.cosine.tolist(), f"{alt}.", "Cosine between task vectors.")
