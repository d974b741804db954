"""Random sketches of long vectors that keep inner products (CountSketch; Charikar, Chen, Farach-Colton 2002)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diagnostics.measures.space import Space

__all__ = ["Sketch"]

# Coordinates that are signed at a time: a signed copy of a whole gradient would be the largest vector of all.
_CHUNK = 1 << 20


class Sketch:
    """A random linear map to fewer dimensions; none at all where the vectors are short.

    Every coordinate is added, with a random sign, to one of ``size`` buckets drawn at random. The inner product of
    two sketches has the inner product of the vectors as its mean, and a variance of at most
    (‖u‖²‖v‖² + ⟨u, v⟩²)/size.

    Args:
        dimension: Length d of the vectors.
        size: Length of the sketches; a vector of at most this length is kept as it is.
        seed: Seed of buckets and signs.
        device: Where the vectors are.
        space: Their space, where processes hold parts of them; sketches of all parts add up to that of the vector.

    Example:
        >>> Sketch(3, 8)(torch.ones(3)).tolist(), Sketch(3, 8).error
        ([1.0, 1.0, 1.0], 0.0)
        >>> Sketch(10**4, 200).error  # standard error of ⟨u, v⟩ over ‖u‖‖v‖, at most
        0.1
    """

    def __init__(
        self,
        dimension: int,
        size: int,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        space: Space | None = None,
    ) -> None:
        space = space or Space(dimension, parts=((0, dimension),))
        self.exact = dimension <= size
        # Of a vector that is kept as it is, the part that is here.
        self.size = sum(stop - start for start, stop in space.parts) if self.exact else size
        if not self.exact:
            # Drawn on the CPU, so that every device gives the same sketch.
            generator = torch.Generator().manual_seed(seed)
            drawn = space.drawn(lambda count: torch.randint(2 * size, (count,), generator=generator, dtype=torch.int32))
            self._bucket = (drawn >> 1).to(device)
            self._sign = (1 - 2 * (drawn & 1)).to(torch.int8).to(device)

    @property
    def error(self) -> float:
        """Largest standard error of an inner product ⟨u, v⟩, in units of ‖u‖‖v‖."""
        return 0.0 if self.exact else math.sqrt(2 / self.size)

    def __call__(self, vector: Tensor) -> Tensor:
        """Sketch a vector.

        Args:
            vector: [d].

        Returns:
            The sketch, [size].
        """
        if self.exact:
            return vector
        sketch = vector.new_zeros(self.size)
        parts = (each.split(_CHUNK) for each in (vector, self._bucket, self._sign))
        for values, bucket, sign in zip(*parts, strict=True):
            sketch.index_add_(0, bucket, values * sign)
        return sketch
