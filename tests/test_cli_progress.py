"""How far long work is: measures tell their share, a terminal shows a bar, a log a line for each step."""

import io
from collections.abc import Callable

import pytest
import torch
from rich.console import Console

import diagnostics as dx
from diagnostics.commands.progress import Bar, Log, showing
from diagnostics.inputs.zoo import quadratic_problem

MODEL = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False))
TASK = dx.Task.from_module(
    "t", MODEL, torch.nn.functional.cross_entropy, (torch.eye(2).repeat(4, 1), torch.arange(8) % 2)
)


def classes() -> dx.MergeProblem:
    experts = {name: {"0.weight": torch.eye(2) * size} for size, name in enumerate("abc", start=1)}
    return dx.MergeProblem({"0.weight": torch.zeros(2, 2)}, experts, dict.fromkeys("abc", TASK))


def quadratic() -> dx.MergeProblem:
    return quadratic_problem(torch.eye(2).double()[None].repeat(2, 1, 1), torch.eye(2).double())


MEASURES = {
    "geometry": lambda **told: dx.geometry(classes().base, classes().experts, **told),
    "prediction": lambda **told: dx.predict_merge(classes(), 0.3, **told),
    "prediction by another method": lambda **told: dx.predict_merge(classes(), 0.3, method="ties", density=0.5, **told),
    "coefficients": lambda **told: dx.best_coefficients(classes(), **told),
    "addition": lambda **told: dx.addition_bounds(quadratic(), 0.5, **told),
    "negation": lambda **told: dx.negation_bounds(quadratic(), "task_0", **told),
    "disentanglement": lambda **told: dx.disentanglement_errors(classes(), **told),
    "features": lambda **told: dx.task_feature_specialisation(classes(), resamples=20, **told),
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_tells_its_share_in_order(name: str) -> None:
    told: list[float] = []
    MEASURES[name](progress=told.append)
    assert told and told == sorted(told), told
    assert told[0] >= 0 and told[-1] <= 1, told


def test_a_prediction_tells_every_point_that_it_measures() -> None:
    told: list[float] = []
    problem = classes()
    dx.predict_merge(problem, 0.3, progress=told.append)
    assert len(told) > 2 * len(problem.names) and told[-1] == 1, told
    dx.predict_merge(problem, 0.4, progress=lambda share: pytest.fail("nothing is left to measure"))


def shown(work: Callable[[Bar | Log], None], *, terminal: bool) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=80, force_terminal=terminal, color_system=None, legacy_windows=False)
    with showing(console) as steps:
        work(steps)
    return stream.getvalue()


def test_a_terminal_shows_a_bar_where_the_share_is_known() -> None:
    def work(steps: Bar | Log) -> None:
        assert isinstance(steps, Bar)
        steps("reading [bold]news[/bold]")
        steps._progress.refresh()
        steps("measuring")
        steps.share(0.25)
        steps._progress.refresh()
        steps("comparing a and b", 0.0)
        steps("comparing a and c", 0.5)
        steps._progress.refresh()

    text = shown(work, terminal=True)
    assert "reading [bold]news[/bold]" in text, "a name is no markup"
    lines = text.replace("\r", "\n").splitlines()
    assert any("measuring" in line and "25%" in line and "━" in line for line in lines)
    assert any("comparing a and c" in line and "50%" in line and "left" in line for line in lines)
    assert not any("reading" in line and "%" in line for line in lines), "no bar without a share"


def test_a_log_gets_a_line_for_each_step() -> None:
    def work(steps: Bar | Log) -> None:
        for step in ("reading [bold]news[/bold]", "measuring"):
            steps(step)
            for tenth in range(11):
                steps.share(tenth / 10)

    assert shown(work, terminal=False) == "reading [bold]news[/bold]\nmeasuring\n"


def test_parts_of_a_whole_share_the_time_left() -> None:
    stream, times = io.StringIO(), iter([0.0, 120.0, 180.0])
    log = Log(Console(file=stream, width=80), lambda: next(times))
    log("comparing a and b", 0.0)
    log("comparing a and c", 0.5)
    log.share(0.6)
    log.share(0.75)
    assert stream.getvalue().splitlines() == [
        *("comparing a and b", "comparing a and c"),
        *("comparing a and c: 60%, 1 min left", "comparing a and c: 75%, 1 min left"),
    ]
