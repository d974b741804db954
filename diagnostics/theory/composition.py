"""The terms of ∇ℰ(θ0) for language models, as coefficients of segment gradients (1.8)–(1.13)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

__all__ = ["Atom", "Contexts", "alignment_terms", "required_atoms"]

Part = Literal["x", "y"]
Instruction = Any  # hashable: equal instructions are one context


class Atom(NamedTuple):
    """E ∇ log p(part | instruction) at θ0, over the data of one task (1.13).

    Attributes:
        data: Whose examples: an index of the data sets, 0 for the target's.
        instruction: What stands before x.
        part: The segment whose log-likelihood it is; ``y`` is conditioned on x.
    """

    data: int
    instruction: Instruction
    part: Part


@dataclass(frozen=True)
class Contexts:
    """The instructions that an audit compares; equal ones are one context.

    Attributes:
        none: No instruction.
        single: I_1, …, I_K.
        joined: I_1 ⊕ … ⊕ I_K.
        target: I_*, which need not be ``joined``.
        data: Index of the data set of each component; equal data are one data set.
    """

    none: Instruction
    single: tuple[Instruction, ...]
    joined: Instruction
    target: Instruction
    data: tuple[int, ...]

    @property
    def components(self) -> tuple[Atom, ...]:
        """The y-part of each component's own data under its instruction."""
        return tuple(Atom(i, context, "y") for i, context in zip(self.data, self.single, strict=True))


def alignment_terms(contexts: Contexts, alphas: Sequence[float], *, split: bool = True) -> dict[str, dict[Atom, float]]:
    """Return every term of the split of ∇ℰ(θ0) as coefficients of atoms (1.13).

    With Y[c] and X[c] the gradients of the log-likelihood of y and x of the target's data under instruction c, and
    Z_i that of y of component i under I_i::

        error          = −Y[*] + Σ α_i Z_i                                  (1.3)
        delta_i        = −Y[I_i] + α_i Z_i                                  (1.8)
        delta_star     = −Y[*] + Σ Y[I_i]                                   (1.8)
        no_instruction = (K − 1) Y[none]                                    (1.10)
        interaction_x  = −Σ_k ∇SI_k(x)   = X[J] − Σ X[I_i] + (K − 1) X[none]
        interaction_xy = +Σ_k ∇SI_k(x,y) = −(the same with X + Y for X)
        seam           = −Y[*] + Y[J]                                       (1.12)

    The steps of (1.11) telescope: the prefixes I_1 ⊕ … ⊕ I_k with 1 < k < K cancel, so none of them is needed.

    Args:
        contexts: The instructions and data sets.
        alphas: α_1, …, α_K.
        split: Whether the interaction is split in two; their sum, ``interaction``, has no part of x.

    Returns:
        Coefficients by atom, for each term; coefficients that cancel are left out.

    Example:
        >>> terms = alignment_terms(Contexts("", ("a", "b"), "ab", "ab", (1, 2)), [0.5, 2.0])
        >>> terms["delta_2"]
        {Atom(data=0, instruction='b', part='y'): -1.0, Atom(data=2, instruction='b', part='y'): 2.0}
        >>> terms["seam"]
        {}
    """
    steps = len(contexts.single) - 1
    target = _y(contexts.target)
    own = contexts.components
    x_rest = [(Atom(0, contexts.joined, "x"), 1.0), (Atom(0, contexts.none, "x"), float(steps))]
    x_rest += [(Atom(0, context, "x"), -1.0) for context in contexts.single]
    y_rest = [(_y(contexts.joined), -1.0), (_y(contexts.none), -float(steps))]
    y_rest += [(_y(context), 1.0) for context in contexts.single]
    terms = {"error": [(target, -1.0), *zip(own, alphas, strict=True)]}
    for number, (context, atom, alpha) in enumerate(zip(contexts.single, own, alphas, strict=True), 1):
        terms[f"delta_{number}"] = [(_y(context), -1.0), (atom, alpha)]
    terms["delta_star"] = [(target, -1.0), *((_y(context), 1.0) for context in contexts.single)]
    terms["no_instruction"] = [(_y(contexts.none), float(steps))]
    if split:
        terms["interaction_x"] = x_rest
        terms["interaction_xy"] = [(atom, -value) for atom, value in x_rest] + y_rest
    else:
        terms["interaction"] = y_rest
    terms["seam"] = [(target, -1.0), (_y(contexts.joined), 1.0)]
    return {name: _collected(parts) for name, parts in terms.items()}


def required_atoms(contexts: Contexts, *, split: bool = True) -> tuple[Atom, ...]:
    """Return the atoms that a complete audit needs, whatever the α.

    Args:
        contexts: The instructions and data sets.
        split: Whether the interaction is split in two, which alone needs parts of x.

    Returns:
        The atoms, each once: K + 2 contexts on the target's data, one more where I_* is not the concatenation, and
        one on each component's.

    Example:
        >>> atoms = required_atoms(Contexts("", ("a", "b"), "ab", "ab", (1, 2)))
        >>> len({(atom.data, atom.instruction) for atom in atoms})
        6
    """
    # Powers of an irrational number: no coefficient of α cancels by accident.
    terms = alignment_terms(contexts, [2**0.5 * 3**number for number in range(len(contexts.single))], split=split)
    return tuple(dict.fromkeys(atom for term in terms.values() for atom in term))


def _y(instruction: Instruction) -> Atom:
    """The y-part of the target's data."""
    return Atom(0, instruction, "y")


def _collected(parts: list[tuple[Atom, float]]) -> dict[Atom, float]:
    """Coefficients added up by atom, without those that are zero."""
    total: dict[Atom, float] = {}
    for atom, value in parts:
        total[atom] = total.get(atom, 0.0) + value
    return {atom: value for atom, value in total.items() if value != 0}
