"""The command that chooses the coefficients of a merge without evaluating any."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from diagnostics.commands.options import HtmlOption, JsonOption, QuietOption, parse_shares
from diagnostics.commands.terminal import Answer, Output
from diagnostics.errors import InputError
from diagnostics.inputs.config import RunConfig, load_config
from diagnostics.inputs.problem import MergeProblem
from diagnostics.report.coefficients_section import coefficients_headline, coefficients_section
from diagnostics.report.prediction_section import prediction_section
from diagnostics.results import Verdict
from diagnostics.verdicts.coefficients import best_coefficients
from diagnostics.verdicts.landscape import Metric, Objective

__all__ = ["HELP", "coefficients_command"]

HELP = """Choose the coefficients of a merge by prediction, or with a few evaluations.

\b
diagnostics coefficients merge.yaml
diagnostics coefficients merge.yaml --objective worst --shared
diagnostics coefficients merge.yaml --at-least news=0.95,mail=0.9
diagnostics coefficients merge.yaml --verify 5 --html report.html

FILE is that of predict; its coefficients are not used. Exit status 1 if the \
best coefficients are predicted, or measured, to miss what is asked for: \
--at-least, or 1 - tolerance of every expert's score."""

# Reads models and data of a configuration, with notes and progress.
_Build = Callable[[RunConfig, Output, Callable[[str], None]], MergeProblem]


def coefficients_command(build: _Build) -> Callable[..., None]:
    """Return the command.

    Args:
        build: Builds the merge problem of a configuration.

    Returns:
        The function that the command line calls.
    """

    def command(
        file: Annotated[Path, typer.Argument(metavar="FILE", help="A configuration, in YAML or TOML.")],
        objective: Annotated[str, typer.Option(metavar="mean | worst", help="Which tasks count.")] = "mean",
        metric: Annotated[
            str | None,
            typer.Option(metavar="retention | loss", help="What counts; retention where every task has a score."),
        ] = None,
        shared: Annotated[bool, typer.Option("--shared", help="One coefficient for all experts.")] = False,
        upper: Annotated[float, typer.Option(metavar="NUMBER", help="Largest coefficient.")] = 1.5,
        at_least: Annotated[
            str | None, typer.Option(metavar="a=0.95,b=0.9", help="Least share of the expert's score, by task.")
        ] = None,
        verify: Annotated[
            int, typer.Option(metavar="K", min=0, help="Evaluate so many of the best, and take the best of them.")
        ] = 0,
        json: JsonOption = None,
        html: HtmlOption = None,
        quiet: QuietOption = False,
    ) -> None:
        """The best coefficients."""
        output = Output(json, html, quiet)
        chosen, counted = _one_of("--objective", objective, Objective), metric and _one_of("--metric", metric, Metric)
        if not 0 < upper < float("inf"):
            raise InputError(f"--upper: expected a number above 0; found {upper}. Write 1.5.")
        asked = parse_shares("--at-least", at_least)
        config = load_config(file)
        for name in asked:
            config.expert("--at-least", name)
        with output.working() as progress:
            problem = build(config, output, progress)
            progress("measuring single models, and looking at candidates")
            choice = best_coefficients(
                problem,
                objective=chosen,
                metric=counted,
                shared=shared,
                bounds=(0.0, upper),
                at_least=asked,
                verify=verify,
                tolerance=config.tolerance,
                seed=config.seed,
            )
        negative = choice.verdict is Verdict.REFUTED
        sections = (coefficients_section(choice), prediction_section(choice.prediction))
        answer = Answer("Which coefficients?", coefficients_headline(choice), sections, {"choice": choice}, negative)
        output.give(answer)

    return command
