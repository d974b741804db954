"""Findings about models that are to be merged: what was found, how bad it is, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from diagnostics.results import Result

__all__ = ["Code", "Finding", "Severity"]


class Severity(StrEnum):
    """How bad a finding is, the worst first."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"

    @property
    def advice(self) -> str:
        """What to do about findings of this kind."""
        return _ADVICE[self]


_ADVICE = {
    Severity.ERROR: "Do not merge these models as they are.",
    Severity.WARNING: "A merge can be made, but may not be what was meant: read the message first.",
    Severity.NOTE: "Nothing is wrong; good to know before merging.",
}


class Code(StrEnum):
    """What can be found; each member carries the remedy."""

    MISSING = "missing_tensor"
    EXTRA = "extra_tensor"
    SHAPE = "shape_mismatch"
    VOCABULARY = "vocabulary_mismatch"
    NUMBERS = "number_mismatch"
    CONSTANT = "constant_mismatch"
    NOT_FINITE = "not_finite"
    ADAPTER = "unsupported_adapter"
    ANCESTOR = "wrong_ancestor"
    UNITS = "permuted_units"
    TOKENIZER = "tokenizer_mismatch"
    SAME_AS_BASE = "identical_to_base"
    DUPLICATE = "duplicate_expert"
    SHARED = "shared_update"
    FLOOR = "dtype_floor"
    FACTORS = "adapter_factors"
    SCALING = "adapter_scaling"

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return _REMEDIES[self]


_PRIVATE = "Where it belongs to one task (a head), declare it private."
_REMEDIES = {
    Code.MISSING: f"Save the expert whole, by the same class as the base. {_PRIVATE}",
    Code.EXTRA: f"Save the expert by the same class as the base, without additions. {_PRIVATE}",
    Code.SHAPE: f"Models of another architecture or size cannot be merged: check the base. {_PRIVATE}",
    Code.VOCABULARY: (
        "Resize first, with model.resize_token_embeddings(n) and the rows of the same tokens in the same places."
    ),
    Code.NUMBERS: "Weights stored as integers are quantised: load the model before quantisation.",
    Code.CONSTANT: "Integer tensors are not merged and must be equal: dequantise them, or declare them private.",
    Code.NOT_FINITE: "Training diverged or the file was damaged: use an earlier checkpoint, or download it again.",
    Code.ADAPTER: (
        "Merge it first with PEFT: PeftModel.from_pretrained(base, folder).merge_and_unload(), then save_pretrained, "
        "and pass that folder."
    ),
    Code.ANCESTOR: "Pass the very model that the expert was fine-tuned from; equal shapes do not make it so.",
    Code.UNITS: (
        "Bring the units back into the base's order before merging (weight matching), or fine-tune from this base."
    ),
    Code.TOKENIZER: "Merge models of one tokenizer, and ship that tokenizer with the merge.",
    Code.SAME_AS_BASE: "Check the path: the base itself, or a checkpoint from before training, was passed.",
    Code.DUPLICATE: "Leave one of them out: adding both doubles its coefficient.",
    Code.SHARED: (
        "If they were fine-tuned from another model than this base, pass that model; if they were trained on the "
        "same task, their coefficients add up."
    ),
    Code.FLOOR: "Use checkpoints saved in float32 where there are any, and save merges in float32.",
    Code.FACTORS: (
        "Add the updates, not the factors: merge_and_unload() each adapter and merge whole models, or combination_type "
        "'cat' in PEFT where none is rank-stabilised."
    ),
    Code.SCALING: "Merge whole models, after merge_and_unload(); elsewhere check that weight 1 gives the adapter back.",
}


@dataclass(frozen=True)
class Finding(Result):
    """One thing that was found.

    Attributes:
        code: What kind of thing.
        severity: How bad it is.
        model: The model concerned: an expert's name, or ``base``.
        tensor: The tensor concerned, as that model names it; ``None`` for the whole model.
        message: What was found, with its numbers.
        remedy: What to do about it.

    Example:
        >>> print(Finding(Code.DUPLICATE, Severity.WARNING, "news", None, "equal to mail.", "Leave one out."))
        warning: news: duplicate_expert: equal to mail. Leave one out.
    """

    code: Code
    severity: Severity
    model: str
    tensor: str | None
    message: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.model}: {self.tensor}" if self.tensor else self.model
        return f"{self.severity}: {where}: {self.code}: {self.message} {self.remedy}"
