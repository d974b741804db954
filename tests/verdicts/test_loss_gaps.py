"""Bounds on problems whose loss gaps are known in closed form, and on losses that break the assumptions."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics import (
    InputError,
    MergeProblem,
    Status,
    Task,
    addition_bounds,
    derivations,
    negation_bounds,
    out_of_distribution_bound,
)
from diagnostics.inputs.zoo import quadratic_problem, quadratic_task
from diagnostics.theory.subspace import generalised_norm
from tests.cases import rotated, small_network


@st.composite
def problems(draw, indefinite=False):
    """Random quadratic tasks with experts at their minima: every assumption but the simplex holds exactly."""
    count, dimension, seed = draw(st.integers(2, 4)), draw(st.integers(1, 6)), draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    low = -2 if indefinite else 0
    hessians = torch.stack([rotated(list(rng.uniform(low, 3, dimension)), seed + i) for i in range(count)])
    vectors = torch.tensor(rng.normal(size=(count, dimension)) * rng.uniform(0.1, 2, size=(count, 1)))
    return quadratic_problem(hessians, vectors, torch.tensor(rng.normal(size=dimension)))


def simplex(draw, names):
    raw = [draw(st.floats(0.01, 1)) for _ in names]
    return {name: value / sum(raw) for name, value in zip(names, raw, strict=True)}


def assert_sound(report, scale):
    """The bound holds, the chain goes up, the best bound is one of its steps and covers the gap."""
    slack = 1e-9 * scale
    assert report.holds is True, str(report)
    values = [value for _, value in report.chain]
    assert all(low <= high + slack for low, high in pairwise(values)), str(report)
    assert report.gap <= report.best + slack and report.best in values, str(report)
    assert report.chain[-1][1] == pytest.approx(report.bound, abs=slack), str(report)
    assert report.status.trusted and all(item.holds for item in report.assumptions.values()), str(report)


@settings(max_examples=40)
@given(data=st.data())
def test_addition_on_quadratics(data):
    problem = data.draw(problems(indefinite=data.draw(st.booleans())))
    alphas = simplex(data.draw, problem.names)
    merged = problem.merged(alphas)
    for name, report in addition_bounds(problem, alphas).items():
        expected = problem.tasks[name].mean_loss(merged) - problem.tasks[name].mean_loss(problem.experts[name])
        assert report.gap == pytest.approx(expected, abs=1e-12)
        assert_sound(report, max(1.0, report.bound))


@settings(max_examples=25)
@given(data=st.data())
def test_negation_on_quadratics(data):
    problem = data.draw(problems())
    coefficient = data.draw(st.floats(0, 1))
    for name, report in negation_bounds(problem, "task_0", coefficient).items():
        task = problem.tasks[name]
        expected = task.mean_loss(problem.merged({"task_0": -coefficient})) - task.mean_loss(problem.base)
        assert report.gap == pytest.approx(expected, abs=1e-10)
        assert_sound(report, max(1.0, report.bound))


@settings(max_examples=25)
@given(data=st.data())
def test_out_of_distribution_on_quadratics(data):
    problem = data.draw(problems())
    report = out_of_distribution_bound(problem, "task_0")
    similar = report.assumptions["similarity"]
    assert similar.holds is (similar.measured > 0)
    assert report.holds is True, str(report)
    assert report.quantities["span_bound"] <= report.bound + 1e-9, "(2.7) is never worse than (2.3)"
    span = out_of_distribution_bound(problem, "task_0", span=True)
    assert span.holds is True or span.quantities["norm_squared"] < 1e-20, str(span)
    assert span.bound == pytest.approx(report.quantities["span_bound"], abs=1e-9)


def test_equality_is_reached_by_opposite_vectors_and_a_round_hessian():
    """α all on the other expert, cos = −1: ‖v‖² = 4 = C(2 + 2ε), so the gap is L·C·(1 + ε) = 4 exactly."""
    problem = quadratic_problem(2 * torch.eye(2).double().repeat(2, 1, 1), torch.tensor([[1.0, 0], [-1.0, 0]]).double())
    report = addition_bounds(problem, {"task_0": 0.0, "task_1": 1.0})["task_0"]
    assert report.gap == pytest.approx(4.0) and report.bound == pytest.approx(4.0)


def test_equality_in_more_dimensions_is_not_lost_to_the_tolerance_of_the_norm():
    """The displacement lies along the top eigenvector of a spectrum that Lanczos resolves late."""
    spectrum = torch.cat([torch.linspace(0, 0.999, 79), torch.ones(1)]).double()
    vectors = torch.zeros(2, 80, dtype=torch.float64)
    vectors[0, -1], vectors[1, -1] = 1.0, -1.0
    problem = quadratic_problem(torch.diag(spectrum).repeat(2, 1, 1), vectors)
    report = addition_bounds(problem, {"task_0": 0.0, "task_1": 1.0})["task_0"]
    assert report.holds is True and report.gap == pytest.approx(report.bound, rel=1e-9)


def test_out_of_distribution_equality():
    """Equal lengths: ½L‖τ_i − τ_tar‖² = L·C·(1 − β)."""
    problem = quadratic_problem(
        3 * torch.eye(2).double().repeat(2, 1, 1), torch.tensor([[1.0, 0], [0.6, 0.8]]).double()
    )
    report = out_of_distribution_bound(problem, "task_0")
    assert report.gap == pytest.approx(3 * 0.4) and report.bound == pytest.approx(3 * 0.4)
    assert report.quantities["beta"] == pytest.approx(0.6)


def test_negation_beats_its_extra_half_where_the_expert_is_a_minimum():
    problem = quadratic_problem(torch.eye(2).double().repeat(2, 1, 1), torch.eye(2).double())
    report = negation_bounds(problem, "task_0", 1.0)["task_1"]
    labels = dict(report.chain)
    sharper = next(value for label, value in labels.items() if "(2.7)" in label)
    assert report.gap <= sharper < report.bound


def test_off_the_simplex_the_gram_bound_still_holds():
    problem = quadratic_problem(torch.eye(2).double().repeat(2, 1, 1), torch.eye(2).double())
    report = addition_bounds(problem, 1.5)["task_0"]
    assert report.assumptions["simplex"].holds is False and report.status is Status.TAINTED
    assert report.gap == pytest.approx(0.5 * (0.25 + 2.25)) and report.gap <= report.best + 1e-12


def test_subspace_smoothness_ignores_curvature_outside_the_span():
    """A curvature of 1,000 that no task vector touches makes the paper's bound useless and (2.10) exact."""
    hessian = torch.diag(torch.tensor([1.0, 2.0, 1000.0])).double()
    vectors = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).double()
    report = addition_bounds(quadratic_problem(hessian.repeat(2, 1, 1), vectors), 0.5)["task_0"]
    assert report.quantities["L"] == pytest.approx(1000) and report.quantities["L_S"] == pytest.approx(2.0)
    assert report.best < 1.0 < 900 < report.bound


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 4), dependent=st.booleans())
def test_generalised_norm_is_the_largest_quotient_over_the_span(seed, count, dependent):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 6))
    vectors = np.vstack([vectors, vectors[:1] * 2]) if dependent else vectors
    hessian = rotated(list(rng.normal(size=6)), seed).numpy()
    found = generalised_norm(torch.tensor(vectors @ hessian @ vectors.T), torch.tensor(vectors @ vectors.T))
    basis = np.linalg.svd(vectors.T, full_matrices=False)[0][:, :count]
    assert found == pytest.approx(np.abs(np.linalg.eigvalsh(basis.T @ hessian @ basis)).max(), rel=1e-6)


def problem_of(loss, dtype=torch.float64):
    tasks = {name: Task(name, lambda p, b: loss(p["w"]) + 0 * b.sum(), [torch.zeros(1, dtype=dtype)]) for name in "ab"}
    experts = {"a": {"w": torch.tensor([0.0], dtype=dtype)}, "b": {"w": torch.tensor([2.0], dtype=dtype)}}
    return MergeProblem({"w": torch.tensor([1.0], dtype=dtype)}, experts, tasks)


def test_a_kink_on_the_way_is_reported():
    report = addition_bounds(problem_of(lambda w: (w - 0.3).abs().sum()), 0.5)["a"]
    assert report.assumptions["differentiable"].holds is False
    assert report.status is Status.TAINTED and report.best == float("inf")


def test_curvature_that_grows_along_the_way_is_reported():
    """w⁴ is flat at the expert: L = 0 there, the bound is 0 and the gap is not (2.6)."""
    report = addition_bounds(problem_of(lambda w: (w**4).sum()), 0.5)["a"]
    assert report.assumptions["smooth"].holds is False
    assert report.holds is False and report.gap == pytest.approx(1.0)
    assert report.gap <= report.best < float("inf"), "bounds from curvature along the way still hold"


def test_a_spectral_norm_that_grows_in_a_direction_the_way_does_not_take_is_found_at_its_nodes():
    """L(x, y) = x²/2 + x²y²/2 + y²/20: along x the curvature stays 1, across it grows to 0.1 + x²."""

    def loss(w):
        return 0.5 * w[0] ** 2 + 0.5 * w[0] ** 2 * w[1] ** 2 + 0.05 * w[1] ** 2

    tasks = {name: Task(name, lambda p, b: loss(p["w"]), [None]) for name in "ab"}
    experts = {"a": {"w": torch.zeros(2).double()}, "b": {"w": torch.tensor([4.0, 0.0]).double()}}
    problem = MergeProblem({"w": torch.tensor([1.0, 0.0]).double()}, experts, tasks)
    plain = addition_bounds(problem, 0.5)["a"]
    assert plain.assumptions["smooth"].holds is True and "L_along" not in plain.quantities
    whole = addition_bounds(problem, 0.5, spectral_nodes=(0.5, 1.0))["a"]
    assert whole.quantities["L_along"] == pytest.approx(4.1)
    assert whole.assumptions["smooth"].holds is False


def test_an_expert_that_is_not_stationary_is_reported_and_its_slope_kept():
    report = addition_bounds(problem_of(lambda w: (w + 0.5 * w**2).sum()), 0.5)["a"]
    assert report.assumptions["stationary"].holds is False
    assert report.quantities["slope"] == pytest.approx(1.0)
    assert report.gap == pytest.approx(1.5) and report.gap <= report.best + 1e-9


def test_real_network_bounds_hold_and_the_integral_closes():
    torch.manual_seed(0)
    base = small_network()
    inputs = torch.randn(40, 3, dtype=torch.float64)
    tasks, experts = {}, {}
    for index, name in enumerate(["left", "right"]):
        model = small_network()
        model.load_state_dict(base.state_dict())
        targets = (inputs[:, index] > 0).long()
        optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(60):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            optimiser.step()
        tasks[name] = Task.from_module(name, model, torch.nn.functional.cross_entropy, (inputs, targets))
        experts[name] = {key: value.detach() for key, value in model.named_parameters()}
    problem = MergeProblem({key: value.detach() for key, value in base.named_parameters()}, experts, tasks)
    for report in addition_bounds(problem, 0.5).values():
        assert report.assumptions["differentiable"].holds
        assert dict(report.chain)["= slope + integral of curvature (2.5)"] == pytest.approx(report.gap, rel=0.02)
        assert report.gap <= report.best <= report.bound


@pytest.mark.parametrize("call", [negation_bounds, out_of_distribution_bound])
def test_unknown_names_are_refused(call):
    problem = quadratic_problem(torch.eye(2).double().repeat(2, 1, 1), torch.eye(2).double())
    with pytest.raises(InputError, match="nobody"):
        call(problem, "nobody")


def test_the_published_bound_for_negation_breaks_where_the_base_is_far_below_and_the_report_says_why():
    """Erratum (2.2): 1 − (w − 1)⁴ is flat at its expert 1; at τ_i = −1, α = 1 the gap is 1 and L C (3/2 + ε) is 0."""
    hill = derivations.get("2.2").counterexample.task
    one = torch.ones(1, 1, dtype=torch.float64)
    base, kept, negated = ({"w": torch.tensor([value], dtype=torch.float64)} for value in (0.0, 1.0, -1.0))
    tasks = {"kept": Task("kept", hill.torch_loss, [one[0]]), "negated": quadratic_task("negated", one, -one[0])}
    problem = MergeProblem(base, {"kept": kept, "negated": negated}, tasks)
    report = negation_bounds(problem, "negated")["kept"]
    assert (report.gap, report.bound, report.holds) == (1.0, 0.0, False)
    assert report.assumptions["lower side"].holds is False and report.status is Status.TAINTED
    assert not any("(2.2)" in label for label, _ in report.chain)
