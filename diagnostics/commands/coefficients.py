"""The command that chooses the coefficients of a merge without evaluating any."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, get_args

import typer

from diagnostics.commands.options import (
    CacheOption,
    ConfigArgument,
    DeviceOption,
    DtypeOption,
    HtmlOption,
    JsonOption,
    QuietOption,
    parse_at_least,
)
from diagnostics.commands.problem import build_problem, note_method
from diagnostics.commands.terminal import Answer, Output
from diagnostics.errors import InputError
from diagnostics.inputs.config import load_config
from diagnostics.report.coefficients_section import coefficients_headline, coefficients_section
from diagnostics.report.prediction_section import prediction_section
from diagnostics.results import Verdict
from diagnostics.verdicts.coefficients import best_coefficients
from diagnostics.verdicts.landscape import Metric, Objective

__all__ = ["HELP", "coefficients_command"]

HELP = """\b
diagnostics coefficients merge.yaml
diagnostics coefficients merge.yaml --objective worst --shared
diagnostics coefficients merge.yaml --at-least news=0.95,mail=0.9
diagnostics coefficients merge.yaml --verify 5 --html report.html

FILE is that of predict; its coefficients are not used. Exit status 1 if the \
best coefficients are predicted, or measured, to miss what is asked for: \
--at-least, or 1 - tolerance of every expert's score."""


def _one_of(option: str, words: tuple[str, ...]) -> Callable[[str | None], str | None]:
    """Refuse other words, before anything is read."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in words:
            raise InputError(f"{option}: expected one of {list(words)}; found {value!r}. Write {words[0]}.")
        return value

    return check


def _upper(value: float) -> float:
    """Refuse bounds without room between them."""
    if not 0 < value < math.inf:
        raise InputError(f"--upper: expected a number above 0; found {value}. Write 1.5.")
    return value


_Aim = Annotated[
    str,
    typer.Option(
        metavar="WORD",
        help="What counts: the mean of the tasks, or the worst.",
        callback=_one_of("--objective", get_args(Objective)),
    ),
]
_Counted = Annotated[
    str | None,
    typer.Option(
        metavar="WORD",
        help="Measured by retention, or by loss; retention where every task has a score.",
        callback=_one_of("--metric", get_args(Metric)),
    ),
]
_Shared = Annotated[bool, typer.Option("--shared", help="One coefficient for all experts.")]
_Upper = Annotated[float, typer.Option(metavar="NUMBER", help="Largest coefficient.", callback=_upper)]
_AtLeast = Annotated[
    str | None, typer.Option(metavar="NUMBERS", help="Least share of the expert's score, by task: a=0.95,b=0.9.")
]
_Verify = Annotated[int, typer.Option(metavar="K", min=0, help="Evaluate the K best, and take the best of them.")]


def coefficients_command(
    file: ConfigArgument,
    objective: _Aim = "mean",
    metric: _Counted = None,
    shared: _Shared = False,
    upper: _Upper = 1.5,
    at_least: _AtLeast = None,
    verify: _Verify = 0,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    cache: CacheOption = None,
    json: JsonOption = None,
    html: HtmlOption = None,
    quiet: QuietOption = False,
) -> None:
    """The best coefficients."""
    output, config = Output(json, html, quiet), load_config(file).placed(device, dtype, cache)
    note_method(config, output)
    asked = {config.expert("--at-least", name): value for name, value in parse_at_least(at_least).items()}
    settings: dict[str, Any] = {"objective": objective, "metric": metric, "shared": shared, "bounds": (0.0, upper)}
    settings |= {"at_least": asked, "verify": verify, "tolerance": config.tolerance, "seed": config.seed}
    with output.working() as progress:
        problem = build_problem(config, output, progress)
        progress("measuring single models, and looking at candidates")
        choice = best_coefficients(problem, progress=progress.share, **settings)
    sections = (coefficients_section(choice), prediction_section(choice.prediction))
    negative, payload = choice.verdict is Verdict.REFUTED, {"choice": choice}
    output.give(Answer("Which coefficients?", coefficients_headline(choice), sections, payload, negative))
