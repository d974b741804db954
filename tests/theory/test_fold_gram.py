"""Unbiased inner products from folds: brute-force definitions, and exact expectations over tiny populations."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics import Status
from diagnostics.theory.fold_gram import FoldGram, FormValue, norm_stderr


def fold_gram(vectors, weights=None):
    """From fold means [F, A, d] and shares [F, A]."""
    vectors = np.asarray(vectors, dtype=float)
    weights = np.full(vectors.shape[:2], 1 / len(vectors)) if weights is None else np.asarray(weights)
    products = np.einsum("fad,gbd->fagb", vectors, vectors)
    means = np.einsum("fa,fad->ad", weights, vectors)
    names = tuple(range(vectors.shape[1]))
    return FoldGram(names, torch.tensor(products), torch.tensor(weights), torch.tensor(means @ means.T))


def u_statistic(vectors, weights, a, b):
    """Mean of ⟨a_f, b_g⟩ over different folds, by loops."""
    pairs = list(itertools.permutations(range(len(vectors)), 2))
    above = sum(weights[f, a] * weights[g, b] * float(vectors[f, a] @ vectors[g, b]) for f, g in pairs)
    return above / sum(weights[f, a] * weights[g, b] for f, g in pairs)


def variance_by_loops(h):
    """[2 (E h₁₂² − θ²) + 4 (F − 2)(E h₁₂h₁₃ − θ²)] / F(F − 1), each mean over all choices of distinct folds."""
    count = len(h)
    same = np.mean([h[i, j] ** 2 for i, j in itertools.permutations(range(count), 2)])
    shared = np.mean([h[i, j] * h[i, k] for i, j, k in itertools.permutations(range(count), 3)])
    apart = np.mean([h[i, j] * h[k, m] for i, j, k, m in itertools.permutations(range(count), 4)])
    return (2 * max(same - apart, 0) + 4 * (count - 2) * max(shared - apart, 0)) / (count * (count - 1))


@st.composite
def samples(draw, least=2):
    """Fold means of two gradients with unequal shares, and a symmetric matrix of coefficients."""
    folds, seed = draw(st.integers(least, 6)), draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(folds, 2, 3)) + draw(st.sampled_from([0, 1, 5]))
    weights = rng.uniform(0.2, 1, size=(folds, 2))
    matrix = rng.normal(size=(2, 2))
    return vectors, weights / weights.sum(0), matrix + matrix.T


@settings(max_examples=40)
@given(sample=samples())
def test_inner_products_are_means_over_different_folds(sample):
    vectors, weights, matrix = sample
    gram = fold_gram(vectors, weights)
    expected = np.array([[u_statistic(vectors, weights, a, b) for b in range(2)] for a in range(2)])
    assert gram.unbiased.numpy() == pytest.approx(expected)
    assert gram.form(torch.tensor(matrix)).value == pytest.approx(float((matrix * expected).sum()))
    row = gram.row({1: -2.0, 0: 1.0})
    assert gram.square(row).value == pytest.approx(expected[0, 0] - 4 * expected[0, 1] + 4 * expected[1, 1])


@settings(max_examples=40)
@given(sample=samples(least=4))
def test_the_standard_error_is_that_of_a_u_statistic(sample):
    vectors, weights, matrix = sample
    scaled = vectors * weights[:, :, None] * len(vectors)
    h = np.einsum("fad,ab,gbd->fg", scaled, matrix, scaled)
    found = fold_gram(vectors, weights).form(torch.tensor(matrix))
    assert found.stderr**2 == pytest.approx(variance_by_loops((h + h.T) / 2), rel=1e-6, abs=1e-12)


@settings(max_examples=40)
@given(sample=samples(least=4))
def test_a_ratio_has_the_error_of_the_difference_at_its_value(sample):
    vectors, weights, matrix = sample
    gram = fold_gram(vectors + 5, weights)  # away from zero: the denominator is positive
    above, below = torch.tensor(matrix), torch.eye(2, dtype=torch.float64)
    value, divisor = gram.ratio(above, below), gram.form(below).value
    assert value.value == pytest.approx(gram.form(above).value / divisor)
    difference = gram.form(above - value.value * below)
    assert difference.value == pytest.approx(0, abs=1e-9 * divisor)
    assert value.stderr == pytest.approx(difference.stderr / divisor)
    same = gram.ratio(3 * below, below)
    assert same.value == pytest.approx(3) and same.stderr == pytest.approx(0, abs=1e-6)


def test_a_ratio_over_nothing_is_undefined():
    gram = fold_gram([[[1.0]], [[-1.0]], [[1.0]], [[-1.0]]])
    assert gram.square(gram.row({0: 1.0})).value < 0
    for below in (torch.ones(1, 1), torch.zeros(1, 1)):
        found = gram.ratio(torch.ones(1, 1), below.double())
        assert math.isnan(found.value) and math.isnan(found.stderr) and found.folds == 4


@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_a_ratio_has_no_unit(unit):
    vectors = np.random.default_rng(0).normal(size=(5, 2, 3)) + 5
    above, below = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).double(), torch.eye(2).double()
    found, expected = (fold_gram(scale * vectors).ratio(above, below) for scale in (unit, 1.0))
    assert (found.value, found.stderr) == pytest.approx((expected.value, expected.stderr)) and found.folds == 5


def test_why_nothing_can_be_divided_by_a_form():
    assert FormValue(1.0, math.nan, 3).doubt("‖g‖", "no angle") == "no standard error with 3 folds: it takes four"
    assert FormValue(1.0, 2.0, 5).doubt("‖g‖", "no angle") == "‖g‖ cannot be told from zero: no angle"


# Populations of joint draws of two gradients in the plane; a data set is one draw a fold.
POPULATION = np.array([[[0.0, 1.0], [2.0, 0.0]], [[3.0, -1.0], [1.0, 1.0]], [[1.0, 2.0], [-1.0, 0.5]]])
SHARES = np.array([[0.4, 0.25], [0.1, 0.25], [0.3, 0.3], [0.2, 0.2]])


def all_data_sets(population, folds):
    return [population[list(draw)] for draw in itertools.product(range(len(population)), repeat=folds)]


@pytest.mark.parametrize("weights", [None, SHARES], ids=["equal folds", "unequal folds"])
def test_products_over_folds_are_unbiased_and_the_plug_in_is_not(weights):
    """Exact expectations over all 81 data sets of four draws; the plug-in is too large by tr(Cov)/n (1.14)."""
    mean = POPULATION.mean(0)
    grams = [fold_gram(each, weights) for each in all_data_sets(POPULATION, 4)]
    assert np.mean([gram.unbiased.numpy() for gram in grams], axis=0) == pytest.approx(mean @ mean.T)
    row = torch.tensor([1.0, -0.5], dtype=torch.float64)
    true = mean[0] - 0.5 * mean[1]
    assert np.mean([gram.square(row).value for gram in grams]) == pytest.approx(true @ true)
    covariance = np.einsum("kad,kbd->ab", POPULATION - mean, POPULATION - mean) / len(POPULATION)
    shares = np.full((4, 2), 0.25) if weights is None else weights
    excess = np.mean([gram.plugin.numpy() for gram in grams], axis=0) - mean @ mean.T
    assert excess == pytest.approx(covariance * (shares.T @ shares)), "tr(Cov)/n for folds of one example"


@pytest.mark.parametrize("folds", [4, 5])
@pytest.mark.parametrize("population", [[0.0, 1.0, 3.0], [1.0, 1.2], [0.0, 0.0, 1.0]], ids=str)
def test_the_variance_is_unbiased(population, folds):
    """Over all data sets. For one gradient ≥ 0 no part of the estimate is ever negative (Muirhead), so none is cut."""
    grams = [fold_gram(each) for each in all_data_sets(np.reshape(population, (-1, 1, 1)), folds)]
    values = [gram.square(gram.row({0: 1.0})) for gram in grams]
    true = np.var([value.value for value in values])
    assert np.mean([value.stderr**2 for value in values]) == pytest.approx(true)
    pairs = folds * (folds - 1) / 2
    naive = [gram.products[:, 0, :, 0][~torch.eye(folds, dtype=torch.bool)].var(correction=0) / pairs for gram in grams]
    assert abs(float(np.mean(naive)) - true) > 0.2 * true, "products of folds are not independent of one another"


def test_the_variance_is_not_too_small_where_the_true_norm_is_zero():
    """Parts below zero are cut, which can only add to it: up to about twice the variance here."""
    grams = [fold_gram(each) for each in all_data_sets(np.array([-1.0, 1.0]).reshape(-1, 1, 1), 8)]
    values = [gram.square(gram.row({0: 1.0})) for gram in grams]
    true = np.var([value.value for value in values])
    assert np.mean([value.value for value in values]) == pytest.approx(0, abs=1e-12)
    assert true == pytest.approx(2 / (8 * 7))
    assert true <= np.mean([value.stderr**2 for value in values]) <= 2.2 * true


@pytest.mark.parametrize("folds", [1, 2, 3])
def test_few_folds_have_no_standard_error(folds):
    gram = fold_gram(np.ones((folds, 1, 2)))
    value = gram.square(gram.row({0: 1.0}))
    assert math.isnan(value.stderr) and math.isnan(value.margin)
    assert value.norm().status is Status.UNDEFINED
    assert math.isnan(value.norm().lower) and math.isnan(value.norm().upper) and value.norm().confidence == 0.9
    assert value.norm().evidence == "" and value.norm("why").evidence == "why"
    assert math.isnan(value.value) == (folds == 1), "a single fold has no unbiased product"


def test_the_norm_has_an_interval_that_reaches_up_further_than_its_square():
    value = FormValue(9.0, 2.0, 5)
    norm = value.norm("why")
    assert value.margin == pytest.approx(2 * 2.131846786)  # Student's t, 4 degrees of freedom, 95 %
    assert (norm.value, norm.lower) == pytest.approx((3, math.sqrt(9 - value.margin)))
    assert norm.upper**2 == pytest.approx(9 * math.exp(value.margin / 9)) and norm.upper**2 > 9 + value.margin
    assert norm.evidence == "why" and norm.confidence == 0.9


def test_the_upper_end_of_a_short_norm_is_logarithmic_too():
    value = FormValue(0.5, 0.05, 8)
    assert value.norm().upper ** 2 == pytest.approx(0.5 * math.exp(value.margin / 0.5))


def test_coefficients_are_kept_in_double_precision():
    row = fold_gram([[[1.0], [2.0]], [[1.0], [2.0]]]).row({1: 0.1})
    assert row.dtype == torch.float64 and row.tolist() == [0.0, 0.1]


@pytest.mark.parametrize("folds", [1, 2])
def test_student_has_at_least_one_degree_of_freedom(folds):
    """With one it is Cauchy's distribution, whose quantiles are tan(π(p − ½))."""
    assert FormValue(0.0, 1.0, folds).margin == pytest.approx(math.tan(math.pi * 0.45))


@pytest.mark.parametrize("square", [-0.5, -2.0])
def test_below_zero_the_upper_end_is_that_of_the_square_itself(square):
    value = FormValue(square, 1.0, 8)
    assert value.norm().value == 0.0 == value.norm().lower
    assert value.norm().upper ** 2 == pytest.approx(max(square + value.margin, 0))


def test_an_undefined_square_has_an_undefined_root():
    assert math.isnan(FormValue(math.nan, math.nan, 8).norm().value)
    assert math.isnan(FormValue(math.nan, 1.0, 8).norm().value)


def test_the_interval_of_a_norm_moves_up_with_its_square_without_a_step():
    margin = FormValue(0.0, 1.0, 5).margin
    squares = np.linspace(-2 * margin, 4 * margin, 2001)
    ends = np.array([[norm.lower**2, norm.upper**2] for norm in (FormValue(x, 1.0, 5).norm() for x in squares)])
    steps = np.diff(ends, axis=0)
    assert steps.min() >= 0 and steps.max() < 3 * (squares[1] - squares[0])
    assert (ends[:, 0] <= np.maximum(squares, 0)).all() and (np.maximum(squares, 0) <= ends[:, 1]).all()
    zero = FormValue(0.0, 1.0, 5).norm()
    assert (zero.value, zero.lower, zero.upper) == pytest.approx((0, 0, math.sqrt(margin)))


@pytest.mark.parametrize("square", [0.0, 4.0, -1e-12])
def test_without_noise_the_interval_is_the_value(square):
    norm = FormValue(square, 0.0, 8).norm()
    assert norm.lower == norm.value == norm.upper == pytest.approx(math.sqrt(max(square, 0)))


@pytest.mark.parametrize("square", [9.0, 1.0, -1.0])
def test_the_standard_error_of_a_norm_spans_its_interval(square):
    norm = FormValue(square, 2.0, 5).norm()
    half = 1.6448536 * norm_stderr(norm)
    assert norm.value - half <= norm.lower + 1e-7 and norm.value + half >= norm.upper - 1e-7
    assert half == pytest.approx(max(norm.value - norm.lower, norm.upper - norm.value))
