"""How far two models disagree on an example: divergences by their definitions."""

import math

import pytest
import torch

from diagnostics import InputError, Task
from diagnostics.measures.disagreement import jensen_shannon, kullback_leibler, read_predictions


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


def test_predictions_of_the_wrong_number_of_examples_are_refused():
    task = Task("t", lambda p, b: b.sum(), [torch.zeros(3)])
    with pytest.raises(InputError, match="outputs of 3 examples; found 2"):
        read_predictions(task, [torch.zeros(2, 2)], "")
