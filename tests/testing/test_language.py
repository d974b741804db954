"""Drawn models, data and audits are what they say, reach the cases that matter, and shrink to small ones."""

from itertools import product

import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from diagnostics.testing.language import audits, distributions, instructions, language_models

QUIET = settings(database=None, max_examples=2000)


@given(model=language_models(2, vocabulary=3, dimension=2))
def test_features_are_halves_and_cover_every_prefix(model):
    assert model.features.shape == (1 + 3, 3, 2) and model.vocabulary == 3
    assert set(np.unique(2 * model.features)) <= {-2, -1, 0, 1, 2} and np.all(abs(model.theta) <= 2)


@given(tokens=instructions(vocabulary=3, longest=2))
def test_instructions_have_known_tokens(tokens):
    assert isinstance(tokens, tuple) and 1 <= len(tokens) <= 2 and set(tokens) <= {0, 1, 2}


@given(data=distributions(longest=2))
def test_weights_add_up_to_one_without_rounding_over_different_pairs(data):
    assert data.weights.sum() == 1 and data.weights.min() >= 0 and len(data.weights) == len(data.pairs)
    assert len(set(data.pairs)) == len(data.pairs) <= 4
    assert all(len(x) == 1 and 1 <= len(y) <= 2 for x, y in data.pairs)


@given(case=st.integers(1, 6).flatmap(lambda n: st.tuples(st.just(n), distributions(sampled=n))))
def test_a_sample_has_whole_counts(case):
    count, data = case
    counts = count * data.weights
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-12)
    assert counts.min() > 0.5 and counts.sum() == pytest.approx(count)


@given(audit=st.integers(1, 3).flatmap(audits))
def test_a_model_reaches_every_segment_that_its_audit_reads(audit):
    assert len(audit.components) == len(audit.instructions) == len(audit.alphas)
    contexts = ((), *audit.instructions, audit.joined, audit.target_instruction)
    for data in (audit.target, *audit.components):
        for context, (x, y) in product(contexts, data.pairs):
            assert np.isfinite(audit.model.log_probability(x + y, context))


@given(audit=st.integers(1, 3).flatmap(lambda count: audits(count, joined=True)))
def test_a_joined_audit_has_the_concatenation_for_its_instruction(audit):
    assert audit.target_instruction == audit.joined


REACHED = {
    "an instruction of two tokens": lambda a: any(len(each) == 2 for each in a.instructions),
    "an output of two tokens": lambda a: any(len(y) == 2 for _, y in a.target.pairs),
    "equal instructions": lambda a: a.instructions[0] == a.instructions[1],
    "a paraphrase": lambda a: a.target_instruction != a.joined,
    "the target's own data for a component": lambda a: same(a.components[0], a.target),
    "data without a pair in common": lambda a: not set(a.components[0].pairs) & set(a.target.pairs),
    "a coefficient below zero": lambda a: a.alphas.min() < 0,
    "two parameters": lambda a: len(a.model.theta) == 2,
    "a model that ignores its context": lambda a: np.ptp(a.model.features, axis=0).max() == 0,
}


def same(one, other):
    return one.pairs == other.pairs and np.array_equal(one.weights, other.weights)


@pytest.mark.parametrize("wanted", REACHED.values(), ids=REACHED)
def test_cases_that_matter_are_reached(wanted):
    assert wanted(find(audits(2), wanted, settings=QUIET))


def test_an_audit_shrinks_to_single_tokens_and_a_single_pair():
    audit = find(audits(2), lambda a: a.target_instruction != a.joined, settings=QUIET)
    assert {len(each) for each in audit.instructions} == {1} and len(audit.target.pairs) == 1
    assert not audit.model.features.any() and len(audit.model.theta) == 1
