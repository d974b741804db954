"""Gradients of segment log-likelihoods in several contexts, one forward pass for the segments of each (1.13)."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.inputs.causal_lm import SegmentModel
from diagnostics.inputs.parts import local, shared_mesh
from diagnostics.inputs.segments import Row, collate
from diagnostics.inputs.store import Store, digest
from diagnostics.inputs.tasks import Parameters
from diagnostics.measures.folds import SKETCH_SIZE, FoldedGradients, Name
from diagnostics.measures.vectors import nearby
from diagnostics.processes import team
from diagnostics.results import Cost

__all__ = ["Context", "ContextGradients", "assign_folds", "context_gradients"]


@dataclass(frozen=True)
class Context:
    """One data set under one instruction.

    Attributes:
        label: What it is, for messages.
        rows: A sequence for each example.
        folds: The fold of each example.
        parts: Names of the gradients wanted, by segment, ``"x"`` or ``"y"``.
    """

    label: str
    rows: Sequence[Row]
    folds: Sequence[int]
    parts: Mapping[str, Name]


@dataclass(frozen=True)
class ContextGradients:
    """What the passes over some contexts gave.

    Attributes:
        gradients: Mean gradients of log-likelihoods, by fold.
        log_likelihoods: Their values at θ0: means over examples of sums over tokens, in nats.
        unused: Parameters that no log-likelihood depends on.
        cost: Passes, each over the data of its context.
    """

    gradients: FoldedGradients
    log_likelihoods: dict[Name, float]
    unused: frozenset[str]
    cost: Cost


def context_gradients(
    model: SegmentModel,
    params: Parameters,
    contexts: Sequence[Context],
    folds: int,
    *,
    pad: int,
    batch_size: int = 16,
    keep: bool = True,
    sketch_size: int = SKETCH_SIZE,
    seed: int = 0,
    store: Store | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> ContextGradients:
    """Return the mean gradient of every segment wanted, by fold.

    Args:
        model: Log-likelihoods of segments as a function of parameters.
        params: The point θ0.
        contexts: What to measure.
        folds: Number of folds.
        pad: A token to fill batches with.
        batch_size: Sequences per batch.
        keep: Whether the means over all data are kept.
        sketch_size: Longest vector that is kept as it is.
        seed: Seed of the sketch.
        store: Where what each context gives on each fold is kept beyond this call.
        progress: Called with the share of the work that is done.

    Returns:
        The gradients. Cost: a forward pass a context and a backward pass a segment.

    Raises:
        InputError: If a log-likelihood or gradient is not finite, or vectors held in parts were to be stored.
    """
    if store is not None and shared_mesh(params) is not None:
        raise InputError(
            "cache: expected a model that every process holds whole; found one held in parts, of which processes would "
            "read and store parts of vectors. Leave cache out."
        )
    names = [name for context in contexts for name in context.parts.values()]
    gradients = FoldedGradients(names, params, folds, keep=keep, sketch_size=sketch_size, seed=seed)
    leaves, crew = {name: value.detach().requires_grad_() for name, value in params.items()}, team()
    passes = _Passes(model, leaves, gradients, batch_size, pad, store, seed)
    passes.identify(contexts)
    # Folds outermost: a fold's mean is sketched once, and one vector a segment is all that is held meanwhile.
    units = [(fold, context) for fold in range(folds) for context in contexts]

    def own() -> list[Tensor]:
        for number, (fold, context) in enumerate(crew.mine(units), 1):
            passes.add(context, fold)
            progress(min(number * crew.size / len(units), 1.0))
        return [*gradients.sums, passes.values, passes.used]

    *_, values, used = crew.total(own)
    return ContextGradients(
        gradients,
        dict(zip(names, values.tolist(), strict=True)),
        frozenset(name for name, each in zip(leaves, used.tolist(), strict=True) if not each),
        Cost(gradients=len(contexts), backwards=len(names) - len(contexts)),
    )


def assign_folds(keys: Sequence[Sequence[Hashable]], folds: int, *, seed: int = 0) -> list[list[int]]:
    """Deal the examples of several data sets out to folds, at random and evenly.

    Equal keys get the same fold wherever they are: folds that shared an example would not be independent, and
    products of their means would keep a bias.

    Args:
        keys: For each data set, what identifies each of its examples.
        folds: Number of folds wanted; no more than the data set with the fewest keys has.
        seed: Seed of the deal.

    Returns:
        For each data set, the fold of each example; every fold of every data set has an example.

    Example:
        >>> assign_folds([["a", "b", "a"], ["b", "a"]], 2)
        [[0, 1, 0], [1, 0]]
    """
    count = max(1, min([folds, *(len(set(each)) for each in keys)]))
    smallest_first = sorted(keys, key=lambda each: len(set(each)))
    while True:
        found: dict[Hashable, int] = {}
        for each in smallest_first:
            sizes = [0] * count
            for key in each:
                if key in found:
                    sizes[found[key]] += 1
            fresh = sorted({key for key in each if key not in found}, key=repr)
            random.Random(seed).shuffle(fresh)
            for key in fresh:
                found[key] = sizes.index(min(sizes))
                sizes[found[key]] += 1
        dealt = [[found[key] for key in each] for each in keys]
        # Shared keys may leave a fold of a later data set without any; fewer folds always end that.
        if all(len(set(each)) == count for each in dealt):
            return dealt
        count -= 1


@dataclass
class _Passes:
    """Passes over contexts, and what they add to."""

    model: SegmentModel
    leaves: Parameters
    gradients: FoldedGradients
    batch_size: int
    pad: int
    store: Store | None
    seed: int
    identities: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.values = torch.zeros(len(self.gradients.names), dtype=torch.float64)
        self.used = torch.zeros(len(self.leaves), dtype=torch.int64)

    def identify(self, contexts: Sequence[Context]) -> None:
        """Find out what tells this model from others: its parameters, and what it says near them on some texts."""
        if self.store is None:
            return
        point = nearby({name: leaf.detach() for name, leaf in self.leaves.items()})
        parameters = digest(dict(self.leaves))
        for context in contexts:
            with torch.no_grad():
                said = self.model(point, collate(context.rows[: self.batch_size], self.pad))
            self.identities[id(context)] = digest(parameters, said)

    def add(self, context: Context, fold: int) -> None:
        """Add what one context gives on the examples of one fold."""
        rows = [row for row, own in zip(context.rows, context.folds, strict=True) if own == fold]
        share = len(rows) / len(context.rows)
        found = self._recalled(context, rows)
        self.used += found["used"]
        take = self.gradients.add if self.gradients.kept else self.gradients.add_sketch
        for part, name in context.parts.items():
            self.values[self.gradients.names.index(name)] += float(found[f"value {part}"]) / len(context.rows)
            if not take(fold, name, found[part].to(self.gradients.sums[0]), share):
                raise InputError(
                    f"{context.label}: expected a finite log-likelihood and gradient of {part}; found NaN or infinity. "
                    "Look for NaN in the weights, and for overflow in half precision (try float32 or bfloat16)"
                )

    def _recalled(self, context: Context, rows: Sequence[Row]) -> dict[str, Tensor]:
        """What a context gives on some examples, from the store where it is there."""
        if self.store is None:
            return self._measured(context, rows)
        sketch = () if self.gradients.kept else (self.gradients.sketch.size, self.seed)
        # As one text: tokens are many, and a digest of each would take its time.
        settings = (sketch, self.batch_size, self.pad, list(context.parts), str(rows))
        key = digest("context", self.identities[id(context)], settings)
        found = self.store.read(key)
        if found is None:
            found = self._measured(context, rows)
            self.store.write(key, found)
        return found

    def _measured(self, context: Context, rows: Sequence[Row]) -> dict[str, Tensor]:
        """The mean gradient of each segment, or its sketch, the sum of each log-likelihood, and what they depend on."""
        totals = {part: self.gradients.zero() for part in context.parts}
        values = {f"value {part}": torch.zeros((), dtype=torch.float64) for part in context.parts}
        used = torch.zeros(len(self.leaves), dtype=torch.int64)
        # Longest first: what does not fit in memory fails at once, and rows of a length share a batch.
        ordered = sorted(rows, key=lambda row: len(row.tokens), reverse=True)
        for start in range(0, len(ordered), self.batch_size):
            batch = collate(ordered[start : start + self.batch_size], self.pad)
            for part, value, slopes in _segments(self.model, self.leaves, batch, list(context.parts)):
                used += torch.tensor([slope is not None for slope in slopes])
                values[f"value {part}"] += value
                _accumulate(totals[part], slopes, self.leaves)
        means = {part: total.div_(len(rows)) for part, total in totals.items()}
        if not self.gradients.kept:
            means = {part: self.gradients.sketch(mean) for part, mean in means.items()}
        return {**means, **values, "used": used}


def _segments(
    model: SegmentModel, leaves: Parameters, batch: Mapping[str, Tensor], parts: list[str]
) -> Iterator[tuple[str, float, Sequence[Tensor | None]]]:
    """The sum of each segment's log-likelihood over a batch, and its gradient."""
    values = dict(zip(("x", "y"), model(leaves, batch), strict=True))
    for number, part in enumerate(parts, 1):
        total = values[part].sum()
        slopes = torch.autograd.grad(total, list(leaves.values()), retain_graph=number < len(parts), allow_unused=True)
        yield part, float(total.detach()), slopes


def _accumulate(total: Tensor, slopes: Sequence[Tensor | None], leaves: Parameters) -> None:
    """Add a gradient to a vector in place; nothing is added where nothing depends on a parameter."""
    parts = total.split([local(leaf).numel() for leaf in leaves.values()])
    for part, slope in zip(parts, slopes, strict=True):
        if slope is not None:
            part.add_(local(slope).reshape(-1))
