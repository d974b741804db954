"""Whether task vectors can add up to a compositional task, what keeps them from it, and what to do about that."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor

from diagnostics.report.composition_chart import COLOURS, Bar, bars_figure
from diagnostics.report.document import Figure, Headline, Row, Section, Table
from diagnostics.report.drawing import INK
from diagnostics.report.heat_map import cosine_heat_map
from diagnostics.report.wording import estimate, interval, listing, number, percent, verdict_cell
from diagnostics.results import Estimate, Verdict
from diagnostics.verdicts.causes import Cause
from diagnostics.verdicts.composition import CompositionAudit

__all__ = ["composition_headline", "composition_section"]

# More pairs than this are ranked but not listed; the heat map shows them all.
_PAIRS = 10
# Fewer folds give no intervals.
_FOLDS = 4
# Orthogonal causes have a cancellation of 1; outside this range they mostly cancel or mostly add up.
_ORTHOGONAL = (0.5, 1.5)
_MEANING = {
    "delta_star": "the four below (1.8)",
    "no_instruction": "prior on y (1.10)",
    "interaction": "interaction, y given x (1.10)",
    "interaction_x": "interaction, x (1.10)",
    "interaction_xy": "interaction, x and y (1.10)",
    "seam": "wording (1.12)",
}
_INTERACTION = "Interaction is interaction_x + interaction_xy, whose parts of x cancel"
_BEGINNING = {
    Cause.DATA: "delta_",
    Cause.PRIOR: "no_instruction",
    Cause.INTERACTION: "interaction",
    Cause.SEAM: "seam",
}


def composition_headline(audit: CompositionAudit) -> Headline:
    """Say in a sentence whether the components' gradients reach the target's, and what that means for a merge.

    Args:
        audit: The audit.

    Returns:
        The headline.
    """
    lead = {
        Verdict.SUPPORTED: "At the base nothing keeps these task vectors from adding up to the target",
        Verdict.REFUTED: "Adding these task vectors is not expected to reach the target",
        Verdict.UNDECIDED: "It stays open whether these task vectors can add up to the target",
    }[audit.verdict]
    value = audit.relative_estimate
    sure = f"The interval is meant to hold the true value {percent(value.confidence)} of the time. "
    certainty = "The error is that of gradients at the base, to first order; nothing was fine-tuned or merged."
    if audit.verdict is Verdict.SUPPORTED:
        certainty += " A small error is needed for a good merge, but does not promise one: evaluate it."
    if value.status.trusted:
        certainty = sure + certainty
    return Headline(audit.verdict, f"{lead}{_relative(audit)}.", certainty)


def composition_section(audit: CompositionAudit) -> Section:
    """Show the error, its causes and terms, and what they mean for a merge.

    Args:
        audit: The audit.

    Returns:
        The section.
    """
    paragraphs = [
        _mixture(audit),
        _main_cause(audit),
        _sizes(audit),
        f"Cost: {audit.cost}, each over the data of its context. Norms are from {audit.error.estimate.evidence}.",
        *(f"Note: {note}." for note in audit.notes),
    ]
    tables = (_error_table(audit), _cause_table(audit), _term_table(audit), _loss_table(audit), _cosine_table(audit))
    return Section("Audit of the composition", tuple(paragraphs), tables, tuple(_figures(audit)))


def _relative(audit: CompositionAudit) -> str:
    """The relative error against its limit, or why there is none."""
    value, limit = audit.relative_estimate, f"limit {number(audit.limit)}"
    if value.status.trusted:
        return f": relative error {estimate(value)}, {limit}"
    if audit.folds < _FOLDS:
        return f": relative error {number(audit.relative)} on these data, {limit}, and too few examples for an interval"
    return f", as {value.evidence}"


def _mixture(audit: CompositionAudit) -> str:
    """The coefficients of the components."""
    pairs = list(zip(audit.components, audit.alphas, strict=True))
    text = f"α, how much of each component's gradient is added: {listing(f'{number(a)} {name}' for name, a in pairs)}."
    negative = [name for name, alpha in pairs if alpha < 0]
    if negative:
        text += (
            f" α is negative for {listing(negative)}: the target is nearest when that is subtracted, not added. "
            "Choose alphas: nonnegative to see what adding alone can do."
        )
    return text


def _main_cause(audit: CompositionAudit) -> str:
    """The cause to do something about, or why none is named."""
    if audit.cause is not None:
        share = _said(audit.causes[audit.cause], percent)
        return f"Main cause of the error: {audit.cause}, {share} of its square. That is, {audit.cause.advice}."
    if audit.folds < _FOLDS:
        return "No cause is named: shares have no intervals with so few examples."
    if not _has_shares(audit):
        rest = "so there is nothing to explain" if audit.verdict is Verdict.SUPPORTED else "more examples would tell"
        return f"No cause is named: the error cannot be told from zero, {rest}."
    ranked = sorted(audit.causes, key=lambda cause: -audit.causes[cause].value)[:2]
    leaders = listing(f"{cause} {_said(audit.causes[cause], percent)}" for cause in ranked)
    return f"No cause is named: {leaders} of the squared error are too close for these examples. More would tell."


def _sizes(audit: CompositionAudit) -> str:
    """Whether the parts are small, cancel or add up."""
    parts = _parts(audit)
    norms = dict(zip(parts, _inner(audit).diagonal().clamp_min(0).sqrt().tolist(), strict=True))
    longest = max(norms, key=lambda name: norms[name])
    if not norms[longest] > 0:
        return "All terms are zero."
    text = f"The longest part of the error is {_label(audit, longest)}"
    size = _of_target(audit, norms[longest])
    text += f", {size} of the length of the target's gradient." if size != "undefined" else "."
    if _has_shares(audit):
        shares = {name: sum(audit.terms[term].share.value for term in terms) for name, terms in parts.items()}
        first = max(shares, key=lambda name: shares[name])
        text += f" The largest share of the error has {_label(audit, first)}, {percent(shares[first])}."
    low, high = _ORTHOGONAL
    how = "cancel in large part" if audit.cancellation < low else "add up" if audit.cancellation > high else ""
    text += f" The causes {how or 'neither cancel nor add up much'}: the squared error is "
    return text + f"{number(audit.cancellation)} times the sum of their squares, 1 if they were orthogonal (1.15)."


def _error_table(audit: CompositionAudit) -> Table:
    """The number that the verdict rests on."""
    value = audit.relative_estimate
    known = value.status.trusted or audit.folds < _FOLDS
    rows: list[Row] = [
        [
            "relative error",
            _said(value, number) if known else "undefined",
            number(audit.relative),
            number(audit.limit),
            verdict_cell(audit.verdict),
        ]
    ]
    columns = ["Quantity", "Expected", "On these data", "Limit", "Below it"]
    return Table.of(
        "The error ‖∇ℰ‖/‖g_*‖ (1.3); on these data it contains the noise of the sample (1.14)", columns, rows
    )


def _cause_table(audit: CompositionAudit) -> Table:
    """The share of each cause, largest first."""
    known = {cause: share.value for cause, share in audit.causes.items() if not math.isnan(share.value)}
    ranked = sorted(audit.causes, key=lambda cause: -known.get(cause, -math.inf)) if _shown(audit) else list(Cause)
    rows: list[Row] = [
        [str(cause), _share(audit, audit.causes[cause]), listing(_terms_of(audit, cause))] for cause in ranked
    ]
    caption = "What the error comes from; shares of its square add up to 100%, and a negative one cancels others"
    return Table.of(caption + _doubt(audit), ["Cause", "Share of the error", "Terms"], rows)


def _term_table(audit: CompositionAudit) -> Table:
    """Length and share of every term, the error they add up to first."""
    whole = audit.error
    rows: list[Row] = [
        [
            "error",
            "the sum (1.3)",
            _said(whole.estimate, number),
            _of_target(audit, whole.norm),
            "100%",
        ]
    ]
    for name, term in audit.terms.items():
        size, share = _of_target(audit, term.norm), _share(audit, term.share)
        rows.append([name, _meaning(audit, name), _said(term.estimate, number), size, share])
    caption = (
        "The terms: error = Σ delta_i + delta_star, and delta_star = the four below it. ‖g_*‖ is the length of the "
        "target's gradient on these data"
    )
    return Table.of(caption + _doubt(audit), ["Term", "Meaning", "Norm", "Of ‖g_*‖", "Share of error"], rows)


def _loss_table(audit: CompositionAudit) -> Table:
    """The model's loss in each context."""
    rows: list[Row] = [[context, number(loss)] for context, loss in audit.losses.items()]
    return Table.of("Loss of y at the base in each context, nats per example", ["Context", "Loss"], rows)


def _cosine_table(audit: CompositionAudit) -> Table:
    """Which parts point the same way, and which against each other."""
    names, cosine = list(_parts(audit)), _cosines(audit)
    pairs = [(names[i], names[j], cosine[i][j]) for i, j in combinations(range(len(names)), 2)]
    known = sorted((pair for pair in pairs if not math.isnan(pair[2])), key=lambda pair: -abs(pair[2]))
    rows: list[Row] = [[f"{first}, {second}", number(value)] for first, second, value in known[:_PAIRS]]
    caption = f"Cosine between the parts of the error, largest first; a negative one cancels. {_INTERACTION}"
    if len(rows) < len(known):
        caption += f" ({len(rows)} of {len(known)} pairs; the others are smaller)"
    return Table.of(caption if rows else "Cosine between parts: at most one is not zero", ["Pair", "Cosine"], rows)


def _figures(audit: CompositionAudit) -> list[Figure]:
    """Shares where they exist, norms and angles."""
    shares = [_share_figure(audit)] if _shown(audit) else []
    names, title = list(_parts(audit)), "Cosine between the parts of the error, on these data."
    alt = f"Heat map of the cosines between {listing(names)}; the table of cosines has the largest."
    return [*shares, _norm_figure(audit), cosine_heat_map(names, _cosines(audit), alt, title)]


def _share_figure(audit: CompositionAudit) -> Figure:
    """Shares of the causes, each with its terms below it."""
    bars = []
    for cause, share in audit.causes.items():
        terms = _terms_of(audit, cause)
        bars.append(Bar(str(cause), share, COLOURS[cause]))
        # A single term is its cause.
        parts = terms if len(terms) > 1 else []
        bars += [Bar(_label(audit, name), audit.terms[name].share, COLOURS[cause], part=True) for name in parts]
    spoken = listing(f"{cause} {_said(share, percent)}" for cause, share in audit.causes.items())
    caption = (
        "Share of the squared error that comes from each cause (thick) and from its terms (thin), with intervals. "
        "Left of zero: cancels others."
    )
    return bars_figure(bars, percent, "share of the squared error", f"Shares of the squared error: {spoken}.", caption)


def _norm_figure(audit: CompositionAudit) -> Figure:
    """Lengths of the error and of its terms."""
    bars = [Bar("error", audit.error.estimate, INK)]
    for cause in Cause:
        bars += [
            Bar(_label(audit, name), audit.terms[name].estimate, COLOURS[cause]) for name in _terms_of(audit, cause)
        ]
    spoken = listing(f"{bar.name} {_said(bar.value, number)}" for bar in bars)
    caption = (
        "Length of the error and of the terms it is the sum of, with intervals. Where terms are longer than the error, "
        "they cancel; interaction_x and interaction_xy always do, as both hold the same part of x."
    )
    return bars_figure(bars, number, "norm", f"Norms: {spoken}.", caption)


def _leaves(audit: CompositionAudit) -> list[str]:
    """The terms that the error is the sum of, each once."""
    return [name for name in audit.terms if name != "delta_star"]


def _terms_of(audit: CompositionAudit, cause: Cause) -> list[str]:
    """The terms that belong to a cause."""
    return [name for name in _leaves(audit) if name.startswith(_BEGINNING[cause])]


def _label(audit: CompositionAudit, name: str) -> str:
    """A term with the component that it belongs to."""
    component = _component(audit, name)
    return f"{name} ({component})" if component is not None else name


def _meaning(audit: CompositionAudit, name: str) -> str:
    """What a term stands for."""
    return _MEANING.get(name) or f"data, {_component(audit, name)} (1.8)"


def _component(audit: CompositionAudit, name: str) -> str | None:
    """The component of a delta_i."""
    index = name.removeprefix("delta_")
    return audit.components[int(index) - 1] if index.isdigit() else None


def _has_shares(audit: CompositionAudit) -> bool:
    """Whether the error can be told from zero, so that parts have shares of it."""
    return all(share.status.trusted for share in audit.causes.values())


def _shown(audit: CompositionAudit) -> bool:
    """Whether shares are worth showing: not those of an error that may be zero."""
    return _has_shares(audit) or audit.folds < _FOLDS


def _share(audit: CompositionAudit, value: Estimate) -> str:
    """A share; of an error that may be zero there is none."""
    return _said(value, percent) if _shown(audit) else "undefined"


def _doubt(audit: CompositionAudit) -> str:
    """The end of a caption above values that have no interval."""
    return ". No intervals: too few examples" if audit.folds < _FOLDS else ""


def _said(value: Estimate, form: Callable[[float], str]) -> str:
    """An estimate with its interval, where it has one that says something."""
    if not value.status.trusted or value.lower == value.upper:
        return form(value.value)
    return f"{form(value.value)} {interval(value, form)}"


def _of_target(audit: CompositionAudit, norm: float) -> str:
    """A norm as a share of that of the target's gradient, on these data."""
    whole = audit.error.norm
    return percent(norm / whole * audit.relative) if whole > 0 else "undefined"


def _parts(audit: CompositionAudit) -> dict[str, tuple[str, ...]]:
    """What the error is the sum of, with its terms: those of the interaction mean something only together."""
    both = tuple(_terms_of(audit, Cause.INTERACTION))
    alone = {name: (name,) for name in _leaves(audit) if name not in both}
    seam = {"seam": alone.pop("seam")}
    return alone | {"interaction": both} | seam


def _inner(audit: CompositionAudit) -> Tensor:
    """Inner products of the parts, on these data."""
    names = list(audit.terms)
    rows = torch.zeros(len(_parts(audit)), len(names), dtype=audit.gram.dtype)
    for row, terms in zip(rows, _parts(audit).values(), strict=True):
        row[[names.index(term) for term in terms]] = 1
    return rows @ audit.gram @ rows.T


def _cosines(audit: CompositionAudit) -> list[list[float]]:
    """Cosines between the parts, NaN for those that are zero."""
    inner = _inner(audit)
    norms = inner.diagonal().clamp_min(0).sqrt()
    scale = norms[:, None] * norms[None, :]
    cosine: list[list[float]] = (inner / scale).clamp(-1, 1).where(scale > 0, math.nan).tolist()
    return cosine
