"""A derivation: what a numbered claim says, what must refute it, and what its source got wrong."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from diagnostics.errors import InputError
from diagnostics.exact.claims import DEFAULT_EXAMPLES, Claim, Condition, Mutant
from diagnostics.exact.describing import describe
from diagnostics.exact.evidence import Evidence
from diagnostics.results import Result

__all__ = ["Claim", "Condition", "Derivation", "Kind", "Mutant"]


class Kind(StrEnum):
    """What an entry of the registry is."""

    DEFINITION = "definition"
    CLAIM = "claim"
    SHARPER = "sharper claim"


@dataclass(frozen=True)
class Derivation(Result):
    """A numbered claim or definition that states itself, checks itself and can be refuted.

    Attributes:
        id: Its equation number, with a word where a number makes several claims.
        title: What it says, in one sentence.
        source: Where it comes from.
        kind: Definition, claim, or a sharper claim than its source's.
        claim: What holds, checkable.
        mutants: Wrong forms that a check must refute.
        published: The form of the source, where that fails under its own assumptions.
        correction: What is wrong with it and what holds instead.
        counterexample: A case that meets the published assumptions and not the published claim.
        by_hand: How a reader verifies the counterexample with pencil and paper.
        proof: Why the claim holds, where that is not in the source.
        code: Dotted names of the functions that compute it.
    """

    id: str
    title: str
    source: str
    kind: Kind
    claim: Claim
    mutants: tuple[Mutant, ...]
    published: Claim | None = None
    correction: str = ""
    counterexample: Any = None
    by_hand: str = ""
    proof: str = ""
    code: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        parts = (self.correction, self.by_hand, self.counterexample)
        given = [part is not None and part != "" for part in parts[:2]] + [self.counterexample is not None]
        if any(given) != (self.published is not None) or any(given) != all(given):
            raise InputError(
                f"derivation {self.id}: a published form that fails needs correction, counterexample and by_hand, "
                "and one that holds needs none of them."
            )
        if not self.mutants:
            raise InputError(f"derivation {self.id}: expected a mutant that a check must refute; found none.")

    @property
    def statement(self) -> str:
        """The statement of the source, in LaTeX."""
        return (self.published or self.claim).statement

    @property
    def assumptions(self) -> tuple[Condition, ...]:
        """The assumptions of what holds."""
        return self.claim.assumptions

    @property
    def added_assumptions(self) -> tuple[Condition, ...]:
        """What holds assumes these, and the form of the source does not."""
        own = {condition.name for condition in (self.published or self.claim).assumptions}
        return tuple(condition for condition in self.claim.assumptions if condition.name not in own)

    @property
    def as_stated(self) -> bool:
        """Whether the form of the source holds under its own assumptions."""
        return self.published is None

    def check(self, max_examples: int = DEFAULT_EXAMPLES, *, seed: int = 0) -> Evidence:
        """Look for a counterexample to what holds.

        Args:
            max_examples: Cases to try, over all sizes.
            seed: Seed of the search.

        Returns:
            The evidence: supported, refuted with the smallest case found, or undecided.
        """
        return _search(self.claim, self.id, max_examples, seed)

    def check_as_stated(self, max_examples: int = DEFAULT_EXAMPLES, *, seed: int = 0) -> Evidence:
        """Look for a counterexample to the form of the source.

        Args:
            max_examples: Cases to try, over all sizes.
            seed: Seed of the search.

        Returns:
            The evidence.
        """
        return _search(self.published or self.claim, f"{self.id} as stated", max_examples, seed)

    def check_mutants(self, max_examples: int = DEFAULT_EXAMPLES, *, seed: int = 0) -> dict[str, Evidence]:
        """Look for counterexamples to every mutant; each must be found.

        Args:
            max_examples: Cases to try for each.
            seed: Seed of the search.

        Returns:
            Evidence by description.
        """
        return {
            mutant.description: _search(mutant.of(self.claim), f"{self.id}, {mutant.description}", max_examples, seed)
            for mutant in self.mutants
        }

    def to_dict(self) -> dict[str, Any]:
        """Return what the derivation says, without its functions.

        Returns:
            A dictionary of plain types.
        """
        words = ("id", "title", "source", "statement", "correction", "by_hand", "proof")
        return {name: getattr(self, name) for name in words} | {
            "kind": str(self.kind),
            "holds": self.claim.statement,
            "assumptions": {condition.name: condition.text for condition in self.claim.assumptions},
            "as_stated": self.as_stated,
            "counterexample": [] if self.counterexample is None else list(describe(self.counterexample)),
            "code": list(self.code),
        }

    def __str__(self) -> str:
        word = "holds as stated" if self.as_stated else f"fails as stated: {self.correction}"
        return f"({self.id}) {self.title} [{self.source}; {self.kind}] {word}"


def _search(claim: Claim, name: str, max_examples: int, seed: int) -> Evidence:
    """Run the search, which needs Hypothesis."""
    try:
        from diagnostics.testing.search import search
    except ModuleNotFoundError as problem:
        raise InputError(
            "checking a derivation needs Hypothesis: pip install 'task-arithmetic-diagnostics[testing]'"
        ) from problem
    return search(claim, name=name, max_examples=max_examples, seed=seed)
