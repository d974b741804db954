"""Merge methods: each against a few lines of numpy, against PEFT, and against numbers that mergekit gave."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from peft.utils import merge_utils

from diagnostics import InputError, merged_update
from diagnostics.measures import merge_methods as module
from diagnostics.measures.merge_methods import MERGE_METHODS
from tests.measures.task_vectors import CONVENTIONS, SHAPES, SPARSE, one, vectors


def rows_of(taus, name):
    return np.array([taus[expert][name].double().numpy().ravel() for expert in taus])


def oracle_trim(row, density, convention):
    keep = int(density * len(row))
    keep = max(keep, 1) if convention == "mergekit" else keep
    threshold = sorted(np.abs(row), reverse=True)[keep - 1] if keep else np.inf
    return np.where(np.abs(row) >= threshold, row, 0.0)


def oracle_sparse(row, density, keeps, convention, mask):
    if keeps == "all" or density == 1:
        return row
    if keeps == "largest":
        return oracle_trim(row, density, convention)
    kept = np.where(mask, row, 0.0)
    if convention == "peft":
        return kept / density
    return kept * np.abs(row).sum() / np.abs(kept).sum() if kept.any() else kept


def oracle_elect(rows, weights, convention, majority, divides):
    """One entry after another, in words: who votes for what, who agrees, what the sum is divided by."""
    out = np.zeros(rows.shape[1])
    for entry, values in enumerate(rows.T):
        ballots = values if convention == "peft" else weights * values
        tally = sum(ballots) if majority == "total" else sum(np.sign(ballots))
        agree = [i for i, ballot in enumerate(ballots) if np.sign(ballot) == (1 if tally >= 0 else -1)]
        share = len(agree) if convention == "peft" else sum(weights[i] for i in agree)
        out[entry] = sum(weights[i] * values[i] for i in agree) / ((share if divides else 1) or 1)
    return out


def oracle(rows, weights, method, density, convention, masks, majority="total"):
    kind = MERGE_METHODS[method]
    kept = np.array(
        [oracle_sparse(row, p, kind.keeps, convention, mask) for row, p, mask in zip(rows, density, masks, strict=True)]
    )
    if kind.elects:
        divides = method == "ties" or convention == "peft"
        return oracle_elect(kept, weights, convention, majority, divides)
    divisor = {"mean": len(rows), "linear": sum(weights)}.get(method, 1.0)
    return weights @ kept / divisor


def assert_equal_to_the_oracle(method, convention, seed, weights, density, majority="total"):
    taus = vectors(seed, len(weights))
    elects = {"majority_sign": majority} if MERGE_METHODS[method].elects else {}
    share = {"density": dict(zip(taus, density, strict=True))} if method in SPARSE else {}
    coefficients = dict(zip(taus, weights, strict=True))
    found = merged_update(taus, coefficients, method, convention=convention, seed=seed, **share, **elects)
    assert list(found) == list(SHAPES)
    for name, shape in SHAPES.items():
        masks = [
            module._random_mask(torch.Size(shape), p, seed, name, expert).numpy().ravel()
            for p, expert in zip(density, taus, strict=True)
        ]
        expected = oracle(rows_of(taus, name), np.array(weights), method, density, convention, masks, majority)
        np.testing.assert_allclose(found[name].numpy().ravel(), expected, rtol=1e-9, atol=1e-12, err_msg=name)
        assert found[name].shape == shape


CASES = [
    (0, (1.0,), (0.5,)),
    (1, (1.0, 1.0), (0.4, 0.4)),
    (2, (0.3, 0.7, 1.5), (0.2, 0.9, 1.0)),
    (3, (1.0, -0.5, 0.25), (0.6, 0.6, 0.3)),
    (4, (0.1, 1.0, 0.0, 0.4), (0.7, 0.5, 0.5, 0.05)),
]


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("method", MERGE_METHODS)
@pytest.mark.parametrize(("seed", "weights", "density"), CASES)
def test_each_method_is_its_definition(method, convention, seed, weights, density):
    assert_equal_to_the_oracle(method, convention, seed, weights, density)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("method", ["ties", "dare_ties"])
@pytest.mark.parametrize(("seed", "weights", "density"), CASES)
def test_signs_can_be_elected_by_their_number(method, convention, seed, weights, density):
    assert_equal_to_the_oracle(method, convention, seed, weights, density, majority="frequency")


@settings(max_examples=60)
@given(
    method=st.sampled_from(list(MERGE_METHODS)),
    convention=st.sampled_from(CONVENTIONS),
    seed=st.integers(0, 10_000),
    terms=st.lists(st.tuples(st.floats(-2, 2).map(lambda x: round(x, 2)), st.floats(0.01, 1)), min_size=1, max_size=5),
)
def test_definitions_hold_for_any_setting(method, convention, seed, terms):
    weights, density = zip(*terms, strict=True)
    assume(method != "linear" or abs(sum(weights)) > 0.01)
    assert_equal_to_the_oracle(method, convention, seed, weights, density)


def smallest(tensor, density):
    order = tensor.abs().reshape(-1).argsort(descending=True)
    mask = torch.ones(tensor.numel(), dtype=tensor.dtype)
    mask[order[: max(1, int(density * tensor.numel()))]] = 0
    return tensor * mask.view(tensor.shape)


def by_count(kept, weights, plan):
    return module_elected(kept, weights, plan.__class__(**{**vars(plan), "majority_sign": "frequency"}))


def unweighted(kept, weights, plan):
    votes = kept.sum(0)
    agree = kept.sign() == torch.where(votes >= 0, 1, -1)
    divisor = (weights * agree).sum(0)
    return weights * kept * agree, torch.where(divisor == 0, 1, divisor)


module_elected = module._elected
MUTANTS = {
    "signs counted instead of summed": ("ties", "mergekit", "_elected", by_count),
    "signs counted, PEFT": ("ties", "peft", "_elected", by_count),
    "elected without coefficients": ("ties", "mergekit", "_elected", unweighted),
    "smallest entries kept": ("ties", "mergekit", "_trim", smallest),
    "smallest entries kept, PEFT": ("magnitude_prune", "peft", "_peft", lambda name: smallest),
    "rescale forgotten": ("dare_linear", "mergekit", "_norm_ratio", lambda before, after: 1.0),
    "rescale forgotten, PEFT": ("dare_linear", "peft", "_sparsified", lambda tensor, plan, name, expert: tensor),
    "elected signs ignored": ("ties", "mergekit", "_elected", lambda kept, weights, plan: (weights * kept, 1.0)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_caught(mutant, monkeypatch):
    method, convention, name, wrong = MUTANTS[mutant]
    monkeypatch.setattr(module, name, wrong)
    with pytest.raises(AssertionError):
        assert_equal_to_the_oracle(method, convention, 4, (0.1, 1.0, 0.2, 0.4), (0.7, 0.5, 0.5, 0.25))


@pytest.mark.parametrize("method", ["task_arithmetic", "magnitude_prune", "ties"])
@pytest.mark.parametrize("majority", ["total", "frequency"])
def test_peft_gives_the_same(method, majority):
    taus, weights = vectors(7, 3), (0.5, 1.2, 0.3)
    extra = {"task_arithmetic": {}, "magnitude_prune": {"density": 0.4}, "ties": {"density": 0.4}}[method]
    sign = {"majority_sign": majority} if method == "ties" else {}
    found = merged_update(taus, dict(zip(taus, weights, strict=True)), method, **extra, **sign)
    theirs = getattr(merge_utils, method)
    sign = {"majority_sign_method": majority} if method == "ties" else {}
    for name in SHAPES:
        tensors = [tau[name] for tau in taus.values()]
        expected = theirs(tensors, torch.tensor(weights, dtype=torch.float64), **extra, **sign)
        assert torch.equal(found[name], expected), name


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_peft_gives_the_same_with_the_same_masks(method, monkeypatch):
    taus, weights = vectors(8, 3), (0.5, 1.2, 0.3)
    found = merged_update(taus, dict(zip(taus, weights, strict=True)), method, density=0.6, seed=5)
    for name, shape in SHAPES.items():
        masks = iter([module._random_mask(torch.Size(shape), 0.6, 5, name, expert).double() for expert in taus])
        monkeypatch.setattr(merge_utils.torch, "bernoulli", lambda _, masks=masks: next(masks))
        tensors = [tau[name] for tau in taus.values()]
        expected = getattr(merge_utils, method)(tensors, torch.tensor(weights, dtype=torch.float64), 0.6)
        torch.testing.assert_close(found[name], expected, rtol=1e-12, atol=1e-12)


# What mergekit 0.1.5 itself returns for three vectors over a base of zeros, with these masks where it draws any.
KNOWN = {
    "a": [4.0, -3.0, 2.0, -1.0, 0.5, 0.25],
    "b": [-1.0, -5.0, 3.0, 1.0, 0.75, 2.0],
    "c": [-2.0, 1.0, -6.0, 0.5, -4.0, 3.0],
}
DRAWN = {"a": [1, 0, 1, 1, 0, 1], "b": [0, 1, 1, 0, 0, 1], "c": [1, 1, 0, 0, 1, 1]}
UNEQUAL, EQUAL = {"a": 0.5, "b": 1.0, "c": 0.25}, {"a": 1.0, "b": 1.0, "c": 1.0}
ANSWERS = [
    ("ties", UNEQUAL, {"density": 0.5}, [4.0, -4.333333, 2.666667, 0.0, -4.0, 2.2]),
    ("ties", EQUAL, {"density": 0.5}, [4.0, -4.0, -6.0, 0.0, -4.0, 2.5]),
    ("ties", UNEQUAL, {"density": 0.1}, [4.0, -5.0, -6.0, 0.0, 0.0, 0.0]),
    (
        "ties",
        UNEQUAL,
        {"density": 0.5, "normalize": False, "rescale": True},
        [2.388889, -8.166667, 5.019444, 0.0, -1.269231, 3.501923],
    ),
    ("task_arithmetic", UNEQUAL, {"normalize": True}, [0.285714, -3.571429, 1.428571, 0.357143, 0.0, 1.642857]),
    ("dare_linear", UNEQUAL, {"density": 0.5}, [2.140517, -5.9625, 5.307758, -0.741379, -1.65, 3.972845]),
    ("dare_ties", UNEQUAL, {"density": 0.5}, [2.965517, -6.375, 5.307758, -0.741379, -1.65, 3.972845]),
    (
        "dare_ties",
        UNEQUAL,
        {"density": 0.5, "normalize": True, "rescale": False},
        [4.0, -5.0, 2.666667, -1.0, -4.0, 1.642857],
    ),
]


@pytest.mark.parametrize(("method", "weights", "options", "expected"), ANSWERS)
def test_mergekit_gives_the_same(method, weights, options, expected, monkeypatch):
    monkeypatch.setattr(module, "_random_mask", lambda shape, p, seed, name, expert: torch.tensor(DRAWN[expert]))
    taus = {expert: {"w": torch.tensor(values).double()} for expert, values in KNOWN.items()}
    found = merged_update(taus, weights, method, convention="mergekit", **options)
    np.testing.assert_allclose(found["w"], expected, atol=1e-6)


def both(taus, weights, method, **options):
    """What the conventions give, as lists."""
    coefficients = dict(zip(taus, weights, strict=True))
    return [merged_update(taus, coefficients, method, convention=name, **options)["w"].tolist() for name in CONVENTIONS]


def test_where_peft_and_mergekit_differ(monkeypatch):
    """Each row of the table in the module, in numbers."""
    assert both(one([3.0]), [1], "magnitude_prune", density=0.5) == [[0.0], [3.0]]
    assert both(one([3.0], [-2.0]), [0.1, 1], "ties") == [[pytest.approx(0.3)], [-2.0]]
    assert both(one([3.0], [1.0]), [0.5, 0.5], "ties") == [[1.0], [2.0]]
    assert both(one([3.0], [1.0]), [1, 1], "dare_ties") == [[2.0], [4.0]]
    monkeypatch.setattr(module, "_random_mask", lambda *_: torch.tensor([True, False]))
    assert both(one([3.0, 1.0]), [1], "dare_linear", density=0.5) == [[6.0, 0.0], [4.0, 0.0]]


def test_where_coefficients_cancel_the_sum_stands():
    """mergekit divides by the coefficients that agree; 1 - 1 is nothing to divide by."""
    taus = {"a": {"w": torch.tensor([3.0, 3.0])}, "b": {"w": torch.tensor([-1.0, 1.0])}}
    found = merged_update(taus, {"a": 1, "b": -1}, "ties", convention="mergekit")["w"]
    assert found.tolist() == [4.0, 3.0]


def test_masks_are_those_of_seed_zero_unless_told():
    taus = vectors(0, 2)
    coefficients = dict.fromkeys(taus, 1.0)
    for function in (merged_update, module.method_contributions):
        default, zero, one = (
            function(taus, coefficients, "dare_linear", density=0.5, **seed) for seed in ({}, {"seed": 0}, {"seed": 1})
        )
        first = [each if function is merged_update else each[next(iter(taus))] for each in (default, zero, one)]
        name = next(iter(SHAPES))
        assert torch.equal(first[0][name], first[1][name])
        assert any(not torch.equal(first[0][name], first[2][name]) for name in SHAPES)


def test_without_peft_its_convention_says_what_to_do(monkeypatch):
    def missing(name):
        raise ImportError(f"no {name}")

    monkeypatch.setattr(module.importlib, "import_module", missing)
    taus = {"a": {"w": torch.tensor([3.0, 1.0])}}
    with pytest.raises(InputError) as caught:
        merged_update(taus, {"a": 1}, "magnitude_prune", density=0.5)
    assert str(caught.value) == (
        "convention: 'peft' needs peft, which cannot be imported (no peft.utils.merge_utils). Install it with: "
        "pip install 'task-arithmetic-diagnostics[transformers]', or use convention='mergekit'."
    )
