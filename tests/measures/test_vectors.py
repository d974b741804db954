"""Parameters as one vector, against the vector itself."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.errors import InputError
from diagnostics.measures.vectors import flatten, inner, norm, shifted, unflatten

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
