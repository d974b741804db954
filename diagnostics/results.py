"""What a measurement returns: a value with its uncertainty, its status and the evidence behind it."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import torch

__all__ = ["Assumption", "Cost", "Estimate", "Result", "Status", "Verdict", "paint", "plain"]


class Status(StrEnum):
    """How far a number can be trusted; each member carries the advice that goes with it."""

    EXACT = "exact"
    CONVERGED = "converged"
    LOWER_BOUND = "lower bound"
    NOT_CONVERGED = "not converged"
    TAINTED = "tainted"
    UNDEFINED = "undefined"

    @property
    def advice(self) -> str:
        """What happened, and what to do about it."""
        return _ADVICE[self]

    @property
    def trusted(self) -> bool:
        """Whether the number may be used as it stands."""
        return self in {Status.EXACT, Status.CONVERGED}


_ADVICE = {
    Status.EXACT: "Computed without approximation, to the rounding of the arithmetic used.",
    Status.CONVERGED: "The error is within the tolerance asked for, at the confidence stated.",
    Status.LOWER_BOUND: (
        "The iteration settled on an eigenvalue, but a larger one is not excluded at the tolerance asked for: "
        "read the value as a lower bound, or raise max_products."
    ),
    Status.NOT_CONVERGED: (
        "The tolerance was not met: raise max_products, or rtol where it is below the error of products by differences."
    ),
    Status.TAINTED: "Something this number is built on failed or was not met: see the assumptions or evidence.",
    Status.UNDEFINED: "The quantity does not exist for this input (a zero vector has no direction, say).",
}


class Verdict(StrEnum):
    """A claim's outcome; undecided whenever the uncertainty crosses the threshold."""

    SUPPORTED = "supported"
    REFUTED = "refuted"
    UNDECIDED = "undecided"


@functools.singledispatch
def paint(result: Result, ax: Any) -> Any:
    """Draw a result; the report package registers a picture for each class that has one.

    Args:
        result: The result.
        ax: Matplotlib axes, or ``None`` for new ones.

    Raises:
        TypeError: If results of this class have no picture.
    """
    raise TypeError(f"{type(result).__name__} has no picture; print it, or use to_dict()")


class Result:
    """Base of result classes: a readable ``str``, a JSON-ready ``to_dict``, and ``plot`` and ``to_frame`` if any."""

    def plot(self, ax: Any = None) -> Any:
        """Draw the result, where a picture says more than its text.

        Args:
            ax: Matplotlib axes; new ones by default.

        Returns:
            The axes.
        """
        # Importing it registers the pictures. Here, as it knows every class of results, and each of them this one.
        importlib.import_module("diagnostics.report.plotting")
        return paint(self, ax)

    def to_frame(self, table: str | None = None) -> Any:
        """Return the result as a data frame of pandas, where its natural form is a table.

        Args:
            table: Which of its tables; the first by default.

        Returns:
            The frame, as :func:`diagnostics.to_frame` has it; what its columns hold is in ``attrs["columns"]``.
        """
        return importlib.import_module("diagnostics.report.frames").to_frame(self, table)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain dictionaries, lists, strings and numbers.

        Returns:
            The fields of the dataclass, with tensors as nested lists and NaN as ``None``.
        """
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {field.name: plain(getattr(self, field.name)) for field in fields}


def plain(value: Any) -> Any:
    """Turn a value into what JSON can hold.

    Args:
        value: A number, string, tensor, enum, dataclass, mapping or sequence of these.

    Returns:
        The same content in plain Python types; numbers that are not finite become ``None`` or a string.

    Example:
        >>> plain({"a": torch.tensor([1.0, float("nan")]), "b": float("inf")})
        {'a': [1.0, None], 'b': 'inf'}
    """
    if isinstance(value, Result):
        return value.to_dict()
    if isinstance(value, torch.Tensor):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else (None if math.isnan(value) else str(value))
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


@dataclasses.dataclass(frozen=True)
class Estimate(Result):
    """A number with its interval, the confidence of that interval, its status and its evidence."""

    value: float
    lower: float
    upper: float
    confidence: float
    status: Status
    evidence: str = ""

    def __str__(self) -> str:
        mark = "" if self.status.trusted else f" ({self.status})"
        if not (math.isfinite(self.lower) or math.isfinite(self.upper)):
            return f"{self.value:.4g}, no interval{mark}"
        return f"{self.value:.4g} [{self.lower:.4g}, {self.upper:.4g}]{mark}"

    def against(self, threshold: float) -> Verdict:
        """Judge "the quantity is at least ``threshold``".

        Args:
            threshold: The value to reach.

        Returns:
            Supported or refuted when the whole interval lies on one side, else undecided; an untrusted
            estimate never decides.

        Example:
            >>> str(Estimate(0.95, 0.92, 0.98, 0.9, Status.CONVERGED).against(0.9))
            'supported'
            >>> str(Estimate(0.95, 0.85, 0.98, 0.9, Status.CONVERGED).against(0.9))
            'undecided'
        """
        if not self.status.trusted or math.isnan(self.value):
            return Verdict.UNDECIDED
        if self.lower >= threshold:
            return Verdict.SUPPORTED
        return Verdict.REFUTED if self.upper < threshold else Verdict.UNDECIDED


@dataclasses.dataclass(frozen=True)
class Assumption(Result):
    """An assumption of a theorem, measured: ``holds`` is ``None`` where it could not be decided."""

    holds: bool | None
    measured: float
    limit: float
    note: str = ""

    def __str__(self) -> str:
        word = {True: "holds", False: "fails", None: "undecided"}[self.holds]
        return f"{word}: {self.measured:.4g} against {self.limit:.4g}. {self.note}".rstrip()


@dataclasses.dataclass(frozen=True)
class Cost(Result):
    """Work done, counted in passes over a task's data; a gradient is one pass forward and one backward.

    Attributes:
        forwards: Forward passes by themselves.
        gradients: Gradients.
        backwards: Backward passes beyond those of the gradients, through a graph that was there already.
        jvps: Directional derivatives.
        hessian_products: Hessian-vector products.
    """

    forwards: int = 0
    gradients: int = 0
    backwards: int = 0
    jvps: int = 0
    hessian_products: int = 0

    def __add__(self, other: Cost) -> Cost:
        names = [field.name for field in dataclasses.fields(self)]
        return Cost(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def __str__(self) -> str:
        parts = [f"{getattr(self, field.name)} {field.name.replace('_', ' ')}" for field in dataclasses.fields(self)]
        return ", ".join(part for part in parts if not part.startswith("0 ")) or "nothing"
