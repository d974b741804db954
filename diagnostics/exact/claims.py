"""A claim as a value: two sides, how they are related, for which cases, and wrong forms that must be refuted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diagnostics.errors import InputError
from diagnostics.exact.relations import Relation
from diagnostics.results import Assumption

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["DEFAULT_EXAMPLES", "Claim", "Condition", "Mutant"]

# Cases that a check tries where nothing else is asked for.
DEFAULT_EXAMPLES = 300

# Whatever a strategy draws and ``Claim.read`` makes of it.
Case = Any
Side = Callable[[Case], Any]


def _same(case: Case) -> Case:
    """A case that is read as it is drawn."""
    return case


@dataclass(frozen=True)
class Condition:
    """An assumption as a predicate on numbers, drawn ones in a test and measured ones in a report.

    Attributes:
        name: One word, the key in reports.
        text: What is assumed, with its number.
        measured: What is measured of a case.
        limit: What it is held against.
        decide: Whether it holds, ``None`` where that is open; by default ``measured <= limit``.

    Example:
        >>> simplex = Condition("simplex", "(A3) they add up to one", lambda c: abs(sum(c) - 1), lambda c: 0.0)
        >>> print(simplex.audit([0.5, 1.0]))
        fails: 0.5 against 0. (A3) they add up to one
    """

    name: str
    text: str
    measured: Callable[[Case], Any]
    limit: Callable[[Case], Any] = lambda case: 0.0
    decide: Callable[[Case], bool | None] | None = None

    def audit(self, case: Case) -> Assumption:
        """Measure the assumption.

        Args:
            case: The numbers.

        Returns:
            The assumption with what was measured.
        """
        measured, limit = float(self.measured(case)), float(self.limit(case))
        holds = measured <= limit if self.decide is None else self.decide(case)
        return Assumption(holds, measured, limit, self.text)


@dataclass(frozen=True)
class Claim:
    """Two sides, how they are related, and the cases for which that is claimed.

    Attributes:
        statement: In LaTeX.
        left: Left side, of a case whose numbers are ``Rounded``.
        right: Right side.
        relation: Equal, or at most.
        cases: Hypothesis strategy for cases of a size (a dimension, a number of tasks), 1 being the smallest.
        assumptions: What a case must meet.
        read: What the sides and assumptions see of a drawn case.
        tolerance: What rounding can explain, where a side cannot follow its own error.
        sizes: Sizes to search, in order.
        suspects: Conditions that are not assumed, and measured on a counterexample to say which of them it breaks.
    """

    statement: str
    left: Side
    right: Side
    relation: Relation
    cases: Callable[[int], SearchStrategy[Any]]
    assumptions: tuple[Condition, ...] = ()
    read: Callable[[Case], Case] = _same
    tolerance: Callable[[Case], float] | None = None
    sizes: tuple[int, ...] = (1, 2, 3, 4)
    suspects: tuple[Condition, ...] = ()

    def audit(self, case: Case) -> dict[str, Assumption]:
        """Measure every assumption on a case as ``read`` returns it, or on measured numbers of the same names.

        Args:
            case: The numbers.

        Returns:
            Assumptions by name.
        """
        return {condition.name: condition.audit(case) for condition in self.assumptions}


@dataclass(frozen=True)
class Mutant:
    """A wrong form of a claim that a check must refute; what is ``None`` is as in the claim.

    Attributes:
        description: What is wrong with it.
        left: Another left side.
        right: Another right side.
        relation: Another relation.
        without: Name of an assumption that is dropped.
        cases: Another strategy, which reaches where the dropped assumption fails.
        sizes: Sizes to search.
    """

    description: str
    left: Side | None = None
    right: Side | None = None
    relation: Relation | None = None
    without: str = ""
    cases: Callable[[int], SearchStrategy[Any]] | None = None
    sizes: tuple[int, ...] | None = None

    def of(self, claim: Claim) -> Claim:
        """Return the wrong claim.

        Args:
            claim: The right one.

        Returns:
            The claim with this mutant's changes.

        Raises:
            InputError: If the assumption to drop is none of the claim's.
        """
        names = [condition.name for condition in claim.assumptions]
        if self.without and self.without not in names:
            raise InputError(f"mutant {self.description!r} drops {self.without!r}, which is none of {names}.")
        given = {name: getattr(self, name) for name in ("left", "right", "relation", "cases", "sizes")}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        kept = tuple(condition for condition in claim.assumptions if condition.name != self.without)
        dropped = tuple(condition for condition in claim.assumptions if condition.name == self.without)
        return dataclasses.replace(claim, assumptions=kept, suspects=dropped, **changes)
