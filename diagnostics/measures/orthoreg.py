"""The OrthoReg penalty (4.3): how far the update of every weight matrix is from an orthonormal one."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from diagnostics.errors import InputError, require_one_of

__all__ = ["orthoreg_penalty"]


def orthoreg_penalty(deltas: Mapping[str, Tensor] | Iterable[Tensor] | Tensor, form: str = "paper") -> Tensor:
    """Return the OrthoReg penalty of the updates ΔW = W − W0 (4.3), differentiable, to be added to a task's loss.

    - ``"paper"``: Σ_l ‖ΔW_lᵀΔW_l − I‖_F², the Gram matrix of the columns.
    - ``"code"``, as released: Σ_l ‖M_l − I‖_F, not squared, with M_l = ΔW_lΔW_lᵀ for matrices with fewer rows than
      columns and ΔW_lᵀΔW_l for the others.

    On one matrix of r rows and c columns, paper = code² + max(c − r, 0): the paper's form has a floor where columns
    are too many to be orthonormal, and no gradient there. Both cost a product of a matrix with itself, on its smaller
    side, and twice that for the gradient.

    As in the released code, matrices alone are penalised: tensors of one dimension (biases, normalisation) and of more
    than two (convolutions) have no part in the sum. Pass ``kernel.flatten(1)`` to have a convolution in it.

    The gradient is exactly zero at ΔW = 0, and at small ΔW points along −ΔW up to terms of third order: there, the
    penalty makes an update larger and does not turn it. At ‖M − I‖_F = 0 the form of the code has no gradient, and the
    zero subgradient is used.

    Args:
        deltas: Updates by parameter name, or just the updates, as functions of what is trained: ``W − W0`` for every
            trained W, and ``s · B @ A`` for a LoRA module of scale s.
        form: ``"paper"`` or ``"code"``.

    Returns:
        The penalty, a 0-dimensional tensor in the dtype of the updates; not a number where an update has a NaN.

    Raises:
        InputError: If the form is unknown, there is no matrix, or a matrix holds integers.

    Example:
        >>> update = torch.eye(16, 64)  # orthonormal rows; 64 columns of length 16 cannot be
        >>> orthoreg_penalty({"w": update}, form="paper"), orthoreg_penalty({"w": update}, form="code")
        (tensor(48.), tensor(0.))
    """
    require_one_of("form", form, _FORMS)
    return functools.reduce(operator.add, map(_FORMS[form], _matrices(deltas)))


def _matrices(deltas: Mapping[str, Tensor] | Iterable[Tensor] | Tensor) -> list[Tensor]:
    """The tensors of two dimensions."""
    if isinstance(deltas, Tensor):
        deltas = [deltas]
    named = deltas if isinstance(deltas, Mapping) else {str(place): delta for place, delta in enumerate(deltas)}
    matrices = {name: delta for name, delta in named.items() if delta.ndim == 2}
    if not matrices:
        shapes = {name: list(delta.shape) for name, delta in named.items()}
        raise InputError(
            f"deltas: expected at least one matrix; found the shapes {shapes}. "
            "Pass W − W0 of the weight matrices that are trained; a convolution counts as kernel.flatten(1)."
        )
    whole = [name for name, delta in matrices.items() if not delta.is_floating_point()]
    if whole:
        raise InputError(f"deltas: expected floating-point updates; {whole} hold integers. Leave such buffers out.")
    return list(matrices.values())


def _excess(delta: Tensor) -> Tensor:
    """M − I on the smaller side."""
    short = delta if delta.shape[0] < delta.shape[1] else delta.T
    return short @ short.T - torch.eye(len(short), dtype=delta.dtype, device=delta.device)


def _paper(delta: Tensor) -> Tensor:
    """‖ΔWᵀΔW − I‖_F²: ΔWᵀΔW has the eigenvalues of ΔWΔWᵀ and c − r zeros, each of which adds one."""
    return _excess(delta).square().sum() + max(delta.shape[1] - delta.shape[0], 0)


def _code(delta: Tensor) -> Tensor:
    """‖M − I‖_F; the norm of torch has the subgradient zero at zero, where a square root of a sum has NaN."""
    return torch.linalg.vector_norm(_excess(delta))


_FORMS = {"paper": _paper, "code": _code}
