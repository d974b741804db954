"""Sides of derivations that theory cannot take from the package against the package's functions on drawn cases."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from diagnostics import Task, derivations
from diagnostics.bases.bases import Memory
from diagnostics.bases.build import task_vector_bases
from diagnostics.bases.clustering import cluster_similarities
from diagnostics.bases.merging import merge_vectors
from diagnostics.exact.random_vectors import null_cosine
from diagnostics.exact.rounding import values
from diagnostics.measures.column_angles import (
    Columns,
    angles_inside,
    filled_space,
    least_square,
    null_deviation,
    null_square_deviation,
    unit_columns,
)
from diagnostics.measures.disagreement import jensen_shannon, read_predictions
from diagnostics.measures.feature_use import feature_use
from diagnostics.measures.orthoreg import orthoreg_penalty
from diagnostics.measures.outputs import directional_derivative
from diagnostics.measures.singular_values import singular_values
from diagnostics.theory.coefficient_conditions import coefficient_region
from diagnostics.theory.eigengap import eigengap

FEW = settings(max_examples=50)


def claim(name):
    return derivations.get(name).claim


def cases(name, *sizes):
    return st.one_of(*(claim(name).cases(size) for size in sizes or claim(name).sizes))


def number(side, case):
    return values(side(case))


def tensor(array):
    return torch.tensor(np.asarray(array))


# (2.9)


@pytest.mark.parametrize("dimension", [1, 2, 3, 10])
def test_the_floor_is_the_mean_over_random_vectors(dimension):
    drawn = np.random.default_rng(0).standard_normal((2, 20_000, dimension))
    inner = np.abs((drawn[0] * drawn[1]).sum(1)) / np.linalg.norm(drawn, axis=2).prod(0)
    error = null_deviation(dimension, 20_000)
    assert inner.mean() == pytest.approx(null_cosine(dimension), abs=4 * error + 1e-12)
    assert inner.std() / math.sqrt(20_000) == pytest.approx(error, rel=0.05, abs=1e-9)


def test_pairs_with_a_vector_in_common_are_uncorrelated():
    """In the plane, over all angles that are multiples of 5°, which are as alike from any one of them."""
    turn = np.arange(72) * 2 * np.pi / 72
    size = np.abs(np.cos(turn[:, None] - turn))
    triples = np.einsum("ij,ik->ijk", size, size)
    assert triples.mean() == pytest.approx(size.mean() ** 2, rel=1e-12)


@given(dimension=cases("4.2-chance"))
def test_the_nulls_of_angles_are_those_of_the_derivation(dimension):
    square, spread, square_spread = claim("4.2-chance").right(dimension)
    assert null_deviation(dimension, 1) ** 2 == pytest.approx(spread, abs=1e-12)
    assert null_square_deviation(dimension, 1) ** 2 == pytest.approx(square_spread, abs=1e-12)
    assert square == 1 / dimension


# (2.12)–(2.15)


def test_the_smallest_counterexample_to_the_eigengap_by_hand():
    pairs = torch.block_diag(torch.full((2, 2), 1.0), torch.full((2, 2), 0.25)).double()
    found = eigengap(pairs)
    np.testing.assert_allclose(found.eigenvalues, [0, 0, 0.5, 2], atol=1e-12)
    assert (found.stated, found.relative, found.normalised) == (3, 2, 3)


@FEW
@given(case=cases("2.13", 2, 3))
def test_a_cluster_of_opposite_vectors_is_split_into_its_sides(case):
    signs, (across, inside) = case
    same = np.equal.outer(signs, signs)
    cosine = np.where(np.eye(len(signs)) > 0, 1.0, np.where(same, inside, -across))
    found = cluster_similarities(tensor(cosine), k=1, opposite=-0.01, draws=99)
    sides = {tuple(np.flatnonzero(signs == sign).tolist()) for sign in (1.0, -1.0)}
    assert set(found.groups) == sides


@FEW
@given(case=cases("2.14", 2))
def test_bases_move_the_base_as_the_vectors_of_their_clusters_would(case):
    clusters, weights = case
    for rows, weight in zip(clusters, weights, strict=True):
        merged = merge_vectors({str(i): {"w": tensor(row)} for i, row in enumerate(rows)})["w"]
        np.testing.assert_allclose(weight * merged, sum(weight / len(rows) * row for row in rows), atol=1e-12)


def test_negating_through_a_basis_negates_its_cluster_by_equal_shares():
    experts = {
        "a": torch.tensor([2.0, 0.0, 0.0]),
        "b": torch.tensor([2.0, 1.0, 0.0]),
        "c": torch.tensor([0.0, 0.0, 3.0]),
    }
    bases = task_vector_bases(
        {"w": torch.zeros(3)}, {name: {"w": vector} for name, vector in experts.items()}, k=2, resamples=0
    )
    assert set(bases.clusters) == {("a", "b"), ("c",)}
    expected = -0.5 * (experts["a"] + experts["b"]) / 2
    np.testing.assert_allclose(bases.negate("a", 0.5)["w"], expected, atol=1e-6)


@FEW
@given(masks=cases("2.14-mask"))
def test_mask_sharing_keeps_what_most_masks_have(masks):
    kept = number(claim("2.14-mask").right, masks)
    # The mask of a vector is where it is not zero, as for bases that are stitched again.
    vectors = {str(i): {"w": tensor(row)} for i, row in enumerate(masks)}
    found = merge_vectors(vectors, "mask_sharing", stitched=True)["w"]
    np.testing.assert_allclose(found, kept * masks.mean(0), atol=1e-12)


@given(case=cases("2.15"))
def test_memory_is_that_of_the_derivations(case):
    labels, length = case
    sizes = [labels.count(label) for label in set(labels)]
    memory = Memory(len(labels), len(sizes), 8 * length, max(sizes))
    assert memory.saved == pytest.approx(claim("2.15").right(case))
    assert memory.search_vectors <= claim("2.15-kept").right(sizes) <= len(labels)


def test_the_published_saving():
    assert Memory(70, 3, 1, 24).saved == pytest.approx(0.9571, abs=5e-5)


# (3.1)–(3.4)


def test_a_contradictory_pair_may_be_right_where_no_coefficient_gives_margins_of_one():
    case = (-0.5, 1.0)
    assert coefficient_region(case[0]).multi_task.possible is None
    assert claim("3.1-signs").left(case) == claim("3.1-signs").right(case) == 1


def test_conditions_on_a_target_are_met_and_missed_in_a_good_share_of_the_cases():
    met = []

    @settings(max_examples=300)
    @given(case=cases("3.3-conditions"))
    def collect(case):
        met.append(claim("3.3-conditions").right(case))

    collect()
    assert 0.05 < np.mean(met) < 0.95


@FEW
@given(case=cases("3.4-share"))
def test_the_share_that_a_rank_keeps_is_the_packages(case):
    update, rank = case
    found = singular_values(tensor(update)).kept(rank)
    assert found.value == pytest.approx(number(claim("3.4-share").right, case), abs=1e-9)


def test_rank_one_keeps_half_of_the_identity():
    assert singular_values(torch.eye(2).double()).kept(1).value == pytest.approx(0.5)


# (4.1)–(4.3)


@given(case=cases("4.1-centred"))
def test_a_divergence_is_zero_exactly_where_the_centred_product_is(case):
    logits, move, weight = case
    first, second = tensor(logits)[None], tensor(logits + weight * move)[None]
    centred = np.abs(weight * (move - move.mean())).max()
    # Divergences are quadratic: one below 10⁻⁹ comes from a move below 10⁻³ or from a class with no share.
    far = centred > 1e-3 and np.abs(logits).max() + np.abs(weight * move).max() <= 8
    assert not far or jensen_shannon(first, second) > 1e-14
    assert centred > 0 or jensen_shannon(first, second) < 1e-12


def test_predictions_do_not_see_what_is_added_to_every_logit():
    task = Task("t", lambda params, batch: batch.sum(), [torch.zeros(1)])
    own, merge = torch.zeros(1, 2), torch.ones(1, 2)
    one, other = (read_predictions(task, [logits], "") for logits in (own, merge))
    assert one.differs(other).tolist() == [0.0] and jensen_shannon(own, merge).item() == 0.0


class Rectified(nn.Module):
    """f(x) = Σ_k a_k max(w_kᵀx, 0)."""

    def __init__(self, readout):
        super().__init__()
        self.hidden = nn.Linear(1, len(readout), bias=False)
        self.readout = readout

    def forward(self, x):
        return (torch.relu(self.hidden(x)) * self.readout).sum(1, keepdim=True)


def networks():
    return cases("4.2", 1, 2)


def as_task(network, index):
    """One task of a drawn network, with its weights as the only parameters."""
    model = Rectified(tensor(network.readout))
    model.hidden = nn.Linear(network.columns.shape[1], len(network.columns), bias=False, dtype=torch.float64)
    inputs = tensor(network.inputs[index])
    data = (inputs, torch.zeros(len(inputs), 1, dtype=torch.float64))
    return Task.from_module(str(index), model, nn.functional.mse_loss, data)


@settings(max_examples=25)
@given(network=networks())
def test_slopes_and_products_of_the_drawn_network_are_the_packages(network):
    weights = {"hidden.weight": tensor(network.columns)}
    for index in (0, 1):
        task = as_task(network, index)
        used = feature_use(task, weights).examples["hidden.weight"]
        np.testing.assert_allclose(used, np.abs(network.slopes(index)), atol=1e-12)
        other = network.vector(1 - index)
        moved = directional_derivative(task, weights, {"hidden.weight": tensor(other)})[0]
        np.testing.assert_allclose(moved[:, 0], network.moves(index, other), atol=1e-12)


def test_specialised_networks_are_drawn_with_two_vectors_that_are_not_zero():
    both = []

    @settings(max_examples=300)
    @given(network=networks())
    def collect(network):
        both.append(bool(network.vector(0).any() and network.vector(1).any()))

    collect()
    assert np.mean(both) > 0.2


@given(case=cases("4.2-scale"))
def test_angles_inside_an_update_are_those_of_the_definition(case):
    update = case[0] * case[1]
    unit, known = unit_columns(tensor(update))
    found = angles_inside(Columns(unit, known, torch.arange(update.shape[1])))
    square = number(claim("4.2-scale").right, case)
    assert float(found[2, 0]) == pytest.approx(square, abs=1e-12)
    assert least_square(*update.shape) == pytest.approx(claim("4.2-floor").left(case))
    space = (unit @ unit.T / len(known)).square().sum()
    assert filled_space(square, len(known)) == pytest.approx(float(space), abs=1e-12)


@given(case=cases("4.3-forms"))
def test_both_forms_of_the_penalty_are_the_derivations(case):
    update, rows, columns = tensor(case[0]), *case[0].shape
    paper = float(orthoreg_penalty(update))
    code = float(orthoreg_penalty(update, "code"))
    assert paper == pytest.approx(number(claim("4.3-forms").left, case), abs=1e-9)
    assert code**2 + max(columns - rows, 0) == pytest.approx(number(claim("4.3-forms").right, case), abs=1e-9)


def test_the_penalty_of_a_wide_update_with_orthonormal_rows():
    wide = torch.eye(16, 64)
    assert (float(orthoreg_penalty(wide)), float(orthoreg_penalty(wide, "code"))) == (48.0, 0.0)


@given(update=cases("4.3-growth"))
def test_the_gradient_by_autograd_moves_singular_values_towards_one(update):
    weights = tensor(update).requires_grad_()
    orthoreg_penalty(weights).backward()
    growth = -float((weights.grad * weights.detach()).sum())
    assert growth == pytest.approx(number(claim("4.3-growth").right, update), abs=1e-6, rel=1e-9)
    assert update.any() or not weights.grad.any()


# (5.3)


def test_the_weighted_mean_is_exact_on_the_segment_and_the_plain_one_halfway():
    """λ_i²λ_j by hand: the estimates are 1 and 0, so at (¾, ¼) the weighted mean is ¾, and the mixed part 9/64."""
    square = claim("5.3-simplex").cases(1)

    @FEW
    @given(case=square)
    def check(case):
        one, two = case.estimates
        mixed = case.own * case.partner * (case.own * one + case.partner * two)
        assert mixed == pytest.approx(case.mixed, abs=1e-8)

    check()
    assert 0.75 * 0.25 * 0.75 == 9 / 64
