"""Outputs of a causal language model: two numbers a token, off which its loss and its greedy choice are read."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = ["token_accuracy", "token_losses", "token_outputs"]

# A target without a rival has infinite log-odds, and differences of those are NaN. From far fewer nats on the loss is
# exactly zero, in float64 too.
_CERTAIN = 1e4


def token_outputs(logits: Tensor, ids: Tensor, scored: Tensor) -> Tensor:
    """Return log-odds and margin of each scored token against all other tokens.

    With ℓ the logits and t the target, z = ℓ_t − log Σ_{v≠t} exp ℓ_v, so the token's loss is log(1 + exp(−z)); and
    m = ℓ_t − max_{v≠t} ℓ_v, so the token is the greedy choice exactly if m > 0.

    Args:
        logits: Of the next token, [B, T, V].
        ids: The tokens that follow, [B, T].
        scored: Which of them are scored, [B, T].

    Returns:
        (z, m) of each row's scored tokens in their order, [B, W, 2] with W the most that a row has, zero where a row
        has fewer; float32 for logits in half precision.

    Example:
        >>> z, m = token_outputs(torch.tensor([[[2.0, 0.0, 0.0]]]), torch.tensor([[0]]), torch.tensor([[True]]))[0, 0]
        >>> round(z.item(), 4), m.item()  # 2 − log 2, 2 − 0
        (1.3069, 2.0)
    """
    # By index and not by mask: masks have no rule under vmap. Only scored positions are widened.
    chosen = logits[scored.nonzero(as_tuple=True)]
    target = ids[scored][:, None]
    wide = chosen.to(torch.promote_types(chosen.dtype, torch.float32))
    # Without the target, not minus it: the difference of two sums would lose a confident token's small loss. The
    # lowest number and not −∞, of which alone no derivative would be left.
    others = wide.scatter(1, target, torch.finfo(wide.dtype).min)
    rivals = torch.stack([others.logsumexp(1), others.amax(1)], 1)
    values = (wide.gather(1, target) - rivals).clamp(max=_CERTAIN)
    filled = _filled(scored)
    place = (filled.flatten().cumsum(0) - 1).view_as(filled)
    return torch.where(filled[..., None], values[place], 0.0)


def token_losses(outputs: Tensor, scored: Tensor) -> Tensor:
    """Return each example's loss, Σ log(1 + exp(−z)) over its scored tokens.

    Args:
        outputs: As :func:`token_outputs` returns them.
        scored: Which tokens are scored, [B, T].

    Returns:
        Losses in nats, [B].

    Example:
        >>> token_losses(torch.zeros(1, 1, 2), torch.tensor([[True]])).item()  # even odds: log 2
        0.6931471824645996
    """
    filled = _filled(scored).to(outputs.device)
    return -torch.where(filled, logsigmoid(outputs[..., 0]), 0.0).sum(-1)


def token_accuracy(outputs: Tensor, scored: Tensor) -> Tensor:
    """Return the share of each example's scored tokens that the model would have chosen, given those before them.

    Args:
        outputs: As :func:`token_outputs` returns them.
        scored: Which tokens are scored, [B, T].

    Returns:
        Shares from 0 to 1, [B].

    Example:
        >>> outputs = torch.tensor([[[0.1, 0.5], [-2.0, -1.0]]])
        >>> token_accuracy(outputs, torch.tensor([[True, True]])).tolist()
        [0.5]
    """
    filled = _filled(scored).to(outputs.device)
    return ((outputs[..., 1] > 0) & filled).sum(-1).to(outputs.dtype) / filled.sum(-1)


def _filled(scored: Tensor) -> Tensor:
    """Which of the places [B, W] hold a token: from the batch alone, as outputs may be predicted ones."""
    counts = scored.sum(1)
    return torch.arange(int(counts.max()), device=scored.device) < counts[:, None]
