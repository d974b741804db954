"""Errors raised at the door: each says what was expected, what was found and how to fix it."""


class InputError(ValueError):
    """Input that cannot be used as it stands; nothing has been computed or written."""


class CheckpointError(InputError):
    """A checkpoint that cannot be read: missing, truncated, pickled or inconsistent with its index."""


class MismatchError(InputError):
    """Models whose parameters do not fit together; the message lists every tensor concerned."""


class NotDeterministicError(InputError):
    """A loss that changes between two evaluations at the same parameters."""
