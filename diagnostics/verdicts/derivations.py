"""Derivations checked: what holds, whether the published form does, and whether the check could have told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from diagnostics.exact.claims import DEFAULT_EXAMPLES
from diagnostics.exact.describing import describe
from diagnostics.exact.evidence import Evidence
from diagnostics.results import Result, Verdict, plain
from diagnostics.theory.derivations.derivation import Derivation

__all__ = ["DerivationCheck", "check_derivation"]


@dataclass(frozen=True)
class DerivationCheck(Result):
    """What a check of a derivation found.

    Attributes:
        derivation: The derivation.
        evidence: On what holds.
        published: On the form of the source, where that is recorded as failing.
        mutants: On the wrong forms, by description; each must be refuted for the check to mean anything.
    """

    derivation: Derivation
    evidence: Evidence
    published: Evidence | None
    mutants: dict[str, Evidence] = field(default_factory=dict)

    @property
    def survivors(self) -> tuple[str, ...]:
        """Wrong forms that the check did not tell from the right one."""
        return tuple(name for name, item in self.mutants.items() if item.verdict is not Verdict.REFUTED)

    @property
    def verdict(self) -> Verdict:
        """Refuted by a counterexample; undecided where a wrong form passed too, or an erratum was not seen."""
        if self.evidence.verdict is not Verdict.SUPPORTED:
            return self.evidence.verdict
        seen = self.published is None or self.published.verdict is Verdict.REFUTED
        return Verdict.SUPPORTED if seen and not self.survivors else Verdict.UNDECIDED

    def to_dict(self) -> dict[str, Any]:
        """Return the derivation and what was found as plain types.

        Returns:
            A dictionary ready for JSON.
        """
        return self.derivation.to_dict() | {
            "verdict": str(self.verdict),
            "evidence": _found(self.evidence),
            "published": None if self.published is None else _found(self.published),
            "mutants": {name: _found(item) for name, item in self.mutants.items()},
        }


def check_derivation(derivation: Derivation, max_examples: int = DEFAULT_EXAMPLES, *, seed: int = 0) -> DerivationCheck:
    """Look for counterexamples to a derivation, to the form of its source and to its mutants.

    Args:
        derivation: The derivation.
        max_examples: Cases to try for each.
        seed: Seed of the searches.

    Returns:
        What was found.

    Example:
        >>> from diagnostics.theory.derivations.registry import get
        >>> found = check_derivation(get("2.4-closed"), 100)
        >>> found.verdict.value, found.survivors
        ('supported', ())
    """
    return DerivationCheck(
        derivation,
        derivation.check(max_examples, seed=seed),
        None if derivation.as_stated else derivation.check_as_stated(max_examples, seed=seed),
        derivation.check_mutants(max_examples, seed=seed),
    )


_KEPT = ("verdict", "examples", "discarded", "sharp", "closest", "empty")


def _found(evidence: Evidence) -> dict[str, Any]:
    """Evidence with its counterexample in words."""
    counterexample = evidence.counterexample
    found = {name: plain(getattr(evidence, name)) for name in _KEPT}
    if counterexample is not None:
        sides = {name: plain(getattr(counterexample, name)) for name in ("size", "left", "right", "tolerance")}
        broken = list(counterexample.broken)
        found["counterexample"] = sides | {"case": list(describe(counterexample.case)), "broken": broken}
    return found
