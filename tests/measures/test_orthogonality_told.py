"""What is told of angles between updates: texts, averages over tensors, names, adapters and ties."""

import math

import numpy as np
import pytest
import torch

from diagnostics import InputError
from diagnostics.exact.random_vectors import null_cosine
from diagnostics.measures import orthogonality as module
from diagnostics.measures.orthogonality import orthogonality
from tests.measures.test_orthogonality import matrices
from tests.measures.test_update_structure import write_adapter


def test_layers_of_one_kind_differ_by_whole_numbers_in_their_names():
    names = ("h.0.w", "h.11.w", "h.0.v", "0", "h2.w", "h.2b.w")
    base = {name: torch.zeros(2, 2) for name in names}
    experts = {"a": {name: torch.eye(2) for name in names}, "b": {name: torch.ones(2, 2) for name in names}}
    kinds = orthogonality(base, experts, side="rows").by_kind()
    assert {kind: list(each.layers) for kind, each in kinds.items()} == {
        "h.*.w": ["h.0.w", "h.11.w"],
        "h.*.v": ["h.0.v"],
        "*": ["0"],
        "h2.w": ["h2.w"],
        "h.2b.w": ["h.2b.w"],
    }
    for kind in kinds.values():
        for each in (kind, *kind.layers.values()):
            assert (each.names, each.side, each.not_covered) == (("a", "b"), "rows", {})


def test_weights_are_those_of_tensors_of_different_sizes():
    sizes = {"small": (3, 4), "large": (5, 7)}
    base = {name: matrices(1, *shape)[0] for name, shape in sizes.items()}
    experts = {
        name: {key: value + matrices(seed, *value.shape)[0] for key, value in base.items()}
        for seed, name in enumerate("ab", start=2)
    }
    found = orthogonality(base, experts)
    small, large = (found.layers[name] for name in sizes)
    for kind in ("cosine", "matched", "square"):
        parts = [getattr(layer, kind).value for layer in (small, large)]
        expected = (12 * parts[0] + 35 * parts[1]) / 47
        np.testing.assert_allclose(getattr(found.averaged("parameters"), kind).value, expected, rtol=1e-13)
    assert found.base == pytest.approx((12 * small.base + 35 * large.base) / 47, rel=1e-13)
    assert found.base_null == pytest.approx((12 * null_cosine(3) + 35 * null_cosine(5)) / 47, rel=1e-13)
    floors = torch.tensor([[1 / (3 * 3)], [2 / (5 * 6)]]).double()
    weights = torch.stack([layer.norms.square() for layer in (small, large)])
    np.testing.assert_allclose(found.floor, (weights * floors).sum(0) / weights.sum(0), rtol=1e-6)
    np.testing.assert_allclose(small.floor, 1 / (3 * 3), rtol=1e-14)
    assert found.norms.tolist() == pytest.approx(weights.sum(0).sqrt().tolist())
    assert (found.parameters, found.columns, found.drawn) == (47, 11, 11)


def test_an_adapter_is_read_over_its_base(tmp_path):
    factors = {"layer.lora_A.weight": torch.eye(2, 4), "layer.lora_B.weight": torch.eye(6, 2)}
    adapter = write_adapter(tmp_path / "a", {"r": 2, "lora_alpha": 2}, factors)
    base = {"layer.weight": torch.ones(6, 4)}
    found = orthogonality(base, {"a": adapter, "b": {"layer.weight": base["layer.weight"] + torch.eye(6, 4)}})
    assert found.zero.tolist() == [2, 0] and found.norms.tolist() == pytest.approx([2**0.5, 2])
    assert found.matched.value[0, 1] == 1


def test_values_are_searched_by_tensor_where_some_are_not_finite(monkeypatch):
    base, wrong = {"w": torch.ones(2, 2)}, {"w": torch.tensor([[math.inf, 1], [1, 1]])}
    with pytest.raises(InputError, match=r"^m: expected finite values; found w: 0 NaN, 1 infinite"):
        orthogonality(base, {"m": wrong})
    with pytest.raises(InputError, match=r"^base: expected finite values; found w: 0 NaN, 1 infinite"):
        orthogonality(wrong, {"m": base})
    monkeypatch.setattr(module, "assert_finite", None)
    assert orthogonality(base, {"m": {"w": torch.eye(2)}}).base == pytest.approx(1), "nothing to search for"


def known():
    """Rows at known angles: one of the last update has cosines of 0.6 and 0.8 with the rows of the others."""
    turned = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 1.0]])
    updates = {"one": torch.eye(2, 3), "two": 2 * torch.eye(2, 3), "three": turned}
    base = {"w": torch.ones(2, 3), "bias": torch.zeros(2)}
    experts = {name: {"w": base["w"] + update, "bias": base["bias"]} for name, update in updates.items()}
    return orthogonality(base, experts, side="rows")


def test_text_of_known_angles():
    assert str(known()).splitlines() == [
        "mean |cos| of rows, and how many times chance that is (1 tensor(s))",
        "  inside one: 0 (0)",
        "  inside two: 0 (0)",
        "  inside three: 0 (0)",
        "  between one and two: 0 (0); same row 1 (2)",
        "  between one and three: 0.4 (0.8); same row 0.3 (0.6)",
        "  between two and three: 0.4 (0.8); same row 0.3 (0.6)",
        "  inside the base: 1 (2)",
        "  note: not covered: 1 with 1 dimension",
    ]


def test_dictionary_has_what_follows_from_the_fields():
    told = known().to_dict()
    assert told["inside"] == [0, 0, 0] and told["base_ratio"] == pytest.approx(2)
    assert told["notes"] == ["not covered: 1 with 1 dimension"]
    assert told["norms"] == pytest.approx([2**0.5, 8**0.5, 26**0.5]) and told["names"] == ["one", "two", "three"]


def test_tied_tensors_are_read_by_the_name_each_model_stores():
    shared, other = matrices(0, 3, 3, count=2)
    found = orthogonality({"in": shared, "out": shared}, {"a": {"out": other}, "b": {"in": other, "out": other}})
    assert list(found.layers) == ["in"] and found.matched.value[0, 1].item() == pytest.approx(1)
    assert found.norms.tolist() == pytest.approx([(other - shared).norm().item()] * 2)


def test_a_tensor_without_pairs_of_columns_takes_no_part_in_averages_inside():
    base = {"w": matrices(0, 2, 5)[0], "single": torch.ones(7, 1).double()}
    updates = {"w": matrices(1, 2, 5)[0], "single": 10 * torch.ones(7, 1).double()}
    found = orthogonality(base, {"m": {name: value + updates[name] for name, value in base.items()}})
    layer = found.layers["w"]
    for average in (found, found.averaged("parameters")):
        assert (average.base, average.base_null) == pytest.approx((layer.base, layer.base_null), rel=1e-12)
        assert average.inside.item() == pytest.approx(layer.inside.item(), rel=1e-12)
        assert average.floor.item() == pytest.approx(layer.floor.item(), rel=1e-12)


def test_an_update_of_zero_takes_no_part_in_averages_by_parameters():
    base = {"moved": torch.zeros(3, 4).double(), "still": torch.zeros(2, 5).double()}
    one, two = matrices(5, 3, 4, count=2)
    found = orthogonality(base, {"a": base | {"moved": one}, "b": {"moved": two, "still": matrices(6, 2, 5)[0]}})
    told, moved, still = found.averaged("parameters"), found.layers["moved"], found.layers["still"]
    np.testing.assert_allclose(told.cosine.value[0], moved.cosine.value[0], rtol=1e-12)
    assert told.inside[1].item() == pytest.approx((12 * moved.inside[1] + 10 * still.inside[1]).item() / 22)
    assert told.floor.tolist() == pytest.approx([1 / 9, (12 / 9 + 10 * 3 / 8) / 22], rel=1e-12)
