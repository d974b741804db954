"""A language model written down in full: probabilities add up, gradients are autograd's, errors are bounded."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.exact.language import Audit, Distribution, LanguageModel
from diagnostics.testing import lift
from diagnostics.testing.language import language_models

LENGTH = 3


@st.composite
def with_prefix(draw):
    """A model over two or three tokens, and a prefix that leaves room for one token more at least."""
    size = draw(st.sampled_from([2, 3]))
    model = draw(language_models(LENGTH, vocabulary=size, dimension=draw(st.integers(1, 3))))
    return model, tuple(draw(st.lists(st.integers(0, size - 1), max_size=LENGTH - 1)))


def continuations(model, length):
    return list(product(range(model.vocabulary), repeat=length))


def autograd(model, segment, prefix):
    """Log p and its gradient from the definition: a table of logits by prefix, and log-softmax."""
    theta = torch.tensor(model.theta, requires_grad=True)
    place = {
        each: row
        for row, each in enumerate(
            c for length in range(LENGTH) for c in product(range(model.vocabulary), repeat=length)
        )
    }
    logits = torch.tensor(model.features) @ theta
    whole = prefix + segment
    total = sum(logits[place[whole[:end]]].log_softmax(-1)[whole[end]] for end in range(len(prefix), len(whole)))
    return total.item(), torch.autograd.grad(total, theta)[0].numpy()


@given(case=with_prefix())
def test_probabilities_of_all_continuations_add_up_to_one(case):
    model, prefix = case
    for length in range(1, LENGTH - len(prefix) + 1):
        parts = [np.exp(model.log_probability(each, prefix)) for each in continuations(model, length)]
        assert sum(parts) == pytest.approx(1, abs=1e-14) and min(parts) > 0


@given(case=with_prefix())
def test_the_expected_gradient_is_zero_because_probabilities_add_up(case):
    model, prefix = case
    every = continuations(model, LENGTH - len(prefix))
    scores = [np.exp(model.log_probability(each, prefix)) * model.gradient(each, prefix) for each in every]
    np.testing.assert_allclose(sum(scores), 0, atol=1e-14)


@given(case=with_prefix(), data=st.data())
def test_values_and_gradients_are_those_of_autograd(case, data):
    model, prefix = case
    segment = data.draw(st.sampled_from(continuations(model, LENGTH - len(prefix))))
    value, gradient = autograd(model, segment, prefix)
    assert model.log_probability(segment, prefix) == pytest.approx(value, abs=1e-13)
    np.testing.assert_allclose(model.gradient(segment, prefix), gradient, atol=1e-13)


@given(case=with_prefix(), data=st.data())
def test_gradients_are_those_of_central_differences(case, data):
    model, prefix = case
    segment = data.draw(st.sampled_from(continuations(model, LENGTH - len(prefix))))
    step = 1e-5
    moved = [
        [LanguageModel(model.features, model.theta + sign * step * unit) for sign in (1, -1)]
        for unit in np.eye(len(model.theta))
    ]
    values = [[each.log_probability(segment, prefix) for each in pair] for pair in moved]
    slopes = [(up - down) / (2 * step) for up, down in values]
    np.testing.assert_allclose(model.gradient(segment, prefix), slopes, atol=1e-8)


@given(case=with_prefix(), data=st.data())
def test_segments_in_a_row_multiply(case, data):
    """p(ab | c) = p(a | c) p(b | ca)."""
    model, prefix = case
    whole = data.draw(st.sampled_from(continuations(model, LENGTH - len(prefix))))
    cut = data.draw(st.integers(0, len(whole)))
    first, second = whole[:cut], whole[cut:]
    for function in (model.log_probability, model.gradient):
        apart = function(first, prefix) + function(second, prefix + first)
        np.testing.assert_allclose(function(whole, prefix), apart, atol=1e-13)


@given(case=with_prefix(), data=st.data())
def test_the_error_bound_holds_what_more_digits_say(case, data):
    """NumPy's extended precision on the same formula."""
    model, prefix = case
    segment = data.draw(st.sampled_from(continuations(model, LENGTH - len(prefix))))
    fine = LanguageModel(model.features.astype(np.longdouble), model.theta.astype(np.longdouble))
    bounded = lift(model)
    for name in ("log_probability", "gradient"):
        found = getattr(bounded, name)(segment, prefix)
        missed = abs(found.value - getattr(fine, name)(segment, prefix))
        assert np.all(missed <= found.error) and np.max(found.error) < 1e-12


def test_a_model_that_can_be_checked_by_hand():
    """p(1) = ½ at the start; after a 1 the logits are (0, 2θ) with θ = log 2, so p(1 | 1) = 4/5."""
    features = np.zeros((3, 2, 1))
    features[2, 1, 0] = 2.0
    model = LanguageModel(features, np.log([2.0]))
    assert np.exp(model.log_probability((1,))) == pytest.approx(0.5)
    assert np.exp(model.log_probability((1, 1))) == pytest.approx(0.4)
    assert np.exp(model.log_probability((1,), (0,))) == pytest.approx(0.5)
    assert model.gradient((1, 1)) == pytest.approx([2 / 5]) and model.gradient((1,)) == pytest.approx([0])


def test_nothing_has_probability_one():
    model = LanguageModel(np.ones((1, 2, 1)), np.ones(1))
    assert model.log_probability(()) == 0 and model.gradient(()).tolist() == [0]


def test_a_prefix_that_the_table_does_not_reach_is_refused():
    with pytest.raises(IndexError):
        LanguageModel(np.zeros((1, 2, 1)), np.zeros(1)).log_probability((0, 0))


def test_means_and_weights_of_data():
    data = Distribution((((0,), (1,)), ((1,), (1,))), np.array([0.25, 0.75]))
    assert data.mean(lambda x, y: float(x[0] + 10 * y[0])) == 10.75
    assert data.weight(((1,), (1,))) == 0.75 and data.weight(((1,), (0,))) == 0


def test_the_loss_gradient_of_an_audit_is_minus_the_mean_score_of_y():
    model = LanguageModel(np.arange(14.0).reshape(7, 2, 1) % 3, np.array([0.5]))
    data = Distribution((((0,), (1,)), ((1,), (0,))), np.array([0.25, 0.75]))
    audit = Audit(model, ((0,), (1,)), (1,), data, (data, data), np.ones(2))
    assert audit.joined == (0, 1)
    expected = -0.25 * model.gradient((1,), (1, 0)) - 0.75 * model.gradient((0,), (1, 1))
    np.testing.assert_allclose(audit.mean_gradient(data, (1,)), expected)
