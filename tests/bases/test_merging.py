"""Every merge of a cluster against a few lines of NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diagnostics import InputError
from diagnostics.bases import merging as module
from diagnostics.bases.merging import BASIS_MERGES, largest_entries, merge_vectors
from tests.measures.task_vectors import vectors


def kept(array, density):
    """The largest entries, at least one, by a full sort."""
    count = max(1, int(density * array.size))
    order = np.argsort(-np.abs(array), axis=None)[:count]
    mask = np.zeros(array.size)
    mask[order] = 1
    return mask.reshape(array.shape)


def by_hand(stack, method, weights, density, fisher):
    """The definitions, one tensor of all vectors at a time."""
    scaled = weights.reshape(-1, *[1] * (stack.ndim - 1)) * stack
    masks = np.stack([kept(array, density) for array in stack])
    count = len(stack)
    if method == "mean":
        return scaled.sum(0) / count
    if method == "task_arithmetic":
        return scaled.sum(0)
    if method == "topk":
        return (masks * scaled).sum(0) / count
    if method == "ties":
        total = (masks * scaled).sum(0)
        sign = np.where(total >= 0, 1, -1)
        agree = (np.sign(masks * scaled) == sign).astype(float)
        return (agree * masks * scaled).sum(0) / np.maximum(agree.sum(0), 1)
    if method == "localize_and_stitch":
        return (masks * scaled).sum(0) / np.maximum(masks.sum(0), 1)
    if method == "mask_sharing":
        return np.round(masks.mean(0)) * scaled.sum(0) / count
    total = fisher.sum(0)
    return np.where(total > 0, (fisher * scaled).sum(0) / np.where(total > 0, total, 1), scaled.sum(0) / count)


def check(method, merge, seed=0, count=3, density=0.5):
    taus = vectors(seed, count)
    generator = torch.Generator().manual_seed(seed + 1)
    weights = {
        name: float(value) for name, value in zip(taus, torch.rand(count, generator=generator) + 0.5, strict=True)
    }
    fisher = {name: {key: torch.rand(value.shape, generator=generator).double() for key, value in tau.items()}
              for name, tau in taus.items()}  # fmt: skip
    trims = method in ("ties", "topk", "localize_and_stitch", "mask_sharing")
    found = merge(taus, method, weights=weights, density=density if trims else None, fisher=fisher)
    for key in taus["m0"]:
        stack, information = (np.stack([each[key].numpy() for each in some.values()]) for some in (taus, fisher))
        expected = by_hand(stack, method, np.array(list(weights.values())), density, information)
        np.testing.assert_allclose(found[key], expected, rtol=1e-9, atol=1e-12, err_msg=f"{method}, {key}")


@pytest.mark.parametrize("method", BASIS_MERGES)
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("density", [0.05, 0.5, 1.0])
def test_each_merge_is_its_definition(method, count, density):
    check(method, merge_vectors, seed=count, count=count, density=density)


@pytest.mark.parametrize("method", [each for each in BASIS_MERGES if each != "mean"])
def test_the_mean_in_place_of_any_other_merge_would_be_noticed(method):
    with pytest.raises(AssertionError):
        check(method, lambda taus, method, **options: merge_vectors(taus, "mean", weights=options["weights"]))


def test_masks_of_the_smallest_entries_would_be_noticed(monkeypatch):
    monkeypatch.setattr(module, "largest_entries", lambda tensor, density: ~largest_entries(tensor, density))
    for method in ("topk", "localize_and_stitch", "mask_sharing"):
        with pytest.raises(AssertionError):
            check(method, merge_vectors)


@given(seed=st.integers(0, 1000), method=st.sampled_from(BASIS_MERGES), factor=st.floats(0.1, 3))
def test_merges_follow_the_scale_of_their_vectors(seed, method, factor):
    taus = vectors(seed, 3)
    larger = {name: {key: factor * value for key, value in tau.items()} for name, tau in taus.items()}
    fisher = {name: {key: value.abs() for key, value in tau.items()} for name, tau in taus.items()}
    first, second = (merge_vectors(each, method, fisher=fisher) for each in (taus, larger))
    assert all(torch.allclose(factor * first[key], second[key]) for key in first)


@pytest.mark.parametrize("method", [each for each in BASIS_MERGES if each != "task_arithmetic"])
def test_copies_of_one_vector_merge_into_what_one_alone_gives(method):
    tau = vectors(3, 1)["m0"]
    fisher = {key: value.abs() + 1 for key, value in tau.items()}
    alone = merge_vectors({"a": tau}, method, fisher={"a": fisher})
    copies = merge_vectors(dict.fromkeys("abc", tau), method, fisher=dict.fromkeys("abc", fisher))
    assert all(torch.allclose(alone[key], copies[key]) for key in alone)


def test_stitching_twice_goes_by_what_is_left_of_each_basis():
    bases = {"x": {"w": torch.tensor([2.0, 0.0, 4.0])}, "y": {"w": torch.tensor([0.0, 0.0, 2.0])}}
    assert merge_vectors(bases, "localize_and_stitch", stitched=True)["w"].tolist() == [2.0, 0.0, 3.0]
    assert merge_vectors(bases, "mask_sharing", stitched=True)["w"].tolist() == [0.0, 0.0, 3.0]


def test_opposite_vectors_cancel_in_a_mean_and_not_in_ties():
    opposite = {"a": {"w": torch.tensor([1.0, -2.0])}, "b": {"w": torch.tensor([-1.0, 2.0])}}
    assert merge_vectors(opposite)["w"].tolist() == [0.0, 0.0]
    assert merge_vectors(opposite, "ties", density=1.0)["w"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("average", {}, "expected one of mean"),
        ("mean", {"density": 0.5}, "every entry is kept"),
        ("topk", {"density": 0.0}, "above 0"),
        ("topk", {"density": 1.5}, "up to 1"),
        ("fisher", {}, "Fisher information of every vector"),
    ],
)
def test_settings_that_do_not_fit_are_refused(method, settings, message):
    with pytest.raises(InputError, match=message):
        merge_vectors(vectors(0, 2), method, **settings)
