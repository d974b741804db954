"""Weight disentanglement: whether adding one expert leaves another's predictions as they were (4.1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice
from typing import Any

from torch import Tensor

from diagnostics.errors import InputError, require_count, require_one_of
from diagnostics.inputs.problem import MergeProblem
from diagnostics.inputs.tasks import Task
from diagnostics.measures.disagreement import DIVERGENCES
from diagnostics.results import Cost, Estimate, Result, Status, plain
from diagnostics.verdicts.differential import Interference, interference
from diagnostics.verdicts.disturbance import Disturbance
from diagnostics.verdicts.pairs import pair_of
from diagnostics.verdicts.strata import GridEstimate, add_up

__all__ = ["GRID", "DisentanglementError", "disentanglement_error", "disentanglement_errors"]

# From twice a vector against its direction to twice along it; denser where merges are made.
GRID = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
# Of a largest possible error of 2.
THRESHOLD = 0.1

Point = tuple[float, float]


@dataclass(frozen=True)
class DisentanglementError(Result):
    """The disentanglement error ξ of two experts over a grid of coefficients.

    ``values``, ``stderr`` and every table of ``hard`` and ``soft`` have the shape of the grid: [n, n], with λ1 down and
    λ2 across, or [n] for a list of points.

    Attributes:
        first: The first expert, with coefficient λ1.
        second: The second expert, with coefficient λ2.
        points: (λ1, λ2) of each entry, row by row.
        hard: ξ counted by predictions that differ, 0 to 2.
        soft: ξ as a divergence of output distributions: 0 to 2 for Jensen–Shannon, base 2.
        hard_by_task: The two parts of ``hard``, by the task that is disturbed, 0 to 1 each.
        soft_by_task: The two parts of ``soft``.
        mean: Mean of ``hard`` over the points, and its interval over examples.
        divergence: What ``soft`` sums.
        differential: E‖J(x; θ0)τ_j‖ by task disturbed, where asked for.
        confidence: Of each interval by itself.
        notes: What a reader must know before using the numbers.
        cost: Passes over one task's data.
    """

    first: str
    second: str
    points: tuple[Point, ...]
    hard: GridEstimate
    soft: GridEstimate
    hard_by_task: dict[str, GridEstimate]
    soft_by_task: dict[str, GridEstimate]
    mean: Estimate
    divergence: str
    differential: dict[str, Interference] = field(default_factory=dict)
    confidence: float = 0.9
    notes: tuple[str, ...] = ()
    cost: Cost = field(default_factory=Cost)

    @property
    def values(self) -> Tensor:
        """ξ by predictions that differ, in the grid's shape."""
        return self.hard.values

    @property
    def stderr(self) -> Tensor:
        """Standard errors of :attr:`values`; read the interval in ``hard`` where one is 0."""
        return self.hard.stderr

    @property
    def largest(self) -> tuple[Point, Estimate]:
        """The point with the largest ξ, and ξ there; picked for being large, so likely too large."""
        place = int(self.values.argmax())
        return self.points[place], self._estimate(self.hard, place)

    def at(self, first: float, second: float, form: str = "hard") -> Estimate:
        """Return ξ(λ1, λ2) at a point of the grid.

        Args:
            first: λ1.
            second: λ2.
            form: ``"hard"`` or ``"soft"``.

        Returns:
            ξ with its interval.

        Raises:
            InputError: If the point is not on the grid, or there is no such form.
        """
        if form not in {"hard", "soft"}:
            raise InputError(f"form: expected 'hard' or 'soft'; found {form!r}.")
        if (first, second) not in self.points:
            raise InputError(
                f"expected a point of the grid; found ({first}, {second}). Pass grid=[({first}, {second})] to "
                "disentanglement_error."
            )
        return self._estimate(getattr(self, form), self.points.index((first, second)))

    def radius(self, threshold: float = THRESHOLD) -> tuple[float, float]:
        """Return how large coefficients may be while ξ stays small at all points of the grid with |λ| no larger.

        Args:
            threshold: The largest ξ accepted.

        Returns:
            The largest such max(|λ1|, |λ2|) with ξ below the threshold for certain (upper ends), and possibly (lower
            ends); 0 where there is none.
        """
        return self._reach(self.hard.upper, threshold), self._reach(self.hard.lower, threshold)

    def _reach(self, ends: Tensor, threshold: float) -> float:
        """The largest size of a point before the first point that is over the threshold."""
        sizes = [max(abs(first), abs(second)) for first, second in self.points]
        over = [size for size, end in zip(sizes, ends.flatten().tolist(), strict=True) if not end <= threshold]
        limit = min(over, default=math.inf)
        return max((size for size in sizes if size < limit), default=0.0)

    def _estimate(self, grid: GridEstimate, place: int) -> Estimate:
        """One entry as an estimate."""
        entry = grid.reshape([-1])[place]
        exact = bool(entry.upper == 0)
        return Estimate(
            float(entry.values),
            float(entry.lower),
            float(entry.upper),
            self.confidence,
            Status.EXACT if exact else Status.CONVERGED,
            "a model beside itself" if exact else f"standard error {float(entry.stderr):.2g}",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return fields and derived quantities as plain types.

        Returns:
            A dictionary ready for JSON.
        """
        return super().to_dict() | {name: plain(getattr(self, name)) for name in ("values", "stderr", "largest")}

    def __str__(self) -> str:
        lines = [f"disentanglement error ξ of {self.first} and {self.second}, 0 to 2, at {len(self.points)} points"]
        if (1.0, 1.0) in self.points:
            parts = [f"{name} {float(grid.values.flatten()[self.points.index((1.0, 1.0))]):.3g}"
                     for name, grid in self.hard_by_task.items()]  # fmt: skip
            lines.append(f"  ξ(1, 1) = {self.at(1, 1)}: {', '.join(parts)}; soft {self.at(1, 1, 'soft')}")
        (one, two), worst = self.largest
        lines.append(f"  mean over the grid {self.mean}, largest {worst.value:.4g} at ({one:g}, {two:g})")
        certain, possible = self.radius()
        lines.append(f"  ξ ≤ {THRESHOLD:g} while |λ| ≤ {certain:g} for certain, {possible:g} possibly")
        lines += [f"  {each}" for each in self.differential.values()]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes), f"  cost: {self.cost}"])


def disentanglement_error(
    problem: MergeProblem,
    first: str,
    second: str,
    grid: Sequence[float] | Sequence[Point] = GRID,
    *,
    divergence: str = "jensen-shannon",
    confidence: float = 0.9,
    differential: bool = True,
    max_batches: int | None = None,
) -> DisentanglementError:
    """Measure how much merging two experts changes what each predicts alone (4.1).

    ξ(λ1, λ2) = Σ_{t=1,2} E_{x∼t} dist( f(x; θ0 + λ_t τ_t), f(x; θ0 + λ1 τ1 + λ2 τ2) ). Hard: dist is 1 where the
    classes with the largest output differ, the first of equal ones counting. Soft: a divergence of the distributions.
    Predictions are compared with each other and never with labels. The intervals are Clopper–Pearson's for shares and
    Student's, with room for inputs that were not seen, for means; the two tasks are independent samples, and the
    distances to the ends of their intervals add up by their squares.

    Args:
        problem: The merge problem.
        first: One expert.
        second: Another; exchanging the two transposes the result.
        grid: Numbers, for all pairs of them; or pairs (λ1, λ2).
        divergence: ``"jensen-shannon"``, in bits, 0 to 1 a task, or ``"kullback-leibler"`` of the merge from the
            expert, in nats and without upper bound.
        confidence: Of each interval by itself.
        differential: Whether to measure E‖J(x; θ0)τ_j‖ too.
        max_batches: Use the first so many batches of each task; all by default.

    Returns:
        The error over the grid. Cost: for each task a forward pass for every different own coefficient, and one for
        every point at which the other's is not 0; four Jacobian-vector products for the differential form.

    Raises:
        InputError: If the experts are not two of the problem's, a task has no class outputs, or a setting is out of
            range.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> inputs = {"a": torch.tensor([[1.0, 0.0], [2.0, 0.0]]), "b": torch.tensor([[0.0, 1.0], [0.0, 2.0]])}
        >>> tasks = {n: Task.from_module(n, model, torch.nn.functional.cross_entropy, (x, torch.tensor([0, 1])))
        ...          for n, x in inputs.items()}
        >>> both = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
        >>> apart = {"a": {"weight": both * torch.tensor([1.0, 0.0])}, "b": {"weight": both * torch.tensor([0.0, 1.0])}}
        >>> found = disentanglement_error(MergeProblem({"weight": torch.zeros(2, 2)}, apart, tasks), "a", "b", [-1, 1])
        >>> found.values.tolist()
        [[0.0, 0.0], [0.0, 0.0]]
    """
    tasks = _tasks(problem, first, second, max_batches)
    points, shape = _points(grid)
    require_one_of("divergence", divergence, DIVERGENCES)
    if not 0 < confidence < 1:
        raise InputError(f"confidence: expected a number between 0 and 1; found {confidence}. Write 0.9.")
    turned = [points, [(two, one) for one, two in points]]
    found = {
        task.name: Disturbance(problem, task, other.name, order, divergence)
        for task, other, order in zip(tasks, reversed(tasks), turned, strict=True)
    }
    hard = {name: each.estimate("hard", confidence) for name, each in found.items()}
    soft = {name: each.estimate("soft", confidence) for name, each in found.items()}
    slopes = {}
    if differential:
        slopes = {
            task.name: interference(problem, task, other.name, confidence)
            for task, other in zip(tasks, reversed(tasks), strict=True)
        }
    return DisentanglementError(
        first,
        second,
        tuple(points),
        add_up(list(hard.values())).reshape(shape),
        add_up(list(soft.values())).reshape(shape),
        {name: each.reshape(shape) for name, each in hard.items()},
        {name: each.reshape(shape) for name, each in soft.items()},
        _mean(add_up([each.mean(confidence) for each in found.values()])[0], confidence, tasks),
        divergence,
        slopes,
        confidence,
        _notes(problem, tasks, list(found.values()), divergence, max_batches),
        Cost(forwards=sum(each.runs for each in found.values()), jvps=4 if differential else 0),
    )


def disentanglement_errors(
    problem: MergeProblem,
    grid: Sequence[float] | Sequence[Point] = ((0.5, 0.5), (1.0, 1.0)),
    *,
    divergence: str = "jensen-shannon",
    confidence: float = 0.9,
    differential: bool = True,
    max_batches: int | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[DisentanglementError, ...]:
    """Measure the disentanglement error of all pairs of a problem; what each expert says alone is computed once.

    Args:
        problem: The merge problem, of two experts or more.
        grid: As for :func:`disentanglement_error`; by default averages and sums alone.
        divergence: As there.
        confidence: As there.
        differential: As there.
        max_batches: As there.
        progress: Called with the share of the pairs that are done.

    Returns:
        The errors, in the order of the pairs.

    Raises:
        InputError: If there is a single expert, or as for one pair.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> data = (torch.eye(2), torch.tensor([0, 1]))
        >>> task = Task.from_module("t", model, torch.nn.functional.cross_entropy, data)
        >>> experts = {name: {"weight": torch.eye(2)} for name in "abc"}
        >>> problem = MergeProblem({"weight": torch.zeros(2, 2)}, experts, dict.fromkeys("abc", task))
        >>> [error.at(1, 1).value for error in disentanglement_errors(problem)]  # copies say the same, only louder
        [0.0, 0.0, 0.0]
    """
    if len(problem.names) < 2:
        raise InputError(f"expected two experts or more; found {list(problem.names)}.")
    pairs, errors = list(combinations(problem.names, 2)), []
    settings: dict[str, Any] = {"divergence": divergence, "confidence": confidence, "differential": differential}
    for done, pair in enumerate(pairs):
        progress(done / len(pairs))
        errors.append(disentanglement_error(problem, *pair, grid, max_batches=max_batches, **settings))
    return tuple(errors)


def _tasks(problem: MergeProblem, first: str, second: str, max_batches: int | None) -> list[Task]:
    """The two tasks, over the batches to use."""
    pair = pair_of(problem, first, second, "disentanglement_error")
    if max_batches is not None:
        require_count("max_batches", max_batches)
    return [_part(name, problem.tasks[name], max_batches) for name in pair]


def _part(name: str, task: Task, count: int | None) -> Task:
    """The first batches of a task, by its name in the problem."""
    batches = task.batches if count is None else list(islice(task.batches, count))
    return Task(name, task.loss, batches, sizes=task.sizes[:count], readout=task.readout)


def _points(grid: Any) -> tuple[list[Point], list[int]]:
    """All points of a grid, and the shape of its tables."""
    given = grid.tolist() if hasattr(grid, "tolist") else list(grid)
    square = all(isinstance(each, int | float) for each in given)
    points = [(float(a), float(b)) for a in given for b in given] if square else []
    if not square and all(isinstance(each, Sequence) and len(each) == 2 for each in given):
        points = [(float(a), float(b)) for a, b in given]
    if not points or len(set(points)) < len(points) or not all(map(math.isfinite, sum(points, ()))):
        raise InputError(
            f"grid: expected different finite numbers, or different pairs (λ1, λ2) of such; found {given}."
        )
    return points, [len(given), len(given)] if square else [len(given)]


def _mean(found: GridEstimate, confidence: float, tasks: Sequence[Task]) -> Estimate:
    """The mean over the grid as an estimate."""
    ends = float(found.values), float(found.lower), float(found.upper)
    status = Status.EXACT if ends[2] == 0 else Status.CONVERGED
    return Estimate(*ends, confidence, status, " + ".join(f"{task.examples}" for task in tasks) + " examples")


def _notes(
    problem: MergeProblem, tasks: Sequence[Task], found: Sequence[Disturbance], divergence: str, limit: int | None
) -> tuple[str, ...]:
    """What limits the reading of ξ."""
    notes = []
    vectors = problem.task_vectors
    zero = [task.name for task in tasks if not any(bool(value.any()) for value in vectors[task.name].values())]
    if zero:
        notes.append(f"identical to the base, so nothing to disturb by it: {', '.join(zero)}")
    ties = sum(each.ties for each in found)
    if ties:
        notes.append(f"{ties} predictions are ties, and the first of the equal classes counts")
    if any(each.by_token for each in found):
        notes.append(
            "outputs by token tell the target token from all others together: ξ is a lower bound, the mean over y's "
            "tokens given those before them"
        )
    if divergence == "kullback-leibler":
        notes.append("this divergence has no upper bound, so its intervals leave no room for inputs that were not seen")
    if limit is not None:
        notes.append(f"on the first {' and '.join(str(task.examples) for task in tasks)} examples")
    return tuple(notes)
