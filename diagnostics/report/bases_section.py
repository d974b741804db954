"""Task-vector bases: which experts form a group, how sure that is, and what the bases save."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from diagnostics.bases.bases import Bases
from diagnostics.bases.clustering import Clustering
from diagnostics.bases.history import Moment
from diagnostics.report.document import Cell, Figure, Headline, Row, Section, Table
from diagnostics.report.drawing import BLUE, INK, VERMILLION
from diagnostics.report.heat_map import cosine_heat_map
from diagnostics.report.wording import listing, number, percent, plural, verdict_cell
from diagnostics.results import Status, Verdict

__all__ = ["bases_headline", "bases_section", "similarity_figure"]

# Groups named in the headline; the table holds them all.
_NAMED = 3
_ALONE = {
    Verdict.UNDECIDED: "may or may not fall into groups: each stays a basis of its own",
    Verdict.REFUTED: "fall into no groups: each stays a basis of its own",
}


def bases_headline(bases: Bases) -> Headline:
    """Say in a sentence whether the experts fall into groups, and into which.

    Args:
        bases: The bases.

    Returns:
        The headline; its verdict is on "they fall into groups", unless the number of groups was given.
    """
    clustering = bases.clustering
    grouped = [members for members in bases.clusters if len(members) > 1]
    named = "; ".join(listing(members) for members in grouped[:_NAMED])
    more = f"; and {plural(len(grouped) - _NAMED, 'more group')}" if len(grouped) > _NAMED else ""
    experts, vectors = plural(len(bases.names), "expert"), plural(bases.k, "basis vector")
    if clustering is None or clustering.given:
        certainty = "Read from files." if clustering is None else _certainty(bases, clustering)
        return Headline(None, f"{experts} in {vectors}{f': {named}{more}' if grouped else ''}.", certainty)
    says = _ALONE.get(clustering.verdict, f"fall into groups: {named}{more}; {vectors} in all")
    return Headline(clustering.verdict, f"{experts} {says}.", _certainty(bases, clustering))


def bases_section(bases: Bases, history: Sequence[Moment] = ()) -> Section:
    """Show the groups, the evidence for them, how well each basis stands for its experts, and the memory saved.

    Args:
        bases: The bases.
        history: Groups of earlier checkpoints, the last being those of the bases.

    Returns:
        The section.
    """
    text = [f"Note: {note}." for note in bases.notes]
    tables = [_members_table(bases), _memory_table(bases)]
    figures: tuple[Figure, ...] = ()
    if bases.clustering is not None:
        text = [*_evidence(bases, bases.clustering), *text]
        tables.append(_gap_table(bases.clustering))
        figures = (similarity_figure(bases), _spectrum(bases.clustering))
    if history:
        tables.append(_history_table(history))
    return Section("Task-vector bases", tuple(text), tuple(tables), figures)


def _certainty(bases: Bases, clustering: Clustering) -> str:
    """How sure the groups are."""
    text = f"Separation {number(clustering.separation)}; near-uniform similarities reach {number(clustering.null)}."
    stability = bases.stability
    if stability is not None and stability.status is not Status.UNDEFINED:
        text += f" The same groups in {percent(stability.same)} of {stability.resamples} resamples of the tensors."
    return text


def _evidence(bases: Bases, clustering: Clustering) -> list[str]:
    """What the verdict rests on, in words."""
    text = [
        "Experts are grouped by the cosines between their task vectors (2.12). Separation is the spread of the "
        "similarities that the groups explain, over their mean; it is held against matrices whose entries differ at "
        f"random by a quarter of their mean and by chance. At most {percent(clustering.p_value)} of these separate as "
        "well.",
        f"A new vector counts as similar to a basis from a cosine of {number(bases.threshold)} on: halfway between "
        "those of its own experts, each left out in turn, and those of others.",
    ]
    if bases.stability is not None and bases.stability.status is Status.UNDEFINED:
        text.append(
            f"How stable the groups are was not measured: {plural(bases.stability.tensors, 'tensor')}, or no groups."
        )
    return text


def _members_table(bases: Bases) -> Table:
    """Experts by basis, and how close they are to it."""
    rows: list[Row] = []
    for index, (basis, members) in enumerate(bases.members.items()):
        places = [bases.names.index(name) for name in members]
        inside = [float(bases.similarity[place, index]) for place in places]
        others = [float(bases.similarity[place, index]) for place in range(len(bases.names)) if place not in places]
        length = math.sqrt(float(bases.gram[index, index]))
        rows.append([basis, ", ".join(members), number(length), _extreme(min, inside), _extreme(max, others)])
    caption = f"The bases, merged by {bases.merge}; cosines of experts with them"
    return Table.of(caption, ["Basis", "Experts", "Norm", "Least of its own", "Largest of others"], rows)


def _extreme(choose: Any, values: Sequence[float]) -> str:
    """The smallest or largest of some cosines; unknown where an expert joined later."""
    if not values:
        return "none"
    return "unknown" if any(map(math.isnan, values)) else number(choose(values))


def _memory_table(bases: Bases) -> Table:
    """What is saved (2.15)."""
    memory = bases.memory
    rows: list[Row] = [
        ["All task vectors", f"{memory.vectors}", _megabytes(memory.vectors * memory.vector_bytes)],
        ["Bases", f"{memory.bases}", _megabytes(memory.bases * memory.vector_bytes)],
        [
            "Largest group, or bases",
            f"{memory.search_vectors}",
            _megabytes(memory.search_vectors * memory.vector_bytes),
        ],
    ]
    return Table.of(f"Memory: {percent(memory.saved)} saved (2.15)", ["What", "Vectors", "MB"], rows)


def _megabytes(size: int) -> str:
    """A size in millions of bytes."""
    return number(size / 1e6)


def _gap_table(clustering: Clustering) -> Table:
    """The number of groups by each reading of the spectrum."""
    gap = clustering.eigengap
    rows: list[Row] = [
        ["Largest gap, as published (2.12)", _count(gap.stated)],
        ["Largest ratio", _count(gap.relative)],
        ["Largest gap, normalised Laplacian", _count(gap.normalised)],
        ["Proposed: separates best", f"{len(clustering.proposal)}"],
        ["That there are groups", verdict_cell(clustering.verdict)],
    ]
    return Table.of("Number of groups by the eigengap", ["Reading", "Groups"], rows)


def _count(value: int | None) -> str:
    """A number of groups, if there is one."""
    return "undefined" if value is None else f"{value}"


def _history_table(history: Sequence[Moment]) -> Table:
    """Groups of earlier checkpoints."""
    rows: list[Row] = []
    for moment in history:
        groups = "; ".join(", ".join(members) for members in moment.clusters if len(members) > 1) or "none"
        same = Cell("same", "good") if moment.same else Cell("other", "unsure")
        rows.append([moment.label, same, number(moment.agreement), verdict_cell(moment.verdict), groups])
    columns = ["Checkpoint", "Groups", "Agreement", "Falls into groups", "Groups of several"]
    return Table.of("The same experts earlier in fine-tuning; agreement is the adjusted Rand index", columns, rows)


def similarity_figure(bases: Bases) -> Figure:
    """Draw the cosines, the experts of a group beside each other.

    Args:
        bases: Bases that were made, not loaded.

    Returns:
        The heat map.
    """
    shape = bases.geometry
    assert shape is not None  # loaded bases have no cosines to draw
    order = [shape.names.index(name) for members in bases.clusters for name in members if name in shape.names]
    cosine = shape.cosine[order][:, order].tolist()
    grouped = [listing(members) for members in bases.clusters if len(members) > 1]
    alt = f"Heat map of the cosines between {plural(len(order), 'task vector')}, ordered by group"
    alt += f"; groups: {'; '.join(grouped[:_NAMED])}." if grouped else "; no groups."
    return cosine_heat_map([shape.names[index] for index in order], cosine, alt, "Cosines, ordered by group.")


def _spectrum(clustering: Clustering) -> Figure:
    """The eigenvalues of the Laplacian, with the gap that the groups rest on."""
    values = [max(0.0, value) for value in clustering.eigengap.eigenvalues.tolist()]
    count, chosen = len(values), len(clustering.proposal)

    def paint(ax: Any) -> None:
        ax.plot(range(1, count + 1), values, "o", color=BLUE, markersize=5 if count <= 30 else 3)
        if 0 < chosen < count:
            ax.axvline(chosen + 0.5, color=VERMILLION, lw=1.2, ls="--")
            side = "left" if chosen < 0.7 * count else "right"
            label = f" {plural(chosen, 'group')} "
            ax.text(chosen + 0.5, 0.97, label, transform=ax.get_xaxis_transform(), ha=side, va="top", color=INK)
        ax.set_xlabel("number i")
        ax.set_ylabel("eigenvalue λ^(i)")
        ax.set_ylim(bottom=-0.03 * max([*values, 1e-12]))
        ax.grid(axis="y")
        if count <= 12:
            ax.set_xticks(range(1, count + 1))

    alt = f"Eigenvalues of the Laplacian from 0 to {number(values[-1])}; the gap after number {chosen} is marked."
    caption = (
        "Spectrum of L = D − |M| (2.12). As many small eigenvalues as there are groups; the dashed line is the gap."
    )
    return Figure(paint, 420, 260, alt, caption)
