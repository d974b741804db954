"""Task-feature specialisation: do tasks use different features, and are these orthogonal in the weights (4.2)?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement

import torch
from torch import Tensor

from diagnostics.errors import InputError, require_count
from diagnostics.exact.random_vectors import null_cosine
from diagnostics.inputs.problem import MergeProblem
from diagnostics.measures.column_angles import unit_columns
from diagnostics.measures.feature_use import FeatureUse, feature_use
from diagnostics.measures.profiles import (
    IDLE,
    SHARED,
    assign_features,
    chance_deviation,
    chance_overlap,
    normalised,
    profile_overlap,
    set_cosines,
)
from diagnostics.results import Cost, Estimate, Result, Status

__all__ = ["FeatureSpecialisation", "UseOverlap", "task_feature_specialisation"]

# Random exchanges of features for the chance level of use outside the own set.
_EXCHANGES = 16


@dataclass(frozen=True)
class UseOverlap(Result):
    """Usage profiles of one layer, or their mean over layers; NaN where a task does not use the layer.

    Attributes:
        overlap: Σ_k min(û_i[k], û_j[k]), [T, T]; 1 on the diagonal. 0 under specialisation.
        lower: Lower end of its interval over examples.
        upper: Upper end.
        cosine: Cosine of the two profiles, [T, T].
        ceiling: Overlap of a task with itself on two disjoint halves of its examples, [T]: what noise leaves of 1.
        chance: Mean overlap when the features of one task are exchanged at random, [T, T].
        chance_deviation: Standard deviation of that overlap over the exchanges.
        outside: Share of a task's use outside its own set, [T]; 0 under specialisation. The sets are those of one
            half of the examples, the use that of the other, and the mean of both ways is taken.
        outside_stderr: Its standard error for these sets.
        outside_chance: The same when the features of every task are exchanged at random.
        own: Features that belong to each task, [T]; a mean over layers adds them up.
        shared: Features that no task uses more than all others by the margin.
        idle: Features that no task uses.
        weights: Mean |cos| of the base's weight vectors w_k, [T, T]: inside a task's set on the diagonal, across two
            sets off it. Specialisation implies 0 off the diagonal.
        weights_null: E|cos| of independent random vectors of that length.
    """

    overlap: Tensor
    lower: Tensor
    upper: Tensor
    cosine: Tensor
    ceiling: Tensor
    chance: Tensor
    chance_deviation: Tensor
    outside: Tensor
    outside_stderr: Tensor
    outside_chance: Tensor
    own: Tensor
    shared: int
    idle: int
    weights: Tensor
    weights_null: float


@dataclass(frozen=True)
class FeatureSpecialisation(Result):
    """How far tasks use different features of the base.

    Attributes:
        names: The tasks, in the order of every row.
        total: Means over the layers.
        layers: Every layer by itself, by the name of its weight.
        confidence: Of the intervals.
        margin: How much more than any other a task must use a feature to own it.
        examples: Examples of each task.
        not_covered: Weights that were not seen, with the reason.
        notes: What a reader must know before using the numbers.
        cost: Passes over one task's data, all tasks together.
    """

    names: tuple[str, ...]
    total: UseOverlap
    layers: dict[str, UseOverlap]
    confidence: float
    margin: float
    examples: tuple[int, ...]
    not_covered: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    cost: Cost = field(default_factory=Cost)

    def overlap(self, first: str, second: str, layer: str | None = None) -> Estimate:
        """Return the overlap of two tasks' profiles with its interval.

        Args:
            first: A task.
            second: Another.
            layer: A layer; the mean over layers by default.

        Returns:
            The estimate.

        Raises:
            InputError: If a task or the layer is unknown.
        """
        if not {first, second} <= set(self.names) or not (layer is None or layer in self.layers):
            raise InputError(
                f"overlap: expected tasks of {list(self.names)} and a layer of {sorted(self.layers)}; found {first!r}, "
                f"{second!r} and {layer!r}."
            )
        i, j = self.names.index(first), self.names.index(second)
        part = self.total if layer is None else self.layers[layer]
        value = float(part.overlap[i, j])
        status = Status.UNDEFINED if math.isnan(value) else Status.CONVERGED
        chance = f"chance {part.chance[i, j]:.3g} ± {part.chance_deviation[i, j]:.2g}"
        evidence = f"{self.examples[i]} and {self.examples[j]} examples; {chance}"
        return Estimate(value, float(part.lower[i, j]), float(part.upper[i, j]), self.confidence, status, evidence)

    def __str__(self) -> str:
        lines = [f"{len(self.names)} tasks, {len(self.layers)} layers; overlap of feature use, mean over layers"]
        for i, j in combinations_with_replacement(range(len(self.names)), 2):
            if i < j:
                first, second = self.names[i], self.names[j]
                by_chance = f"{self.total.chance[i, j]:.3g} ± {self.total.chance_deviation[i, j]:.2g}"
                lines.append(f"  {first} and {second}: {self.overlap(first, second)}; by chance {by_chance}")
        for i, name in enumerate(self.names):
            lines.append(
                f"  {name}: with itself {self.total.ceiling[i]:.3g}; use outside its own features "
                f"{self.total.outside[i]:.1%} (by chance {self.total.outside_chance[i]:.1%})"
            )
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes), f"  cost: {self.cost}"])


def task_feature_specialisation(
    problem: MergeProblem,
    *,
    names: Sequence[str] | None = None,
    layers: Sequence[str] | None = None,
    margin: float = 0.25,
    resamples: int = 200,
    confidence: float = 0.9,
    max_outputs: int = 32,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> FeatureSpecialisation:
    """Measure how far tasks use different features of the base, E_{x∼t} |∂f(x; θ0)/∂z_k| (4.2).

    Specialisation is that every task t has a set I_t of features with E_{x∼t} |∂f/∂z_k| = 0 for k ∉ I_t, and that
    the sets are disjoint. It implies disentanglement in the NTK regime, and ⟨w_k, w_l⟩ = 0 across sets.

    Args:
        problem: The merge problem; its experts are not used, only its base and tasks.
        names: The tasks to compare; all by default.
        layers: Names of the weights to look at; all linear layers by default.
        margin: A feature belongs to a task that uses it more than any other by this share, in shares of the profiles.
        resamples: Bootstrap resamples of the examples.
        confidence: Of the intervals, which are for the examples drawn: what no example showed is not in them.
        max_outputs: Outputs beyond which random combinations stand for them.
        seed: Of halves, resamples and combinations.
        progress: Called with the share of the tasks that are done.

    Returns:
        Overlaps of the usage profiles, own sets and angles of the base's weight vectors by layer. Cost: for each task
        a forward pass and a backward pass for each output.

    Raises:
        InputError: If there are fewer than two tasks, or four examples of one, a setting is out of range or a task's
            layers cannot be seen.

    Example:
        >>> from diagnostics.inputs.tasks import Task
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False))
        >>> base = {"0.weight": torch.eye(2)}
        >>> data = (torch.eye(4, 2), torch.arange(4) % 2)
        >>> task = Task.from_module("a", model, torch.nn.functional.cross_entropy, data)
        >>> problem = MergeProblem(base, {"a": base, "b": base}, {"a": task, "b": task})
        >>> task_feature_specialisation(problem).overlap("a", "b").value
        1.0
    """
    chosen = _check(problem, names, margin, resamples, confidence)
    uses = []
    for done, name in enumerate(chosen):
        progress(done / len(chosen))
        uses.append(_use(problem, name, layers, max_outputs, seed))
    generator = torch.Generator().manual_seed(seed)
    counts = tuple(problem.tasks[name].examples for name in chosen)
    halves = [torch.randperm(count, generator=generator).tensor_split(2) for count in counts]
    draws = [_resample(count, resamples, generator) for count in counts]
    common = [name for name in uses[0].examples if all(name in use.examples for use in uses)]
    found, resampled = {}, []
    for layer in common:
        values = [use.examples[layer] for use in uses]
        again = _pairs(profile_overlap, [normalised(draw @ each) for draw, each in zip(draws, values, strict=True)])
        vectors = problem.base[layer].double()
        vectors = vectors.T if uses[0].sides[layer] == "rows" else vectors
        found[layer] = _layer(values, halves, again, vectors, margin, confidence, generator)
        resampled.append(again)
    return FeatureSpecialisation(
        names=chosen,
        total=_mean(list(found.values()), torch.stack(resampled).nanmean(0), confidence),
        layers=found,
        confidence=confidence,
        margin=margin,
        examples=counts,
        not_covered=_not_covered(uses, common),
        notes=tuple(dict.fromkeys(note for use in uses for note in use.notes if "random projections" in note)),
        cost=sum((use.cost for use in uses), Cost()),
    )


def _use(problem: MergeProblem, name: str, layers: Sequence[str] | None, max_outputs: int, seed: int) -> FeatureUse:
    """One task's use of the base's features, measured once for all calls."""
    key = ("feature use", name, None if layers is None else tuple(layers), max_outputs, seed)
    task, base = problem.tasks[name], problem.base
    return problem.cached(key, lambda: feature_use(task, base, layers=layers, max_outputs=max_outputs, seed=seed))


def _check(
    problem: MergeProblem, names: Sequence[str] | None, margin: float, resamples: int, confidence: float
) -> tuple[str, ...]:
    """The tasks, with every setting checked."""
    chosen = problem.names if names is None else tuple(names)
    unknown = [name for name in chosen if name not in problem.names]
    if unknown or len(chosen) < 2 or len(set(chosen)) < len(chosen):
        raise InputError(f"names: expected two or more different tasks of {list(problem.names)}; found {list(chosen)}.")
    few = [name for name in chosen if problem.tasks[name].examples < 4]
    if few:
        raise InputError(f"expected four or more examples of each task, two for each half; {few} have fewer.")
    if not (0 <= margin < math.inf and 0 < confidence < 1):
        raise InputError(
            f"expected a margin from 0 on and a confidence between 0 and 1; found {margin} and {confidence}. "
            "Write margin=0.25 and confidence=0.9."
        )
    require_count("resamples", resamples, least=20)
    return chosen


def _resample(count: int, resamples: int, generator: torch.Generator) -> Tensor:
    """How often each example is drawn in each resample, [resamples, examples]."""
    rows = torch.randint(count, (resamples, count), generator=generator)
    return torch.zeros(resamples, count, dtype=torch.float64).scatter_add_(1, rows, torch.ones_like(rows).double())


def _pairs(measure: object, parts: Sequence[Tensor]) -> Tensor:
    """A symmetric measure of all pairs, [..., T, T]."""
    rows = [[measure(first, second) for second in parts] for first in parts]  # type: ignore[operator]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def _interval(value: Tensor, resampled: Tensor, confidence: float) -> tuple[Tensor, Tensor]:
    """Ends of the interval of overlaps."""
    # Noise in two profiles lowers their overlap, and resampling lowers it once more by as much: reflected at the
    # value, the quantiles undo both. Where two tasks share their inputs the noise is less than that, so the value
    # itself is always inside.
    tails = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    low, high = torch.quantile(resampled, tails, dim=0)
    return torch.minimum(value, 2 * value - high).clamp(0, 1), torch.maximum(value, 2 * value - low).clamp(0, 1)


def _layer(
    values: Sequence[Tensor],
    halves: Sequence[tuple[Tensor, ...]],
    resampled: Tensor,
    vectors: Tensor,
    margin: float,
    confidence: float,
    generator: torch.Generator,
) -> UseOverlap:
    """Everything about one layer."""
    profiles = torch.stack([normalised(each.mean(0)) for each in values])
    split = [[each[rows] for rows in half] for each, half in zip(values, halves, strict=True)]
    overlap = _pairs(profile_overlap, list(profiles))
    lower, upper = _interval(overlap, resampled, confidence)
    owner = assign_features(profiles.nan_to_num(), margin)
    weights, _ = set_cosines(unit_columns(vectors)[0], owner, len(values))
    outside, variance = _outside(split, margin)
    exchanged = [_outside(_exchanged(split, generator), margin)[0] for _ in range(_EXCHANGES)]
    unit = profiles / profiles.norm(dim=1, keepdim=True)
    return UseOverlap(
        overlap=overlap,
        lower=lower,
        upper=upper,
        cosine=(unit @ unit.T).clamp(max=1),
        ceiling=torch.stack([profile_overlap(*(normalised(half.mean(0)) for half in both)) for both in split]),
        chance=_pairs(chance_overlap, list(profiles)),
        chance_deviation=_pairs(chance_deviation, list(profiles)),
        outside=outside,
        outside_stderr=variance.sqrt(),
        outside_chance=torch.stack(exchanged).mean(0),
        own=torch.stack([(owner == index).sum() for index in range(len(values))]),
        shared=int((owner == SHARED).sum()),
        idle=int((owner == IDLE).sum()),
        weights=weights,
        weights_null=null_cosine(len(vectors)),
    )


def _outside(split: Sequence[Sequence[Tensor]], margin: float) -> tuple[Tensor, Tensor]:
    """Share of use outside sets that the other half of the examples gave, and its variance, each [T]."""
    shares, variances = [], []
    for fitted in (0, 1):
        profiles = torch.stack([normalised(both[fitted].mean(0)) for both in split])
        owner = assign_features(profiles.nan_to_num(), margin)
        for index, both in enumerate(split):
            use = both[1 - fitted]
            apart, whole = use[:, owner != index].sum(1), use.sum(1)
            share = apart.mean() / whole.mean()
            shares.append(share)
            # Of a ratio of means, to first order.
            variances.append((apart - share * whole).var() / len(use) / whole.mean() ** 2)
    return torch.stack(shares).view(2, -1).mean(0), torch.stack(variances).view(2, -1).mean(0) / 2


def _exchanged(split: Sequence[Sequence[Tensor]], generator: torch.Generator) -> list[list[Tensor]]:
    """The same use with the features of each task exchanged at random."""
    orders = [torch.randperm(both[0].shape[1], generator=generator) for both in split]
    return [[half[:, order] for half in both] for both, order in zip(split, orders, strict=True)]


def _mean(parts: Sequence[UseOverlap], resampled: Tensor, confidence: float) -> UseOverlap:
    """Means over layers, each counting alike; numbers of features are added up."""

    def mean(name: str) -> Tensor:
        return torch.stack([getattr(part, name) for part in parts]).nanmean(0)

    overlap = mean("overlap")
    lower, upper = _interval(overlap, resampled, confidence)
    errors, spreads = (
        torch.stack([getattr(part, key) for part in parts]) for key in ("outside_stderr", "chance_deviation")
    )
    return UseOverlap(
        overlap=overlap,
        lower=lower,
        upper=upper,
        **{key: mean(key) for key in ("cosine", "ceiling", "chance", "outside", "outside_chance", "weights")},
        # Features of each layer are exchanged by themselves.
        chance_deviation=spreads.square().nansum(0).sqrt() / (~spreads.isnan()).sum(0),
        # Layers see the same examples, so their errors need not cancel.
        outside_stderr=errors.nanmean(0),
        own=torch.stack([part.own for part in parts]).sum(0),
        shared=sum(part.shared for part in parts),
        idle=sum(part.idle for part in parts),
        weights_null=sum(part.weights_null for part in parts) / len(parts),
    )


def _not_covered(uses: Sequence[FeatureUse], common: Sequence[str]) -> dict[str, str]:
    """Weights that are not compared, with the reason."""
    reasons = {name: reason for use in uses for name, reason in use.not_covered.items() if name not in common}
    partly = {name for use in uses for name in use.examples if name not in common}
    return reasons | dict.fromkeys(sorted(partly), "run by some of the tasks only")
