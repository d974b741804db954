"""What tells whether a base and its experts belong together, gathered from one tensor of two models at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

import torch
from torch import Tensor

from diagnostics.inputs.alignment import BASE
from diagnostics.inputs.checkpoints import Checkpoint
from diagnostics.inputs.slices import in_slices
from diagnostics.measures.agreement import agreement, as_matrix
from diagnostics.measures.ancestry import Descent, descent
from diagnostics.measures.permutation import Reordering, find_reordering
from diagnostics.measures.storage import Rounding, Stage, coarsest, measure_rounding

__all__ = ["Damage", "Evidence", "Survey", "survey"]

# Elements of one tensor that are looked at at a time.
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Damage:
    """Values of one tensor that are not finite."""

    nan: int
    infinite: int
    count: int


@dataclass
class Evidence:
    """What the tensors of one expert say beside the base's.

    Attributes:
        descents: What each matrix says about the origin.
        reorderings: What was found moved, by tensor.
        roundings: What rounding leaves of the update, by stage and type.
    """

    descents: dict[str, Descent] = field(default_factory=dict)
    reorderings: dict[str, list[Reordering]] = field(default_factory=dict)
    roundings: dict[tuple[Stage, torch.dtype], Rounding] = field(default_factory=dict)


@dataclass
class Survey:
    """What one pass over all models found.

    Attributes:
        names: The experts, in the order of every row.
        evidence: By expert.
        damage: By model and tensor, values that are not finite.
        gram: ⟨τ_i, τ_j⟩ over the tensors that both share with the base, [T, T].
        squares: ‖τ_i‖² over the tensors that i and j share with the base, [T, T].
        identical: Pairs of models, the base among them, with the same values in all tensors that they share; the
            value says whether they are the same without rounding to the coarser type.
    """

    names: tuple[str, ...]
    evidence: dict[str, Evidence]
    damage: dict[tuple[str, str], Damage]
    gram: Tensor
    squares: Tensor
    identical: dict[tuple[str, str], bool]

    @property
    def cosine(self) -> Tensor:
        """cos(τ_i, τ_j) over the tensors that both have, [T, T]; NaN for a zero vector."""
        scale = (self.squares * self.squares.T).sqrt()
        return torch.where(scale > 0, (self.gram / scale).clamp(-1, 1), torch.nan)


def survey(
    checkpoints: Mapping[str, Checkpoint],
    shared: Mapping[str, Mapping[str, str]],
    progress: Callable[[float], None] | None = None,
) -> Survey:
    """Read every tensor of every model twice: beside the base's, and in slices beside those of all others.

    Memory is that of one tensor of two models, whatever the number of models, as far as they are read from files.

    Args:
        checkpoints: Base and experts.
        shared: For each expert, its name of each tensor that it shares with the base, by the base's name.
        progress: Called with the share of tensors that are done.

    Returns:
        What was found.

    Example:
        >>> from diagnostics.inputs.checkpoints import open_checkpoint
        >>> models = {n: open_checkpoint({"w": torch.full((2,), v)}) for n, v in (("base", 0.0), ("a", 1.0))}
        >>> found = survey(models, {"a": {"w": "w"}})
        >>> found.gram.tolist(), found.identical
        ([[2.0]], {})
    """
    names = tuple(shared)
    seen = Survey(names, {name: Evidence() for name in names}, {}, *_zeros(len(names)), {})
    seen.identical.update(dict.fromkeys(combinations(checkpoints, 2), True))
    compared: set[str] = set()
    tensors = checkpoints[BASE].names
    for done, name in enumerate(tensors, start=1):
        present = {BASE: name, **{expert: own[name] for expert, own in shared.items() if name in own}}
        sound = _compare(seen, checkpoints, present)
        _compare_all(seen, checkpoints, present, sound)
        if _has_numbers(checkpoints[BASE], name) and BASE in sound:
            compared |= sound
        if progress:
            progress(done / len(tensors))
    seen.identical = {pair: exact for pair, exact in seen.identical.items() if compared.issuperset(pair)}
    _inspect_rest(seen, checkpoints, shared)
    return seen


def _zeros(count: int) -> tuple[Tensor, Tensor]:
    """Two empty sums over pairs."""
    return torch.zeros(count, count, dtype=torch.float64), torch.zeros(count, count, dtype=torch.float64)


def _is_sound(seen: Survey, model: str, name: str, values: Tensor) -> bool:
    """Whether all values are finite; those that are not are noted."""
    if not values.is_floating_point():
        return True
    nan = infinite = 0
    for part in map(_wide, values.reshape(-1).split(_CHUNK)):
        nan, infinite = nan + int(part.isnan().sum()), infinite + int(part.isinf().sum())
    if nan or infinite:
        seen.damage[model, name] = Damage(nan, infinite, values.numel())
    return not (nan or infinite)


def _has_numbers(checkpoint: Checkpoint, name: str) -> bool:
    """Whether there is anything in a tensor to compare."""
    return checkpoint.dtype(name).is_floating_point and math.prod(checkpoint.shape(name)) > 0


def _compare(seen: Survey, checkpoints: Mapping[str, Checkpoint], present: Mapping[str, str]) -> set[str]:
    """Gather what one tensor says about every expert, one after the other, and whose values are all finite."""
    name = present[BASE]
    base = checkpoints[BASE].tensor(name).detach().cpu()
    sound = {BASE} if _is_sound(seen, BASE, name, base) else set()
    comparable = bool(sound) and _has_numbers(checkpoints[BASE], name)
    for expert, own in present.items():
        if expert == BASE:
            continue
        values = checkpoints[expert].tensor(own).detach().cpu()
        if _is_sound(seen, expert, own, values):
            sound.add(expert)
            if comparable:
                _compare_one(seen.evidence[expert], name, base, values)
    return sound


def _compare_one(evidence: Evidence, name: str, base: Tensor, expert: Tensor) -> None:
    """Gather what one tensor says about one expert."""
    stage, dtype, rounding = measure_rounding(base, expert)
    if rounding.kept or rounding.true:
        key = (stage, dtype)
        evidence.roundings[key] = evidence.roundings.get(key, Rounding()) + rounding
    if base.ndim >= 2:
        _compare_matrices(evidence, name, as_matrix(base), as_matrix(expert))


def _compare_matrices(evidence: Evidence, name: str, base: Tensor, expert: Tensor) -> None:
    """Origin and order of one matrix."""
    sums = agreement(base, expert)
    found = descent(base, expert, sums)
    if found:
        evidence.descents[name] = found
    reorderings = find_reordering(base, expert, sums)
    if reorderings:
        evidence.reorderings[name] = reorderings


def _compare_all(
    seen: Survey, checkpoints: Mapping[str, Checkpoint], present: Mapping[str, str], sound: set[str]
) -> None:
    """Compare one tensor of all models with each other, slice by slice."""
    for pair in [pair for pair in seen.identical if present.keys() >= set(pair) and not sound >= set(pair)]:
        del seen.identical[pair]
    summed = [name for name in seen.names if name in sound]
    numbers = bool(summed) and BASE in sound and _has_numbers(checkpoints[BASE], present[BASE])
    rows = torch.tensor([seen.names.index(name) for name in summed], dtype=torch.long)
    for parts in in_slices(*((checkpoints[model], own) for model, own in present.items())):
        values = dict(zip(present, parts, strict=True))
        if numbers:
            base = values[BASE].double()
            moves = torch.stack([values[name].double() - base for name in summed])
            gram = moves @ moves.T
            seen.gram[rows[:, None], rows] += gram
            seen.squares[rows[:, None], rows] += gram.diagonal()[:, None]
        _part(seen, values)


def _part(seen: Survey, values: Mapping[str, Tensor]) -> None:
    """Strike out pairs that differ in this slice, and note those that are equal by rounding alone."""
    for pair in [pair for pair in seen.identical if values.keys() >= set(pair)]:
        first, second = (values[model] for model in pair)
        same = exact = torch.equal(_wide(first), _wide(second))
        if not exact and first.dtype != second.dtype:
            narrow = coarsest(first.dtype, second.dtype)
            same = torch.equal(_wide(first.to(narrow)), _wide(second.to(narrow)))
        seen.identical[pair] &= exact
        if not same:
            del seen.identical[pair]


def _wide(values: Tensor) -> Tensor:
    """Values of a type that can be compared: those of one byte cannot."""
    return values.float() if values.dtype.is_floating_point and values.dtype.itemsize == 1 else values


def _inspect_rest(seen: Survey, checkpoints: Mapping[str, Checkpoint], shared: Mapping[str, Mapping[str, str]]) -> None:
    """Look for values that are not finite in tensors that are not shared."""
    for model, own in shared.items():
        checkpoint, done = checkpoints[model], set(own.values())
        for name in checkpoint.names:
            if name not in done and checkpoint.dtype(name).is_floating_point:
                _is_sound(seen, model, name, checkpoint.tensor(name).detach())
