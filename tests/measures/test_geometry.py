"""Geometry: known-answer controls, from memory and from files alike, and the nulls."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from diagnostics import InputError, MismatchError, geometry
from diagnostics.measures import streaming
from tests.measures.test_factors import model, opened, save_adapter, updates

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
    with pytest.raises(InputError, match="last parts differ"):
        geometry(BASE, paths)
    assert geometry(BASE, [tmp_path / "one", tmp_path / "two"]).names == ("one", "two")


def test_dictionary_is_ready_for_json():
    import json

    found = geometry(BASE, {"a": plus(random_move(0)), "zero": plus(random_move(0), 0)}, target=plus(random_move(1)))
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert '"epsilon"' in text and "NaN" not in text


@given(seed=st.integers(0, 1000), scale=st.sampled_from([0.1, 1.0]))
def test_layerwise_floor_is_that_of_its_definition(seed, scale):
    """sqrt(2/π Σ_l ‖a_l‖²‖b_l‖²/d_l) / ‖a‖‖b‖, the standard deviation of a sum over tensors drawn by themselves."""
    moves = {name: random_move(seed + i) for i, name in enumerate("ab")}
    found = geometry(BASE, {name: plus(move, scale) for name, move in moves.items()}).null_cosine_layerwise
    for i, first in enumerate(moves.values()):
        for j, second in enumerate(moves.values()):
            parts = [float(first[k].square().sum() * second[k].square().sum()) / first[k].numel() for k in BASE]
            sizes = [sum(float(value.square().sum()) for value in move.values()) for move in (first, second)]
            expected = math.sqrt(2 / math.pi * sum(parts) / (sizes[0] * sizes[1]))
            assert float(found[i, j]) == pytest.approx(expected, rel=1e-4)


def test_vectors_without_a_direction_are_named():
    found = geometry(BASE, {"same": plus(random_move(0), 0), "moved": plus(random_move(1)), "too": dict(BASE)})
    assert found.notes == ("identical to the base, so without a direction: same, too",)
    floor = found.null_cosine_layerwise
    assert floor[0].isnan().all() and floor[:, 2].isnan().all() and not floor[1, 1].isnan()
    assert geometry(BASE, {"moved": plus(random_move(1))}).notes == ()


def test_beta_of_short_and_of_zero_vectors():
    """β = max ⟨τ_tar, τ_i⟩ / C: any common length cancels, and zero vectors have none."""
    experts = {name: plus(random_move(i), 1e-2) for i, name in enumerate("ab")}
    target = plus(random_move(2), 1e-2)
    long = geometry(BASE, {name: plus(random_move(i)) for i, name in enumerate("ab")}, target=plus(random_move(2)))
    assert geometry(BASE, experts, target=target).beta == pytest.approx(long.beta, rel=1e-4)
    assert math.isnan(geometry(BASE, {"a": dict(BASE)}, target=dict(BASE)).beta)


def test_a_geometry_prints_its_norms_and_notes():
    base = {"w": torch.tensor([3.0, 4.0])}
    found = geometry(base, {"a": {"w": torch.tensor([3.0, 3.0])}, "b": base})
    assert str(found) == (
        "2 task vectors in 2 dimensions: C = 1, epsilon = 0 (random vectors: 0.64)\n"
        "  a: norm 1 (20.00% of the base)\n"
        "  b: norm 0 (0.00% of the base)\n"
        "identical to the base, so without a direction: b"
    )


def test_a_stored_geometry_has_what_follows_from_it():
    found = geometry(
        {"w": torch.zeros(2)}, {"a": {"w": torch.tensor([3.0, 0.0])}, "b": {"w": torch.tensor([3.0, 4.0])}}
    )
    stored = found.to_dict()
    assert stored["norms"] == [3.0, 5.0] and stored["C"] == 25.0 and stored["epsilon"] == pytest.approx(0.6)
    assert stored["cosine"] == [[1.0, pytest.approx(0.6)], [pytest.approx(0.6), 1.0]]
    assert stored["beta"] is None and stored["notes"] == [] and stored["null_cosine"] == pytest.approx(2 / math.pi)
    assert stored["null_cosine_layerwise"][0][1] == pytest.approx(math.sqrt(2 / math.pi / 2))


@given(seed=st.integers(0, 1000))
def test_proportional_vectors_have_a_cosine_of_one_and_no_more(seed):
    move = random_move(seed)
    base = {key: torch.zeros_like(value) for key, value in BASE.items()}
    experts = {str(scale): {key: scale * value.double() for key, value in move.items()} for scale in (1, 3, -0.7)}
    found = geometry(base, experts)
    expected = torch.tensor([[1.0, 1, -1], [1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    assert found.cosine.abs().max() <= 1 and found.epsilon <= 1 and found.cosine.allclose(expected)


def test_one_short_vector():
    found = geometry({"w": torch.zeros(2)}, {"a": {"w": torch.tensor([0.3, 0.4])}})
    assert pytest.approx(0.25) == found.C and found.epsilon == 0.0 and found.beta is None
    assert found.base_norm == 0.0


@pytest.mark.parametrize("chunk", [1, 7, 40])
def test_slices_add_up_to_the_whole(chunk, monkeypatch):
    experts, target = {name: plus(random_move(i)) for i, name in enumerate("ab")}, plus(random_move(2))
    whole = geometry(BASE, experts, target=target)
    monkeypatch.setattr(streaming, "_SLICE", chunk)
    found = geometry(BASE, experts, target=target)
    assert found.gram.allclose(whole.gram) and found.target_inner.allclose(whole.target_inner)
    expected = math.sqrt(sum(float(value.square().sum()) for value in BASE.values()))
    assert found.base_norm == pytest.approx(expected) and found.target_norm == pytest.approx(whole.target_norm)
    assert found.dimension == 17 and [layer.dimension for layer in found.layers.values()] == [12, 5]


def test_without_a_target_there_is_no_norm_of_one():
    found = geometry(BASE, {"a": plus(random_move(0))})
    assert found.target_norm is None and found.target_inner is None


def test_names_of_the_models_are_those_given(tmp_path):
    with pytest.raises(InputError, match="target"):
        geometry(BASE, {"target": plus(random_move(0))})
    with pytest.raises(MismatchError) as caught:
        geometry(BASE, {"mine": {"a.weight": BASE["a.weight"]}})
    assert "base" in str(caught.value) and "mine" in str(caught.value)


def test_a_tied_tensor_counts_once_under_whichever_name_it_is_stored():
    tensor = torch.tensor([3.0, 4.0])
    found = geometry({"embed": tensor, "head": tensor}, {"a": {"head": 2 * tensor}, "b": {"embed": 3 * tensor}})
    assert found.gram.tolist() == [[25.0, 50.0], [50.0, 100.0]] and found.base_norm == 5.0


def test_private_tensors_are_left_out():
    found = geometry(BASE, {"a": plus(random_move(0))}, private=["b.*"])
    assert found.dimension == 12 and list(found.layers) == ["a.weight"]


def test_a_mismatch_names_base_and_expert():
    with pytest.raises(MismatchError, match="tensors of base 'base' in every expert"):
        geometry(BASE, {"mine": {"a.weight": BASE["a.weight"]}})


def test_an_adapter_moves_the_base_by_its_update(tmp_path):
    base = {name: value.detach() for name, value in model().named_parameters()}
    folder = save_adapter(tmp_path, 1)
    update = updates(opened(folder))
    found = geometry(base, {"a": folder})
    assert float(found.gram) == pytest.approx(sum(float(each.double().square().sum()) for each in update.values()))


def test_norms_beside_a_base_of_zeros_have_no_share_of_it():
    assert str(geometry({"w": torch.zeros(2)}, {"a": {"w": torch.ones(2)}})).splitlines()[1] == "  a: norm 1.414"


def test_progress_is_the_share_of_tensors_that_are_read_to_their_end(monkeypatch):
    """Of twelve and five numbers in slices of five, three and one."""
    monkeypatch.setattr(streaming, "_SLICE", 5)
    shares = []
    geometry(BASE, {"a": plus(random_move(0)), "b": plus(random_move(1))}, progress=shares.append)
    assert shares == [0.0, 0.0, 0.0, 0.5, 1.0]


def test_an_expert_that_cannot_be_read_is_named():
    with pytest.raises(InputError, match="mine: expected at least one tensor"):
        geometry(BASE, {"mine": {}})
