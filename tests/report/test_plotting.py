"""Results draw themselves on given or new axes; what has no picture says so."""

import matplotlib.pyplot as plt
import pytest
import torch

import diagnostics as dx
from diagnostics.inputs.zoo import quadratic_problem
from diagnostics.results import Cost, Result

from . import test_composition_section

PROBLEM = quadratic_problem(torch.eye(2).double().repeat(2, 1, 1), torch.eye(2).double())
MODELS = (
    {"w": torch.zeros(3, 3)},
    {name: {"w": value} for name, value in zip("abc", torch.rand(3, 3, 3), strict=True)},
)
TASK = dx.Task.from_module(
    "t", torch.nn.Linear(3, 3, bias=False), torch.nn.functional.cross_entropy, (torch.rand(4, 3), torch.arange(4) % 3)
)
CLASSES = dx.MergeProblem(
    {"weight": MODELS[0]["w"]},
    {name: {"weight": params["w"]} for name, params in MODELS[1].items()},
    dict.fromkeys("abc", TASK),
)
RESULTS = {
    "geometry": lambda: dx.geometry(PROBLEM.base, PROBLEM.experts),
    "bounds": lambda: dx.addition_bounds(PROBLEM, 0.5)["task_0"],
    "coefficients": lambda: dx.best_coefficients(PROBLEM),
    "prediction": lambda: dx.predict_merge(PROBLEM, 0.5),
    "alignment": lambda: dx.gradient_alignment(PROBLEM.tasks["task_0"], [PROBLEM.tasks["task_1"]], PROBLEM.base),
    "audit": test_composition_section.audit,
    "bases": lambda: dx.task_vector_bases(*MODELS, k=2),
    "structure": lambda: dx.update_structure(MODELS[0], MODELS[1]["a"]),
    "orthogonality": lambda: dx.orthogonality(*MODELS),
    "disentanglement": lambda: dx.disentanglement_error(CLASSES, "a", "b", [0.0, 1.0]),
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


@pytest.mark.parametrize(
    "result",
    [
        lambda: dx.update_structure(MODELS[0], MODELS[0]),
        lambda: dx.orthogonality(MODELS[0], {"a": MODELS[1]["a"]}),
        lambda: dx.disentanglement_error(CLASSES, "a", "b", [(1.0, 1.0)]),
    ],
)
def test_results_with_nothing_to_draw_say_so(result):
    with pytest.raises(dx.InputError, match="expected a result with a picture"):
        result().plot()


def test_a_result_without_a_picture_says_so():
    assert isinstance(Cost(), Result)
    with pytest.raises(TypeError, match="Cost has no picture"):
        Cost().plot()
