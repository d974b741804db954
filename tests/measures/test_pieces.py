"""Data dealt out to folds: every example once, with its share, and only where cutting changes nothing."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.errors import InputError
from diagnostics.inputs.tasks import Task
from diagnostics.measures.pieces import pieces_of, single_examples

POINT = {"w": torch.tensor([1.5])}


def mean_task(sizes):
    """Batches of the numbers 0, 1, 2, …; the loss is a mean over examples."""
    numbers = torch.arange(float(sum(sizes)))
    return Task("t", lambda p, b: ((p["w"] * b) ** 2).mean(), list(numbers.split(list(sizes))))


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4), folds=st.integers(1, 9))
def test_every_example_is_dealt_once_with_its_share(sizes, folds):
    task = mean_task(sizes)
    pieces = pieces_of(task, POINT, folds)
    cut = len(sizes) < folds and sum(sizes) > len(sizes)
    assert pieces.available == (sum(sizes) if cut else len(sizes))
    count = min(folds, pieces.available)
    dealt = list(pieces.deal(count))
    assert sorted(float(x) for _, _, batch in dealt for x in batch) == [float(i) for i in range(sum(sizes))]
    for _, share, batch in dealt:
        assert share == pytest.approx(len(batch) / sum(sizes))
    held = Counter()
    for fold, _, batch in dealt:
        held[fold] += len(batch) if cut else 1
    assert set(held) == set(range(count)), "no fold is empty"
    assert max(held.values()) - min(held.values()) <= 1, "in turn, whatever the sizes of batches"


def test_examples_go_to_folds_in_turn_across_batches():
    dealt = list(pieces_of(mean_task([3, 2]), POINT, 3).deal(3))
    found = sorted((float(x), fold) for fold, _, batch in dealt for x in batch)
    assert [fold for _, fold in found] == [0, 1, 2, 0, 1]


def test_batches_go_to_folds_in_turn():
    dealt = list(pieces_of(mean_task([1, 2, 3]), POINT, 2).deal(2))
    assert [(fold, batch.tolist()) for fold, _, batch in dealt] == [(0, [0.0]), (1, [1.0, 2.0]), (0, [3.0, 4.0, 5.0])]
    assert [share for _, share, _ in dealt] == pytest.approx([1 / 6, 2 / 6, 3 / 6])


NESTED = {"x": torch.arange(4.0), "more": (torch.arange(4.0), [torch.ones(4, 2)]), "k": 3, "none": None, "f": 0.5}


def test_nested_batches_are_cut_together():
    task = Task("t", lambda p, b: (p["w"] * b["x"] * b["more"][0] * b["more"][1][0][:, 0]).mean(), [NESTED])
    first, second = (batch for _, _, batch in pieces_of(task, POINT, 2).deal(2))
    for batch, numbers in ((first, [0.0, 2.0]), (second, [1.0, 3.0])):
        assert batch["x"].tolist() == numbers == batch["more"][0].tolist()
        assert isinstance(batch["more"], tuple) and isinstance(batch["more"][1], list)
        assert batch["more"][1][0].shape == (2, 2) and (batch["k"], batch["none"], batch["f"]) == (3, None, 0.5)


def loss(p, b):
    return (p["w"] * b["x"]).mean()


UNCUTTABLE = {
    "a sum": Task("t", lambda p, b: (p["w"] * b).sum(), [torch.arange(4.0)]),
    "a mean over pairs": Task("t", lambda p, b: (p["w"] * b[:, None] * b).mean(), [torch.arange(4.0)]),
    "a text": Task("t", loss, [{"x": torch.arange(4.0), "name": "abcd"}]),
    "another length": Task("t", loss, [{"x": torch.arange(4.0), "y": torch.zeros(3)}]),
    "no length": Task("t", loss, [{"x": torch.arange(4.0), "y": torch.tensor(1.0)}]),
    "an object": Task("t", loss, [{"x": torch.arange(4.0), "y": object()}]),
}


@pytest.mark.parametrize("name", UNCUTTABLE)
def test_what_cannot_be_cut_is_one_piece(name):
    task = UNCUTTABLE[name]
    pieces = pieces_of(task, POINT, 2)
    assert pieces.available == 1
    (found,) = pieces.deal(1)
    assert found[:2] == (0, 1.0) and found[2] is next(iter(task.batches))
    with pytest.raises(InputError) as caught:
        list(single_examples(task, POINT))
    assert str(caught.value) == (
        "task 't': expected batches of tensors with examples first, and a loss that is the mean over them, so that "
        "each example can be taken by itself; found others. Give batches of one example."
    )


def test_the_largest_batch_tells_whether_the_loss_is_a_mean():
    """A batch of one example cannot: a sum over it is its mean."""
    task = Task("t", lambda p, b: (p["w"] * b).sum(), [torch.ones(1), torch.arange(4.0), torch.ones(1)])
    assert pieces_of(task, POINT, 5).available == 3


def test_small_gradients_are_compared_by_their_own_size():
    tiny = Task("t", lambda p, b: 1e-9 * (p["w"] * b).sum(), [torch.arange(4.0)])
    assert pieces_of(tiny, POINT, 2).available == 1
    vanishing = Task("t", lambda p, b: (0 * p["w"] * b).mean(), [torch.arange(4.0)])
    assert pieces_of(vanishing, POINT, 2).available == 4, "nothing of nothing is lost"


@pytest.mark.parametrize("slip", [0.5e-3, 2e-3])
def test_a_gradient_may_be_off_by_rounding_and_no_more(slip):
    """The loss of a whole batch of 4 is (1 + slip) times the mean."""
    task = Task("t", lambda p, b: (1 + slip * (len(b) == 4)) * (p["w"] * b).mean(), [torch.ones(4)])
    assert pieces_of(task, POINT, 2).available == (4 if slip < 1e-3 else 1)


def test_single_examples_come_in_order():
    assert [batch.tolist() for batch in single_examples(mean_task([2, 1, 3]), POINT)] == [[float(i)] for i in range(6)]
    lone = Task("t", lambda p, b: p["w"].sum() * b["x"], [{"x": 1.0}, {"x": 2.0}], sizes=(1, 1))
    found = list(single_examples(lone, POINT))
    assert all(each is batch for each, batch in zip(found, lone.batches, strict=True)), "one example is not cut"
    named = Task(
        "t", lambda p, b: p["w"].sum() * b["x"], [{"x": 1.0, "name": "one"}, {"x": 2.0, "name": "two"}], sizes=(1, 1)
    )
    assert [each["name"] for each in single_examples(named, POINT)] == ["one", "two"], "so it need not be cuttable"
