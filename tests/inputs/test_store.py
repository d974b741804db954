"""Measured tensors on disk: equal content is found again, other content is not, and damage costs time alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diagnostics import InputError
from diagnostics.inputs.store import Store, digest

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, 0.1, "", "1", "a;", "None"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab1"), inner, max_size=2),
    max_leaves=5,
)


@given(plain, plain)
def test_digests_are_equal_where_values_are_written_alike(first, second):
    """repr tells these values apart, 1 from 1.0, True and "1" included; it shares nothing with the digest."""
    assert (digest(first) == digest(second)) == (repr(first) == repr(second))


def test_digests_tell_tensors_apart():
    zeros = torch.zeros(2, 3)
    others = [
        zeros.double(),
        zeros.half(),
        zeros.bfloat16(),
        zeros.T.contiguous(),
        zeros.reshape(6),
        zeros[:1],
        zeros + torch.eye(2, 3) * 1e-45,
        -zeros,
        zeros.int(),
        zeros.bool(),
        torch.zeros(()),
        torch.zeros(0),
        [[0.0] * 3] * 2,
    ]
    assert len({digest(each) for each in [zeros, *others]}) == len(others) + 1
    assert digest(zeros) == digest(torch.zeros(3, 2).T) == digest(np.zeros((2, 3), np.float32))
    assert digest(torch.nn.Parameter(zeros)) == digest(zeros)


def test_arguments_do_not_run_into_each_other():
    assert len({digest("a", "b"), digest("ab"), digest("ab", ""), digest(["a", "b"]), digest("b", "a")}) == 5


def test_a_value_whose_content_cannot_be_told_is_refused():
    with pytest.raises(InputError, match=r"found object\. Leave the cache out"):
        digest({"batch": [object()]})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64])
def test_entries_come_back_as_they_were(tmp_path, dtype):
    tensors = {"0": torch.arange(6).reshape(2, 3).to(dtype), "1": torch.zeros(2, 0).to(dtype)}
    store = Store(tmp_path / "made" / "here")
    store.write("ab" * 32, tensors)
    found = Store(tmp_path / "made" / "here").read("ab" * 32)
    assert sorted(found) == ["0", "1"]
    for name, value in tensors.items():
        assert found[name].dtype == dtype and torch.equal(found[name], value)
    assert store.read("cd" * 32) is None
    assert str(store) == f"cache {tmp_path / 'made' / 'here'}: 0 results found in it, 1 added"


@pytest.mark.parametrize("content", [b"", b"\x08\x00\x00\x00\x00\x00\x00\x00{}", b"x" * 200])
def test_a_damaged_entry_is_as_good_as_none_and_is_written_anew(tmp_path, content):
    store, key = Store(tmp_path), "ab" * 32
    store.write(key, {"0": torch.ones(2)})
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(content)
    assert not store.read(key)
    store.write(key, {"0": torch.ones(2)})
    assert store.read(key)["0"].tolist() == [1, 1]


def test_a_folder_that_is_deleted_meanwhile_is_made_again(tmp_path):
    store = Store(tmp_path / "kept")
    (tmp_path / "kept").rmdir()
    assert store.read("ab" * 32) is None
    store.write("ab" * 32, {"0": torch.ones(2)})
    assert store.read("ab" * 32)["0"].tolist() == [1, 1]


def test_a_place_that_cannot_be_written_to_is_an_error_that_names_it(tmp_path):
    store = Store(tmp_path / "kept")
    (tmp_path / "kept" / "ab").write_text("in the way")
    with pytest.raises(InputError, match=r"kept/ab: expected to write it; found: File exists"):
        store.write("ab" * 32, {"0": torch.ones(2)})


def test_the_home_folder_is_filled_in(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Store("~/kept")
    assert (tmp_path / "kept").is_dir()


def test_an_array_of_objects_has_no_content_to_compare():
    with pytest.raises(InputError, match=r"found ndarray\. Leave the cache out"):
        digest(np.array([object()]))


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cache: expected a folder, .*File exists"):
        Store(tmp_path / "file")
