"""The space of vectors that several processes hold in parts, against vectors that are whole."""

from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from diagnostics.inputs.parts import rows_of, span
from diagnostics.measures import space as module
from diagnostics.measures.space import Space
from diagnostics.measures.vectors import same_values
from tests.measures.several import GROUP, held_by, together


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def mesh():
    """Three processes of which this is the second, and the others say nothing."""
    dist.init_process_group("fake", store=FakeStore(), rank=1, world_size=3)
    yield init_device_mesh("cpu", (3,))
    dist.destroy_process_group()


def test_whole_parameters_span_one_piece():
    assert Space.of({"a": torch.ones(2, 3), "b": torch.ones(4)}) == Space(10, None, ((0, 10),))


def test_parameters_in_parts_say_where_their_numbers_are(mesh):
    """The processes hold 3, 3 and 1 of seven rows, and 2, 2 and none of four numbers."""
    whole = {"a": torch.arange(21.0).reshape(7, 3), "b": torch.arange(21.0, 25.0), "c": torch.arange(25.0, 28.0)}
    rows = {name: value[slice(*span(len(value), mesh))] for name, value in whole.items()}
    space = Space.of({name: rows_of(value, whole[name].shape, mesh) for name, value in rows.items()})
    assert space == Space(28, mesh.get_group(), ((9, 18), (23, 25), (26, 27)))
    every = torch.cat([value.flatten() for value in whole.values()])
    for (start, stop), value in zip(space.parts, rows.values(), strict=True):
        assert every[start:stop].tolist() == value.flatten().tolist()


def test_parameters_in_parts_are_compared_by_their_values(mesh):
    """Their address is 0, for all of them."""
    one, same, other = (rows_of(torch.full((3, 2), value), (7, 2), mesh) for value in (1.0, 1.0, 2.0))
    assert one.data_ptr() == other.data_ptr() == 0
    assert same_values(one, same) and not same_values(one, other)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), kind=st.sampled_from([torch.float64, torch.float32]))
def test_products_and_lengths_are_those_of_the_whole_vectors(seed, kind):
    first, second = torch.randn(2, 9, generator=generator(seed), dtype=torch.float64).to(kind)
    truth = (float(first.double() @ second.double()), float(first.double().norm()))

    def measured(rank, space):
        return space.dot(held_by(first, rank), held_by(second, rank)), space.norm(held_by(first, rank))

    found = together(measured)
    assert found[0] == found[1] == pytest.approx(truth, rel=1e-5 if kind == torch.float32 else 1e-12, abs=1e-6)
    alone = Space(9, parts=((0, 9),))
    assert (alone.dot(first, second), alone.norm(first)) == pytest.approx(truth, rel=1e-5, abs=1e-6)


def test_sums_over_parts_are_written_where_these_were():
    def measured(rank, space):
        sums = torch.tensor([1.0, 10.0]) * (rank + 1)
        return space.total(sums) is sums, sums.tolist()

    assert together(measured) == [(True, [3.0, 30.0])] * 2
    alone = torch.ones(2)
    assert Space(2).total(alone) is alone and alone.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("values", [(0.1, -0.7), (-0.1, 1 / 3), (True, False), (False, False)])
def test_every_process_knows_the_largest_number(values):
    found = together(lambda rank, space: space.most(values[rank], torch.device("cpu")))
    assert found == [max(values)] * 2
    assert Space(9).most(values[0], torch.device("cpu")) == values[0]


@settings(max_examples=60)
@given(dimension=st.integers(0, 100), cuts=st.sets(st.integers(0, 100), max_size=6))
@example(dimension=32, cuts={8, 16, 20})
@example(dimension=0, cuts=set())
def test_numbers_drawn_in_blocks_are_those_of_one_draw(dimension, cuts):
    """PyTorch's generator of normal numbers works in rounds of 16, and on fewer than 16 in another way."""
    whole, drawn, lengths = torch.randn(dimension, generator=generator(1)), generator(1), []
    ends = [0, *sorted(cut for cut in cuts if cut < dimension), dimension]
    parts = list(pairwise(ends))

    def draw(count):
        lengths.append(count)
        return torch.randn(count, generator=drawn)

    for mine in (parts[::2], parts[1::2]):
        drawn.manual_seed(1)
        lengths.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_BLOCK", 16)
            found = Space(dimension, GROUP, tuple(mine)).drawn(draw)
        assert found.tolist() == [value for start, stop in mine for value in whole[start:stop].tolist()]
        assert sum(lengths) == dimension and max(lengths, default=0) < 32, "no more than two blocks are there at a time"


def test_numbers_drawn_keep_their_type():
    assert Space(3, parts=((1, 3),)).drawn(lambda count: torch.ones(count, dtype=torch.int32)).dtype == torch.int32
