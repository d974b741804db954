"""Can these checkpoints be merged at all? Everything that weights and tokenizer files tell without data."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from diagnostics.errors import CheckpointError, InputError, MismatchError
from diagnostics.inputs.adapters import AdapterCheckpoint, open_expert
from diagnostics.inputs.alignment import BASE, Difference, Kind, align, find_differences
from diagnostics.inputs.checkpoints import Checkpoint, Source, is_adapter, open_checkpoint
from diagnostics.inputs.naming import name_experts
from diagnostics.inputs.tokenizer_files import TokenizerFiles, read_tokenizer
from diagnostics.measures.factors import factor_error
from diagnostics.measures.survey import survey
from diagnostics.verdicts.findings import Code, Finding, Severity
from diagnostics.verdicts.tokenizers import added_tokens, compare_tokenizers
from diagnostics.verdicts.weights import judge_weights

__all__ = ["check_compatibility"]


@dataclass(frozen=True)
class _Pair:
    """A base and one expert, lined up.

    Attributes:
        differences: Tensors in which they differ.
        shared: The expert's name of each shared tensor, by the base's name.
    """

    differences: list[Difference]
    shared: dict[str, str]


def check_compatibility(
    base: Source,
    experts: Mapping[str, Source] | Sequence[str | Path],
    *,
    private: Sequence[str] = (),
    progress: Callable[[float], None] | None = None,
) -> list[Finding]:
    """Return everything that speaks against merging these experts, found without data, the worst first.

    Weights are read one tensor of two models at a time.

    Args:
        base: The base: a model, its parameters, or a path to them.
        experts: Models, parameters or paths by name; a list of paths is named by their last parts.
        private: Names or glob patterns of tensors that stay with their model and are not merged.
        progress: Called with the share of tensors that are done.

    Returns:
        The findings; an empty list where nothing was found.

    Raises:
        InputError: If there is no expert, a source cannot be read, or a private entry matches nothing.

    Example:
        >>> import torch
        >>> base = {"w": torch.zeros(2, 3)}
        >>> found = check_compatibility(base, {"a": {"w": torch.ones(2, 3)}, "b": {"w": torch.ones(3, 3)}})
        >>> print(*found)
        error: b: w: shape_mismatch: expected [2, 3] float32, found [3, 3] float32. Models of another ...
    """
    named = name_experts(experts, reserved=BASE)
    first = open_checkpoint(base, label=BASE)
    opened, refused = _open(first, named)
    _check_private(private, [first, *opened.values()])
    tokenizers = {name: read_tokenizer(source) for name, source in {BASE: base, **named}.items()}
    pairs = {name: _line_up(first, name, expert, private) for name, expert in opened.items()}
    found = [*refused, *_structure(pairs, tokenizers), *_tokenizers(tokenizers), *_adapters(opened)]
    shared = {name: pair.shared for name, pair in pairs.items()}
    found += judge_weights(survey({BASE: first, **opened}, shared, progress))
    return _in_order(found, [BASE, *named])


def _open(base: Checkpoint, experts: Mapping[str, Source]) -> tuple[dict[str, Checkpoint], list[Finding]]:
    """The experts that can be opened, and adapters that cannot be read as an update of the weights."""
    opened: dict[str, Checkpoint] = {}
    refused = []
    for name, source in experts.items():
        try:
            opened[name] = open_expert(base, source, label=name)
        except CheckpointError as error:
            if not is_adapter(source):
                raise
            refused.append(_refusal(name, str(error)))
    return opened, refused


def _refusal(name: str, text: str) -> Finding:
    """An adapter's refusal, "where: expected …; found …. remedy", as a finding."""
    what, found, rest = text.partition("; found ")
    reason, _, remedy = rest.partition(". ")
    message = f"{what}{found}{reason.removesuffix('.')}."
    return Finding(Code.ADAPTER, Severity.ERROR, name, None, message, remedy or Code.ADAPTER.remedy)


def _check_private(private: Sequence[str], checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse entries that match nothing in any model."""
    if isinstance(private, str):
        raise InputError(f"private: expected a list of names; found the string {private!r}. Pass [{private!r}].")
    for entry in private:
        if not any(_matches(entry, checkpoint) for checkpoint in checkpoints):
            raise InputError(f"private: expected names of tensors; {entry!r} matches none. Check the spelling.")


def _matches(entry: str, checkpoint: Checkpoint) -> bool:
    """Whether an entry of `private` stands for a tensor of a model."""
    return any(name == entry or fnmatchcase(name, entry) for name in checkpoint.names)


def _line_up(base: Checkpoint, name: str, expert: Checkpoint, private: Sequence[str]) -> _Pair:
    """Line one expert up with the base by itself, so that what others lack does not hide its tensors."""
    hidden = [entry for entry in private if _matches(entry, base) or _matches(entry, expert)]
    differences = find_differences(base, {name: expert}, hidden)
    hidden += [glob.escape(difference.tensor) for difference in differences]
    try:
        found = align(base, {name: expert}, hidden)
    except MismatchError:  # nothing is shared, which the differences say already
        return _Pair(differences, {})
    return _Pair(differences, {found.stored_name(BASE, each): found.stored_name(name, each) for each in found.shared})


def _structure(pairs: Mapping[str, _Pair], tokenizers: Mapping[str, TokenizerFiles | None]) -> Iterator[Finding]:
    """Tensors that differ in presence, shape or kind of number."""
    for name, pair in pairs.items():
        for difference in pair.differences:
            code = Code(difference.kind.value)
            message = f"expected {difference.expected}, found {difference.found}."
            if difference.kind is Kind.VOCABULARY:
                message += added_tokens(tokenizers[BASE], tokenizers[name])
            yield Finding(code, Severity.ERROR, name, difference.tensor, message, code.remedy)


def _tokenizers(tokenizers: Mapping[str, TokenizerFiles | None]) -> Iterator[Finding]:
    """Tokenizers that differ, where both models come with one."""
    base = tokenizers[BASE]
    for name, expert in tokenizers.items():
        if name != BASE and base is not None and expert is not None:
            yield from compare_tokenizers(base, expert, name)


def _adapters(opened: Mapping[str, Checkpoint]) -> Iterator[Finding]:
    """What to know before adapters are merged by their factors."""
    adapters = {name: expert for name, expert in opened.items() if isinstance(expert, AdapterCheckpoint)}
    for name, adapter in adapters.items():
        if adapter.config.get("use_rslora"):
            message = (
                "a rank-stabilised adapter: its scale is alpha/sqrt(r), as read here; tools that take alpha/r make its "
                "update sqrt(r) times too short, and PEFT's add_weighted_adapter makes it sqrt(r) times too long."
            )
            yield Finding(Code.SCALING, Severity.NOTE, name, None, message, Code.SCALING.remedy)
    if len(adapters) < 2:
        return
    error = factor_error(adapters)
    for name in adapters:
        others = ", ".join(other for other in adapters if other != name)
        how = f"merging A and B apart with those of {others} (combination_type 'linear')"
        if error is None:
            message = f"{how} is not possible: their ranks differ."
        else:
            message = f"{how} is not the sum of the updates: off by {error:.3f} of its length."
        yield Finding(Code.FACTORS, Severity.NOTE, name, None, message, Code.FACTORS.remedy)


def _in_order(findings: list[Finding], models: list[str]) -> list[Finding]:
    """Worst first; then by model and by code, in the order in which they are declared."""
    severities, codes = list(Severity), list(Code)
    return sorted(
        findings,
        key=lambda each: (severities.index(each.severity), models.index(each.model), codes.index(each.code)),
    )
