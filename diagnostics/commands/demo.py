"""The command that runs the package's own demonstration."""

from __future__ import annotations

from typing import Annotated

import typer

from diagnostics.commands.options import HtmlOption, JsonOption, QuietOption
from diagnostics.commands.terminal import Output
from diagnostics.errors import InputError

__all__ = ["HELP", "demo_command"]

HELP = """\b
diagnostics demo
diagnostics demo --html demo.html --json demo.json
diagnostics demo --quick           # a dry run; its numbers mean nothing"""


def demo_command(
    quick: Annotated[bool, typer.Option("--quick", help="A dry run: numbers without meaning.")] = False,
    json: JsonOption = None,
    html: HtmlOption = None,
    quiet: QuietOption = False,
) -> None:
    """The package's own demonstration."""
    output = Output(json, html, quiet)
    try:
        from diagnostics.demo.run import run_demo

        with output.working() as progress:
            document, payload = run_demo(quick=quick, progress=progress)
    except ModuleNotFoundError as error:
        install = "pip install 'task-arithmetic-diagnostics[demo]'"
        raise InputError(f"demo: expected {error.name} to be installed; found nothing. Run {install}.") from error
    output.publish(document, payload)
