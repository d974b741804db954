"""Several checkpoints side by side: where a slice ends says nothing."""

import pytest
import torch
from safetensors.torch import save_file

from diagnostics import Code
from diagnostics.errors import InputError
from diagnostics.inputs import slices
from diagnostics.inputs.alignment import assert_finite
from diagnostics.inputs.checkpoints import open_checkpoint
from diagnostics.inputs.slices import in_slices
from tests.verdicts.test_compatibility import bfloat16, check, model, tuned

DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.bool)


@pytest.mark.parametrize("numbers", [1, 3, 16, 1 << 20])
def test_slices_are_those_of_the_tensors(tmp_path, monkeypatch, numbers):
    monkeypatch.setattr(slices, "_NUMBERS", numbers)
    whole = [(torch.arange(35).view(5, 7) % 5).to(dtype) for dtype in DTYPES]
    opened = []
    for place, tensor in enumerate(whole):
        path = tmp_path / f"{place}.safetensors"
        save_file({"before": torch.ones(3), "w": tensor}, path)
        opened.append((open_checkpoint(path if place % 2 else {"w": tensor}), "w"))
    found = [tuple(part.clone() for part in parts) for parts in in_slices(*opened)]
    assert len(found) == -(-35 // max(1, numbers // len(DTYPES)))
    for place, tensor in enumerate(whole):
        assert torch.equal(torch.cat([parts[place] for parts in found]), tensor.flatten())


def test_an_empty_tensor_has_no_slices():
    assert list(in_slices((open_checkpoint({"w": torch.zeros(0, 3)}), "w"))) == []


def test_values_that_are_not_finite_are_counted_over_slices(monkeypatch):
    monkeypatch.setattr(slices, "_NUMBERS", 2)
    damaged = open_checkpoint({"w": torch.tensor([torch.nan, 1.0, torch.inf, 2.0, torch.nan])}, label="m")
    with pytest.raises(InputError, match="found w: 2 NaN, 1 infinite of 5"):
        assert_finite(damaged)


@pytest.mark.parametrize("step", [7, 1000])
def test_slices_change_nothing(step, monkeypatch):
    """Where a slice ends says nothing: duplicates that differ in the last value only are none."""
    near = {name: value.clone() for name, value in tuned().items()}
    near["norm.weight"][-1] += 1
    experts = {"a": tuned(), "b": bfloat16(tuned()), "c": tuned(), "d": near, "e": tuned(seed=3), "f": model()}
    experts["e"]["up.bias"][-1] = torch.nan
    expected = list(map(str, check(**experts)))
    monkeypatch.setattr(slices, "_NUMBERS", step)
    assert list(map(str, check(**experts))) == expected
    duplicates = [each for each in check(**experts) if each.code is Code.DUPLICATE]
    assert {each.model for each in duplicates} <= set("abcf"), "models that differ were taken for one"
