"""Arithmetic on parameters as one vector: flattening, inner products."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.inputs.parts import local, wrapped
from diagnostics.measures.space import Space

__all__ = [
    "accumulate",
    "flatten",
    "inner",
    "nearby",
    "norm",
    "require_alike",
    "same_values",
    "shifted",
    "unflatten",
    "widened",
    "zero_vector",
]


def flatten(params: Mapping[str, Tensor]) -> Tensor:
    """Concatenate parameters into one vector, in their own order.

    Args:
        params: Tensors by name.

    Returns:
        A vector of length d; of tensors that several processes hold in parts, this process's part of it.
    """
    return torch.cat([local(value).reshape(-1) for value in params.values()])


def unflatten(vector: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cut a vector back into named tensors.

    Args:
        vector: A vector of length d.
        like: Tensors whose names, shapes and order to use.

    Returns:
        Views of the vector, by name.
    """
    return {name: wrapped(part, like[name]) for name, part in _views(vector, like).items()}


def _views(vector: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Views of a vector in the shapes in which this process holds named tensors."""
    shapes = {name: local(value).shape for name, value in like.items()}
    parts = torch.split(vector, [math.prod(shape) for shape in shapes.values()])
    return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


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
    require_alike(first, second)
    pairs = ((local(first[name]).reshape(-1), local(second[name]).reshape(-1)) for name in first)
    own = math.fsum(float(torch.dot(one.double(), other.double())) for one, other in pairs)
    some = local(next(iter(first.values())))
    return float(Space.of(first).total(torch.tensor(own, dtype=torch.float64, device=some.device)))


def require_alike(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    """Refuse vectors that differ in the names or shapes of their tensors.

    Args:
        first: Tensors by name.
        second: Tensors by name.

    Raises:
        InputError: If they differ.
    """
    if first.keys() != second.keys():
        raise InputError(
            f"vectors differ in their tensors: {sorted(first.keys() ^ second.keys())} are in only one of them"
        )
    bad = [name for name in first if first[name].shape != second[name].shape]
    if bad:
        raise InputError(f"vectors differ in the shapes of {bad}")


def same_values(first: Tensor, second: Tensor) -> bool:
    """Say whether two tensors have the same values, in whatever types and wherever they are.

    Args:
        first: A tensor.
        second: Another of the same shape.

    Returns:
        Whether they have; at once where they share their memory.

    Example:
        >>> same_values(torch.ones(2), torch.ones(2, dtype=torch.bfloat16)), same_values(torch.ones(2), torch.zeros(2))
        (True, False)
    """
    # A tensor without memory of its own, one that processes hold in parts say, has the address 0.
    shared = first.data_ptr() == second.data_ptr() != 0 and first.stride() == second.stride()
    if shared and first.dtype == second.dtype:
        return True
    dtype = torch.promote_types(first.dtype, second.dtype)
    return torch.equal(first.to(second.device, dtype), second.to(dtype))


def norm(vector: Mapping[str, Tensor]) -> float:
    """Return ‖vector‖₂ over all named tensors.

    Args:
        vector: Tensors by name.

    Returns:
        The Euclidean norm.
    """
    return math.sqrt(inner(vector, vector))


def nearby(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a point near another, drawn at random and always the same one.

    What a function gives there tells it from others, which may agree with it at a point that somebody chose.

    Args:
        params: The point.

    Returns:
        The point moved by 1 % of its root mean square, or by 0.01 where it is zero.

    Example:
        >>> moved = nearby({"w": torch.ones(4)})["w"]
        >>> bool((moved != 1).all()), bool(((moved - 1).abs() < 0.05).all())
        (True, True)
    """
    generator = torch.Generator().manual_seed(0)
    scale = math.sqrt(inner(params, params) / max(1, sum(value.numel() for value in params.values()))) or 1.0
    return {
        name: value + (0.01 * scale * torch.randn(value.shape, generator=generator)).to(value)
        for name, value in params.items()
    }


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


def widened(params: Mapping[str, Tensor]) -> torch.dtype:
    """Return the type in which gradients are added up.

    Args:
        params: The parameters.

    Returns:
        Their widest type, and at least float32.

    Example:
        >>> widened({"w": torch.zeros(1, dtype=torch.bfloat16)})
        torch.float32
    """
    found = torch.float32
    for value in params.values():
        found = torch.promote_types(found, value.dtype)
    return found


def zero_vector(like: Mapping[str, Tensor]) -> Tensor:
    """Return a zero vector to add gradients up in.

    Args:
        like: The parameters.

    Returns:
        [d], where the parameters are, in the type that :func:`widened` gives.
    """
    count = sum(local(value).numel() for value in like.values())
    return torch.zeros(count, dtype=widened(like), device=next(iter(like.values())).device)


def accumulate(total: Tensor, share: float, parts: Iterable[Tensor], like: Mapping[str, Tensor]) -> None:
    """Add share · parts to a vector in place, without making a vector of the parts first.

    Args:
        total: [d], changed.
        share: The factor.
        parts: One tensor a parameter, in their order.
        like: The parameters.
    """
    for view, part in zip(_views(total, like).values(), parts, strict=True):
        view.add_(local(part.detach()), alpha=share)
