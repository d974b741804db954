"""Angles between columns: sums and chance against definitions, edges, averages; more in test_orthogonality.py."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.exact.random_vectors import null_cosine
from diagnostics.measures import column_angles as module
from diagnostics.measures.column_angles import (
    Angles,
    Columns,
    angles_between,
    angles_inside,
    average_angles,
    filled_space,
    least_square,
    null_deviation,
    null_square_deviation,
    pair_sums,
    rotation_deviation,
    unit_columns,
)


def drawn(seed, rows, columns, count=1):
    return torch.randn(count, rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def angles(value, null, deviation, stderr):
    return Angles(*(torch.tensor([[each]], dtype=torch.float64) for each in (value, null, deviation, stderr)))


def test_deviations_take_the_error_of_drawing_in():
    found = angles(0.9, 0.2, 0.3, 0.4)
    assert float(found.deviations) == pytest.approx(0.7 / 0.5) and float(found.ratio) == pytest.approx(4.5)
    stored = found.to_dict()
    assert stored["value"] == [[0.9]] and stored["ratio"] == [[pytest.approx(4.5)]]
    assert stored["deviations"] == [[pytest.approx(1.4)]]


def test_averages_are_weighted_means_of_what_is_defined():
    parts = [angles(0.5, 0.2, 0.3, 0.6), angles(0.1, 0.4, 0.4, 0.8), angles(math.nan, math.nan, math.nan, math.nan)]
    mean = average_angles(parts, torch.tensor([3.0, 1.0, 9.0]).double().view(3, 1, 1))
    assert float(mean.value) == pytest.approx(0.4) and float(mean.null) == pytest.approx(0.25)
    assert float(mean.deviation) == pytest.approx(math.hypot(0.75 * 0.3, 0.25 * 0.4)), "independent: squares add up"
    assert float(mean.stderr) == pytest.approx(math.hypot(0.75 * 0.6, 0.25 * 0.8))
    small = average_angles(parts[:2], torch.tensor([0.03, 0.01]).double().view(2, 1, 1))
    assert float(small.value) == pytest.approx(0.4), "weights have no unit"
    none = average_angles(parts[:2], torch.zeros(2, 1, 1).double())
    # Nothing has a share, so nothing is averaged.
    assert all(bool(torch.isnan(each).all()) or float(each) == 0 for each in (none.value, none.null))
    unweighted = average_angles([parts[0], angles(0.7, math.inf, 0.1, 0.0)], torch.tensor([1.0, 0.0]).view(2, 1, 1))
    assert float(unweighted.value) == pytest.approx(0.5) and float(unweighted.null) == pytest.approx(0.2)


@pytest.mark.parametrize(("dimension", "pairs"), [(2, 1), (3, 4), (7, 2)])
def test_chance_has_the_moments_of_a_cosine_of_random_directions(dimension, pairs):
    """By numerical integration: cos has a density proportional to (1 - c²)^((r - 3)/2)."""
    angle = (np.arange(200_000) + 0.5) * math.pi / 200_000
    weight = np.sin(angle) ** (dimension - 2)
    weight = weight / weight.sum()
    cosine = np.abs(np.cos(angle))
    mean, square, fourth = (float(weight @ cosine**power) for power in (1, 2, 4))
    assert null_deviation(dimension, pairs) == pytest.approx(math.sqrt((square - mean**2) / pairs), rel=1e-6)
    assert null_square_deviation(dimension, pairs) == pytest.approx(math.sqrt((fourth - square**2) / pairs), rel=1e-6)


def test_without_pairs_there_is_no_chance():
    for function in (null_deviation, null_square_deviation):
        assert math.isnan(function(3, 0)) and math.isfinite(function(3, 1)) and function(1, 1) == 0.0


@pytest.mark.parametrize("dimension", [2, 3])
def test_a_rotation_has_the_deviation_of_simulated_ones(dimension):
    rng = np.random.default_rng(0)
    first, second = (np.diag(each / each.sum()) for each in rng.uniform(0.1, 1, size=(2, dimension)))
    values = []
    for _ in range(4000):
        q, r = np.linalg.qr(rng.normal(size=(dimension, dimension)))
        q = q * np.sign(np.diag(r))
        values.append((first * (q @ second @ q.T)).sum())
    told = rotation_deviation(dimension, float((first**2).sum()), float((second**2).sum()))
    assert np.std(values) == pytest.approx(told, rel=0.05) and np.mean(values) == pytest.approx(1 / dimension, rel=0.02)


def test_a_rotation_of_nothing_that_differs_changes_nothing():
    assert rotation_deviation(1, 1.0, 1.0) == 0.0
    assert rotation_deviation(4, 0.2, 1.0) == 0.0, "below its least value by the noise of a sample"
    assert math.isnan(rotation_deviation(4, math.nan, 1.0)) and math.isnan(rotation_deviation(4, 1.0, math.nan))


@pytest.mark.parametrize("unit", [1e-170, 1e-3, 1e170])
def test_columns_have_length_one_however_short_or_long(unit):
    matrix = drawn(0, 4, 3)[0]
    matrix[:, 1] = 0
    found, known = unit_columns(unit * matrix)
    assert known.tolist() == [True, False, True] and not found[:, 1].any()
    assert found[:, known].norm(dim=0).tolist() == pytest.approx([1.0, 1.0])
    assert torch.allclose(found[:, 0], matrix[:, 0] / matrix[:, 0].norm())


@pytest.mark.parametrize("chunk", [1024, 2, 3])
@given(seed=st.integers(0, 100), count=st.integers(1, 7))
def test_sums_over_pairs_are_sums_over_pairs(chunk, seed, count):
    first, second = (unit_columns(each)[0] for each in drawn(seed, 3, count, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", chunk)
        sizes, squares = pair_sums(first, second)
    cosine = (first.T @ second).numpy()
    np.fill_diagonal(cosine, 0)
    assert sizes.numpy() == pytest.approx(np.abs(cosine).sum(0) + np.abs(cosine).sum(1))
    assert squares.numpy() == pytest.approx((cosine**2).sum(0) + (cosine**2).sum(1))


def columns(matrix, chosen=None):
    unit, known = unit_columns(matrix)
    return Columns(unit, known, torch.arange(matrix.shape[1]) if chosen is None else torch.tensor(chosen))


def spread(per_column, left_out):
    """Twice the standard error of a mean over columns, less what is known of the population."""
    return 2 * math.sqrt(np.var(per_column, ddof=1) / len(per_column) * left_out)


@pytest.mark.parametrize("chosen", [None, [0, 2, 3, 4, 6]])
def test_angles_inside_are_means_over_pairs_with_a_direction(chosen):
    matrix = drawn(3, 4, 8)[0]
    matrix[:, 2] = 0
    found = angles_inside(columns(matrix, chosen))
    used = [k for k in (chosen or range(8)) if k != 2]
    unit = (matrix / matrix.norm(dim=0)).numpy()
    cosine = np.abs(unit.T @ unit)
    pairs = [(k, m) for k in used for m in used if k < m]
    for row, power, null, deviation in (
        (0, 1, null_cosine(4), null_deviation(4, len(pairs))),
        (2, 2, 1 / 4, null_square_deviation(4, len(pairs))),
    ):
        values = [cosine[pair] ** power for pair in pairs]
        assert found[row, :3].tolist() == pytest.approx([np.mean(values), null, deviation])
        means = [np.mean([cosine[k, m] ** power for m in used if m != k]) for k in used]
        expected = spread(means, 3 / 8) if chosen else 0.0
        assert float(found[row, 3]) == pytest.approx(expected)
    assert found[1].isnan().all()


@pytest.mark.parametrize("chosen", [None, [0, 1, 2, 4, 5, 7]])
def test_angles_between_are_means_over_matched_and_other_columns(chosen):
    first, second = drawn(4, 5, 8, 2)
    first[:, 1], second[:, 2], first[:, 6], second[:, 6] = 0, 0, 0, 0
    found = angles_between(columns(first, chosen), columns(second, chosen))
    one, two = ((each / each.norm(dim=0)).numpy() for each in (first, second))
    cosine = np.abs(one.T @ two)
    used = chosen or list(range(8))
    known = [[k for k in used if float(each[:, k].norm()) > 0] for each in (first, second)]
    different = [cosine[k, m] for k in known[0] for m in known[1] if k != m]
    matched = [cosine[k, k] for k in range(8) if k not in (1, 2, 6)]
    every = [cosine[k, m] ** 2 for k in known[0] for m in known[1]]
    mean = null_cosine(5)
    assert found[0, :3].tolist() == pytest.approx([np.mean(different), mean, null_deviation(5, len(different))])
    assert found[1].tolist() == pytest.approx([np.mean(matched), mean, null_deviation(5, 5), 0.0])
    assert found[2, :2].tolist() == pytest.approx([np.mean(every), 1 / 5]) and bool(found[2, 2].isnan())
    assert found.dtype == torch.float64
    either = sorted({*known[0], *known[1]})
    for row, power in ((0, 1), (2, 2)):
        table = np.nan_to_num(cosine) ** power
        means = [sum(table[k, m] + table[m, k] for m in used if m != k) / 2 / (len(either) - 1) for k in either]
        assert float(found[row, 3]) == pytest.approx(spread(means, 2 / 8) if chosen else 0.0)


@pytest.mark.parametrize("factor", [3.0, -0.7])
def test_parallel_columns_have_a_cosine_of_one_and_no_more(factor):
    for seed in range(60):
        one = drawn(seed, 5, 1)[0]
        pair = torch.cat([one, factor * one], dim=1)
        inside, between = angles_inside(columns(pair)), angles_between(columns(pair), columns(factor * pair))
        values = torch.stack([inside[0, 0], inside[2, 0], between[0, 0], between[1, 0], between[2, 0]])
        assert values.max() <= 1 and torch.allclose(values, torch.ones(5).double())


def test_the_error_of_drawing_needs_three_columns():
    sums = torch.tensor([1.0, 2.0, 6.0]).double()
    assert module._drawing_error(sums, 0.25) == pytest.approx(spread([0.5, 1.0, 3.0], 0.25))
    assert module._drawing_error(sums, 0.0) == 0.0 and module._drawing_error(sums[:2], 0.0) == 0.0
    assert math.isnan(module._drawing_error(sums[:2], 0.25))
    assert columns(drawn(0, 2, 8)[0], [1, 2]).left_out == 0.75 and columns(drawn(0, 2, 8)[0]).left_out == 0.0


@given(seed=st.integers(0, 100), dimension=st.integers(1, 5), count=st.integers(1, 8))
def test_filled_space_is_the_square_of_the_mean_projector(seed, dimension, count):
    unit = unit_columns(drawn(seed, dimension, count)[0])[0]
    projector = (unit @ unit.T / count).numpy()
    cosine = (unit.T @ unit).numpy()
    pairs = [cosine[k, m] ** 2 for k in range(count) for m in range(count) if k != m]
    square = float(np.mean(pairs)) if pairs else math.nan
    assert filled_space(square, count) == pytest.approx(float((projector**2).sum()))
    assert not pairs or square >= least_square(dimension, count) - 1e-12


def test_without_columns_nothing_is_filled_and_without_pairs_there_is_no_least():
    assert math.isnan(filled_space(0.5, 0)) and filled_space(math.nan, 1) == 1.0
    assert math.isnan(least_square(3, 1)) and math.isnan(least_square(3, 0)) and least_square(3, 2) == 0.0
    # Three directions at 120 degrees in the plane reach it.
    assert least_square(2, 3) == pytest.approx(math.cos(2 * math.pi / 3) ** 2)
