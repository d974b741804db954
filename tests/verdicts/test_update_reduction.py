"""reduction_costs: an independent slow definition, known answers, errors that are told, and refusals."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from diagnostics import InputError, MergeProblem, Task
from diagnostics.inputs.zoo import quadratic_problem
from diagnostics.measures.output_jets import OutputJet, output_jet
from diagnostics.measures.reductions import Reducer, Reduction
from diagnostics.measures.update_structure import update_structure
from diagnostics.results import Status
from diagnostics.verdicts import update_reduction as module
from diagnostics.verdicts.update_reduction import reduction_costs
from tests.cases import small_task


def network_problem(seed=0, scale=0.5, experts=("a", "b"), count=40):
    """A small network, and experts at random places around it."""
    _, base = small_task(seed=seed)
    generator = torch.Generator().manual_seed(seed + 100)
    moved = {
        name: {
            key: value + scale * torch.randn(value.shape, generator=generator, dtype=torch.float64)
            for key, value in base.items()
        }
        for name in experts
    }
    tasks = {name: small_task(name, seed + i, count=count, batch_size=16)[0] for i, name in enumerate(experts)}
    return MergeProblem(base, moved, tasks)


def slow_reduction(tensor, reduction):
    """The definition in numpy, by the whole singular value decomposition or by sorting rows."""
    matrix = tensor.numpy()
    if matrix.ndim < 2:
        return matrix
    if reduction.kind == "rank":
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        return sum(values[i] * np.outer(left[:, i], right[i]) for i in range(min(reduction.amount, len(values))))
    kept = sorted(range(len(matrix)), key=lambda i: -np.linalg.norm(matrix[i]))
    kept = kept[: max(1, round(reduction.amount * len(matrix)))]
    return np.stack([row if i in kept else 0 * row for i, row in enumerate(matrix)])


def slow_losses(problem, name, lambdas, reduction=None, step=1.0):
    """Losses of each example at θ* + step · v, every part of it written out."""
    point = {key: value.clone() for key, value in problem.base.items()}
    for expert, weight in lambdas.items():
        for key, vector in problem.task_vectors[expert].items():
            part = vector if reduction is None else torch.tensor(slow_reduction(vector, reduction))
            point[key] += weight * (vector + step * (part - vector))
    task = problem.tasks[name]
    pairs = zip(task.outputs(point), task.batches, strict=True)
    losses = [torch.nn.functional.cross_entropy(out, batch[1], reduction="none") for out, batch in pairs]
    outputs = torch.cat([*task.outputs(point)])
    return outputs, torch.cat(losses), torch.cat([batch[1] for batch in task.batches])


def slow_prediction(problem, name, lambdas, reduction):
    """Taylor to second order in the step, from central differences."""
    step = 1e-3
    ahead, here, behind = (slow_losses(problem, name, lambdas, reduction, s)[0] for s in (step, 0.0, -step))
    targets = slow_losses(problem, name, lambdas)[2]
    told = here + (ahead - behind) / (2 * step) + (ahead - 2 * here + behind) / step**2 / 2
    loss = torch.nn.functional.cross_entropy
    return float(loss(told, targets) - loss(here, targets))


def check_against_slow(problem, name, lambdas, report):
    before = slow_losses(problem, name, lambdas)[1]
    for cost in report.costs:
        after = slow_losses(problem, name, lambdas, cost.reduction)[1]
        assert cost.measured.value == pytest.approx(float((after - before).mean()), abs=1e-9), cost
        assert cost.predicted.value == pytest.approx(
            slow_prediction(problem, name, lambdas, cost.reduction), abs=2e-6
        ), cost


SETTINGS = {"ranks": (1, 2), "rows": (0.25, 0.5)}


@pytest.mark.parametrize("lambdas", [None, {"a": 0.5, "b": 0.5}, {"a": 1.0, "b": -0.7}])
@pytest.mark.parametrize("seed", range(3))
def test_costs_are_those_of_the_definition(seed, lambdas):
    problem = network_problem(seed)
    report = reduction_costs(problem, "a", **SETTINGS, coefficients=lambdas)
    check_against_slow(problem, "a", lambdas or {"a": 1.0}, report)


MUTANTS = {
    "first order alone": (OutputJet, "at_one", lambda self, order: _at_one(self, min(order, 1))),
    "whole second derivative": (OutputJet, "at_one", lambda self, order: _at_one(self, 3)),
    "smallest rows": (module.Reducer, "reduce", lambda self, reduction, random=False: _smallest(self)),
}


def _at_one(jet, order):
    factor = {0: (0, 0), 1: (1, 0), 2: (1, 0.5), 3: (1, 1)}[order]
    parts = zip(jet.value, jet.slope, jet.curvature, strict=True)
    return [f + factor[0] * j + factor[1] * d for f, j, d in parts]


def _smallest(reducer):
    return {name: -tensor for name, tensor in reducer.vector.items()}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_check_catches_mutants(mutant, monkeypatch):
    owner, attribute, wrong = MUTANTS[mutant]
    monkeypatch.setattr(owner, attribute, wrong)
    problem = network_problem(0)
    with pytest.raises(AssertionError, match=r"ReductionCost|approx"):
        check_against_slow(problem, "a", {"a": 1.0}, reduction_costs(problem, "a", **SETTINGS))


def test_a_quadratic_loss_is_predicted_exactly():
    hessians = torch.tensor([[[2.0, 0.5], [0.5, 1.0]], [[1.0, 0.0], [0.0, 3.0]]]).double()
    flat = quadratic_problem(hessians, torch.tensor([[1.0, 2.0], [2.0, -1.0]]).double())
    tasks = {name: task.through(lambda p: {"w": p["w"].flatten()}) for name, task in flat.tasks.items()}
    problem = MergeProblem(
        {"w": torch.zeros(2, 1).double()}, {n: {"w": e["w"][:, None]} for n, e in flat.experts.items()}, tasks
    )
    report = reduction_costs(problem, "task_0", ranks=[], rows=[0.5], coefficients={"task_0": 0.8, "task_1": 0.3})
    cost = report.costs[0]
    # Rows kept: 2 of (1, 2), and 2 of (2, −1): away by −0.8 in the first and +0.3 in the second place.
    before, after = (torch.tensor(w, dtype=torch.float64) - torch.tensor([1.0, 2.0]) for w in ([1.4, 1.3], [0.6, 1.6]))
    rise = 0.5 * float(after @ hessians[0] @ after - before @ hessians[0] @ before)
    assert cost.predicted.value == pytest.approx(rise, abs=1e-12) == cost.measured.value
    assert cost.predicted.lower <= rise <= cost.predicted.upper
    assert report.gain.value == pytest.approx(
        0.5 * float(torch.tensor([1.0, 2.0]).double() @ hessians[0] @ torch.tensor([1.0, 2.0]).double())
        - 0.5 * float(before @ hessians[0] @ before)
    )
    assert (cost.measured.lower, cost.score) == (-math.inf, None) and "no loss by example" in cost.measured.evidence


def test_what_drops_nothing_costs_nothing():
    report = reduction_costs(network_problem(), "a", ranks=[99], rows=[1.0])
    for cost in report.costs:
        assert cost.predicted.value == 0 and cost.predicted.status is Status.EXACT
        assert cost.measured.value == pytest.approx(0, abs=1e-12) and cost.distance == 0 and cost.numbers == 1


def test_distance_is_what_the_structure_says_is_lost():
    problem = network_problem(5)
    structure = update_structure(problem.base, problem.experts["a"])
    report = reduction_costs(problem, "a", ranks=[1, 2, 3], rows=[0.5], predict=False)
    for rank, cost in zip((1, 2, 3), report.costs, strict=False):
        assert 1 - cost.distance**2 == pytest.approx(structure.kept(rank).value)
        assert cost.numbers == pytest.approx(structure.numbers(rank)) and cost.predicted is None
    assert 1 - report.costs[3].distance ** 2 == pytest.approx(structure.held(0.5))


def test_identical_experts_at_one_half_are_one_expert():
    problem = network_problem()
    twin = MergeProblem(
        problem.base,
        {"a": problem.experts["a"], "b": problem.experts["a"]},
        {"a": problem.tasks["a"], "b": problem.tasks["b"]},
    )
    alone, both = (reduction_costs(twin, "a", **SETTINGS, coefficients=each) for each in (None, 0.5))
    for one, two in zip(alone.costs, both.costs, strict=True):
        assert one.predicted.value == pytest.approx(two.predicted.value)
        assert (one.measured.value, one.distance) == pytest.approx((two.measured.value, two.distance))


def test_the_error_told_holds_what_is_measured():
    """40 networks, four reductions each, a number fixed beforehand; the intervals say nine in ten."""
    costs = [cost for seed in range(40) for cost in reduction_costs(network_problem(seed, 0.4), "a", **SETTINGS).costs]
    held = sum(cost.predicted.lower <= cost.measured.value <= cost.predicted.upper for cost in costs)
    assert 0.8 <= held / len(costs) <= 0.99, held
    naive = sum(
        abs(cost.measured.value - cost.predicted.value) <= (cost.predicted.upper - cost.predicted.value) / 10
        for cost in costs
    )
    assert naive / len(costs) < 0.6, "the control, a tenth of the width, must not hold"


def test_an_expansion_that_reaches_too_far_is_tainted():
    near, far = (reduction_costs(network_problem(3, scale), "a", ranks=[1], rows=[]).costs[0] for scale in (0.1, 6.0))
    assert near.predicted.status is Status.CONVERGED
    assert not far.predicted.lower <= far.measured.value, "a wrong number, so it must not be trusted"
    assert far.predicted.status is Status.TAINTED and "the third order moves losses" in far.predicted.evidence
    assert "(tainted)" in str(far)


def test_measured_changes_are_paired():
    problem = network_problem(2, count=400)
    report = reduction_costs(problem, "a", ranks=[2], rows=[], predict=False)
    cost = report.costs[0]
    before, after = (slow_losses(problem, "a", {"a": 1.0}, each)[1] for each in (None, Reduction("rank", 2)))
    error = float((after - before).std()) / math.sqrt(400)
    assert (cost.measured.upper - cost.measured.value) / error == pytest.approx(1.6487, abs=1e-3)
    unpaired = math.hypot(float(before.std()), float(after.std())) / math.sqrt(400)
    assert error < unpaired
    assert cost.score.lower <= cost.score.value <= cost.score.upper
    gained = slow_losses(problem, "a", {"a": 0.0})[1] - before
    assert report.gain.value == pytest.approx(float(gained.mean()))
    assert report.gain.upper - report.gain.value == pytest.approx(1.6487 * float(gained.std()) / 20, rel=1e-3)


def test_cost_is_what_is_spent(monkeypatch):
    problem = network_problem()
    runs, jets = [], []
    original, original_jet = module.model_outputs, module.output_jet
    monkeypatch.setattr(module, "model_outputs", lambda *args: runs.append(1) or original(*args))
    monkeypatch.setattr(module, "output_jet", lambda *args: jets.append(1) or original_jet(*args))
    for options in ({}, {"predict": False}, {"measure": False}):
        runs.clear(), jets.clear()
        report = reduction_costs(problem, "a", **SETTINGS, **options)
        assert (report.cost.forwards, report.cost.jvps) == (len(runs) + len(jets), 3 * len(jets)), options
    assert all(cost.measured is cost.random is cost.score is None for cost in report.costs)


def test_the_best_part_costs_less_than_a_random_one():
    better = [
        cost.measured.value < cost.random.value
        for seed in range(12)
        for cost in reduction_costs(expert_like(seed), "t", ranks=[1], rows=[0.25], predict=False, seed=seed).costs
    ]
    assert sum(better) / len(better) > 0.9


def expert_like(seed):
    """A linear expert whose update has one strong direction and one strong row."""
    generator = torch.Generator().manual_seed(seed)
    weight = 0.05 * torch.randn(4, 8, generator=generator).double()
    weight[1] += torch.randn(8, generator=generator).double()
    inputs = torch.randn(60, 8, generator=generator).double()
    data = (inputs, (inputs @ weight.T).argmax(1))
    task = Task.from_module("t", torch.nn.Linear(8, 4, bias=False).double(), torch.nn.functional.cross_entropy, data)
    return MergeProblem({"weight": torch.zeros(4, 8).double()}, {"t": {"weight": weight}}, {"t": task})


class TestReducer:
    @settings(max_examples=40)
    @given(shape=st.tuples(st.integers(1, 8), st.integers(1, 8)), seed=st.integers(0, 10**6), rank=st.integers(1, 9))
    def test_best_part_is_that_of_the_decomposition(self, shape, seed, rank):
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()
        reducer = Reducer({"w": matrix}, 9, seed)
        np.testing.assert_allclose(
            reducer.reduce(Reduction("rank", rank))["w"], slow_reduction(matrix, Reduction("rank", rank)), atol=1e-8
        )
        random = reducer.reduce(Reduction("rank", rank), random=True)["w"]
        assert torch.linalg.matrix_rank(random) <= rank
        # A projection: what is left stands at right angles to what went.
        assert float((random * (matrix - random)).sum()) == pytest.approx(0, abs=1e-9)

    def test_vectors_are_whole_and_convolutions_are_matrices(self):
        vector = {"bias": torch.ones(3), "conv": torch.randn(4, 3, 2, 2), "none": torch.zeros(0, 2)}
        part = Reducer(vector, 1).reduce(Reduction("rank", 1))
        assert torch.equal(part["bias"], vector["bias"]) and part["none"].shape == (0, 2)
        assert part["conv"].shape == (4, 3, 2, 2) and torch.linalg.matrix_rank(part["conv"].flatten(1)) == 1
        rows = Reducer(vector, 1).reduce(Reduction("rows", 0.5), random=True)["conv"]
        assert int((rows.flatten(1) != 0).any(1).sum()) == 2

    def test_ties_and_zero_rows_keep_the_number_of_rows(self):
        part = Reducer({"w": torch.ones(4, 2)}, 1).reduce(Reduction("rows", 0.5))["w"]
        assert part.tolist() == [[1, 1], [1, 1], [0, 0], [0, 0]]


def test_output_jet_refuses_what_is_no_number():
    task = Task("t", lambda p, b: (p["w"].sum() * 1e30) ** 2, [torch.zeros(1)])
    with pytest.raises(InputError, match="expected finite outputs and derivatives"):
        output_jet(task, {"w": torch.ones(1)}, {"w": torch.ones(1)})


@pytest.mark.parametrize("activation", [torch.nn.SiLU, torch.nn.GELU, lambda: torch.nn.LayerNorm(5)])
def test_output_jet_is_that_of_differences_of_outputs(activation):
    """Forward mode twice is refused for SiLU, and silently wrong for LayerNorm."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), activation(), torch.nn.Linear(5, 2)).double()
    data = (torch.randn(7, 3).double(), torch.arange(7) % 2)
    task = Task.from_module("t", model, torch.nn.functional.cross_entropy, data, batch_size=4)
    point = {name: value.detach() for name, value in model.named_parameters()}
    move = {name: torch.randn_like(value) for name, value in point.items()}
    step = 1e-3
    behind, here, ahead = (
        torch.cat(task.outputs({name: value + s * move[name] for name, value in point.items()}))
        for s in (-step, 0.0, step)
    )
    found = output_jet(task, point, move)
    truth = (here, (ahead - behind) / (2 * step), (ahead - 2 * here + behind) / step**2)
    for part, value in zip((found.value, found.slope, found.curvature), truth, strict=True):
        torch.testing.assert_close(torch.cat(part), value, rtol=1e-4, atol=1e-4)


def test_language_models_can_be_asked():
    """Llama's SiLU and attention, with losses summed over tokens."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=16, num_key_value_heads=1, pad_token_id=None, **sizes))
    examples = [([3, 4], [5, 6]), ([7], [8, 9, 10]), ([1, 2, 3], [4])]
    task = Task.from_causal_lm("t", model, None, examples, instruction=[6], bos=0)
    base = {name: value.detach() for name, value in model.named_parameters()}
    expert = {name: value + 0.001 * torch.randn_like(value) for name, value in base.items()}
    problem = MergeProblem(base, {"t": expert}, {"t": task})
    cost = reduction_costs(problem, "t", ranks=[2], rows=[]).costs[0]
    assert cost.predicted.value == pytest.approx(cost.measured.value, rel=0.05)
    assert cost.predicted.lower <= cost.measured.value <= cost.predicted.upper


def test_reports_print_and_are_json():
    report = reduction_costs(network_problem(), "a", **SETTINGS, coefficients=0.5)
    assert "a at +0.5 a +0.5 b: loss" in str(report) and "rank 1: loss" in str(report)
    assert "0.25 of the rows" in str(report) and "measured (random:" in str(report)
    again = json.loads(json.dumps(report.to_dict()))
    assert again["costs"][0]["reduction"] == {"kind": "rank", "amount": 1}
    blind = dataclasses.replace(report.costs[0], measured=None, random=None)
    assert "measured" not in str(blind)


BAD = {
    "task": ({"name": "c"}, "name: expected a task of ['a', 'b']; found 'c'"),
    "rank": ({"ranks": [0]}, "ranks: expected a whole number from 1 on; found 0"),
    "fraction": ({"ranks": [1.5]}, "ranks: expected a whole number from 1 on; found 1.5"),
    "rows": ({"rows": [25]}, "rows: expected a share of the rows above 0 and up to 1; found 25"),
    "nothing": ({"ranks": [], "rows": []}, "expected at least one reduction"),
    "neither": ({"predict": False, "measure": False}, "predict and measure: expected one of them"),
    "confidence": ({"confidence": 90}, "confidence: expected a number between 0 and 1; found 90"),
    "zero": ({"coefficients": 0.0}, "expected updates that move the base"),
    "unknown": ({"coefficients": {"c": 1.0}}, "expected one of the experts ['a', 'b']; found 'c'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_are_refused(case):
    options, message = BAD[case]
    with pytest.raises(InputError) as caught:
        reduction_costs(network_problem(), **{"name": "a", **options})
    assert message in str(caught.value)


def test_a_reduction_of_another_kind_is_refused():
    with pytest.raises(InputError, match="kind: expected 'rank' or 'rows'; found 'columns'"):
        Reduction("columns", 1)
