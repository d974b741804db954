"""Planted groups are found again, and where there is nothing to find that is said."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics import InputError, Verdict
from diagnostics.bases import clustering as module
from diagnostics.bases.clustering import cluster_similarities, group, separation
from diagnostics.bases.stability import group_agreement

from .planted import cosines, groups_of, planted

DIMENSION = 4000
NOISE = 1 / math.sqrt(DIMENSION)
SIZES = [(2, 1), (2, 2), (3, 1), (5, 2), (3, 1, 1, 1), (4, 4), (2, 2, 1, 1, 1, 1), (3,) + (1,) * 9, (6, 4, 2)]


def find(rows, **settings):
    return cluster_similarities(cosines(rows), noise=NOISE, **{"draws": 99, **settings})


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize(("within", "between"), [(0.25, 0.02), (0.6, 0.1), (0.9, 0.0)])
def test_planted_groups_are_found(sizes, within, between):
    found = find(planted(sizes, within, between, DIMENSION))
    assert set(found.groups) == groups_of(sizes), str(found)
    assert found.verdict is Verdict.SUPPORTED and found.p_value == 0.01


@pytest.mark.parametrize("sizes", [(10,) * 7, (40, 20, 10), (24, 23, 23), (3,) * 5 + (1,) * 55], ids=str)
def test_planted_groups_of_seventy_are_found(sizes):
    found = find(planted(sizes, 0.3, 0.03, DIMENSION), seed=1)
    assert set(found.groups) == groups_of(sizes)


@pytest.mark.parametrize("count", [3, 4, 7, 12, 70])
@pytest.mark.parametrize("level", [0.0, 0.3])
def test_near_uniform_similarities_have_no_groups(count, level):
    found = find(planted((1,) * count, level, level, DIMENSION), draws=99)
    assert found.verdict is not Verdict.SUPPORTED
    assert found.k == count, "nothing is merged on the strength of nothing"
    assert any("near-uniform" in note for note in found.notes)


def test_very_similar_vectors_without_groups_are_said_to_be_alike():
    found = find(planted((1,) * 6, 0.8, 0.8, DIMENSION))
    assert any("k=1" in note for note in found.notes) and found.k == 6


def test_false_groups_are_as_rare_as_stated():
    """40 matrices of five vectors whose similarities differ by a fifth of their mean at random."""
    wrong = 0
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        drawn = (0.2 * (1 + 0.2 * torch.randn(5, 5, generator=generator))).abs().triu(1)
        found = cluster_similarities((drawn + drawn.T).double().fill_diagonal_(1.0), draws=99, seed=seed)
        wrong += found.verdict is Verdict.SUPPORTED
    assert wrong <= 2, f"{wrong} of 40 where about 1 % is allowed"


@pytest.mark.parametrize("sizes", [(4, 3), (2, 2), (6, 1)], ids=str)
def test_opposite_directions_are_split(sizes):
    rows = planted((sum(sizes), 3), 0.5, 0.0, DIMENSION)
    rows[: sizes[0]] *= -1
    found = find(rows, opposite=-0.1)
    assert set(found.groups) == groups_of((*sizes, 3)), "by size one group, by sign two"
    assert [set(members) for members in found.split] == [set(range(sum(sizes)))]
    assert set(found.proposal) == groups_of((sum(sizes), 3))


def test_slightly_negative_cosines_are_not_opposite():
    rows = planted((4, 3), 0.5, 0.0, DIMENSION)
    matrix = cosines(rows)
    matrix[0, 1] = matrix[1, 0] = -0.05
    assert set(cluster_similarities(matrix, noise=NOISE, draws=99).groups) == groups_of((4, 3))


def test_identical_vectors_are_one_group():
    rows = planted((1, 1, 1), 0.0, 0.0, DIMENSION)[[0, 0, 0, 1, 2]]
    assert set(find(rows).groups) == {(0, 1, 2), (3,), (4,)}


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_a_given_number_is_used_and_the_evidence_still_told(k):
    found = find(planted((1,) * 4, 0.3, 0.3, DIMENSION), k=k)
    assert found.k == k and found.given and found.verdict is not Verdict.SUPPORTED
    assert any("that was given" in note for note in found.notes)


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_vectors_are_left_alone(count):
    found = find(planted((1,) * count, 0.3, 0.3, DIMENSION))
    assert found.k == count and found.verdict is Verdict.UNDECIDED and math.isnan(found.p_value)
    assert "fewer than three" in found.notes[0]


@settings(max_examples=5)
@given(seed=st.integers(0, 10_000))
def test_order_and_sign_of_the_vectors_change_nothing(seed):
    rows = planted((4, 2, 1), 0.4, 0.02, DIMENSION, seed)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(7, generator=generator)
    found = find(rows[order], k=3)
    assert {tuple(sorted(int(order[i]) for i in members)) for members in found.groups} == groups_of((4, 2, 1))


def test_an_ambiguous_eigengap_is_said():
    found = find(planted((5, 2), 0.9, 0.0, DIMENSION))
    assert found.eigengap.stated == 3 and set(found.groups) == groups_of((5, 2))
    assert any("ambiguous" in note and "3 groups" in note for note in found.notes)


def brute_force(matrix, groups):
    """Spread of the means of the two kinds of pairs over the mean, pair by pair."""
    label = {index: number for number, members in enumerate(groups) for index in members}
    pairs = [(i, j) for i in range(len(matrix)) for j in range(i)]
    sizes = {pair: abs(float(matrix[pair])) for pair in pairs}
    kinds = {pair: label[pair[0]] == label[pair[1]] for pair in pairs}
    means = {kind: np.mean([sizes[pair] for pair in pairs if kinds[pair] == kind]) for kind in set(kinds.values())}
    return float(np.std([means[kinds[pair]] for pair in pairs]) / np.mean(list(sizes.values())))


def check_separation(measure):
    for seed in range(20):
        rows = planted((3, 2, 1), 0.5, 0.1, 50, seed)
        groups = [(0, 1, 2), (3, 4), (5,)]
        assert measure(cosines(rows), groups) == pytest.approx(brute_force(cosines(rows), groups), rel=1e-9), seed


def test_separation_is_what_it_says():
    check_separation(separation)


def test_another_separation_would_be_noticed():
    with pytest.raises(AssertionError):
        check_separation(lambda matrix, groups: separation(matrix, groups) ** 2)


def test_groups_that_explain_nothing_do_not_separate():
    matrix = torch.full((4, 4), 0.2, dtype=torch.float64).fill_diagonal_(1.0)
    assert separation(matrix, [(0, 1), (2, 3)]) == pytest.approx(0, abs=1e-12)
    assert separation(matrix, [(0, 1, 2, 3)]) == 0
    assert separation(torch.eye(4).double(), [(0, 1), (2, 3)]) == 0


def test_a_null_that_looks_at_one_arrangement_only_would_invent_groups(monkeypatch):
    """The null must choose its groups as the data did: with groups fixed beforehand anything would stand out."""
    rows = planted((1,) * 8, 0.2, 0.2, 150)
    assert find(rows).verdict is not Verdict.SUPPORTED
    fixed = ((0, 1, 2, 3), (4, 5, 6, 7))
    monkeypatch.setattr(module, "_null", lambda *_: torch.tensor([separation(cosines(rows), fixed)] * 99))
    assert find(rows).verdict is Verdict.SUPPORTED


@pytest.mark.parametrize(
    ("matrix", "settings", "message"),
    [
        (torch.eye(3), {"k": 4}, "at most 3"),
        (torch.eye(3), {"k": 0}, "from 1 on"),
        (torch.eye(3), {"opposite": 0.1}, "below 0"),
        (torch.eye(3), {"draws": 5}, "from 99 on"),
        (torch.ones(2, 3), {}, "symmetric"),
        (torch.tensor([[1.0, 0.2], [0.5, 1.0]]), {}, "symmetric"),
        (torch.tensor([[1.0, math.nan], [math.nan, 1.0]]), {}, "2 of them not finite"),
    ],
)
def test_wrong_input_is_refused(matrix, settings, message):
    with pytest.raises(InputError, match=message):
        cluster_similarities(matrix, **settings)


def test_agreement_of_partitions():
    first = ((0, 1, 2), (3, 4))
    assert group_agreement(first, ((3, 4), (0, 1, 2))) == 1
    assert group_agreement(first, ((0, 3), (1, 4), (2,))) < 0.1


def test_groups_come_largest_first():
    assert [len(members) for members in group(cosines(planted((1, 2, 4), 0.5, 0.0, DIMENSION)), 3)] == [4, 2, 1]


@pytest.mark.parametrize("k", [1, 2])
def test_two_vectors_are_grouped_as_they_are_told(k):
    found = find(planted((2,), 0.5, 0.5, DIMENSION), k=k)
    assert found.k == k and found.given and found.verdict is Verdict.UNDECIDED


def test_two_opposite_vectors_in_one_group_are_taken_apart_as_more_are():
    """(2.13) holds for two vectors as for three: their mean would be the zero vector."""
    opposite = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    found = cluster_similarities(opposite, k=1)
    assert found.groups == ((0,), (1,)) and found.split
    assert cluster_similarities(torch.ones(2, 2), k=1).groups == ((0, 1),)
