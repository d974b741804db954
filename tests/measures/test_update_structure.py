"""Structure of updates: known answers, bounds that hold the truth, nulls, storage, adapters and files."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from diagnostics import InputError, MismatchError
from diagnostics.measures import update_structure as structure
from diagnostics.measures.entries import half_step
from diagnostics.measures.row_profile import RowProfile
from diagnostics.measures.update_structure import update_structure
from diagnostics.results import Status
from tests.measures.test_singular_values import gaussian, slow_kept


def check_profile(squares, profile, share):
    """Held against the squares themselves, in descending order."""
    count = len(squares)
    pairs = np.abs(squares[:, None] - squares[None, :]).sum()
    assert profile.gini == pytest.approx(pairs / (2 * count * squares.sum()))
    needed = round(profile.needed(share) * count)
    assert squares[:needed].sum() >= share * squares.sum() - 1e-9
    assert needed == 1 or squares[: needed - 1].sum() < share * squares.sum()
    assert profile.held(needed / count) == pytest.approx(squares[:needed].sum() / squares.sum())
    assert 1 - 1e-9 <= profile.effective <= count + 1e-9


class TestRows:
    @settings(max_examples=30)
    @given(seed=st.integers(0, 10**6), count=st.integers(1, 30), share=st.floats(0.05, 0.95))
    def test_profile_is_that_of_sorted_norms(self, seed, count, share):
        squares = np.sort(np.random.default_rng(seed).exponential(size=count))[::-1]
        check_profile(squares, RowProfile(torch.tensor(squares.copy()), 3), share)

    @pytest.mark.parametrize("wrong", [lambda s: s.flip(0), torch.sqrt, torch.square])
    def test_check_catches_another_order_and_other_powers(self, wrong):
        squares = np.array([8.0, 4.0, 2.0, 1.0, 0.5])
        check_profile(squares, RowProfile(torch.tensor(squares), 3), 0.6)
        with pytest.raises(AssertionError):
            check_profile(squares, RowProfile(wrong(torch.tensor(squares)), 3), 0.6)

    def test_equal_rows_and_one_row(self):
        equal = RowProfile(torch.ones(10).double(), 4)
        assert (equal.gini, equal.effective, equal.held(0.3), equal.needed(0.9)) == pytest.approx((0, 10, 0.3, 0.9))
        single = RowProfile(torch.tensor([5.0, 0, 0, 0]).double(), 4)
        assert (single.gini, single.effective, single.held(0.25), single.needed(0.99)) == (0.75, 1, 1, 0.25)
        assert single.zeros == 3

    @pytest.mark.parametrize("columns", [1, 16, 400])
    def test_null_is_what_random_rows_give(self, columns):
        squares = gaussian(4000, columns).square().sum(1).sort(descending=True).values
        profile = RowProfile(squares, columns)
        for share in (0.05, 0.25, 0.5):
            assert profile.null_held(share) == pytest.approx(profile.held(share), abs=0.012)
        assert profile.null_needed(0.9) == pytest.approx(profile.needed(0.9), abs=0.012)

    def test_zero_and_bad_shares(self):
        zero = RowProfile(torch.zeros(3).double(), 2)
        assert all(math.isnan(value) for value in (zero.gini, zero.effective, zero.held(0.5), zero.needed(0.5)))
        with pytest.raises(InputError, match="share of the rows above 0 and up to 1; found 50"):
            zero.held(50)


BASE = {"layer.weight": gaussian(6, 4).float(), "conv.weight": gaussian(3, 2, 2, 2).float(), "bias": torch.ones(5)}


def moved(moves):
    return {name: value + moves.get(name, 0) for name, value in BASE.items()}


class TestUpdateStructure:
    def test_nothing_is_dropped(self):
        moves = {name: 0.1 * gaussian(*value.shape, seed=3).float() for name, value in BASE.items()}
        found = update_structure(BASE, moved(moves))
        assert list(found.tensors) == list(BASE)
        expert = moved(moves)
        total = sum(float((expert[name].double() - BASE[name].double()).square().sum()) for name in BASE)
        assert found.square == pytest.approx(total, rel=1e-12)
        assert found.entries.count == sum(value.numel() for value in BASE.values())
        assert found.tensors["bias"].spectrum is None and found.tensors["conv.weight"].spectrum.shape == (3, 8)
        bias = float((expert["bias"] - BASE["bias"]).double().square().sum())
        assert found.outside == pytest.approx(bias / total)
        assert "no matrices: 1 of 3 tensors, with" in str(found) and "all others: conv.weight" in str(found)

    def test_totals_are_weighted_by_length(self):
        moves = {name: 0.1 * gaussian(*value.shape, seed=3).float() for name, value in BASE.items()}
        found, expert = update_structure(BASE, moved(moves)), moved(moves)
        deltas = {name: (expert[name].double() - BASE[name].double()) for name in BASE}
        for rank in range(6):
            kept = float(deltas["bias"].square().sum())
            for name in ("layer.weight", "conv.weight"):
                kept += slow_kept(deltas[name].flatten(1), rank) * float(deltas[name].square().sum())
            assert found.kept(rank).value == pytest.approx(kept / found.square), rank
        curve = [found.kept(rank).value for rank in range(5)]
        assert found.rank_for(0.9).value == next(rank for rank, value in enumerate(curve) if value >= 0.9)
        # Bias 5; factors of rank 1: 10 and 11 numbers of 24 each.
        assert found.numbers(1) == pytest.approx((5 + 10 + 11) / 53) and found.numbers(100) == 1

    def test_rank_one_and_identical_rows(self):
        row = torch.tensor([1.0, 2.0, 0.0, -1.0])
        found = update_structure({"w": torch.zeros(6, 4)}, {"w": row.expand(6, 4).clone()})
        assert found.kept(1).value == pytest.approx(1) and found.rank_for(0.99).value == 1
        assert found.tensors["w"].rows.gini == pytest.approx(0) and found.held(0.5) == pytest.approx(0.5)
        assert found.entries.zeros == 6
        assert 0 < found.null_kept(1) < 0.7 and found.null_held(0.5) > 0.5

    def test_sharing_is_scale_free(self):
        move = {"layer.weight": gaussian(6, 4, seed=8).float()}
        one, two = (update_structure(BASE, moved({k: scale * v for k, v in move.items()})) for scale in (1, -4))
        assert one.kept(2).value == pytest.approx(two.kept(2).value, rel=1e-5)
        assert one.held(0.3) == pytest.approx(two.held(0.3), rel=1e-5)
        assert two.square == pytest.approx(16 * one.square, rel=1e-5)

    def test_no_update_is_undefined_and_said(self):
        found = update_structure(BASE, BASE)
        assert found.kept(1).status is Status.UNDEFINED and found.rank_for(0.9).status is Status.UNDEFINED
        assert all(math.isnan(value) for value in (found.held(0.5), found.null_held(0.5), found.null_kept(1)))
        assert found.entries.zero_share == 1 and found.matrices == ()
        assert "no update" in str(found) and found.notes[0] == "unchanged: 3 of 3 tensors"
        json.dumps(found.to_dict(), allow_nan=False)

    def test_large_matrices_are_bounded_and_say_so(self):
        expert = moved({"layer.weight": 0.1 * gaussian(6, 4, seed=3).float()})
        exact, rough = update_structure(BASE, expert), update_structure(BASE, expert, exact_up_to=3)
        assert exact.kept(1).status is Status.EXACT
        told = rough.kept(1)
        assert told.lower - 1e-9 <= exact.kept(1).value <= told.upper + 1e-9
        assert "1 of them in part" in told.evidence

    def test_not_finite_is_refused_by_name(self):
        bad = moved({}) | {"bias": torch.tensor([1.0, math.nan, 1, 1, 1])}
        with pytest.raises(InputError, match="expert: expected finite values; found bias: 1 NaN"):
            update_structure(BASE, bad)
        with pytest.raises(InputError, match="base: expected finite values"):
            update_structure(bad, BASE)

    def test_mismatch_and_private(self):
        other = moved({}) | {"bias": torch.ones(7)}
        with pytest.raises(MismatchError, match="bias"):
            update_structure(BASE, other)
        assert "bias" not in update_structure(BASE, other, private=["bias"]).tensors
        with pytest.raises(InputError, match="shares: expected a share above 0 and below 1; found 90"):
            update_structure(BASE, BASE, shares=[90])

    def test_progress_reaches_one(self):
        seen = []
        update_structure(BASE, BASE, progress=seen.append)
        assert seen == pytest.approx([1 / 3, 2 / 3, 1])

    def test_files_and_shards_give_what_memory_gives(self, tmp_path):
        expert = moved({"layer.weight": 0.1 * gaussian(6, 4, seed=3).float()})
        save_file(BASE, tmp_path / "base.safetensors")
        shards = tmp_path / "expert"
        shards.mkdir()
        names = {name: f"part-{index}.safetensors" for index, name in enumerate(expert)}
        for name, file in names.items():
            save_file({name: expert[name]}, shards / file)
        (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
        found = update_structure(tmp_path / "base.safetensors", shards)
        assert found.to_dict() == update_structure(BASE, expert).to_dict()


def check_half_step(value, dtype, function):
    """Half the distance to the next number of the type, by counting up its bits."""
    stored = torch.tensor([value], dtype=torch.float64).to(dtype)
    bits = stored.abs().view(torch.int16) + 1
    step = bits.view(dtype).double() - stored.abs().double()
    assert float(function(stored.double(), dtype)) == pytest.approx(float(step) / 2, rel=1e-12)


class TestStorage:
    @settings(max_examples=50)
    @given(value=st.floats(-1e4, 1e4), dtype=st.sampled_from([torch.bfloat16, torch.float16]))
    def test_half_a_step_is_half_the_distance_to_the_next_number(self, value, dtype):
        check_half_step(value, dtype, half_step)

    def test_check_catches_a_whole_step_and_a_step_that_grows_with_the_value(self):
        check_half_step(3.0, torch.bfloat16, half_step)
        for wrong in (lambda v, d: 2 * half_step(v, d), lambda v, d: v.abs() * torch.finfo(d).eps / 2):
            with pytest.raises(AssertionError):
                check_half_step(3.0, torch.bfloat16, wrong)

    def test_share_below_is_what_storage_loses(self):
        base = gaussian(50, 40).to(torch.bfloat16)
        expert = base.double() + 2e-3 * gaussian(50, 40, seed=2)
        found = update_structure({"w": base.double()}, {"w": expert})
        lost = float((expert.to(torch.bfloat16) == base).double().mean())
        # They differ at powers of two alone, where the step down is half the step up.
        assert found.entries.below_shares["bfloat16"] == pytest.approx(lost, abs=0.01)
        assert 0.3 < lost < 0.9 and found.entries.zero_share == 0
        assert found.entries.below_shares["float16"] < lost

    def test_an_update_stored_narrow_has_zeros_and_nothing_else_below(self):
        base = gaussian(50, 40).to(torch.bfloat16)
        expert = (base.double() + 2e-3 * gaussian(50, 40, seed=2)).to(torch.bfloat16)
        found = update_structure({"w": base}, {"w": expert}).tensors["w"]
        assert found.stored == "bfloat16" and found.stage == "base and expert are rounded"
        assert found.entries.zeros == int((base == expert).sum()) > 500
        assert found.entries.below["bfloat16"] == pytest.approx(found.entries.zeros, abs=20)
        assert found.rounding.lost > 0.1 and found.to_dict()["rounding"]["lost"] == found.rounding.lost


def write_adapter(folder, config, tensors):
    folder.mkdir()
    settings_ = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["layer"]} | config
    (folder / "adapter_config.json").write_text(json.dumps(settings_))
    save_file(
        {f"base_model.model.{key}": value for key, value in tensors.items()}, folder / "adapter_model.safetensors"
    )
    return folder


class TestAdapters:
    def test_rank_is_that_of_the_factors_and_values_those_of_the_product(self, tmp_path):
        down, up = gaussian(2, 4).float(), gaussian(6, 2, seed=1).float()
        adapter = write_adapter(tmp_path / "a", {}, {"layer.lora_A.weight": down, "layer.lora_B.weight": up})
        base = {name: value for name, value in BASE.items() if name != "conv.weight"}
        found = update_structure(base, adapter)
        dense = update_structure(
            base, {**base, "layer.weight": base["layer.weight"].double() + 3 * (up @ down).double()}
        )
        spectrum = found.tensors["layer.weight"].spectrum
        assert len(spectrum.values) == 2 and spectrum.complete and spectrum.shape == (6, 4)
        np.testing.assert_allclose(spectrum.values, dense.tensors["layer.weight"].spectrum.values[:2], rtol=1e-6)
        assert found.kept(2).value == pytest.approx(1) and found.square == pytest.approx(dense.square, rel=1e-5)
        assert found.tensors["bias"].square == 0

    def test_the_dense_product_is_not_decomposed(self, tmp_path, monkeypatch):
        factors = {"layer.lora_A.weight": gaussian(2, 4).float(), "layer.lora_B.weight": gaussian(6, 2).float()}
        adapter = write_adapter(tmp_path / "a", {}, factors)
        monkeypatch.setattr(structure, "singular_values", None)
        found = update_structure({"layer.weight": BASE["layer.weight"]}, adapter)
        assert found.rank_for(0.99).value <= 2

    def test_a_transposed_weight_keeps_its_stored_shape(self, tmp_path):
        down, up = gaussian(2, 6).float(), gaussian(4, 2, seed=1).float()
        adapter = write_adapter(
            tmp_path / "a", {"fan_in_fan_out": True}, {"layer.lora_A.weight": down, "layer.lora_B.weight": up}
        )
        base = {"layer.weight": BASE["layer.weight"]}
        found = update_structure(base, adapter).tensors["layer.weight"]
        assert found.spectrum.shape == (6, 4) and len(found.rows.squares) == 6
        assert found.square == pytest.approx(found.spectrum.square, rel=1e-5)
