"""Errors raised at the door: each says what was expected, what was found and how to fix it."""


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


class CheckpointError(InputError):
    """A checkpoint that cannot be read: missing, truncated, pickled or inconsistent with its index."""


class MismatchError(InputError):
    """Models whose parameters do not fit together; the message lists every tensor concerned."""


class NotDeterministicError(InputError):
    """A loss that changes between two evaluations at the same parameters."""


class ProcessError(RuntimeError):
    """Another of the processes that share the work failed or is gone; nothing was written."""
