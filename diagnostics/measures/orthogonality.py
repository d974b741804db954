"""How far the columns of updates are from orthogonal, inside an update and between updates, whatever their length."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, combinations_with_replacement
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from diagnostics.errors import InputError, require_count, require_one_of
from diagnostics.exact.random_vectors import null_cosine
from diagnostics.inputs.adapters import open_expert
from diagnostics.inputs.alignment import BASE, Alignment, align, assert_finite
from diagnostics.inputs.checkpoints import Checkpoint, Source, open_checkpoint
from diagnostics.inputs.naming import name_experts
from diagnostics.measures.column_angles import (
    Angles,
    Columns,
    angles_between,
    angles_inside,
    average_angles,
    filled_space,
    least_square,
    rotation_deviation,
    unit_columns,
)
from diagnostics.results import Result, plain

__all__ = ["Orthogonality", "Side", "Weighting", "orthogonality"]

Side = Literal["columns", "rows"]
Weighting = Literal["norm", "parameters"]


@dataclass(frozen=True)
class Orthogonality(Result):
    """Angles between columns of updates; in every matrix the diagonal is inside an update, the rest between two.

    Attributes:
        names: The experts, in the order of every row.
        side: Whether columns or rows of the tensors, as they are stored, are compared.
        cosine: Mean |cos| over pairs of different columns k ≠ l. By chance: independent random columns.
        matched: Mean |cos| of column k of one update with column k of the other; NaN on the diagonal. By chance: as
            above.
        square: Mean cos². On the diagonal over k ≠ l: ‖Ĝ − I‖_F²/(n(n − 1)) for the Gram matrix Ĝ of the normalised
            update; by chance 1/r. Off it over all k and l, the overlap of the spaces that two updates' columns fill;
            by chance one update is turned at random, which keeps all angles inside it, and the mean is 1/r too.
        floor: Least mean cos² that n columns of length r can have, (n − r)/(r(n − 1)) or 0, [T].
        norms: ‖ΔW_i‖_F, [T].
        zero: Columns without a direction, left out, [T].
        base: Mean |cos| inside the base's own weights.
        base_null: Its null.
        base_zero: Columns of the base without a direction, left out.
        parameters: Number of parameters covered.
        columns: Number of columns.
        drawn: How many of them were compared.
        layers: The same for each tensor by itself.
        not_covered: Shared parameters that have no columns, with the reason.
    """

    names: tuple[str, ...]
    side: Side
    cosine: Angles
    matched: Angles
    square: Angles
    floor: Tensor
    norms: Tensor
    zero: Tensor
    base: float
    base_null: float
    base_zero: int
    parameters: int
    columns: int
    drawn: int
    layers: dict[str, Orthogonality] = field(default_factory=dict)
    not_covered: dict[str, str] = field(default_factory=dict)

    @property
    def inside(self) -> Tensor:
        """Mean |cos| between different columns of each update, [T]."""
        return self.cosine.value.diagonal()

    @property
    def base_ratio(self) -> float:
        """Mean |cos| inside the base over its null."""
        return self.base / self.base_null

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know before using the numbers."""
        notes = []
        still = [name for name, norm in zip(self.names, self.norms.tolist(), strict=True) if norm == 0]
        if still:
            notes.append(f"no change in the tensors covered, so no direction: {', '.join(still)}")
        zero = {name: int(count) for name, count in zip(self.names, self.zero, strict=True) if count}
        if zero:
            counts = ", ".join(f"{count:,} of {name}" for name, count in zero.items())
            notes.append(f"{self.side} that did not change have no direction and are left out: {counts}")
        if self.base_zero:
            notes.append(f"{self.base_zero:,} zero {self.side} of the base are left out")
        if self.drawn < self.columns:
            notes.append(f"{self.drawn:,} of {self.columns:,} {self.side} were drawn at random and compared")
        if self.not_covered:
            notes.append(f"not covered: {_counted(list(self.not_covered.values()))}")
        return tuple(notes)

    def averaged(self, weighting: Weighting = "norm") -> Orthogonality:
        """Return the averages over the tensors under a choice of weights.

        Args:
            weighting: ``"norm"`` weights a tensor by ‖ΔW_i‖‖ΔW_j‖, so that tensors count as they move the model;
                ``"parameters"`` by its number of parameters, except where an update is zero.

        Returns:
            The averages, with the same layers.

        Raises:
            InputError: If the weighting is unknown.
        """
        require_one_of("weighting", weighting, get_args(Weighting))
        return _average(self.names, self.side, self.layers, self.not_covered, by_size=weighting == "parameters")

    def by_kind(self) -> dict[str, Orthogonality]:
        """Return averages over tensors whose names differ only by numbers, the layers of one kind.

        Returns:
            The averages by name, with ``*`` for the numbers.
        """
        kinds: dict[str, dict[str, Orthogonality]] = {}
        for name, layer in self.layers.items():
            kinds.setdefault(re.sub(r"(?<![^.])\d+(?![^.])", "*", name), {})[name] = layer
        return {kind: _average(self.names, self.side, layers, {}) for kind, layers in kinds.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return fields and derived quantities as plain types.

        Returns:
            A dictionary ready for JSON.
        """
        derived = ("inside", "base_ratio", "notes")
        return super().to_dict() | {name: plain(getattr(self, name)) for name in derived}

    def __str__(self) -> str:
        lines = [f"mean |cos| of {self.side}, and how many times chance that is ({len(self.layers)} tensor(s))"]
        ratio, matched = self.cosine.ratio, self.matched
        for i, name in enumerate(self.names):
            lines.append(f"  inside {name}: {self.inside[i]:.4g} ({ratio[i, i]:.3g})")
        for i, j in combinations(range(len(self.names)), 2):
            lines.append(
                f"  between {self.names[i]} and {self.names[j]}: {self.cosine.value[i, j]:.4g} ({ratio[i, j]:.3g}); "
                f"same {self.side[:-1]} {matched.value[i, j]:.4g} ({matched.ratio[i, j]:.3g})"
            )
        base = f"  inside the base: {self.base:.4g} ({self.base_ratio:.3g})"
        return "\n".join([*lines, base, *(f"  note: {note}" for note in self.notes)])


def orthogonality(
    base: Source,
    experts: Mapping[str, Source] | Sequence[str | Path],
    *,
    private: Sequence[str] = (),
    side: Side = "columns",
    max_columns: int = 2048,
    seed: int = 0,
) -> Orthogonality:
    """Return how orthogonal the columns of updates ΔW_i = W_i − W_0 are, inside and between tasks, with nulls (4.2).

    Columns are normalised first, so the scale of an update does not matter. They are taken as tensors are stored,
    which is how ΔWᵀΔW of the OrthoReg penalty reads them. A feature z_k = w_kᵀx of the theory has its w_k in *row* k of
    a ``torch.nn.Linear`` (out, in) and in column k of a GPT-2 ``Conv1D`` (in, out): for features of a Linear layer
    take ``side="rows"``.

    Args:
        base: The base: a model, its parameters, or a path to them.
        experts: Models, parameters, paths or adapter folders by name; a list of paths is named by their last parts.
        private: Names or glob patterns of parameters left out.
        side: ``"columns"`` or ``"rows"`` of each tensor with two dimensions.
        max_columns: Columns of one tensor that are compared; of more, this many are drawn without replacement, the
            same for all experts, and ``stderr`` says what that costs. Matched columns are always all compared.
        seed: Of the drawing.

    Returns:
        Averages over the tensors, weighted by ‖ΔW_i‖‖ΔW_j‖, and every tensor in ``layers``. One tensor of all
        models is held in float64 at a time.

    Raises:
        InputError: If there is no expert, no tensor with two dimensions, a value that is not finite, or a setting is
            out of range.
        MismatchError: If parameters do not fit together; the message lists every one.

    Example:
        >>> base = {"w": torch.zeros(4, 4)}
        >>> found = orthogonality(base, {"a": {"w": torch.eye(4)}, "b": {"w": torch.eye(4)}})
        >>> found.inside.tolist(), found.cosine.value[0, 1].item(), found.matched.value[0, 1].item()
        ([0.0, 0.0], 0.0, 1.0)
        >>> round(found.cosine.null[0, 1].item(), 4)
        0.4244
    """
    require_one_of("side", side, get_args(Side))
    require_count("max_columns", max_columns, least=2)
    named = name_experts(experts, reserved=BASE)
    opened = {BASE: open_checkpoint(base, label=BASE)}
    opened |= {name: open_expert(opened[BASE], source, label=name) for name, source in named.items()}
    alignment = align(opened[BASE], {name: opened[name] for name in named}, private)
    shapes = {name: opened[BASE].shape(alignment.stored_name(BASE, name)) for name in alignment.shared}
    skipped = {name: reason for name, shape in shapes.items() if (reason := _reason(shape))}
    if len(skipped) == len(shapes):
        raise InputError(
            "orthogonality: expected at least one tensor with two dimensions; found "
            f"{_counted(list(skipped.values()))}. Reshape convolutions to matrices, one row for each output channel."
        )
    generator = torch.Generator().manual_seed(seed)
    layers = {
        name: _layer(_matrices(opened, alignment, name, side), tuple(named), side, max_columns, generator)
        for name in shapes
        if name not in skipped
    }
    return _average(tuple(named), side, layers, skipped)


def _reason(shape: tuple[int, ...]) -> str:
    """Why a tensor has no columns to compare; empty where it has."""
    if len(shape) != 2:
        return f"{len(shape)} dimension{'' if len(shape) == 1 else 's'}"
    return "" if all(shape) else "no values"


def _counted(reasons: list[str]) -> str:
    """How many tensors there are for each reason."""
    return ", ".join(f"{reasons.count(reason)} with {reason}" for reason in sorted(set(reasons)))


def _matrices(opened: Mapping[str, Checkpoint], alignment: Alignment, name: str, side: Side) -> list[Tensor]:
    """One tensor of the base and its updates, what is compared as columns, in float64."""
    tensors = []
    for model, checkpoint in opened.items():
        value = checkpoint.tensor(alignment.stored_name(model, name)).detach().cpu().double()
        if not bool(value.isfinite().all()):
            assert_finite(checkpoint)
        tensors.append(value if side == "columns" else value.T)
    return [tensors[0], *(tensor - tensors[0] for tensor in tensors[1:])]


def _layer(
    matrices: Sequence[Tensor], names: tuple[str, ...], side: Side, limit: int, generator: torch.Generator
) -> Orthogonality:
    """All angles of one tensor, the base first among the matrices."""
    dimension, columns = matrices[0].shape
    drawn = torch.arange(columns)
    if columns > limit:
        drawn = torch.randperm(columns, generator=generator)[:limit].sort().values
    base, *updates = (Columns(*unit_columns(matrix), drawn) for matrix in matrices)
    count = len(names)
    cells = torch.full((3, 4, count, count), math.nan, dtype=torch.float64)
    for i, j in combinations_with_replacement(range(count), 2):
        cells[:, :, i, j] = cells[:, :, j, i] = (
            angles_inside(updates[i]) if i == j else angles_between(updates[i], updates[j])
        )
    # How much of itself an update's columns fill, ‖(1/n) Σ ŵŵᵀ‖², from the mean cos² of its pairs.
    filled = [filled_space(float(cells[2, 0, i, i]), int(each.known.sum())) for i, each in enumerate(updates)]
    for i, j in combinations(range(count), 2):
        cells[2, 2, i, j] = cells[2, 2, j, i] = rotation_deviation(dimension, filled[i], filled[j])
    cosine, matched, square = (Angles(*kind) for kind in cells)
    return Orthogonality(
        names=names,
        side=side,
        cosine=cosine,
        matched=matched,
        square=square,
        floor=torch.tensor([least_square(dimension, int(each.known.sum())) for each in updates], dtype=torch.float64),
        norms=torch.stack([matrix.norm() for matrix in matrices[1:]]),
        zero=torch.tensor([int((~each.known).sum()) for each in updates]),
        base=float(angles_inside(base)[0, 0]),
        base_null=null_cosine(dimension),
        base_zero=int((~base.known).sum()),
        parameters=matrices[0].numel(),
        columns=columns,
        drawn=len(drawn),
    )


def _average(
    names: tuple[str, ...],
    side: Side,
    layers: Mapping[str, Orthogonality],
    skipped: Mapping[str, str],
    *,
    by_size: bool = False,
) -> Orthogonality:
    """Averages over tensors; one without pairs, or whose update is zero, takes no part in the pair concerned."""
    parts = list(layers.values())
    norms = torch.stack([part.norms for part in parts])
    sizes = torch.tensor([part.parameters for part in parts], dtype=torch.float64)
    weights = norms[:, :, None] * norms[:, None, :]
    if by_size:
        weights = sizes[:, None, None].expand_as(weights)
    own = weights.diagonal(dim1=1, dim2=2)
    floors = torch.stack([part.floor for part in parts])
    own = own.where(~floors.isnan(), 0)
    base = torch.tensor([[part.base, part.base_null] for part in parts], dtype=torch.float64)
    base_weights = sizes.where(~base[:, 0].isnan(), 0)
    base_mean = (base.nan_to_num() * base_weights[:, None]).sum(0) / base_weights.sum()
    return Orthogonality(
        names=names,
        side=side,
        cosine=average_angles([part.cosine for part in parts], weights),
        matched=average_angles([part.matched for part in parts], weights),
        square=average_angles([part.square for part in parts], weights),
        floor=(floors.nan_to_num() * own).sum(0) / own.sum(0),
        norms=norms.square().sum(0).sqrt(),
        zero=torch.stack([part.zero for part in parts]).sum(0),
        base=float(base_mean[0]),
        base_null=float(base_mean[1]),
        base_zero=sum(part.base_zero for part in parts),
        parameters=sum(part.parameters for part in parts),
        columns=sum(part.columns for part in parts),
        drawn=sum(part.drawn for part in parts),
        layers=dict(layers),
        not_covered=dict(skipped),
    )
