"""Geometry: known-answer controls, from memory and from files alike, and the nulls."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from diagnostics import InputError, MismatchError, geometry

BASE = {"a.weight": torch.linspace(-1, 1, 12).view(3, 4), "b.bias": torch.arange(5.0)}


def plus(move, scale=1.0):
    return {key: value + scale * move[key] for key, value in BASE.items()}


def random_move(seed):
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(value.shape, generator=generator) for key, value in BASE.items()}


def identity(experts, folder):
    return BASE, experts


def as_files(experts, folder):
    paths = {}
    for name, params in {"base": BASE, **experts}.items():
        paths[name] = folder / f"{name}.safetensors"
        save_file({key: value.contiguous() for key, value in params.items()}, paths[name])
    return paths.pop("base"), paths


@pytest.fixture(params=[identity, as_files], ids=["memory", "files"])
def source(request, tmp_path):
    return lambda experts: request.param(experts, tmp_path)


def test_known_answers(source):
    move = random_move(0)
    experts = {
        "one": plus(move),
        "same": plus(move),
        "opposite": plus(move, -1),
        "twice": plus(move, 2),
        "zero": plus(move, 0),
    }
    found = geometry(*source(experts))
    length = math.sqrt(sum(float((value**2).sum()) for value in move.values()))
    np.testing.assert_allclose(found.norms, [length, length, length, 2 * length, 0], rtol=1e-6)
    np.testing.assert_allclose(found.cosine[0, :4], [1, 1, -1, 1], atol=1e-6)
    assert found.cosine[4].isnan().all() and "zero" in found.notes[0]
    assert pytest.approx(4 * length**2, rel=1e-6) == found.C
    assert found.epsilon == pytest.approx(1.0)
    assert found.dimension == 17


def test_orthogonal_vectors_in_different_tensors(source):
    first = plus({"a.weight": torch.ones(3, 4), "b.bias": torch.zeros(5)})
    second = plus({"a.weight": torch.zeros(3, 4), "b.bias": torch.ones(5)})
    found = geometry(*source({"first": first, "second": second}))
    assert found.epsilon == pytest.approx(0.0, abs=1e-7)
    np.testing.assert_allclose(found.layers["a.weight"].norms, [math.sqrt(12), 0], rtol=1e-6)
    assert found.layers["b.bias"].dimension == 5


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 5))
def test_gram_is_that_of_the_flattened_differences(seed, count):
    moves = [random_move(seed + index) for index in range(count)]
    found = geometry(BASE, {f"m{index}": plus(move) for index, move in enumerate(moves)})
    rows = np.stack(
        [np.concatenate([(plus(m)[k].double() - BASE[k].double()).numpy().ravel() for k in BASE]) for m in moves]
    )
    np.testing.assert_allclose(found.gram, rows @ rows.T, rtol=1e-12, atol=1e-12)
    assert sum(layer.gram for layer in found.layers.values()).allclose(found.gram)


def test_beta_and_target():
    first, second = {"w": torch.tensor([2.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])}
    found = geometry({"w": torch.zeros(2)}, {"a": first, "b": second}, target={"w": torch.tensor([1.0, 1.0])})
    assert found.names == ("a", "b") and found.gram.shape == (2, 2)
    assert found.target_inner.tolist() == [2.0, 1.0]
    assert found.beta == pytest.approx(2.0 / 4.0)
    longer = geometry({"w": torch.zeros(2)}, {"a": first, "b": second}, target={"w": torch.tensor([3.0, 0.0])})
    assert longer.C == 9.0, "C must cover the target (A5)"
    assert longer.beta == pytest.approx(6.0 / 9.0)


def test_mixed_precision_is_read_as_stored():
    move = random_move(1)
    half = {key: value.to(torch.bfloat16) for key, value in plus(move).items()}
    exact = {key: value.double() for key, value in half.items()}
    assert geometry(BASE, {"m": half}).gram.allclose(geometry(BASE, {"m": exact}).gram, rtol=1e-12)


def test_random_cosine_floor_is_what_random_vectors_give():
    """2,000 independent pairs in 50 dimensions; the mean |cos| within four standard errors of the floor."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 2000, 50))
    cosines = np.abs((first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1))
    floor = geometry({"w": torch.zeros(50)}, {"a": {"w": torch.ones(50)}}).null_cosine
    # The formula replaces norms by their means, which is off by about 1/(4d) = 0.5 %.
    assert abs(cosines.mean() - floor) <= 4 * cosines.std() / math.sqrt(2000) + 0.005 * floor


def test_layerwise_floor_is_higher_where_few_weights_carry_the_change():
    base = {"big": torch.zeros(10_000), "small": torch.zeros(4)}
    rng = torch.Generator().manual_seed(0)
    cosines = []
    for _ in range(300):
        pair = [
            {"big": 1e-4 * torch.randn(10_000, generator=rng), "small": torch.randn(4, generator=rng)} for _ in "ab"
        ]
        found = geometry(base, dict(zip("ab", pair, strict=True)))
        cosines.append((abs(float(found.cosine[0, 1])), float(found.null_cosine_layerwise[0, 1]), found.null_cosine))
    seen, layerwise, plain = np.mean(cosines, axis=0)
    assert plain < 0.01 < seen and layerwise == pytest.approx(seen, rel=0.2)


def test_mismatched_tensors_are_all_named():
    broken = {**plus(random_move(0)), "b.bias": torch.zeros(6), "c.extra": torch.zeros(2)}
    with pytest.raises(MismatchError) as caught:
        geometry(BASE, {"broken": broken})
    assert all(part in str(caught.value) for part in ("b.bias", "c.extra", "broken", "private"))


def test_paths_with_the_same_name_are_refused(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        save_file({key: value.clone() for key, value in BASE.items()}, tmp_path / folder / "model.safetensors")
    paths = [tmp_path / folder / "model.safetensors" for folder in ("one", "two")]
    with pytest.raises(InputError, match="same name"):
        geometry(BASE, paths)
    assert geometry(BASE, [tmp_path / "one", tmp_path / "two"]).names == ("one", "two")


def test_dictionary_is_ready_for_json():
    import json

    found = geometry(BASE, {"a": plus(random_move(0)), "zero": plus(random_move(0), 0)}, target=plus(random_move(1)))
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert '"epsilon"' in text and "NaN" not in text
