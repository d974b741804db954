"""What is reported of a set of experts: alone, merged, in each other's way (4.1), and their angles (4.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from benchmarks.orthoreg.variants import Parameters, Variant, fill, mean, merged, radial
from diagnostics.inputs.problem import MergeProblem
from diagnostics.inputs.tasks import Task
from diagnostics.measures.geometry import geometry
from diagnostics.measures.orthogonality import orthogonality
from diagnostics.verdicts.disentanglement import disentanglement_errors

ALPHAS = (0.5, 1.0)
# Of wider matrices so many columns are drawn; means of |cos| over 130,000 pairs need no more.
COLUMNS = 512
Pair = tuple[str, str]


@dataclass(frozen=True)
class Lab:
    """A base and its tasks at one seed.

    Attributes:
        base: The shared parameters θ0.
        probe: Tasks on the examples that coefficients and strengths are chosen on.
        test: Tasks on examples that nothing is chosen on.
        pairs: Tasks on the test examples, perhaps fewer, on which two experts are compared.
        train: ``train(task, variant)``, the parameters of an expert.
        base_scores: Accuracy of the base on ``test``: what a merge has to be better than.
    """

    base: Parameters
    probe: dict[str, Task]
    test: dict[str, Task]
    pairs: dict[str, Task]
    train: Callable[[str, Variant], Parameters]
    base_scores: dict[str, float]

    def experts(self, variant: Variant) -> dict[str, Parameters]:
        """An expert for each task."""
        return {name: self.train(name, variant) for name in self.test}


def figures(
    lab: Lab, experts: Mapping[str, Parameters], coefficients: Sequence[float], pair_coefficients: Sequence[float]
) -> dict[str, Any]:
    """Figures of each task and pair, with the coefficients that were chosen on the probe examples."""
    chosen, _ = choose(coefficients, lambda value: merge_score(lab, lab.probe, experts, value))
    params = merged(lab.base, experts, chosen)
    pairs, chosen_pairs = pair_figures(lab, experts, pair_coefficients)
    shape, angles = geometry(lab.base, experts), orthogonality(lab.base, experts, max_columns=COLUMNS)
    for (i, first), (j, second) in combinations(enumerate(experts), 2):
        pairs[first, second] |= {"cosine": float(shape.cosine[i, j]), "between": float(angles.cosine.value[i, j])}
    tasks = {}
    for index, (name, expert) in enumerate(experts.items()):
        alone, together = lab.test[name].score(expert), lab.test[name].score(params)
        tasks[name] = {
            "base": lab.base_scores[name],
            "expert": alone,
            "merged": together,
            "norm": float(shape.norms[index]),
            "inside": float(angles.inside[index]),
            "fill": fill(lab.base, expert),
            "radial": radial(lab.base, expert),
        }
    return {
        "coefficient": chosen,
        "pair_coefficient": chosen_pairs,
        "tasks": tasks,
        "pairs": {" + ".join(pair): found for pair, found in pairs.items()},
        "null": {"cosine": shape.null_cosine, "columns": float(angles.cosine.null[0, 0])},
    }


def pair_figures(
    lab: Lab, experts: Mapping[str, Parameters], coefficients: Sequence[float]
) -> tuple[dict[Pair, dict[str, float]], float | None]:
    """ξ(α, α) of every pair, and the accuracy of its merge with one λ for all pairs, where they are merged."""
    couples = [{name: experts[name] for name in pair} for pair in combinations(experts, 2)]
    found = disentanglement(lab.base, experts, lab.pairs)
    if not coefficients:
        return found, None
    chosen, _ = choose(
        coefficients, lambda value: mean(merge_score(lab, lab.probe, couple, value) for couple in couples)
    )
    for couple in couples:
        found[tuple(couple)]["pair merged"] = merge_score(lab, lab.pairs, couple, chosen)
    return found, chosen


def disentanglement(
    base: Parameters, experts: Mapping[str, Parameters], tasks: Mapping[str, Task]
) -> dict[Pair, dict[str, float]]:
    """ξ(α, α) of every pair for each of ``ALPHAS``, by predictions that differ and by distributions, 0 to 2 (4.1)."""
    problem = MergeProblem(base, experts, tasks)
    points = [(alpha, alpha) for alpha in ALPHAS]
    found = {}
    for error in disentanglement_errors(problem, points, differential=False):
        hard, soft = error.hard.values.tolist(), error.soft.values.tolist()
        found[error.first, error.second] = {
            **{f"xi {alpha:g}": value for alpha, value in zip(ALPHAS, hard, strict=True)},
            **{f"soft xi {alpha:g}": value for alpha, value in zip(ALPHAS, soft, strict=True)},
        }
    return found


def choose(coefficients: Iterable[float], score: Callable[[float], float]) -> tuple[float, float]:
    """The coefficient of the best score, the first of equal ones, and that score."""
    curve = {value: score(value) for value in coefficients}
    best = max(curve, key=curve.__getitem__)
    return best, curve[best]


def scores(tasks: Mapping[str, Task], params: Parameters) -> dict[str, float]:
    """Accuracy on each task."""
    return {name: task.score(params) for name, task in tasks.items()}


def merge_score(lab: Lab, tasks: Mapping[str, Task], experts: Mapping[str, Parameters], coefficient: float) -> float:
    """Mean accuracy of θ0 + λ Σ τ over the tasks of its experts."""
    params = merged(lab.base, experts, coefficient)
    return mean(tasks[name].score(params) for name in experts)
