"""Contributions: parts of each method against their definition in words, and their sum against PEFT's functions."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from peft.utils import merge_utils

from diagnostics import InputError, merged_update
from diagnostics.measures import merge_methods as module
from diagnostics.measures.merge_methods import MERGE_METHODS, method_contributions
from tests.measures.task_vectors import CONVENTIONS, SHAPES, SPARSE, one, vectors
from tests.measures.test_merge_methods import oracle_sparse, rows_of

ELECTING = [name for name, method in MERGE_METHODS.items() if method.elects]


def oracle_parts(rows, weights, method, convention, majority, options):
    """Entry after entry, in words: who takes part, and what the sum of all is divided by."""
    normalize = {"ties": True, "linear": True, "dare_ties": convention == "peft"}.get(method, False)
    normalize = options.get("normalize", normalize)
    parts = np.zeros_like(rows)
    for entry, values in enumerate(rows.T):
        agree, divisor = range(len(values)), 1.0
        if method in ELECTING:
            ballots = values if convention == "peft" else weights * values
            tally = sum(ballots) if majority == "total" else sum(np.sign(ballots))
            agree = [i for i, ballot in enumerate(ballots) if np.sign(ballot) == (1 if tally >= 0 else -1)]
        if method == "mean" or (method in ELECTING and convention == "peft"):
            divisor = len(agree)
        elif normalize:
            divisor = sum(weights[i] for i in agree) + options.get("base_weight", 0.0)
        for i in agree:
            parts[i, entry] = options.get("scale", 1.0) * weights[i] * values[i] / (divisor or 1)
    return parts


@st.composite
def merges(draw):
    """Everything that can be asked for: method, convention, weights and keywords."""
    method, convention = draw(st.sampled_from(list(MERGE_METHODS))), draw(st.sampled_from(CONVENTIONS))
    # Quarters add up exactly, so that a divisor is zero for us where it is zero for the oracle.
    weights = draw(st.lists(st.integers(-8, 8).map(lambda number: number / 4), min_size=1, max_size=5))
    experts = [f"m{index}" for index in range(len(weights))]
    options = {"scale": draw(st.sampled_from([1.0, 0.3, -2.0])), "seed": draw(st.integers(0, 1000))}
    if method in SPARSE:
        options["density"] = {expert: draw(st.floats(0.05, 1)) for expert in experts}
    if method in ELECTING:
        options["majority_sign"] = draw(st.sampled_from(["total", "frequency"]))
    if method == "linear":
        options["base_weight"] = draw(st.sampled_from([0.0, 0.5, -0.25]))
        assume(sum(weights) + options["base_weight"] != 0)
    if convention == "mergekit" and method not in ("mean", "linear"):
        options["normalize"] = draw(st.booleans())
    if convention == "mergekit" and method in SPARSE:
        options["rescale"] = draw(st.booleans())
    return method, convention, dict(zip(experts, weights, strict=True)), options


@settings(max_examples=150, deadline=None)
@given(merges(), st.integers(0, 10_000))
def test_parts_add_up_to_the_update(merge, seed):
    method, convention, weights, options = merge
    taus = vectors(seed, len(weights))
    whole = merged_update(taus, weights, method, convention=convention, **options)
    parts = method_contributions(taus, weights, method, convention=convention, **options)
    assert list(parts) == list(weights) and all(list(part) == list(SHAPES) for part in parts.values())
    for name in SHAPES:
        found = sum(part[name] for part in parts.values())
        torch.testing.assert_close(found, whole[name], rtol=1e-12, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


def assert_parts_are_their_definition(method, convention, majority, seed=3):
    weights, densities = {"m0": 0.5, "m1": -1.25, "m2": 0.75, "m3": 1.0}, (0.6, 0.9, 0.35, 1.0)
    taus = vectors(seed, len(weights))
    options = {"scale": 1.5, **({"base_weight": 0.25} if method == "linear" else {})}
    given = {**options, **({"density": dict(zip(taus, densities, strict=True))} if method in SPARSE else {})}
    given |= {"majority_sign": majority} if method in ELECTING else {}
    parts = method_contributions(taus, weights, method, convention=convention, seed=seed, **given)
    for name, shape in SHAPES.items():
        kept = []
        for row, expert, density in zip(rows_of(taus, name), taus, densities, strict=True):
            mask = module._random_mask(torch.Size(shape), density, seed, name, expert).numpy().ravel()
            kept.append(oracle_sparse(row, density, MERGE_METHODS[method].keeps, convention, mask))
        lambdas = np.array(list(weights.values()))
        expected = oracle_parts(np.array(kept), lambdas, method, convention, majority, options)
        for expert, row in zip(taus, expected, strict=True):
            found = parts[expert][name]
            assert found.shape == shape
            np.testing.assert_allclose(found.numpy().ravel(), row, rtol=1e-9, atol=1e-12, err_msg=f"{name} of {expert}")


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("method", MERGE_METHODS)
def test_each_part_is_its_definition(method, convention):
    assert_parts_are_their_definition(method, convention, "total")


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("method", ELECTING)
def test_parts_where_signs_are_counted(method, convention):
    assert_parts_are_their_definition(method, convention, "frequency")


elected = module._elected


def shared_out(kept, weights, plan):
    """The same sum, split evenly: only the parts are wrong."""
    terms, divisor = elected(kept, weights, plan)
    return terms.mean(0, keepdim=True).expand_as(terms), divisor


def of_the_next(kept, weights, plan):
    terms, divisor = elected(kept, weights, plan)
    return terms.roll(1, 0), divisor


def by_all(kept, weights, plan):
    terms, _ = elected(kept, weights, plan)
    return terms, float(len(terms))


def undivided(kept, weights, plan):
    return elected(kept, weights, plan)[0], 1.0


def everyone(kept, weights, plan):
    return weights * kept, elected(kept, weights, plan)[1]


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("mutant", [shared_out, of_the_next, by_all, undivided, everyone])
def test_mutants_are_caught(mutant, convention, monkeypatch):
    monkeypatch.setattr(module, "_elected", mutant)
    with pytest.raises(AssertionError):
        assert_parts_are_their_definition("ties", convention, "total")


WEIGHTS = [(0.5, 1.2, 0.3), (1.0, -0.7, 0.0), (1.0, 1.0, 1.0)]


def added_up(taus, weights, method, **options):
    parts = method_contributions(taus, dict(zip(taus, weights, strict=True)), method, **options)
    return {name: sum(part[name] for part in parts.values()) for name in SHAPES}


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("majority", ["total", "frequency"])
@pytest.mark.parametrize("method", ["task_arithmetic", "magnitude_prune", "ties", "dare_linear", "dare_ties"])
def test_the_sum_is_what_peft_gives(method, majority, weights, monkeypatch):
    """Entry by entry, with the same random masks."""
    taus = vectors(7, 3)
    density = {} if method == "task_arithmetic" else {"density": 0.45}
    sign, theirs = ({}, {})
    if method in ELECTING:
        sign, theirs = {"majority_sign": majority}, {"majority_sign_method": majority}
    found = added_up(taus, weights, method, seed=5, **density, **sign)
    for name, shape in SHAPES.items():
        masks = iter([module._random_mask(torch.Size(shape), 0.45, 5, name, expert).double() for expert in taus])
        monkeypatch.setattr(merge_utils.torch, "bernoulli", lambda _, masks=masks: next(masks))
        tensors = [tau[name] for tau in taus.values()]
        numbers = torch.tensor(weights, dtype=torch.float64)
        expected = getattr(merge_utils, method)(tensors, numbers, **density, **theirs)
        torch.testing.assert_close(found[name], expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from([-2.0, -1.0, 0.0, 1.0, 3.0]), min_size=4, max_size=4), min_size=1, max_size=4))
def test_the_sum_is_pefts_disjoint_merge(rows):
    """Zeros and ties among the signs, where nobody may agree."""
    taus, tensors = one(*rows), torch.tensor(rows, dtype=torch.float64)
    weights = torch.arange(1, len(rows) + 1, dtype=torch.float64) / 4
    agree = merge_utils.calculate_majority_sign_mask(tensors)
    expected = merge_utils.disjoint_merge(weights[:, None] * tensors, agree)
    parts = method_contributions(taus, dict(zip(taus, weights.tolist(), strict=True)), "ties")
    torch.testing.assert_close(sum(part["w"] for part in parts.values()), expected, rtol=1e-14, atol=0)
    lost = torch.stack([part["w"] for part in parts.values()])[~agree]
    assert not lost.any(), f"entries that lost the election contribute {lost}"


def test_a_part_of_task_arithmetic_knows_nothing_of_the_others():
    taus = vectors(1, 3)
    parts = method_contributions(taus, {"m0": 0.5, "m2": -1.0})
    assert list(parts) == ["m0", "m2"], "an expert without a coefficient takes no part"
    assert all(torch.equal(parts["m0"][name], 0.5 * taus["m0"][name]) for name in SHAPES)
    assert all(torch.equal(parts["m2"][name], -taus["m2"][name]) for name in SHAPES)


def test_parts_share_no_memory():
    taus = vectors(1, 2)
    parts = method_contributions(taus, {"m0": 1, "m1": 1})
    storages = [
        tensor.untyped_storage().data_ptr() for each in (taus, parts) for p in each.values() for tensor in p.values()
    ]
    assert len(set(storages)) == len(storages)


def test_both_take_the_same_keywords():
    first, second = (inspect.signature(each).parameters for each in (merged_update, method_contributions))
    assert first == second


def test_settings_are_refused_as_for_the_update():
    with pytest.raises(InputError, match="density: expected nothing for mean, where every entry is kept"):
        method_contributions(vectors(0, 2), {"m0": 1}, "mean", density=0.5)
