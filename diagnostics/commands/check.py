"""The command that says whether checkpoints can be merged at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from diagnostics.commands.models import PathsArgument, PrivateOption, read_models
from diagnostics.commands.options import HtmlOption, JsonOption, QuietOption
from diagnostics.commands.terminal import Answer, Output
from diagnostics.errors import InputError
from diagnostics.inputs.alignment import BASE
from diagnostics.inputs.checkpoints import Source
from diagnostics.inputs.naming import name_experts
from diagnostics.inputs.recipes import is_recipe, read_recipe
from diagnostics.report.compatibility_section import compatibility_headline, compatibility_section
from diagnostics.verdicts.compatibility import check_compatibility
from diagnostics.verdicts.findings import Finding, Severity

__all__ = ["HELP", "check_answer", "check_command"]

HELP = """\b
diagnostics check base/ news/ mail/
diagnostics check base/ news/ mail/ --private 'classifier.*'
diagnostics check merge.yaml --html report.html --json findings.json
diagnostics check mergekit.yaml

Tensors, tokenizers and values that do not fit; experts of another base; \
units in another order; updates lost to rounding; adapters that cannot be added. \
Of a configuration only base, experts and private are used. \
Exit status 1 if an error was found, with --fail-on warning also for a warning; \
notes leave it at 0."""


class FailOn(StrEnum):
    """What gives status 1."""

    ERROR = "error"
    WARNING = "warning"
    NEVER = "never"


_FAILING = {
    FailOn.ERROR: {Severity.ERROR},
    FailOn.WARNING: {Severity.ERROR, Severity.WARNING},
    FailOn.NEVER: frozenset[Severity](),
}


def check_command(
    paths: PathsArgument,
    private: PrivateOption = None,
    fail_on: Annotated[
        FailOn, typer.Option(metavar="FINDING", help="Exit status 1 on: error, warning (or error), or never.")
    ] = FailOn.ERROR,
    json: JsonOption = None,
    html: HtmlOption = None,
    quiet: QuietOption = False,
) -> None:
    """Whether checkpoints can be merged at all."""
    output = Output(json, html, quiet)
    base, experts, hidden = _models(paths)
    with output.working() as progress:
        progress("reading the headers of the models")
        hidden += private or []
        progress("comparing weights")
        findings = check_compatibility(base, experts, private=hidden, progress=progress.share)
    output.give(check_answer(findings, list(experts), fail_on))


def check_answer(findings: Sequence[Finding], experts: Sequence[str], fail_on: FailOn = FailOn.ERROR) -> Answer:
    """Answer whether checkpoints can be merged.

    Args:
        findings: What was found.
        experts: Names of the experts.
        fail_on: What makes the answer no.

    Returns:
        The answer.
    """
    severities = {finding.severity for finding in findings}
    sections = (compatibility_section(findings, experts),)
    payload = {"compatible": Severity.ERROR not in severities, "findings": findings}
    negative, headline = bool(severities & _FAILING[fail_on]), compatibility_headline(findings, experts)
    return Answer("Can these checkpoints be merged?", headline, sections, payload, negative)


def _models(paths: list[Path]) -> tuple[Path, dict[str, Source], list[str]]:
    """Base, experts and private names, of a recipe, of a configuration or from paths."""
    if len(paths) == 1 and is_recipe(paths[0]):
        base, recipe = _recipe(paths[0])
        return base, name_experts(recipe, reserved=BASE), []
    base, experts, config = read_models("check", paths)
    return base, experts, config.private if config else []


def _recipe(path: Path) -> tuple[Path, Mapping[str, Path]]:
    """Base and experts of a mergekit recipe."""
    recipe = read_recipe(path)
    if recipe.base is None:
        raise InputError(f"{path}: base_model: expected the common base to check against; found nothing. Add it.")
    return recipe.base, recipe.experts
