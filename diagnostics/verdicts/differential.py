"""The differential form of weight disentanglement: how far a task's outputs move along another task's vector."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import stdtrit
from torch import Tensor

from diagnostics.inputs.problem import MergeProblem
from diagnostics.inputs.tasks import Task
from diagnostics.measures.disagreement import read_predictions
from diagnostics.measures.outputs import directional_derivative
from diagnostics.results import Estimate, Result, Status
from diagnostics.verdicts.strata import mean_of

__all__ = ["Interference", "interference", "slope_norms"]


@dataclass(frozen=True)
class Interference(Result):
    """First-order change of one task's outputs at θ0 along the other task's vector, and along its own.

    All means are over the inputs of the task. What adds the same number to all logits of an input changes no
    prediction: ``centred`` leaves it out.

    Attributes:
        task: Whose inputs.
        other: Whose vector.
        raw: E‖J(x; θ0)τ_other‖, zero for every input exactly if the other task leaves this one alone (NTK regime).
        centred: The same after the mean over the classes is removed.
        own: E‖J(x; θ0)τ_task‖.
        own_centred: The same after the mean over the classes is removed.
        relative: raw / own, free of the scale of the outputs.
        relative_centred: centred / own_centred; this one matters for predictions.
    """

    task: str
    other: str
    raw: Estimate
    centred: Estimate
    own: Estimate
    own_centred: Estimate
    relative: Estimate
    relative_centred: Estimate

    def __str__(self) -> str:
        return (
            f"on {self.task}, along {self.other}: E‖Jτ‖ = {self.raw}, {self.relative} of its own; "
            f"centred {self.centred}, {self.relative_centred} of its own"
        )


def interference(problem: MergeProblem, task: Task, other: str, confidence: float) -> Interference:
    """Measure E_{x∼t}‖J(x; θ0)τ_j‖ for j ≠ t, and beside it the same for j = t (4.1).

    Args:
        problem: The merge problem.
        task: The task t, over the examples to use.
        other: The other task j.
        confidence: Of the intervals.

    Returns:
        The means. Cost: two Jacobian-vector products over the task's data.
    """
    foreign, own = (slope_norms(problem, task, vector) for vector in (other, task.name))
    # A zero vector moves nothing, whatever the input.
    still = [not any(bool(v.any()) for v in problem.task_vectors[name].values()) for name in (other, task.name)]
    means = [
        [_mean(rows, confidence, zero) for rows in norms] for norms, zero in zip((foreign, own), still, strict=True)
    ]
    ratios = [_ratio(top, bottom, confidence, still[0]) for top, bottom in zip(foreign, own, strict=True)]
    return Interference(task.name, other, *means[0], *means[1], *ratios)


def slope_norms(problem: MergeProblem, task: Task, vector: str) -> tuple[Tensor, Tensor]:
    """Return ‖J(x; θ0)τ‖ for each example of a task, as it is and after the mean over the classes is removed.

    Args:
        problem: The merge problem.
        task: The task, over the examples to use.
        vector: Whose τ.

    Returns:
        Two tensors [n], float64; means over tokens for a language model.
    """

    def compute() -> tuple[Tensor, Tensor]:
        found = directional_derivative(task, problem.base, problem.task_vectors[vector])
        slopes = read_predictions(task, found, f"the base, differentiated along {vector!r},")
        rows = slopes.logits.double()
        kinds = (rows, rows - rows.mean(1, keepdim=True))
        raw, centred = (slopes.per_example(kind.norm(dim=1)) for kind in kinds)
        return raw, centred

    return problem.cached(("slope norms", task.name, vector, task.examples), compute)


def _mean(norms: Tensor, confidence: float, still: bool) -> Estimate:
    """Mean norm; exactly zero along a zero vector."""
    if still:
        return Estimate(0.0, 0.0, 0.0, confidence, Status.EXACT, "the vector is zero")
    found = mean_of(norms[:, None], None, confidence)[0]
    evidence = f"{len(norms)} examples"
    if math.isinf(float(found.upper)):
        evidence += ", too few or too much alike to bound the others"
    ends = float(found.values), float(found.lower), float(found.upper)
    return Estimate(*ends, confidence, Status.CONVERGED, evidence)


def _ratio(top: Tensor, bottom: Tensor, confidence: float, still: bool) -> Estimate:
    """Ratio of two means over the same examples, with the interval of paired values."""
    count, scale = len(top), float(bottom.mean())
    if scale == 0:
        why = "the task's own vector moves no output"
        return Estimate(math.nan, math.nan, math.nan, confidence, Status.UNDEFINED, why)
    if still:
        return Estimate(0.0, 0.0, 0.0, confidence, Status.EXACT, "the vector is zero")
    value = float(top.mean()) / scale
    error = float((top - value * bottom).std()) / math.sqrt(count) / scale if count > 1 else math.inf
    # Where every example gives the same ratio, nothing bounds that of another one.
    half = float(stdtrit(count - 1, (1 + confidence) / 2)) * error if 0 < error < math.inf else math.inf
    return Estimate(value, max(0.0, value - half), value + half, confidence, Status.CONVERGED, f"{count} examples")
