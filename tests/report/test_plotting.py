"""Results draw themselves on given or new axes; what has no picture says so."""

import matplotlib.pyplot as plt
import pytest
import torch

import diagnostics as dx
from diagnostics.inputs.zoo import quadratic_problem
from diagnostics.results import Cost, Result

from . import test_composition_section

PROBLEM = quadratic_problem(torch.eye(2).double().repeat(2, 1, 1), torch.eye(2).double())
RESULTS = {
    "geometry": lambda: dx.geometry(PROBLEM.base, PROBLEM.experts),
    "bounds": lambda: dx.addition_bounds(PROBLEM, 0.5)["task_0"],
    "coefficients": lambda: dx.best_coefficients(PROBLEM),
    "prediction": lambda: dx.predict_merge(PROBLEM, 0.5),
    "alignment": lambda: dx.gradient_alignment(PROBLEM.tasks["task_0"], [PROBLEM.tasks["task_1"]], PROBLEM.base),
    "audit": test_composition_section.audit,
    "audit of an error near zero": test_composition_section.near_zero,
}


@pytest.fixture(autouse=True)
def no_window(monkeypatch):
    plt.switch_backend("Agg")
    yield
    plt.close("all")


@pytest.mark.parametrize("name", RESULTS)
def test_new_axes_hold_the_picture(name):
    ax = RESULTS[name]().plot()
    ax.figure.canvas.draw()
    assert ax.has_data() or ax.patches or ax.texts, "nothing was drawn"


@pytest.mark.parametrize("name", RESULTS)
def test_given_axes_are_used(name):
    _, ax = plt.subplots()
    assert RESULTS[name]().plot(ax) is ax


def test_a_result_without_a_picture_says_so():
    assert isinstance(Cost(), Result)
    with pytest.raises(TypeError, match="Cost has no picture"):
        Cost().plot()
