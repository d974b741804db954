"""Merge problems: shared and private parameters, mixed precision, coefficients, and what is refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from diagnostics import InputError, MergeProblem, MismatchError, Task
from tests.cases import small_task

LOSS = {name: Task(name, lambda p, b: (p["w"] ** 2).sum() + 0 * b.sum(), [torch.zeros(1)]) for name in "ab"}


def vectors(*values, dtype=torch.float32):
    return {name: {"w": torch.tensor(value, dtype=dtype)} for name, value in zip("ab", values, strict=False)}


def problem(dtype=torch.float32):
    return MergeProblem(
        {"w": torch.tensor([1.0, 1.0], dtype=dtype)}, vectors([2.0, 1.0], [1.0, 3.0], dtype=dtype), LOSS
    )


@given(first=st.floats(-2, 2), second=st.floats(-2, 2))
def test_merge_is_the_base_plus_scaled_task_vectors(first, second):
    merged = problem(torch.float64).merged([first, second])["w"]
    assert merged.tolist() == pytest.approx([1 + first, 1 + 2 * second])


def test_one_expert_at_weight_one_is_that_expert():
    assert torch.equal(problem().merged({"a": 1.0})["w"], torch.tensor([2.0, 1.0]))


def test_forms_of_coefficients():
    p = problem()
    assert p.coefficients(0.5) == p.coefficients([0.5, 0.5]) == p.coefficients({"b": 0.5, "a": 0.5})
    assert list(p.coefficients({"b": 0.5, "a": 0.5})) == ["a", "b"]
    assert p.coefficients({"b": 2}) == {"b": 2.0}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"c": 1.0}, "expected one of the experts"),
        ([1.0], "expected one number for each of"),
        (float("nan"), "finite"),
        ({}, "at least one"),
        ("half", "finite number"),
        (True, "finite number"),
    ],
)
def test_bad_coefficients_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        problem().coefficients(given)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_lifted_to_float32_for_the_arithmetic(dtype):
    mixed = MergeProblem({"w": torch.ones(2)}, vectors([2.0, 1.0], [1.0, 3.0], dtype=dtype), LOSS)
    assert mixed.merged(0.1)["w"].dtype == torch.float32
    assert mixed.merged(0.1)["w"].tolist() == pytest.approx([1.1, 1.2])


def test_double_precision_is_kept():
    assert problem(torch.float64).merged(0.1)["w"].dtype == torch.float64


def test_private_heads_of_different_width_stay_with_their_task():
    torch.manual_seed(0)
    body = nn.Linear(3, 4).double()
    experts, tasks = {}, {}
    for name, classes in {"two": 2, "five": 5}.items():
        model = nn.Sequential()
        model.add_module("body", nn.Linear(3, 4).double())
        model.add_module("head", nn.Linear(4, classes).double())
        data = (torch.randn(6, 3, dtype=torch.float64), torch.arange(6) % classes)
        tasks[name] = Task.from_module(name, model, nn.functional.cross_entropy, data)
        experts[name] = {key: value.detach() for key, value in model.named_parameters()}
    base = {f"body.{key}": value.detach() for key, value in body.named_parameters()}
    found = MergeProblem(base, experts, tasks, private=["head.*"])
    assert found.shared == ("body.weight", "body.bias") or set(found.shared) == {"body.weight", "body.bias"}
    for name, expert in experts.items():
        assert found.tasks[name].mean_loss(found.experts[name]) == pytest.approx(tasks[name].mean_loss(expert))
        moved = {**expert, **found.merged(0.5)}
        assert found.tasks[name].mean_loss(found.merged(0.5)) == pytest.approx(tasks[name].mean_loss(moved))


def test_private_integers_stay_integers():
    """A private table of positions is an index, and must not come back as floats."""
    tasks = {"a": Task("a", lambda p, b: p["w"][p["rows"]].sum() + 0 * b.sum(), [torch.zeros(1)])}
    expert = {"w": torch.ones(3), "rows": torch.tensor([0, 2])}
    found = MergeProblem({"w": torch.zeros(3), "rows": torch.tensor([1, 1])}, {"a": expert}, tasks, private=["rows"])
    assert found.private["a"]["rows"].dtype == torch.int64
    assert found.tasks["a"].mean_loss(found.experts["a"]) == 2.0


def test_undeclared_heads_are_refused_by_name():
    task, params = small_task()
    wider = {**params, "2.weight": torch.zeros(7, 4, dtype=torch.float64)}
    with pytest.raises(MismatchError, match=r"2\.weight"):
        MergeProblem(params, {"task": wider}, {"task": task})


@pytest.mark.parametrize(
    ("experts", "tasks", "message"),
    [
        (vectors([1.0]), LOSS, "tasks without an expert: \\['b'\\]"),
        (vectors([1.0], [2.0]), {"a": LOSS["a"]}, "experts without a task: \\['b'\\]"),
        ({}, {}, "at least one"),
    ],
)
def test_names_of_experts_and_tasks_must_agree(experts, tasks, message):
    with pytest.raises(InputError, match=message):
        MergeProblem({"w": torch.zeros(1)}, experts, tasks)


def test_not_finite_weights_are_refused_by_name():
    with pytest.raises(InputError, match="w"):
        MergeProblem({"w": torch.zeros(2)}, vectors([float("nan"), 1.0], [1.0, 1.0]), LOSS)


def test_measurements_are_made_once():
    p, calls = problem(), []
    assert p.cached("key", lambda: calls.append(1) or "value") == p.cached("key", lambda: calls.append(1)) == "value"
    assert calls == [1]
