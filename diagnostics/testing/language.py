"""Strategies for tiny language models, instructions, data and the audit of a compositional task."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from diagnostics.exact.language import Audit, Distribution, LanguageModel, Tokens
from diagnostics.testing.numbers import arrays, coefficients, numbers

__all__ = ["audits", "distributions", "instructions", "language_models"]

# Shares of sixteen add up to one without rounding.
_DRAWS = 16


@st.composite
def language_models(draw: Any, length: int, *, vocabulary: int = 2, dimension: int = 1) -> LanguageModel:
    """Draw language models over sequences up to a length.

    Args:
        draw: Given by Hypothesis.
        length: Of the longest sequence.
        vocabulary: V.
        dimension: d, of the parameters.

    Returns:
        A model; features are halves from −1 to 1, parameters from −2 to 2.

    Example:
        >>> from hypothesis import find, settings
        >>> model = find(language_models(2), lambda m: m.theta[0] > 0, settings=settings(database=None))
        >>> model.features.shape, model.theta.tolist()
        ((3, 2, 1), [1.0])
    """
    prefixes = sum(vocabulary**each for each in range(length))
    shape = (prefixes, vocabulary, dimension)
    # One draw for all of them: a table of single numbers is slow to draw and to shrink.
    raw = draw(st.binary(min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    table = np.array([(byte + 2) % 5 - 2 for byte in raw], dtype=np.float64).reshape(shape) / 2
    return LanguageModel(table, draw(arrays(dimension, entries=numbers(-2, 2))))


def instructions(*, vocabulary: int = 2, longest: int = 1, shortest: int = 1) -> st.SearchStrategy[Tokens]:
    """Draw instructions.

    Args:
        vocabulary: V.
        longest: Most tokens.
        shortest: Fewest tokens.

    Returns:
        A strategy for tuples of tokens.
    """
    return st.lists(st.integers(0, vocabulary - 1), min_size=shortest, max_size=longest).map(tuple)


@st.composite
def distributions(draw: Any, *, vocabulary: int = 2, sampled: int | None = None) -> Distribution:
    """Draw data over pairs (x, y) of one token each.

    Args:
        draw: Given by Hypothesis.
        vocabulary: V.
        sampled: Number of examples that a sample has; an exact distribution in sixteenths by default.

    Returns:
        A distribution.
    """
    pairs = [((x,), (y,)) for x in range(vocabulary) for y in range(vocabulary)]
    chosen = draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=len(pairs), unique=True))
    if sampled is None:
        return Distribution(tuple(chosen), draw(coefficients(len(chosen), "simplex")))
    seen = draw(st.lists(st.sampled_from(chosen), min_size=sampled, max_size=sampled))
    kept = tuple(dict.fromkeys(seen))
    return Distribution(kept, np.array([seen.count(pair) for pair in kept], dtype=np.float64) / sampled)


@st.composite
def audits(draw: Any, count: int, *, joined: bool = False, vocabulary: int = 2) -> Audit:
    """Draw a compositional task with its components.

    Args:
        draw: Given by Hypothesis.
        count: K.
        joined: Whether I_* is the concatenation of the I_i.
        vocabulary: V.

    Returns:
        The audit.
    """
    single = tuple(draw(instructions(vocabulary=vocabulary)) for _ in range(count))
    whole = tuple(token for instruction in single for token in instruction)
    target = whole if joined else draw(instructions(vocabulary=vocabulary, longest=count))
    model = draw(language_models(count + 2, vocabulary=vocabulary, dimension=draw(st.integers(1, 2))))
    data = draw(distributions(vocabulary=vocabulary))
    components = tuple(draw(distributions(vocabulary=vocabulary)) for _ in range(count))
    return Audit(model, single, target, data, components, draw(coefficients(count)))
