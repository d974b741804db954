"""Two numbers a token: loss and greedy choice read off them are those of the whole softmax."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn.functional import cross_entropy

from diagnostics.inputs.token_readout import token_accuracy, token_losses, token_outputs

WIDTH, ROWS = 4, 3


@st.composite
def batches(draw):
    """Logits, the tokens that follow, and which of them are scored: at least one in every row."""
    vocabulary = draw(st.integers(2, 6))
    logits = draw(arrays(np.float64, (ROWS, WIDTH, vocabulary), elements=st.floats(-40, 40)))
    ids = draw(arrays(np.int64, (ROWS, WIDTH), elements=st.integers(0, vocabulary - 1)))
    spans = draw(st.lists(st.tuples(st.integers(0, WIDTH - 1), st.integers(1, WIDTH)), min_size=ROWS, max_size=ROWS))
    scored = np.zeros((ROWS, WIDTH), dtype=bool)
    for row, (start, length) in enumerate(spans):
        scored[row, start : start + length] = True
    return torch.tensor(logits), torch.tensor(ids), torch.tensor(scored)


def by_softmax(logits, ids, scored):
    """Loss and share of greedy tokens of each row, by the whole softmax of one token after another."""
    losses, shares = [], []
    for row, follow, mask in zip(logits.numpy(), ids.numpy(), scored.numpy(), strict=True):
        tokens = [(row[at], follow[at]) for at in np.flatnonzero(mask)]
        # p and 1 − p are sums of positive terms, so neither loses digits: −log p = log1p((1 − p)/p).
        odds = [np.delete(np.exp(each - each[t]), t).sum() for each, t in tokens]
        losses.append(np.log1p(odds).sum())
        shares.append(np.mean([(np.delete(each, t) < each[t]).all() for each, t in tokens]))
    return np.array(losses), np.array(shares)


def errors(outputs, logits, ids, scored):
    """Largest relative error of the losses, and number of rows with another share of greedy tokens."""
    losses, shares = by_softmax(logits, ids, scored)
    read = token_losses(outputs, scored).double().numpy()
    accuracy = token_accuracy(outputs, scored).double().numpy()
    return float(np.max(np.abs(read - losses) / losses)), int((np.abs(accuracy - shares) > 1e-6).sum())


@given(batches())
def test_losses_and_greedy_choices_are_those_of_the_softmax(batch):
    loss_error, wrong = errors(token_outputs(*batch), *batch)
    assert loss_error < 1e-10 and wrong == 0, f"losses are off by {loss_error}, {wrong} shares are wrong"


# One row: a confident token, one that loses by a little, a tie and a token far off.
LOGITS = torch.tensor([[[30.0, -5.0, 0.0], [1.0, 1.1, -2.0], [2.0, 2.0, 0.0], [-9.0, 3.0, 4.0]]], dtype=torch.float64)
IDS, ALL = torch.zeros(1, 4, dtype=torch.long), torch.ones(1, 4, dtype=torch.bool)


def test_the_case_of_the_mutants_passes():
    loss_error, wrong = errors(token_outputs(LOGITS, IDS, ALL), LOGITS, IDS, ALL)
    assert loss_error < 1e-12 and wrong == 0


def mutant(rivals):
    """Outputs by another definition of what the target is held against."""

    def outputs(logits, ids, scored):
        target = logits.gather(2, ids[..., None])
        return target - torch.stack(rivals(logits, target), -1)

    return outputs


MUTANTS = {
    "all tokens instead of the others": mutant(lambda x, t: [x.logsumexp(2), x.amax(2)]),
    "largest rival instead of their sum": mutant(lambda x, t: [x[..., 1:].amax(2), x[..., 1:].amax(2)]),
    "sum of rivals as the margin": mutant(lambda x, t: [x[..., 1:].logsumexp(2), x[..., 1:].logsumexp(2)]),
    "in single precision": lambda x, i, s: token_outputs(x.float(), i, s),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_other_definitions_fail(name):
    logits = LOGITS.clone()
    logits[0, 1] = torch.tensor([1.0, 0.9, 0.8])  # greedy, and yet less likely than its rivals together
    found = errors(MUTANTS[name](logits, IDS, ALL), logits, IDS, ALL)
    assert found[0] > 1e-10 or found[1], f"{name} was not caught: {found}"


def test_a_confident_token_keeps_its_small_loss():
    logits = torch.tensor([[[60.0, 0.0, 0.0]]])
    loss = float(token_losses(token_outputs(logits, IDS[:, :1], ALL[:, :1]), ALL[:, :1]))
    assert loss == pytest.approx(2 * np.exp(-60), rel=1e-6)
    assert float(cross_entropy(logits[0], IDS[0, :1])) == 0, "the loss by log-softmax has lost it"


@pytest.mark.parametrize("values", [[0.7], [0.7, -torch.inf, -torch.inf]], ids=["one token", "no other possible"])
def test_a_target_without_rivals_is_certain_and_differentiable(values):
    logits = torch.tensor([[values]], dtype=torch.float64)
    outputs, slope = torch.func.jvp(
        lambda x: token_outputs(x, IDS[:, :1], ALL[:, :1]), (logits,), (torch.ones_like(logits),)
    )
    assert outputs.isfinite().all() and slope.eq(0).all()
    assert torch.func.grad(lambda x: token_outputs(x, IDS[:, :1], ALL[:, :1]).sum())(logits).eq(0).all()
    assert token_losses(outputs, ALL[:, :1]).item() == 0 and token_accuracy(outputs, ALL[:, :1]).item() == 1


UNEVEN = torch.tensor([[True, True, True, True], [False, True, True, False]])
TWO = (LOGITS.repeat(2, 1, 1), IDS.repeat(2, 1), UNEVEN)


def test_padding_is_zero_whatever_the_model_says():
    outputs = token_outputs(*TWO)
    assert outputs.shape == (2, 4, 2) and outputs[1, 2:].eq(0).all() and outputs[1, :2].ne(0).any()
    one = token_outputs(LOGITS[:, 1:3], IDS[:, 1:3], ALL[:, 1:3])
    assert torch.equal(outputs[1, :2], one[0]), "the scored tokens come first, in their order"


@pytest.mark.parametrize("value", [7.0, -7.0, float("nan"), float("inf")])
def test_what_stands_at_padding_counts_for_nothing(value):
    """Predicted outputs may hold anything there: the batch says what is scored."""
    outputs = token_outputs(*TWO)
    changed = outputs.clone()
    changed[1, 2:] = value
    assert torch.equal(token_losses(changed, UNEVEN), token_losses(outputs, UNEVEN))
    assert torch.equal(token_accuracy(changed, UNEVEN), token_accuracy(outputs, UNEVEN))
    changed[1, 1] = value
    assert not torch.equal(token_losses(changed, UNEVEN), token_losses(outputs, UNEVEN)), "a scored place must count"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_before_the_sum(dtype):
    logits = TWO[0].to(dtype)
    found = token_outputs(logits, *TWO[1:])
    assert found.dtype == torch.float32 and torch.equal(found, token_outputs(logits.float(), *TWO[1:]))


def test_nothing_of_the_vocabulary_is_kept():
    outputs = token_outputs(torch.randn(2, 4, 5000), *TWO[1:])
    assert outputs.untyped_storage().nbytes() == 2 * 4 * 2 * 4
