"""Files are written whole or not at all, and JSON is strict."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.errors import InputError
from diagnostics.report.files import write_atomic
from diagnostics.report.json import SCHEMA, write_json
from diagnostics.results import plain

from . import samples

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
NAMES = st.text().filter(lambda name: name not in {"schema", "versions"})


def files(folder):
    return [path.name for path in folder.iterdir()]


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def broken(*args, **kwargs):
    raise OSError(28, "No space left on device")


def test_text_is_replaced(tmp_path):
    path = tmp_path / "page.html"
    write_atomic(path, "old")
    write_atomic(path, "new 要約\n")
    assert path.read_bytes().decode() == "new 要約\n"
    assert files(tmp_path) == ["page.html"]


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "page.html"
    path.write_text("old")
    monkeypatch.setattr(step, broken)
    with pytest.raises(InputError, match=r"page\.html.*No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert files(tmp_path) == ["page.html"], "a draft was left behind"


def test_text_that_cannot_be_encoded_leaves_the_old_file(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "\ud800")
    assert path.read_text() == "old" and files(tmp_path) == ["page.html"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere does not exist; create it"):
        write_atomic(tmp_path / "nowhere" / "page.html", "text")


def test_what_is_no_file_is_not_replaced(tmp_path):
    with pytest.raises(InputError, match="is not a file"):
        write_atomic(tmp_path, "text")


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_atomic(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


def test_json_has_schema_versions_and_strict_numbers(tmp_path):
    write_json(tmp_path / "r.json", {"a": torch.tensor([1.0, math.nan]), "b": math.inf})
    read = json.loads((tmp_path / "r.json").read_text(), parse_constant=refuse)
    assert read["schema"] == SCHEMA and read["a"] == [1.0, None] and read["b"] == "inf"
    assert set(read["versions"]) == {"python", "torch", "numpy", "task-arithmetic-diagnostics"}


def test_results_come_back_as_their_plain_form(tmp_path):
    results = {"geometry": samples.geometry(), "bounds": samples.bounds(), "outcomes": samples.outcomes()}
    write_json(tmp_path / "r.json", results)
    read = json.loads((tmp_path / "r.json").read_text(), parse_constant=refuse)
    assert {name: read[name] for name in results} == plain(results)


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_any_payload_is_strict_and_comes_back(tmp_path_factory, payload):
    path = tmp_path_factory.getbasetemp() / "payload.json"
    write_json(path, payload)
    read = json.loads(path.read_text(), parse_constant=refuse)
    assert {name: value for name, value in read.items() if name not in {"schema", "versions"}} == plain(payload)


def test_reserved_names_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match=r"'schema'.* reserved"):
        write_json(tmp_path / "r.json", {"schema": 3})
    assert not files(tmp_path)
