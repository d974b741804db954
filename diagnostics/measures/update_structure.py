"""What an update is made of (3.4): ranks, rows, and entries too small for the type that they are stored in."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diagnostics.errors import require_count, require_share
from diagnostics.inputs.adapters import AdapterCheckpoint, open_expert
from diagnostics.inputs.alignment import BASE, align, assert_finite
from diagnostics.inputs.checkpoints import Checkpoint, Source, open_checkpoint
from diagnostics.measures.agreement import as_matrix, row_blocks
from diagnostics.measures.entries import Entries, count_entries, type_name
from diagnostics.measures.row_profile import RowProfile, rows_of
from diagnostics.measures.singular_values import (
    EXACT_UP_TO,
    SingularValues,
    product_singular_values,
    random_kept,
    rank_text,
    singular_values,
)
from diagnostics.measures.storage import Rounding, measure_rounding
from diagnostics.measures.vectors import same_values
from diagnostics.results import Estimate, Result, Status, plain

__all__ = ["TensorStructure", "UpdateStructure", "update_structure"]

_EXPERT = "expert"
_SLACK = 1e-12


@dataclass(frozen=True)
class TensorStructure(Result):
    """The update of one tensor.

    Attributes:
        name: The tensor's name in the base.
        shape: Its shape as stored.
        square: ‖ΔW‖_F².
        base_square: ‖W‖_F² of the base.
        spectrum: Singular values of the matrix; ``None`` for a tensor of less than two dimensions.
        rows: Its rows; ``None`` likewise.
        entries: Its entries.
        stage: When the update was rounded, or would be: of base and expert, or on saving.
        stored: The type it was rounded to, whatever the file's own type.
        rounding: What that rounding left of it.
    """

    name: str
    shape: tuple[int, ...]
    square: float
    base_square: float
    spectrum: SingularValues | None
    rows: RowProfile | None
    entries: Entries
    stage: str
    stored: str
    rounding: Rounding

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, and of the rounding what it lost.

        Returns:
            A dictionary ready for JSON.
        """
        lost = self.rounding.lost if self.rounding.kept > 0 else math.nan
        return super().to_dict() | plain({"rounding": {"lost": lost, "zero_share": self.rounding.zero_share}})

    def __str__(self) -> str:
        text = f"{self.name}: norm {math.sqrt(self.square):.4g}, {self.entries.zero_share:.1%} zeros"
        return f"{text}, no matrix" if self.spectrum is None else f"{text}, {self.spectrum}"


@dataclass(frozen=True)
class UpdateStructure(Result):
    """The updates of all tensors of one expert.

    Attributes:
        tensors: By name, in the base's order.
        shares: Shares of the squared length for which ranks and rows are told.
    """

    tensors: dict[str, TensorStructure]
    shares: tuple[float, ...]

    @property
    def square(self) -> float:
        """‖τ‖² over all tensors."""
        return math.fsum(tensor.square for tensor in self.tensors.values())

    @property
    def base_square(self) -> float:
        """‖θ0‖² over all tensors."""
        return math.fsum(tensor.base_square for tensor in self.tensors.values())

    @property
    def matrices(self) -> tuple[TensorStructure, ...]:
        """Tensors with a spectrum that moved, those that hold most of ‖τ‖² first."""
        moved = (tensor for tensor in self.tensors.values() if tensor.spectrum is not None and tensor.square > 0)
        return tuple(sorted(moved, key=lambda tensor: -tensor.square))

    @property
    def entries(self) -> Entries:
        """Entries of all tensors."""
        return sum((tensor.entries for tensor in self.tensors.values()), Entries())

    @property
    def rounding(self) -> Rounding:
        """What rounding left of the updates of all tensors."""
        return sum((tensor.rounding for tensor in self.tensors.values()), Rounding())

    @property
    def outside(self) -> float:
        """Share of ‖τ‖² in tensors that are no matrices (biases, norms): reductions leave them whole."""
        return 1 - math.fsum(each.square for each in self.matrices) / self.square if self.square > 0 else math.nan

    def kept(self, rank: int) -> Estimate:
        """Return the share of ‖τ‖² that is left when every matrix keeps this rank and the other tensors are whole.

        Args:
            rank: r, from 0 on.

        Returns:
            The share, undefined for a zero update.
        """
        require_count("rank", rank, 0)
        if not self.square > 0:
            return _undefined()
        lower, upper = (float(self._curve(end)[min(rank, self._sides)]) for end in (0, 1))
        return Estimate(lower, lower, upper, 1.0, self._status(upper - lower <= 0.05), self._how)

    def rank_for(self, share: float) -> Estimate:
        """Return the least rank, the same for every matrix, that keeps a share of ‖τ‖².

        Args:
            share: Between 0 and 1.

        Returns:
            The rank; where it is not exact, the value is one that suffices.
        """
        require_share("share", share, positive=True)
        if not self.square > 0:
            return _undefined()
        least, enough = (int(np.argmax(self._curve(end) >= share - _SLACK)) for end in (1, 0))
        settled = enough - least <= max(1, enough / 20)
        return Estimate(float(enough), float(least), float(enough), 1.0, self._status(settled), self._how)

    def null_kept(self, rank: int) -> float:
        """Return what :meth:`kept` is for matrices of independent entries that hold the same shares of ‖τ‖².

        Args:
            rank: r.

        Returns:
            The share, by the law of Marchenko and Pastur; NaN for a zero update.
        """
        return self.outside + math.fsum(
            weight * random_kept(spectrum.shape, min(rank, spectrum.side)) for weight, spectrum in self._spectra
        )

    def numbers(self, rank: int) -> float:
        """Return how many numbers factors of a rank hold, as a share of those of the whole update.

        Args:
            rank: r; a matrix that factors would not make smaller is kept as it is.

        Returns:
            The share.
        """
        sizes = ((each.entries.count, each.spectrum) for each in self.tensors.values())
        held = (min(rank * sum(spectrum.shape), count) if spectrum else count for count, spectrum in sizes)
        return sum(held) / self.entries.count

    def held(self, share: float) -> float:
        """Return the share of ‖τ‖² that is left when every matrix keeps its largest rows and other tensors are whole.

        Args:
            share: Share of the rows of each matrix.

        Returns:
            The share; NaN for a zero update.
        """
        return self._by_rows(lambda rows: rows.held(share))

    def null_held(self, share: float) -> float:
        """Return what :meth:`held` is for rows of independent normal entries, in matrices with the same norms.

        Args:
            share: Share of the rows of each matrix.

        Returns:
            The share; NaN for a zero update.
        """
        return self._by_rows(lambda rows: rows.null_held(rows_of(share, len(rows.squares)) / len(rows.squares)))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know before using the numbers."""
        flat = [each.name for each in self.tensors.values() if len(each.shape) > 2]
        still = sum(each.square == 0 for each in self.tensors.values())
        vectors = sum(each.spectrum is None for each in self.tensors.values())
        notes = []
        if still:
            notes.append(f"unchanged: {still} of {len(self.tensors)} tensors")
        if vectors and self.square > 0:
            notes.append(
                f"no matrices: {vectors} of {len(self.tensors)} tensors, with {self.outside:.2%} of the squared length"
            )
        if flat:
            notes.append(f"read as matrices of their first dimension by all others: {', '.join(flat)}")
        return tuple(notes)

    def _by_rows(self, part: Callable[[RowProfile], float]) -> float:
        """A share of the rows' squares over all matrices, other tensors whole."""
        if not self.square > 0:
            return math.nan
        held = math.fsum(each.square * part(each.rows) for each in self.matrices if each.rows is not None)
        return self.outside + held / self.square

    @property
    def _spectra(self) -> list[tuple[float, SingularValues]]:
        """Share of ‖τ‖² and singular values of every matrix that moved."""
        return [(each.square / self.square, each.spectrum) for each in self.matrices if each.spectrum is not None]

    @property
    def _sides(self) -> int:
        """The largest rank that any matrix has."""
        return max((spectrum.side for _, spectrum in self._spectra), default=0)

    def _curve(self, end: int) -> np.ndarray:
        """Least (0) or largest (1) share of ‖τ‖² that ranks from 0 on keep."""
        total = np.full(self._sides + 1, self.outside)
        for weight, spectrum in self._spectra:
            part = spectrum.bounds[end]
            total += weight * np.append(part, np.ones(len(total) - len(part)))
        return total

    def _status(self, settled: bool) -> Status:
        """Exact where every spectrum is."""
        if all(spectrum.complete for _, spectrum in self._spectra):
            return Status.EXACT
        return Status.CONVERGED if settled else Status.NOT_CONVERGED

    @property
    def _how(self) -> str:
        """How many spectra are complete."""
        partial = sum(not spectrum.complete for _, spectrum in self._spectra)
        text = f"{len(self.matrices)} matrices"
        return f"{text}, {partial} of them in part: for exact ranks raise exact_up_to" if partial else text

    def to_dict(self) -> dict[str, Any]:
        """Return totals and the record of each tensor.

        Returns:
            A dictionary ready for JSON.
        """
        ranks = [2**power for power in range(self._sides.bit_length())]
        totals = {
            "square": self.square,
            "base_square": self.base_square,
            "outside": self.outside,
            "entries": self.entries,
            "ranks": {str(share): self.rank_for(share) for share in self.shares},
            "kept": {str(rank): self.kept(rank).value for rank in ranks},
            "null_kept": {str(rank): self.null_kept(rank) for rank in ranks},
            "held": {str(share): self.held(share) for share in (0.1, 0.25, 0.5)},
            "null_held": {str(share): self.null_held(share) for share in (0.1, 0.25, 0.5)},
            "notes": self.notes,
        }
        return super().to_dict() | plain(totals)

    def __str__(self) -> str:
        size = f"{len(self.tensors)} tensors, norm {math.sqrt(self.square):.4g}"
        if not self.square > 0:
            return f"{size}: no update"
        ranks = ", ".join(f"{rank_text(self.rank_for(share))} for {share:.4g}" for share in self.shares)
        lost = ", ".join(f"{share:.1%} below {name}" for name, share in self.entries.below_shares.items())
        lines = [
            f"{size} ({math.sqrt(self.square / self.base_square):.2%} of the base)" if self.base_square > 0 else size,
            f"  rank of every matrix: {ranks}; rank 1 keeps {self.kept(1).value:.1%} (random: {self.null_kept(1):.1%})",
            f"  a tenth of the rows holds {self.held(0.1):.1%} (random: {self.null_held(0.1):.1%})",
            f"  entries: {self.entries.zero_share:.1%} zero; storage would lose {lost}",
        ]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def update_structure(
    base: Source,
    expert: Source,
    *,
    private: Sequence[str] = (),
    shares: Sequence[float] = (0.9, 0.99),
    exact_up_to: int = EXACT_UP_TO,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> UpdateStructure:
    """Measure the update τ of an expert, tensor by tensor: ranks, rows, and entries below storage resolution (3.4).

    ‖ΔW_r‖_F²/‖ΔW‖_F² = Σ_{i≤r} σ_i² / Σ_i σ_i² for the best ΔW_r of rank r. Tensors of more than two dimensions are
    read as matrices of the first by all others; those of fewer count in lengths and entries but have no rank. A LoRA
    adapter's singular values come from its factors.

    Args:
        base: The base: a model, its parameters, or a path to them.
        expert: A model, parameters, a path, or the folder of a PEFT adapter.
        private: Names or glob patterns of parameters left out.
        shares: Of the squared length, for which ranks and rows are told, each between 0 and 1.
        exact_up_to: Smaller side of a matrix up to which its whole spectrum is computed; beyond, bounds.
        seed: Of the random directions used beyond.
        progress: Called with the share of tensors that are done.

    Returns:
        The structure, by tensor and in all.

    Raises:
        InputError: If a share is out of range, or values are not finite.
        MismatchError: If parameters do not fit together; the message lists every one.

    Example:
        >>> base = {"w": torch.zeros(2, 3)}
        >>> found = update_structure(base, {"w": torch.tensor([[0.0, 3.0, 0.0], [1.0, 0.0, 0.0]])})
        >>> found.kept(1).value, found.held(0.5), found.rank_for(0.99).value, found.entries.zeros
        (0.9, 0.9, 2.0, 4)
    """
    for share in shares:
        require_share("shares", share, positive=True)
    below = open_checkpoint(base, label=BASE)
    above = open_expert(below, expert, label=_EXPERT)
    alignment = align(below, {_EXPERT: above}, private)
    assert_finite(below)
    assert_finite(above)
    tensors = {}
    for done, name in enumerate(alignment.shared, start=1):
        pair = below.tensor(alignment.stored_name(BASE, name)), above.tensor(alignment.stored_name(_EXPERT, name))
        factors = _factor_values(above, alignment.stored_name(_EXPERT, name), pair[0])
        tensors[name] = _measure(name, *pair, factors, exact_up_to, seed)
        if progress:
            progress(done / len(alignment.shared))
    return UpdateStructure(tensors, tuple(shares))


def _measure(
    name: str, base: Tensor, expert: Tensor, factors: SingularValues | None, exact_up_to: int, seed: int
) -> TensorStructure:
    """Everything about one tensor."""
    first, second = as_matrix(base.detach().cpu()), as_matrix(expert.detach().cpu())
    squares, base_square, entries = [torch.zeros(0).double()], 0.0, Entries()
    for a, b in row_blocks(first, second):
        squares.append((b - a).square().sum(1))
        base_square += float(a.square().sum())
        entries += count_entries(a, b - a)
    norms = torch.cat(squares)
    matrix = base.ndim > 1 and base.numel() > 0
    spectrum = None
    if matrix:
        spectrum = factors or singular_values(second, first, exact_up_to=exact_up_to, seed=seed)
        spectrum = dataclasses.replace(spectrum, shape=(first.shape[0], first.shape[1]))
    stage, dtype, rounding = measure_rounding(first, second)
    return TensorStructure(
        name=name,
        shape=tuple(base.shape),
        square=float(norms.sum()),
        base_square=base_square,
        spectrum=spectrum,
        rows=RowProfile(norms.sort(descending=True).values, first.shape[1]) if matrix else None,
        entries=entries,
        stage=str(stage),
        stored=type_name(dtype),
        rounding=rounding,
    )


def _factor_values(expert: Checkpoint, name: str, base: Tensor) -> SingularValues | None:
    """Singular values of a low-rank adapter's update; nothing where the tensor changed in another way too."""
    if not isinstance(expert, AdapterCheckpoint) or name not in expert.adapted:
        return None
    # It may be saved whole, and a model in memory has a base of its own.
    if not same_values(expert.before(name), base):
        return None
    factors = expert.factors(name)
    return product_singular_values(factors.up.cpu(), factors.down.cpu(), factors.scale)


def _undefined() -> Estimate:
    """An estimate of nothing."""
    return Estimate(math.nan, math.nan, math.nan, 1.0, Status.UNDEFINED, "the expert is its base")
