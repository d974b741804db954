"""The command line: it parses, calls and renders."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

from diagnostics.commands.group import Commands
from diagnostics.commands.interrupts import interruptible
from diagnostics.report.provenance import versions

# What each command does; commands/NAME.py says the rest. Nothing else is imported to show this list.
_SUMMARIES = {
    "init": "Write a configuration from a base and its experts, with every key explained.",
    "check": "Check whether checkpoints can be merged at all; needs no data.",
    "geometry": "Norms and angles of task vectors, read against chance; needs no data.",
    "bounds": "Measured loss gaps of a merge, held against the bounds of the theory.",
    "predict": "Predict what a merge does to every task, without evaluating it.",
    "coefficients": "Choose the coefficients of a merge by prediction, or with a few evaluations.",
    "relations": "How experts are related by their outputs, and which coefficients that implies.",
    "audit": "Audit whether adding task vectors can reach a target task, and what keeps them from it.",
    "bases": "Group experts by their task vectors, and merge each group into one basis vector.",
    "orthogonality": "What updates are made of, how orthogonal they are, and whether tasks stay apart.",
    "derivations": "The claims of the theory, listed or checked by a search for counterexamples.",
    "report": "One page about one merge, with all that the other commands say of it.",
    "demo": "Predict 117 merges of digit classifiers, then evaluate them, on this machine and without downloads.",
}

app = typer.Typer(
    cls=Commands,
    name="diagnostics",
    help="Predict whether a task-arithmetic merge will work, and measure why.",
    epilog="Exit status: 0 answered, 1 the answer is no, 2 the input is wrong, 3 a fault of this program, "
    "130 or 143 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        typer.echo(f"diagnostics {versions()['task-arithmetic-diagnostics']}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of the program itself."""


def _listed() -> None:
    """Stand for a command that is not imported yet."""


for _name, _summary in _SUMMARIES.items():
    app.command(_name, help=_summary)(_listed)


def main() -> None:
    """Run the command line; neither a fault of the program nor an interrupt may look like the answer no."""
    try:
        with interruptible():
            app()
    except Exception:
        traceback.print_exc()
        sys.exit(3)


if __name__ == "__main__":
    main()
