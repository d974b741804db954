"""Two experts of a problem whose outputs can be compared."""

from __future__ import annotations

from diagnostics.errors import InputError
from diagnostics.inputs.problem import MergeProblem

__all__ = ["pair_of"]


def pair_of(problem: MergeProblem, first: str, second: str, measure: str) -> tuple[str, str]:
    """Return the names of two different experts whose tasks have outputs.

    Args:
        problem: The merge problem.
        first: One expert.
        second: Another.
        measure: What needs the outputs, for the message.

    Returns:
        The names.

    Raises:
        InputError: If they are not two of the problem's, or a task has a loss only.
    """
    unknown = [name for name in (first, second) if name not in problem.names]
    if unknown or first == second:
        raise InputError(
            f"first and second: expected two different experts of {list(problem.names)}; "
            f"found {first!r} and {second!r}."
        )
    bare = [name for name in (first, second) if problem.tasks[name].readout is None]
    if bare:
        raise InputError(
            f"{measure}: expected tasks with outputs; {bare} have a loss only. "
            "Build them with Task.from_module, or give Task a readout."
        )
    return first, second
