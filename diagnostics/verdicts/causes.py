"""What a gradient-alignment error can come from, and what to do about it."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Cause", "cause_of"]


class Cause(StrEnum):
    """What the gradient-alignment error comes from; every term belongs to one."""

    DATA = "data mismatch"
    PRIOR = "the model's own prior"
    INTERACTION = "instruction interaction"
    SEAM = "seam"

    @property
    def advice(self) -> str:
        """What it means, and what to do about it."""
        return _ADVICE[self]


_ADVICE = {
    Cause.DATA: (
        "the component tasks were given other texts than the target's. Fine-tune the components on inputs like the "
        "target's, and look at the delta of each component for the one that differs most"
    ),
    Cause.PRIOR: (
        "without any instruction the model already tends to certain answers, which the components count once too "
        "often. A base that is less sure without an instruction helps; so does fine-tuning on the target itself"
    ),
    Cause.INTERACTION: (
        "the two instructions together mean something else to the base than each by itself. Adding task vectors "
        "cannot supply that: fine-tune on some examples of the target, or run the tasks one after the other"
    ),
    Cause.SEAM: (
        "the target's instruction is read otherwise than the instructions put together. Word it as their "
        "concatenation, or give the components the target's wording and template"
    ),
}


def cause_of(term: str) -> Cause | None:
    """Return what a term of ∇ℰ(θ0) is due to.

    Args:
        term: Its name.

    Returns:
        The cause; none for ``delta_star``, which is the sum of others.

    Example:
        >>> cause_of("delta_1"), cause_of("delta_star")
        (<Cause.DATA: 'data mismatch'>, None)
    """
    if term.startswith("delta_"):
        return None if term == "delta_star" else Cause.DATA
    return {"no_instruction": Cause.PRIOR, "seam": Cause.SEAM}.get(term, Cause.INTERACTION)
