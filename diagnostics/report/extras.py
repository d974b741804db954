"""Libraries that only reports need, imported when a report, a picture or a data frame is made."""

from __future__ import annotations

import importlib
from types import ModuleType

from diagnostics.errors import InputError

__all__ = ["require"]


def require(module: str, purpose: str = "an HTML report", extra: str = "report") -> ModuleType:
    """Import a module of an optional dependency.

    Args:
        module: Its dotted name.
        purpose: What needs it.
        extra: The optional part of this package that installs it.

    Returns:
        The module.

    Raises:
        InputError: If it is not installed; the message says how to install it.

    Example:
        >>> require("json").__name__
        'json'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise InputError(
            f"{purpose} needs {package}, which cannot be imported ({error}); "
            f"install it with: pip install 'task-arithmetic-diagnostics[{extra}]'"
        ) from error
