"""Reading loss and score off model outputs, so that predicted outputs need no further model runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Readout", "class_accuracy", "constant_prediction_loss"]


@dataclass(frozen=True)
class Readout:
    """The parts of a task that has outputs.

    Attributes:
        outputs: ``outputs(params, batch)``, the model outputs f(x; θ), examples first.
        losses: ``losses(outputs, batch)``, one loss per example.
        score: ``score(outputs, batch)``, one score per example, or ``None`` where the task has no score.
    """

    outputs: Callable[[Mapping[str, Tensor], Any], Tensor]
    losses: Callable[[Tensor, Any], Tensor]
    score: Callable[[Tensor, Any], Tensor] | None

    @classmethod
    def from_functions(
        cls,
        model: Callable[[Mapping[str, Tensor], Any], Tensor],
        criterion: Callable[[Tensor, Tensor], Tensor],
        score: Callable[[Tensor, Tensor], Tensor] | None,
    ) -> Readout:
        """Build a readout for batches that are pairs (inputs, targets).

        Args:
            model: ``model(params, batch)``, the outputs.
            criterion: ``criterion(outputs, targets)``, a mean over examples.
            score: ``score(outputs, targets)``, one value per example.

        Returns:
            The readout.
        """

        def losses(out: Tensor, batch: Any) -> Tensor:
            # The criterion is a mean; over a batch of one it is the example's own loss.
            return torch.func.vmap(lambda o, t: criterion(o[None], t[None]))(out, batch[1].to(out.device))

        return cls(model, losses, None if score is None else lambda out, batch: score(out, batch[1].to(out.device)))

    def through(self, change: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]) -> Readout:
        """Return the readout as a function of other parameters.

        Args:
            change: What makes this readout's parameters of the other ones.

        Returns:
            The readout with outputs f(x; change(θ)).
        """
        return Readout(lambda params, batch: self.outputs(change(params), batch), self.losses, self.score)


def class_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return 1 for each example whose largest output is its class, else 0.

    Args:
        outputs: Logits, [n, classes].
        targets: Class indices, [n].

    Returns:
        Zeros and ones, [n].

    Example:
        >>> class_accuracy(torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0])).tolist()
        [1.0, 0.0]
    """
    return (outputs.argmax(dim=-1) == targets).to(outputs.dtype)


def constant_prediction_loss(
    example: Tensor, targets: Sequence[Tensor], criterion: Callable[[Tensor, Tensor], Tensor]
) -> float | None:
    """Return the loss of the best prediction that ignores the input (2.11).

    Args:
        example: Any batch of outputs, for its shape and dtype.
        targets: The targets of all batches.
        criterion: The mean loss.

    Returns:
        For class targets the criterion at the log frequencies of the classes, for real targets at their mean;
        ``None`` where neither applies.

    Example:
        >>> out = torch.zeros(4, 2)
        >>> loss = constant_prediction_loss(out, [torch.tensor([0, 1, 0, 1])], torch.nn.functional.cross_entropy)
        >>> round(loss, 4)
        0.6931
    """
    target = torch.cat(list(targets))
    if target.ndim == 1 and not target.is_floating_point() and example.ndim == 2:
        counts = torch.bincount(target, minlength=example.shape[1]).to(example.dtype)
        constant = (counts / counts.sum()).clamp_min(torch.finfo(example.dtype).tiny).log()
    elif target.is_floating_point() and target.shape[1:] == example.shape[1:]:
        constant = target.mean(dim=0)
    else:
        return None
    return float(criterion(constant.expand(len(target), *constant.shape), target))
