"""Loss gaps of merges, measured on a problem and held against their bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.inputs.problem import Coefficients, MergeProblem
from diagnostics.measures.curvature import subspace_hessian
from diagnostics.measures.geometry import Geometry, geometry
from diagnostics.measures.paths import measure_way
from diagnostics.measures.spectra import SpectralNorm, spectral_norm
from diagnostics.measures.vectors import shifted
from diagnostics.theory.addition import addition_report
from diagnostics.theory.bound_report import BoundReport
from diagnostics.theory.derivations.best_in_span import best_in_span
from diagnostics.theory.loss_gap import Curvature, Displacement
from diagnostics.theory.negation import negation_report
from diagnostics.theory.out_of_distribution import out_of_distribution_report, span_report
from diagnostics.theory.subspace import generalised_norm

__all__ = ["addition_bounds", "negation_bounds", "out_of_distribution_bound", "problem_geometry"]

# Points of the way from the expert to the merge where the task subspace's curvature is measured (2.10).
_SUBSPACE_NODES = (0.0, 0.5, 1.0)
# Shared parameters up to which a spectral norm is taken to rounding.
_SMALL = 256


def addition_bounds(
    problem: MergeProblem,
    coefficients: Coefficients,
    *,
    rtol: float = 0.05,
    spectral_nodes: Sequence[float] = (),
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, BoundReport]:
    """Hold every task of a merge against L·C·(1 + ε) (2.1) and the chain below it (2.5).

    Args:
        problem: The merge problem.
        coefficients: α; the bound needs α_i ≥ 0 with sum 1, and the report says what is left otherwise (2.8).
        rtol: Relative tolerance of the spectral norms.
        spectral_nodes: Points of the way from the expert (0) to the merge (1) at which to measure the whole
            spectral norm as well (2.6), each at the cost of the one at the expert.
        progress: Called with the share of the tasks that are done.

    Returns:
        One report for each expert that the coefficients name.

    Raises:
        InputError: If the coefficients do not fit the problem.

    Example:
        >>> import torch
        >>> from diagnostics.inputs.zoo import quadratic_problem
        >>> problem = quadratic_problem(torch.eye(2).double()[None].repeat(2, 1, 1), torch.eye(2).double())
        >>> report = addition_bounds(problem, 0.5)["task_0"]
        >>> round(report.gap, 6), round(report.bound, 6), report.holds
        (0.25, 1.0, True)
    """
    alphas = problem.coefficients(coefficients)
    shape = _geometry_of(problem, tuple(alphas))
    reports = {}
    for done, name in enumerate(alphas):
        progress(done / len(alphas))
        weights = {other: alpha - (other == name) for other, alpha in alphas.items()}
        way = _displacement(problem, name, weights, 0.0, rtol, spectral_nodes)
        constant = problem.tasks[name].constant_loss
        reports[name] = addition_report(name, way, alphas, shape.C, shape.epsilon, constant)
    return reports


def negation_bounds(
    problem: MergeProblem,
    negated: str,
    coefficient: float = 1.0,
    *,
    rtol: float = 0.05,
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, BoundReport]:
    """Hold what θ0 − α τ_i does to every other task against L·C·(3/2 + ε) (2.2).

    Args:
        problem: The merge problem.
        negated: The expert i that is negated.
        coefficient: α, between 0 and 1.
        rtol: Relative tolerance of the spectral norms.
        progress: Called with the share of the tasks that are done.

    Returns:
        One report for each of the other experts.

    Raises:
        InputError: If the negated expert is unknown or the only one.

    Example:
        >>> import torch
        >>> from diagnostics.inputs.zoo import quadratic_problem
        >>> problem = quadratic_problem(torch.eye(2).double()[None].repeat(2, 1, 1), torch.eye(2).double())
        >>> report = negation_bounds(problem, "task_0")["task_1"]
        >>> round(report.gap, 6), round(report.bound, 6), report.holds
        (0.5, 1.5, True)
    """
    others = _others(problem, negated)
    shape = problem_geometry(problem)
    reports = {}
    for done, name in enumerate(others):
        progress(done / len(others))
        task = problem.tasks[name]
        offset = task.mean_loss(problem.experts[name]) - task.mean_loss(problem.base)
        way = _displacement(problem, name, {negated: -coefficient, name: -1.0}, offset, rtol)
        reports[name] = negation_report(name, way, coefficient, shape.C, shape.epsilon, task.constant_loss)
    return reports


def out_of_distribution_bound(
    problem: MergeProblem, target: str, *, span: bool = False, rtol: float = 0.05
) -> BoundReport:
    """Hold a target task, served by the other experts, against L·C·(1 − β) (2.3).

    Args:
        problem: The merge problem; the target's expert is used only to measure against.
        target: The task that is treated as unseen.
        span: Use the best combination of the other experts (2.7) instead of the nearest one.
        rtol: Relative tolerance of the spectral norm.

    Returns:
        The report for the target task.

    Raises:
        InputError: If the target is unknown or the only expert.

    Example:
        >>> import torch
        >>> from diagnostics.inputs.zoo import quadratic_problem
        >>> vectors = torch.tensor([[1.0, 0.0], [0.6, 0.8]]).double()
        >>> problem = quadratic_problem(torch.eye(2).double()[None].repeat(2, 1, 1), vectors)
        >>> report = out_of_distribution_bound(problem, "task_0")
        >>> round(report.gap, 6), round(report.bound, 6), round(report.quantities["beta"], 6)
        (0.4, 0.4, 0.6)
    """
    others = _others(problem, target)
    shape = problem_geometry(problem)
    rows = [problem.names.index(name) for name in others]
    column = problem.names.index(target)
    inner, own = shape.gram[rows, column], float(shape.gram[column, column])
    best = best_in_span(shape.gram[rows][:, rows], inner)
    constant = problem.tasks[target].constant_loss
    if span:
        weights = {**dict(zip(others, best.tolist(), strict=True)), target: -1.0}
        return span_report(target, _displacement(problem, target, weights, 0.0, rtol), shape.C, constant)
    nearest = others[int(inner.argmax())]
    way = _displacement(problem, target, {nearest: 1.0, target: -1.0}, 0.0, rtol)
    left = max(own - float(inner @ best), 0.0)
    return out_of_distribution_report(target, way, shape.C, float(inner.max()) / shape.C, left, constant)


def problem_geometry(problem: MergeProblem) -> Geometry:
    """Return the geometry of a problem's shared parameters, measured once.

    Args:
        problem: The merge problem.

    Returns:
        The geometry of all its experts.
    """
    return problem.cached("geometry", lambda: geometry(problem.base, problem.experts))


def _geometry_of(problem: MergeProblem, names: tuple[str, ...]) -> Geometry:
    """Geometry of some of the experts, cut out of the whole."""
    whole = problem_geometry(problem)
    rows = [problem.names.index(name) for name in names]
    return Geometry(names, whole.gram[rows][:, rows], whole.dimension, whole.base_norm)


def _others(problem: MergeProblem, name: str) -> tuple[str, ...]:
    """All experts but one, or an error."""
    others = tuple(other for other in problem.names if other != name)
    if name not in problem.names or not others:
        raise InputError(f"{name!r} must be one of at least two experts, found {list(problem.names)}")
    return others


def _spectral(problem: MergeProblem, name: str, rtol: float) -> SpectralNorm:
    """L at a task's own expert, measured once."""
    # In few dimensions the whole Krylov space costs next to nothing, and the bound is then exact.
    tolerance = 1e-12 if problem.dimension <= _SMALL else rtol
    return problem.cached(
        ("spectral", name, tolerance),
        lambda: spectral_norm(
            problem.tasks[name], problem.experts[name], rtol=tolerance, max_products=max(100, _SMALL)
        ),
    )


def _displacement(
    problem: MergeProblem,
    name: str,
    weights: Mapping[str, float],
    offset: float,
    rtol: float,
    spectral_nodes: Sequence[float] = (),
) -> Displacement:
    """Measure task ``name`` along v = Σ weights_j τ_j from its expert."""
    task, expert = problem.tasks[name], problem.experts[name]
    move = problem.displacement(weights)
    way = measure_way(task, expert, move, keep=_SUBSPACE_NODES)
    spectrum = _spectral(problem, name, rtol)
    involved = {other: weight for other, weight in weights.items() if weight != 0}
    subspace = [
        _subspace_smoothness(problem, name, shifted(expert, s, move), involved, product)
        for s, product in way.products.items()
        if involved
    ]
    return Displacement(
        start=way.values[0],
        end=way.values[-1],
        offset=offset,
        slope=way.slope,
        gradient_norm=way.gradient_norm,
        norm_squared=way.norm_squared,
        nodes=way.nodes,
        curvatures=way.curvatures,
        integral=way.integral,
        mismatch=way.mismatch,
        tolerance=way.tolerance,
        subspace=tuple(subspace),
        spectral=Curvature(spectrum.value, spectrum.lower, spectrum.upper, spectrum.status),
        spectral_along=tuple(spectral_norm(task, shifted(expert, s, move), rtol=rtol).lower for s in spectral_nodes),
    )


def _subspace_smoothness(
    problem: MergeProblem,
    name: str,
    point: Mapping[str, Tensor],
    weights: Mapping[str, float],
    product: Mapping[str, Tensor],
) -> float:
    """L^S at one point: the largest |eigenvalue| of (τᵀHτ, G) on the span of the vectors involved (2.10)."""
    vectors = {other: problem.task_vectors[other] for other in weights}
    hessian = subspace_hessian(problem.tasks[name], point, vectors, (weights, product))
    return generalised_norm(hessian, _geometry_of(problem, tuple(weights)).gram)
