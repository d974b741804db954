"""Look for the smallest case that refutes a claim: size by size, each case judged by its own rounding error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, assume, given, seed, settings, target
from hypothesis.errors import Unsatisfiable

from diagnostics.errors import InputError
from diagnostics.exact.claims import Claim
from diagnostics.exact.relations import Judgement, Relation, judge
from diagnostics.exact.rounding import lift
from diagnostics.results import Assumption, Result, Verdict
from diagnostics.testing.describing import describe

__all__ = ["Counterexample", "Evidence", "counterexample", "judged", "search"]


@dataclass(frozen=True)
class Counterexample(Result):
    """A case that meets every assumption and not the claim.

    Attributes:
        case: The case.
        size: Its size, 1 being the smallest; 0 or ``None`` where it was not searched by size.
        relation: What was claimed.
        left: Left side.
        right: Right side.
        tolerance: What rounding could explain of the difference.
        assumptions: What is assumed and what is only suspected, as measured on it.
    """

    case: Any
    size: int | None
    relation: Relation
    left: float
    right: float
    tolerance: float
    assumptions: Mapping[str, Assumption] = field(default_factory=dict)

    @property
    def boundary(self) -> tuple[str, ...]:
        """Assumptions that the case meets with nothing to spare."""
        return tuple(name for name, item in self.assumptions.items() if item.holds and item.measured == item.limit)

    @property
    def broken(self) -> tuple[str, ...]:
        """Suspected assumptions that the case does not meet."""
        return tuple(name for name, item in self.assumptions.items() if not item.holds)

    def __str__(self) -> str:
        size = f" of size {self.size}" if self.size else ""
        lines = [
            f"counterexample{size}: {self.left:.10g} {self.relation} {self.right:.10g} is off by "
            f"{self.left - self.right:.3g}, rounding explains {self.tolerance:.1g}",
            *(f"  {line}" for line in describe(self.case)),
        ]
        for name, item in self.assumptions.items():
            word = "on the boundary of" if name in self.boundary else "against" if name in self.broken else "within"
            lines.append(f"  {word} {name}: {item.measured:.6g}, limit {item.limit:.6g}. {item.note}".rstrip())
        return "\n".join(lines)


@dataclass(frozen=True)
class Evidence(Result):
    """What a search for counterexamples found.

    Attributes:
        name: What was checked.
        verdict: Refuted by a counterexample; supported by at least one sharp case and no counterexample.
        examples: Cases that met the assumptions.
        discarded: Cases that did not.
        sharp: Cases in which rounding left half of the digits.
        closest: For an inequality, the largest left side as a share of the right one: 1 where the bound is attained.
        counterexample: The smallest case found.
    """

    name: str
    verdict: Verdict
    examples: int
    discarded: int
    sharp: int
    closest: float | None
    counterexample: Counterexample | None

    def __str__(self) -> str:
        head = f"{self.name}: {self.verdict} over {self.examples} cases, {self.sharp} of them sharp"
        if self.closest is not None:
            head += f"; left side at most {self.closest:.4g} of the right one"
        return head if self.counterexample is None else f"{head}\n{self.counterexample}"


class _Refuted(AssertionError):
    """Carries a counterexample out of Hypothesis, which shrinks it on the way."""

    def __init__(self, counterexample: Counterexample) -> None:
        super().__init__(str(counterexample))
        self.counterexample = counterexample


@dataclass
class _Tally:
    examples: int = 0
    discarded: int = 0
    sharp: int = 0
    closest: float = -np.inf

    def add(self, judgement: Judgement) -> None:
        self.examples += 1
        self.sharp += judgement.sharp
        if judgement.right > 0:
            self.closest = max(self.closest, judgement.left / judgement.right)


def judged(claim: Claim, case: Any) -> Judgement:
    """Judge one case, whether or not it meets the assumptions.

    Args:
        claim: The claim.
        case: A case as its strategy draws it.

    Returns:
        Both sides, in Rounded arithmetic, compared.
    """
    exact = claim.read(lift(case))
    tolerance = None if claim.tolerance is None else claim.tolerance(claim.read(case))
    return judge(claim.left(exact), claim.right(exact), claim.relation, tolerance)


def search(claim: Claim, *, name: str = "claim", max_examples: int = 300, seed: int = 0) -> Evidence:
    """Look for a counterexample among cases of growing size, and shrink it.

    The smallest size comes first and gets most of the examples, and the search ends at the first size that has a
    counterexample: so what is found is of the smallest dimension that shows it.

    Args:
        claim: The claim.
        name: What to call it.
        max_examples: Cases to try, over all sizes.
        seed: Seed of the search, which is otherwise deterministic.

    Returns:
        The evidence.

    Raises:
        InputError: If there are fewer examples than sizes, or no case meets the assumptions.
    """
    if max_examples < len(claim.sizes):
        raise InputError(f"max_examples: expected at least one for each size {claim.sizes}; found {max_examples}.")
    tally, found = _Tally(), None
    for place, size in enumerate(claim.sizes):
        found = _at_size(claim, size, _share(max_examples, place, len(claim.sizes)), seed, tally)
        if found is not None:
            break
    if tally.examples == 0:
        raise InputError(f"{name}: none of {tally.discarded} cases met the assumptions; draw cases that do.")
    supported = Verdict.SUPPORTED if tally.sharp else Verdict.UNDECIDED
    return Evidence(
        name=name,
        verdict=supported if found is None else Verdict.REFUTED,
        examples=tally.examples,
        discarded=tally.discarded,
        sharp=tally.sharp,
        closest=tally.closest if claim.relation is Relation.AT_MOST and np.isfinite(tally.closest) else None,
        counterexample=found,
    )


def counterexample(claim: Claim, case: Any, size: int | None, judgement: Judgement) -> Counterexample:
    """Put a case that refutes a claim together with what is assumed and what is suspected.

    Args:
        claim: The claim.
        case: The case as its strategy draws it.
        size: Its size.
        judgement: Both sides.

    Returns:
        The counterexample.
    """
    read = claim.read(case)
    conditions = {condition.name: condition.audit(read) for condition in (*claim.assumptions, *claim.suspects)}
    sides = (judgement.left, judgement.right, judgement.tolerance)
    return Counterexample(case, size, claim.relation, *sides, conditions)


def _share(examples: int, place: int, count: int) -> int:
    """Examples for the size at a place: falling evenly, so that the smallest dimension is searched best."""
    weights = [count - each for each in range(count)]
    return max(1, round(examples * weights[place] / sum(weights)))


def _at_size(claim: Claim, size: int, share: int, number: int, tally: _Tally) -> Counterexample | None:
    """The smallest counterexample of one size, if there is one."""

    def probe(case: Any) -> None:
        audit = claim.audit(claim.read(case))
        if not all(item.holds for item in audit.values()):
            tally.discarded += 1
            assume(False)
        judgement = judged(claim, case)
        tally.add(judgement)
        if claim.relation is Relation.AT_MOST and judgement.right > 0:
            # Climb towards the cases in which the bound is attained.
            target(max(judgement.left / judgement.right, -1.0))
        if not judgement.holds:
            raise _Refuted(counterexample(claim, case, size, judgement))

    run = given(claim.cases(size))(probe)
    limits = settings(
        max_examples=share,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.target, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )
    try:
        seed(number)(limits(run))()
    except _Refuted as refuted:
        return refuted.counterexample
    except Unsatisfiable:
        return None
    return None
