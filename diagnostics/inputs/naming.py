"""Names of experts: given with them, or taken from their paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from diagnostics.errors import InputError
from diagnostics.inputs.checkpoints import Source
from diagnostics.inputs.texts import user_path

__all__ = ["name_experts"]


def name_experts(experts: Mapping[str, Source] | Sequence[str | Path], reserved: str) -> dict[str, Source]:
    """Return experts by name, with the names checked.

    Args:
        experts: Models, parameters or paths by name; a list of paths is named by their last parts.
        reserved: A name that no expert may have.

    Returns:
        The experts by name.

    Raises:
        InputError: If there is none, two paths have the same last part, or one has the reserved name.

    Example:
        >>> name_experts(["models/news", "models/mail"], reserved="target")
        {'news': 'models/news', 'mail': 'models/mail'}
    """
    if isinstance(experts, Mapping):
        named: dict[str, Source] = dict(experts)
    else:
        paths = [user_path(path) for path in _paths(experts)]
        names = [path.stem if path.is_file() else path.name for path in paths]
        if len(set(names)) < len(names):
            raise InputError(
                f"experts: expected paths whose last parts differ, as they are the names; found {names}. "
                "Name them: in Python by a mapping, on the command line in a configuration."
            )
        named = dict(zip(names, experts, strict=True))
    if not named or reserved in named:
        raise InputError(
            f"experts: expected at least one, and none called {reserved!r}; found {list(named) or 'none'}. "
            "Pass them by other names."
        )
    return named


def _paths(experts: object) -> Sequence[str | Path]:
    """Experts that are no mapping, where all of them have a path to be named by."""
    if isinstance(experts, str | Path):
        found, remedy = repr(experts), "[path]"
    elif not isinstance(experts, Sequence):
        found, remedy = type(experts).__name__, "{name: model}"
    else:
        nameless = [type(each).__name__ for each in experts if not isinstance(each, str | Path)]
        if not nameless:
            return experts
        found, remedy = f"a list with {', '.join(nameless)}", "{name: model}"
    raise InputError(f"experts: expected a list of paths or a mapping by name; found {found}. Write {remedy}.")
