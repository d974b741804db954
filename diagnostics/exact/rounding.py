"""Float64 numbers that carry a bound on their own rounding error (running error analysis).

Every operation adds to the errors it inherits what rounding can add, with u = 2⁻⁵³ and γ_n = nu/(1 − nu)
(Higham, *Accuracy and Stability of Numerical Algorithms*, chapters 3 and 4)::

    |fl(a ∘ b) − a ∘ b| ≤ u|a ∘ b|        |fl(Σ a_i) − Σ a_i| ≤ γ_{n−1} Σ|a_i|        |fl(AB) − AB| ≤ γ_n |A||B|

So two sides of an identity that differ by more than the sum of their errors differ, and not by rounding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

__all__ = ["Rounded", "lift", "values"]

UNIT = 2.0**-53
# Half of the least subnormal number: what a product or quotient that underflows can lose.
TINY = 2.0**-1074
# The C library's exp, log, cos and so on are good to one unit in the last place; two are allowed.
_LIBRARY = 4 * UNIT

_HANDLED: dict[Any, Callable[..., Any]] = {}


def gamma(count: int) -> float:
    """Return γ_n = nu/(1 − nu), what n roundings in a row can add."""
    return count * UNIT / (1 - count * UNIT)


class Rounded(NDArrayOperatorsMixin):
    """An array of float64 values with a bound on the error of each.

    It takes part in arithmetic, NumPy functions, indexing and iteration as an array does. What it cannot follow
    raises ``TypeError`` rather than losing the error.

    Args:
        value: The numbers.
        error: Bounds on |value − true value|; zero by default, for numbers that are exact.

    Example:
        >>> third = Rounded(1.0) / 3
        >>> float(third.value), float(third.error) <= 2**-53
        (0.3333333333333333, True)
        >>> bool((third * 3 - 1).error > 0)
        True
    """

    __slots__ = ("error", "value")

    def __init__(self, value: Any, error: Any = 0.0) -> None:
        self.value = np.asarray(value, dtype=np.float64)
        error = np.asarray(error, dtype=np.float64)
        self.error = error if error.shape == self.value.shape else np.broadcast_to(error, self.value.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.value.shape

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self.value.ndim

    @property
    def T(self) -> Rounded:
        """The transpose."""
        return Rounded(self.value.T, self.error.T)

    def sum(self, axis: int | None = None) -> Rounded:
        """Return the sum of the entries."""
        return _sum(self, axis)

    def reshape(self, *shape: Any) -> Rounded:
        """Return the same entries in another shape."""
        return Rounded(self.value.reshape(*shape), self.error.reshape(*shape))

    def __getitem__(self, index: Any) -> Rounded:
        return Rounded(self.value[index], self.error[index])

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Any:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"Rounded({self.value!r}, error={self.error!r})"

    def __bool__(self) -> bool:
        return bool(self.value)

    def __float__(self) -> float:
        raise TypeError(
            "float() of a Rounded number would lose its error bound. Use numpy functions (np.sqrt instead of "
            "math.sqrt), or values(x) where the error does not matter."
        )

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            "This function cannot follow rounding errors. Give it values(x), and put what it returns into "
            "Rounded(value, error) with a bound on its error."
        )

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method == "reduce" and ufunc in _REDUCTIONS:
            return _REDUCTIONS[ufunc](inputs[0], kwargs.get("axis"))
        if method != "__call__" or kwargs:
            raise TypeError(f"Rounded numbers do not support np.{ufunc.__name__}.{method} with {sorted(kwargs)}.")
        arguments = [_as_rounded(item) for item in inputs]
        if ufunc in _COMPARISONS:
            return ufunc(*(item.value for item in arguments))
        if ufunc not in _RULES:
            raise TypeError(f"Rounded numbers have no error rule for np.{ufunc.__name__}; wrap values(x) yourself.")
        with np.errstate(all="ignore"):
            return _RULES[ufunc](*arguments)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function not in _HANDLED:
            raise TypeError(f"Rounded numbers have no error rule for np.{function.__name__}; wrap values(x) yourself.")
        with np.errstate(all="ignore"):
            return _HANDLED[function](*args, **kwargs)


def lift(item: Any) -> Any:
    """Make every float and float array of a case a ``Rounded`` one without error; the rest stays as it is.

    Args:
        item: A number, array, tuple, list, mapping or dataclass of these.

    Returns:
        The same structure.

    Example:
        >>> lift({"a": 1.5, "k": 2})
        {'a': Rounded(array(1.5), error=array(0.)), 'k': 2}
    """
    if isinstance(item, float):
        return Rounded(item)
    if isinstance(item, np.ndarray) and item.dtype == np.float64:
        return Rounded(item)
    return _through(item, lift)


def values(item: Any) -> Any:
    """Drop the errors again.

    Args:
        item: As for ``lift``.

    Returns:
        The same structure with plain floats and arrays.

    Example:
        >>> values((Rounded(1.5), Rounded([1.0, 2.0])))
        (1.5, array([1., 2.]))
    """
    if isinstance(item, Rounded):
        return item.value if item.ndim else float(item.value)
    return _through(item, values)


def _through(item: Any, function: Callable[[Any], Any]) -> Any:
    """Apply a function inside tuples, lists, mappings and dataclasses."""
    if isinstance(item, tuple | list):
        return type(item)(function(each) for each in item)
    if isinstance(item, Mapping):
        return {key: function(each) for key, each in item.items()}
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        fields = [field.name for field in dataclasses.fields(item) if field.init]
        return dataclasses.replace(item, **{name: function(getattr(item, name)) for name in fields})
    return item


def _as_rounded(item: Any) -> Rounded:
    """Plain numbers are exact."""
    return item if isinstance(item, Rounded) else Rounded(item)


def _add(a: Rounded, b: Rounded) -> Rounded:
    total = a.value + b.value
    return Rounded(total, a.error + b.error + UNIT * np.abs(total))


def _subtract(a: Rounded, b: Rounded) -> Rounded:
    return _add(a, Rounded(-b.value, b.error))


def _multiply(a: Rounded, b: Rounded) -> Rounded:
    product = a.value * b.value
    inherited = _weigh(a.value, b.error) + _weigh(b.value, a.error) + _weigh(a.error, b.error)
    return Rounded(product, inherited + UNIT * np.abs(product) + TINY)


def _divide(a: Rounded, b: Rounded) -> Rounded:
    ratio = a.value / b.value
    inherited = (a.error + _weigh(ratio, b.error)) / (np.abs(b.value) - b.error)
    certain = np.abs(b.value) > b.error
    return Rounded(ratio, np.where(certain, inherited + UNIT * np.abs(ratio) + TINY, np.inf))


def _weigh(factor: Any, error: Any) -> Any:
    """|factor|·error, with 0·∞ = 0 only where the factor is an exact zero."""
    return np.where(error > 0, np.abs(factor) * error, 0.0)


def _power(a: Rounded, b: Rounded) -> Rounded:
    exponent = int(b.value)
    if exponent != b.value or exponent < 1 or b.ndim:
        raise TypeError(f"Rounded numbers take whole powers from 1 on; found {b.value}. Use np.sqrt or np.exp.")
    result = a
    for _ in range(exponent - 1):
        result = _multiply(result, a)
    return result


def _sqrt(a: Rounded) -> Rounded:
    root = np.sqrt(np.maximum(a.value, 0.0))
    down = root - np.sqrt(np.maximum(a.value - a.error, 0.0))
    up = np.sqrt(np.maximum(a.value + a.error, 0.0)) - root
    lost = np.where(a.value + a.error < 0, np.nan, np.maximum(down, up))
    return Rounded(np.where(np.isnan(lost), np.nan, root), lost + 3 * UNIT * root)


def _exp(a: Rounded) -> Rounded:
    result = np.exp(a.value)
    return Rounded(result, result * (np.expm1(a.error) + _LIBRARY * np.exp(a.error)) + TINY)


def _log(a: Rounded) -> Rounded:
    result = np.log(a.value)
    certain = a.value > a.error
    return Rounded(result, np.where(certain, -np.log1p(-a.error / a.value) + _LIBRARY * np.abs(result), np.inf))


def _lipschitz(ufunc: np.ufunc) -> Callable[[Rounded], Rounded]:
    """A function whose derivative is never above one."""

    def rule(a: Rounded) -> Rounded:
        result = ufunc(a.value)
        return Rounded(result, a.error + _LIBRARY * np.abs(result) + TINY)

    return rule


def _exact(ufunc: np.ufunc) -> Callable[..., Rounded]:
    """A function that rounds nothing and moves no further than its arguments do."""

    def rule(*arguments: Rounded) -> Rounded:
        error = arguments[0].error
        for other in arguments[1:]:
            error = np.maximum(error, other.error)
        return Rounded(ufunc(*(item.value for item in arguments)), error)

    return rule


def _matmul(a: Rounded, b: Rounded) -> Rounded:
    product = a.value @ b.value
    size_a, size_b = np.abs(a.value), np.abs(b.value)
    length = a.value.shape[-1]
    error = size_a @ b.error + a.error @ size_b + a.error @ b.error + gamma(length) * (size_a @ size_b)
    return Rounded(product, error + length * TINY)


def _sum(a: Any, axis: int | None = None) -> Rounded:
    a = _as_rounded(a)
    count = a.value.size if axis is None else a.value.shape[axis]
    error = a.error.sum(axis) + gamma(max(count - 1, 0)) * np.abs(a.value).sum(axis)
    return Rounded(a.value.sum(axis), error)


def _extreme(pick: Any) -> Callable[..., Rounded]:
    """Max or min over an axis: it moves no further than the entry that moves furthest."""

    def rule(a: Any, axis: int | None = None) -> Rounded:
        a = _as_rounded(a)
        return Rounded(pick(a.value, axis=axis), a.error.max(axis=axis))

    return rule


_COMPARISONS = {np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal, np.isfinite, np.isnan}
_REDUCTIONS: dict[np.ufunc, Callable[..., Rounded]] = {
    np.add: _sum,
    np.maximum: _extreme(np.max),
    np.minimum: _extreme(np.min),
}
_RULES: dict[np.ufunc, Callable[..., Any]] = {
    np.add: _add,
    np.subtract: _subtract,
    np.multiply: _multiply,
    np.divide: _divide,
    np.power: _power,
    np.square: lambda a: _multiply(a, a),
    np.negative: _exact(np.negative),
    np.positive: _exact(np.positive),
    np.absolute: _exact(np.absolute),
    np.maximum: _exact(np.maximum),
    np.minimum: _exact(np.minimum),
    np.sqrt: _sqrt,
    np.exp: _exp,
    np.log: _log,
    np.sin: _lipschitz(np.sin),
    np.cos: _lipschitz(np.cos),
    np.tanh: _lipschitz(np.tanh),
    np.matmul: _matmul,
    np.sign: lambda a: Rounded(np.sign(a.value), np.where(np.abs(a.value) > a.error, 0.0, 2.0)),
}


def handles(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give NumPy functions an error rule."""

    def register(rule: Callable[..., Any]) -> Callable[..., Any]:
        _HANDLED.update(dict.fromkeys(functions, rule))
        return rule

    return register


handles(np.sum)(_sum)
handles(np.max, np.amax)(_extreme(np.max))
handles(np.min, np.amin)(_extreme(np.min))
