"""task_feature_specialisation: a network that is specialised exactly, equal tasks, ceilings, intervals, refusals."""

import numpy as np
import pytest
import torch
from torch import nn

from diagnostics import InputError, MergeProblem, Task
from diagnostics.results import Status
from diagnostics.verdicts import feature_use as verdicts
from diagnostics.verdicts.feature_use import task_feature_specialisation

WEIGHTS = ["0.weight", "2.weight"]


def network():
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.Tanh(), nn.Linear(8, 4, bias=False)).double()


def specialised():
    """Task a has inputs 0 to 2, features 0 to 3 and outputs 0 and 1 for itself; task b has the others."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.zeros(2, 8, 6).double()[0], torch.zeros(4, 8).double()
    first[:4, :3] = torch.randn(4, 3, generator=generator)
    first[4:, 3:] = torch.randn(4, 3, generator=generator)
    second[:2, :4] = torch.randn(2, 4, generator=generator)
    second[2:, 4:] = torch.randn(2, 4, generator=generator)
    return {"0.weight": first, "2.weight": second}


class Half(nn.Module):
    """One task's view of the network: its own outputs of its own inputs."""

    def __init__(self, rows):
        super().__init__()
        self.net, self.rows = network(), rows

    def forward(self, inputs):
        return self.net(inputs)[:, self.rows]


def problem_of(base, *, rows=((0, 1), (2, 3)), count=40, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    base = {f"net.{name}": value for name, value in base.items()}
    tasks = {}
    for index, (name, own) in enumerate(zip("ab", rows, strict=True)):
        inputs = torch.zeros(count, 6).double()
        inputs[:, 3 * index : 3 * index + 3] = torch.randn(count, 3, generator=generator).double()
        data = (scale * inputs, torch.arange(count) % 2)
        tasks[name] = Task.from_module(name, Half(list(own)), nn.functional.cross_entropy, data, batch_size=16)
    return MergeProblem(base, dict.fromkeys("ab", base), tasks)


def is_specialised(found):
    for part in (found.total, *found.layers.values()):
        assert part.overlap[0, 1] == 0 and part.upper[0, 1] == 0 and part.cosine[0, 1] == 0
        assert part.outside.tolist() == [0, 0] and part.outside_stderr.tolist() == [0, 0]
        assert part.weights[0, 1] == 0, "the corollary: no angle across the sets"
    assert found.layers["net.0.weight"].own.tolist() == [4, 4]


def test_a_specialised_network_is_seen_as_such():
    found = task_feature_specialisation(problem_of(specialised()))
    is_specialised(found)
    assert found.overlap("a", "b").status is Status.CONVERGED
    layer = found.layers["net.0.weight"]
    assert layer.chance[0, 1] > 0.3 and layer.outside_chance.min() > 0.1
    assert layer.ceiling.min() > 0.9
    assert layer.weights[0, 0] > 0.2 and layer.weights_null == pytest.approx(0.34, abs=0.01)
    assert found.to_dict()["total"]["overlap"][0][1] == 0 and "by chance" in str(found)


def test_one_shared_path_is_seen():
    base = specialised()
    base["2.weight"][0, 5] = 0.5
    found = task_feature_specialisation(problem_of(base))
    with pytest.raises(AssertionError):
        is_specialised(found)
    assert found.layers["net.0.weight"].outside[0] > 0.02, "task a now uses feature 5 of task b"


def test_sets_that_are_exchanged_fail(monkeypatch):
    right = verdicts.assign_features
    monkeypatch.setattr(verdicts, "assign_features", lambda profiles, margin: right(profiles.flip(0), margin))
    with pytest.raises(AssertionError):
        is_specialised(task_feature_specialisation(problem_of(specialised())))


def random_base(seed=1):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"0.weight": (8, 6), "2.weight": (4, 8)}
    return {name: torch.randn(*shape, generator=generator).double() for name, shape in shapes.items()}


def test_equal_tasks_share_everything():
    base = {f"net.{name}": value for name, value in random_base().items()}
    data = (torch.randn(30, 6, generator=torch.Generator().manual_seed(2)).double(), torch.arange(30) % 2)
    task = Task.from_module("same", Half([0, 1]), nn.functional.cross_entropy, data)
    found = task_feature_specialisation(MergeProblem(base, dict.fromkeys("ab", base), dict.fromkeys("ab", task)))
    assert found.overlap("a", "b").value == pytest.approx(1) and found.overlap("a", "b").upper == pytest.approx(1)
    assert found.total.own.tolist() == [0, 0] and found.total.weights[0, 1].isnan()
    assert found.total.outside.min() > 0.9, "no set is a task's own"


def test_size_of_a_task_s_outputs_does_not_matter():
    base = random_base()
    found = task_feature_specialisation(problem_of(base))
    loud = {**base, "2.weight": base["2.weight"] * torch.tensor([100.0, 100, 1, 1])[:, None].double()}
    again = task_feature_specialisation(problem_of(loud), layers=["net.0.weight"])
    one, two = (each.layers["net.0.weight"] for each in (found, again))
    np.testing.assert_allclose(one.overlap, two.overlap, atol=1e-12)
    assert one.own.tolist() == two.own.tolist()
    np.testing.assert_allclose(one.weights, two.weights, atol=1e-12)


def test_intervals_hold_the_overlap_of_all_inputs():
    base = random_base()
    truth = task_feature_specialisation(problem_of(base, count=4000, seed=99, scale=2.0)).overlap("a", "b").value
    held = 0
    for seed in range(60):
        found = task_feature_specialisation(problem_of(base, count=30, seed=seed, scale=2.0), resamples=100)
        estimate = found.overlap("a", "b")
        held += estimate.lower <= truth <= estimate.upper
    assert held >= 47, f"a 90% interval held in {held} of 60"


def test_a_layer_that_one_task_does_not_use_is_undefined():
    base = specialised()
    base["2.weight"][2:] = 0
    found = task_feature_specialisation(problem_of(base))
    estimate = found.overlap("a", "b", "net.0.weight")
    assert estimate.status is Status.UNDEFINED and str(estimate).startswith("nan, no interval")
    assert found.layers["net.0.weight"].outside[1].isnan() and found.layers["net.0.weight"].outside[0] == 0
    assert found.to_dict()["layers"]["net.0.weight"]["overlap"][0][1] is None


def test_measured_once_for_all_calls(monkeypatch):
    problem = problem_of(random_base())
    one = task_feature_specialisation(problem)
    monkeypatch.setattr(verdicts, "feature_use", None)
    assert torch.equal(task_feature_specialisation(problem).total.overlap, one.total.overlap)
    assert (one.cost.gradients, one.cost.backwards) == (2, 2)


def test_bad_settings_are_refused():
    problem = problem_of(random_base())
    with pytest.raises(InputError, match="two or more different tasks"):
        task_feature_specialisation(problem, names=["a"])
    with pytest.raises(InputError, match="margin from 0 on"):
        task_feature_specialisation(problem, margin=-1)
    with pytest.raises(InputError, match="resamples"):
        task_feature_specialisation(problem, resamples=3)
    with pytest.raises(InputError, match="four or more examples"):
        task_feature_specialisation(problem_of(random_base(), count=3))
    with pytest.raises(InputError, match="expected tasks of"):
        task_feature_specialisation(problem).overlap("a", "c")
