"""How two experts are related: the mean cosine similarity of their outputs, and what it implies for λ (3.1), (3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.special import stdtrit
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.inputs.problem import MergeProblem
from diagnostics.results import Cost, Estimate, Result, Status
from diagnostics.theory.coefficient_conditions import CoefficientRegion, Regime, coefficient_region
from diagnostics.verdicts.merge_parts import own_outputs
from diagnostics.verdicts.pairs import pair_of
from diagnostics.verdicts.relation_outcomes import Agreement, compare_outcomes

__all__ = ["ALIGNED", "CONTRADICTORY", "GRID", "OutputRelation", "output_relation"]

# Published: 0.164 irrelevant, 0.891 aligned, −0.849 contradictory; of two texts beside an unlearned one, the text with
# α = 0.498 suffers more than that with 0.239. The middle of these last two is the threshold, and its mirror image the
# other one: nothing is published between −0.849 and 0.
ALIGNED = 0.37
CONTRADICTORY = -0.37
# λ from taking the second expert out to adding it twice.
GRID = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
_KINDS = ("uncentred", "centred", "change")


@dataclass(frozen=True)
class OutputRelation(Result):
    """The relation α of two experts, and what it implies.

    Each α is the mean, over the two tasks, of the mean cosine similarity between the outputs of the two experts on a
    task's inputs, read through the task's own head.

    Attributes:
        first: The first expert, with coefficient 1 in the merges.
        second: The second expert, with coefficient λ.
        uncentred: α of the outputs as they are; a large mean output that all models share makes it large.
        centred: α after each model's mean output over a task's inputs is removed; this one decides.
        change: α after the base's output at the same input is removed: the relation of the updates.
        by_task: The three values on each task's inputs.
        kind: The relation by ``centred``; undecided where its interval crosses a threshold.
        thresholds: Contradictory below the first, aligned above the second.
        regions: What ``centred`` implies for λ (3.1), (3.2); ``None`` where it is undefined.
        agreement: Measured merges beside the regions, where asked for.
        notes: What a reader must know before using the numbers.
        cost: Passes over one task's data.
    """

    first: str
    second: str
    uncentred: Estimate
    centred: Estimate
    change: Estimate
    by_task: dict[str, dict[str, float]]
    kind: Regime
    thresholds: tuple[float, float]
    regions: CoefficientRegion | None
    agreement: Agreement | None
    notes: tuple[str, ...]
    cost: Cost

    def __str__(self) -> str:
        lines = [
            f"{self.first} and {self.second}: {self.kind}",
            f"  α centred {self.centred}, uncentred {self.uncentred}, of the changes {self.change}",
        ]
        parts = [] if self.regions is None else [str(self.regions.multi_task), str(self.regions.unlearning)]
        parts += [] if self.agreement is None else [str(self.agreement)]
        lines += [f"  {line}" for part in parts for line in part.splitlines()]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes), f"  cost: {self.cost}"])


def output_relation(
    problem: MergeProblem,
    first: str,
    second: str,
    *,
    confidence: float = 0.9,
    aligned: float = ALIGNED,
    contradictory: float = CONTRADICTORY,
    beta: float = 0.0,
    measure: bool = False,
    grid: Sequence[float] = GRID,
    tolerance: float = 0.1,
) -> OutputRelation:
    """Measure the relation α of two experts by their outputs, and say what it implies for λ (3.1), (3.2).

    α = ½ Σ_t E_{x∼t} cos(f_t(x; θ_1), f_t(x; θ_2)) over the two tasks t, with three choices of what is removed from the
    outputs first. The interval is a t interval with the tasks as strata.

    Args:
        problem: The merge problem.
        first: One expert.
        second: Another; α is the same with the two exchanged, the regions are for its coefficient λ.
        confidence: Of the intervals.
        aligned: Centred α above this is aligned.
        contradictory: Centred α below this is contradictory.
        beta: β of (3.1), if one is assumed.
        measure: Whether to evaluate θ0 + τ_1 + λτ_2 on the grid and compare with the regions.
        grid: The λ to evaluate.
        tolerance: Share of its expert's score that a task may lose and still count as kept.

    Returns:
        The relation. Cost: six forward passes, and two for each λ that is measured.

    Raises:
        InputError: If the experts are not two of the problem's, a task has no outputs, or a setting is out of range.

    Example:
        >>> from diagnostics.inputs.tasks import Task
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> data = (torch.tensor([[1.0, 2.0], [2.0, 1.0], [-1.0, 1.0]]), torch.tensor([0, 1, 0]))
        >>> weight = torch.tensor([[1.0, -1.0], [0.0, 2.0]])
        >>> experts = {"a": {"weight": weight}, "b": {"weight": -3 * weight}}
        >>> tasks = {name: Task.from_module(name, model, torch.nn.functional.cross_entropy, data) for name in experts}
        >>> found = output_relation(MergeProblem({"weight": torch.zeros(2, 2)}, experts, tasks), "a", "b")
        >>> round(found.centred.value, 6), round(found.change.value, 6)
        (-1.0, -1.0)
    """
    pair = pair_of(problem, first, second, "output_relation")
    _check_settings(confidence, grid, tolerance)
    strata = {name: _cosines(problem, name, pair) for name in pair}
    alphas = {kind: _mean([strata[name][kind] for name in pair], confidence) for kind in _KINDS}
    regions = None
    if alphas["centred"].status is not Status.UNDEFINED:
        regions = coefficient_region(alphas["centred"], beta=beta, aligned=aligned, contradictory=contradictory)
    cost = Cost(forwards=6)
    agreement = None
    if measure:
        own = {name: own_outputs(problem, name, name) for name in pair}
        agreement = compare_outcomes(problem, own, regions, grid, tolerance, confidence)
        cost += agreement.cost
    return OutputRelation(
        first=first,
        second=second,
        **alphas,
        by_task={name: {kind: float(values.nanmean()) for kind, values in strata[name].items()} for name in pair},
        kind=Regime.UNDECIDED if regions is None or regions.regime is None else regions.regime,
        thresholds=(contradictory, aligned),
        regions=regions,
        agreement=agreement,
        notes=_notes(problem, pair),
        cost=cost,
    )


def _check_settings(confidence: float, grid: Sequence[float], tolerance: float) -> None:
    """Refuse settings out of range; thresholds and β are checked where they are used."""
    if not 0 < confidence < 1:
        raise InputError(f"confidence: expected a number between 0 and 1; found {confidence}. Write 0.9.")
    if not 0 <= tolerance < 1:
        raise InputError(f"tolerance: expected a share from 0 to below 1; found {tolerance}. Write 0.1 for 10%.")
    if len(grid) == 0 or len(set(grid)) < len(grid) or not all(map(math.isfinite, grid)):
        raise InputError(f"grid: expected different finite λ, at least one; found {list(grid)}.")


def _rows(problem: MergeProblem, task: str, model: str) -> tuple[Tensor, float]:
    """Outputs as one row per example, and the length below which a row is rounding."""
    outputs = own_outputs(problem, task, model)
    widths = sorted({tuple(batch.shape[1:]) for batch in outputs})
    count, expected = sum(len(batch) if batch.ndim else 0 for batch in outputs), problem.tasks[task].examples
    # A cosine of padded tokens, or a mean over what stands at different places, would be a number without a meaning.
    if len(widths) != 1 or len(widths[0]) > 1 or count != expected:
        raise InputError(
            f"task {task!r}: expected as output one vector, always as long, for each of {expected} examples; found "
            f"{count} of shapes {widths}. Give the task a readout of such vectors; outputs by token are not compared."
        )
    rows = torch.cat([batch.double().reshape(len(batch), -1) for batch in outputs])
    return rows, 8 * torch.finfo(outputs[0].dtype).eps * float(rows.norm(dim=1).max())


def _cosines(problem: MergeProblem, task: str, pair: tuple[str, str]) -> dict[str, Tensor]:
    """Cosine similarity on each of a task's inputs by what is removed; NaN where an output has no direction."""
    base, noise = _rows(problem, task, "")
    (first, first_noise), (second, second_noise) = (_rows(problem, task, name) for name in pair)
    floors = (first_noise, second_noise)
    return {
        "uncentred": _cosine(first, second, floors),
        "centred": _cosine(first - first.mean(0), second - second.mean(0), floors),
        "change": _cosine(first - base, second - base, (max(first_noise, noise), max(second_noise, noise))),
    }


def _cosine(first: Tensor, second: Tensor, floors: tuple[float, float]) -> Tensor:
    """Cosine of each pair of rows; NaN where a row is no longer than rounding."""
    lengths = first.norm(dim=1), second.norm(dim=1)
    known = (lengths[0] > floors[0]) & (lengths[1] > floors[1])
    value = (first * second).sum(1) / (lengths[0] * lengths[1])
    return value.clamp(-1, 1).where(known, torch.nan)


def _mean(strata: Sequence[Tensor], confidence: float) -> Estimate:
    """Mean of the strata's means; examples without a direction count from −1 to 1 in the interval."""
    missing = sum(int(values.isnan().sum()) for values in strata)
    counts = " + ".join(str(len(values)) for values in strata)
    if any(bool(values.isnan().all()) for values in strata):
        why = f"on one task's inputs nothing has a direction: an output is constant or unchanged ({counts} examples)"
        return Estimate(math.nan, math.nan, math.nan, confidence, Status.UNDEFINED, why)
    value = sum(float(values.nanmean()) for values in strata) / len(strata)
    lower = -_upper_end([-values.nan_to_num(-1.0) for values in strata], confidence)
    upper = _upper_end([values.nan_to_num(1.0) for values in strata], confidence)
    evidence = f"{counts} examples"
    if missing:
        evidence += f", {missing} of them without a direction and taken as -1 to 1 in the interval"
    return Estimate(value, lower, upper, confidence, Status.CONVERGED, evidence)


def _upper_end(strata: Sequence[Tensor], confidence: float) -> float:
    """Upper end of the interval of the mean of the strata's means, at most 1."""
    # To Student's interval comes what n examples cannot show: a share of up to 1 − q^(1/n) of all inputs may lie above
    # every value seen, q = (1 − confidence)/2, and no cosine is above 1. Ten equal values would else give no width.
    if min(map(len, strata)) < 2:
        return 1.0
    weight, tail = 1 / len(strata), (1 - confidence) / 2
    parts = [weight**2 * float(values.var()) / len(values) for values in strata]
    unseen = sum(weight * (1 - tail ** (1 / len(v))) * (1 - float(v.max())) for v in strata)
    middle = sum(weight * float(values.mean()) for values in strata)
    if sum(parts) == 0:
        return min(1.0, middle + unseen)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(v) - 1) for part, v in zip(parts, strata, strict=True))
    return min(1.0, middle + float(stdtrit(freedom, 1 - tail)) * math.sqrt(sum(parts)) + unseen)


def _notes(problem: MergeProblem, pair: tuple[str, str]) -> tuple[str, ...]:
    """What limits the reading of α."""
    narrow = [name for name in pair if _rows(problem, name, name)[0].shape[1] == 1]
    if not narrow:
        return ()
    return (f"outputs of {' and '.join(narrow)} are single numbers: their cosine is 1 or −1, whether signs agree",)
