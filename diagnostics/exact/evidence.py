"""What a search for counterexamples found, and the smallest case that refutes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diagnostics.exact.claims import Claim
from diagnostics.exact.describing import describe
from diagnostics.exact.relations import Judgement, Relation
from diagnostics.results import Assumption, Result, Verdict

__all__ = ["Counterexample", "Evidence", "counterexample"]


@dataclass(frozen=True)
class Counterexample(Result):
    """A case that meets every assumption and not the claim.

    Attributes:
        case: The case.
        size: Its size, 1 being the smallest; 0 where it was not searched by size.
        relation: What was claimed.
        left: Left side.
        right: Right side.
        tolerance: What rounding could explain of the difference.
        assumptions: What is assumed and what is only suspected, as measured on it.
    """

    case: Any
    size: int
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
            Cases in which the right side is not above its own rounding are left out of it.
        counterexample: The smallest case found.
        empty: Sizes at which no case met the assumptions, so that nothing was checked there.
    """

    name: str
    verdict: Verdict
    examples: int
    discarded: int
    sharp: int
    closest: float | None
    counterexample: Counterexample | None
    empty: tuple[int, ...] = ()

    def __str__(self) -> str:
        head = f"{self.name}: {self.verdict} over {self.examples} cases, {self.sharp} of them sharp"
        if self.closest is not None:
            head += f"; left side at most {self.closest:.4g} of the right one"
        if self.empty:
            head += f"; no case met the assumptions at size {', '.join(map(str, self.empty))}"
        return head if self.counterexample is None else f"{head}\n{self.counterexample}"


def counterexample(claim: Claim, case: Any, size: int, judgement: Judgement) -> Counterexample:
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
