"""Sketches against their definition: one bucket and one sign for each coordinate, and the moments that follow."""

import math

import pytest
import torch

from diagnostics.measures import sketch as module
from diagnostics.measures.sketch import Sketch
from tests.measures.several import held_by, together


def matrix(sketch, dimension):
    """The linear map as a matrix, [size, dimension]."""
    return torch.stack([sketch(row) for row in torch.eye(dimension, dtype=torch.float64)], dim=1)


def test_every_coordinate_is_in_one_bucket_with_one_sign():
    found = matrix(Sketch(300, 20), 300)
    assert found.shape == (20, 300)
    assert (found != 0).sum(0).tolist() == [1] * 300 and set(found.unique().tolist()) == {-1.0, 0.0, 1.0}
    counts = (found != 0).sum(1)
    assert counts.min() > 0, "15 coordinates a bucket: none is empty"
    signs = found.sum(0)
    assert abs(int(signs.sum())) < 5 * math.sqrt(300), "as many of either sign, by chance"
    # Sign and bucket are independent: both signs are in (nearly) every bucket.
    assert ((found == 1).sum(1) > 0).sum() >= 18 and ((found == -1).sum(1) > 0).sum() >= 18


def test_a_vector_is_sketched_as_the_sum_of_its_coordinates_whatever_the_chunk(monkeypatch):
    vector = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sketch = Sketch(1000, 50, seed=3)
    expected = matrix(sketch, 1000) @ vector
    assert torch.allclose(sketch(vector), expected)
    monkeypatch.setattr(module, "_CHUNK", 7)
    assert torch.allclose(sketch(vector), expected)


def test_inner_products_are_unbiased_with_the_stated_variance():
    generator = torch.Generator().manual_seed(1)
    u, v = torch.randn(2, 60, generator=generator, dtype=torch.float64)
    found = torch.tensor([float(each(u) @ each(v)) for each in (Sketch(60, 12, seed=seed) for seed in range(3000))])
    variance = float((u @ u) * (v @ v) + (u @ v) ** 2) / 12
    assert float(found.mean()) == pytest.approx(float(u @ v), abs=4 * math.sqrt(variance / 3000))
    assert 0.5 * variance < float(found.var()) < 1.1 * variance
    assert Sketch(60, 12).error * float(u.norm() * v.norm()) >= math.sqrt(variance)


def test_a_short_vector_is_kept():
    vector = torch.arange(5.0)
    exact, longer = Sketch(5, 5), Sketch(6, 5)
    assert exact(vector) is vector and (exact.error, exact.exact, exact.size) == (0.0, True, 5)
    assert (longer.exact, longer.size) == (False, 5) and longer.error == pytest.approx(math.sqrt(2 / 5))
    assert Sketch(3, 8).size == 3


def test_the_seed_decides():
    assert torch.equal(matrix(Sketch(40, 5), 40), matrix(Sketch(40, 5, seed=0), 40))
    assert not torch.equal(matrix(Sketch(40, 5, seed=1), 40), matrix(Sketch(40, 5, seed=0), 40))


def test_the_type_of_the_vector_is_kept():
    assert Sketch(40, 5)(torch.ones(40, dtype=torch.float32)).dtype == torch.float32


def test_sketches_of_parts_add_up_to_that_of_the_vector():
    vector = torch.randn(9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    one, other = together(lambda rank, space: Sketch(9, 4, seed=1, space=space)(held_by(vector, rank)))
    assert torch.allclose(one + other, Sketch(9, 4, seed=1)(vector))


def test_of_a_short_vector_the_part_that_is_here_is_kept():
    sketches = together(lambda _, space: Sketch(9, 9, space=space))
    assert [(each.exact, each.size) for each in sketches] == [(True, 5), (True, 4)]


def test_a_sketch_is_where_its_vectors_are_and_takes_five_bytes_a_coordinate():
    sketch = Sketch(300, 20, device="meta")
    assert sketch(torch.ones(300, device="meta")).device.type == "meta"
    held = [value for value in vars(sketch).values() if isinstance(value, torch.Tensor)]
    assert {each.device.type for each in held} == {"meta"} and sum(each.nbytes for each in held) == 5 * 300


def test_a_vector_of_another_length_is_refused(monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 7)
    with pytest.raises(ValueError, match="longer"):
        Sketch(21, 5)(torch.ones(14))
