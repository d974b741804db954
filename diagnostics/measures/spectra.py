"""The Hessian spectral norm L = ‖∇²L_i(θ)‖₂, with an interval and a status that does not flatter."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from diagnostics.errors import InputError, require_one_of
from diagnostics.inputs.tasks import Parameters, Task
from diagnostics.measures.differences import DifferenceOperator
from diagnostics.measures.hessian import HessianOperator
from diagnostics.measures.lanczos import Spectrum, lanczos, power_iteration
from diagnostics.measures.space import Space
from diagnostics.measures.vectors import flatten
from diagnostics.results import Result, Status

__all__ = ["SpectralNorm", "spectral_norm"]

Products = Literal["exact", "differences"]

_METHODS: dict[str, Callable[..., Spectrum]] = {"lanczos": lanczos, "power": power_iteration}


@dataclass(frozen=True)
class SpectralNorm(Result):
    """The largest |eigenvalue| of a Hessian.

    Attributes:
        value: Estimate of ‖H‖₂, the absolute value of ``eigenvalue``.
        eigenvalue: The eigenvalue of largest absolute value found, with its sign.
        lower: ‖H‖₂ is at least this, to rounding.
        upper: ‖H‖₂ is at most this, with probability ``confidence`` over the random start.
        confidence: Probability that ``upper`` is valid.
        residual: ‖Hy − eigenvalue·y‖ for the unit vector y found: some eigenvalue lies this close.
        products: Hessian-vector products used.
        asymmetry: Largest |uᵀHv − vᵀHu| seen; far from zero, there is no Hessian to speak of.
        error: How far products by differences were off; residual and interval allow for it. Zero for exact ones.
        method: ``"lanczos"`` or ``"power"``.
        status: What the number may be used for.
    """

    value: float
    eigenvalue: float
    lower: float
    upper: float
    confidence: float
    residual: float
    products: int
    asymmetry: float
    method: str
    status: Status
    error: float = 0.0

    def __str__(self) -> str:
        return (
            f"‖H‖₂ = {self.value:.4g} in [{self.lower:.4g}, {self.upper:.4g}] at {self.confidence:.1%}, "
            f"residual {self.residual:.2g}, {self.products} products, {self.status}"
        )


def spectral_norm(
    task: Task,
    params: Parameters,
    *,
    method: str = "lanczos",
    rtol: float = 1e-2,
    max_products: int = 100,
    seed: int = 0,
    start: Mapping[str, Tensor] | None = None,
    confidence: float = 0.999,
    upper_rtol: float | None = None,
    products: Products = "exact",
    memory: int | None = None,
) -> SpectralNorm:
    """Return the spectral norm ‖∇²L(θ)‖₂ = max |eigenvalue| of a task's Hessian.

    Args:
        task: The task.
        params: The point θ.
        method: ``"lanczos"`` (full reorthogonalisation) or ``"power"`` (power iteration on the Hessian).
        rtol: Relative tolerance on the residual and, for Lanczos, on the width of the interval.
        max_products: Budget of Hessian-vector products.
        seed: Seed of the random start vector.
        start: A direction to begin with; a random part is mixed in, because no start proves an upper end
            unless part of it is random.
        confidence: Probability with which ``upper`` holds.
        upper_rtol: Relative tolerance on ``upper`` alone, for Lanczos; ``rtol`` by default. With 1.0 the value is
            accurate to ``rtol`` unless a larger eigenvalue was missed, and one of more than twice its size was not;
            that takes about half of the products, and the status says *lower bound*.
        products: How the Hessian is multiplied with: ``"exact"``, two gradients each with the graphs kept; or
            ``"differences"`` of gradients, one gradient each, without graphs and without second derivatives of any
            operation. Their error is measured at the end, for one gradient more, and allowed for.
        memory: Bytes that graphs kept between products may take; half of what is free by default. See
            :class:`~diagnostics.measures.hessian.HessianOperator`.

    Returns:
        The value, its signed eigenvalue, the interval, the residual, the cost and the status.

    Raises:
        InputError: If the method is unknown or a setting is out of range.

    Example:
        >>> scale = torch.tensor([2.0, -3.0, 1.0])
        >>> task = Task("q", lambda p, b: 0.5 * (scale * p["w"] ** 2).sum(), [torch.zeros(1)])
        >>> result = spectral_norm(task, {"w": torch.zeros(3)})
        >>> round(result.value, 3), round(result.eigenvalue, 3), str(result.status)
        (3.0, -3.0, 'exact')
    """
    if method not in _METHODS:
        raise InputError(f"method must be one of {sorted(_METHODS)}, found {method!r}")
    if not (rtol > 0 and max_products >= 1 and 0 < confidence < 1 and (upper_rtol is None or upper_rtol > 0)):
        raise InputError(
            "rtol, upper_rtol and max_products must be positive and confidence between 0 and 1; found rtol="
            f"{rtol}, max_products={max_products}, confidence={confidence}, upper_rtol={upper_rtol}"
        )
    if method != "lanczos" and upper_rtol is not None:
        raise InputError(f"upper_rtol: only method='lanczos' closes its upper end; found method={method!r}")
    require_one_of("products", products, get_args(Products))
    hessian = (
        DifferenceOperator(task, params) if products == "differences" else HessianOperator(task, params, memory=memory)
    )
    flat = hessian.gradient
    space = Space.of(params)
    generator = torch.Generator().manual_seed(seed)
    noise = space.drawn(lambda count: torch.randn(count, generator=generator, dtype=flat.dtype)).to(flat.device)
    direction = None if start is None else flatten({name: start[name] for name in params}).to(flat)
    # What differences add to the residual has to fit into the tolerance too.
    aim = rtol if products == "exact" else 0.75 * rtol
    options: dict[str, Any] = {"start": direction, "rtol": aim, "max_products": max_products, "confidence": confidence}
    options["space"] = space
    options |= {"upper_rtol": upper_rtol} if method == "lanczos" else {}
    found, error = _METHODS[method](hessian, noise, **options), 0.0
    if isinstance(hessian, DifferenceOperator):
        # The second difference tells the length of the error, the asymmetry what it did to the eigenvalue.
        error = hessian.error() + found.asymmetry
        found = _with_error(found, error, rtol)
    return SpectralNorm(
        value=abs(found.eigenvalue),
        eigenvalue=found.eigenvalue,
        lower=found.lower,
        upper=found.upper,
        confidence=confidence,
        error=error,
        residual=found.residual,
        products=found.products,
        asymmetry=found.asymmetry,
        method=method,
        status=found.status,
    )


def _with_error(found: Spectrum, error: float, rtol: float) -> Spectrum:
    """What was found with products that were off by an error: it widens everything, and too large it taints."""
    value = abs(found.eigenvalue)
    # The error is that of one product. Those of all k of them together have √k times its norm, if they are alike, and
    # the interval allows for twice as much, as others may have been worse.
    spread = 2 * math.sqrt(found.products) * error
    lower, upper, residual = max(found.lower - spread, 0.0), found.upper + spread, found.residual + error
    status = Status.CONVERGED if found.status is Status.EXACT else found.status
    if status.trusted and upper > (1 + rtol) * value:
        status = Status.LOWER_BOUND
    if status in {Status.CONVERGED, Status.LOWER_BOUND} and residual > rtol * value:
        status = Status.NOT_CONVERGED if error < rtol * value else Status.TAINTED
    return replace(found, lower=lower, upper=upper, residual=residual, status=status)
