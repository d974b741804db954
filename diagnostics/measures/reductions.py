"""Updates made smaller: the best part of a rank of every matrix, or its rows of largest norm (3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from diagnostics.errors import InputError, require_count
from diagnostics.measures.agreement import as_matrix
from diagnostics.measures.row_profile import rows_of
from diagnostics.measures.singular_values import principal_axes
from diagnostics.results import Result

__all__ = ["Reducer", "Reduction"]


@dataclass(frozen=True)
class Reduction(Result):
    """What is kept of every matrix of an update; tensors of less than two dimensions are kept whole.

    Attributes:
        kind: ``"rank"``: the best approximation of that rank. ``"rows"``: the rows of largest norm.
        amount: The rank, or the share of rows.

    Raises:
        InputError: If the kind is unknown or the amount out of range.
    """

    kind: Literal["rank", "rows"]
    amount: float

    def __post_init__(self) -> None:
        if self.kind == "rank":
            require_count("ranks", self.amount)
        elif self.kind == "rows":
            rows_of(self.amount, 1)
        else:
            raise InputError(f"kind: expected 'rank' or 'rows'; found {self.kind!r}.")

    def __str__(self) -> str:
        return f"rank {self.amount}" if self.kind == "rank" else f"{self.amount:.3g} of the rows"

    def numbers(self, shape: tuple[int, ...]) -> int:
        """Return how many numbers are left of a tensor: factors where they are fewer, or rows.

        Args:
            shape: Of the tensor.

        Returns:
            The count.

        Example:
            >>> Reduction("rank", 2).numbers((10, 20)), Reduction("rows", 0.5).numbers((10, 20))
            (60, 100)
        """
        count = torch.Size(shape).numel()
        if len(shape) < 2 or count == 0:
            return count
        columns = count // shape[0]
        if self.kind == "rows":
            return rows_of(self.amount, shape[0]) * columns
        return min(int(self.amount) * (shape[0] + columns), count)


@dataclass
class Reducer:
    """Reductions of one update, its principal axes computed once.

    Attributes:
        vector: The update by parameter name.
        most: Largest rank that will be asked for.
        seed: Of what is drawn in place of the best.
    """

    vector: Mapping[str, Tensor]
    most: int
    seed: int = 0
    _axes: dict[str, Tensor] = field(default_factory=dict)

    def reduce(self, reduction: Reduction, *, random: bool = False) -> dict[str, Tensor]:
        """Return the part of the update that a reduction keeps.

        Args:
            reduction: Which.
            random: Whether to keep as many random rows, or the part in as many random directions, instead of the best.

        Returns:
            The part by parameter name: an orthogonal projection of every matrix.

        Example:
            >>> Reducer({"w": torch.diag(torch.tensor([1.0, 2.0]))}, 1).reduce(Reduction("rows", 0.5))["w"].tolist()
            [[0.0, 0.0], [0.0, 2.0]]
        """
        generator = torch.Generator().manual_seed(self.seed)
        return {
            name: self._matrix(name, reduction, generator if random else None).reshape(tensor.shape)
            if tensor.ndim > 1 and tensor.numel()
            else tensor
            for name, tensor in self.vector.items()
        }

    def _matrix(self, name: str, reduction: Reduction, generator: torch.Generator | None) -> Tensor:
        """One reduced matrix."""
        matrix = as_matrix(self.vector[name])
        if reduction.kind == "rows":
            return _rows(matrix, rows_of(reduction.amount, len(matrix)), generator)
        rank = int(reduction.amount)
        if rank >= min(matrix.shape):
            return matrix
        axes = self._principal(name, matrix)[:, :rank]
        if generator is not None:
            axes = torch.linalg.qr(torch.randn(axes.shape, generator=generator, dtype=torch.float64)).Q
        axes = axes.to(matrix)
        # The axes are those of the smaller side.
        return matrix @ axes @ axes.T if _tall(matrix) else axes @ (axes.T @ matrix)

    def _principal(self, name: str, matrix: Tensor) -> Tensor:
        """The first axes of a matrix on its smaller side."""
        if name not in self._axes:
            axes = principal_axes((matrix if _tall(matrix) else matrix.T).detach().cpu())[1]
            self._axes[name] = axes[:, : self.most].clone()
        return self._axes[name]


def _rows(matrix: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """A matrix with all but some rows set to zero."""
    sizes = matrix.double().square().sum(1) if generator is None else torch.rand(len(matrix), generator=generator)
    chosen = torch.zeros(len(matrix), 1, dtype=torch.bool, device=matrix.device)
    chosen[sizes.argsort(descending=True, stable=True)[:count]] = True
    return torch.where(chosen, matrix, 0)


def _tall(matrix: Tensor) -> bool:
    """Whether a matrix has no fewer rows than columns."""
    return matrix.shape[0] >= matrix.shape[1]
