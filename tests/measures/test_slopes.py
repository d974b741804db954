"""Gradients of one batch, against derivatives by hand."""

import pytest
import torch

from diagnostics import Task
from diagnostics.measures.slopes import slopes_of

POINT = {"w": torch.tensor([1.0, -2.0]), "unused": torch.ones(2, 3)}


def test_loss_and_gradient_are_those_of_the_batch_given():
    task = Task("q", lambda p, b: (b * p["w"] ** 2).sum(), [torch.zeros(1)])
    with torch.no_grad():  # of the caller's, who wants no graph of his own
        loss, slopes = slopes_of(task, POINT, torch.tensor([3.0, 0.5]))
    assert float(loss) == 5.0 and not loss.requires_grad
    assert [slope.tolist() for slope in slopes] == [[6.0, -2.0], [[0.0] * 3] * 2]


def test_a_loss_that_no_parameter_enters_has_no_slope():
    loss, slopes = slopes_of(Task("c", lambda p, b: b.sum(), [torch.zeros(1)]), POINT, torch.tensor([2.0, 1.0]))
    assert float(loss) == 3.0 and [slope.tolist() for slope in slopes] == [[0.0, 0.0], [[0.0] * 3] * 2]


@pytest.mark.parametrize("wanted", [True, False])
def test_parameters_stay_as_they_were(wanted):
    point = {"w": torch.ones(2, requires_grad=wanted)}
    slopes_of(Task("q", lambda p, b: (p["w"] ** 2).sum(), [torch.zeros(1)]), point, None)
    assert point["w"].grad is None and point["w"].requires_grad is wanted
