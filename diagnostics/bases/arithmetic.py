"""Addition, negation and use out of distribution with bases instead of task vectors (2.14)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from diagnostics.bases.bases import Bases, cosine_of, rows_of
from diagnostics.bases.merging import merge_vectors
from diagnostics.errors import InputError, require_one_of
from diagnostics.inputs.adapters import open_expert
from diagnostics.inputs.checkpoints import Source, open_checkpoint
from diagnostics.inputs.problem import Coefficients, chosen_coefficients
from diagnostics.inputs.task_vectors import TaskVector, TaskVectors

__all__ = ["NoSimilarBasisWarning", "added", "cosines", "generalised", "negated", "opened"]

_LOCALISED = ("localize_and_stitch", "mask_sharing")
_USES = ("nearest", "similar", "span")


class NoSimilarBasisWarning(UserWarning):
    """No basis is similar to a new task, whose own vector was used."""


def added(bases: Bases, coefficients: Coefficients, merge: str, density: float | None) -> dict[str, Tensor]:
    """Return θ0 + merge_out(λ_1 b_1, …); see :meth:`Bases.add`.

    Args:
        bases: The bases.
        coefficients: λ.
        merge: How bases are merged.
        density: Share of the entries that this keeps.

    Returns:
        Shared parameters, by name.

    Raises:
        InputError: If the coefficients or the method do not fit.

    Example:
        >>> from diagnostics.bases.build import task_vector_bases
        >>> experts = {name: {"w": value} for name, value in zip("abc", torch.eye(3))}
        >>> task_vector_bases({"w": torch.zeros(3)}, experts, k=3).add({"basis-1": 0.5, "basis-3": 1.0})["w"].tolist()
        [0.5, 0.0, 1.0]
    """
    weights = chosen_coefficients(coefficients, tuple(bases.vectors), "basis vector")
    chosen = {name: bases.vectors[name] for name in weights}
    stitched = merge in _LOCALISED and bases.merge in _LOCALISED
    if stitched and density is not None:
        raise InputError(f"density: expected nothing, as the bases were localised before; found {density}.")
    if merge == "fisher" and bases.fisher is None:
        raise InputError("merge: expected bases that were made with merge='fisher'; these have no Fisher information.")
    update = merge_vectors(chosen, merge, weights=weights, density=density, fisher=bases.fisher, stitched=stitched)
    return {key: value + update[key] for key, value in bases.base.items()}


def negated(bases: Bases, name: str, coefficient: float) -> dict[str, Tensor]:
    """Return θ0 − λ b; see :meth:`Bases.negate`.

    Args:
        bases: The bases.
        name: The expert to forget.
        coefficient: λ.

    Returns:
        Shared parameters, by name.

    Raises:
        InputError: If there is no such expert, or the coefficient is not finite.

    Example:
        >>> from diagnostics.bases.build import task_vector_bases
        >>> experts = {name: {"w": value} for name, value in zip("abc", torch.eye(3))}
        >>> task_vector_bases({"w": torch.zeros(3)}, experts, k=3).negate("b", 0.5)["w"].tolist()
        [0.0, -0.5, 0.0]
    """
    own = bases.basis_of(name)
    row = bases.similarity[bases.names.index(name)]
    # A basis that moved since has no cosine with the experts of before: then it is the one they are in.
    basis = own if bool(row.isnan().any()) else list(bases.vectors)[int(row.argmax())]
    return _moved(bases, bases.vectors[basis], -_finite(coefficient))


def generalised(bases: Bases, target: Source, coefficient: float, use: str) -> dict[str, Tensor]:
    """Return θ0 + λ times what the bases offer to a new task; see :meth:`Bases.generalise`.

    Args:
        bases: The bases.
        target: Parameters of a model of the new task, or a path.
        coefficient: λ.
        use: ``nearest``, ``similar`` or ``span``.

    Returns:
        Shared parameters, by name.

    Raises:
        InputError: If ``use`` is unknown or the coefficient is not finite.

    Example:
        >>> from diagnostics.bases.build import task_vector_bases
        >>> experts = {name: {"w": value} for name, value in zip("abc", torch.eye(3))}
        >>> bases = task_vector_bases({"w": torch.zeros(3)}, experts, k=3)
        >>> target = {"w": torch.tensor([0.6, 0.8, 0.0])}
        >>> bases.generalise(target)["w"].tolist()
        [0.0, 1.0, 0.0]
        >>> [round(value, 4) for value in bases.generalise(target, use="span")["w"].tolist()]
        [0.6, 0.8, 0.0]
    """
    require_one_of("use", use, _USES)
    factor, vector = _finite(coefficient), opened(bases, target)
    found = cosines(bases, vector)
    similar = [name for name, value in found.items() if value >= bases.threshold]
    if not similar:
        warnings.warn(
            f"no basis is similar to the target: the largest cosine is {max(found.values()):.3g} and "
            f"{bases.threshold:.3g} is needed. Its own vector is used; include() keeps it as a new basis",
            NoSimilarBasisWarning,
            stacklevel=3,
        )
        return _moved(bases, vector, factor)
    if use == "nearest":
        return _moved(bases, bases.vectors[max(similar, key=found.__getitem__)], factor)
    if use == "similar":
        return _moved(bases, merge_vectors({name: bases.vectors[name] for name in similar}), factor)
    square = sum(float(vector[key].double().square().sum()) for key in bases.base)
    inner = torch.tensor(list(found.values()), dtype=torch.float64) * (square * bases.gram.diagonal()).sqrt()
    alphas = torch.linalg.lstsq(bases.gram, inner[:, None], driver="gelsd").solution[:, 0]
    weights = dict(zip(bases.vectors, alphas.tolist(), strict=True))
    return _moved(bases, merge_vectors(bases.vectors, "task_arithmetic", weights=weights), factor)


def opened(bases: Bases, target: Source) -> TaskVector:
    """Return the vector of another model of the same base.

    Args:
        bases: The bases.
        target: Parameters, or a path.

    Returns:
        τ_tar, read when it is asked for.

    Raises:
        MismatchError: If the parameters do not fit.
    """
    name = "target"
    if bases.sources is not None:
        return bases.sources.extended(_free(name, bases.names), target)[_free(name, bases.names)]
    base = open_checkpoint(bases.base, label="base")
    return TaskVectors(base, {name: open_expert(base, target, label=name)})[name]


def cosines(bases: Bases, vector: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the cosine of a vector with each basis.

    Args:
        bases: The bases.
        vector: The vector.

    Returns:
        The cosines by basis.

    Raises:
        InputError: If the vector is zero, which has no direction.
    """
    inner, square = torch.zeros(bases.k, dtype=torch.float64), 0.0
    for key in bases.base:
        flat = vector[key].reshape(-1).double()
        inner += rows_of(bases.vectors, key) @ flat
        square += float(flat @ flat)
    if not (square > 0 and math.isfinite(square)):
        raise InputError(
            f"target: expected a model that differs from the base by finite numbers; found ‖τ‖² = {square}. A vector "
            "without a direction is similar to no basis."
        )
    return {
        name: cosine_of(float(value), square, float(own))
        for name, value, own in zip(bases.vectors, inner, bases.gram.diagonal(), strict=True)
    }


def _moved(bases: Bases, vector: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    """θ0 plus a vector times a number."""
    return {key: value + factor * vector[key] for key, value in bases.base.items()}


def _finite(coefficient: float) -> float:
    """A coefficient, refused where it is no number."""
    if not math.isfinite(coefficient):
        raise InputError(f"coefficient: expected a finite number; found {coefficient}.")
    return float(coefficient)


def _free(name: str, taken: tuple[str, ...]) -> str:
    """A name that no expert has."""
    return name if name not in taken else _free(f"{name}'", taken)
