"""Units in another order, with another sign or in another basis: the same function, and nothing to add.

A network computes the same with its hidden units permuted, or a residual stream rotated, in all tensors at once.
Adding such weights to the base's mixes units that have nothing to do with each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from diagnostics.measures.agreement import Agreement

__all__ = ["EXPLAINED", "IN_PLACE", "ROTATED", "Motion", "Reordering", "find_reordering"]

# A unit whose cosine with the same unit of the base is below this has left its place.
IN_PLACE = 0.5
# Share of the squared length that the base's units must explain, once matched.
EXPLAINED = 0.75
# Squared correlation of inner products that shows a rotation; first layers trained apart on the same inputs, whose
# inner products follow those of the inputs, reach about 0.8.
ROTATED = 0.95

# Units that are matched, entries by which they are, and units from which inner products are compared.
_UNITS, _ENTRIES, _PRODUCTS = 512, 4096, 256
# Units that are searched at a time.
_POOL = 4096
# Units that must have moved where chance alone would match them well, and vectors needed to see a rotation.
_FEW = 8


class Motion(StrEnum):
    """What became of the units."""

    PERMUTED = "permuted"
    FLIPPED = "flipped in sign"
    ROTATED = "rotated"


@dataclass(frozen=True)
class Reordering:
    """Rows or columns of a matrix that are the base's, moved.

    Attributes:
        motion: How they moved.
        axis: Rows or columns.
        moved: How many are out of place.
        total: How many there are.
        explained: Share of their squared length that the base explains after matching.
        chance: The same with the entries of every unit shuffled alike; zero for inner products.
    """

    motion: Motion
    axis: str
    moved: int
    total: int
    explained: float
    chance: float


def find_reordering(base: Tensor, expert: Tensor, sums: Agreement) -> list[Reordering]:
    """Look for rows or columns of an expert that are other rows or columns of its base.

    Only units out of place are looked at, so that an expert with all units in place costs nothing here.

    Args:
        base: The base's matrix, [n, d].
        expert: The expert's.
        sums: Their agreement.

    Returns:
        What was found, by axis; empty where nothing is, or nothing can be told from chance.

    Example:
        >>> from diagnostics.measures.agreement import agreement
        >>> a = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
        >>> b = a.roll(1, dims=0)
        >>> [str(found.motion) + " " + found.axis for found in find_reordering(a, b, agreement(a, b))]
        ['permuted rows']
    """
    sides = (("rows", base, expert, sums.row_cosines), ("columns", base.T, expert.T, sums.column_cosines))
    matched = [_match(axis, a, b, cosines) for axis, a, b, cosines in sides]
    found = [each for each in matched if each]
    if len(found) == 2 and all(each.motion is Motion.FLIPPED for each in found):
        found = found[:1]  # the whole matrix changed its sign
    if found or not sums.cosine < IN_PLACE:
        return found
    return [each for axis, a, b, _ in sides if (each := _rotation(axis, a, b))]


def _match(axis: str, base: Tensor, expert: Tensor, cosines: Tensor) -> Reordering | None:
    """Whether the units out of place are other units of the base, or their own with another sign."""
    moved = torch.nonzero(cosines < IN_PLACE).flatten()
    if len(moved) < 2:
        return None
    chosen = moved[_spread(len(moved), _UNITS)]
    entries = _spread(base.shape[1], _ENTRIES)
    units, pool = _unit_rows(expert[chosen][:, entries]), base[:, entries]
    best, index = _nearest(units, pool)
    explained = float((best**2).mean())
    shuffle = torch.randperm(len(entries), generator=torch.Generator().manual_seed(0))
    chance = float((_nearest(units[:, shuffle], pool)[0] ** 2).mean())
    if len(moved) < _FEW and chance > 1 - EXPLAINED:
        return None
    distinct = len(index.unique()) > EXPLAINED * len(index)
    # Few entries make good matches of anything: what is left over must also be little against chance's.
    if not (distinct and explained >= EXPLAINED and 1 - explained < (1 - EXPLAINED) * (1 - chance)):
        return None
    motion = Motion.PERMUTED if bool((index != chosen).any()) else Motion.FLIPPED
    return Reordering(motion, axis, len(moved), base.shape[0], explained, chance)


def _rotation(axis: str, base: Tensor, expert: Tensor) -> Reordering | None:
    """Whether W' = Q W with Q orthogonal: inner products between columns agree, as chance would never make them."""
    chosen = _spread(base.shape[1], _PRODUCTS)
    if len(chosen) < _FEW:
        return None
    above = torch.triu_indices(len(chosen), len(chosen), offset=1)
    products = [(part.T @ part)[above[0], above[1]] for part in (base[:, chosen].double(), expert[:, chosen].double())]
    correlation = float(torch.corrcoef(torch.stack(products))[0, 1])
    # A constant set of products has no correlation: NaN fails the comparison.
    if not (correlation > 0 and correlation**2 >= ROTATED):
        return None
    return Reordering(Motion.ROTATED, axis, base.shape[0], base.shape[0], correlation**2, 0.0)


def _nearest(units: Tensor, pool: Tensor) -> tuple[Tensor, Tensor]:
    """For each unit the largest |cosine| with any row of the pool, and whose it is."""
    parts = [(units @ _unit_rows(part).T).abs().max(1) for part in pool.split(_POOL)]
    best, part = torch.stack([each.values for each in parts]).max(0)
    index = torch.stack([each.indices for each in parts]).gather(0, part[None])[0]
    return best, index + part * _POOL


def _unit_rows(matrix: Tensor) -> Tensor:
    """Rows of length one; zero rows stay zero."""
    return torch.nn.functional.normalize(matrix.float(), dim=1)


def _spread(count: int, most: int) -> Tensor:
    """At most so many indices, evenly over all."""
    return torch.linspace(0, count - 1, min(count, most), dtype=torch.float64).long()
