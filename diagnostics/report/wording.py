"""How numbers, names and verdicts are written, everywhere the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from diagnostics.report.document import Cell, Tone
from diagnostics.results import Estimate, Verdict

__all__ = [
    "clean",
    "estimate",
    "holds_cell",
    "interval",
    "listing",
    "merge_label",
    "number",
    "percent",
    "plural",
    "points",
    "short",
    "status_notes",
    "verdict_cell",
]

_TONES: dict[Verdict, Tone] = {Verdict.SUPPORTED: "good", Verdict.REFUTED: "bad", Verdict.UNDECIDED: "unsure"}


def number(value: float) -> str:
    """Write a number with three significant digits, or say that there is none.

    Args:
        value: The number.

    Returns:
        Its text.

    Example:
        >>> [number(v) for v in (0.12345, 23456.7, 1.2e-7, float("nan"), float("inf"))]
        ['0.123', '23,457', '1.2e-7', 'undefined', 'infinite']
    """
    if math.isnan(value):
        return "undefined"
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    if 1000 <= abs(value) < 1e7:
        return f"{value:,.0f}"
    # Adding zero turns -0 into 0.
    mantissa, _, exponent = f"{value + 0.0:.3g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def percent(value: float) -> str:
    """Write a share as a percentage.

    Args:
        value: The share, 1 for all.

    Returns:
        Its text.

    Example:
        >>> percent(0.9312), percent(1.0), percent(float("nan"))
        ('93.1%', '100%', 'undefined')
    """
    if not math.isfinite(value):
        return number(value)
    return f"{100 * value:.1f}%".replace(".0%", "%")


def points(value: float) -> str:
    """Write a difference of shares in percentage points.

    Args:
        value: The difference.

    Returns:
        Its text, with a sign.

    Example:
        >>> points(-0.123)
        '-12.3 points'
    """
    return f"{100 * value:+.1f} points" if math.isfinite(value) else number(value)


def interval(value: Estimate, form: Callable[[float], str] = number) -> str:
    """Write the interval of an estimate.

    Args:
        value: The estimate.
        form: How its ends are written.

    Returns:
        Its text.

    Example:
        >>> from diagnostics.results import Status
        >>> interval(Estimate(0.9, 0.85, 0.95, 0.9, Status.CONVERGED), percent)
        '[85%, 95%]'
    """
    if math.isnan(value.lower) or math.isnan(value.upper):
        return "undefined"
    return f"[{form(value.lower)}, {form(value.upper)}]"


def estimate(value: Estimate, form: Callable[[float], str] = number) -> str:
    """Write an estimate with its interval.

    Args:
        value: The estimate.
        form: How its numbers are written.

    Returns:
        Its text.

    Example:
        >>> from diagnostics.results import Status
        >>> estimate(Estimate(0.9, 0.85, 0.95, 0.9, Status.NOT_CONVERGED), percent)
        '90% [85%, 95%], not converged'
    """
    if math.isnan(value.value):
        return "undefined"
    mark = "" if value.status.trusted else f", {value.status}"
    return f"{form(value.value)} {interval(value, form)}{mark}"


def clean(text: str) -> str:
    r"""Show characters that do not print by their code, so that no name can move a cursor or break a page.

    Args:
        text: Any text.

    Returns:
        Text of printable characters.

    Example:
        >>> clean("a\x1b[31mb")
        'a\\x1b[31mb'
    """
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def short(name: str, limit: int = 20) -> str:
    """Shorten a name for a drawing in its middle, because names often differ at the end.

    Args:
        name: The name.
        limit: Characters to keep.

    Returns:
        The name, at most that long.

    Example:
        >>> short("sentiment-of-reviews-v2", 12)
        'sentim…ws-v2'
    """
    name = clean(name)
    if len(name) <= limit:
        return name
    head = limit // 2
    return f"{name[:head]}…{name[len(name) - (limit - head - 1) :]}"


def merge_label(coefficients: Mapping[str, float]) -> str:
    """Name a merge by what goes into it.

    Args:
        coefficients: λ by expert.

    Returns:
        Experts and coefficients, the coefficient said once where all are equal.

    Example:
        >>> merge_label({"a": 0.5, "b": 0.5}), merge_label({"a": 1.0, "b": -0.3})
        ('a + b at 0.5', '1 a - 0.3 b')
    """
    values = set(coefficients.values())
    if len(values) == 1:
        return f"{' + '.join(coefficients)} at {number(values.pop())}"
    terms = [("-" if value < 0 else "+", f"{number(abs(value))} {name}") for name, value in coefficients.items()]
    first = terms[0][1] if terms[0][0] == "+" else f"-{terms[0][1]}"
    return " ".join([first, *(f"{sign} {term}" for sign, term in terms[1:])])


def plural(count: int, noun: str) -> str:
    """Count something.

    Args:
        count: How many.
        noun: Of what, in the singular.

    Returns:
        The count with the noun.

    Example:
        >>> plural(1, "task"), plural(2, "task")
        ('1 task', '2 tasks')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listing(names: Iterable[str]) -> str:
    """Join names into a phrase.

    Args:
        names: The names.

    Returns:
        The phrase.

    Example:
        >>> listing(["a"]), listing(["a", "b", "c"])
        ('a', 'a, b and c')
    """
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last


def verdict_cell(verdict: Verdict) -> Cell:
    """Write a verdict.

    Args:
        verdict: The verdict.

    Returns:
        The cell.

    Example:
        >>> verdict_cell(Verdict.REFUTED)
        Cell(text='refuted', tone='bad')
    """
    return Cell(str(verdict), _TONES[verdict])


def holds_cell(holds: bool | None) -> Cell:
    """Write whether something holds.

    Args:
        holds: ``None`` where it is undecided.

    Returns:
        The cell.

    Example:
        >>> holds_cell(None)
        Cell(text='undecided', tone='unsure')
    """
    if holds is None:
        return Cell("undecided", "unsure")
    return Cell("holds", "good") if holds else Cell("fails", "bad")


def status_notes(estimates: Mapping[str, Estimate]) -> tuple[str, ...]:
    """Say which estimates cannot be trusted, and what their status advises.

    Args:
        estimates: By what they estimate.

    Returns:
        A sentence for each status that is not trusted.
    """
    doubtful: dict[str, list[str]] = {}
    for name, item in estimates.items():
        if not item.status.trusted:
            doubtful.setdefault(f"{item.status}. {item.status.advice}", []).append(name)
    return tuple(f"{listing(names)} {'is' if len(names) == 1 else 'are'} {text}" for text, names in doubtful.items())
