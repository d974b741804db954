"""Parameters as one vector, against the vector itself."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed as dist

from diagnostics.errors import InputError
from diagnostics.measures.vectors import (
    accumulate,
    flatten,
    inner,
    nearby,
    norm,
    same_values,
    shifted,
    unflatten,
    zero_vector,
)

SHAPES = {"a": (2, 3), "b": (), "c": (4,)}


def drawn(seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


@given(seed=st.integers(0, 1000))
def test_sums_over_tensors_are_those_of_the_whole_vector(seed):
    first, second = drawn(seed), drawn(seed + 1)
    u, v = flatten(first).double(), flatten(second).double()
    assert len(u) == 11 and u[6] == first["b"] and u[7:].tolist() == first["c"].tolist()
    assert inner(first, second) == pytest.approx(float(u @ v), rel=1e-12)
    assert norm(first) == pytest.approx(float(u.norm()), rel=1e-12)
    moved = shifted(first, -0.5, second)
    assert torch.allclose(flatten(moved), flatten(first) - 0.5 * flatten(second)) and list(moved) == list(first)
    back = unflatten(flatten(first), first)
    assert all(torch.equal(back[name], first[name]) for name in SHAPES) and list(back) == list(SHAPES)


def test_squares_beyond_single_precision_do_not_overflow():
    assert norm({"a": torch.full((4,), 1e30)}) == pytest.approx(2e30)
    assert inner({"a": torch.tensor([1e8, 1.0])}, {"a": torch.tensor([1.0, 1.0])}) == 1e8 + 1


def test_sums_over_tensors_do_not_round():
    parts = {name: torch.tensor([value]) for name, value in {"a": 1e8, "b": 1.0, "c": -1e8}.items()}
    assert inner(parts, {name: torch.tensor([1e8 if name != "b" else 1e-3]) for name in parts}) == pytest.approx(1e-3)


def test_vectors_of_other_tensors_or_shapes_are_refused():
    one, two = {"a": torch.zeros(1), "b": torch.zeros(1)}, {"a": torch.zeros(1), "c": torch.zeros(1)}
    with pytest.raises(InputError) as caught:
        inner(one, two)
    assert str(caught.value) == "vectors differ in their tensors: ['b', 'c'] are in only one of them"
    with pytest.raises(InputError) as caught:
        inner(one, {"a": torch.zeros(2), "b": torch.zeros(1)})
    assert str(caught.value) == "vectors differ in the shapes of ['a']"
    with pytest.raises(InputError):
        inner({"a": torch.zeros(2, 3)}, {"a": torch.zeros(3, 2)})
    assert not math.isnan(inner(one, one))


def test_values_are_the_same_or_not_in_whatever_types_and_order():
    third, square = torch.full((2,), 1 / 3), torch.arange(4.0).view(2, 2)
    assert same_values(third.bfloat16().double(), third.bfloat16()) and not same_values(third.bfloat16(), third)
    assert not same_values(square, square.T) and not same_values(square, square.view(torch.int32)), "one memory"
    assert same_values(square.T, square.T.contiguous()) and not same_values(square, square + 1)


def test_memory_has_the_values_it_has_even_where_they_are_not_numbers():
    empty = torch.full((2, 2), math.nan)
    assert same_values(empty, empty.view(2, 2)) and not same_values(empty, empty.clone())


@pytest.mark.parametrize("shapes", [SHAPES, {"a": ()}], ids=["many numbers", "one number"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_a_point_is_moved_in_proportion_to_its_root_mean_square(shapes, scale):
    point = {name: scale * torch.ones(shape, dtype=torch.float64) for name, shape in shapes.items()}
    at_zero, moved = nearby({name: torch.zeros_like(value) for name, value in point.items()}), nearby(point)
    for name, value in point.items():
        np.testing.assert_allclose(moved[name] - value, scale * at_zero[name], rtol=1e-6)


def test_a_move_is_one_percent_at_random_and_always_the_same():
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        point = {"w": torch.zeros(10_000, dtype=dtype)}
        move = nearby(point)["w"]
        assert move.dtype == dtype and torch.equal(move, nearby(point)["w"])
        assert float(move.double().square().mean().sqrt()) == pytest.approx(0.01, rel=0.03)
        assert float(move.double().mean()) == pytest.approx(0, abs=5e-4)


def test_the_move_is_that_of_earlier_releases_whose_caches_are_told_apart_by_it():
    assert nearby({"w": torch.zeros(3)})["w"].tolist() == pytest.approx([0.015410, -0.002934, -0.021788], abs=1e-6)


def test_a_zero_vector_lies_where_the_parameters_do():
    assert zero_vector({"w": torch.empty(2, 2, device="meta")}).device.type == "meta"


@pytest.mark.parametrize("count", [1, 3])
def test_too_few_parts_or_too_many_are_not_added(count):
    like = {"a": torch.ones(2), "b": torch.ones(2)}
    with pytest.raises(ValueError, match="argument 2 is"):
        accumulate(zero_vector(like), 1.0, [torch.ones(2)] * count, like)


@pytest.fixture
def mesh():
    """The processes that share a model, of which this is the only one."""
    from torch.distributed.device_mesh import init_device_mesh

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_a_vector_of_parameters_held_in_parts_is_cut_into_such_parts(mesh):
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    whole = {"a": torch.arange(6.0).view(3, 2), "b": torch.arange(6.0, 10.0)}
    held = {name: distribute_tensor(value, mesh, [Shard(0)]) for name, value in whole.items()}
    back = unflatten(flatten(held), held)
    assert all(isinstance(back[name], DTensor) and back[name].placements == held[name].placements for name in whole)
    assert all(torch.equal(back[name].full_tensor(), whole[name]) for name in whole)
    assert inner(held, back) == inner(whole, whole)
