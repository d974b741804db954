"""JSON reports are strict and say what made them."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.errors import InputError
from diagnostics.report.json import SCHEMA, write_json
from diagnostics.results import plain

from . import samples

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
NAMES = st.text().filter(lambda name: name not in {"schema", "versions"})


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


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
    assert not list(tmp_path.iterdir())
