"""The search of coefficients against trying all of them, and groups of earlier checkpoints."""

import itertools

import pytest
import torch

import diagnostics as dx
from diagnostics import InputError, cluster_history, search_coefficients
from diagnostics.inputs.zoo import quadratic_task

from .planted import models, planted

BASE = {"w": torch.zeros(3).double()}
VECTORS = {name: {"w": row} for name, row in zip("ab", torch.eye(3).double(), strict=False)}
GRID = (0.0, 0.5, 1.0, 1.5)


def tasks(*minima):
    return {
        f"t{index}": quadratic_task(f"t{index}", torch.eye(3).double(), torch.tensor(minimum).double())
        for index, minimum in enumerate(minima)
    }


def loss(weights, minima):
    point = sum(weights[name] * VECTORS[name]["w"] for name in VECTORS)
    return sum(0.5 * float((point - torch.tensor(m).double()).square().sum()) for m in minima) / len(minima)


def test_one_coefficient_for_all_is_the_best_of_the_grid():
    minima = ([0.6, 0.4, 0.0], [0.7, 0.2, 1.0])
    found = search_coefficients(BASE, VECTORS, tasks(*minima), grid=GRID)
    best = min(GRID, key=lambda value: loss(dict.fromkeys("ab", value), minima))
    assert found.coefficients == dict.fromkeys("ab", best)
    assert found.objective == pytest.approx(-loss(found.coefficients, minima))
    assert found.cost.forwards == len(GRID) * 2 and found.vectors == 2 and len(found.evaluated) == len(GRID)


def test_one_for_each_is_the_best_of_all_pairs_where_tasks_are_separable():
    minima = ([1.4, 0.1, 0.0],)
    found = search_coefficients(BASE, VECTORS, tasks(*minima), grid=GRID, shared=False)
    pairs = [dict(zip("ab", pair, strict=True)) for pair in itertools.product(GRID, GRID)]
    assert found.coefficients == min(pairs, key=lambda weights: loss(weights, minima)) == {"a": 1.5, "b": 0.0}
    assert len(found.evaluated) < len(pairs), "a search one by one need not look at all of them"


def test_scores_count_where_every_task_has_one():
    module = torch.nn.Linear(2, 2, bias=False)
    data = (torch.eye(2), torch.tensor([0, 1]))
    task = dx.Task.from_module("t", module, torch.nn.functional.cross_entropy, data)
    vectors = {"right": {"weight": torch.eye(2)}, "wrong": {"weight": -2 * torch.eye(2)}}
    base = {"weight": torch.zeros(2, 2)}
    found = search_coefficients(base, vectors, {"t": task}, grid=(0.0, 1.0), shared=False)
    assert found.coefficients == {"right": 1.0, "wrong": 0.0} and found.tasks == {"t": 1.0}


@pytest.mark.parametrize(
    ("vectors", "grid", "message"),
    [({}, GRID, "found 0, 1"), (VECTORS, (), "finite"), (VECTORS, (1.0, float("nan")), "finite")],
)
def test_a_search_of_nothing_is_refused(vectors, grid, message):
    with pytest.raises(InputError, match=message):
        search_coefficients(BASE, vectors, tasks([0.0, 0.0, 0.0]), grid=grid)


def test_vectors_and_base_are_left_as_they_were():
    before = {name: vector["w"].clone() for name, vector in VECTORS.items()}
    search_coefficients(BASE, VECTORS, tasks([1.0, 1.0, 1.0]), grid=GRID)
    assert all(torch.equal(VECTORS[name]["w"], value) for name, value in before.items())
    assert not BASE["w"].any()


def test_history_holds_every_moment_against_the_last():
    late = planted((3, 3, 1), 0.5, 0.02, 2000)
    base, last = models(late, 4)
    noise = torch.randn(late.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    early = models(0.3 * late + 0.1 * noise, 4)[1]
    unrelated = models(noise, 4)[1]
    found = cluster_history(base, {"0": unrelated, "100": early, "200": last})
    assert [moment.same for moment in found] == [False, True, True]
    assert found[0].agreement == pytest.approx(0, abs=0.2) and found[1].agreement == found[2].agreement == 1
    assert ("e0", "e1", "e2") in found[2].clusters and "200" in str(found[2])


def test_history_goes_by_names_and_not_by_order():
    base, last = models(planted((2, 2, 1), 0.5, 0.02, 2000), 4)
    shuffled = {name: last[name] for name in ("e3", "e0", "e4", "e1", "e2")}
    assert all(moment.same for moment in cluster_history(base, {"a": shuffled, "b": last}))
    with pytest.raises(InputError, match="same experts at every moment"):
        cluster_history(base, {"a": {name: last[name] for name in ("e0", "e1")}, "b": last})
