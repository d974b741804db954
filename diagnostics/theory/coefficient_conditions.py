"""For which λ a merge θ0 + τ_1 + λτ_2 keeps both tasks (3.1), forgets one (3.2), or reaches a third (3.3).

The statements, for the relation α of the two tasks, a small constant β and constants that nobody can measure:

    (3.1) both tasks succeed:    α ≥ 0: λ ≥ 1 − α + β;   α < 0: no λ
    (3.2) the second unlearned:  α = 0: λ ≤ 0;   α < 0: −Θ(α⁻²) ≤ λ ≤ −poly(ηδ*)/α;   α > 0: only where α is small
    (3.3) out of distribution:   some γ_i ≠ 0,  Σ λ_iγ_i ≥ 1 + c,  Σ λ_iγ_i² ≥ 1 + c,  |λ_i|β ≤ c

They are about a one-layer transformer and its population. Nothing is put in place of an unknown constant: a region says
which λ are inside or outside whatever the constant, and leaves the others undecided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from diagnostics.errors import InputError
from diagnostics.results import Estimate, Result, Status, Verdict

__all__ = ["CoefficientRegion", "Regime", "Region", "Span", "TargetRegion", "coefficient_region"]

# A closed interval of λ.
Span = tuple[float, float]
_LINE: Span = (-math.inf, math.inf)
_SETTING = (
    "a one-layer one-head transformer, binary tasks with discriminative patterns, trained to a small error",
    "α is the population's inner product of the two patterns; a mean cosine of outputs stands in for it",
)


class Regime(StrEnum):
    """How two tasks are related; undecided where the interval of α crosses a threshold."""

    ALIGNED = "aligned"
    IRRELEVANT = "irrelevant"
    CONTRADICTORY = "contradictory"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Region(Result):
    """The λ that a statement allows, for an α that is known up to an interval.

    Attributes:
        claim: What holds for these λ, with the number of the statement.
        certain: λ allowed by every α of the interval; ``None`` where there is none.
        possible: λ allowed by some α of the interval, whatever the unknown constants; ``None`` where there is none.
        unknown: Which ends are known only up to a constant, and which way.
        assumptions: What the statement assumes and nobody has checked.
    """

    claim: str
    certain: Span | None
    possible: Span | None
    unknown: tuple[str, ...]
    assumptions: tuple[str, ...] = _SETTING

    @property
    def undecided(self) -> tuple[Span, ...]:
        """The λ that are possible but not certain."""
        if self.possible is None or self.certain is None:
            return () if self.possible is None else (self.possible,)
        ends = ((self.possible[0], self.certain[0]), (self.certain[1], self.possible[1]))
        return tuple(span for span in ends if span[0] < span[1])

    def judge(self, coefficient: float) -> Verdict:
        """Judge "the statement allows this λ".

        Args:
            coefficient: λ.

        Returns:
            Supported inside, refuted outside, undecided where the interval of α or a constant leaves it open.

        Example:
            >>> region = coefficient_region((0.2, 0.4)).multi_task
            >>> [str(region.judge(value)) for value in (0.5, 0.7, 0.9)]
            ['refuted', 'undecided', 'supported']
        """
        if not _inside(self.possible, coefficient):
            return Verdict.REFUTED
        return Verdict.SUPPORTED if _inside(self.certain, coefficient) else Verdict.UNDECIDED

    def __str__(self) -> str:
        text = f"{self.claim}: {_text(self.certain)}"
        if self.undecided:
            text += f"; undecided {' and '.join(map(_text, self.undecided))}"
        return "\n".join([text, *(f"  {note}" for note in self.unknown)])


@dataclass(frozen=True)
class TargetRegion(Result):
    """The λ for which Σ λ_iτ_i reaches a target with pattern Σ γ_iμ_i + κμ⊥ (3.3).

    Attributes:
        gammas: γ_i, taken as exact.
        margin: c.
        beta: β.
        common: One λ for all tasks that meets every condition; ``None`` where no such λ does.
        reach: The least max |λ_i| of any λ that meets both sums, so that β ≤ c / reach is needed; infinite where
            no λ does.
        unknown: What is known only up to a constant.
        assumptions: What the statement assumes and nobody has checked.
    """

    gammas: tuple[float, ...]
    margin: float
    beta: float
    common: Span | None
    reach: float
    unknown: tuple[str, ...]
    assumptions: tuple[str, ...]

    def judge(self, coefficients: Sequence[float]) -> Verdict:
        """Judge "these λ meet every condition of (3.3)" at the c and β given.

        Args:
            coefficients: λ_i, in the order of the γ_i.

        Returns:
            Supported or refuted.

        Raises:
            InputError: If their number is not that of the γ_i.

        Example:
            >>> region = coefficient_region(gammas=[0.6, 0.8]).out_of_distribution
            >>> [str(region.judge(values)) for values in ([1.0, 1.0], [1.0, 0.5])]
            ['supported', 'refuted']
        """
        if len(coefficients) != len(self.gammas):
            raise InputError(
                f"coefficients: expected {len(self.gammas)} numbers, one for each γ; found {len(coefficients)}."
            )
        values, gammas = np.asarray(coefficients, dtype=float), np.asarray(self.gammas)
        need = 1 + self.margin - 1e-12
        sums = values @ gammas >= need and values @ gammas**2 >= need
        small = bool((np.abs(values) * self.beta <= self.margin).all())
        return Verdict.SUPPORTED if sums and small else Verdict.REFUTED

    def __str__(self) -> str:
        least = "no λ meets both sums" if math.isinf(self.reach) else f"some |λ_i| must reach {self.reach:.4g}"
        lines = [f"out of distribution (3.3): one λ for all {_text(self.common)}; {least}"]
        return "\n".join([*lines, *(f"  {note}" for note in self.unknown)])


@dataclass(frozen=True)
class CoefficientRegion(Result):
    """What the statements (3.1)–(3.3) say about coefficients; a part without its input is ``None``.

    Attributes:
        alpha: The interval of α.
        regime: The relation of the two tasks, at the thresholds given.
        multi_task: λ that keep both tasks (3.1).
        unlearning: λ that keep the first task and unlearn the second (3.2).
        out_of_distribution: λ that reach a target task (3.3).
    """

    alpha: Span | None
    regime: Regime | None
    multi_task: Region | None
    unlearning: Region | None
    out_of_distribution: TargetRegion | None

    def __str__(self) -> str:
        parts = [str(part) for part in (self.multi_task, self.unlearning, self.out_of_distribution) if part is not None]
        if self.alpha is not None:
            parts.insert(0, f"{self.regime}: α in [{self.alpha[0]:.4g}, {self.alpha[1]:.4g}]")
        return "\n".join(parts)


def coefficient_region(
    alpha: float | tuple[float, float] | Estimate | None = None,
    *,
    gammas: Sequence[float] | None = None,
    beta: float = 0.0,
    margin: float = 0.0,
    aligned: float = 0.0,
    contradictory: float = 0.0,
) -> CoefficientRegion:
    """Return the λ that (3.1), (3.2) and (3.3) allow: λ ≥ 1 − α + β where α ≥ 0, and so on.

    With β = 0 and c = 0, the defaults, the reading is the most generous: a λ outside is outside for every β and c, and
    a λ inside is inside only up to them.

    Args:
        alpha: The relation α of two tasks: a number, its interval, or an estimate.
        gammas: γ_i of a target task.
        beta: β, a small constant of the theory that is not known.
        margin: c, another one.
        aligned: Tasks are aligned where α is above this; the statement's own threshold is 0.
        contradictory: Tasks are contradictory where α is below this; an α between it and 0 counts as 0.

    Returns:
        The regions; those of α need ``alpha``, that of (3.3) needs ``gammas``.

    Raises:
        InputError: If neither is given, or a number is out of its range.

    Example:
        >>> print(coefficient_region(0.75).multi_task)
        both tasks succeed (3.1): λ in [0.25, inf)
          lower end: true from λ = 0.25 + β for an unknown small β ≥ 0; read at β = 0
          no upper end is stated
        >>> coefficient_region(-0.5).multi_task.certain is None
        True
    """
    _check(beta, margin, aligned, contradictory)
    target = None if gammas is None else _target(gammas, margin, beta)
    if alpha is None:
        if target is None:
            raise InputError("coefficient_region: expected alpha or gammas; found neither. Give one of them.")
        return CoefficientRegion(None, None, None, None, target)
    span = _span(alpha)
    return CoefficientRegion(
        alpha=span,
        regime=_regime(span, aligned, contradictory),
        multi_task=_multi_task(span, beta, contradictory),
        unlearning=_unlearning(span, aligned, contradictory),
        out_of_distribution=target,
    )


def _regime(span: Span, aligned: float, contradictory: float) -> Regime:
    """The relation that every α of the interval has, or undecided."""
    if span[0] > aligned:
        return Regime.ALIGNED
    if span[1] < contradictory:
        return Regime.CONTRADICTORY
    inside = contradictory <= span[0] and span[1] <= aligned
    return Regime.IRRELEVANT if inside else Regime.UNDECIDED


def _multi_task(span: Span, beta: float, contradictory: float) -> Region:
    """(3.1) at every α of the interval, and at some."""

    def allowed(alpha: float) -> Span | None:
        # The allowed λ only grow with α, so the two ends of its interval decide.
        return None if alpha < contradictory else (1 - max(alpha, 0.0) + beta, math.inf)

    certain, possible = allowed(span[0]), allowed(span[1])
    unknown: tuple[str, ...] = ()
    if possible is not None:
        end = f"λ = {possible[0] - beta:.4g} + β"
        unknown = (
            f"lower end: true from {end} for an unknown small β ≥ 0; read at β = {beta:.4g}",
            "no upper end is stated",
        )
    return Region("both tasks succeed (3.1)", certain, possible, unknown)


def _unlearning(span: Span, aligned: float, contradictory: float) -> Region:
    """(3.2): what all regimes that the interval of α touches allow, and what some do."""
    certain: list[Span | None] = []
    possible: list[Span] = []
    unknown: list[str] = []
    if span[0] < contradictory:
        certain.append((0.0, 0.0))
        possible.append(_LINE)
        unknown.append("contradictory: from −Θ(α⁻²) to −poly(ηδ*)/α, a negative and a positive number, both unknown")
    if span[0] <= aligned and span[1] >= contradictory:
        certain.append((-math.inf, 0.0))
        possible.append((-math.inf, 0.0))
        unknown.append("irrelevant: no lower end is stated")
    if span[1] > aligned:
        certain.append(None)
        possible.append(_LINE)
        unknown.append("aligned: only where α is small, how small is unknown, and no λ is stated")
    # Each certain part is empty or reaches to 0 from below, so the smallest is in all of them.
    inner = None if None in certain else max(part for part in certain if part is not None)
    return Region("the first task kept, the second unlearned (3.2)", inner, max(possible), tuple(unknown))


def _target(gammas: Sequence[float], margin: float, beta: float) -> TargetRegion:
    """(3.3) for one λ shared by all tasks, and how far any λ must reach."""
    values = np.asarray(list(gammas), dtype=float)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise InputError(f"gammas: expected at least one finite number; found {list(gammas)}.")
    weakest = min(values.sum(), (values**2).sum())
    lower = (1 + margin) / weakest if weakest > 0 else math.inf
    upper = margin / beta if beta > 0 else math.inf
    return TargetRegion(
        gammas=tuple(values.tolist()),
        margin=margin,
        beta=beta,
        common=(float(lower), upper) if lower <= upper and math.isfinite(lower) else None,
        reach=_reach(values, 1 + margin),
        unknown=(f"c > 0 and β > 0 are unknown; read at c = {margin:.4g} and β = {beta:.4g}", "γ is taken as exact"),
        assumptions=(_SETTING[0], "the target's pattern is Σ γ_iμ_i + κμ⊥ with patterns μ_i that are orthogonal"),
    )


def _reach(gammas: np.ndarray, need: float) -> float:
    """Least max|λ_i| that meets both sums: by duality need / min over w in [0, 1] of ‖wγ + (1−w)γ²‖₁."""
    # The norm is convex and piecewise linear in w: its least value is at an end or where an entry changes sign, at
    # w = g/(g − 1) for a negative entry g. There wγ + (1 − w)γ² = γ(g − γ)/(g − 1), which is exactly 0 for g itself.
    signs = [float(np.abs(gammas * (g - gammas) / (g - 1)).sum()) for g in gammas[gammas < 0]]
    least = min(float(np.abs(gammas).sum()), float((gammas**2).sum()), *signs)
    return need / least if least > 0 else math.inf


def _span(alpha: float | tuple[float, float] | Estimate) -> Span:
    """The interval of α, checked."""
    if isinstance(alpha, Estimate):
        if alpha.status is Status.UNDEFINED:
            raise InputError(f"alpha: expected a defined estimate; found an undefined one ({alpha.evidence}).")
        alpha = (alpha.lower, alpha.upper)
    lower, upper = map(float, alpha) if isinstance(alpha, tuple) else (float(alpha), float(alpha))
    if not -1 <= lower <= upper <= 1:
        raise InputError(f"alpha: expected a number or an ordered interval in [-1, 1]; found [{lower}, {upper}].")
    return lower, upper


def _check(beta: float, margin: float, aligned: float, contradictory: float) -> None:
    """Refuse constants out of their ranges."""
    for name, value in (("beta", beta), ("margin", margin)):
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"{name}: expected a finite number from 0 on; found {value}. The theory has it small.")
    if not -1 <= contradictory <= 0 <= aligned <= 1:
        raise InputError(
            "aligned and contradictory: expected thresholds with -1 <= contradictory <= 0 <= aligned <= 1; "
            f"found {aligned} and {contradictory}."
        )


def _inside(span: Span | None, value: float) -> bool:
    """Whether a number is in an interval."""
    return span is not None and span[0] <= value <= span[1]


def _text(span: Span | None) -> str:
    """An interval in words."""
    if span is None:
        return "no λ"
    if span == _LINE:
        return "any λ"
    if span[0] == span[1]:
        return f"λ = {span[0]:.4g}"
    left, right = "(" if math.isinf(span[0]) else "[", ")" if math.isinf(span[1]) else "]"
    return f"λ in {left}{span[0]:.4g}, {span[1]:.4g}{right}"
