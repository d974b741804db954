"""Laws of merge methods: what they do to one, equal and opposite experts, what is random in them, what they refuse."""

import itertools
import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from diagnostics import InputError, MismatchError, merged_update
from diagnostics.measures import merge_methods as module
from diagnostics.measures.merge_methods import MERGE_METHODS
from tests.measures.task_vectors import CONVENTIONS, SHAPES, SPARSE, one, vectors


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 4), method=st.sampled_from(list(MERGE_METHODS)))
def test_conventions_agree_without_pruning_at_equal_weights(seed, count, method):
    assume(method != "dare_ties")
    taus = vectors(seed, count)
    ours, theirs = (merged_update(taus, dict.fromkeys(taus, 1), method, convention=name) for name in CONVENTIONS)
    for name in SHAPES:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("method", MERGE_METHODS)
class TestLaws:
    def test_one_expert_is_returned(self, method, convention):
        taus = vectors(0, 1)
        found = merged_update(taus, {"m0": 1.0}, method, convention=convention)
        assert all(torch.equal(found[name], taus["m0"][name]) for name in SHAPES)

    def test_identical_experts_are_one_with_the_sum_of_the_weights_or_their_mean(self, method, convention):
        tau = vectors(1, 1)["m0"]
        found = merged_update({"a": tau, "b": tau}, {"a": 0.6, "b": 0.2}, method, convention=convention)
        averaged = {"mean": 0.4, "linear": 1.0, "ties": 0.4 if convention == "peft" else 1.0}
        factor = averaged.get(method, 0.4 if (method, convention) == ("dare_ties", "peft") else 0.8)
        for name in SHAPES:
            torch.testing.assert_close(found[name], factor * tau[name], rtol=1e-12, atol=1e-12)

    def test_opposite_experts_cancel_unless_a_sign_is_elected(self, method, convention):
        """A sum of zero elects +, so that the positive one of each pair of entries is left."""
        tau = vectors(2, 1)["m0"]
        opposite = {name: -value for name, value in tau.items()}
        found = merged_update({"a": tau, "b": opposite}, {"a": 1, "b": 1}, method, convention=convention)
        expected = {name: value.abs() if MERGE_METHODS[method].elects else 0 * value for name, value in tau.items()}
        assert all(torch.equal(found[name], expected[name]) for name in SHAPES)

    def test_order_does_not_matter(self, method, convention):
        taus, weights = vectors(3, 3), {"m0": 0.5, "m1": 1.0, "m2": 0.75}
        share = {"density": 0.5} if method in SPARSE else {}
        found = merged_update(taus, weights, method, convention=convention, **share)
        turned = {expert: dict(reversed(taus[expert].items())) for expert in reversed(taus)}
        again = merged_update(turned, dict(reversed(weights.items())), method, convention=convention, **share)
        for name in SHAPES:
            torch.testing.assert_close(found[name], again[name], rtol=1e-12, atol=1e-12)

    def test_a_common_factor_scales_the_update_or_cancels(self, method, convention):
        taus, weights = vectors(4, 3), {"m0": 0.5, "m1": 1.0, "m2": 0.75}
        share = {"density": 0.5} if method in SPARSE else {}
        found = merged_update(taus, weights, method, convention=convention, **share)
        thrice = {expert: 3 * weight for expert, weight in weights.items()}
        again = merged_update(taus, thrice, method, convention=convention, **share)
        scaled = merged_update(taus, weights, method, convention=convention, scale=3.0, **share)
        cancels = method == "linear" or (method, convention) == ("ties", "mergekit")
        for name in SHAPES:
            torch.testing.assert_close(again[name], found[name] * (1 if cancels else 3), rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(scaled[name], found[name] * 3, rtol=1e-12, atol=1e-12)

    def test_the_input_is_left_alone(self, method, convention):
        taus, copies = vectors(5, 2), vectors(5, 2)
        share = {"density": 0.5} if method in SPARSE else {}
        merged_update(taus, {"m0": 0.5, "m1": 1.0}, method, convention=convention, scale=2.0, **share)
        assert all(torch.equal(taus[expert][name], copies[expert][name]) for expert in taus for name in SHAPES)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("method", ["task_arithmetic", "mean", "magnitude_prune", "dare_linear"])
def test_sums_are_linear_in_the_coefficients(method, convention):
    taus = vectors(6, 2)
    share = {"density": 0.5} if method in SPARSE else {}

    def update(first, second):
        return merged_update(taus, {"m0": first, "m1": second}, method, convention=convention, **share)

    parts, whole = (update(1, 0), update(0, 1)), update(0.3, -0.7)
    for name in SHAPES:
        torch.testing.assert_close(whole[name], 0.3 * parts[0][name] - 0.7 * parts[1][name], rtol=1e-12, atol=1e-12)


def expected_over_all_masks(tau, density, convention, monkeypatch):
    """E[Δ] of one expert, by all masks and their probabilities."""
    total = np.zeros(len(tau))
    for bits in itertools.product([0, 1], repeat=len(tau)):
        monkeypatch.setattr(module, "_random_mask", lambda *_, bits=bits: torch.tensor(bits))
        found = merged_update(one(tau), {"m0": 1}, "dare_linear", density=density, convention=convention)
        total += density ** sum(bits) * (1 - density) ** (len(bits) - sum(bits)) * found["w"].numpy()
    return total


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_dare_is_unbiased_over_all_masks(density, monkeypatch):
    tau = [3.0, -1.0, 0.5, 2.0, -0.25]
    np.testing.assert_allclose(expected_over_all_masks(tau, density, "peft", monkeypatch), tau, rtol=1e-12)


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_the_l1_rescale_of_mergekit_is_biased(density, monkeypatch):
    """Of entries of one size each comes back whole unless none is kept; of unequal ones the large gain."""
    equal = expected_over_all_masks([2.0, -2.0, 2.0], density, "mergekit", monkeypatch)
    np.testing.assert_allclose(equal, np.array([2.0, -2.0, 2.0]) * (1 - (1 - density) ** 3), rtol=1e-12)
    small, large = expected_over_all_masks([1.0, 9.0], density, "mergekit", monkeypatch)
    both_kept, one_kept = density**2, density * (1 - density)
    assert (small, large) == pytest.approx((both_kept + 10 * one_kept, 9 * both_kept + 10 * one_kept))


def test_masks_depend_on_seed_tensor_and_expert_alone():
    taus = vectors(9, 3)
    weights = dict.fromkeys(taus, 1.0)
    share = {"density": 0.5, "seed": 3}
    whole = merged_update(taus, weights, "dare_linear", **share)
    parts = [merged_update({e: taus[e]}, {e: 1.0}, "dare_linear", **share) for e in taus]
    for name in SHAPES:
        torch.testing.assert_close(whole[name], sum(part[name] for part in parts), rtol=1e-12, atol=1e-12)
    alone = merged_update({e: {"b.bias": taus[e]["b.bias"]} for e in taus}, weights, "dare_linear", **share)
    assert torch.equal(alone["b.bias"], whole["b.bias"])
    shape = torch.Size([100_000])
    masks = [
        module._random_mask(shape, 0.3, *key) for key in ((0, "w", "a"), (1, "w", "a"), (0, "v", "a"), (0, "w", "b"))
    ]
    for first, second in itertools.combinations(masks, 2):
        # Five standard deviations of a share of 0.09.
        assert abs(float((first & second).double().mean()) - 0.09) < 5 * math.sqrt(0.09 * 0.91 / 100_000)
    assert all(abs(float(mask.double().mean()) - 0.3) < 5 * math.sqrt(0.21 / 100_000) for mask in masks)
    before = torch.get_rng_state()
    merged_update(taus, weights, "dare_ties", **share)
    assert torch.equal(before, torch.get_rng_state()), "the program's own random numbers must not change"


def test_linear_is_the_mean_of_the_models():
    base, taus, weights = vectors(10, 1)["m0"], vectors(11, 3), {"m0": 0.5, "m1": 1.0, "m2": 2.0}
    found = merged_update(taus, weights, "linear")
    counted = merged_update(taus, weights, "linear", base_weight=0.5)
    for name in SHAPES:
        models = sum(weight * (base[name] + taus[expert][name]) for expert, weight in weights.items())
        torch.testing.assert_close(base[name] + found[name], models / 3.5, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(base[name] + counted[name], (models + 0.5 * base[name]) / 4, rtol=1e-12, atol=1e-12)


def test_numbers_of_numpy_are_numbers():
    assert merged_update(one([3.0]), {"m0": np.float32(0.5)}, scale=np.int64(2))["w"].tolist() == [3.0]


def test_an_expert_without_a_coefficient_is_not_one_of_weight_zero():
    taus = one([3.0], [1.0])
    assert merged_update(taus, {"m0": 1}, "mean")["w"].tolist() == [3.0]
    assert merged_update(taus, {"m0": 1, "m1": 0}, "mean")["w"].tolist() == [1.5]


def test_tensors_are_read_one_at_a_time_and_once():
    reads = []

    class Slow(dict):
        def __getitem__(self, name):
            reads.append(name)
            return super().__getitem__(name)

    merged_update({expert: Slow(tau) for expert, tau in vectors(0, 2).items()}, {"m0": 1, "m1": 1}, "ties")
    assert reads == [name for name in SHAPES for _ in range(2)]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_half_precision_is_computed_in_float32(convention):
    halves, options = vectors(0, 2, torch.bfloat16), {"density": 0.5, "convention": convention}
    singles = {expert: {name: value.float() for name, value in tau.items()} for expert, tau in halves.items()}
    found = merged_update(halves, {"m0": 1, "m1": 0.5}, "ties", **options)
    expected = merged_update(singles, {"m0": 1, "m1": 0.5}, "ties", **options)
    assert all(found[name].dtype == torch.float32 and torch.equal(found[name], expected[name]) for name in SHAPES)
    assert merged_update(vectors(0, 1), {"m0": 1})["b.bias"].dtype == torch.float64


def test_edges_of_mergekit():
    tiny, options = one([6e-8, 1e-8]), {"density": 0.5, "convention": "mergekit", "rescale": True}
    assert merged_update(tiny, {"m0": 1}, "ties", **options)["w"].tolist() == [6e-8, 0.0], "L1 norms below 1e-7 stay"
    opposite = {"m0": 1.0, "m1": -1.0}
    taus = one([3.0], [1.0])
    assert merged_update(taus, opposite, normalize=True, convention="mergekit")["w"].tolist() == [2.0]
    empty = {"m0": {"w": torch.zeros(0)}}
    assert merged_update(empty, {"m0": 1}, "ties", density=0.5, convention="mergekit")["w"].shape == (0,)


@pytest.mark.parametrize(
    ("coefficients", "method", "options", "message"),
    [
        ({"m0": 1}, "tise", {}, r"method: expected one of task_arithmetic, .*; found 'tise'"),
        ({"m0": 1}, "ties", {"convention": "hf"}, "convention: expected 'peft' or 'mergekit'; found 'hf'"),
        ({"m0": 1}, "ties", {"majority_sign": "sum"}, "majority_sign: expected 'total' or 'frequency'; found 'sum'"),
        ({"m0": 1}, "dare_ties", {"seed": -1}, "seed: expected a whole number from 0 on; found -1"),
        ({}, "ties", {}, r"coefficients: expected numbers for some of \['m0', 'm1'\]; found none"),
        ({"mail": 1}, "ties", {}, r"found \['mail'\], which is none of them"),
        ({"m0": float("nan")}, "mean", {}, r"coefficients\.m0: expected a finite number; found nan"),
        ({"m0": True}, "mean", {}, r"coefficients\.m0: expected a finite number; found True"),
        ({"m0": 1}, "mean", {"scale": float("inf")}, "scale: expected a finite number; found inf"),
        ({"m0": 1}, "ties", {"density": 0.0}, r"density of m0: expected a number above 0 and up to 1; found 0\.0"),
        ({"m0": 1}, "ties", {"density": 20}, r"density of m0: expected a number above 0 and up to 1; found 20\.0"),
        ({"m0": 1, "m1": 1}, "ties", {"density": {"m0": 0.5}}, r"density: expected one number, or one for each of"),
        ({"m0": 1}, "linear", {"density": 0.5}, "density: expected nothing for linear, where every entry is kept"),
        ({"m0": 1}, "mean", {"majority_sign": "frequency"}, "majority_sign: expected nothing for mean, where no sign"),
        ({"m0": 1}, "mean", {"normalize": True}, "normalize: expected nothing for mean, where a mean is always"),
        ({"m0": 1}, "task_arithmetic", {"rescale": True}, "rescale: expected nothing for task_arithmetic"),
        ({"m0": 1}, "ties", {"base_weight": 1.0}, "base_weight: expected nothing for ties, where the base's"),
        ({"m0": 1}, "ties", {"normalize": True}, "normalize: PEFT has no such choice; .* Add convention='mergekit'"),
        ({"m0": 1}, "ties", {"rescale": 1, "convention": "mergekit"}, "rescale: expected True or False; found 1"),
        ({"m0": 1, "m1": -1}, "linear", {}, "coefficients: expected a sum other than zero for linear"),
        (
            {"m0": 1, "m1": 1},
            "linear",
            {"normalize": False, "convention": "mergekit"},
            "normalize: expected True for linear where the coefficients add up to 2; found False",
        ),
    ],
)
def test_settings_are_refused_at_the_door(coefficients, method, options, message):
    with pytest.raises(InputError, match=message):
        merged_update(vectors(0, 2), coefficients, method, **options)


@pytest.mark.parametrize(
    ("first", "second", "error", "message"),
    [
        ({"w": torch.ones(2)}, {"v": torch.ones(2)}, MismatchError, r"m0 and m1: \['v', 'w'\] are in only one"),
        ({"w": torch.ones(2)}, {"w": torch.ones(3)}, MismatchError, r"one shape of w; found .*\[2\].*\[3\]"),
        ({"w": torch.ones(2).int()}, {"w": torch.ones(2)}, InputError, r"vector of m0: expected floating-point w"),
        ({"w": torch.ones(2)}, {"w": torch.tensor([1, float("nan")])}, InputError, r"of m1: expected finite values; w"),
    ],
)
def test_task_vectors_must_fit_together(first, second, error, message):
    with pytest.raises(error, match=message):
        merged_update({"m0": first, "m1": second}, {"m0": 1, "m1": 1})


def test_peft_is_asked_for_only_where_it_is_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft.utils.merge_utils", None)
    merged_update(vectors(0, 2), {"m0": 1, "m1": 1}, "dare_linear", density=0.5)
    merged_update(vectors(0, 2), {"m0": 1, "m1": 1}, "ties", density=0.5, convention="mergekit")
    with pytest.raises(InputError, match=r"'peft' needs peft, .*\[transformers\]', or use convention='mergekit'"):
        merged_update(vectors(0, 2), {"m0": 1, "m1": 1}, "ties", density=0.5)
