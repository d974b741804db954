"""Mean gradients on disjoint folds of the data: what unbiased norms and standard errors are made of (1.14)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.inputs.parts import local
from diagnostics.inputs.tasks import Parameters, Task
from diagnostics.measures.pieces import pieces_of
from diagnostics.measures.sketch import Sketch
from diagnostics.measures.slopes import slopes_of
from diagnostics.measures.space import Space
from diagnostics.measures.vectors import accumulate, flatten, require_alike, unflatten, widened, zero_vector
from diagnostics.processes import team

__all__ = ["SKETCH_SIZE", "FoldedGradients", "task_folds"]

Name = Any  # hashable

SKETCH_SIZE = 1 << 18

# Columns of the fold means that are held in float64 at a time.
_CHUNK = 1 << 16


class FoldedGradients:
    """Means of several gradients over each fold of their data, and over all of it.

    Fold means longer than the sketch are kept as sketches only. Means over all data are kept exactly, one vector a
    gradient, unless ``keep`` is false: then a model needs memory for one gradient at a time.

    Args:
        names: The gradients.
        like: The parameters, for names and shapes.
        folds: Number of folds F.
        keep: Whether the means over all data are kept.
        sketch_size: Longest vector that is kept as it is.
        seed: Seed of the sketch.
    """

    def __init__(
        self,
        names: Sequence[Name],
        like: Parameters,
        folds: int,
        *,
        keep: bool = True,
        sketch_size: int = SKETCH_SIZE,
        seed: int = 0,
    ) -> None:
        self.names, self.like = tuple(names), dict(like)
        first = next(iter(self.like.values()))
        self.space = Space.of(self.like)
        self.sketch = Sketch(self.space.dimension, sketch_size, seed=seed, device=first.device, space=self.space)
        dtype = widened(self.like)
        self._rows = torch.zeros(folds, len(self.names), self.sketch.size, dtype=dtype, device=first.device)
        held = sum(local(value).numel() for value in self.like.values())
        self._means = torch.zeros(len(self.names), held, dtype=dtype, device=first.device) if keep else None
        self.weights = torch.zeros(folds, len(self.names), dtype=torch.float64)

    def zero(self) -> Tensor:
        """Return a zero vector to add gradients up in.

        Returns:
            [d], in the type in which gradients are added up.
        """
        return zero_vector(self.like)

    def add(self, fold: int, name: Name, mean: Tensor, share: float) -> bool:
        """Add the mean gradient over some examples of a fold.

        Args:
            fold: The fold.
            name: The gradient.
            mean: Its mean over these examples, [d].
            share: Their share of all examples that the gradient is a mean over.

        Returns:
            Whether it is finite.
        """
        if self._means is not None:
            self._means[self.names.index(name)].add_(mean, alpha=share)
        # Whatever is not finite stays so in the sketch, which is shorter to look at.
        return self.add_sketch(fold, name, self.sketch(mean), share)

    def add_sketch(self, fold: int, name: Name, sketch: Tensor, share: float) -> bool:
        """Add the sketch of a mean gradient over some examples of a fold, where means are not kept.

        Args:
            fold: The fold.
            name: The gradient.
            sketch: The sketch of its mean, [sketch.size].
            share: Their share of all examples that the gradient is a mean over.

        Returns:
            Whether it is finite.
        """
        index = self.names.index(name)
        self._rows[fold, index].add_(sketch, alpha=share)
        self.weights[fold, index] += share
        return not self.space.most(not bool(sketch.isfinite().all()), sketch.device)

    @property
    def kept(self) -> bool:
        """Whether the means over all data are kept."""
        return self._means is not None

    @property
    def sums(self) -> list[Tensor]:
        """What gradients are added to, in place: to be summed where several processes added their own."""
        return [self._rows, self.weights, *([] if self._means is None else [self._means])]

    def products(self) -> Tensor:
        """Return all inner products of fold means.

        Returns:
            [F, A, F, A], float64.
        """
        # Rows hold sums weighted with shares; dividing their products is cheaper than dividing them.
        weights, (rows, space) = self.weights.flatten(), self._folded()
        return (_gram(rows.flatten(0, 1), space) / torch.outer(weights, weights)).view(2 * self.weights.shape)

    def plugin(self) -> Tensor:
        """Return the inner products of the means over all data.

        Returns:
            [A, A], float64; from the sketches where the means were not kept.
        """
        return _gram(*self._whole())

    def combine(self, row: Tensor) -> dict[str, Tensor]:
        """Return a linear combination of the means over all data.

        Args:
            row: Coefficients, [A].

        Returns:
            The combination by parameter name, float32 at least.

        Raises:
            InputError: If the means were not kept.
        """
        if self._means is None:
            raise InputError(
                "vectors were not kept (keep_vectors=False), so that a large model fits; norms, inner products and "
                "shares are there. For vectors, study fewer parameters (parameters=) and keep them."
            )
        return unflatten(self._sum(self._means, row), self.like)

    def norm(self, row: Tensor) -> float:
        """Return the norm of a linear combination of the means over all data.

        It is that of the vector, not the root of a form in inner products, which would leave half of the digits
        where vectors cancel.

        Args:
            row: Coefficients, [A].

        Returns:
            The norm; that of the sketch where the means were not kept.
        """
        rows, space = self._whole()
        return space.norm(self._sum(rows, row).double())

    def _whole(self) -> tuple[Tensor, Space]:
        """The means over all data, from the sketches where they were not kept, and the space that they lie in."""
        if self._means is not None:
            return self._means, self.space
        rows, space = self._folded()
        return rows.sum(0), space

    def _folded(self) -> tuple[Tensor, Space]:
        """What is kept of the folds; sketches of the parts of vectors add up to one that every process has."""
        if self.sketch.exact or self.space.group is None:
            return self._rows, self.space
        return self.space.total(self._rows.clone()), Space(self.sketch.size)

    @staticmethod
    def _sum(rows: Tensor, row: Tensor) -> Tensor:
        """A combination of rows, added up one by one: a matrix product rounds in the order that its kernel likes."""
        total = torch.zeros_like(rows[0])
        for value, each in zip(row.tolist(), rows, strict=True):
            if value:
                total.add_(each, alpha=value)
        return total


def task_folds(
    tasks: Mapping[Name, Task],
    params: Parameters,
    folds: int,
    *,
    constants: Mapping[Name, Parameters] | None = None,
    seed: int = 0,
) -> FoldedGradients:
    """Return the gradients of several tasks on disjoint folds of their data.

    Whole batches are dealt out to the folds in turn. Where a task has fewer batches than folds, its examples are, if
    its batches are tensors with examples first.

    Args:
        tasks: The tasks by name.
        params: The point θ.
        folds: Number of folds wanted; there are no more than every task can fill.
        constants: Vectors that are the same for all data (task vectors), with the names and shapes of ``params``.
        seed: Seed of the sketch.

    Returns:
        The gradients and constants. Cost: one gradient a task.

    Raises:
        InputError: If a loss or gradient is not finite, or a constant does not fit the parameters.
    """
    point = {name: value.detach() for name, value in params.items()}
    pieces = {name: pieces_of(task, point, folds) for name, task in tasks.items()}
    count = max(1, min([folds, *(piece.available for piece in pieces.values())]))
    gradients, crew = FoldedGradients([*tasks, *(constants or {})], point, count, seed=seed), team()
    pieces_dealt = ((name, piece) for name in tasks for piece in enumerate(pieces[name].deal(count)))

    def own() -> list[Tensor]:
        for name, (number, (fold, share, batch)) in crew.mine(pieces_dealt):
            value, slopes = slopes_of(tasks[name], point, batch)
            mean = gradients.zero()
            accumulate(mean, 1.0, slopes, point)
            if not (gradients.add(fold, name, mean, share) and bool(value.isfinite())):
                raise InputError(
                    f"task {tasks[name].name!r}: expected a finite loss and gradient; found {float(value)} in part "
                    f"{number} of its data. Look for NaN in inputs or weights, and for overflow in half precision"
                )
        return gradients.sums

    crew.total(own)
    for name, vector in (constants or {}).items():
        require_alike(vector, point)
        whole = flatten({key: vector[key].to(widened(point)) for key in point})
        for fold in range(count):
            gradients.add(fold, name, whole, 1 / count)
    return gradients


def _gram(rows: Tensor, space: Space) -> Tensor:
    """Inner products of rows, [N, N], added up in float64 without a float64 copy of all of them."""
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for chunk in rows.split(_CHUNK, dim=1):
        wide = chunk.double()
        total += wide @ wide.T
    return space.total(total).cpu()
