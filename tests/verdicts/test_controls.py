"""Known-answer controls: what every tool that judges merges must get right, on a network that has been trained."""

import functools

import pytest
import torch
from torch import nn

from diagnostics import MergeProblem, Task, check_compatibility, geometry, predict_merge
from diagnostics.results import Verdict


@functools.cache
def trained():
    """A small network, its base on two joint questions, and an expert for each; float64, no seeds of the program."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(300, 6, generator=generator, dtype=torch.float64)
    labels = {"left": (inputs[:, 0] * inputs[:, 1] > 0).long(), "right": (inputs[:, 2] * inputs[:, 3] > 0).long()}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 2)).double()
    start = {name: value.detach().clone() for name, value in model.named_parameters()}

    def fit(params, targets, steps, rate):
        params = {name: value.clone().requires_grad_() for name, value in params.items()}
        optimizer = torch.optim.Adam(params.values(), lr=rate)
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(torch.func.functional_call(model, params, inputs), targets).backward()
            optimizer.step()
        return {name: value.detach() for name, value in params.items()}

    base = fit(start, labels["left"], 40, 0.01)
    experts = {name: fit(base, target, 80, 0.01) for name, target in labels.items()}
    tasks = {
        name: Task.from_module(name, model, nn.functional.cross_entropy, (inputs, target))
        for name, target in labels.items()
    }
    return model, base, experts, tasks, inputs, labels


def moved(base, expert, factor):
    """θ0 + factor · τ."""
    return {name: value + factor * (expert[name] - value) for name, value in base.items()}


def problem_with(second, same_task=True):
    """The expert for "right", and beside it a partner made from it."""
    _, base, experts, tasks, _, _ = trained()
    other = tasks["right"] if same_task else tasks["left"]
    return MergeProblem(base, {"right": experts["right"], "other": second}, {"right": tasks["right"], "other": other})


def assert_predicted(problem, merge, points=0.05):
    """Retention within a few points of the truth or inside its interval, and no verdict that is wrong."""
    found, merged = predict_merge(problem, merge, about="examples"), problem.merged(merge)
    for name, task in found.tasks.items():
        truth = problem.tasks[name].score(merged) / problem.tasks[name].score(problem.experts[name])
        told = task.retention
        assert abs(told.value - truth) <= points or told.lower <= truth <= told.upper, (name, truth, str(told))
        assert told.against(0.9) is not (Verdict.REFUTED if truth >= 0.9 else Verdict.SUPPORTED), (name, truth)
    return found


@pytest.mark.parametrize("value", [0.3, 0.5, 0.7])
def test_identical_experts_act_as_one(value):
    _, base, experts, _, _, _ = trained()
    problem = problem_with(moved(base, experts["right"], 1.0))
    assert_predicted(problem, value)
    assert geometry(base, problem.experts).cosine[0, 1] == pytest.approx(1.0)


def test_identical_experts_average_to_themselves():
    _, base, experts, _, _, _ = trained()
    problem = problem_with(moved(base, experts["right"], 1.0))
    assert predict_merge(problem, 0.5, about="examples").verdict is Verdict.SUPPORTED


@pytest.mark.parametrize("value", [0.5, 1.0])
def test_opposite_experts_cancel_to_the_base(value):
    _, base, experts, _, _, _ = trained()
    problem = problem_with(moved(base, experts["right"], -1.0))
    found = assert_predicted(problem, value, points=0.1)
    assert geometry(base, problem.experts).cosine[0, 1] == pytest.approx(-1.0)
    assert found.tasks["right"].retention.against(0.9) is not Verdict.SUPPORTED, "the merge is the base itself"


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_scaled_expert_is_one_more_step_on_the_same_ray(factor):
    _, base, experts, _, _, _ = trained()
    problem = problem_with(moved(base, experts["right"], factor))
    assert_predicted(problem, {"right": 0.5, "other": 0.5 / factor})
    assert geometry(base, problem.experts).cosine[0, 1] == pytest.approx(1.0)


def test_a_zero_expert_changes_nothing():
    _, base, _, _, _, _ = trained()
    problem = problem_with(base)
    found = predict_merge(problem, {"right": 1.0, "other": 1.5}, about="examples")
    assert found.tasks["right"].retention.value == pytest.approx(1.0, abs=1e-6)
    assert found.tasks["right"].retention.upper - found.tasks["right"].retention.lower < 0.05
    assert {f.code.value for f in check_compatibility(base, {"same": dict(base)})} == {"identical_to_base"}


def test_experts_on_separate_units_do_not_interfere():
    """Block-diagonal: each expert moves its own half of the network, which the other task's inputs never reach."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(200, 4, generator=generator, dtype=torch.float64)
    mask = torch.zeros(16, 4, dtype=torch.float64)
    mask[:8, :2], mask[8:, 2:] = 1, 1
    first, second = (
        torch.randn(16, 4, generator=generator).double() * mask,
        torch.randn(2, 16, generator=generator).double(),
    )
    base = {"first": first, "second": second}
    tasks, experts = {}, {}

    def outputs(params, batch):
        return torch.tanh(batch[0] @ (params["first"] * mask).T) @ params["second"].T

    class Blocks(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Parameter(first.clone()), nn.Parameter(second.clone())

        def forward(self, x):
            return outputs({"first": self.first, "second": self.second}, (x,))

    for index, name in enumerate(["upper", "lower"]):
        seen = torch.zeros_like(inputs)
        seen[:, 2 * index : 2 * index + 2] = inputs[:, 2 * index : 2 * index + 2]
        targets = outputs(base, (seen,)).argmax(1)
        targets[::3] = 1 - targets[::3]
        tasks[name] = Task.from_module(name, Blocks(), nn.functional.cross_entropy, (seen, targets))
        rows = slice(8 * index, 8 * index + 8)
        experts[name] = {"first": first.clone(), "second": second.clone()}
        experts[name]["first"][rows] *= 0.5
    found = predict_merge(MergeProblem(base, experts, tasks), 1.0, about="examples")
    for task in found.tasks.values():
        assert task.retention.value == pytest.approx(1.0, abs=0.02), "a partner on other units costs nothing"
        assert task.loss.value == pytest.approx(task.expert_loss, rel=0.02)
    assert all(reason.loss < 0.02 for reason in found.reasons)


def large(seed, width=64):
    """Weights as a pretraining leaves them: large enough for nulls to be sharp."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"0.weight": (width, width), "0.bias": (width,), "2.weight": (width, width), "2.bias": (width,)}
    return {name: torch.randn(shape, generator=generator) / width**0.5 for name, shape in shapes.items()}


def codes(base, expert):
    return {finding.code.value for finding in check_compatibility(base, {"expert": expert})}


def tuned(base, seed=5, scale=1e-3):
    generator = torch.Generator().manual_seed(seed)
    return {name: value + scale * torch.randn(value.shape, generator=generator) for name, value in base.items()}


def test_a_fine_tuned_expert_is_compatible():
    assert not codes(large(0), tuned(large(0)))


def test_an_expert_of_another_base_is_refused():
    assert "wrong_ancestor" in codes(large(0), tuned(large(1)))


def test_permuted_units_are_refused_although_the_function_is_the_same():
    base = large(0)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(3))
    expert = tuned(base)
    expert["0.weight"], expert["0.bias"] = expert["0.weight"][order], expert["0.bias"][order]
    expert["2.weight"] = expert["2.weight"][:, order]
    assert "permuted_units" in codes(base, expert)
