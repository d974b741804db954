"""Strategies for tiny language models, instructions, data and the audit of a compositional task."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any

import numpy as np
from hypothesis import strategies as st

from diagnostics.exact.language import Audit, Distribution, LanguageModel, Tokens
from diagnostics.testing.numbers import arrays, coefficients, numbers

__all__ = ["audits", "distributions", "instructions", "language_models"]


@cache  # building a strategy costs more than drawing from it
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


@cache
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


@cache
@st.composite
def distributions(draw: Any, *, vocabulary: int = 2, longest: int = 1, sampled: int | None = None) -> Distribution:
    """Draw data over pairs (x, y), x of one token.

    Args:
        draw: Given by Hypothesis.
        vocabulary: V.
        longest: Most tokens of y.
        sampled: Number of examples that a sample has; an exact distribution in sixteenths by default.

    Returns:
        A distribution over at most V² different pairs.

    Example:
        >>> from hypothesis import find, settings
        >>> data = find(distributions(longest=2), lambda q: len(q.pairs[0][1]) > 1, settings=settings(database=None))
        >>> data.pairs, data.weights.tolist()
        ((((0,), (0, 0)),), [1.0])
    """
    tokens = range(vocabulary)
    answers = [y for length in range(1, longest + 1) for y in product(tokens, repeat=length)]
    pairs = [((x,), y) for y in answers for x in tokens]
    chosen = draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=vocabulary**2, unique=True))
    if sampled is None:
        return Distribution(tuple(chosen), draw(coefficients(len(chosen), "simplex")))
    seen = draw(st.lists(st.sampled_from(chosen), min_size=sampled, max_size=sampled))
    kept = tuple(dict.fromkeys(seen))
    return Distribution(kept, np.array([seen.count(pair) for pair in kept], dtype=np.float64) / sampled)


@cache
@st.composite
def audits(draw: Any, count: int, *, joined: bool = False, vocabulary: int = 2) -> Audit:
    """Draw a compositional task with its components, instructions and outputs of one token or two.

    Args:
        draw: Given by Hypothesis.
        count: K.
        joined: Whether I_* is the concatenation of the I_i.
        vocabulary: V.

    Returns:
        The audit.
    """
    # The number of prefixes doubles with every token, so more instructions are shorter ones.
    longest = 2 if count < 3 else 1
    single = tuple(draw(instructions(vocabulary=vocabulary, longest=longest)) for _ in range(count))
    whole = tuple(token for instruction in single for token in instruction)
    target = whole if joined else draw(instructions(vocabulary=vocabulary, longest=count))
    data, *components = (draw(distributions(vocabulary=vocabulary, longest=longest)) for _ in range(count + 1))
    answer = max(len(y) for each in (data, *components) for _, y in each.pairs)
    length = max(len(whole), len(target)) + 1 + answer
    model = draw(language_models(length, vocabulary=vocabulary, dimension=draw(st.integers(1, 2))))
    return Audit(model, single, target, data, tuple(components), draw(coefficients(count)))
