"""Errors raised at the door: each says what was expected, what was found and how to fix it."""

import difflib
import math
from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used as it stands; nothing has been computed or written."""


def require_count(name: str, value: object, least: int = 1) -> None:
    """Refuse a setting that is not a whole number, or too small a one.

    Args:
        name: The setting.
        value: What was given.
        least: The smallest number allowed.

    Raises:
        InputError: If it is refused.

    Example:
        >>> require_count("folds", 0)
        Traceback (most recent call last):
        diagnostics.errors.InputError: folds: expected a whole number from 1 on; found 0.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name}: expected a whole number from {least} on; found {value!r}.")


def nearest(name: str, known: Iterable[str]) -> str:
    """Hint at the name that was meant.

    Args:
        name: What was written.
        known: The names that there are.

    Returns:
        A sentence.

    Example:
        >>> nearest("mial", ["news", "mail"])
        "Did you mean 'mail'?"
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else "Check the spelling."


def require_one_of(name: str, value: object, known: Iterable[str]) -> None:
    """Refuse a setting that is not one of the words it can be.

    Args:
        name: The setting.
        value: What was given.
        known: The words.

    Raises:
        InputError: If it is another.

    Example:
        >>> require_one_of("form", "papre", ["code", "paper"])
        Traceback (most recent call last):
        diagnostics.errors.InputError: form: expected one of code, paper; found 'papre'. Did you mean 'paper'?
    """
    words = list(known)
    if value not in words:
        raise InputError(f"{name}: expected one of {', '.join(words)}; found {value!r}. {nearest(str(value), words)}")


def require_share(name: str, value: object, *, positive: bool = False) -> None:
    """Refuse a setting that is not a share of something, below all of it.

    Args:
        name: The setting.
        value: What was given.
        positive: Whether 0 is refused too.

    Raises:
        InputError: If it is refused.

    Example:
        >>> require_share("tolerance", 5)
        Traceback (most recent call last):
        diagnostics.errors.InputError: tolerance: expected a share from 0 to below 1; found 5. Write 0.1 for 10%.
    """
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not 0 <= number < 1 or (positive and number == 0):
        expected = "above 0 and below 1" if positive else "from 0 to below 1"
        raise InputError(f"{name}: expected a share {expected}; found {value!r}. Write 0.1 for 10%.")


class CheckpointError(InputError):
    """A checkpoint that cannot be read: missing, truncated, pickled or inconsistent with its index."""


class MismatchError(InputError):
    """Models whose parameters do not fit together; the message lists every tensor concerned."""


class NotDeterministicError(InputError):
    """A loss that changes between two evaluations at the same parameters."""


class ProcessError(RuntimeError):
    """Another of the processes that share the work failed or is gone; nothing was written."""
