"""What keeps a composition from being reached by adding: the causes of the gradient-alignment error."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Cause"]


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
