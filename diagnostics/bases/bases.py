"""Task-vector bases: a few vectors that stand for many, and the arithmetic done with them (2.14), (2.15)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diagnostics.bases.clustering import Clustering
from diagnostics.bases.stability import Stability
from diagnostics.errors import InputError
from diagnostics.inputs.checkpoints import Source
from diagnostics.inputs.problem import Coefficients
from diagnostics.inputs.task_vectors import TaskVectors
from diagnostics.measures.geometry import Geometry
from diagnostics.results import Result, plain

__all__ = ["Bases", "Memory"]


@dataclass(frozen=True)
class Memory(Result):
    """What bases save (2.15), in vectors and in bytes as they are held here.

    Attributes:
        vectors: T, the experts.
        bases: m, the bases.
        vector_bytes: Size of one vector.
        largest_cluster: Experts in the largest cluster.
    """

    vectors: int
    bases: int
    vector_bytes: int
    largest_cluster: int

    @property
    def saved(self) -> float:
        """1 − m/T, the share of the memory that the bases save."""
        return 1 - self.bases / self.vectors

    @property
    def search_vectors(self) -> int:
        """max(max |cluster|, m), the vectors that a search of coefficients holds at a time as published.

        Clusters are merged here tensor by tensor, so that what is held is m vectors.
        """
        return max(self.largest_cluster, self.bases)

    def to_dict(self) -> dict[str, Any]:
        """Return fields and derived quantities as plain types.

        Returns:
            A dictionary ready for JSON.
        """
        return super().to_dict() | {"saved": self.saved, "search_vectors": self.search_vectors}

    def __str__(self) -> str:
        return f"{self.vectors} vectors to {self.bases} bases of {self.vector_bytes:,} bytes, {self.saved:.1%} saved"


@dataclass(frozen=True)
class Bases(Result):
    """Task vectors merged into one basis vector for each cluster.

    Attributes:
        names: The experts.
        clusters: Experts of each basis, larger clusters first.
        vectors: The bases b_c by name, ``basis-1`` first, tensors by name of the parameter.
        similarity: cos(τ_i, b_c), [T, m]; NaN where an expert that joined later moved a basis that others are in.
        gram: ⟨b_c, b_c'⟩, [m, m].
        merge: How a cluster became a basis.
        density: Share of the entries that this kept; ``None`` for the method's own.
        threshold: Cosine with a basis from which a new vector counts as similar to it.
        memory: What is saved.
        clustering: The groups and the evidence for them, as the bases were made.
        geometry: Norms and angles of the experts, as the bases were made.
        stability: What resampled tensors do to the groups.
        base: θ0, the shared parameters.
        fisher: Diagonal Fisher information of each basis, the sum of its experts'; for ``merge="fisher"``.
        notes: What a reader must know before using the bases.
        sources: The experts' vectors, read when asked for; ``None`` for bases that were loaded.
    """

    names: tuple[str, ...]
    clusters: tuple[tuple[str, ...], ...]
    vectors: dict[str, dict[str, Tensor]]
    similarity: Tensor
    gram: Tensor
    merge: str
    density: float | None
    threshold: float
    memory: Memory
    clustering: Clustering | None
    geometry: Geometry | None
    stability: Stability | None
    base: dict[str, Tensor] = field(repr=False)
    fisher: dict[str, dict[str, Tensor]] | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    sources: TaskVectors | None = field(default=None, repr=False)

    @property
    def k(self) -> int:
        """Number of bases m."""
        return len(self.clusters)

    @property
    def eigenvalues(self) -> Tensor:
        """Eigenvalues of the unnormalised Laplacian (2.12), ascending, [T]; empty for bases that were loaded."""
        return torch.empty(0, dtype=torch.float64) if self.clustering is None else self.clustering.eigengap.eigenvalues

    @property
    def members(self) -> dict[str, tuple[str, ...]]:
        """Experts by basis."""
        return dict(zip(self.vectors, self.clusters, strict=True))

    def basis_of(self, name: str) -> str:
        """Return the basis that an expert was merged into.

        Args:
            name: The expert.

        Returns:
            Name of the basis.

        Raises:
            InputError: If there is no such expert.
        """
        for basis, members in self.members.items():
            if name in members:
                return basis
        raise InputError(f"name: expected one of the experts {list(self.names)}; found {name!r}.")

    def add(
        self, coefficients: Coefficients = 1.0, *, merge: str = "task_arithmetic", density: float | None = None
    ) -> dict[str, Tensor]:
        """Return the base plus the merged bases, θ0 + merge_out(λ_1 b_1, …, λ_m b_m) (2.14).

        Args:
            coefficients: λ: one number, one for each basis, or by name of the basis; a basis without one takes no part.
            merge: How bases are merged, as clusters are; ``task_arithmetic`` adds them up.
            density: Share of the entries that this keeps.

        Returns:
            Shared parameters, by name.

        Raises:
            InputError: If the coefficients or the method do not fit.
        """
        from diagnostics.bases.arithmetic import added  # it needs this class

        return added(self, coefficients, merge, density)

    def negate(self, name: str, coefficient: float = 1.0) -> dict[str, Tensor]:
        """Return the base minus the basis most similar to an expert, θ0 − λ b (2.14).

        The other experts of that basis are negated with it.

        Args:
            name: The expert to forget.
            coefficient: λ.

        Returns:
            Shared parameters, by name.

        Raises:
            InputError: If there is no such expert, or the coefficient is not finite.
        """
        from diagnostics.bases.arithmetic import negated

        return negated(self, name, coefficient)

    def generalise(self, target: Source, coefficient: float = 1.0, *, use: str = "nearest") -> dict[str, Tensor]:
        """Return the base plus what the bases offer to a task that is in none of them (2.14), (2.3), (2.7).

        Args:
            target: A model of the new task, its parameters, or a path; a few steps of fine-tuning give a direction.
            coefficient: λ.
            use: ``nearest``, the basis with the largest cosine (2.3); ``similar``, the mean of all at or above
                ``threshold``; ``span``, Σ α_c b_c with min ‖Σ α_c b_c − τ_tar‖ (2.7).

        Returns:
            Shared parameters, by name. Where no basis is similar the target's own vector is the new basis and is used,
            with a ``NoSimilarBasisWarning``; :meth:`include` keeps it.

        Raises:
            InputError: If ``use`` is unknown or the coefficient is not finite.
            MismatchError: If the target's parameters do not fit.
        """
        from diagnostics.bases.arithmetic import generalised

        return generalised(self, target, coefficient, use)

    def relate(self, target: Source) -> dict[str, float]:
        """Return the cosine of a new vector with each basis.

        Args:
            target: A model, its parameters, or a path.

        Returns:
            cos(τ_tar, b_c) by basis.

        Raises:
            MismatchError: If the target's parameters do not fit.
        """
        from diagnostics.bases.arithmetic import cosines, opened

        return cosines(self, opened(self, target))

    def include(self, name: str, expert: Source) -> Bases:
        """Return the bases with one more expert: in the basis it is most similar to, or in one of its own (2.14).

        Earlier experts are not read again where a basis is a mean or a sum.

        Args:
            name: Name of the new expert.
            expert: A model, its parameters, or a path.

        Returns:
            New bases; these stay as they are.

        Raises:
            InputError: If the name is taken, or the basis cannot be made anew because its experts are not at hand.
            MismatchError: If parameters do not fit.
        """
        from diagnostics.bases.include import included

        return included(self, name, expert)

    def save(self, folder: str | Path) -> Path:
        """Write the bases as safetensors files with an index, which :func:`load_bases` reads.

        Args:
            folder: Where to; made if it is not there.

        Returns:
            The folder.

        Raises:
            InputError: If it cannot be written in.
        """
        from diagnostics.bases.files import save_bases

        return save_bases(self, folder)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the vectors as plain types.

        Returns:
            A dictionary ready for JSON.
        """
        kept = ("names", "similarity", "gram", "merge", "density", "threshold", "memory", "clustering", "geometry")
        shown = {name: plain(getattr(self, name)) for name in (*kept, "stability", "notes")}
        return shown | {"k": self.k, "clusters": plain(self.members), "eigenvalues": plain(self.eigenvalues)}

    def __str__(self) -> str:
        lines = [f"{self.memory}, merged by {self.merge}"]
        if self.clustering is not None:
            lines.append(f"  that the experts fall into groups is {self.clustering.verdict}")
        lines += [f"  {basis}: {', '.join(members)}" for basis, members in self.members.items()]
        if self.stability is not None and not math.isnan(self.stability.same):
            lines.append(f"  {self.stability}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def basis_names(count: int) -> Sequence[str]:
    """Return the names of the bases.

    Args:
        count: How many.

    Returns:
        ``basis-1``, ``basis-2``, …

    Example:
        >>> basis_names(2)
        ['basis-1', 'basis-2']
    """
    return [f"basis-{number}" for number in range(1, count + 1)]


def cosine_of(inner: float, first: float, second: float) -> float:
    """Return a cosine from an inner product and two squared lengths.

    Args:
        inner: ⟨a, b⟩.
        first: ‖a‖².
        second: ‖b‖².

    Returns:
        The cosine, NaN where one of the two is zero.

    Example:
        >>> cosine_of(3.0, 9.0, 4.0), cosine_of(0.0, 0.0, 1.0)
        (0.5, nan)
    """
    scale = math.sqrt(first * second)
    return max(-1.0, min(1.0, inner / scale)) if scale > 0 else math.nan


def rows_of(vectors: Mapping[str, Mapping[str, Tensor]], key: str) -> Tensor:
    """Return one tensor of several vectors as rows.

    Args:
        vectors: The vectors.
        key: Name of the tensor.

    Returns:
        A matrix in float64, a row for each vector.
    """
    return torch.stack([vector[key].reshape(-1).double() for vector in vectors.values()])
