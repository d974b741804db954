"""The command that holds measured loss gaps against the bounds of the theory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import typer

from diagnostics.commands.options import (
    CONFIG_HELP,
    CoefficientsOption,
    ConfigArgument,
    DeviceOption,
    DtypeOption,
    HtmlOption,
    JsonOption,
    QuietOption,
    parse_coefficients,
)
from diagnostics.commands.problem import build_problem, note_method
from diagnostics.commands.terminal import Answer, Output
from diagnostics.errors import InputError
from diagnostics.inputs.config import RunConfig, load_config
from diagnostics.inputs.problem import MergeProblem
from diagnostics.report.bounds_section import bounds_headline, bounds_section
from diagnostics.report.wording import merge_label
from diagnostics.theory.bound_report import BoundReport
from diagnostics.verdicts.loss_gaps import addition_bounds, negation_bounds, out_of_distribution_bound

__all__ = ["HELP", "bounds_answer", "bounds_command"]

# A label and how to bound what it stands for, telling how far it is.
_Job = tuple[str, Callable[[MergeProblem, Callable[[float], None]], Mapping[str, BoundReport]]]

HELP = f"""\b
diagnostics bounds merge.yaml --coefficients 0.5
diagnostics bounds merge.yaml --negate mail --coefficients mail=0.4
diagnostics bounds merge.yaml --target mail

Without --negate or --target, the merge with the coefficients is bounded, and \
the target too where FILE names an expert. Exit status 1 if a bound is broken.

{CONFIG_HELP}"""


def bounds_command(
    file: ConfigArgument,
    coefficients: CoefficientsOption = None,
    negate: Annotated[
        str | None, typer.Option(metavar="NAME", help="The expert to negate, at 1 where no coefficient is given.")
    ] = None,
    target: Annotated[str | None, typer.Option(metavar="NAME", help="The expert that counts as unseen.")] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    json: JsonOption = None,
    html: HtmlOption = None,
    quiet: QuietOption = False,
) -> None:
    """Loss gaps and their bounds."""
    output = Output(json, html, quiet)
    config = load_config(file).placed(device, dtype)
    jobs = _bound_jobs(config, coefficients, negate, target)
    note_method(config, output)
    with output.working() as progress:
        problem = build_problem(config, output, progress)
        groups = []
        for label, bound in jobs:
            progress(f"bounding the loss gaps: {label}")
            groups.append((label, bound(problem, progress.share)))
    output.give(bounds_answer(groups))


def bounds_answer(groups: Sequence[tuple[str, Mapping[str, BoundReport]]]) -> Answer:
    """Answer whether bounds hold.

    Args:
        groups: A label and reports by task, for each merge.

    Returns:
        The answer: no if one is broken.
    """
    payload = {"bounds": [{"merge": label, "tasks": reports} for label, reports in groups]}
    broken = any(report.holds is False for _, reports in groups for report in reports.values())
    sections = (bounds_section(groups),)
    return Answer("Loss gaps and their bounds", bounds_headline(groups), sections, payload, negative=broken)


def _bound_jobs(config: RunConfig, coefficients: str | None, negate: str | None, target: str | None) -> list[_Job]:
    """What to bound, each with its label; whatever does not fit the file is refused before models are read."""
    given = parse_coefficients(coefficients)
    if target is not None and (negate is not None or given is not None):
        raise InputError("--target: expected neither --negate nor --coefficients beside it; choose one of them.")
    known = given is not None or config.coefficients is not None
    if negate is not None:
        name = config.expert("--negate", negate)
        alphas = config.merge(given) if known else {name: 1.0}
        if name not in alphas:
            raise InputError(f"--negate: expected a coefficient for {name!r}; found {alphas}. Add {name}=1.")
        label = merge_label({name: -alphas[name]})
        return [(label, lambda problem, share: negation_bounds(problem, name, alphas[name], progress=share))]
    jobs: list[_Job] = []
    unseen = config.expert("--target", target) if target else config.target
    if target is None and (known or unseen not in config.experts):
        merge = config.merge(given)
        jobs.append((merge_label(merge), lambda problem, share: addition_bounds(problem, merge, progress=share)))
    if unseen in config.experts:
        jobs.append((f"{unseen} unseen", lambda problem, _: {unseen: out_of_distribution_bound(problem, unseen)}))
    return jobs
