"""The commands as a group: each is imported when it is run, and wrong input ends in a message."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from diagnostics.errors import InputError, ProcessError

__all__ = ["ANSWERED", "FAULT", "NO", "WRONG_INPUT", "Commands"]

ANSWERED, NO, WRONG_INPUT, FAULT = 0, 1, 2, 3


class Commands(TyperGroup):
    """Commands listed by a summary; ``commands/NAME.py`` has the rest of the help and the function NAME_command."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the command that was asked for, and no other: most of them need PyTorch.

        Args:
            ctx: The group's context.
            args: The command's name and its arguments.

        Returns:
            The name, the command, and its arguments.
        """
        name, listed, rest = super().resolve_command(ctx, args)
        return name, None if name is None or listed is None else _load(name, listed.help or ""), rest

    def invoke(self, ctx: Any) -> Any:
        """Run a command, answering wrong input by a message instead of a traceback.

        Args:
            ctx: The command's context.

        Returns:
            What the command returns.

        Raises:
            Exit: If the input was wrong, or another process failed.
        """
        from diagnostics.commands.terminal import say
        from diagnostics.processes import launched

        try:
            with launched():
                return super().invoke(ctx)
        except (InputError, ProcessError) as error:
            say(f"Error: {error}", "red")
            raise typer.Exit(WRONG_INPUT if isinstance(error, InputError) else FAULT) from error


def _load(name: str, summary: str) -> Any:
    """The command whose module goes by its name."""
    module = import_module(f"diagnostics.commands.{name}")
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    # The examples are shown as they stand: rich would take the [all] in one for a style.
    alone.command(name, help=escape(f"{summary}\n\n{module.HELP}"))(getattr(module, f"{name}_command"))
    return typer.main.get_command(alone)
