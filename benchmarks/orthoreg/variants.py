"""Ways to fine-tune: plain, with OrthoReg in either form, and with the part of it that sees the size alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from diagnostics.measures.orthoreg import orthoreg_penalty

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True)
class Variant:
    """A form of the penalty and its strength λ_reg."""

    form: str = "plain"
    strength: float = 0.0

    @property
    def name(self) -> str:
        """A short name, for tables and folders."""
        return f"{self.form}-{self.strength:g}" if self.strength else self.form

    def penalty(self, delta: Tensor) -> Tensor:
        """The penalty of one update, without its strength."""
        return size_penalty(delta) if self.form == "size" else orthoreg_penalty(delta, form=self.form)


PLAIN = Variant()


def size_penalty(delta: Tensor) -> Tensor:
    """(‖ΔW‖_F² − m)²/m with m the shorter side: the part of ‖M − I‖_F² that depends on the size of ΔW alone.

    M has m eigenvalues with the sum ‖ΔW‖_F²; the squared distance of their mean from one is this part, and their
    spread about the mean is the rest. Training with it grows the update to the same norm, in any direction.
    """
    short = min(delta.shape)
    return (delta.square().sum() - short).square() / short


def penalise(model: torch.nn.Module, variant: Variant) -> None:
    """Add the gradient of the penalty to that of the loss from now on, in any loop that trains the model.

    The penalty is a sum over matrices, so its gradient is added where that of each matrix arrives.
    """
    if variant.strength:
        for value in model.parameters():
            if value.requires_grad and value.ndim == 2:
                value.register_hook(_Addition(variant, value))


class _Addition:
    """Adds the gradient of the penalty at a parameter to an incoming one; its start is where it is now."""

    def __init__(self, variant: Variant, value: Tensor) -> None:
        self.variant, self.value, self.start = variant, value, value.detach().clone()

    def __call__(self, gradient: Tensor) -> Tensor:
        return gradient + self.variant.strength * penalty_gradient(self.variant, self.value.detach() - self.start)


def penalty_gradient(variant: Variant, delta: Tensor) -> Tensor:
    """Gradient of the penalty at one update, without its strength."""
    with torch.enable_grad():  # the hooks of a backward pass run without
        leaf = delta.clone().requires_grad_()
        return torch.autograd.grad(variant.penalty(leaf), leaf)[0]


def update(base: Parameters, expert: Parameters) -> dict[str, Tensor]:
    """τ by tensor."""
    return {name: expert[name] - value for name, value in base.items()}


def rescaled(base: Parameters, plain: Parameters, like: Parameters) -> dict[str, Tensor]:
    """The plain expert with its update rescaled to the norm of another expert's."""
    move = update(base, plain)
    ratio = norm(update(base, like)) / norm(move)
    return {name: value + ratio * move[name] for name, value in base.items()}


def norm(delta: Parameters) -> float:
    """‖τ‖ over all tensors."""
    return math.sqrt(sum(float(value.double().square().sum()) for value in delta.values()))


def merged(base: Parameters, experts: Mapping[str, Parameters], coefficient: float) -> dict[str, Tensor]:
    """θ0 + λ Σ τ."""
    return {
        name: value + coefficient * sum(each[name] - value for each in experts.values()) for name, value in base.items()
    }


def mean(values: Iterable[float]) -> float:
    """The mean."""
    found = list(values)
    return sum(found) / len(found)


def fill(base: Parameters, expert: Parameters) -> float:
    """Mean of ‖ΔW‖_F²/m over the matrices of an update, one at the target."""
    return mean(float(delta.square().sum()) / min(delta.shape) for delta in _matrices(base, expert))


def radial(base: Parameters, expert: Parameters) -> float:
    """Share of the squared gradient of the paper's form that lies along ΔW, and so rescales ΔW and does not turn it."""
    along = total = 0.0
    for delta in _matrices(base, expert):
        gradient = penalty_gradient(Variant("paper", 1.0), delta)
        along += float((gradient * delta).sum()) ** 2 / (float(delta.square().sum()) or math.inf)
        total += float(gradient.square().sum())
    return along / total if total else math.nan


def _matrices(base: Parameters, expert: Parameters) -> list[Tensor]:
    """What the penalty sees of an update."""
    return [delta for delta in update(base, expert).values() if delta.ndim == 2]
