"""Error rules of NumPy's functions on whole arrays: joining, picking, products, norms, eigenvalues, solving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diagnostics.exact.rounding import UNIT, Rounded, _as_rounded, gamma, handles

__all__: list[str] = []


@handles(np.where)
def _where(condition: Any, one: Any, other: Any) -> Rounded:
    one, other = _as_rounded(one), _as_rounded(other)
    return Rounded(np.where(condition, one.value, other.value), np.where(condition, one.error, other.error))


def _joined(join: Any) -> Any:
    """A function that puts arrays together."""

    def rule(items: Sequence[Any], axis: int = 0) -> Rounded:
        parts = [_as_rounded(item) for item in items]
        return Rounded(join([part.value for part in parts], axis=axis), join([part.error for part in parts], axis=axis))

    return rule


handles(np.concatenate)(_joined(np.concatenate))
handles(np.stack)(_joined(np.stack))


def _moved(move: Any) -> Any:
    """A function that only picks or moves entries."""

    def rule(item: Any, *args: Any) -> Rounded:
        return Rounded(move(item.value, *args), move(item.error, *args))

    return rule


for _function in (np.diag, np.transpose, np.reshape, np.ravel, np.triu, np.tril, np.diagonal):
    handles(_function)(_moved(_function))


@handles(np.dot)
def _dot(a: Any, b: Any) -> Rounded:
    return _as_rounded(a) @ _as_rounded(b)


@handles(np.outer)
def _outer(a: Any, b: Any) -> Rounded:
    return _as_rounded(a).reshape(-1, 1) * _as_rounded(b).reshape(1, -1)


@handles(np.trace)
def _trace(a: Any) -> Rounded:
    return np.diag(a).sum()


@handles(np.mean)
def _mean(a: Any, axis: int | None = None) -> Rounded:
    a = _as_rounded(a)
    return a.sum(axis) / (a.value.size if axis is None else a.value.shape[axis])


@handles(np.einsum)
def _einsum(subscripts: str, *operands: Any) -> Rounded:
    parts = [_as_rounded(item) for item in operands]
    sizes = [np.abs(part.value) for part in parts]
    reach = np.einsum(subscripts, *(size + part.error for size, part in zip(sizes, parts, strict=True)))
    # No entry is a sum of more products than all the axes together allow.
    count = len(parts) + int(np.prod([max(1, *part.shape) for part in parts if part.ndim]))
    inherited = reach - np.einsum(subscripts, *sizes)
    error = np.maximum(inherited, 0) + gamma(count) * reach
    return Rounded(np.einsum(subscripts, *(part.value for part in parts)), error)


@handles(np.linalg.norm)
def _norm(a: Any, axis: int | None = None) -> Rounded:
    return np.sqrt((_as_rounded(a) ** 2).sum(axis))


@handles(np.linalg.eigvalsh)
def _eigvalsh(a: Any) -> Rounded:
    # Weyl: no eigenvalue moves further than the norm of the change. LAPACK's own error is that of a change of a few
    # n u ‖A‖.
    size = np.linalg.norm(a.value)
    moved = np.linalg.norm(a.error) + 4 * len(a) * UNIT * size
    return Rounded(np.linalg.eigvalsh(a.value), moved)


@handles(np.linalg.svd)
def _svd(a: Any, full_matrices: bool = True, compute_uv: bool = True) -> Rounded:
    if compute_uv:
        raise TypeError("Singular vectors have no error rule: use np.linalg.svd(x, compute_uv=False).")
    moved = np.linalg.norm(a.error) + 4 * max(a.shape) * UNIT * np.linalg.norm(a.value)
    return Rounded(np.linalg.svd(a.value, compute_uv=False), moved)


@handles(np.linalg.solve)
def _solve(a: Any, b: Any) -> Rounded:
    a, b = _as_rounded(a), _as_rounded(b)
    try:
        found = np.linalg.solve(a.value, b.value)
        inverse = np.abs(np.linalg.inv(a.value))
    except np.linalg.LinAlgError:
        return Rounded(np.full(b.shape, np.nan), np.inf)
    # x − x̂ = A⁻¹(b − A x̂), and the computed inverse is within a factor of two of the true one if this holds.
    certain = inverse.sum(1).max() * (np.abs(a.value).sum(1).max() * UNIT * len(a) + a.error.sum(1).max()) < 1e-3
    left = b - a @ Rounded(found)
    return Rounded(found, 2 * inverse @ (np.abs(left.value) + left.error) if certain else np.inf)
