"""Sums of means over two samples: standard errors and intervals against whole sampling distributions."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import binom

from diagnostics.verdicts.strata import add_up, mean_of, share_of


def all_samples(counts, rates):
    """Every outcome of two binomial samples with its probability."""
    for hits in itertools.product(*(range(count + 1) for count in counts)):
        chance = math.prod(binom.pmf(k, n, p) for k, n, p in zip(hits, counts, rates, strict=True))
        yield chance, [torch.tensor([1.0] * k + [0.0] * (n - k))[:, None] for k, n in zip(hits, counts, strict=True)]


def test_the_squared_standard_error_is_the_variance_of_the_sampling_distribution():
    """All 6 · 8 outcomes of 5 and 7 examples, enumerated."""
    rates = (0.3, 0.8)
    outcomes = [
        (chance, add_up([share_of(rows, 0.9) for rows in parts])) for chance, parts in all_samples((5, 7), rates)
    ]
    mean = sum(chance * each.values.item() for chance, each in outcomes)
    variance = sum(chance * (each.values.item() - mean) ** 2 for chance, each in outcomes)
    assert mean == pytest.approx(1.1)
    assert sum(chance * each.stderr.item() ** 2 for chance, each in outcomes) == pytest.approx(variance)
    naive = sum(chance * each.stderr.item() for chance, each in outcomes) ** 2
    assert naive != pytest.approx(variance, rel=1e-3), "its root is not unbiased, its square is"


def worst_coverage(counts, interval):
    """Exact: all outcomes at 31 · 31 rates, ends included, and the lowest coverage of the sum among them."""
    rates = [0.0, 0.002, 0.01, *np.linspace(0.03, 0.97, 25), 0.99, 0.998, 1.0]
    parts = [[interval(torch.tensor([1.0] * k + [0.0] * (n - k))[:, None], 0.9) for k in range(n + 1)] for n in counts]
    lower, upper = np.empty((2, counts[0] + 1, counts[1] + 1))
    for i, j in np.ndindex(lower.shape):
        found = add_up([parts[0][i], parts[1][j]])
        lower[i, j], upper[i, j] = found.lower, found.upper
    chances = [[binom.pmf(np.arange(n + 1), n, p) for p in rates] for n in counts]
    return min(
        a @ ((lower <= p + q + 1e-9) & (p + q - 1e-9 <= upper)) @ b
        for (p, a), (q, b) in itertools.product(*(zip(rates, each, strict=True) for each in chances))
    )


def without_room(rows, confidence):
    """The textbook interval of a share: 1.645 standard errors to each side."""
    found = share_of(rows, confidence)
    return dataclasses.replace(
        found, lower=found.values - 1.645 * found.stderr, upper=found.values + 1.645 * found.stderr
    )


@pytest.mark.parametrize("counts", [(1, 1), (3, 5), (10, 10), (30, 8), (50, 50)])
def test_intervals_of_the_hard_form_cover_at_every_pair_of_rates(counts):
    assert worst_coverage(counts, share_of) >= 0.89


def test_intervals_without_room_for_what_was_not_seen_fail_the_same_check():
    assert worst_coverage((30, 8), without_room) < 0.5


def test_intervals_of_the_soft_form_cover():
    """500 samples of 20 + 30 examples, a number fixed beforehand: mostly tiny values, a few near 1."""
    generator = np.random.default_rng(0)
    truth, covered, plain = 2 * 0.05 * 0.75, 0, 0
    for _ in range(500):
        parts = [torch.tensor(generator.beta(3, 1, size=n) * (generator.random(n) < 0.05))[:, None] for n in (20, 30)]
        found = add_up([mean_of(rows, 1.0, 0.9) for rows in parts])
        covered += bool(found.lower <= truth <= found.upper)
        plain += bool(abs(found.values - truth) <= 1.68 * found.stderr)
    assert covered / 500 >= 0.88, covered
    assert plain / 500 < 0.85, "without room for what was not seen the same check fails"
