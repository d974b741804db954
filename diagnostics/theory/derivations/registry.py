"""Which derivations there are: those of the package, and those that a user adds."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from functools import cache

from diagnostics.errors import InputError
from diagnostics.theory import derivations as package
from diagnostics.theory.derivations.derivation import Derivation

__all__ = ["all_derivations", "get", "register"]

_added: dict[str, Derivation] = {}


@cache
def _own() -> dict[str, Derivation]:
    """The package's derivations, from every module of this folder that has some."""
    found: dict[str, Derivation] = {}
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        for derivation in getattr(importlib.import_module(module.name), "DERIVATIONS", ()):
            if derivation.id in found:
                raise InputError(f"two derivations have the id {derivation.id!r}; give one of them a word of its own.")
            found[derivation.id] = derivation
    return found


def all_derivations() -> list[Derivation]:
    """Return every derivation, in the order of the equation numbers; those of a user come last.

    Returns:
        The derivations.
    """
    return [*sorted(_own().values(), key=_order), *_added.values()]


def get(id: str) -> Derivation:
    """Return a derivation by its id.

    Args:
        id: An equation number, with a word where a number makes several claims.

    Returns:
        The derivation.

    Raises:
        InputError: If there is none.
    """
    known = {**_own(), **_added}
    if id not in known:
        near = difflib.get_close_matches(id, known, n=3, cutoff=0.3)
        raise InputError(f"derivation: expected a known id; found {id!r}. Nearest: {', '.join(near) or 'none'}.")
    return known[id]


def register(derivation: Derivation) -> Derivation:
    """Add a derivation, so that ``all``, ``get`` and the command line know it; the same id again replaces it.

    Args:
        derivation: The derivation.

    Returns:
        The same derivation.

    Raises:
        InputError: If its id is one of the package's.
    """
    if derivation.id in _own():
        raise InputError(f"derivation: expected a new id; {derivation.id!r} is the package's own. Choose another.")
    _added[derivation.id] = derivation
    return derivation


def _order(derivation: Derivation) -> tuple[int, int, str]:
    """Section, number, then the bare number before its sub-claims."""
    section, number, word = re.fullmatch(r"(\d+)\.(\d+)-?(.*)", derivation.id).groups()  # type: ignore[union-attr]
    return int(section), int(number), word
