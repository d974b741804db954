"""Lining models up: which tensors a base and its experts share, and every way in which they do not fit.

Merging what happens to match and skipping the rest would make another merge than the one asked for, so every
tensor is shared, constant, declared private, or the reason for a refusal.
"""

import difflib
import glob
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

import torch

from diagnostics.errors import InputError, MismatchError
from diagnostics.inputs.checkpoints import Checkpoint
from diagnostics.inputs.slices import in_slices

BASE = "base"
_SHOWN = 20  # tensors listed of one kind in one model, before a count stands for the rest


class Kind(StrEnum):
    """How a tensor of a model differs from the base's."""

    MISSING = "missing_tensor"
    EXTRA = "extra_tensor"
    VOCABULARY = "vocabulary_mismatch"
    SHAPE = "shape_mismatch"
    NUMBERS = "number_mismatch"
    CONSTANT = "constant_mismatch"

    @property
    def remedy(self) -> str:
        """What to do about a difference of this kind, where it is not meant."""
        return _REMEDIES[self]


_REMEDIES = {
    Kind.MISSING: "Save the expert whole, by the same class as the base.",
    Kind.EXTRA: "Save the expert by the same class as the base, without additions.",
    Kind.VOCABULARY: (
        "Only the vocabulary rows differ, so the tokenizers do: resize first, with "
        "model.resize_token_embeddings(n) and the rows of the same tokens in the same places."
    ),
    Kind.SHAPE: "Models of another architecture or size cannot be merged: check that this is their base.",
    Kind.NUMBERS: "Weights stored as integers are quantised: load the model before quantisation.",
    Kind.CONSTANT: "Integer tensors are not merged and must be equal; dequantise quantised weights first.",
}


@dataclass(frozen=True)
class Difference:
    """One tensor in which a model differs from the base."""

    kind: Kind
    model: str
    tensor: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.tensor}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True)
class Alignment:
    """What a base and its experts have in common.

    Attributes:
        shared: Floating-point parameters of equal shape in every model, in the base's order.
        private: For each model, `base` included, its tensors that were declared private.
        constants: Tensors that are not floating point and equal in every model; they are not merged.
        dtypes: For each model, how many shared parameters are stored in each dtype.
        renamed: For each model, the tied tensors that it stores under another name than the shared one.
        tied: Names of tied tensors that some model left out, with the shared name that stands for them.
    """

    shared: tuple[str, ...]
    private: dict[str, tuple[str, ...]]
    constants: tuple[str, ...]
    dtypes: dict[str, dict[torch.dtype, int]]
    renamed: dict[str, dict[str, str]]
    tied: dict[str, str]

    def stored_name(self, model: str, name: str) -> str:
        """Return the name under which a model stores a shared tensor.

        Args:
            model: Name of an expert, or `base`.
            name: A name in `shared` or `constants`.

        Returns:
            The name to read it by.
        """
        return self.renamed.get(model, {}).get(name, name)


@dataclass(frozen=True)
class _Model:
    """A checkpoint seen through names that tied tensors have in common."""

    checkpoint: Checkpoint
    stored: dict[str, str]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor by its common name."""
        return self.checkpoint.shape(self.stored[name])

    def dtype(self, name: str) -> torch.dtype:
        """Dtype of a tensor by its common name."""
        return self.checkpoint.dtype(self.stored[name])

    def describe(self, name: str) -> str:
        """What a model has by a name, as messages give it."""
        if name not in self.stored:
            return f"tied to {self.checkpoint.aliases[name]}" if name in self.checkpoint.aliases else "none"
        return f"{list(self.shape(name))} {str(self.dtype(name)).removeprefix('torch.')}"


def align(base: Checkpoint, experts: Mapping[str, Checkpoint], private: Sequence[str] = ()) -> Alignment:
    """Line experts up with their base; refuse models with a tensor neither shared, constant nor private.

    Args:
        base: The model that the experts were fine-tuned from.
        experts: Fine-tuned models by name.
        private: Exact names or patterns (`classifier.*`) of tensors that stay with their model.

    Returns:
        The alignment.

    Raises:
        InputError: There is no expert, or a private entry matches nothing.
        MismatchError: Tensors differ that were not declared private, or none is shared.

    Example:
        >>> from diagnostics.inputs.checkpoints import open_checkpoint
        >>> base = open_checkpoint({"w": torch.zeros(2), "head": torch.zeros(3)})
        >>> expert = open_checkpoint({"w": torch.ones(2), "head": torch.zeros(5)})
        >>> align(base, {"a": expert}, private=["head"]).shared
        ('w',)
    """
    models, groups = _view(base, experts)
    hidden = _match_private(private, models, groups)
    differences = list(_differences(models, hidden))
    common = [name for name in models[BASE].stored if name not in hidden]
    if differences:
        raise MismatchError(_message(models, differences, hidden))
    shared = tuple(name for name in common if models[BASE].dtype(name).is_floating_point)
    if not shared:
        found = f"{len(common)} constants and {len(hidden)} private tensors"
        raise MismatchError(f"expected at least one shared parameter; found {found}. Declare less private.")
    return Alignment(
        shared=shared,
        private={key: tuple(n for n in model.stored if n in hidden) for key, model in models.items()},
        constants=tuple(name for name in common if not models[BASE].dtype(name).is_floating_point),
        dtypes={key: dict(Counter(map(model.dtype, shared))) for key, model in models.items()},
        renamed={
            key: {name: stored for name, stored in model.stored.items() if name != stored}
            for key, model in models.items()
        },
        tied={name: leader for leader, *others in groups for name in others if name not in hidden},
    )


def find_differences(
    base: Checkpoint, experts: Mapping[str, Checkpoint], private: Sequence[str] = ()
) -> list[Difference]:
    """List every tensor in which an expert differs from its base, without refusing any.

    Args:
        base: The model that the experts were fine-tuned from.
        experts: Fine-tuned models by name.
        private: Exact names or patterns of tensors to leave aside.

    Returns:
        The differences, by expert, in the order of their tensors.

    Example:
        >>> from diagnostics.inputs.checkpoints import open_checkpoint
        >>> base, expert = open_checkpoint({"w": torch.zeros(2)}), open_checkpoint({"w": torch.zeros(3)})
        >>> [str(difference) for difference in find_differences(base, {"a": expert})]
        ['w: expected [2] float32, found [3] float32']
    """
    models, groups = _view(base, experts)
    return list(_differences(models, _match_private(private, models, groups)))


def propose_private(base: Checkpoint, experts: Mapping[str, Checkpoint]) -> tuple[list[str], list[Difference]]:
    """Say what could be declared private so that models fit: tensors of other shapes, or that only some models have.

    Args:
        base: The model that the experts were fine-tuned from.
        experts: Fine-tuned models by name.

    Returns:
        Entries for `private` that match just the tensors that differ, and every difference; no entry where some
        model has nothing in common with the base, or differs in a way that no declaration mends.

    Example:
        >>> from diagnostics.inputs.checkpoints import open_checkpoint
        >>> body = {"body": torch.zeros(2), "head.w": torch.zeros(3), "head.b": torch.zeros(1)}
        >>> expert = body | {"head.w": torch.zeros(4), "head.b": torch.zeros(2)}
        >>> entries, differences = propose_private(open_checkpoint(body), {"a": open_checkpoint(expert)})
        >>> entries, len(differences)
        (['head.*'], 2)
    """
    models, _ = _view(base, experts)
    differences = list(_differences(models, set()))
    concerned = {difference.tensor for difference in differences}
    others = {name for model in models.values() for name in model.stored} - concerned
    mended = all(each.kind in (Kind.MISSING, Kind.EXTRA, Kind.SHAPE) for each in differences)
    return (_globs(concerned, others) if mended and others else []), differences


def assert_finite(checkpoint: Checkpoint) -> None:
    """Refuse a model with NaN or infinite values, naming every tensor that has them.

    Args:
        checkpoint: The model, read in slices.

    Raises:
        InputError: A value is not finite.

    Example:
        >>> from diagnostics.inputs.checkpoints import open_checkpoint
        >>> assert_finite(open_checkpoint({"w": torch.tensor([1.0, float("nan")])}, label="m"))
        Traceback (most recent call last):
        diagnostics.errors.InputError: m: expected finite values; found w: 1 NaN, 0 infinite of 2. ...
    """
    found = []
    for name in checkpoint.names:
        if not checkpoint.dtype(name).is_floating_point:
            continue
        nan = infinite = 0
        for (part,) in in_slices((checkpoint, name)):
            values = part.float() if part.dtype.itemsize == 1 else part  # float8 has no isnan
            nan, infinite = nan + int(values.isnan().sum()), infinite + int(values.isinf().sum())
        if nan or infinite:
            found.append(f"{name}: {nan} NaN, {infinite} infinite of {math.prod(checkpoint.shape(name))}")
    if found:
        remedy = "Training diverged or the file was damaged: use an earlier checkpoint."
        raise InputError(f"{checkpoint.label}: expected finite values; found {'; '.join(found)}. {remedy}")


def _view(base: Checkpoint, experts: Mapping[str, Checkpoint]) -> tuple[dict[str, _Model], list[list[str]]]:
    """Every model, the base first, through names in common, and the groups of tied names behind them."""
    if not experts or BASE in experts:
        found = list(experts) or "none"
        raise InputError(
            f"experts: expected at least one, and none called {BASE!r}; found {found}. Pass them by other names."
        )
    checkpoints = {BASE: base, **experts}
    groups = _tie_groups(base, checkpoints.values())
    models = {key: _Model(each, _common_names(each, groups)) for key, each in checkpoints.items()}
    return models, groups


def _tie_groups(base: Checkpoint, checkpoints: Iterable[Checkpoint]) -> list[list[str]]:
    """Sets of names that some model ties, each led by the name that the base prefers."""
    groups: list[set[str]] = []
    for pair in (pair for checkpoint in checkpoints for pair in checkpoint.aliases.items()):
        apart = [group for group in groups if group.isdisjoint(pair)]
        joined = set(pair).union(*(group for group in groups if not group.isdisjoint(pair)))
        groups = [*apart, joined]
    order = {name: position for position, name in enumerate(base.names)}
    return [sorted(group, key=lambda name: (order.get(name, len(order)), name)) for group in groups]


def _common_names(checkpoint: Checkpoint, groups: Sequence[Sequence[str]]) -> dict[str, str]:
    """Common name of each tensor with the one it is stored under; equal copies of tied ones count once."""
    stored = {name: name for name in checkpoint.names}
    for leader, *others in groups:
        for name in others:
            if name in stored and leader not in stored:
                stored[leader] = stored.pop(name)
            elif name in stored and _equal(checkpoint, name, checkpoint, stored[leader]):
                del stored[name]
    return stored


def _equal(first: Checkpoint, name: str, second: Checkpoint, other: str) -> bool:
    """Whether two tensors are the same in shape, dtype and values."""
    if (first.shape(name), first.dtype(name)) != (second.shape(other), second.dtype(other)):
        return False
    return all(torch.equal(*parts) for parts in in_slices((first, name), (second, other)))


def _match_private(private: Sequence[str], models: Mapping[str, _Model], groups: Sequence[Sequence[str]]) -> set[str]:
    """The names that the private entries stand for; an entry that matches nothing is a mistake."""
    if isinstance(private, str):
        raise InputError(f"private: expected a list of names; found the string {private!r}. Pass [{private!r}].")
    names = list(dict.fromkeys(name for model in models.values() for name in model.stored))
    matched: set[str] = set()
    for entry in private:
        found = {name for name in names if name == entry or fnmatchcase(name, entry)}
        if not found:
            leaders = [leader for leader, *others in groups if entry in others]
            near = leaders or difflib.get_close_matches(entry, names, n=3, cutoff=0.4) or names[:3]
            hint = f"{'it is tied to' if leaders else 'nearest names:'} {', '.join(near)}"
            raise InputError(f"private: expected names of tensors; {entry!r} matches none; {hint}.")
        matched |= found
    return matched


def _differences(models: Mapping[str, _Model], hidden: set[str]) -> Iterator[Difference]:
    """Every tensor in which a model differs from the base, private ones aside."""
    base = models[BASE]
    for key, model in list(models.items())[1:]:
        for name in (name for name in {**base.stored, **model.stored} if name not in hidden):
            kind = _compare(base, model, name)
            if kind:
                yield Difference(kind, key, name, base.describe(name), model.describe(name))


def _compare(base: _Model, model: _Model, name: str) -> Kind | None:
    """How one tensor differs, if it does."""
    if name not in model.stored:
        return Kind.MISSING
    if name not in base.stored:
        return Kind.EXTRA
    expected, found = base.shape(name), model.shape(name)
    if expected != found:
        return Kind.VOCABULARY if _is_vocabulary(name) and expected[1:] == found[1:] else Kind.SHAPE
    floating = base.dtype(name).is_floating_point
    if floating != model.dtype(name).is_floating_point:
        return Kind.NUMBERS
    if floating or _equal(base.checkpoint, base.stored[name], model.checkpoint, model.stored[name]):
        return None
    return Kind.CONSTANT


def _is_vocabulary(name: str) -> bool:
    """Whether a tensor has one row per token, by the names that embeddings and language-model heads go by."""
    token = re.search(r"embed|wte|lm_head|shared\.weight|output_projection|cls\.predictions", name)
    return token is not None and not re.search(r"position|token_type|pos_embed|patch", name)


def _message(models: Mapping[str, _Model], differences: Sequence[Difference], hidden: set[str]) -> str:
    """Everything that differs, by kind and model, and what to do about it."""
    concerned = {difference.tensor for difference in differences}
    groups: dict[tuple[Kind, str], list[Difference]] = {}
    for difference in differences:
        groups.setdefault((difference.kind, difference.model), []).append(difference)
    count = f"{len(concerned)} differ{'s' if len(concerned) == 1 else ''}"
    lines = [f"expected the tensors of base {models[BASE].checkpoint.label!r} in every expert; {count}."]
    for (kind, model), group in sorted(groups.items(), key=lambda item: (list(Kind).index(item[0][0]), item[0][1])):
        lines.append(f"{kind} in {model!r} ({len(group)}):")
        lines += [f"  {difference}" for difference in group[:_SHOWN]]
        lines += [f"  … and {len(group) - _SHOWN} more"] if len(group) > _SHOWN else []
        lines.append(f"  {kind.remedy}")
    lines += _prefix_hints(differences)
    others = {name for model in models.values() for name in model.stored} - concerned
    if others - hidden:
        entries = ", ".join(map(repr, _globs(concerned, others)))
        lines.append(f"Where these belong to one task, leave them with their models: private=[{entries}]")
    return "\n".join(lines)


def _prefix_hints(differences: Sequence[Difference]) -> Iterator[str]:
    """For each model whose names mostly match the base's but for a prefix, a line that names the prefix."""
    for model in dict.fromkeys(difference.model for difference in differences):
        missing = {d.tensor for d in differences if d.model == model and d.kind is Kind.MISSING}
        extra = {d.tensor for d in differences if d.model == model and d.kind is Kind.EXTRA}
        for longer, shorter, verb in ((extra, missing, "remove it"), (missing, extra, "add it")):
            prefixes = Counter(name[: -len(tail)] for name in longer for tail in _tails(name) if tail in shorter)
            for prefix, count in prefixes.most_common(1):
                if 2 * count > min(len(missing), len(extra)):
                    yield f"{count} names differ only by the prefix {prefix!r}: {verb} in {model!r}."


def _tails(name: str) -> Iterator[str]:
    """What is left of a dotted name when its first parts are dropped."""
    parts = name.split(".")
    return (".".join(parts[start:]) for start in range(1, len(parts)))


def _heads(name: str) -> Iterator[str]:
    """The dotted prefixes of a name, shortest first."""
    parts = name.split(".")
    return (".".join(parts[:end]) + "." for end in range(1, len(parts)))


def _globs(concerned: set[str], others: set[str]) -> list[str]:
    """A short list of entries that match every concerned name and no other."""
    taken = {head for name in others for head in _heads(name)}
    sizes = Counter(head for name in concerned for head in _heads(name))
    entries = []
    for name in sorted(concerned):
        free = (head for head in _heads(name) if head not in taken and sizes[head] > 1)
        head = next(free, None)
        entries.append(f"{glob.escape(head)}*" if head else name)
    return list(dict.fromkeys(entries))
