"""What made a report."""

from __future__ import annotations

import platform
from importlib.metadata import version

__all__ = ["footer", "versions"]

_PACKAGE = "task-arithmetic-diagnostics"


def versions() -> dict[str, str]:
    """Return the versions of what the numbers depend on.

    Returns:
        Versions of this package, Python, PyTorch and NumPy.

    Example:
        >>> sorted(versions())
        ['numpy', 'python', 'task-arithmetic-diagnostics', 'torch']
    """
    return {"python": platform.python_version(), **{name: version(name) for name in (_PACKAGE, "torch", "numpy")}}


def footer() -> tuple[str, ...]:
    """Return the line that closes a report.

    Returns:
        The versions as a sentence.
    """
    return ("Made with " + ", ".join(f"{name} {number}" for name, number in versions().items()) + ".",)
