"""Outputs and their derivatives along directions, one by one and many in a pass."""

import numpy as np
import pytest
import torch

from diagnostics import InputError, Task
from diagnostics.measures import outputs as module
from diagnostics.measures.outputs import (
    Observation,
    OutputTable,
    directional_derivative,
    directional_derivatives,
    model_outputs,
    pullback,
)
from diagnostics.measures.vectors import flatten, shifted
from tests.cases import small_task


def directions(params, count):
    generator = torch.Generator().manual_seed(0)
    return [
        {key: torch.randn(value.shape, generator=generator, dtype=value.dtype) for key, value in params.items()}
        for _ in range(count)
    ]


def by_differences(task, params, direction, step=1e-5):
    """Central differences of the outputs: the definition, sharing nothing with forward mode."""
    ahead, behind = (torch.cat(task.outputs(shifted(params, way, direction))) for way in (step, -step))
    return ((ahead - behind) / (2 * step)).numpy()


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("room", [1 << 40, 0], ids=["all at once", "one at a time"])
def test_derivatives_are_those_of_differences(monkeypatch, count, room):
    monkeypatch.setattr(module, "available_bytes", lambda device: room)
    task, params = small_task(count=7, batch_size=3)
    given = directions(params, count)
    found = directional_derivatives(task, params, given)
    assert [tuple(batch.shape) for batch in found] == [(count, 3, 2), (count, 3, 2), (count, 1, 2)]
    for index, direction in enumerate(given):
        rows = torch.cat([batch[index] for batch in found])
        np.testing.assert_allclose(rows, by_differences(task, params, direction), atol=1e-8)
        np.testing.assert_array_equal(torch.cat(directional_derivative(task, params, direction)).shape, rows.shape)


def test_many_directions_take_one_pass_over_the_data():
    task, params = small_task(count=6, batch_size=3)
    calls, whole = [], task.readout.outputs
    object.__setattr__(task.readout, "outputs", lambda theta, batch: calls.append(1) or whole(theta, batch))
    directional_derivatives(task, params, directions(params, 4))
    assert len(calls) == 2, f"{len(calls)} evaluations of 2 batches"


def test_what_cannot_be_vectorised_is_done_one_by_one():
    """A loss that looks at a number that depends on the parameters has no vectorised form."""

    def loss(params, batch):
        scale = float(params["w"].detach().sum())
        return (params["w"] ** 2).sum() * (1.0 if scale > 0 else 2.0)

    def twisted(params, batch):
        # Differentiated parameters themselves are read here, which vmap refuses.
        return loss(params, batch) if params["w"].sum().item() > 0 else 0 * params["w"].sum()

    task = Task("t", twisted, [torch.zeros(1)])
    point = {"w": torch.tensor([1.0, 2.0])}
    given = [{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])}]
    assert directional_derivatives(task, point, given)[0].flatten().tolist() == [2.0, 4.0]


def test_no_direction_and_no_output():
    task, params = small_task()
    assert directional_derivatives(task, params, []) == []
    bare = Task("t", lambda p, b: (p["w"] ** 2).sum(), [torch.zeros(1)])
    assert model_outputs(bare, {"w": torch.tensor([3.0])})[0].tolist() == [9.0]


def test_the_pullback_is_the_transpose_of_the_derivative():
    task, params = small_task(count=7, batch_size=3)
    (direction,) = directions(params, 1)
    weights = [torch.linspace(-1, 1, each.numel()).reshape(each.shape).double() for each in task.outputs(params)]
    pairs = zip(weights, directional_derivative(task, params, direction), strict=True)
    forward = sum(float((weight * slope).sum()) for weight, slope in pairs)
    backward = float(flatten(pullback(task, params, weights)) @ flatten(direction))
    assert forward == pytest.approx(backward, rel=1e-10) and abs(forward) > 1e-3


def test_a_table_measures_each_observation_once_and_refuses_what_is_no_number():
    task, base = small_task(count=4, batch_size=2)
    vectors = dict(zip("ab", directions(base, 2), strict=True))
    table = OutputTable(task, base, vectors)
    wanted = [Observation("a", 0.5), Observation("a", 0.5, "b"), Observation()]
    first = table.read(wanted)
    entries = {key: [id(batch) for batch in value] for key, value in table.entries.items()}
    table.read(wanted[:2])
    assert {key: [id(batch) for batch in value] for key, value in table.entries.items()} == entries
    point = shifted(base, 0.5, vectors["a"])
    np.testing.assert_allclose(torch.cat([b[0] for b in first]), torch.cat(task.outputs(point)))
    np.testing.assert_allclose(torch.cat([b[1] for b in first]), by_differences(task, point, vectors["b"]), atol=1e-8)
    broken = {"a": {key: value * float("nan") for key, value in vectors["a"].items()}, "b": vectors["b"]}
    with pytest.raises(InputError, match="the base plus 1 times the update of 'a' are not"):
        OutputTable(task, base, broken).read([Observation("a", 1.0)])
