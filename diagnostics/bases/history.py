"""Whether earlier checkpoints of the experts already fall into the groups of the last ones (2.15)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diagnostics.bases.build import cluster_experts
from diagnostics.bases.stability import group_agreement
from diagnostics.errors import InputError
from diagnostics.inputs.checkpoints import Source
from diagnostics.measures.geometry import geometry
from diagnostics.results import Result, Verdict

__all__ = ["Moment", "cluster_history"]


@dataclass(frozen=True)
class Moment(Result):
    """The groups at one moment of fine-tuning.

    Attributes:
        label: When.
        clusters: The experts by group.
        verdict: Whether they fall into groups at all then.
        agreement: Adjusted Rand index with the groups of the last moment; 1 for the same.
        same: Whether the groups are the same.
    """

    label: str
    clusters: tuple[tuple[str, ...], ...]
    verdict: Verdict
    agreement: float
    same: bool

    def __str__(self) -> str:
        groups = "; ".join(", ".join(members) for members in self.clusters)
        return f"{self.label}: {groups} (groups {self.verdict}, agreement with the last {self.agreement:.2f})"


def cluster_history(
    base: Source,
    checkpoints: Mapping[str, Mapping[str, Source] | Sequence[str | Path]],
    *,
    k: int | None = None,
    opposite: float = -0.1,
    private: Sequence[str] = (),
    seed: int = 0,
) -> tuple[Moment, ...]:
    """Cluster the experts at several moments of fine-tuning, each held against the last.

    Args:
        base: The base: a model, its parameters, or a path to them.
        checkpoints: For each moment, in order, the same experts as they were then.
        k: Number of clusters; by default what each moment's eigengap suggests.
        opposite: A cluster with a cosine below this is split into two directions.
        private: Names or glob patterns of parameters left out.
        seed: Seed of the clustering.

    Returns:
        The moments in order.

    Raises:
        InputError: If the experts are not the same at every moment, or one is identical to the base.
        MismatchError: If parameters do not fit together.

    Example:
        >>> import torch
        >>> last = {name: {"w": value} for name, value in zip("abc", torch.eye(3))}
        >>> [m.agreement for m in cluster_history({"w": torch.zeros(3)}, {"early": last, "late": last}, k=3)]
        [1.0, 1.0]
    """
    shapes = {label: geometry(base, experts, private=private) for label, experts in checkpoints.items()}
    names = {label: shape.names for label, shape in shapes.items()}
    if not shapes or len({frozenset(each) for each in names.values()}) > 1:
        raise InputError(f"checkpoints: expected the same experts at every moment; found {names}.")
    found = {label: cluster_experts(shape, k, opposite, seed)[0] for label, shape in shapes.items()}
    groups = {
        label: tuple(tuple(sorted(names[label][index] for index in members)) for members in clustering.groups)
        for label, clustering in found.items()
    }
    last = list(shapes)[-1]
    order = {name: index for index, name in enumerate(names[last])}
    indexed = {label: [[order[name] for name in members] for members in each] for label, each in groups.items()}
    return tuple(
        Moment(
            label,
            groups[label],
            clustering.verdict,
            group_agreement(indexed[label], indexed[last]),
            set(groups[label]) == set(groups[last]),
        )
        for label, clustering in found.items()
    )
