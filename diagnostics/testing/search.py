"""Look for the smallest case that refutes a claim: size by size, each case judged by its own rounding error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, assume, given, seed, settings, target
from hypothesis.errors import Unsatisfiable

from diagnostics.errors import InputError
from diagnostics.exact.claims import DEFAULT_EXAMPLES, Claim
from diagnostics.exact.evidence import Counterexample, Evidence, counterexample
from diagnostics.exact.relations import Judgement, Relation, judge
from diagnostics.exact.rounding import lift
from diagnostics.results import Verdict

__all__ = ["judged", "search"]

_ROUND = 400
_SETTINGS = settings(
    database=None,
    deadline=None,
    phases=(Phase.generate, Phase.target, Phase.shrink),
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
    print_blob=False,
)


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
        if judgement.share is not None:
            self.closest = max(self.closest, judgement.share)


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


def search(claim: Claim, *, name: str = "claim", max_examples: int = DEFAULT_EXAMPLES, seed: int = 0) -> Evidence:
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
    tally, found, empty, left = _Tally(), None, [], 0
    for place, size in enumerate(claim.sizes):
        # What a small size has no cases for goes to the next one.
        before, asked = tally.examples, left + _share(max_examples, place, len(claim.sizes))
        found = _at_size(claim, size, asked, seed, tally)
        left = max(0, asked - (tally.examples - before))
        if tally.examples == before:
            empty.append(size)
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
        empty=tuple(empty),
    )


def _share(examples: int, place: int, count: int) -> int:
    """Examples for the size at a place: falling evenly, so that the smallest dimension is searched best."""
    weights = [count - each for each in range(count)]
    return max(1, round(examples * weights[place] / sum(weights)))


def _at_size(claim: Claim, size: int, share: int, number: int, tally: _Tally) -> Counterexample | None:
    """The smallest counterexample of one size, if there is one."""
    # Hypothesis compares every case with all that it has kept: rounds keep a long search linear.
    for place, start in enumerate(range(0, share, _ROUND)):
        asked, before = min(_ROUND, share - start), tally.examples
        found = _round(claim, size, asked, number + 1000 * place, tally)
        # A round that ends early has drawn all that there is: another would draw the same.
        if found is not None or tally.examples - before < asked:
            return found
    return None


def _round(claim: Claim, size: int, share: int, number: int, tally: _Tally) -> Counterexample | None:
    """One run of Hypothesis."""

    def probe(case: Any) -> None:
        audit = claim.audit(claim.read(case))
        if not all(item.holds for item in audit.values()):
            tally.discarded += 1
            assume(False)
        judgement = judged(claim, case)
        tally.add(judgement)
        if claim.relation is Relation.AT_MOST and judgement.share is not None:
            # Climb towards the cases in which the bound is attained.
            target(max(judgement.share, -1.0))
        if not judgement.holds:
            raise _Refuted(counterexample(claim, case, size, judgement))

    run = seed(number)(settings(_SETTINGS, max_examples=share)(given(claim.cases(size))(probe)))
    try:
        run()
    except _Refuted as refuted:
        return refuted.counterexample
    except Unsatisfiable:  # no case met the assumptions, which the evidence says by its ``empty`` sizes
        return None
    return None
