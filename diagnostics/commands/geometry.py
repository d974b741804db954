"""The command that measures norms and angles of task vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from diagnostics.commands.models import PathsArgument, PrivateOption, read_models
from diagnostics.commands.options import CONFIG_HELP, HtmlOption, JsonOption, QuietOption
from diagnostics.commands.terminal import Answer, Output
from diagnostics.measures.geometry import Geometry, geometry
from diagnostics.report.geometry_section import geometry_headline, geometry_section

__all__ = ["HELP", "geometry_answer", "geometry_command"]

HELP = f"""\b
diagnostics geometry base/ news/ mail/
diagnostics geometry base/ news/ mail/ --target legal/ --private 'head.*'
diagnostics geometry merge.yaml --html report.html

In a configuration only base and experts are needed:

{CONFIG_HELP}"""


def geometry_command(
    paths: PathsArgument,
    target: Annotated[
        str | None, typer.Option(metavar="PATH", help="A model, or expert of FILE, that counts as unseen.")
    ] = None,
    private: PrivateOption = None,
    json: JsonOption = None,
    html: HtmlOption = None,
    quiet: QuietOption = False,
) -> None:
    """Norms and angles of task vectors."""
    output = Output(json, html, quiet)
    with output.working() as progress:
        progress("measuring the geometry of the task vectors")
        shape = _geometry(paths, target, private or [], progress.share)
    output.give(geometry_answer(shape))


def geometry_answer(shape: Geometry) -> Answer:
    """Answer how long and how parallel task vectors are.

    Args:
        shape: The geometry.

    Returns:
        The answer.
    """
    sections = (geometry_section(shape),)
    return Answer("Geometry of task vectors", geometry_headline(shape), sections, {"geometry": shape})


def _geometry(paths: list[Path], target: str | None, private: list[str], progress: Callable[[float], None]) -> Geometry:
    """The geometry of the models of a configuration, or of those at paths."""
    base, experts, config = read_models("geometry", paths)
    if config is None:
        return geometry(base, experts, target=target, private=private, progress=progress)
    known, unseen = config.unseen(target)
    return geometry(base, known, target=unseen, private=[*config.private, *private], progress=progress)
