"""Arithmetic on parameters as one vector: flattening, inner products."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from diagnostics.errors import InputError

__all__ = ["flatten", "inner", "norm", "shifted", "unflatten"]


def flatten(params: Mapping[str, Tensor]) -> Tensor:
    """Concatenate parameters into one vector, in their own order.

    Args:
        params: Tensors by name.

    Returns:
        A vector of length d.
    """
    return torch.cat([value.reshape(-1) for value in params.values()])


def unflatten(vector: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cut a vector back into named tensors.

    Args:
        vector: A vector of length d.
        like: Tensors whose names, shapes and order to use.

    Returns:
        Views of the vector, by name.
    """
    parts = torch.split(vector, [value.numel() for value in like.values()])
    return {name: part.view(value.shape) for (name, value), part in zip(like.items(), parts, strict=True)}


def inner(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """Return ⟨first, second⟩ over all named tensors, accumulated over tensors in float64.

    Args:
        first: Tensors by name.
        second: Tensors with the same names and shapes.

    Returns:
        The inner product.

    Raises:
        InputError: If the names or shapes differ.
    """
    if first.keys() != second.keys():
        raise InputError(
            f"vectors differ in their tensors: {sorted(first.keys() ^ second.keys())} are in only one of them"
        )
    bad = [name for name in first if first[name].shape != second[name].shape]
    if bad:
        raise InputError(f"vectors differ in the shapes of {bad}")
    return math.fsum(
        float(torch.dot(first[name].reshape(-1).double(), second[name].reshape(-1).double())) for name in first
    )


def norm(vector: Mapping[str, Tensor]) -> float:
    """Return ‖vector‖₂ over all named tensors.

    Args:
        vector: Tensors by name.

    Returns:
        The Euclidean norm.
    """
    return math.sqrt(inner(vector, vector))


def shifted(params: Mapping[str, Tensor], step: float, direction: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return params + step · direction.

    Args:
        params: The point.
        step: How far to go.
        direction: Tensors with the names of ``params``.

    Returns:
        The new point, by name.
    """
    return {name: value + step * direction[name] for name, value in params.items()}
