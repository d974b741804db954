"""The command that measures what updates are made of, how orthogonal they are, and whether tasks are disentangled."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from diagnostics.commands.models import PathsArgument, PrivateOption, read_models
from diagnostics.commands.options import DeviceOption, DtypeOption, HtmlOption, JsonOption, QuietOption
from diagnostics.commands.problem import build_problem
from diagnostics.commands.progress import Steps
from diagnostics.commands.terminal import Answer, Output
from diagnostics.errors import InputError
from diagnostics.inputs.checkpoints import Source
from diagnostics.inputs.config import RunConfig
from diagnostics.measures.orthogonality import orthogonality
from diagnostics.measures.update_structure import update_structure
from diagnostics.report.disentanglement_section import disentanglement_headline, disentanglement_section
from diagnostics.report.orthogonality_section import orthogonality_headline, orthogonality_section
from diagnostics.report.structure_section import structure_section
from diagnostics.verdicts.disentanglement import disentanglement_errors
from diagnostics.verdicts.feature_use import task_feature_specialisation

__all__ = ["HELP", "orthogonality_command"]

HELP = """\b
diagnostics orthogonality base/ news/ mail/            # from weights alone
diagnostics orthogonality merge.yaml --html page.html  # and from data
diagnostics orthogonality merge.yaml --grid 0,0.5,1

From weights: ranks and rows of every update, entries too small to store, \
angles between its columns and to those of other updates, with what chance \
would give. Where FILE has data for two experts or more, also which features \
each task uses, and the disentanglement error of every pair (4.1). No \
coefficients are needed. Exit status 0."""


def _values(text: str | None) -> list[float] | None:
    """The λ of a grid, refused where they are none."""
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or len(set(values)) < len(values) or not all(map(math.isfinite, values)):
        raise InputError(f"--grid: expected different finite numbers; found {text!r}. Write 0,0.5,1.")
    return values


def orthogonality_command(
    paths: PathsArgument,
    grid: Annotated[
        str | None, typer.Option(metavar="NUMBERS", help="λ of each expert in a pair: 0,0.5,1; by default 0.5 and 1.")
    ] = None,
    private: PrivateOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    json: JsonOption = None,
    html: HtmlOption = None,
    quiet: QuietOption = False,
) -> None:
    """Structure and orthogonality of updates, and disentanglement of tasks."""
    output, points = Output(json, html, quiet), _values(grid)
    base, experts, config = read_models("orthogonality", paths)
    config = config.placed(device, dtype) if config else None
    with_data = config is not None and bool(config.data) and len(config.experts) > 1
    if points and not with_data:
        raise InputError("--grid: expected a configuration with data for two experts or more beside it; found none.")
    hidden = [*(config.private if config else ()), *(private or [])]
    with output.working() as progress:
        payload = _from_weights(base, experts, hidden, progress)
        if config is not None and with_data:
            payload |= _from_data(config, points, output, progress)
    errors, features = payload.get("disentanglement"), payload.get("features")
    sections = [orthogonality_section(payload["orthogonality"], features), structure_section(payload["structure"])]
    headline = orthogonality_headline(payload["orthogonality"])
    if errors:
        sections, headline = [disentanglement_section(errors), *sections], disentanglement_headline(errors)
    title = "Do these tasks stay apart?" if errors else "How orthogonal are these updates?"
    output.give(Answer(title, headline, tuple(sections), payload))


def _from_weights(base: Source, experts: Mapping[str, Source], private: list[str], progress: Steps) -> dict[str, Any]:
    """Angles and structure."""
    progress("measuring angles between columns")
    angles = orthogonality(base, experts, private=private)
    structures = {}
    for name, expert in experts.items():
        progress(f"measuring ranks and rows of {name}")
        structures[name] = update_structure(base, expert, private=private, progress=progress.share)
    return {"orthogonality": angles, "structure": structures}


def _from_data(config: RunConfig, points: list[float] | None, output: Output, progress: Steps) -> dict[str, Any]:
    """Feature use and disentanglement; what a task does not allow is noted, and the rest is still answered."""
    problem = build_problem(config, output, progress)
    grid: dict[str, Any] = {"grid": points} if points else {}
    measures: dict[str, tuple[str, Callable[[], Any]]] = {
        "features": (
            "which features each task uses",
            lambda: task_feature_specialisation(problem, progress=progress.share),
        ),
        "disentanglement": (
            "disentanglement of every pair",
            lambda: disentanglement_errors(problem, progress=progress.share, **grid),
        ),
    }
    found = {}
    for key, (what, measure) in measures.items():
        progress(f"measuring {what}")
        try:
            found[key] = measure()
        except InputError as error:
            output.notes.append(f"Not measured, {what}: {error}")
    return found
