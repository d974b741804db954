"""The gradient-alignment error of a target task against component tasks, measured (1.3)–(1.7), (1.14)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from diagnostics.errors import InputError, require_count
from diagnostics.inputs.tasks import Parameters, Task
from diagnostics.measures.folds import FoldedGradients, task_folds
from diagnostics.results import Cost, Estimate, Result, Status, plain
from diagnostics.theory.alignment import alignment_row, best_alphas, dependent
from diagnostics.theory.fold_gram import FoldGram, norm_stderr

__all__ = [
    "Alphas",
    "GradientAlignment",
    "check_alphas",
    "choose_alphas",
    "evidence",
    "fold_gram",
    "gradient_alignment",
    "relative_estimate",
]

Alphas = Literal["best", "nonnegative"] | Sequence[float] | Mapping[str, float]

FOLDS = 8


@dataclass(frozen=True)
class GradientAlignment(Result):
    """The gradient-alignment error ∇ℰ(θ0) = g_* − Σ α_i g_i of a target against its components (1.3).

    Attributes:
        names: The target, then the components.
        alphas: α_i, in the order of the components.
        error: ∇ℰ(θ0) by parameter name.
        norm: ‖∇ℰ(θ0)‖ on these data; larger than that of the expected gradients by noise (1.14).
        norm_estimate: ‖∇ℰ(θ0)‖ without the bias of the sample, with its interval (1.14).
        relative: ‖∇ℰ‖/‖g_*‖ on these data; at the best α the sine of the angle between g_* and span{g_i} (1.6).
        relative_estimate: The same without the bias of the sample, with its interval.
        gram: Inner products of (g_*, g_1, …, g_K) on these data, [K + 1, K + 1].
        gram_unbiased: The same without the bias of the sample.
        folds: Number of disjoint folds of the data.
        notes: What a reader must know before using the numbers.
        cost: Passes over the tasks' data.
    """

    names: tuple[str, ...]
    alphas: tuple[float, ...]
    error: dict[str, Tensor]
    norm: float
    norm_estimate: Estimate
    relative: float
    relative_estimate: Estimate
    gram: Tensor
    gram_unbiased: Tensor
    folds: int
    notes: tuple[str, ...]
    cost: Cost

    @property
    def norm_unbiased(self) -> float:
        """‖∇ℰ(θ0)‖ from products of disjoint folds; 0 where the estimated square is negative."""
        return self.norm_estimate.value

    @property
    def stderr(self) -> float:
        """Standard error: ``norm_unbiased`` ± 1.645 of it spans the 90 % interval."""
        return norm_stderr(self.norm_estimate)

    @property
    def cosines(self) -> Tensor:
        """Cosines between (g_*, g_1, …, g_K) on these data; NaN for a zero gradient."""
        norms = self.gram.diagonal().clamp_min(0).sqrt()
        scale = torch.outer(norms, norms)
        return torch.where(scale > 0, (self.gram / scale).clamp(-1, 1), math.nan)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain types, without the vectors.

        Returns:
            A dictionary ready for JSON.
        """
        fields = {key: value for key, value in vars(self).items() if key != "error"}
        derived = ("norm_unbiased", "stderr", "cosines")
        return plain(fields | {name: getattr(self, name) for name in derived})

    def __str__(self) -> str:
        target, *components = self.names
        mix = " + ".join(f"{alpha:.3g} {name}" for alpha, name in zip(self.alphas, components, strict=True))
        return "\n".join(
            [
                f"gradient of {target} against {mix}: relative error {self.relative_estimate} "
                f"({self.relative:.4g} on these data)",
                f"  norm {self.norm_estimate} ({self.norm:.4g} on these data), {self.folds} folds",
                *(f"  {note}" for note in self.notes),
            ]
        )


def gradient_alignment(
    target: Task,
    components: Sequence[Task | Parameters] | Mapping[str, Task | Parameters],
    params: Parameters,
    *,
    alphas: Alphas = "best",
    folds: int = FOLDS,
    seed: int = 0,
) -> GradientAlignment:
    """Measure ∇ℰ(θ0) = ∇L_*(θ0) − Σ α_i ∇L_i(θ0) (1.3).

    Where a component has been fine-tuned already, its task vector τ_i may stand for it, and is used in place of g_i:
    then ``relative`` says how much of the target's slope the task vectors cannot go down at all.

    Folds are dealt out in the order of the data, so norms are unbiased where that order is random: shuffle data that
    are sorted. The α of ``"best"`` and ``"nonnegative"`` are those of these data, and are taken as given.

    Args:
        target: The task to be reached.
        components: The tasks whose task vectors are added, or the vectors themselves, at least one; a mapping gives
            them in its order.
        params: θ0.
        alphas: ``"best"`` (1.6), ``"nonnegative"`` for the best α ≥ 0, or one number a component, of any sign, in
            order or by name.
        folds: Disjoint folds of each task's data; at least four give standard errors.
        seed: Seed of the sketch that stands for long fold means.

    Returns:
        The error with its norms. Cost: one gradient a task.

    Raises:
        InputError: If there is no component, α does not fit, or a loss is not finite.

    Example:
        >>> def pull(to): return Task(f"to {to}", lambda p, b: 0.5 * ((p["w"] - b) ** 2).sum(), [torch.tensor(to)])
        >>> result = gradient_alignment(pull([2.0, 1.0]), [pull([1.0, 0.0])], {"w": torch.zeros(2)})
        >>> result.alphas, result.error["w"].tolist(), round(result.relative, 4)
        ((2.0,), [0.0, -1.0], 0.4472)
    """
    if not components:
        raise InputError("components: expected at least one task; found none. Pass the tasks that are added.")
    given = components if isinstance(components, Mapping) else dict(enumerate(components, 1))
    names = [each.name if isinstance(each, Task) else f"vector {name}" for name, each in given.items()]
    tasks: dict[Any, Task] = {0: target}
    vectors: dict[Any, Parameters] = {}
    for i, each in enumerate(given.values(), 1):
        if isinstance(each, Task):
            tasks[i] = each
        else:
            vectors[i] = _checked_vector(each)
    alphas = check_alphas(alphas, names)
    require_count("folds", folds)
    gradients = task_folds(tasks, params, folds, constants=vectors, seed=seed)
    gram = fold_gram(gradients)
    order = [gram.names.index(i) for i in range(len(given) + 1)]
    plugin = gram.plugin[order][:, order]
    chosen = choose_alphas(plugin, alphas)
    row = gram.row(dict(enumerate(alignment_row(chosen).tolist())))
    notes = [note for task in tasks.values() for note in task.notes] + not_unique(plugin, alphas)
    if gram.folds < 4:
        few = min(tasks.values(), key=lambda task: len(task.sizes)).name
        notes.append(
            f"no standard error: it takes four folds, and there are {gram.folds} (folds={folds}; task {few!r} has the "
            "fewest batches). Give more examples, in smaller batches if they are not tensors with examples first"
        )
    return GradientAlignment(
        names=(target.name, *names),
        alphas=tuple(chosen.tolist()),
        error=gradients.combine(row),
        norm=gradients.norm(row),
        norm_estimate=gram.square(row).norm(evidence(gram, gradients)),
        relative=relative_norm(gradients, row, gram.row({0: 1.0})),
        relative_estimate=relative_estimate(gram, row, gram.row({0: 1.0})),
        gram=plugin,
        gram_unbiased=gram.unbiased[order][:, order],
        folds=gram.folds,
        notes=tuple(dict.fromkeys(notes)),
        cost=Cost(gradients=len(tasks)),
    )


def _checked_vector(component: object) -> Parameters:
    """A component that is a task vector."""
    if not isinstance(component, Mapping):
        found = type(component).__name__
        raise InputError(f"components: expected tasks or task vectors by parameter name; found {found}.")
    return component


def fold_gram(gradients: FoldedGradients) -> FoldGram:
    """Return the inner products of measured gradients.

    Args:
        gradients: The gradients.

    Returns:
        Numbers only.
    """
    return FoldGram(gradients.names, gradients.products(), gradients.weights, gradients.plugin())


def choose_alphas(gram: Tensor, alphas: Literal["best", "nonnegative"] | Sequence[float]) -> Tensor:
    """Return the coefficients α asked for.

    Args:
        gram: Inner products of (g_*, g_1, …, g_K), [K + 1, K + 1].
        alphas: How to choose them, or the numbers, as :func:`check_alphas` returns them.

    Returns:
        α, [K], float64.

    Example:
        >>> choose_alphas(torch.eye(3), [1, -0.5]).tolist()
        [1.0, -0.5]
    """
    if isinstance(alphas, str):
        return best_alphas(gram, sign="any" if alphas == "best" else "nonnegative")
    return torch.tensor(alphas, dtype=torch.float64)


def check_alphas(alphas: Alphas, names: Sequence[str]) -> Literal["best", "nonnegative"] | list[float]:
    """Refuse coefficients that cannot be used, before anything is measured.

    Args:
        alphas: A word, or numbers in order or by name.
        names: The components.

    Returns:
        The word, or the numbers in order.

    Raises:
        InputError: If the word is unknown, or the numbers are too many, too few or not finite.

    Example:
        >>> check_alphas({"b": 1, "a": 2}, ["a", "b"])
        [2.0, 1.0]
    """
    expected = f"alphas: expected 'best', 'nonnegative' or {len(names)} finite numbers, one for each of {list(names)}"
    if isinstance(alphas, str):
        if alphas not in ("best", "nonnegative"):
            raise InputError(f"{expected}; found {alphas!r}.")
        return alphas
    if isinstance(alphas, Mapping):
        if set(alphas) != set(names):
            raise InputError(f"{expected}; found {dict(alphas)}.")
        alphas = [alphas[name] for name in names]
    try:
        values = [float(value) for value in alphas]
    except (TypeError, ValueError):
        raise InputError(f"{expected}; found {alphas!r}.") from None
    if len(values) != len(names) or not all(map(math.isfinite, values)):
        raise InputError(f"{expected}; found {values}.")
    return values


def not_unique(gram: Tensor, alphas: object) -> list[str]:
    """Note that a best α is one of many.

    Args:
        gram: Inner products of (g_*, g_1, …, g_K), [K + 1, K + 1].
        alphas: How α was chosen.

    Returns:
        At most one note.
    """
    if not (isinstance(alphas, str) and dependent(gram)):
        return []
    return ["α is not unique: the components' gradients are linearly dependent, and the shortest α is given"]


def relative_norm(gradients: FoldedGradients, error: Tensor, target: Tensor) -> float:
    """Return ‖error‖/‖target‖ on the data at hand.

    Args:
        gradients: The gradients.
        error: Coefficients of the error, [A].
        target: Coefficients of the target's gradient, [A].

    Returns:
        The quotient; NaN if the target's gradient is zero.
    """
    whole = gradients.norm(target)
    return gradients.norm(error) / whole if whole > 0 else math.nan


def relative_estimate(gram: FoldGram, error: Tensor, target: Tensor) -> Estimate:
    """Estimate ‖error‖/‖target‖ for the expected gradients.

    Args:
        gram: Inner products by fold.
        error: Coefficients of the error, [A].
        target: Coefficients of the target's gradient, [A].

    Returns:
        The quotient with its interval; undefined where the target's gradient cannot be told from zero.
    """
    whole = gram.square(target)
    square = gram.ratio(torch.outer(error, error), torch.outer(target, target))
    if not whole.value > whole.margin:
        text = whole.doubt("the target's gradient", "more examples are needed, or the model knows the task")
        return Estimate(square.norm().value, 0.0, math.inf, square.norm().confidence, Status.UNDEFINED, text)
    return square.norm(f"delta method over {gram.folds} folds")


def evidence(gram: FoldGram, gradients: FoldedGradients) -> str:
    """Say what norms rest on.

    Args:
        gram: Inner products by fold.
        gradients: The gradients behind them.

    Returns:
        A phrase.
    """
    error = gradients.sketch.error
    sketched = f", fold means sketched to {gradients.sketch.size:,} numbers (error {error:.1%})" if error else ""
    return f"products of {gram.folds} disjoint folds{sketched}"
