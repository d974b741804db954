"""Sign conflicts against counting coordinate by coordinate, and the values that chance gives."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diagnostics import geometry
from diagnostics.measures.signs import count_signs

VALUES = st.sampled_from([-2.0, -5e-324, -0.0, 0.0, 1e-300, 3.0, math.nan])


@st.composite
def task_vectors(draw):
    """Few task vectors over up to 150 coordinates: more than two words of bits; some without any zero."""
    count, width = draw(st.integers(1, 5)), draw(st.integers(1, 150))
    seed, share = draw(st.integers(0, 1000)), draw(st.sampled_from([0.0, 0.4]))
    rng = np.random.default_rng(seed)
    moves = rng.normal(size=(count, width)) * (rng.random((count, width)) >= share)
    for place in draw(st.lists(st.integers(0, width - 1), max_size=3)):
        moves[draw(st.integers(0, count - 1)), place] = draw(VALUES)
    return moves


def by_hand(moves):
    """Counts by loops over pairs and coordinates."""
    signs = [[(value > 0) - (value < 0) for value in row] for row in moves.tolist()]
    pairs = [[list(zip(first, second, strict=True)) for second in signs] for first in signs]
    both = [[sum(a != 0 and b != 0 for a, b in pair) for pair in row] for row in pairs]
    opposite = [[sum(a * b < 0 for a, b in pair) for pair in row] for row in pairs]
    columns = list(zip(*signs, strict=True))
    several = sum(sum(map(abs, column)) >= 2 for column in columns)
    return both, opposite, several, sum(1 in column and -1 in column for column in columns)


@given(task_vectors())
def test_counts_are_those_by_hand(moves):
    found = count_signs(moves)
    assert (found.both.tolist(), found.opposite.tolist(), found.several, found.contested) == by_hand(moves)


@given(task_vectors(), st.integers(0, 150))
def test_counts_of_parts_add_up(moves, cut):
    found = count_signs(moves[:, :cut]) + count_signs(moves[:, cut:])
    assert (found.both.tolist(), found.opposite.tolist(), found.several, found.contested) == by_hand(moves)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_pair_is_counted_once_and_half_as_much_where_all_move(monkeypatch, count):
    """Words of 64 coordinates whose bits are counted, 4 a task vector or pair."""
    moves, counted, seen = np.ones((count, 256)), np.bitwise_count, []
    monkeypatch.setattr(np, "bitwise_count", lambda words: (seen.append(words.size), counted(words))[1])
    pairs = count * (count - 1) // 2
    count_signs(moves)
    assert sum(seen) == 4 * (count + pairs + 1), "each vector, the directions of each pair, and the contested"
    seen.clear()
    moves[0, 0] = 0
    count_signs(moves)
    assert sum(seen) == 4 * (count + 2 * pairs + 2), "also where both of a pair move, and where several do"


@given(st.integers(0, 100))
def test_opposite_vectors_conflict_everywhere_and_shared_ones_nowhere(seed):
    move = np.random.default_rng(seed).normal(size=70)
    found = count_signs(np.stack([move, -move, 2 * move]))
    assert found.conflict.tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]] and found.contest == 1


def test_shares_are_undefined_where_nothing_moves():
    found = count_signs(np.array([[1.0, 0.0], [0.0, -1.0]]))
    assert math.isnan(found.conflict[0, 1]) and math.isnan(found.contest) and found.conflict[0, 0] == 0
    assert math.isnan(count_signs(np.zeros((1, 3))).conflict.item())


@pytest.mark.parametrize("rho", [-0.9, 0.0, 0.5])
def test_gaussian_coordinates_conflict_by_the_angle(rho):
    """arccos(ρ)/π, within four standard errors of a share of 200,000 coordinates."""
    rng = np.random.default_rng(1)
    first, other = rng.normal(size=(2, 200_000))
    found = count_signs(np.stack([first, rho * first + math.sqrt(1 - rho**2) * other])).conflict[0, 1]
    expected = math.acos(rho) / math.pi
    assert abs(found - expected) <= 4 * math.sqrt(expected * (1 - expected) / 200_000)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_independent_signs_are_contested_as_often_as_told(count):
    """1 − 2^(1−T), within four standard errors of a share of 100,000 coordinates."""
    found = count_signs(np.random.default_rng(2).normal(size=(count, 100_000))).contest
    expected = 1 - 2.0 ** (1 - count)
    assert abs(found - expected) <= 4 * math.sqrt(expected * (1 - expected) / 100_000)


def test_a_geometry_tells_conflicts_per_tensor_in_total_and_in_json():
    base = {"v": torch.zeros(4), "w": torch.zeros(2)}
    experts = {
        "a": {"v": torch.tensor([1.0, 1.0, -1.0, 0.0]), "w": torch.tensor([1.0, 1.0])},
        "b": {"v": torch.tensor([-1.0, 1.0, 1.0, 1.0]), "w": torch.tensor([2.0, 3.0])},
    }
    found = geometry(base, experts, target={"v": -torch.ones(4), "w": -torch.ones(2)})
    assert found.sign_conflict.tolist() == [[0, 2 / 5], [2 / 5, 0]], "the target is no expert"
    assert found.sign_contest == 2 / 5
    assert found.layers["v"].sign_conflict[0, 1] == 2 / 3 and found.layers["w"].sign_conflict[0, 1] == 0
    stored = found.to_dict()
    assert "signs" not in stored and stored["sign_conflict"] == [[0, 2 / 5], [2 / 5, 0]]
    assert stored["layers"]["v"]["sign_contest"] == 2 / 3


def test_a_geometry_without_counts_says_so():
    found = geometry({"w": torch.zeros(2)}, {"a": {"w": torch.ones(2)}})
    bare = type(found)(found.names, found.gram, 2, 0.0)
    assert bare.sign_conflict is None and bare.sign_contest is None and bare.to_dict()["sign_conflict"] is None
    assert found.sign_conflict.tolist() == [[0.0]] and math.isnan(found.sign_contest)


def test_every_pattern_of_three_signs():
    moves = np.array(list(product([-1.0, 0.0, 1.0], repeat=3))).T
    found = count_signs(moves)
    assert (found.several, found.contested) == (20, 12) and found.both.diagonal().tolist() == [18, 18, 18]
    assert found.opposite[0, 1] == 6 and found.both[0, 1] == 12
