"""The merge problem of a configuration, as every command that needs data builds it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch

from diagnostics.commands.terminal import Output
from diagnostics.inputs.config import RunConfig
from diagnostics.inputs.problem import MergeProblem

__all__ = ["build_problem", "note_method"]


def build_problem(config: RunConfig, output: Output, progress: Callable[[str], None]) -> MergeProblem:
    """Build the merge problem of a configuration, under its seed.

    Args:
        config: The configuration.
        output: Where notes go.
        progress: Told what is being done.

    Returns:
        The problem.
    """
    progress("reading models and data")
    # A module named by `kind` may lie beside the configuration; a console script has neither folder on its path.
    sys.path[:0] = [str(config.folder.resolve()), str(Path.cwd())]
    torch.manual_seed(config.seed)
    problem = config.problem()
    if problem.store is not None:
        output.notes.append(problem.store)
    private = dict.fromkeys(name for values in problem.private.values() for name in values)
    if private:
        output.notes.append(f"Private to their tasks and not merged: {', '.join(private)}")
    return problem


def note_method(config: RunConfig, output: Output) -> None:
    """Say where a command is about plain task arithmetic although the configuration names another method.

    Args:
        config: The configuration.
        output: Where the note goes.
    """
    if config.method != "task_arithmetic":
        output.notes.append(f"All numbers are of plain task arithmetic: the method {config.method} has no part in them")
