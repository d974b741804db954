"""How far two models disagree on an example: divergences and predictions by their definitions, outputs of all kinds."""

import math

import pytest
import torch

from diagnostics import InputError, Task
from diagnostics.inputs.token_readout import token_outputs
from diagnostics.measures.disagreement import Predictions, jensen_shannon, kullback_leibler, read_predictions


def task_of(*batches, sizes=None):
    """A task of which only the batches matter."""
    return Task("t", lambda p, b: torch.zeros(()), list(batches), sizes=sizes)


def classifier(*outputs):
    """What a model says whose outputs are class logits, without targets."""
    return read_predictions(task_of(*(torch.zeros(len(out)) for out in outputs)), outputs, "θ")


def test_divergences_are_those_of_their_definitions():
    p, q = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.25, 0.25, 0.5]])
    logits = [each.double().clamp_min(1e-300).log() for each in (p, q)]
    middle = [0.375, 0.375, 0.25]
    expected = 0.5 * (math.log2(0.5 / 0.375)) + 0.5 * (0.5 * math.log2(0.25 / 0.375) + 0.5 * math.log2(0.5 / middle[2]))
    assert jensen_shannon(*logits).item() == pytest.approx(expected)
    assert jensen_shannon(*logits[::-1]).item() == pytest.approx(expected)
    assert kullback_leibler(*logits).item() == pytest.approx(math.log(2))
    same = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    assert jensen_shannon(same, same).max() == 0 == kullback_leibler(same, same).max()
    assert jensen_shannon(same, same + 3.0).max() < 1e-12, "a number added to all logits changes no distribution"
    far = torch.tensor([[2000.0, 0.0]])
    assert jensen_shannon(far, -far).item() == 1 and kullback_leibler(far, -far).item() == 2000


def test_each_pair_has_its_own_divergence():
    first, second = torch.randn(2, 20, 5, generator=torch.Generator().manual_seed(0)).double()
    for i, (p, q) in enumerate(zip(first.softmax(1).tolist(), second.softmax(1).tolist(), strict=True)):
        middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        halves = [sum(a * math.log2(a / m) for a, m in zip(each, middle, strict=True)) / 2 for each in (p, q)]
        assert jensen_shannon(first, second)[i].item() == pytest.approx(sum(halves))
        nats = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        assert kullback_leibler(first, second)[i].item() == pytest.approx(nats)


def test_a_class_that_neither_can_take_adds_nothing():
    first, second = torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(0))
    never = torch.full((8, 1), -4000.0)
    with_it = jensen_shannon(torch.cat([first, never], 1), torch.cat([second, never], 1))
    torch.testing.assert_close(with_it, jensen_shannon(first, second))


def test_rounding_takes_no_divergence_out_of_its_range():
    first, second = torch.randn(2, 200, 4, generator=torch.Generator().manual_seed(0)).double()
    near = jensen_shannon(first, first + 1e-9 * second)
    assert near.min() == 0 and near.max() < 1e-12
    apart = torch.tensor([2000.0, 2000, 0, 0])
    far = jensen_shannon(first + apart, second - apart)
    assert far.max() == 1 and far.min() > 1 - 1e-12
    assert kullback_leibler(first, first + 1e-9 * second).min() >= 0


def test_classifiers_differ_where_their_largest_logits_do():
    batches = torch.randn(2, 12, 3, generator=torch.Generator().manual_seed(0))
    first, second = (classifier(logits[:5], logits[5:]) for logits in batches)
    expected = [float(a.index(max(a)) != b.index(max(b))) for a, b in zip(*batches.tolist(), strict=True)]
    assert first.differs(second).tolist() == expected and 0 < sum(expected) < 12
    assert torch.equal(first.logits, batches[0]) and first.examples == 12
    assert torch.equal(first.per_example(torch.arange(12)), torch.arange(12).double())


def test_ties_are_rows_with_several_largest_logits():
    rows = torch.tensor([[1.0, 1.0, 0.0], [2.0, 1.0, 0.0], [0.0, 3.0, 3.0], [1.0, 1.0, 1.0]])
    assert classifier(rows).ties == 3
    assert classifier(rows[1:2]).ties == 0


def said(logits, ids, masks):
    """What a language model says, a batch for each of the masks."""
    split = [len(mask) for mask in masks]
    parts = zip(logits.split(split), ids.split(split), masks, strict=True)
    return read_predictions(task_of(*({"y": mask} for mask in masks)), [token_outputs(*each) for each in parts], "θ")


def test_language_models_differ_by_the_share_of_an_example_s_tokens():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 6, 7, 3, generator=generator)
    ids = torch.randint(3, (6, 7), generator=generator)
    # Batches of unlike sizes, and rows of unlike numbers of tokens, of which one has as many as there are places.
    mask = torch.arange(7) >= torch.tensor([3, 5, 0, 6, 2, 1])[:, None]
    mask[:, 4] = False
    one, two = (said(logits, ids, mask.split([2, 3, 1])) for logits in (first, second))
    shares = []
    for i in range(6):
        hits = [(logits[i].argmax(1) == ids[i])[mask[i]] for logits in (first, second)]
        shares.append(float((hits[0] != hits[1]).double().mean()))
    assert one.differs(two).tolist() == pytest.approx(shares) and 0 < sum(shares) < 6
    odds = first.softmax(2).gather(2, ids[..., None])[mask]
    torch.testing.assert_close(one.logits.softmax(1), torch.cat([1 - odds, odds], 1))
    assert one.examples == 6 and one.owner.tolist() == mask.nonzero()[:, 0].tolist()


def test_a_margin_of_zero_is_not_the_greedy_choice():
    found = [
        read_predictions(task_of({"y": torch.ones(1, 3)}), [torch.tensor([[[0.0, margin]] * 3])], "")
        for margin in (-1.0, 0.0, 1.0)
    ]
    assert [found[1].differs(other).item() for other in found] == [0, 0, 1]
    assert [each.ties for each in found] == [0, 3, 0]


def test_an_example_without_tokens_has_no_mean():
    said = Predictions(torch.zeros(3, 2), torch.zeros(3, 2), torch.tensor([0, 0, 1]), 3)
    means = said.per_example(torch.tensor([1.0, 2.0, 5.0]))
    assert means[:2].tolist() == [1.5, 5] and means[2].isnan()


@pytest.mark.parametrize(
    "batch",
    [
        torch.zeros(4),
        (torch.zeros(4, 5), torch.tensor([0, 1, 1, 0])),
        (torch.zeros(4, 2), torch.ones(4, 2), torch.tensor([0, 1, 1, 0])),
        (torch.zeros(4, 5),),
        {"x": torch.zeros(4, 5), "y": torch.tensor([0, 1, 1, 0])},
        [torch.zeros(4, 5), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.25, 0.75], [0.5, 0.50005]])],
    ],
    ids=["inputs alone", "classes", "three tensors", "one tensor", "by name", "shares of classes, rounded"],
)
def test_outputs_are_class_logits_unless_targets_say_otherwise(batch):
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 3.0], [5.0, 4.0]])
    found = read_predictions(task_of(batch), [logits], "")
    assert torch.equal(found.choice, logits) and found.owner is None


@pytest.mark.parametrize(
    "targets",
    [[[0.5, 0.25], [0.5, 0.75]], [[0.5, 1.0], [1.0, 0.0]], [[-1.0, 2.0], [1.0, 0.0]]],
    ids=["too little", "too much", "negative"],
)
@pytest.mark.parametrize("kind", [tuple, list])
def test_real_numbers_as_targets_are_refused(targets, kind):
    batch = kind([torch.zeros(2, 3), torch.tensor(targets)])
    with pytest.raises(InputError, match="real-valued outputs have no predictions that could differ"):
        read_predictions(task_of(batch), [torch.zeros(2, 2)], "")


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 4, 2), (3, 4, 3)])
@pytest.mark.parametrize("targets", [torch.tensor([0, 1, 1]), torch.zeros(3)])
def test_outputs_that_are_no_logits_of_classes_are_refused(shape, targets):
    said = rf"task 't': expected class logits.* outputs of shapes \[\({', '.join(map(str, shape[1:]))},?\)\] for"
    with pytest.raises(InputError, match=f"{said}.* A single logit z becomes two as"):
        read_predictions(task_of((torch.zeros(3, 2), targets)), [torch.zeros(shape)], "")


@pytest.mark.parametrize("shape", [(3, 4, 3), (3, 4, 2, 2), (3, 1)])
def test_tokens_have_two_numbers_each(shape):
    with pytest.raises(InputError, match=r"or the tokens of Task\.from_causal_lm"):
        read_predictions(task_of({"y": torch.ones(3, 4)}), [torch.zeros(shape)], "")


def test_predictions_of_the_wrong_number_of_examples_are_refused():
    task = Task("t", lambda p, b: b.sum(), [torch.zeros(3)])
    with pytest.raises(InputError, match="outputs of 3 examples; found 2"):
        read_predictions(task, [torch.zeros(2, 2)], "")


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_outputs_that_overflow_are_refused(value):
    outputs = [torch.zeros(2, 2), torch.tensor([[0.0, value]])]
    with pytest.raises(
        InputError, match=r"expected finite outputs; those at the edge are not.* half precision, or take a narrower"
    ):
        read_predictions(task_of(torch.zeros(2), torch.zeros(1)), outputs, "the edge")
