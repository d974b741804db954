"""(1.8) The split of ∇ℰ(θ0) into data mismatches δ_i and the output mismatch δ_*."""

from __future__ import annotations

from typing import Any

import numpy as np

from diagnostics.exact.language import Audit
from diagnostics.exact.relations import Relation
from diagnostics.theory.derivations.audit_terms import terms
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant

__all__ = ["DERIVATIONS"]

_SOURCE = "Lee 2026, equations 5 to 8"


def _cases(count: int) -> Any:
    from diagnostics.testing.language import audits

    return audits(count)


def _names(audit: Audit) -> list[str]:
    return [f"delta_{i}" for i in range(1, len(audit.instructions) + 1)]


def _error(audit: Audit) -> Any:
    """g_* − Σ α_i g_i, each loss with its own data and instruction."""
    total = audit.mean_gradient(audit.target, audit.target_instruction)
    for alpha, data, instruction in zip(audit.alphas, audit.components, audit.instructions, strict=True):
        total = total - alpha * audit.mean_gradient(data, instruction)
    return total


def _split(audit: Audit) -> Any:
    return terms(audit, *_names(audit), "delta_star")


SPLIT = Derivation(
    id="1.8",
    title="The gradient-alignment error is the sum of the data mismatches and the output mismatch.",
    source=_SOURCE,
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\nabla\mathcal{E}(\theta_0) = G(q_*, I_*) - \sum_i \alpha_i G(q_i, I_i) = \sum_i \delta_i + "
        r"\delta_*",
        left=_split,
        right=_error,
        relation=Relation.EQUAL,
        cases=_cases,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("the sign of δ_* flipped", left=lambda a: terms(a, *_names(a)) - terms(a, "delta_star")),
        Mutant("without the output mismatch", left=lambda audit: terms(audit, *_names(audit))),
        Mutant("the last data mismatch lost", left=lambda audit: terms(audit, *_names(audit)[:-1], "delta_star")),
    ),
    code=("diagnostics.audit_composition", "diagnostics.theory.composition.alignment_terms"),
)


def _data_terms(audit: Audit) -> Any:
    return np.stack([terms(audit, name) for name in _names(audit)])


def _data_definition(audit: Audit) -> Any:
    """−Σ_{x,y} (q_*(x,y) − α_i q_i(x,y)) ∇ log p(y | I_i, x), over every pair that either of the two has."""
    rows = []
    for alpha, data, instruction in zip(audit.alphas, audit.components, audit.instructions, strict=True):
        pairs = dict.fromkeys((*audit.target.pairs, *data.pairs))
        parts = [
            -(audit.target.weight(pair) - alpha * data.weight(pair))
            * audit.model.gradient(pair[1], instruction + pair[0])
            for pair in pairs
        ]
        rows.append(sum(parts, start=0.0))
    return np.stack(rows)


DATA = Derivation(
    id="1.8-data",
    title="δ_i is what the data of the target lack of those of component i, under its instruction.",
    source=_SOURCE,
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\delta_i = -\sum_{x,y} \big( q_*(x,y) - \alpha_i q_i(x,y) \big) \nabla \log p_{\theta_0}(y \mid "
        r"I_i, x) = G(q_*, I_i) - \alpha_i G(q_i, I_i)",
        left=_data_terms,
        right=_data_definition,
        relation=Relation.EQUAL,
        cases=_cases,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("the sign flipped", left=lambda audit: -_data_terms(audit)),
        Mutant("α forgotten", right=lambda audit: _data_definition(_with_ones(audit))),
    ),
    code=("diagnostics.theory.composition.alignment_terms",),
)


def _with_ones(audit: Audit) -> Audit:
    parts = (audit.model, audit.instructions, audit.target_instruction, audit.target, audit.components)
    return Audit(*parts, audit.alphas * 0 + 1)


def _output_definition(audit: Audit) -> Any:
    """−E_{q_*} ∇ log [p(y | I_*, x) / Π p(y | I_i, x)]."""

    def ratio(x: Any, y: Any) -> Any:
        gradient = audit.model.gradient(y, audit.target_instruction + x)
        for instruction in audit.instructions:
            gradient = gradient - audit.model.gradient(y, instruction + x)
        return -gradient

    return audit.target.mean(ratio)


OUTPUT = Derivation(
    id="1.8-output",
    title="δ_* is the expected gradient of the log ratio of the target's output and the components' product.",
    source=_SOURCE,
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\delta_* = -\mathbb{E}_{q_*} \nabla \log \frac{p_{\theta_0}(y \mid I_*, x)}{\prod_i "
        r"p_{\theta_0}(y \mid I_i, x)} = G(q_*, I_*) - \sum_i G(q_*, I_i)",
        left=lambda audit: terms(audit, "delta_star"),
        right=_output_definition,
        relation=Relation.EQUAL,
        cases=_cases,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("the sign flipped", left=lambda audit: -terms(audit, "delta_star")),
        Mutant("without the component of least number", left=lambda audit: _shortened(audit)),
    ),
    code=("diagnostics.theory.composition.alignment_terms",),
)


def _shortened(audit: Audit) -> Any:
    return terms(audit, "delta_star") + audit.mean_gradient(audit.target, audit.instructions[0])


DERIVATIONS = (SPLIT, DATA, OUTPUT)
