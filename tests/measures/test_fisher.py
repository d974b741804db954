"""The diagonal Fisher information against one backward pass for each example."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics import InputError, Task, gradient
from diagnostics.measures.fisher import diagonal_fisher
from tests.cases import small_network


def task_of(seed, count=7, batch_size=3):
    """A task of its own inputs, and the same inputs one by one."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 2, (count,), generator=generator)
    model = small_network(seed)
    loss = torch.nn.functional.cross_entropy
    task = Task.from_module("t", model, loss, (inputs, targets), batch_size=batch_size)
    return task, model, list(zip(inputs, targets, strict=True))


def slow(model, examples):
    """Mean of squared gradients, by autograd on the module itself."""
    total = {name: np.zeros(value.shape) for name, value in model.named_parameters()}
    for inputs, target in examples:
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs[None]), target[None]).backward()
        for name, value in model.named_parameters():
            total[name] += value.grad.numpy() ** 2 / len(examples)
    return total


def check(measure):
    for seed in range(3):
        task, model, examples = task_of(seed)
        found = measure(task, {name: value.detach() for name, value in model.named_parameters()})
        for name, expected in slow(model, examples).items():
            np.testing.assert_allclose(found[name], expected, rtol=1e-9, atol=1e-14, err_msg=f"{name}, seed {seed}")


def test_it_is_the_mean_of_squared_gradients_of_single_examples():
    check(diagonal_fisher)


def test_the_square_of_the_gradient_of_all_is_something_else():
    def squared_mean(task, params):
        return {name: value.square() for name, value in gradient(task, params)[1].items()}

    with pytest.raises(AssertionError):
        check(squared_mean)


@settings(max_examples=10)
@given(size=st.integers(1, 7))
def test_how_examples_are_batched_changes_nothing(size):
    task, model, _ = task_of(0, batch_size=size)
    whole, _, _ = task_of(0, batch_size=7)
    params = dict(model.named_parameters())
    first, second = diagonal_fisher(task, params), diagonal_fisher(whole, params)
    assert all(torch.allclose(first[name], second[name], rtol=1e-12) for name in first)


def test_a_limit_takes_the_first_examples():
    task, model, examples = task_of(1)
    found = diagonal_fisher(task, dict(model.named_parameters()), limit=2)
    for name, expected in slow(model, examples[:2]).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-9)
    with pytest.raises(InputError, match="at least one example"):
        diagonal_fisher(task, dict(model.named_parameters()), limit=0)


def test_losses_that_cannot_be_taken_apart_are_refused():
    task = Task("sum", lambda p, b: (p["w"] * b).sum(), [torch.arange(4.0)])
    with pytest.raises(InputError, match="mean over"):
        diagonal_fisher(task, {"w": torch.ones(1)})
