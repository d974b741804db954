"""Assertions about two sides of a derivation, for tests of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import assume
from hypothesis.strategies import SearchStrategy

from diagnostics.exact.claims import DEFAULT_EXAMPLES, Claim, Condition
from diagnostics.exact.evidence import Evidence, counterexample
from diagnostics.exact.relations import Relation
from diagnostics.results import Verdict
from diagnostics.testing.search import judged, search

__all__ = ["assert_bound", "assert_case", "assert_identity"]

Cases = SearchStrategy[Any] | Callable[[int], SearchStrategy[Any]]
Side = Callable[[Any], Any]


def assert_identity(
    left: Side,
    right: Side,
    cases: Cases,
    *,
    assuming: Iterable[Condition] = (),
    suspects: Iterable[Condition] = (),
    max_examples: int = DEFAULT_EXAMPLES,
    seed: int = 0,
) -> Evidence:
    """Assert that two sides are equal in every case, to their own rounding error.

    Args:
        left: Left side, a function of a case; it is given ``Rounded`` numbers, so numpy functions and operators.
        right: Right side.
        cases: A strategy, or a function from a size (1, 2, 3, 4) to one; then the smallest size is searched first.
        assuming: What a case must meet.
        suspects: Conditions that are not assumed; a counterexample says which of them it breaks.
        max_examples: Cases to try.
        seed: Seed of the search.

    Returns:
        The evidence.

    Raises:
        AssertionError: If they differ in a case: with the smallest one found, both sides, and the assumptions that it
            is on the boundary of.

    Example:
        >>> from diagnostics.testing import numbers
        >>> assert_identity(lambda x: (x + 1) ** 2, lambda x: x**2 + 2 * x + 1, numbers()).verdict.value
        'supported'
        >>> assert_identity(lambda x: (x + 1) ** 2, lambda x: x**2 + 1, numbers())
        Traceback (most recent call last):
            ...
        AssertionError: refuted by a counterexample: 4 = 2 is off by 2, rounding explains 2e-15
          case = 1
    """
    return _assert(left, right, Relation.EQUAL, cases, tuple(assuming), tuple(suspects), max_examples, seed)


def assert_bound(
    left: Side,
    right: Side,
    cases: Cases,
    *,
    assuming: Iterable[Condition] = (),
    suspects: Iterable[Condition] = (),
    max_examples: int = DEFAULT_EXAMPLES,
    seed: int = 0,
) -> Evidence:
    """Assert that the left side is at most the right one in every case, to their own rounding error.

    Args:
        left: Left side, a function of a case; it is given ``Rounded`` numbers, so numpy functions and operators.
        right: Right side.
        cases: A strategy, or a function from a size (1, 2, 3, 4) to one; then the smallest size is searched first.
        assuming: What a case must meet.
        suspects: Conditions that are not assumed; a counterexample says which of them it breaks.
        max_examples: Cases to try.
        seed: Seed of the search.

    Returns:
        The evidence; its ``closest`` is 1 where the bound is attained.

    Raises:
        AssertionError: If the bound is broken in a case: with the smallest one found, both sides, and the assumptions
            that it is on the boundary of.

    Example:
        >>> from diagnostics.testing import numbers
        >>> assert_bound(lambda x: 2 * x, lambda x: x**2 + 1, numbers()).closest
        1.0
    """
    return _assert(left, right, Relation.AT_MOST, cases, tuple(assuming), tuple(suspects), max_examples, seed)


def assert_case(claim: Claim, case: Any) -> None:
    """Assert that one case fits a claim, inside a ``@given`` test of one's own.

    Args:
        claim: The claim.
        case: A case; one that does not meet the assumptions is discarded as by ``hypothesis.assume``.

    Raises:
        AssertionError: If it does not fit.
    """
    assume(all(item.holds for item in claim.audit(claim.read(case)).values()))
    judgement = judged(claim, case)
    if not judgement.holds:
        raise AssertionError(f"refuted by a {counterexample(claim, case, 0, judgement)}")


def _assert(
    left: Side,
    right: Side,
    relation: Relation,
    cases: Cases,
    assuming: tuple[Condition, ...],
    suspects: tuple[Condition, ...],
    max_examples: int,
    seed: int,
) -> Evidence:
    """Search, and raise what was found."""
    fixed = cases if isinstance(cases, SearchStrategy) else None
    claim = Claim(
        "",
        left,
        right,
        relation,
        (lambda size: fixed) if fixed is not None else cases,  # type: ignore[arg-type]
        assuming,
        sizes=(1, 2, 3, 4) if fixed is None else (0,),
        suspects=suspects,
    )
    evidence = search(claim, max_examples=max_examples, seed=seed)
    if evidence.verdict is Verdict.REFUTED:
        raise AssertionError(f"refuted by a {evidence.counterexample}")
    if evidence.verdict is Verdict.UNDECIDED:
        raise AssertionError(
            f"undecided: rounding took more than half of the digits in all {evidence.examples} cases. Write both sides "
            "without cancellation, or draw larger numbers."
        )
    return evidence
