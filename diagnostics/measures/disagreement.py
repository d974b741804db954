"""How far two models disagree on each example: whether their predictions differ, and how their distributions do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.inputs.tasks import Task

__all__ = ["DIVERGENCES", "Predictions", "jensen_shannon", "kullback_leibler", "read_predictions"]


@dataclass(frozen=True)
class Predictions:
    """What a model says: one choice an example, or one for each of its tokens.

    Attributes:
        choice: Logits whose largest is the choice, [R, C]; the first of equal ones.
        logits: Logits of the distribution, [R, C].
        owner: The example of each row, [R], where an example has several; their mean stands for it.
        examples: Number of examples.
    """

    choice: Tensor
    logits: Tensor
    owner: Tensor | None
    examples: int

    @property
    def ties(self) -> int:
        """Rows in which more than one logit is the largest, so that the order of the classes decides."""
        return int(((self.choice == self.choice.amax(1, keepdim=True)).sum(1) > 1).sum())

    def per_example(self, values: Tensor) -> Tensor:
        """Average what was found for each row over each example.

        Args:
            values: One value a row, [R].

        Returns:
            One value an example, [n], float64.
        """
        if self.owner is None:
            return values.double()
        total = torch.zeros(self.examples, dtype=torch.float64, device=values.device)
        rows = torch.bincount(self.owner, minlength=self.examples)
        return total.index_add(0, self.owner, values.double()) / rows

    def differs(self, other: Predictions) -> Tensor:
        """Return 1 for each example on which another model's choice is another one.

        Args:
            other: The other model on the same examples.

        Returns:
            Zeros and ones, [n]; shares of the tokens where an example has several.
        """
        return self.per_example(self.choice.argmax(1) != other.choice.argmax(1))


def read_predictions(task: Task, outputs: Sequence[Tensor], where: str) -> Predictions:
    """Read choices and distributions off a task's outputs.

    A classifier's outputs are its logits. Those of a causal language model are log-odds z and margin m of each target
    token; they tell that token from all others and no more, so its distribution is (σ(z), 1 − σ(z)).

    Args:
        task: The task.
        outputs: f(x; θ), or derivatives of them, a batch each.
        where: At what parameters, for messages.

    Returns:
        The predictions.

    Raises:
        InputError: If the outputs are neither, or are not finite.

    Example:
        >>> task = Task("t", lambda p, b: b.sum(), [torch.zeros(2)])
        >>> first, second = torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.tensor([[2.0, 0.0], [1.0, 0.5]])
        >>> read_predictions(task, [first], "").differs(read_predictions(task, [second], "")).tolist()
        [0.0, 1.0]
    """
    if not all(bool(batch.isfinite().all()) for batch in outputs):
        raise InputError(
            f"task {task.name!r}: expected finite outputs; those at {where} are not. Look for overflow in half "
            "precision, or take a narrower grid."
        )
    batches = list(zip(task.batches, outputs, strict=True))
    if all(_by_token(batch, out) for batch, out in batches):
        return _token_predictions(batches)
    if not all(out.ndim == 2 and out.shape[1] > 1 and not _regression(batch, out) for batch, out in batches):
        shapes = sorted({tuple(out.shape[1:]) for out in outputs})
        raise InputError(
            f"task {task.name!r}: expected class logits, [examples, classes] with two classes or more, or the tokens "
            f"of Task.from_causal_lm; found outputs of shapes {shapes} for targets of another kind or none. A single "
            "logit z becomes two as (0, z); real-valued outputs have no predictions that could differ, compare losses."
        )
    whole = torch.cat(list(outputs))
    if len(whole) != task.examples:
        raise InputError(f"task {task.name!r}: expected outputs of {task.examples} examples; found {len(whole)}.")
    return Predictions(whole, whole, None, len(whole))


def _by_token(batch: Any, out: Tensor) -> bool:
    """Whether outputs are a causal language model's log-odds and margins."""
    return isinstance(batch, Mapping) and "y" in batch and out.ndim == 3 and out.shape[2] == 2


def _regression(batch: Any, out: Tensor) -> bool:
    """Whether targets are real numbers for each output, and not shares of classes."""
    targets = batch[1] if isinstance(batch, tuple | list) and len(batch) == 2 else None
    if not (isinstance(targets, Tensor) and targets.is_floating_point() and targets.shape == out.shape):
        return False
    sums = targets.sum(1)
    shares = bool((targets >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-4)
    return not shares


def _token_predictions(batches: Sequence[tuple[Any, Tensor]]) -> Predictions:
    """Predictions for each scored token: the target token against all others together."""
    values, owners, start = [], [], 0
    for batch, out in batches:
        counts = batch["y"].sum(1).to(out.device)
        filled = torch.arange(out.shape[1], device=out.device) < counts[:, None]
        values.append(out[filled])
        owners.append(start + filled.nonzero()[:, 0])
        start += len(out)
    odds, margin = torch.cat(values).unbind(1)
    zero = torch.zeros_like(odds)
    # A margin of exactly zero is not the greedy choice, so the others come first.
    return Predictions(torch.stack([zero, margin], 1), torch.stack([zero, odds], 1), torch.cat(owners), start)


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """Return the Jensen–Shannon divergence of each pair of distributions, base 2, from 0 to 1.

    JS(p, q) = ½ KL(p ‖ m) + ½ KL(q ‖ m) with m = ½(p + q).

    Args:
        first: Logits of p, [R, C].
        second: Logits of q, [R, C].

    Returns:
        The divergences in bits, [R], float64; exactly 0 for equal logits.

    Example:
        >>> jensen_shannon(torch.tensor([[99.0, -99.0]]), torch.tensor([[-99.0, 99.0]])).item()
        1.0
    """
    p, q = first.double().softmax(1), second.double().softmax(1)
    middle = (p + q) / 2
    # p/m is between 0 and 2, so no logarithm is large where p is not small.
    terms = sum(torch.xlogy(each, torch.where(middle > 0, each / middle, 1.0)) for each in (p, q))
    return (torch.as_tensor(terms).sum(1) / (2 * torch.log(torch.tensor(2.0).double()))).clamp(0, 1)


def kullback_leibler(first: Tensor, second: Tensor) -> Tensor:
    """Return the Kullback–Leibler divergence KL(p ‖ q) of each pair of distributions, in nats, without upper bound.

    Args:
        first: Logits of p, [R, C].
        second: Logits of q, [R, C].

    Returns:
        The divergences, [R], float64; exactly 0 for equal logits.

    Example:
        >>> round(kullback_leibler(torch.zeros(1, 2), torch.tensor([[0.0, torch.log(torch.tensor(3.0))]])).item(), 4)
        0.1438
    """
    p, q = first.double().log_softmax(1), second.double().log_softmax(1)
    return (p.exp() * (p - q)).sum(1).clamp_min(0)


# Each with the largest value it can take; ``None`` where there is none.
DIVERGENCES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], float | None]] = {
    "jensen-shannon": (jensen_shannon, 1.0),
    "kullback-leibler": (kullback_leibler, None),
}
