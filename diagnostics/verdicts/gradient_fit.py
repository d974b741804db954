"""How far task vectors are gradient steps (1.4), and what that leaves of a merge error (1.5)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.inputs.tasks import Parameters, Task
from diagnostics.measures.folds import task_folds
from diagnostics.results import Assumption, Cost, Estimate, Result, Status
from diagnostics.theory.derivations.merge_errors import ALIGNED
from diagnostics.theory.fold_gram import CONFIDENCE, FoldGram, FormValue
from diagnostics.theory.merge_error import (
    ALIGNMENT,
    matched_alphas,
    matched_coefficients,
    merge_error_rows,
    step_sizes,
)
from diagnostics.verdicts.alignment import FOLDS, Alphas, check_alphas, choose_alphas, evidence, fold_gram

__all__ = ["GradientFit", "MergeError", "Part", "gradient_fit", "merge_error"]


@dataclass(frozen=True)
class GradientFit(Result):
    """How well τ ≈ η g holds for a task vector and its task's gradient at the base (1.4).

    Attributes:
        name: The task.
        eta: η = ⟨τ, g⟩/‖g‖² on these data; negative for a step downhill.
        cosine: cos(τ, g) on these data, about −1 for a single gradient step.
        remainder_norm: ‖r‖ = ‖τ − η g‖.
        vector_norm: ‖τ‖.
        gradient_norm: ‖g‖ on these data.
        eta_estimate: η for the expected gradient, without the bias of the sample (1.14).
        cosine_estimate: The cosine with the expected gradient; a noisy gradient pulls ``cosine`` toward 0.
        notes: What a reader must know before using the numbers.
        cost: Passes over the task's data.
    """

    name: str
    eta: float
    cosine: float
    remainder_norm: float
    vector_norm: float
    gradient_norm: float
    eta_estimate: Estimate
    cosine_estimate: Estimate
    notes: tuple[str, ...]
    cost: Cost

    @property
    def share(self) -> float:
        """Share of ‖τ‖² that the gradient explains, cos²."""
        return self.cosine**2

    def __str__(self) -> str:
        lines = [
            f"task vector of {self.name} against its gradient: cosine {self.cosine_estimate}, eta {self.eta_estimate}",
            f"  {self.share:.1%} of its squared norm is along the gradient; remainder {self.remainder_norm:.4g} of "
            f"{self.vector_norm:.4g}",
        ]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def gradient_fit(
    task: Task, params: Parameters, task_vector: Mapping[str, Tensor], *, folds: int = FOLDS, seed: int = 0
) -> GradientFit:
    """Measure the assumption τ ≈ η g of first-order theory (1.4).

    Args:
        task: The task that was fine-tuned on.
        params: θ0.
        task_vector: τ = θ − θ0, with the names and shapes of ``params``.
        folds: Disjoint folds of the task's data; at least four give intervals.
        seed: Seed of the sketch that stands for long fold means.

    Returns:
        Cosine, step size and remainder. Cost: one gradient.

    Raises:
        InputError: If names or shapes differ, or the loss is not finite.

    Example:
        >>> task = Task("t", lambda p, b: (p["w"] * b).sum(), [torch.tensor([3.0, 4.0])], sizes=[1])
        >>> fit = gradient_fit(task, {"w": torch.zeros(2)}, {"w": torch.tensor([-3.0, 0.0])})
        >>> round(fit.cosine, 4), round(fit.eta, 4), round(fit.remainder_norm, 4)
        (-0.6, -0.36, 2.4)
    """
    gradients = task_folds({"g": task}, params, folds, constants={"tau": task_vector}, seed=seed)
    gram = fold_gram(gradients)
    square, along, length = float(gram.plugin[0, 0]), float(gram.plugin[0, 1]), float(gram.plugin[1, 1])
    eta = along / square if square > 0 else math.nan
    cosine = max(-1.0, min(1.0, along / math.sqrt(square * length))) if square * length > 0 else math.nan
    notes = [] if square * length > 0 else ["no cosine: the gradient or the task vector is zero"]
    notes += [] if gram.folds >= 4 else [f"no intervals: they take four folds, and the task fills {gram.folds}"]
    return GradientFit(
        name=task.name,
        eta=eta,
        cosine=cosine,
        remainder_norm=math.sqrt(max(length - along * eta, 0.0)) if square > 0 else math.sqrt(length),
        vector_norm=math.sqrt(length),
        gradient_norm=math.sqrt(square),
        eta_estimate=_centred(gram.ratio(_cross(gram), _square(gram)), evidence(gram, gradients)),
        cosine_estimate=_cosine(gram, math.sqrt(length), evidence(gram, gradients)),
        notes=(*task.notes, *notes),
        cost=Cost(gradients=1),
    )


@dataclass(frozen=True)
class Part(Result):
    """One part of a merge error.

    Attributes:
        norm: Its norm for the expected gradients, with an interval.
        share: ⟨part, Δ⟩/‖Δ‖²; the shares of all parts add up to one, and a negative one cancels others.
    """

    norm: Estimate
    share: Estimate


@dataclass(frozen=True)
class MergeError(Result):
    """The merge error Δ = τ_* − Σ λ_i τ_i and the parts it is the exact sum of (1.5).

    Attributes:
        names: The target, then the components.
        coefficients: λ_i.
        alphas: α_i = λ_i η_i/η_*, the coefficients of the gradients that belong to them.
        etas: η_*, η_1, …, η_K (1.4).
        norm: ‖Δ‖.
        relative: ‖Δ‖/‖τ_*‖.
        parts: ``alignment error`` is η_* ∇ℰ(θ0); then the remainders, as they enter Δ.
        miss: ‖Δ − η_* ∇ℰ(θ0)‖/‖Δ‖, what the gradients leave unexplained.
        miss_as_stated: The same with the published sign, ‖Δ + η_* ∇ℰ(θ0)‖/‖Δ‖.
        assumptions: (1.4), that τ_i = η_i g_i, on these data; where it holds Δ is its alignment part alone.
        notes: What a reader must know before using the numbers.
        cost: Passes over the tasks' data.
    """

    names: tuple[str, ...]
    coefficients: tuple[float, ...]
    alphas: tuple[float, ...]
    etas: tuple[float, ...]
    norm: float
    relative: float
    parts: dict[str, Part]
    miss: float
    miss_as_stated: float
    assumptions: dict[str, Assumption]
    notes: tuple[str, ...]
    cost: Cost

    def __str__(self) -> str:
        lines = [f"merge error of {self.names[0]}: {self.norm:.4g}, {self.relative:.1%} of its task vector"]
        lines += [f"  {name}: norm {part.norm}, share {part.share}" for name, part in self.parts.items()]
        lines += [f"  {name}: {item}" for name, item in self.assumptions.items()]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


@dataclass(frozen=True)
class _Measured:
    """What the derivations' conditions see of measured task vectors and gradients."""

    gram: Tensor


def merge_error(
    target: Task,
    components: Sequence[Task],
    params: Parameters,
    target_vector: Mapping[str, Tensor],
    component_vectors: Sequence[Mapping[str, Tensor]],
    *,
    coefficients: Sequence[float] | None = None,
    alphas: Alphas = "best",
    folds: int = FOLDS,
    seed: int = 0,
) -> MergeError:
    """Split Δ = τ_* − Σ λ_i τ_i exactly into η_* ∇ℰ(θ0), r_* and the −λ_i r_i (1.5).

    Args:
        target: The task that τ_* was trained on.
        components: The tasks of the τ_i, at least one.
        params: θ0.
        target_vector: τ_*.
        component_vectors: τ_1, …, τ_K.
        coefficients: λ_1, …, λ_K; by default those that belong to ``alphas``.
        alphas: α, as :func:`gradient_alignment` takes it; not used where ``coefficients`` are given.
        folds: Disjoint folds of each task's data; at least four give intervals.
        seed: Seed of the sketch that stands for long fold means.

    Returns:
        Δ and its parts. Cost: one gradient a task.

    Raises:
        InputError: If numbers of tasks, vectors and coefficients differ, or a task's gradient is zero or orthogonal
            to its task vector, so that (1.5) has no coefficients.

    Example:
        >>> def pull(to): return Task(f"to {to}", lambda p, b: 0.5 * ((p["w"] - b) ** 2).sum(), [torch.tensor(to)])
        >>> point, step = {"w": torch.zeros(2)}, {"w": torch.tensor([1.0, 0.0])}
        >>> result = merge_error(pull([2.0, 1.0]), [pull([1.0, 0.0])], point, {"w": torch.tensor([2.0, 1.0])}, [step])
        >>> result.coefficients, result.norm, result.miss, result.miss_as_stated
        ((2.0,), 1.0, 0.0, 2.0)
    """
    if not components or len(components) != len(component_vectors):
        raise InputError(
            f"component_vectors: expected one for each of {len(components)} components, and at least one; "
            f"found {len(component_vectors)}."
        )
    tasks, vectors = [target, *components], [target_vector, *component_vectors]
    names = tuple(task.name for task in tasks)
    gradients = task_folds(
        {("g", i): task for i, task in enumerate(tasks)},
        params,
        folds,
        constants={("tau", i): vector for i, vector in enumerate(vectors)},
        seed=seed,
    )
    gram = fold_gram(gradients)
    order = [gram.names.index((kind, i)) for kind in ("tau", "g") for i in range(len(tasks))]
    plugin = gram.plugin[order][:, order]
    etas = step_sizes(plugin, len(tasks))
    _check_steps(names, etas)
    if coefficients is None:
        wanted = check_alphas(alphas, names[1:])
        chosen = choose_alphas(plugin[len(tasks) :, len(tasks) :], wanted).tolist()
        lambdas = matched_coefficients(etas, chosen)
    else:
        lambdas = [float(value) for value in coefficients]
        if len(lambdas) != len(components) or not all(map(math.isfinite, lambdas)):
            raise InputError(f"coefficients: expected {len(components)} finite numbers; found {lambdas}.")
        chosen = matched_alphas(etas, lambdas)
    rows = merge_error_rows(etas, chosen, lambdas)
    delta, first = _norm(plugin, rows[0]), rows[1]
    labels = [ALIGNMENT, f"remainder of {names[0]}", *(f"remainder of {name}" for name in names[1:])]
    placed = [torch.zeros(len(order), dtype=torch.float64).index_copy(0, torch.tensor(order), row) for row in rows]
    text = evidence(gram, gradients)
    return MergeError(
        names=names,
        coefficients=tuple(lambdas),
        alphas=tuple(chosen),
        etas=tuple(etas),
        norm=delta,
        relative=delta / math.sqrt(float(plugin[0, 0])),
        parts={label: _part(gram, row, placed[0], text) for label, row in zip(labels, placed[1:], strict=True)},
        miss=_norm(plugin, rows[0] - first) / delta if delta else math.nan,
        miss_as_stated=_norm(plugin, rows[0] + first) / delta if delta else math.nan,
        assumptions={ALIGNED.name: ALIGNED.audit(_Measured(plugin))},
        notes=tuple(dict.fromkeys(note for task in tasks for note in task.notes)),
        cost=Cost(gradients=len(tasks)),
    )


def _check_steps(names: Sequence[str], etas: Sequence[float]) -> None:
    """Refuse tasks whose vector has no component along their gradient."""
    bad = [name for name, eta in zip(names, etas, strict=True) if not (math.isfinite(eta) and eta != 0)]
    if bad:
        raise InputError(
            f"merge error: expected task vectors with a part along their task's gradient; found none for {bad}. "
            "(1.5) has no coefficients there: look at gradient_fit for these tasks."
        )


def _part(gram: FoldGram, row: Tensor, delta: Tensor, text: str) -> Part:
    """A part with its share of the whole."""
    share = gram.ratio(torch.outer(row, delta), torch.outer(delta, delta))
    return Part(gram.square(row).norm(text), _centred(share, text))


def _centred(value: FormValue, text: str) -> Estimate:
    """An estimate with a symmetric interval."""
    if math.isnan(value.stderr):
        return Estimate(value.value, math.nan, math.nan, CONFIDENCE, Status.UNDEFINED, text)
    ends = (value.value - value.margin, value.value + value.margin)
    return Estimate(value.value, *ends, CONFIDENCE, Status.CONVERGED, text)


def _cosine(gram: FoldGram, length: float, text: str) -> Estimate:
    """The cosine with the expected gradient, its error to first order in those of both inner products."""
    square, along = gram.form(_square(gram)).value, gram.form(_cross(gram)).value
    if not (square > 0 and length > 0):
        return Estimate(math.nan, math.nan, math.nan, CONFIDENCE, Status.UNDEFINED, text)
    cosine = along / (length * math.sqrt(square))
    slope = _cross(gram) / (length * math.sqrt(square)) - 0.5 * cosine * _square(gram) / square
    return _centred(FormValue(cosine, gram.form(slope).stderr, gram.folds), text)


def _square(gram: FoldGram) -> Tensor:
    """The form ‖g‖²."""
    row = gram.row({"g": 1.0})
    return torch.outer(row, row)


def _cross(gram: FoldGram) -> Tensor:
    """The form ⟨τ, g⟩."""
    return torch.outer(gram.row({"tau": 1.0}), gram.row({"g": 1.0}))


def _norm(gram: Tensor, row: Tensor) -> float:
    """The norm of a combination."""
    return math.sqrt(max(float(row @ gram @ row), 0.0))
