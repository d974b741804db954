"""Tensors read in parts: every cut gives the values of the whole, nothing is mapped, and broken files are named."""

import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from diagnostics.errors import CheckpointError
from diagnostics.inputs.checkpoints import open_checkpoint
from tests.inputs.test_checkpoints import sharded, write_shards


def in_parts(checkpoint, name, step):
    """A tensor put together from its parts, all read into one buffer."""
    size = torch.Size(checkpoint.shape(name)).numel()
    buffer = torch.empty(8 * step, dtype=torch.uint8)
    with checkpoint.parts(name) as read:
        found = [read(start, min(start + step, size), buffer).clone() for start in range(0, size, step)]
    return torch.cat(found) if found else torch.empty(0, dtype=checkpoint.dtype(name))


@settings(deadline=None, max_examples=40)
@given(case=sharded(), step=st.integers(1, 5))
def test_parts_are_those_of_the_whole_from_files_and_from_memory(tmp_path_factory, case, step):
    tensors, shard_of = case
    files = open_checkpoint(write_shards(tmp_path_factory.mktemp("shards"), tensors, shard_of))
    for checkpoint in (files, open_checkpoint(tensors)):
        for name in checkpoint.names:
            found = in_parts(checkpoint, name, step)
            assert found.dtype == tensors[name].dtype
            torch.testing.assert_close(found, tensors[name].reshape(-1), rtol=0, atol=0)


def test_a_transposed_tensor_in_memory_is_read_in_its_own_order():
    tensor = torch.arange(6.0).view(2, 3).T
    assert in_parts(open_checkpoint({"w": tensor}), "w", 4).tolist() == [0, 3, 1, 4, 2, 5]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.arange(100.0), "z": torch.ones(50)}, path)
    return path


def test_a_file_that_vanishes_after_opening_is_named(file):
    checkpoint = open_checkpoint(file)
    file.unlink()
    with (
        pytest.raises(CheckpointError, match=r"model\.safetensors: expected a complete safetensors file"),
        checkpoint.parts("a"),
    ):
        pass


def test_a_file_that_is_cut_after_opening_is_named_with_its_tensor(file):
    checkpoint = open_checkpoint(file)
    os.truncate(file, file.stat().st_size - 8)
    assert in_parts(checkpoint, "a", 30).tolist() == list(range(100)), "what is whole can still be read"
    with pytest.raises(CheckpointError, match=r"truncated or corrupt \(it ends within z\)"):
        in_parts(checkpoint, "z", 30)


def test_reading_goes_on_where_the_system_returned_less_than_was_asked_for(file, monkeypatch):
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda descriptor, views, place: whole(descriptor, [views[0][:7]], place))
    assert in_parts(open_checkpoint(file), "a", 33).tolist() == list(range(100))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_parts_maps_nothing_and_leaves_no_file_open(file):
    checkpoint = open_checkpoint(file)
    buffer = torch.empty(80, dtype=torch.uint8)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with checkpoint.parts("a") as read:
        read(0, 10, buffer)
        assert str(file) not in Path("/proc/self/maps").read_text()
        assert len(list(Path("/proc/self/fd").iterdir())) == before + 1
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_where_a_system_cannot_read_at_a_place_the_tensor_is_held(file, monkeypatch):
    monkeypatch.delattr(os, "preadv")
    assert in_parts(open_checkpoint(file), "a", 33).tolist() == list(range(100))
