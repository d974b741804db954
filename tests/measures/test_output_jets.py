"""Outputs and their derivatives along a direction, against functions that can be differentiated by hand."""

import pytest
import torch

from diagnostics.errors import InputError
from diagnostics.inputs.tasks import Task
from diagnostics.measures.output_jets import OutputJet, output_jet


def waves(scale=3.0):
    """Outputs sin(scale · w · x), one batch after another."""
    batches = [torch.tensor([1.0, 2.0]), torch.tensor([0.5])]
    return Task("waves", lambda p, x: torch.sin(scale * p["w"] * x).sum(), batches), batches


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_derivatives_are_those_of_the_function(dtype):
    task, batches = waves()
    w, v = torch.tensor([0.4], dtype=dtype), torch.tensor([0.7], dtype=torch.float64)
    found = output_jet(task, {"w": w}, {"w": v})
    for x, value, slope, curvature in zip(batches, found.value, found.slope, found.curvature, strict=True):
        assert value.dtype == slope.dtype == curvature.dtype == dtype
        turns, speed = 3 * 0.4 * x.double(), 3 * 0.7 * x.double()
        assert float(value) == pytest.approx(float(turns.sin().sum()), rel=1e-5)
        assert float(slope) == pytest.approx(float((speed * turns.cos()).sum()), rel=1e-5)
        assert float(curvature) == pytest.approx(float(-(speed**2 * turns.sin()).sum()), rel=2e-3)


def test_the_expansion_at_one_is_taylors():
    jet = OutputJet([torch.tensor([1.0]), torch.tensor([2.0])], [torch.tensor([0.5])] * 2, [torch.tensor([3.0])] * 2)
    assert [[float(part) for part in jet.at_one(order)] for order in (0, 1, 2)] == [[1, 2], [1.5, 2.5], [3.0, 4.0]]


def test_parts_that_belong_to_different_batches_are_refused():
    with pytest.raises(ValueError, match="zip"):
        OutputJet([torch.zeros(1)], [torch.zeros(1)] * 2, [torch.zeros(1)] * 2).at_one(2)


def test_outputs_that_are_not_finite_are_refused():
    task = Task("far", lambda p, x: torch.exp(p["w"] * x).sum(), [torch.tensor([1000.0])])
    with pytest.raises(InputError) as caught:
        output_jet(task, {"w": torch.tensor(1.0)}, {"w": torch.tensor(1.0)})
    assert str(caught.value) == (
        "task 'far': expected finite outputs and derivatives; found others. Look for overflow in half precision, or "
        "for an update that is far too large."
    )
