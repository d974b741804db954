"""disentanglement_error: zero for disjoint supports, else a count by hand; intervals that cover; refusals."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from diagnostics import InputError, Task
from diagnostics.inputs.zoo import quadratic_problem
from diagnostics.results import Cost, Status
from diagnostics.verdicts.disentanglement import GRID, disentanglement_error, disentanglement_errors
from diagnostics.verdicts.disturbance import Disturbance
from tests.verdicts.disentanglement_cases import (
    PAIR,
    counted,
    disjoint_problem,
    forward_by_hand,
    linear_problem,
    network_problem,
    problem_of,
    regression_problem,
    token_problem,
)


def matches_the_count(problem, grid):
    """Whether every entry is what a loop over examples gives."""
    found = disentanglement_error(problem, *PAIR, grid, differential=False)
    for i, j in itertools.product(range(len(grid)), repeat=2):
        hard, soft = counted(problem, grid[i], grid[j])
        assert found.values[i, j].item() == pytest.approx(sum(hard.values()), abs=1e-12)
        assert found.soft.values[i, j].item() == pytest.approx(sum(soft.values()), abs=1e-9)
        assert {name: part.values[i, j].item() for name, part in found.hard_by_task.items()} == pytest.approx(hard)
        assert {name: part.values[i, j].item() for name, part in found.soft_by_task.items()} == pytest.approx(soft)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10_000),
    grid=st.lists(st.sampled_from([-2.0, -1.3, -0.5, 0.0, 0.4, 1.0, 1.7]), min_size=1, max_size=3, unique=True),
)
def test_values_are_those_of_a_count_by_hand(seed, grid):
    matches_the_count(network_problem(seed), grid)


class AtOne(Disturbance):
    """Compares the merge with the expert at λ = 1."""

    def __init__(self, problem, task, other, points, divergence):
        fixed = {key: value + problem.task_vectors[task.name][key] for key, value in problem.base.items()}
        super().__init__(problem, Ray(task, fixed), other, points, divergence)


class Ray(Task):
    """A task whose first, and so cached, output of every kind is that of one model."""

    def __init__(self, task, fixed):
        super().__init__(task.name, task.loss, task.batches, sizes=task.sizes, readout=task.readout)
        self.fixed, self.calls = fixed, 0

    def outputs(self, params):
        self.calls += 1
        return super().outputs(self.fixed if self.calls == 1 else params)


def against_labels(one, other):
    return one.per_example(torch.zeros(len(one.choice)) != other.choice.argmax(1))


def other_task_only(parts):
    return parts[-1]


@pytest.mark.parametrize(
    ("target", "mutant"),
    [
        ("diagnostics.measures.disagreement.Predictions.differs", against_labels),
        ("diagnostics.verdicts.disentanglement.Disturbance", AtOne),
        ("diagnostics.verdicts.disentanglement.add_up", other_task_only),
    ],
    ids=["labels instead of predictions", "the expert at 1 instead of λ", "one task only"],
)
def test_a_wrong_formula_fails_the_same_check(target, mutant, monkeypatch):
    matches_the_count(network_problem(3), [0.5, 1.7])
    monkeypatch.setattr(target, mutant)
    with pytest.raises(AssertionError):
        matches_the_count(network_problem(3), [0.5, 1.7])


@pytest.mark.parametrize("seed", range(3))
def test_disjoint_supports_are_exactly_disentangled(seed):
    found = disentanglement_error(disjoint_problem(seed), *PAIR)
    for table in (found.values, found.stderr, found.soft.values):
        assert torch.equal(table, torch.zeros(7, 7).double())
    for each in found.differential.values():
        assert each.raw.value == each.centred.value == each.relative.value == 0 < each.own.value
        assert math.isinf(each.raw.upper), "20 inputs that do not move do not bound the others"
    assert found.mean.value == 0 < found.mean.upper and found.radius() == (0.0, 2.0)


def test_zeros_of_a_sample_leave_room_and_zeros_by_definition_do_not():
    found = disentanglement_error(disjoint_problem(), *PAIR, [0.0, 1.0])
    # Nothing was seen in 20 examples: up to 1 − 0.05^(1/20) may differ, for both tasks the root of 2 times that.
    one = 1 - 0.05 ** (1 / 20)
    expected = torch.tensor([[0, one], [one, math.sqrt(2) * one]]).double()
    assert torch.allclose(found.hard.upper, expected) and torch.allclose(found.soft.upper, expected)
    assert found.at(0, 0).status is Status.EXACT and found.at(0, 1).status is Status.CONVERGED


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_linear_models_differential_and_soft_form_are_zero_together(shift):
    """For a model linear in its parameters the centred form is zero exactly if ξ is, at every λ."""
    problem = disjoint_problem()
    weights = [problem.task_vectors[name]["weight"] for name in PAIR]
    inputs = [torch.cat([batch for batch, _ in problem.tasks[name].batches]) for name in PAIR]
    alike = torch.stack([torch.full((3,), 1.5), torch.tensor([2.0, 2.0, 2.0])]).double()
    alike[1, 0] += shift
    found = disentanglement_error(linear_problem(weights, inputs, bias=alike), *PAIR, [-1.0, 0.5, 2.0])
    moved = found.differential["first"]
    assert moved.raw.value == pytest.approx(alike[1].norm().item()), "the same number added to all logits is seen here"
    assert (moved.centred.value > 1e-12) == (shift > 0) == bool((found.soft_by_task["first"].values > 1e-12).all())
    assert found.soft_by_task["second"].values.max() < 1e-12 and found.differential["second"].centred.value < 1e-12


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 10))
def test_between_zero_and_two_and_symmetric(seed, scale):
    grid = [-2.0, 0.0, 1.0]
    problem = network_problem(seed, scale=scale)
    one, two = (disentanglement_error(problem, *pair, grid) for pair in (PAIR, PAIR[::-1]))
    for form in ("hard", "soft"):
        table, turned = getattr(one, form), getattr(two, form)
        assert table.values.min() >= 0 and table.values.max() <= 2
        assert (table.lower <= table.values).all() and (table.values <= table.upper).all() and table.upper.max() <= 2
        for key in ("values", "stderr", "lower", "upper"):
            assert torch.allclose(getattr(table, key), getattr(turned, key).T, atol=1e-12)
    assert one.differential == two.differential and one.cost == two.cost
    assert torch.equal(torch.diag(one.values)[1], torch.tensor(0.0).double())


def test_identical_opposite_and_scaled_experts():
    identical, opposite, triple = (network_problem(8, second=factor) for factor in (1.0, -1.0, 3.0))
    # θ0 + λτ + λτ is the expert at 2λ; taking the opposite adds up to the base.
    same = disentanglement_error(identical, *PAIR, [1.0])
    assert same.values.item() == pytest.approx(sum(counted(identical, 1.0, 1.0)[0].values())) and same.values > 0
    for each in same.differential.values():
        assert each.relative.value == pytest.approx(1) == each.relative_centred.value
    away = disentanglement_error(opposite, *PAIR, [1.0])
    alone = torch.cat(opposite.tasks["first"].outputs(opposite.experts["first"])).argmax(1)
    base = torch.cat(opposite.tasks["first"].outputs(opposite.base)).argmax(1)
    assert away.hard_by_task["first"].values.item() == pytest.approx((alone != base).double().mean().item())
    # The vector three times as long reaches the same merges at a third of the coefficient.
    stretched = disentanglement_error(triple, *PAIR, [(1.0, 1 / 3)], differential=True)
    assert stretched.hard_by_task["first"].values.item() == same.hard_by_task["first"].values.item()
    assert stretched.differential["first"].relative.value == pytest.approx(3)


def test_a_zero_vector_disturbs_nothing_and_is_named():
    found = disentanglement_error(network_problem(1, second=0.0), *PAIR, [-1.0, 1.0])
    assert found.hard_by_task["first"].upper.max() == 0, "no sample is needed to know this"
    assert found.differential["first"].raw.status is Status.EXACT
    assert found.differential["second"].relative.status is Status.UNDEFINED
    assert "identical to the base, so nothing to disturb by it: second" in str(found)
    assert found.cost == Cost(forwards=2 + 0 + 2 + 4, jvps=4)


def test_costs_count_what_is_run():
    problem = network_problem(0)
    runs = dict.fromkeys(PAIR, 0)
    for name in PAIR:
        task, plain = problem.tasks[name], problem.tasks[name].readout.outputs

        def counting(params, batch, name=name, plain=plain):
            runs[name] += 1
            return plain(params, batch)

        object.__setattr__(task.readout, "outputs", counting)
    found = disentanglement_error(problem, *PAIR, differential=False)
    batches = sum(len(problem.tasks[name].sizes) for name in PAIR)
    assert found.cost.forwards == 2 * (7 + 42) == 2 * sum(runs.values()) / batches
    disentanglement_error(problem, *PAIR, [1.0], differential=False)
    assert 2 * sum(runs.values()) / batches == 98 + 2, "what an expert says alone is computed once"


def test_a_list_of_points_and_a_limit_on_batches():
    problem = network_problem(2)
    whole = disentanglement_error(problem, *PAIR, [0.5, 1.0])
    listed = disentanglement_error(problem, *PAIR, [(0.5, 1.0), (1.0, 1.0)])
    assert listed.values.tolist() == whole.values[:, 1].tolist()
    assert listed.at(0.5, 1.0) == whole.at(0.5, 1.0)
    some = disentanglement_error(problem, *PAIR, [1.0], max_batches=2)
    cut = [torch.cat([b for b, _ in list(problem.tasks[name].batches)[:2]]) for name in PAIR]
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    small = problem_of(model, problem.base, [problem.experts[name] for name in PAIR], cut)
    again = disentanglement_error(small, *PAIR, [1.0])
    assert (some.values, some.mean.value) == (again.values, again.mean.value)
    # Batches of another size may round otherwise.
    assert some.soft.values.item() == pytest.approx(again.soft.values.item(), rel=1e-12)
    assert some.differential["first"].raw.value == pytest.approx(again.differential["first"].raw.value)
    assert "on the first 7 and 7 examples" in some.notes


def test_all_pairs_of_a_problem():
    problem = network_problem(4)
    (pair,) = disentanglement_errors(problem)
    assert pair.points == ((0.5, 0.5), (1.0, 1.0))
    assert pair.values[1] == disentanglement_error(problem, *PAIR, [1.0]).values.item()


def test_the_differential_form_is_that_of_finite_differences():
    problem = network_problem(6)
    found = disentanglement_error(problem, *PAIR, [1.0]).differential["first"]
    step, norms = 1e-6, {"raw": [], "centred": []}
    inputs = torch.cat([batch for batch, _ in problem.tasks["first"].batches]).tolist()
    for x in inputs:
        ends = [
            forward_by_hand({k: v + h * problem.task_vectors["second"][k] for k, v in problem.base.items()}, x)
            for h in (step, -step)
        ]
        slope = (np.array(ends[0]) - np.array(ends[1])) / (2 * step)
        norms["raw"].append(np.linalg.norm(slope))
        norms["centred"].append(np.linalg.norm(slope - slope.mean()))
    for kind, values in norms.items():
        estimate = getattr(found, kind)
        assert estimate.value == pytest.approx(np.mean(values), rel=1e-6)
        assert estimate.upper - estimate.value == pytest.approx(
            1.7458837 * np.std(values, ddof=1) / math.sqrt(17), rel=1e-5
        )
    assert found.relative.value == pytest.approx(found.raw.value / found.own.value)
    assert found.relative.lower < found.relative.value < found.relative.upper


def test_one_example_says_nothing():
    found = disentanglement_error(network_problem(0, counts=(1, 1)), *PAIR, [1.0])
    assert found.stderr.isnan().all() and (found.soft.lower.item(), found.soft.upper.item()) == (0, 2)
    assert found.hard.upper - found.hard.lower > 1.8
    assert math.isinf(found.differential["first"].raw.upper)


def test_an_unbounded_divergence_says_so():
    found = disentanglement_error(network_problem(0), *PAIR, [2.0], divergence="kullback-leibler")
    assert found.soft.values.item() > 0 and any("no upper bound" in note for note in found.notes)
    assert found.values == disentanglement_error(network_problem(0), *PAIR, [2.0]).values


def test_ties_are_counted_and_the_first_class_wins():
    weights = [torch.eye(2).double() * mask for mask in (torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))]
    inputs = [torch.tensor([[-1.0, 1.0], [1.0, 0.0]]).double()] * 2
    found = disentanglement_error(linear_problem(weights, inputs), *PAIR, [(0.0, 1.0)])
    # The base ties on both inputs; the second expert says class 1 on the first input and ties on the second.
    assert found.values.item() == 0.5 and any(note.startswith("3 predictions are ties") for note in found.notes)


def test_language_models_give_a_lower_bound_over_tokens():
    problem, model, examples = token_problem()
    found = disentanglement_error(problem, *PAIR, [1.0])
    assert any("ξ is a lower bound" in note for note in found.notes)

    def logits(params, x, y):
        ids = torch.tensor([[0, 6, *x, *y, 0][: 2 + len(x) + len(y)]])
        out = torch.func.functional_call(model, params, (ids,)).logits[0]
        return out[1 + len(x) : 1 + len(x) + len(y)]

    both, bounds, full = problem.merged(1.0), [], []
    for name in PAIR:
        coarse, fine = [], []
        for x, y in examples:
            a, b = (logits(params, x, y).argmax(1) for params in (problem.experts[name], both))
            target = torch.tensor(y)
            coarse.append(((a == target) != (b == target)).double().mean().item())
            fine.append((a != b).double().mean().item())
        bounds.append(np.mean(coarse))
        full.append(np.mean(fine))
    assert found.values.item() == pytest.approx(sum(bounds)) and sum(bounds) < sum(full)
    assert 0 < found.soft.values.item() < 2 and found.differential["first"].raw.value > 0
    assert found.differential["first"].centred.value == pytest.approx(found.differential["first"].raw.value / 2**0.5)


@pytest.mark.parametrize(
    ("problem", "settings", "message"),
    [
        (network_problem(0), {"second": "first"}, "two different experts"),
        (network_problem(0), {"second": "third"}, "two different experts"),
        (network_problem(0), {"grid": []}, "grid: expected"),
        (network_problem(0), {"grid": [1.0, 1.0]}, "grid: expected"),
        (network_problem(0), {"grid": [1.0, math.nan]}, "grid: expected"),
        (network_problem(0), {"grid": [(1.0, 2.0, 3.0)]}, "grid: expected"),
        (network_problem(0), {"grid": [1e308]}, "take a narrower grid"),
        (network_problem(0), {"divergence": "cosine"}, "divergence: expected"),
        (network_problem(0), {"confidence": 1.0}, "confidence: expected"),
        (network_problem(0), {"max_batches": 0}, "max_batches: expected"),
        (regression_problem(), {}, "compare losses"),
        (network_problem(0, classes=1), {}, "becomes two as"),
    ],
)
def test_refusals_say_what_to_do(problem, settings, message):
    with pytest.raises(InputError, match=message):
        disentanglement_error(problem, **{"first": "first", "second": "second", "grid": [1.0], **settings})


def test_tasks_without_outputs_and_lonely_experts_are_refused():
    bare = quadratic_problem(torch.eye(2).expand(2, 2, 2), torch.eye(2))
    with pytest.raises(InputError, match="have a loss only"):
        disentanglement_error(bare, "task_0", "task_1")
    with pytest.raises(InputError, match="two experts or more"):
        disentanglement_errors(quadratic_problem(torch.eye(2)[None], torch.eye(2)[:1]))


def test_the_result_reads_well_and_is_json():
    found = disentanglement_error(network_problem(7, scale=0.3), *PAIR)
    assert len(found.points) == len(GRID) ** 2 and found.values.dtype == torch.float64
    text = str(found)
    assert "ξ(1, 1) = " in text and "along second: E‖Jτ‖" in text and "cost: 98 forwards, 4 jvps" in text
    assert len(json.loads(json.dumps(found.to_dict()))["values"]) == 7
    with pytest.raises(InputError, match="a point of the grid"):
        found.at(0.3, 0.3)
    with pytest.raises(InputError, match="form"):
        found.at(1, 1, "loud")


def test_radius_stops_at_the_first_point_over_the_threshold():
    found = disentanglement_error(network_problem(7, scale=0.3), *PAIR)
    certain, possible = found.radius(0.5)
    sizes = torch.tensor([max(map(abs, point)) for point in found.points]).view(7, 7)
    for ends, reach in ((found.hard.upper, certain), (found.hard.lower, possible)):
        assert (ends[sizes <= reach] <= 0.5).all() and reach < 2
        assert (ends[sizes == sizes[sizes > reach].min()] > 0.5).any()
    assert found.radius(2.0) == (2.0, 2.0) and found.largest[1].value == found.values.max()
