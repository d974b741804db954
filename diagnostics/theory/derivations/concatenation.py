"""(1.9)–(1.12) Concatenated instructions: specific interaction, its steps, and what a paraphrase adds."""

from __future__ import annotations

from typing import Any

import numpy as np

from diagnostics.exact.language import Audit
from diagnostics.exact.relations import Relation
from diagnostics.theory.derivations.audit_terms import contexts, specific_interaction, terms
from diagnostics.theory.derivations.derivation import Claim, Condition, Derivation, Kind, Mutant

__all__ = ["DERIVATIONS", "GRADIENT"]

_SOURCE = "Lee 2026, equations 9 and 14 to 16"


def _joint(size: int) -> Any:
    from hypothesis import strategies as st

    cells = st.lists(st.integers(1, 8), min_size=(size + 1) ** 3, max_size=(size + 1) ** 3)
    return cells.map(lambda n: np.array(n, dtype=np.float64).reshape((size + 1,) * 3) / 64)


def _marginal(table: Any, keep: tuple[int, ...]) -> Any:
    """P of some of the three variables at their first values."""
    letters = "uvw"
    table = np.einsum(f"uvw->{''.join(letters[axis] for axis in keep)}", table)
    for _ in keep:
        table = table[0]
    return table


def _definition(table: Any) -> Any:
    """SI(u; v; w) with everything conditioned on u written out."""
    p = table / table.sum()
    u, v, w = _marginal(p, (0,)), _marginal(p, (1,)), _marginal(p, (2,))
    uv, uw, vw = _marginal(p, (0, 1)), _marginal(p, (0, 2)), _marginal(p, (1, 2))
    uvw = p[0, 0, 0]
    return np.log(vw / (v * w)) - np.log((uvw / u) / ((uv / u) * (uw / u)))


def _symmetric(table: Any) -> Any:
    p = table / table.sum()
    pairs = _marginal(p, (0, 1)) * _marginal(p, (0, 2)) * _marginal(p, (1, 2))
    singles = _marginal(p, (0,)) * _marginal(p, (1,)) * _marginal(p, (2,))
    return np.log(pairs) - np.log(singles) - np.log(p[0, 0, 0])


INTERACTION = Derivation(
    id="1.9",
    title="Specific interaction is symmetric in its three arguments, for events of one joint distribution.",
    source="Van de Cruys 2011, as used in Lee 2026",
    kind=Kind.DEFINITION,
    claim=Claim(
        statement=r"\mathrm{SI}(u; v; w) = \log \frac{p(v,w)}{p(v)p(w)} - \log \frac{p(v,w \mid u)}{p(v \mid u)p(w "
        r"\mid u)} = \log \frac{p(u,v)\,p(v,w)\,p(u,w)}{p(u)\,p(v)\,p(w)\,p(u,v,w)}",
        left=_definition,
        right=_symmetric,
        relation=Relation.EQUAL,
        cases=_joint,
        sizes=(1, 2),
    ),
    mutants=(
        Mutant("the sign flipped", right=lambda table: -_symmetric(table)),
        Mutant("the joint probability forgotten", right=lambda t: _symmetric(t) + np.log(t[0, 0, 0] / t.sum())),
    ),
    proof="Write every conditional probability as a quotient; p(u) appears twice above and once below.",
    code=("diagnostics.audit_composition",),
)


def _concatenated(count: int) -> Any:
    from diagnostics.testing.language import audits

    return audits(count, joined=True)


def _each(audit: Audit, function: Any) -> Any:
    """A function of (x, y) at every pair of the target's data."""
    return np.stack([function(x, y) for x, y in audit.target.pairs])


def _rewritten(audit: Audit, swapped: bool = False) -> Any:
    """Log [p(x|I1) p(x|I2) / (p(x|I1,I2) p(x))]."""
    first, second = audit.instructions
    both = second + first if swapped else first + second
    log = audit.model.log_probability
    return _each(audit, lambda x, y: log(x, first) + log(x, second) - log(x, both) - log(x))


def _by_definition(audit: Audit) -> Any:
    first, second = audit.instructions
    return _each(audit, lambda x, y: specific_interaction(audit.model.log_probability, first, second, x))


REWRITTEN = Derivation(
    id="1.10-interaction",
    title="For I_1 and then I_2 the specific interaction with x is a ratio of four probabilities of x.",
    source=_SOURCE,
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\mathrm{SI}(I_1; I_2; x) = \log \frac{p(x \mid I_1)\, p(x \mid I_2)}{p(x \mid I_1, I_2)\, p(x)}",
        left=_by_definition,
        right=_rewritten,
        relation=Relation.EQUAL,
        cases=lambda size: _concatenated(2),
        sizes=(1,),
    ),
    mutants=(
        Mutant("the sign flipped", right=lambda audit: -_rewritten(audit)),
        Mutant("the instructions in the other order", right=lambda audit: _rewritten(audit, swapped=True)),
    ),
    proof=(
        "In (1.9) with u = I_1, v = I_2, w = x the factors p(I_2) and p(I_2 | I_1) cancel. Mind that a language model "
        "gives p(I_2) for I_2 right after BOS and p(I_2 | I_1) for I_2 after I_1: these are not events of one joint "
        "distribution, and the symmetry of (1.9) is lost. SI(I_1; I_2; x) and SI(I_2; I_1; x) differ as soon as p(x | "
        "I_1, I_2) ≠ p(x | I_2, I_1)."
    ),
    code=("diagnostics.audit_composition",),
)


def _ratio(audit: Audit) -> Any:
    """Log [p(y | I_*, x) / Π p(y | I_i, x)]."""
    log = audit.model.log_probability

    def at(x: Any, y: Any) -> Any:
        total = log(y, audit.joined + x)
        for instruction in audit.instructions:
            total = total - log(y, instruction + x)
        return total

    return _each(audit, at)


def _steps(audit: Audit, log: Any, rest: Any) -> Any:
    """Σ_k SI(I_1 ⊕ … ⊕ I_k; I_{k+1}; rest), step by step."""
    total, before = 0.0 * log(rest), audit.instructions[0]
    for instruction in audit.instructions[1:]:
        total = total + specific_interaction(log, before, instruction, rest)
        before = before + instruction
    return total


def _by_interaction(audit: Audit, times: int | None = None) -> Any:
    """−(K − 1) log p(y|x) + Σ_k [SI_k(x) − SI_k(x, y)]."""
    log = audit.model.log_probability
    alone = len(audit.instructions) - 1 if times is None else times
    return _each(audit, lambda x, y: _steps(audit, log, x) - _steps(audit, log, x + y) - alone * log(y, x))


def _exchanged(audit: Audit) -> Any:
    log = audit.model.log_probability
    alone = len(audit.instructions) - 1
    return _each(audit, lambda x, y: _steps(audit, log, x + y) - _steps(audit, log, x) - alone * log(y, x))


_RATIO_MUTANTS = (
    Mutant("the sign of the no-instruction term flipped", right=lambda audit: _by_interaction(audit, -1)),
    Mutant("the interactions with x and with (x, y) exchanged", right=_exchanged),
)
RATIO = Derivation(
    id="1.10",
    title="What a concatenated instruction adds is the no-instruction term and two specific interactions.",
    source=_SOURCE,
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\log \frac{p(y \mid I_*, x)}{p(y \mid I_1, x)\, p(y \mid I_2, x)} = -\log p(y \mid x) + "
        r"\mathrm{SI}(I_1; I_2; x) - \mathrm{SI}(I_1; I_2; x, y), \quad I_* = I_1 \oplus I_2",
        left=_ratio,
        right=_by_interaction,
        relation=Relation.EQUAL,
        cases=lambda size: _concatenated(2),
        sizes=(1,),
    ),
    mutants=_RATIO_MUTANTS,
    code=("diagnostics.audit_composition",),
)
MORE = Derivation(
    id="1.11",
    title="For K instructions, step by step, the no-instruction term counts K − 1 times.",
    source="Lee 2026, equations 14 to 16, applied step by step",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\log \frac{p(y \mid I_1 \oplus \dots \oplus I_K, x)}{\prod_i p(y \mid I_i, x)} = -(K - 1) \log "
        r"p(y \mid x) + \sum_{k<K} \big[ \mathrm{SI}_k(x) - \mathrm{SI}_k(x, y) \big]",
        left=_ratio,
        right=_by_interaction,
        relation=Relation.EQUAL,
        cases=_concatenated,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("the no-instruction term once", right=lambda audit: _by_interaction(audit, 1)),
        *_RATIO_MUTANTS[1:],
    ),
    code=("diagnostics.audit_composition",),
)


def _package_parts(audit: Audit) -> Any:
    return np.stack([terms(audit, name) for name in ("no_instruction", "interaction_x", "interaction_xy")])


def _stepwise_parts(audit: Audit) -> Any:
    """The three parts by their definitions, the prefixes of every step included."""
    gradient, mean = audit.model.gradient, audit.target.mean
    alone = len(audit.instructions) - 1
    return np.stack(
        [
            alone * mean(lambda x, y: gradient(y, x)),
            -mean(lambda x, y: _steps(audit, gradient, x)),
            mean(lambda x, y: _steps(audit, gradient, x + y)),
        ]
    )


PARTS = Derivation(
    id="1.11-telescoped",
    title="The prefixes in between cancel: no context but the single instructions, none and all is needed.",
    source="Lee 2026, equations 14 to 16, applied step by step",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"\sum_{k<K} \nabla \mathrm{SI}_k(x) = \sum_i \nabla \log p(x \mid I_i) - \nabla \log p(x \mid I_1 "
        r"\oplus \dots \oplus I_K) - (K - 1) \nabla \log p(x)",
        left=_package_parts,
        right=_stepwise_parts,
        relation=Relation.EQUAL,
        cases=_concatenated,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("the signs of the interactions flipped", right=lambda audit: _flipped(audit)),
        Mutant("the first and the second interaction exchanged", right=lambda a: _stepwise_parts(a)[[0, 2, 1]]),
    ),
    proof=(
        "By (1.10) SI_k(x) = log p(x | J_k) + log p(x | I_{k+1}) − log p(x | J_{k+1}) − log p(x) with J_k = I_1 ⊕ … ⊕ "
        "I_k. In the sum log p(x | J_k) enters once with each sign for 1 < k < K."
    ),
    code=("diagnostics.theory.composition.alignment_terms",),
)


def _flipped(audit: Audit) -> Any:
    parts = _stepwise_parts(audit)
    return np.stack([parts[0], -parts[1], -parts[2]])


def _output_error(audit: Audit) -> Any:
    """δ_* = G(q_*, I_*) − Σ G(q_*, I_i)."""
    total = audit.mean_gradient(audit.target, audit.target_instruction)
    for instruction in audit.instructions:
        total = total - audit.mean_gradient(audit.target, instruction)
    return total


_PARTS = ("no_instruction", "interaction_x", "interaction_xy")
_CONCATENATED = Condition(
    "concatenated",
    "(1.10) the target's instruction is the concatenation of the components', token for token",
    lambda audit: float(contexts(audit).target != contexts(audit).joined),
)
GRADIENT = Derivation(
    id="1.10-delta",
    title="δ_* of a concatenated instruction is minus the no-instruction gradient plus the interactions'.",
    source=_SOURCE,
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\delta_* = -\mathbb{E}_{q_*}\big[ -\nabla \log p(y \mid x) \big] - \mathbb{E}_{q_*}\big[ \nabla "
        r"\big( \mathrm{SI}(I_1; I_2; x) - \mathrm{SI}(I_1; I_2; x, y) \big) \big]",
        left=_output_error,
        right=lambda audit: terms(audit, *_PARTS),
        relation=Relation.EQUAL,
        cases=lambda size: _concatenated(2),
        assumptions=(_CONCATENATED,),
        sizes=(1,),
    ),
    mutants=(
        Mutant("a paraphrase of the instructions", without="concatenated", cases=lambda size: _paraphrased(2)),
        Mutant("the no-instruction gradient with its other sign", right=lambda a: terms(a, *_PARTS) - 2 * _alone(a)),
        Mutant("without the interaction with (x, y)", right=lambda audit: terms(audit, *_PARTS[:-1])),
    ),
    code=("diagnostics.audit_composition",),
)


def _alone(audit: Audit) -> Any:
    return audit.target.mean(lambda x, y: audit.model.gradient(y, x))


def _paraphrased(count: int) -> Any:
    from diagnostics.testing.language import audits

    return audits(count)


SEAM = Derivation(
    id="1.12",
    title="Where the instruction is not the concatenation, δ_* gains the seam ρ, and nothing else.",
    source="Lee 2026, equation 9, with an instruction of its own",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\delta_* = \text{(concatenated part)} + \rho, \quad \rho = -\mathbb{E}_{q_*} \nabla \big[ \log "
        r"p(y \mid I_*, x) - \log p(y \mid I_1 \oplus \dots \oplus I_K, x) \big]",
        left=_output_error,
        right=lambda audit: terms(audit, *_PARTS, "seam"),
        relation=Relation.EQUAL,
        cases=_paraphrased,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("the seam dropped", right=lambda audit: terms(audit, *_PARTS)),
        Mutant("its sign flipped", right=lambda audit: terms(audit, *_PARTS) - terms(audit, "seam")),
    ),
    code=("diagnostics.audit_composition",),
)
DERIVATIONS = (INTERACTION, RATIO, REWRITTEN, GRADIENT, MORE, PARTS, SEAM)
