"""Geometry of task vectors: norms, Gram matrix, cosines, C, ε and β, read from memory or streamed from files."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.exact.random_vectors import null_cosine
from diagnostics.inputs.adapters import open_expert
from diagnostics.inputs.alignment import BASE, align, assert_finite
from diagnostics.inputs.checkpoints import Source, open_checkpoint
from diagnostics.inputs.naming import name_experts
from diagnostics.measures.signs import SignCounts
from diagnostics.measures.streaming import Sums, stream_sums
from diagnostics.results import Result, plain

__all__ = ["Geometry", "geometry"]

_TARGET = "target"


@dataclass(frozen=True)
class Geometry(Result):
    """Norms and angles of task vectors, functions of the Gram matrix, and how often their signs conflict.

    Attributes:
        names: The experts, in the order of every row.
        gram: G_ij = ⟨τ_i, τ_j⟩, [T, T].
        dimension: Number of shared parameters d.
        base_norm: ‖θ0‖ over the shared parameters.
        target_inner: ⟨τ_tar, τ_i⟩, [T], where a target was given.
        target_norm: ‖τ_tar‖, where a target was given.
        layers: The same for each tensor by itself.
        signs: Numbers of coordinates by the signs of the experts' task vectors, where they were counted.
    """

    names: tuple[str, ...]
    gram: Tensor
    dimension: int
    base_norm: float
    target_inner: Tensor | None = None
    target_norm: float | None = None
    layers: dict[str, Geometry] = field(default_factory=dict)
    signs: SignCounts | None = None

    @property
    def norms(self) -> Tensor:
        """‖τ_i‖, [T]."""
        return self.gram.diagonal().clamp_min(0).sqrt()

    @property
    def cosine(self) -> Tensor:
        """cos(τ_i, τ_j), [T, T]; NaN where a vector is zero and so has no direction."""
        squares = self.gram.diagonal().clamp_min(0)
        # One root of the product, so that identical vectors have a cosine of exactly one.
        scale = torch.outer(squares, squares).sqrt()
        return torch.where(scale > 0, (self.gram / scale).clamp(-1, 1), math.nan)

    @property
    def C(self) -> float:
        """C = max ‖τ‖², the target included where there is one (A1, A5)."""
        return max(float(self.gram.diagonal().max()), (self.target_norm or 0.0) ** 2)

    @property
    def epsilon(self) -> float:
        """ε = max |cos(τ_i, τ_j)| over i ≠ j (A4); 0 for fewer than two vectors with a direction."""
        off = self.cosine[~torch.eye(len(self.names), dtype=torch.bool)].abs()
        off = off[~off.isnan()]
        return float(off.max()) if len(off) else 0.0

    @property
    def beta(self) -> float | None:
        """β = max_i ⟨τ_tar, τ_i⟩ / C (A5), where a target was given; NaN if every vector is zero."""
        if self.target_inner is None:
            return None
        return float(self.target_inner.max()) / self.C if self.C > 0 else math.nan

    @property
    def sign_conflict(self) -> Tensor | None:
        """Share of the coordinates moved by both i and j that they move in opposite directions, [T, T], where counted.

        Independent vectors with symmetric coordinates give 1/2. Where pairs of coordinates are jointly Gaussian with
        correlation ρ it is arccos(ρ)/π, so a cosine says what to expect: less conflict than that of the cosine means
        that a few large coordinates oppose each other. NaN where no coordinate is moved by both.
        """
        return self.signs.conflict if self.signs else None

    @property
    def sign_contest(self) -> float | None:
        """Share of the coordinates moved by two experts or more that some move up and some down, where counted.

        Independent signs give 1 − 2^(1−T) where all T move. NaN where no coordinate is moved by two.
        """
        return self.signs.contest if self.signs else None

    @property
    def null_cosine(self) -> float:
        """E|cos| of independent Gaussian vectors of this dimension, about sqrt(2/(πd)) (2.9)."""
        return null_cosine(self.dimension) if self.dimension else math.nan

    @property
    def null_cosine_layerwise(self) -> Tensor:
        """E|cos| of vectors that are random inside each tensor but keep its norms, [T, T].

        A few small tensors that carry most of the change raise the floor above :attr:`null_cosine`.
        """
        total = torch.zeros_like(self.gram)
        for layer in (layer for layer in self.layers.values() if layer.dimension):
            total += torch.outer(layer.norms**2, layer.norms**2) / layer.dimension
        scale = self.norms[:, None] * self.norms[None, :]
        return torch.where(scale > 0, math.sqrt(2 / math.pi) * total.sqrt() / scale, math.nan)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know before using the numbers."""
        zero = [name for name, value in zip(self.names, self.norms, strict=True) if value == 0]
        return (f"identical to the base, so without a direction: {', '.join(zero)}",) if zero else ()

    def to_dict(self) -> dict[str, Any]:
        """Return fields and derived quantities as plain types.

        Returns:
            A dictionary ready for JSON.
        """
        # Every tensor has its own matrices, four of T × T numbers: in a JSON report 8 kB a tensor at T = 8, 0.5 MB at
        # T = 70. The counts behind the conflicts would add two more, and say little that the shares do not.
        derived = ("norms", "cosine", "C", "epsilon", "beta", "null_cosine", "null_cosine_layerwise", "notes")
        counted = ("sign_conflict", "sign_contest")
        fields = super().to_dict()
        del fields["signs"]
        return fields | {name: plain(getattr(self, name)) for name in (*derived, *counted)}

    def __str__(self) -> str:
        lines = [
            f"{len(self.names)} task vectors in {self.dimension:,} dimensions: C = {self.C:.4g}, "
            f"epsilon = {self.epsilon:.4g} (random vectors: {self.null_cosine:.2g})"
        ]
        for name, norm in zip(self.names, self.norms.tolist(), strict=True):
            share = f" ({norm / self.base_norm:.2%} of the base)" if self.base_norm else ""
            lines.append(f"  {name}: norm {norm:.4g}{share}")
        return "\n".join([*lines, *self.notes])


def geometry(
    base: Source,
    experts: Mapping[str, Source] | Sequence[str | Path],
    *,
    target: Source | None = None,
    private: Sequence[str] = (),
    progress: Callable[[float], None] = lambda share: None,
) -> Geometry:
    """Return norms, Gram matrix, cosines and sign conflicts of the task vectors τ_i = θ_i − θ0.

    One pass over the files: each is read once, in slices of a tensor, differences and sums are taken in float64, and
    memory stays the same however large the models and however many. Two kinds of source are held in memory: tensors
    passed as such, and the weights that an adapter changes, one tensor of each adapter at a time.
    ``torch.set_num_threads`` sets the number of threads.

    Args:
        base: The base: a model, its parameters, or a path to them.
        experts: Models, parameters or paths by name; a list of paths is named by their last parts.
        target: An out-of-distribution target for β (2.3): a model, parameters or a path.
        private: Names or glob patterns of parameters left out.
        progress: Called with the share of tensors that are read to their end.

    Returns:
        The geometry over all shared parameters, and per tensor in ``layers``.

    Raises:
        InputError: If there is no expert, two paths have the same last part, or values are NaN, infinite or too large
            for their squares.
        MismatchError: If parameters do not fit together; the message lists every one.

    Example:
        >>> base = {"w": torch.zeros(2)}
        >>> g = geometry(base, {"a": {"w": torch.tensor([3.0, 0.0])}, "b": {"w": torch.tensor([0.0, 4.0])}})
        >>> g.norms.tolist(), g.C, g.epsilon
        ([3.0, 4.0], 16.0, 0.0)
    """
    named = name_experts(experts, reserved=_TARGET)
    opened = {BASE: open_checkpoint(base, label=BASE)}
    sources = named if target is None else {**named, _TARGET: target}
    opened |= {name: open_expert(opened[BASE], source, label=name) for name, source in sources.items()}
    alignment = align(opened[BASE], {name: opened[name] for name in sources}, private)
    names, sums = tuple(named), dict[str, Sums]()
    for name, part in stream_sums(opened, alignment, len(names)):
        sums[name] = sums[name] + part if name in sums else part
        progress((len(sums) - 1) / len(alignment.shared))  # more of this one may come
    progress(1.0)
    layers = {
        name: _from_sums(names, part, math.prod(opened[BASE].shape(name)))  # tied ones go by the base's name
        for name, part in sums.items()
    }
    total = _total(layers, sums, names)
    squares = sum(part.gram.diagonal() for part in sums.values())
    if not (torch.as_tensor(squares).isfinite().all() and math.isfinite(total.base_norm)):
        for checkpoint in opened.values():
            assert_finite(checkpoint)
        raise InputError(
            f"geometry: expected squared norms of models and task vectors below {sys.float_info.max:.0e}; found "
            "larger ones, though every value is finite. Look for weights that were scaled by mistake."
        )
    return total


def _from_sums(
    experts: tuple[str, ...], sums: Sums, dimension: int, layers: dict[str, Geometry] | None = None
) -> Geometry:
    """Split sums over experts and target into their parts."""
    count, gram = len(experts), sums.gram
    inner, norm = (gram[count, :count], math.sqrt(gram[count, count])) if len(gram) > count else (None, None)
    base_norm = math.sqrt(sums.base_square)
    return Geometry(experts, gram[:count, :count], dimension, base_norm, inner, norm, layers or {}, sums.signs)


def _total(layers: dict[str, Geometry], sums: dict[str, Sums], experts: tuple[str, ...]) -> Geometry:
    """Add up the tensors."""
    first, *others = sums.values()
    dimension = sum(layer.dimension for layer in layers.values())
    return _from_sums(experts, sum(others, start=first), dimension, layers)
