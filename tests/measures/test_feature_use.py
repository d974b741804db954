"""feature_use: finite differences at every pre-activation, layers of all kinds, what is not seen is named."""

import itertools
import json
import math
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from diagnostics import InputError, Task
from diagnostics.inputs.readout import Readout
from diagnostics.measures import feature_use as module
from diagnostics.measures import profiles as profiles_module
from diagnostics.measures.feature_use import feature_use
from diagnostics.measures.profiles import (
    IDLE,
    SHARED,
    assign_features,
    chance_deviation,
    chance_overlap,
    normalised,
    profile_overlap,
    set_cosines,
)
from tests.cases import small_task
from tests.inputs.tiny_models import bert

EPS = 1e-6


class Tokens(nn.Module):
    """A layer applied to each token, in place afterwards, one read twice, and one that is skipped."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 3)
        self.first = nn.Linear(3, 4, bias=False)
        self.twice = Conv1D(4, 4)
        self.norm = nn.LayerNorm(4)
        self.unused = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, ids):
        hidden = nn.functional.relu(self.first(self.embed(ids)), inplace=True)
        hidden = torch.tanh(self.twice(torch.tanh(self.twice(hidden))))
        return self.head(self.norm(hidden).mean(1))


def token_task(seed=0):
    torch.manual_seed(seed)
    model = Tokens().double()
    data = (torch.randint(0, 7, (5, 3)), torch.tensor([0, 1, 0, 1, 1]))
    task = Task.from_module("tokens", model, nn.functional.cross_entropy, data, batch_size=2)
    return model, task, {name: value.detach() for name, value in model.named_parameters()}


def shifted_outputs(model, layer, inputs, call, place, step):
    """The outputs of one example after one number of one call's pre-activations is moved."""
    calls = []

    def move(_module, _inputs, output):
        calls.append(1)
        moved = output.clone()
        if len(calls) - 1 == call:
            moved[(0, *place)] += step
        return moved

    handle = layer.register_forward_hook(move)
    out = model(inputs[None])[0].detach()
    handle.remove()
    return out


def slow_use(model, layer, inputs, calls, positions, width):
    """Σ_positions ‖∂f/∂z_k‖ by central differences, number by number."""
    use = np.zeros(width)
    for call in range(calls):
        for position in positions:
            for k in range(width):
                ends = [shifted_outputs(model, layer, inputs, call, (*position, k), s) for s in (EPS, -EPS)]
                use[k] += float(((ends[0] - ends[1]) / (2 * EPS)).norm())
    return use


def matches_finite_differences(use):
    model, task, _ = token_task()
    inputs = torch.cat([batch[0] for batch in task.batches])
    spots = [(i,) for i in range(3)]
    shapes = {"first": (1, spots, 4), "twice": (2, spots, 4), "head": (1, [()], 2)}
    for name, (calls, positions, width) in shapes.items():
        for row, x in enumerate(inputs):
            expected = slow_use(model, model.get_submodule(name), x, calls, positions, width)
            np.testing.assert_allclose(use.examples[f"{name}.weight"][row], expected, atol=1e-7)


def test_use_is_that_of_finite_differences():
    _, task, params = token_task()
    matches_finite_differences(feature_use(task, params))


@pytest.mark.parametrize(
    "mutant",
    [
        lambda outputs, limit, generator: torch.ones(1, 1, outputs.shape[1], dtype=outputs.dtype),
        lambda outputs, limit, generator: torch.eye(outputs.shape[1], dtype=outputs.dtype)[:1, None],
    ],
    ids=["outputs added up first", "one output only"],
)
def test_mutants_fail(monkeypatch, mutant):
    monkeypatch.setattr(module, "_signs", mutant)
    _, task, params = token_task()
    with pytest.raises(AssertionError):
        matches_finite_differences(feature_use(task, params))


def test_what_is_not_seen_is_named():
    _, task, params = token_task()
    use = feature_use(task, params)
    assert use.not_covered == {
        "embed.weight": "Embedding, not a linear layer of its input",
        "unused.weight": "not the weight of a linear layer that was run",
    }
    assert use.sides == {"first.weight": "rows", "twice.weight": "columns", "head.weight": "rows"}
    assert str(use).splitlines()[1:] == [f"  note: not covered: {name}, {why}" for name, why in use.not_covered.items()]
    assert use.to_dict()["notes"] == list(use.notes) and len(use.notes) == 2
    assert set(feature_use(task, params, layers=["first.weight"]).examples) == {"first.weight"}
    assert not nn.modules.module._global_forward_hooks, "nothing listens afterwards"


def test_a_linear_model_known_by_hand():
    model = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 2, bias=False))
    head = torch.tensor([[3.0, 0.0], [4.0, -2.0]])
    data = (torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1] * 3))
    task = Task.from_module("t", model, nn.functional.cross_entropy, data)
    use = feature_use(task, {"0.weight": torch.ones(2, 3), "1.weight": head})
    assert use.mean["0.weight"].tolist() == [5, 2] and use.mean["1.weight"].tolist() == [1, 1]
    assert (use.task, use.outputs, use.projections) == ("t", 2, None)
    assert (use.cost.gradients, use.cost.backwards) == (1, 1), "a backward pass for each output"
    stored = json.loads(json.dumps(use.to_dict()))
    assert stored["count"] == 6 and "examples" not in stored
    assert stored["mean"] == {"0.weight": [5, 2], "1.weight": [1, 1]}


def test_padding_and_batches_change_nothing():
    model = bert(0)
    params = {name: value.detach() for name, value in model.named_parameters()}
    ids = torch.tensor([[2, 5, 7, 3], [2, 6, 3, 0], [2, 4, 9, 3]])

    def use(ids, mask, batch_size):
        data = ({"input_ids": ids, "attention_mask": mask}, torch.tensor([0, 1, 0]))
        task = Task.from_module("bert", model, nn.functional.cross_entropy, data, batch_size=batch_size)
        return feature_use(task, params)

    mask = (ids > 0).long()
    whole = use(ids, mask, 3)
    padded = use(nn.functional.pad(ids, (0, 4)), nn.functional.pad(mask, (0, 4)), 2)
    assert len(whole.examples) == 2 * 6 + 2, "two blocks of six layers, the pooler and the head"
    assert "bert.embeddings.word_embeddings.weight" in whole.not_covered
    for name, values in whole.examples.items():
        torch.testing.assert_close(values, padded.examples[name], rtol=1e-4, atol=1e-6)


def test_bound_parameters_do_not_hide_the_others():
    _, task, params = token_task()
    head = {name: params.pop(name) for name in ("head.weight", "head.bias")}
    bound = feature_use(task.bind(head), params)
    assert set(bound.examples) == {"first.weight", "twice.weight"}
    matches = feature_use(task, {**params, **head})
    assert torch.equal(bound.examples["first.weight"], matches.examples["first.weight"])


def wide_task(outputs):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, outputs)).double()
    data = (torch.randn(8, 3).double(), torch.arange(8))
    return Task.from_module("wide", model, nn.functional.cross_entropy, data), dict(model.named_parameters())


def test_random_combinations_have_the_right_mean_square():
    task, params = wide_task(40)
    exact = feature_use(task, params, max_outputs=40)
    assert exact.projections is None
    drawn = [feature_use(task, params, max_outputs=8, seed=seed) for seed in range(60)]
    found = torch.stack([each.examples["0.weight"] for each in drawn])
    squares = found.square()
    deviations = (squares.mean(0) - exact.examples["0.weight"].square()) / (squares.std(0) / math.sqrt(60))
    assert deviations.abs().max() < 5
    assert drawn[0].projections == 8 and "40 outputs seen through 8 random projections" in drawn[0].notes[-1]
    assert float((found.std(0) / found.mean(0)).mean()) == pytest.approx(0.25, abs=0.03)
    assert drawn[0].notes[-1].endswith("off by about 25%")


def test_combinations_are_drawn_by_the_seed_alone():
    task, params = wide_task(33)
    first = feature_use(task, params)
    assert first.projections == 32, "more outputs than are differentiated one by one"
    state = torch.get_rng_state()
    again = feature_use(task, params, max_outputs=32, seed=0).examples
    assert all(torch.equal(values, again[name]) for name, values in first.examples.items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(feature_use(task, params, seed=1).examples["0.weight"], again["0.weight"])


def test_squares_of_large_derivatives_do_not_overflow():
    model = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 2, bias=False))
    task = Task.from_module("t", model, nn.functional.cross_entropy, (torch.zeros(4, 3), torch.tensor([0, 1, 0, 1])))
    use = feature_use(task, {"0.weight": torch.ones(2, 3), "1.weight": torch.tensor([[3e25, 0.0], [4e25, -2e25]])})
    assert use.mean["0.weight"].tolist() == pytest.approx([5e25, 2e25])


class Odd(nn.Module):
    """Layers that see several examples at once, one whose output nothing reads, and a weight without a layer."""

    def __init__(self):
        super().__init__()
        self.flat, self.pooled, self.ignored, self.head = (nn.Linear(4, 4, bias=False) for _ in range(4))
        self.cube = nn.Parameter(torch.ones(2, 2, 2))

    def forward(self, rows):
        self.ignored(rows[:, 0])
        hidden = self.flat(rows.flatten(0, 1)).view_as(rows).mean(1)
        return self.head(hidden + self.pooled(rows[0, 0]) * self.cube.sum())[:, 0]


def test_layers_without_a_row_for_each_example_are_not_covered():
    torch.manual_seed(0)
    model = Odd()
    task = Task.from_module("odd", model, nn.functional.mse_loss, (torch.randn(4, 3, 4), torch.zeros(4)))
    use = feature_use(task, {name: value.detach() for name, value in model.named_parameters()})
    assert use.not_covered == {
        "cube": "3 dimensions",
        "flat.weight": "its output [12, 4] does not have 4 examples first",
        "pooled.weight": "its output [4] does not have 4 examples first",
    }
    assert use.outputs == 1, "one number an example"
    assert use.examples["head.weight"].tolist() == [[1, 0, 0, 0]] * 4
    assert use.examples["ignored.weight"].tolist() == [[0] * 4] * 4, "run, and of no use"


class Kept:
    """A tensor that is kept for derivatives."""

    def __init__(self, tensor):
        self.tensor = tensor.detach()


def test_of_what_one_batch_keeps_only_its_inputs_are_left_when_the_next_runs():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    kept, left, made = weakref.WeakSet(), [], []

    def keep(tensor):
        held = Kept(tensor)
        kept.add(held)
        return held

    def outputs(params, inputs):
        left.extend(tuple(held.tensor.shape) for held in kept)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda held: held.tensor):
            out = torch.func.functional_call(model, dict(params), (inputs,))
        made.extend(tuple(held.tensor.shape) for held in kept)
        return out

    readout = Readout(outputs, lambda out, batch: out.sum(1), None)
    task = Task("t", lambda p, b: outputs(p, b).sum(), list(torch.randn(3, 5, 3)), readout=readout)
    feature_use(task, {name: value.detach() for name, value in model.named_parameters()})
    assert set(left) <= {(5, 3)} and (5, 4) in made


def test_a_model_without_layers_or_outputs_is_refused():
    task, params = small_task()
    with pytest.raises(InputError, match="has a loss only"):
        feature_use(Task("loss", lambda p, b: p["w"].sum(), [torch.zeros(1)]), {"w": torch.zeros(2, 2)})
    with pytest.raises(InputError, match=r"^max_outputs"):
        feature_use(task, params, max_outputs=0)
    with pytest.raises(InputError, match="expected weights of task 'task'"):
        feature_use(task, params, layers=["9.weight"])
    bare = Readout(lambda p, b: b @ p["w"], lambda out, b: out.sum(1), None)
    by_hand = Task("by hand", lambda p, b: (b @ p["w"]).sum(), [torch.zeros(2, 3)], readout=bare)
    with pytest.raises(
        InputError, match=r"ran no torch\.nn\.Linear .*, so it has no pre-activations to look at. Write"
    ):
        feature_use(by_hand, {"w": torch.zeros(3, 2)})
    rows = Readout(lambda p, b: nn.functional.linear(b, p["w"])[:1], lambda out, b: out.sum(1), None)
    short = Task("short", lambda p, b: p["w"].sum(), [torch.zeros(2, 3)], readout=rows)
    with pytest.raises(
        InputError, match=r"outputs of 2 examples first; found shape \[1, 3\]. Outputs by token are not"
    ):
        feature_use(short, {"w": torch.zeros(3, 3)})
    total = Readout(lambda p, b: (b @ p["w"]).sum(), lambda out, b: out, None)
    added = Task("added", lambda p, b: p["w"].sum(), [torch.zeros(2, 3)], readout=total)
    with pytest.raises(InputError, match=r"outputs of 2 examples first; found shape \[\]"):
        feature_use(added, {"w": torch.zeros(3, 3)})


@pytest.mark.parametrize("seed", range(3))
def test_profiles_by_definition(seed):
    first, second = normalised(torch.rand(2, 7, generator=torch.Generator().manual_seed(seed)).double() ** 3)
    assert profile_overlap(first, second) == pytest.approx(float(1 - (first - second).abs().sum() / 2))
    pairs = [[min(float(a), float(b)) for a in first] for b in second]
    assert chance_overlap(first, second) == pytest.approx(np.sum(pairs) / 7)
    assert profile_overlap(first, first) == pytest.approx(1)


def test_owners_need_a_margin():
    profiles = torch.tensor([[0.5, 0.3, 0.2, 0.0], [0.4, 0.1, 0.5, 0.0]])
    assert assign_features(profiles, 0.2).tolist() == [0, 0, 1, IDLE]
    assert assign_features(profiles, 0.3).tolist() == [SHARED, 0, 1, IDLE]
    assert assign_features(profiles[:1], 0.3).tolist() == [0, 0, 0, IDLE]
    assert assign_features(torch.tensor([[0.5], [0.5]]), 0.0).tolist() == [SHARED], "no more than the other"


@pytest.mark.parametrize("chunk", [1024, 2, 4])
def test_cosines_of_sets_by_definition(chunk, monkeypatch):
    monkeypatch.setattr(profiles_module, "_CHUNK", chunk)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(4, 9, generator=generator).double()
    vectors[:, 3] = 0
    vectors = vectors / vectors.norm(dim=0).clamp_min(1e-30)
    owner = torch.tensor([0, 0, 1, 1, 1, 1, SHARED, 0, IDLE])
    found, pairs = set_cosines(vectors, owner, 2)
    groups = [[0, 1, 7], [2, 4, 5]]
    for i, one in enumerate(groups):
        for j, two in enumerate(groups):
            values = [abs(float(vectors[:, k] @ vectors[:, m])) for k in one for m in two if k != m]
            assert found[i, j] == pytest.approx(np.mean(values))
            assert pairs[i, j] == (3 if i == j else 9)


def permuted(first, second):
    """Overlaps under all permutations of the second profile's features."""
    orders = torch.tensor(list(itertools.permutations(range(len(first)))))
    return profile_overlap(first, second[orders])


def check_chance(mean, deviation):
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        first, second = normalised(torch.rand(2, 3 + seed % 4, generator=generator, dtype=torch.float64) ** 3)
        every = permuted(first, second)
        assert float(mean(first, second)) == pytest.approx(float(every.mean()), rel=1e-9), f"seed {seed}"
        assert float(deviation(first, second)) == pytest.approx(float(every.std(correction=0)), rel=1e-7), (
            f"seed {seed}"
        )


def test_chance_and_its_spread_are_those_of_all_permutations():
    check_chance(chance_overlap, chance_deviation)


def test_a_spread_that_forgets_a_factor_would_be_noticed():
    with pytest.raises(AssertionError):
        check_chance(chance_overlap, lambda a, b: chance_deviation(a, b) * (1 - 1 / len(a)) ** 0.5)


def test_fused_transformer_layers_are_seen():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Flatten(), nn.Linear(24, 2))
    data = (torch.randn(4, 3, 8), torch.tensor([0, 1, 0, 1]))
    task = Task.from_module("t", model, nn.functional.cross_entropy, data)
    found = feature_use(task, {name: value.detach() for name, value in model.named_parameters()})
    assert {"0.layers.0.linear1.weight", "0.layers.0.linear2.weight", "2.weight"} <= set(found.mean)
    assert "0.layers.0.self_attn.in_proj_weight" in found.not_covered
