"""A language model small enough to write down all its sequences, with gradients in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Audit", "Distribution", "LanguageModel"]

# Token numbers; BOS stands before every sequence and is not written.
Tokens = tuple[int, ...]


@dataclass(frozen=True)
class LanguageModel:
    r"""An autoregressive model whose next-token logits are linear in its parameters.

    .. math:: p_θ(t | c) = \mathrm{softmax}(F_c θ)_t

    for the prefix c after BOS, which has probability one.

    Attributes:
        features: F, [prefixes, V, d], the prefixes ordered by length and then as numbers to base V.
        theta: θ, [d].

    Example:
        >>> model = LanguageModel(np.array([[[0.0], [1.0]]]), np.array([0.0]))
        >>> float(np.exp(model.log_probability((1,)))), model.gradient((1,)).tolist()
        (0.5, [0.5])
    """

    features: Any
    theta: Any

    @property
    def vocabulary(self) -> int:
        """V."""
        return int(self.features.shape[1])

    def log_probability(self, segment: Tokens, prefix: Tokens = ()) -> Any:
        """Return log p(segment | BOS, prefix)."""
        total = 0.0 * self.theta[0]
        for place, token in enumerate(segment):
            logits = self._features(prefix + segment[:place]) @ self.theta
            total = total + logits[token] - np.log(np.exp(logits).sum())
        return total

    def gradient(self, segment: Tokens, prefix: Tokens = ()) -> Any:
        """Return ∇_θ log p(segment | BOS, prefix), [d]."""
        total = 0.0 * self.theta
        for place, token in enumerate(segment):
            features = self._features(prefix + segment[:place])
            weights = np.exp(features @ self.theta)
            total = total + features[token] - (weights / weights.sum()) @ features
        return total

    def _features(self, prefix: Tokens) -> Any:
        """F_c."""
        size = self.vocabulary
        shorter = sum(size**length for length in range(len(prefix)))
        return self.features[shorter + sum(token * size**place for place, token in enumerate(reversed(prefix)))]


@dataclass(frozen=True)
class Distribution:
    """Data of a task: pairs (x, y) with their probabilities, or their shares in a sample.

    Attributes:
        pairs: Different pairs of token sequences.
        weights: Their probabilities, [n].
    """

    pairs: tuple[tuple[Tokens, Tokens], ...]
    weights: Any

    def mean(self, function: Any) -> Any:
        """Return E f(x, y)."""
        parts = (weight * function(x, y) for weight, (x, y) in zip(self.weights, self.pairs, strict=True))
        return sum(parts, start=0.0)

    def weight(self, pair: tuple[Tokens, Tokens]) -> Any:
        """Return the probability of a pair, 0 where it is not among them."""
        return sum((w for w, each in zip(self.weights, self.pairs, strict=True) if each == pair), start=0.0)


@dataclass(frozen=True)
class Audit:
    """A compositional task under a language model: instructions, data and coefficients.

    Attributes:
        model: The model at θ0.
        instructions: I_1, …, I_K.
        target_instruction: I_*, which need not be their concatenation.
        target: q_*.
        components: q_1, …, q_K.
        alphas: α, [K].
    """

    model: LanguageModel
    instructions: tuple[Tokens, ...]
    target_instruction: Tokens
    target: Distribution
    components: tuple[Distribution, ...]
    alphas: Any

    @property
    def joined(self) -> Tokens:
        """I_1 ⊕ … ⊕ I_K."""
        return tuple(token for instruction in self.instructions for token in instruction)

    def mean_gradient(self, data: Distribution, instruction: Tokens) -> Any:
        """Return G(q, I) = −E_q ∇ log p(y | I, x), [d]."""
        return data.mean(lambda x, y: -self.model.gradient(y, instruction + x))
