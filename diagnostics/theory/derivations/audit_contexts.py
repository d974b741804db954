"""(1.13) How many contexts a complete audit needs."""

from __future__ import annotations

from typing import Any

from diagnostics.exact.relations import Relation
from diagnostics.theory.composition import Contexts, required_atoms
from diagnostics.theory.derivations.derivation import Claim, Condition, Derivation, Kind, Mutant

__all__ = ["DERIVATIONS"]


def _cases(count: int) -> Any:
    from hypothesis import strategies as st

    words = st.sampled_from(["a", "b", "c"])

    def of(single: tuple[str, ...]) -> Any:
        joined = "+".join(single)
        targets = st.sampled_from([joined, joined, "paraphrase", *single])
        return targets.map(lambda target: Contexts("", single, joined, target, tuple(range(1, count + 1))))

    return st.tuples(*[words] * count).flatmap(of)


def _on_target(contexts: Contexts) -> float:
    """Contexts on the target's data that the package's audit asks for."""
    return float(len({atom.instruction for atom in required_atoms(contexts) if atom.data == 0}))


def _own(contexts: Contexts) -> float:
    """Contexts on the components' data."""
    return float(len({(atom.data, atom.instruction) for atom in required_atoms(contexts) if atom.data != 0}))


_MORE_THAN_ONE = Condition(
    "components",
    "there are at least two components: with one there is nothing to concatenate",
    lambda contexts: 2 - len(contexts.single),
)

COUNT = Derivation(
    id="1.13",
    title="An audit of K instructions needs at most K + 2 contexts on the target's data, one more for a paraphrase.",
    source="counting, for Lee 2026, equations 5 to 16",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\#\{\text{contexts on } q_*\} \le K + 2 + [I_* \ne I_1 \oplus \dots \oplus I_K]",
        left=_on_target,
        right=lambda contexts: len(contexts.single) + 2.0 + (contexts.target != contexts.joined),
        relation=Relation.AT_MOST,
        cases=_cases,
        assumptions=(_MORE_THAN_ONE,),
        sizes=(2, 3, 4),
    ),
    mutants=(
        Mutant("a paraphrase counted as the concatenation: four for K = 2", right=lambda c: len(c.single) + 2.0),
        Mutant("the context without instruction forgotten", right=lambda c: len(c.single) + 1.0),
    ),
    proof=(
        "No instruction, each I_i, their concatenation, and I_* where it is something else; the prefixes in between "
        "cancel (1.11). For K = 2 that is four contexts for a concatenation and five with a seam (1.12)."
    ),
    code=("diagnostics.theory.composition.required_atoms",),
)
COMPONENTS = Derivation(
    id="1.13-components",
    title="Beside these, each component's loss is needed once, on its own data.",
    source="counting, for Lee 2026, equations 5 to 16",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\#\{\text{contexts on } q_1, \dots, q_K\} = K",
        left=_own,
        right=lambda contexts: float(len(contexts.single)),
        relation=Relation.EQUAL,
        cases=_cases,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("one less", right=lambda contexts: len(contexts.single) - 1.0),
        Mutant("the target's context too", right=lambda contexts: len(contexts.single) + 1.0),
    ),
    code=("diagnostics.theory.composition.required_atoms",),
)
DERIVATIONS = (COUNT, COMPONENTS)
