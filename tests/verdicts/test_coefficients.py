"""best_coefficients: known optima are found, constraints decide, and what may have been missed is told."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from diagnostics import InputError, MergeProblem, Task, best_coefficients, predict_merge
from diagnostics.inputs.zoo import quadratic_problem
from diagnostics.results import Status, Verdict
from diagnostics.verdicts import finalists
from diagnostics.verdicts.coefficient_search import distinct, search
from diagnostics.verdicts.landscape import Aim, Landscape, Outcomes
from diagnostics.verdicts.merge_parts import merge_parts
from tests.verdicts.test_mergeability import linear_problem


class Crossed(nn.Module):
    """Two logits that depend on both parameters and their product: no linear surrogate is exact."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, x):
        logit = x[:, 0] * self.w[0] + x[:, 1] * self.w[1] + 1.5 * torch.tanh(2 * self.w[0] * self.w[1]) * x[:, 2]
        return torch.stack([-logit, logit], dim=1)


def bent_problem(count=80, batch_size=30):
    """Two tasks whose experts disturb each other, most where both are large."""
    generator = torch.Generator().manual_seed(3)
    tasks = {}
    for index, name in enumerate("ab"):
        inputs = torch.randn(count, 3, generator=generator, dtype=torch.float64)
        noise = 0.5 * torch.randn(count, generator=generator, dtype=torch.float64)
        labels = (inputs[:, index] + noise > 0).long()
        tasks[name] = Task.from_module(
            name, Crossed(), nn.functional.cross_entropy, (inputs, labels), batch_size=batch_size
        )
    experts = {"a": {"w": torch.tensor([2.0, 0.1]).double()}, "b": {"w": torch.tensor([-0.3, 1.5]).double()}}
    return MergeProblem({"w": torch.zeros(2, dtype=torch.float64)}, experts, tasks)


def opposed_problem(degrees=120, count=180):
    """Which side of a line: points on a circle, the lines of two tasks at an angle; retention is 1 − angle/180°."""
    turns = 2 * math.pi * (torch.arange(count).double() + 0.37) / count
    inputs = torch.stack([turns.cos(), turns.sin()], 1)
    tasks, experts = {}, {}
    for name, angle in {"first": 0.0, "second": math.radians(degrees)}.items():
        normal = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        data = (inputs, (inputs @ normal > 0).long())
        model = nn.Linear(2, 2, bias=False).double()
        tasks[name] = Task.from_module(name, model, nn.functional.cross_entropy, data, batch_size=100)
        experts[name] = {"weight": torch.stack([-2 * normal, 2 * normal])}
    return MergeProblem({"weight": torch.zeros(2, 2, dtype=torch.float64)}, experts, tasks)


def retentions(problem, merge):
    """What is really there."""
    merged = problem.merged(merge)
    return [t.score(merged) / t.score(problem.experts[n]) for n, t in problem.tasks.items() if n in merge]


def quadratic(seed, count):
    """Positive definite Hessians, each task at its minimum at its expert."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(count, count, count, generator=generator, dtype=torch.float64) / count**0.5
    hessians = root @ root.transpose(1, 2) + 0.2 * torch.eye(count).double()
    return quadratic_problem(hessians, torch.eye(count).double() + 0.1), hessians


def quadratic_gap(hessians, vectors, point):
    """½ (Vλ − τ_i)ᵀ H_i (Vλ − τ_i) of every task, written out."""
    away = point @ vectors - vectors
    return 0.5 * np.einsum("ti,tij,tj->t", away, hessians.numpy(), away)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(3, 4))
def test_the_best_mean_loss_of_quadratic_tasks_is_the_closed_form_optimum(seed, count):
    problem, hessians = quadratic(seed, count)
    vectors = np.eye(count) + 0.1
    # d/dλ Σ ½ (Vᵀλ − τ_i)ᵀ H_i (Vᵀλ − τ_i) = 0
    left = sum(vectors @ h @ vectors.T for h in hessians.numpy())
    optimum = np.linalg.solve(left, sum(vectors @ h @ v for h, v in zip(hessians.numpy(), vectors, strict=True)))
    found = best_coefficients(problem, bounds=(-3.0, 3.0))
    truth = -quadratic_gap(hessians, vectors, optimum).mean()
    spread = abs(truth) + quadratic_gap(hessians, vectors, np.zeros(count)).mean()
    assert found.metric == "loss", "tasks without a score are judged by their loss"
    assert truth - 0.01 * spread <= found.objective.value <= truth + 1e-9
    point = np.array([*found.coefficients.values()])
    assert found.objective.value == pytest.approx(-quadratic_gap(hessians, vectors, point).mean(), abs=1e-8)


def test_pairs_are_searched_on_a_grid_and_their_optimum_is_the_grids():
    problem, hessians = quadratic(1, 2)
    vectors, ticks = np.eye(2) + 0.1, np.linspace(0, 1.5, 16)
    for objective, join in {"mean": np.mean, "worst": np.max}.items():
        truth = min(join(quadratic_gap(hessians, vectors, np.array(p))) for p in itertools.product(ticks, ticks))
        found = best_coefficients(problem, objective=objective).objective.value
        assert found >= -truth - 1e-9, f"{objective}: a point of the grid is better than what was found"


def test_mean_and_worst_differ_as_they_should():
    """One steep task and two flat ones: their mean favours the steep one's expert, the worst of them does too, more."""
    hessians = torch.stack([s * torch.eye(2).double() for s in (9.0, 1.0)])
    problem = quadratic_problem(hessians, torch.eye(2).double())
    mean, worst = (best_coefficients(problem, objective=o, bounds=(0.0, 1.0)) for o in ("mean", "worst"))
    # (9 τ0 + τ1) / 10, and the point on the line where 9 (1 − λ)² = λ².
    assert mean.coefficients == pytest.approx({"task_0": 0.9, "task_1": 0.1})
    assert worst.coefficients == pytest.approx({"task_0": 0.75, "task_1": 0.25}, abs=0.06)
    gaps = [[-(f.prediction.tasks[n].loss.value) for n in problem.names] for f in (mean, worst)]
    assert min(gaps[1]) > min(gaps[0]) and sum(gaps[0]) > sum(gaps[1])
    assert (mean.goal, worst.goal) == ("minus the mean loss gap", "minus the largest loss gap")


def test_shared_coefficient_is_one_number_and_never_better():
    problem = linear_problem(contradiction=True)
    shared, apart = (best_coefficients(problem, shared=flag, metric="loss") for flag in (True, False))
    assert len(set(shared.coefficients.values())) == 1
    assert apart.objective.value >= shared.objective.value
    curve = dict(shared.curve)
    assert max(curve.values()) == pytest.approx(shared.objective.value) and set(curve) <= set(np.arange(31) * 5 / 100)
    for value in (0.0, 0.5, 1.5):
        told = predict_merge(problem, value)
        gaps = [task.loss.value - task.expert_loss for task in told.tasks.values()]
        assert curve[value] == pytest.approx(-np.mean(gaps))


def test_baselines_are_the_objective_at_the_usual_guesses():
    problem = bent_problem()
    found = best_coefficients(problem, metric="loss")
    for label, value in {"average": 0.5, "0.3 each": 0.3, "0.5 each": 0.5, "1 each": 1.0}.items():
        told = predict_merge(problem, value).tasks.values()
        assert found.baselines[label] == pytest.approx(-np.mean([t.loss.value - t.expert_loss for t in told]))
    assert max(found.baselines.values()) <= found.objective.value + 1e-9


@pytest.mark.parametrize("objective", ["mean", "worst"])
@pytest.mark.parametrize("verify", [0, 4])
def test_regret_covers_the_best_of_a_full_grid(objective, verify):
    problem, join = bent_problem(), {"mean": np.mean, "worst": np.min}[objective]
    found = best_coefficients(problem, objective=objective, verify=verify)
    own = join(retentions(problem, found.coefficients))
    ticks = np.linspace(0, 1.5, 16).round(9)
    best = max(join(retentions(problem, {"a": a, "b": b})) for a in ticks for b in ticks)
    assert found.regret.lower == 0 <= found.regret.value <= found.regret.upper
    assert best - own <= found.regret.upper + 1e-12, f"true regret {best - own}, told {found.regret}"
    assert best - own < best - join(retentions(problem, {"a": 0.3, "b": 0.3})), "worse than a usual guess"


def test_regret_of_an_exact_surrogate_is_zero():
    found = best_coefficients(linear_problem(), metric="loss")
    assert found.regret.upper == pytest.approx(0, abs=1e-6)
    assert found.objective.upper - found.objective.lower < 1e-6


def test_at_least_excludes_what_is_better_but_misses_it():
    problem = opposed_problem()
    free, bound = (best_coefficients(problem, metric="loss", at_least=a) for a in (None, {"first": 0.9}))
    assert free.prediction.tasks["first"].retention.value < 0.9, "the case must need the constraint"
    assert 0.9 <= bound.prediction.tasks["first"].retention.value < 0.96, "no more than asked for is given up"
    assert bound.shortfalls == {} and bound.objective.value < free.objective.value
    assert "asked" in str(bound) and bound.regret.upper < 0.1


def test_out_of_reach_is_refuted_and_says_by_how_much():
    """120 degrees apart, what one keeps beyond a third the other lacks: both at 0.95 is 0.57 too much in all."""
    found = best_coefficients(opposed_problem(), at_least={"first": 0.95, "second": 0.95})
    assert found.verdict is Verdict.REFUTED
    assert max(found.shortfalls.values()) == pytest.approx(0.95 - 2 / 3, abs=0.03)
    for name, missing in found.shortfalls.items():
        assert missing == pytest.approx(0.95 - found.prediction.tasks[name].retention.value)
        assert f"{name} falls short by" in str(found)
    assert found.regret.status is Status.UNDEFINED and math.isnan(found.regret.value)


def test_an_interval_across_the_limit_is_undecided_and_a_measurement_decides():
    problem = opposed_problem()
    limits = {"first": 0.66, "second": 0.66}
    assert best_coefficients(problem, at_least=limits).verdict is Verdict.UNDECIDED
    assert best_coefficients(problem, at_least=limits, verify=1).verdict is Verdict.SUPPORTED


def test_without_at_least_the_tolerance_decides():
    problem = opposed_problem()
    strict, loose = (best_coefficients(problem, objective="worst", tolerance=t) for t in (0.1, 0.6))
    assert strict.verdict is Verdict.REFUTED and loose.verdict is Verdict.SUPPORTED
    assert strict.coefficients == loose.coefficients and len(set(strict.coefficients.values())) == 1
    assert strict.objective.value == pytest.approx(2 / 3, abs=0.02)


@pytest.mark.parametrize("verify", [0, 1, 4])
def test_merges_are_evaluated_as_often_as_asked_and_no_more(verify, monkeypatch):
    problem, merged = bent_problem(), []
    original = MergeProblem.merged

    def recorded(self, given):
        merged.append(original(self, given))
        return merged[-1]

    monkeypatch.setattr(MergeProblem, "merged", recorded)
    points = []
    for task in problem.tasks.values():
        outputs = task.outputs
        monkeypatch.setattr(task, "outputs", lambda params, outputs=outputs: points.append(params) or outputs(params))
    found = best_coefficients(problem, verify=verify)
    evaluated = sum(any(params is each for each in merged) for params in points)
    assert (len(merged), evaluated, found.evaluations, len(found.evaluated)) == (verify, 2 * verify, verify, verify)
    # What the predictions rest on is measured whatever is asked: the base, and both experts' rays at three points.
    assert len(points) - evaluated == 2 * (1 + 2 * 3)
    assert found.cost.forwards == predict_merge(problem, 0.5).cost.forwards + 2 * verify
    assert found.candidates > 250


def test_what_is_measured_decides():
    problem = bent_problem()
    found = best_coefficients(problem, verify=5)
    for each in found.evaluated:
        assert each.measured == pytest.approx(np.mean(retentions(problem, each.coefficients)))
    best = max(found.evaluated, key=lambda each: each.measured)
    assert found.objective.value == pytest.approx(best.measured) and found.objective.status is Status.EXACT
    assert found.objective.lower == found.objective.value == found.objective.upper
    assert np.mean(retentions(problem, found.coefficients)) == pytest.approx(best.measured)
    points = np.array([[*each.coefficients.values()] for each in found.evaluated])
    apart = [np.abs(u - v).max() for u, v in itertools.combinations(points, 2)]
    assert min(apart) > 0.1 - 1e-9, "evaluations of nearly equal merges are wasted"


def test_a_measurement_can_refute_what_was_predicted(monkeypatch):
    """A surrogate that promises everything is caught by one evaluation."""
    problem = opposed_problem()
    told = Landscape.predict
    high = lambda self, points: Outcomes(told(self, points).gaps, 1 + 0 * told(self, points).retentions)  # noqa: E731
    monkeypatch.setattr(Landscape, "predict", high)
    limits = {"first": 0.9, "second": 0.9}
    found = best_coefficients(problem, at_least=limits, verify=2)
    assert found.verdict is Verdict.REFUTED and found.shortfalls


def test_tasks_without_outputs_are_measured_by_their_loss():
    problem, hessians = quadratic(2, 2)
    found = best_coefficients(problem, verify=1)
    point = np.array([*found.coefficients.values()])
    assert found.objective.value == pytest.approx(-quadratic_gap(hessians, np.eye(2) + 0.1, point).mean())
    assert found.verdict is Verdict.UNDECIDED, "without a score nothing is known about retention"


def test_the_same_seed_gives_the_same_choice_and_some_experts_are_enough():
    results = []
    for _ in range(2):
        problem, _ = quadratic(5, 4)
        results.append(best_coefficients(problem, ["task_3", "task_0", "task_1"], seed=4))
    assert results[0].coefficients == results[1].coefficients and results[0].candidates == results[1].candidates
    assert list(results[0].coefficients) == ["task_0", "task_1", "task_3"], "in the order of the problem"


def test_one_expert_alone_needs_a_coefficient_of_one():
    found = best_coefficients(quadratic(0, 2)[0], ["task_1"])
    assert found.coefficients == {"task_1": 1.0} and found.objective.value == pytest.approx(0, abs=1e-9)


def test_ties_in_retention_are_broken_by_the_loss():
    """Where every merge keeps everything, the one with the least loss is taken; without the rule it would not be."""
    problem = linear_problem()
    found = best_coefficients(problem)
    assert found.objective.value == pytest.approx(1.0)
    assert found.coefficients == pytest.approx({"first": 1.5, "second": 1.5}), "the largest margin has the least loss"
    aim, same = Aim("retention", "mean", np.array([-np.inf])), Outcomes(np.array([[0.2], [0.1]]), np.ones((2, 1)))
    assert aim.value(same)[0] == aim.value(same)[1] and aim.merit(same)[0] < aim.merit(same)[1]


def test_caution_prefers_the_sure_one_of_two_that_look_alike():
    """The best of many is too good: of two finalists with like predictions the narrower interval goes first."""
    aim = Aim("loss", "mean", np.array([-np.inf]))
    landscape = Landscape([], aim)
    predicted = Outcomes(np.array([[0.10], [0.11]]), np.full((2, 1), np.nan))
    half = Outcomes(np.array([[0.5], [0.01]]), np.full((2, 1), np.nan))
    assert finalists._with_caution(landscape, predicted, half) == [1, 0]
    bold = Outcomes(0 * half.gaps, half.retentions)
    assert finalists._with_caution(landscape, predicted, bold) == [0, 1], "the mutant that believes its predictions"


def test_a_lucky_reading_is_not_taken_for_the_nearest():
    """Where nothing meets what is asked, a high retention that rests on noise goes behind a sure one."""
    aim = Aim("retention", "mean", np.array([0.95]))
    predicted, half = (
        Outcomes(np.zeros((2, 1)), np.array([[0.94], [0.67]])),
        Outcomes(np.zeros((2, 1)), np.array([[0.5], [0.01]])),
    )
    assert finalists._with_caution(Landscape([], aim), predicted, half) == [1, 0]


def test_a_scan_is_the_reading_of_single_points():
    problem = bent_problem(batch_size=7)
    surrogate = merge_parts(problem, {"a": 1.0, "b": 1.0}, "task_arithmetic", {}).surrogates(problem, ["a"])[0]
    points = np.array([[0.2, 0.9], [1.0, 0.0], [0.7, 1.3]])
    losses, scores = surrogate.scan(points)
    for point, loss, score in zip(points, losses, scores, strict=True):
        reading = surrogate.read(surrogate.outputs(dict(zip("ab", point, strict=True))))
        assert (loss, score) == (pytest.approx(reading.loss), pytest.approx(reading.score))


def test_paired_differences_are_narrower_than_apart_and_nothing_from_itself():
    problem = bent_problem()
    surrogate = merge_parts(problem, {"a": 1.0, "b": 1.0}, "task_arithmetic", {}).surrogates(problem, ["a"])[0]
    points = np.array([[1.2, 1.2], [1.3, 1.2], [0.4, 0.4]])
    paired = [each.loss for each in surrogate.envelopes(points, 0)]
    single = [surrogate.envelope(p).loss for p in (dict(zip("ab", q, strict=True)) for q in points)]
    assert paired[0] == 0 and paired[1] < 0.5 * single[0], "neighbours err together"
    assert paired[2] > paired[1] and paired[2] < single[0] + single[2]


def test_many_envelopes_are_those_of_single_points():
    problem = bent_problem(count=4000, batch_size=1500)
    surrogate = merge_parts(problem, {"a": 1.0, "b": 1.0}, "task_arithmetic", {}).surrogates(problem, ["a"])[0]
    points = np.array([[1.2, 1.2], [0.4, 0.9]])
    for point, found in zip(points, surrogate.envelopes(points), strict=True):
        at = dict(zip("ab", point, strict=True))
        single = surrogate.envelope(at)
        assert (found.loss, found.score) == (pytest.approx(single.loss, rel=0.1), pytest.approx(single.score, rel=0.2))


def test_a_score_that_looks_at_single_numbers_is_read_point_by_point():
    def score(outputs, targets):
        return torch.tensor(
            [float(out.argmax().item() == target) for out, target in zip(outputs, targets, strict=True)]
        )

    problem = opposed_problem(count=20)
    readouts = {n: dataclasses.replace(t.readout, score=lambda o, b: score(o, b[1])) for n, t in problem.tasks.items()}
    fast = best_coefficients(problem, objective="worst", shared=True)
    slow = opposed_problem(count=20)
    for name, task in slow.tasks.items():
        task.readout = readouts[name]
    assert best_coefficients(slow, objective="worst", shared=True).to_dict() == fast.to_dict()


def test_points_that_are_told_apart_go_first():
    points = np.array([[0.0, 0.0], [0.05, 0.0], [0.3, 0.0], [0.3, 0.09]])
    assert distinct(points, range(4), 2, 0.1) == [0, 2]
    assert distinct(points, range(4), 3, 0.1) == [0, 1, 2], "where too few differ, the next best fill up"


def test_search_looks_inside_its_bounds_only():
    seen = []
    search(lambda p: (seen.append(p), p.sum(1))[1], 4, (-0.5, 0.7), shared=False, seed=1)
    points = np.vstack(seen)
    assert points.min() >= -0.5 and points.max() == pytest.approx(0.7)
    assert len(points) > 512 and (points == 0.7).all(1).any(), "the corner is the best point"


BAD = {
    "unknown expert": ({"experts": ["first", "third"]}, "experts: expected different names"),
    "an expert twice": ({"experts": ["first", "first"]}, "experts: expected different names"),
    "a string": ({"experts": "first"}, "experts: expected different names"),
    "no expert": ({"experts": []}, "experts: expected different names"),
    "objective": ({"objective": "median"}, "objective: expected one of"),
    "metric": ({"metric": "accuracy"}, "metric: expected one of"),
    "bounds": ({"bounds": (1.0, 1.0)}, "bounds: expected two numbers"),
    "endless bounds": ({"bounds": (0.0, math.inf)}, "bounds: expected two numbers"),
    "tolerance": ({"tolerance": 1.0}, "tolerance"),
    "verify": ({"verify": -1}, "verify: expected a whole number"),
    "seed": ({"seed": 0.5}, "seed: expected a whole number"),
    "asked of nobody": ({"at_least": {"third": 0.9}}, "at_least: expected experts that take part"),
    "asked of one left out": ({"experts": ["first"], "at_least": {"second": 0.9}}, "at_least: expected experts"),
    "percent": ({"at_least": {"first": 95}}, "at_least: expected a share"),
    "nan": ({"at_least": {"first": math.nan}}, "at_least: expected a share"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    options, message = BAD[name]
    with pytest.raises(InputError, match=message):
        best_coefficients(linear_problem(), **options)


@pytest.mark.parametrize("options", [{"metric": "retention"}, {"at_least": {"task_0": 0.9}}])
def test_retention_is_refused_where_there_is_no_score(options):
    with pytest.raises(InputError, match="expected tasks whose expert has a score above zero"):
        best_coefficients(quadratic(0, 2)[0], **options)


@pytest.mark.parametrize("verify", [0, 2])
def test_text_fits_a_terminal_and_the_result_is_json(verify):
    found = best_coefficients(opposed_problem(), at_least={"first": 0.9, "second": 0.9}, verify=verify)
    assert max(map(len, str(found).splitlines())) <= 80
    stored = json.loads(json.dumps(found.to_dict()))
    assert stored["coefficients"] == found.coefficients and len(stored["evaluated"]) == verify
    assert len(stored["curve"]) == 31
