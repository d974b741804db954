"""The space that flat vectors lie in, of which every process may hold a part only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from diagnostics.inputs.parts import local, shared_mesh, start_of

__all__ = ["Space"]

# Numbers drawn at a time: whole rounds of the generator, so that blocks give the numbers that one draw of all gives.
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Space:
    """R^d, its vectors held whole by every process or in parts by several.

    Attributes:
        dimension: d.
        group: The processes that hold one part each; none where everyone holds all.
        parts: Where the numbers that this process holds are among all d, ``(start, stop)`` in order.

    Example:
        >>> space = Space.of({"w": torch.ones(2, 2)})
        >>> space.dimension, space.norm(torch.full((4,), 2.0)), space.parts
        (4, 4.0, ((0, 4),))
    """

    dimension: int
    group: Any = None
    parts: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, params: Mapping[str, Tensor]) -> Space:
        """Return the space of the vectors that are flat parameters.

        Args:
            params: The parameters.

        Returns:
            The space.

        Raises:
            InputError: If they are held in parts in a way that vectors cannot be made of.
        """
        dimension = sum(value.numel() for value in params.values())
        mesh = shared_mesh(params)
        if mesh is None:
            return cls(dimension, parts=((0, dimension),))
        parts, offset = [], 0
        for value in params.values():
            start = offset + start_of(value)
            parts.append((start, start + local(value).numel()))
            offset += value.numel()
        return cls(dimension, mesh.get_group(), tuple(parts))

    def dot(self, first: Tensor, second: Tensor) -> float:
        """Return ⟨first, second⟩.

        Args:
            first: A vector, or this process's part of it.
            second: Another.

        Returns:
            The same number on every process.
        """
        return float(self.total((first @ second).double()))

    def norm(self, vector: Tensor) -> float:
        """Return the length of a vector.

        Args:
            vector: The vector, or this process's part of it.

        Returns:
            The same number on every process.
        """
        length = vector.norm()
        return float(length) if self.group is None else math.sqrt(float(self.total(length.double() ** 2)))

    def total(self, sums: Tensor) -> Tensor:
        """Return sums over all coordinates.

        Args:
            sums: Those over the coordinates that this process holds; overwritten.

        Returns:
            The same tensor.
        """
        if self.group is not None:
            dist.all_reduce(sums, group=self.group)
        return sums

    def most(self, value: float, device: torch.device) -> float:
        """Return the largest of a number that every process has.

        Args:
            value: This process's.
            device: Where its part of vectors is.

        Returns:
            The same number on every process.
        """
        if self.group is None:
            return value
        largest = torch.tensor(value, dtype=torch.float64, device=device)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=self.group)
        return float(largest)

    def drawn(self, draw: Callable[[int], Tensor]) -> Tensor:
        """Return a vector of random numbers, the same however many processes hold it.

        Args:
            draw: Draws so many numbers, after those that it drew before.

        Returns:
            The vector, or this process's part of it, on the CPU.

        Example:
            >>> Space(6, parts=((1, 2), (4, 6))).drawn(torch.arange).tolist()
            [1, 4, 5]
        """
        vector, filled, start = torch.empty(0), 0, 0
        while start < self.dimension:
            # The last block takes what is left: a short draw would go through the generator in another way.
            stop = start + _BLOCK if self.dimension - start >= 2 * _BLOCK else self.dimension
            numbers = draw(stop - start)
            if start == 0:
                vector = numbers.new_empty(sum(last - first for first, last in self.parts))
            for first, last in self.parts:
                chosen = numbers[max(first - start, 0) : max(min(last, stop) - start, 0)]
                vector[filled : filled + len(chosen)] = chosen
                filled += len(chosen)
            start = stop
        return vector
