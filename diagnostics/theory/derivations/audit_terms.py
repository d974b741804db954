"""The terms of an audit as the package adds them up, for language models that are written down in full."""

from __future__ import annotations

from typing import Any

from diagnostics.exact.language import Audit, Tokens
from diagnostics.theory.composition import Atom, Contexts, alignment_terms

__all__ = ["contexts", "specific_interaction", "terms"]


def contexts(audit: Audit | Contexts) -> Contexts:
    """Return the instructions of an audit, each component with data of its own.

    Args:
        audit: A drawn audit; the contexts of a measured one are returned as they are.

    Returns:
        The contexts.
    """
    if isinstance(audit, Contexts):
        return audit
    count = len(audit.instructions)
    return Contexts((), audit.instructions, audit.joined, audit.target_instruction, tuple(range(1, count + 1)))


def terms(audit: Audit, *names: str) -> Any:
    """Add up some of the audit's terms.

    Args:
        audit: The audit.
        names: Their names, as ``audit_composition`` gives them.

    Returns:
        Their sum, [d].
    """
    rows = alignment_terms(contexts(audit), list(audit.alphas))
    total = 0.0 * audit.model.theta
    for name in names:
        for atom, value in rows[name].items():
            total = total + value * _mean(audit, atom)
    return total


def _mean(audit: Audit, atom: Atom) -> Any:
    """E ∇ log p(part | instruction) over the data of one task."""
    data = (audit.target, *audit.components)[atom.data]
    model, instruction = audit.model, atom.instruction
    if atom.part == "y":
        return data.mean(lambda x, y: model.gradient(y, instruction + x))
    return data.mean(lambda x, y: model.gradient(x, instruction))


def specific_interaction(log: Any, first: Tokens, second: Tokens, rest: Tokens) -> Any:
    """Return SI(u; v; w) by its definition (1.9), for events that follow BOS in the order u, v, w.

    Args:
        log: log p(segment | prefix), or its gradient.
        first: u.
        second: v.
        rest: w.

    Returns:
        log p(v,w)/(p(v)p(w)) − log p(v,w|u)/(p(v|u)p(w|u)).
    """
    free = log(second + rest) - log(second) - log(rest)
    given = log(second + rest, first) - log(second, first) - log(rest, first)
    return free - given
