"""Task vectors with known groups."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def planted(sizes: Sequence[int], within: float, between: float, dimension: int, seed: int = 0) -> Tensor:
    """Rows with cosine ``within`` inside a group and ``between`` across groups, up to chance of 1/sqrt(dimension).

    Each is the sum of a direction common to all, one of its group and one of its own.
    """
    generator = torch.Generator().manual_seed(seed)
    common, *groups = torch.randn(1 + len(sizes), dimension, generator=generator, dtype=torch.float64)
    rows = []
    for size, shared in zip(sizes, groups, strict=True):
        own = torch.randn(size, dimension, generator=generator, dtype=torch.float64)
        rows.append(math.sqrt(between) * common + math.sqrt(within - between) * shared + math.sqrt(1 - within) * own)
    return torch.cat(rows)


def groups_of(sizes: Sequence[int]) -> set[tuple[int, ...]]:
    """The planted partition."""
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    return {tuple(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)}


def cosines(rows: Tensor) -> Tensor:
    """Cosines of rows."""
    unit = rows / rows.norm(dim=1, keepdim=True)
    return unit @ unit.T


def models(rows: Tensor, tensors: int = 1) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """A base of zeros and experts e0, e1, … with these task vectors, cut into so many tensors."""
    names = [f"layer{index}.weight" for index in range(tensors)]
    parts = [dict(zip(names, row.chunk(tensors), strict=True)) for row in rows]
    base = {name: torch.zeros_like(value) for name, value in parts[0].items()}
    return base, {f"e{index}": part for index, part in enumerate(parts)}
