"""Outputs and scores of language-model tasks, against the model run on one example at a time."""

import copy
from functools import cache

import numpy as np
import pytest
import torch

from diagnostics import Task
from diagnostics.measures.hessian import differentiable_twice
from tests.inputs.tiny_models import CAUSAL, causal_lm, with_lora

DATA = [((1,), (4, 2)), ((), (5,)), ((2, 6, 3, 3, 1), (1, 1, 6)), ((4, 4), (6, 6, 2, 5)), ((3,), (0,))]
INSTRUCTION = (5, 2, 1)


@cache
def model(kind):
    """A family of models, or a Llama with a trained adapter."""
    if kind != "adapter":
        return causal_lm(kind)
    lm = with_lora(causal_lm("llama"), ["q_proj", "down_proj"])
    with torch.no_grad():
        for name, value in lm.named_parameters():
            value += 0.3 * torch.randn_like(value) if "lora_B" in name else 0
    return lm


def task(lm, batch_size=3, examples=DATA, **options):
    return Task.from_causal_lm("t", lm, None, examples, instruction=INSTRUCTION, batch_size=batch_size, **options)


def point(lm):
    return {name: value.detach() for name, value in lm.named_parameters()}


def by_definition(lm, pair):
    """Loss and share of greedy tokens of one example, from full softmax distributions in float64."""
    context = (0, *INSTRUCTION, *pair[0])
    with torch.no_grad():
        logits = lm(input_ids=torch.tensor([[*context, *pair[1]]])).logits[0].double().numpy()
    rows = logits[len(context) - 1 : -1]
    p = np.exp(rows - rows.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    chosen = p[np.arange(len(rows)), list(pair[1])]
    return -np.log(chosen).sum(), np.mean(rows.argmax(1) == np.array(pair[1]))


def read(a_task, params):
    """Losses and scores of all examples, off the outputs."""
    pairs = list(zip(a_task.outputs(params), a_task.batches, strict=True))
    losses, scores = (
        torch.cat([reader(out, batch) for out, batch in pairs])
        for reader in (a_task.readout.losses, a_task.readout.score)
    )
    return losses, scores


@pytest.mark.parametrize("kind", [*CAUSAL, "adapter"])
def test_losses_and_scores_are_those_of_the_definition(kind):
    lm = model(kind)
    expected = np.array([by_definition(lm, pair) for pair in DATA])
    for batch_size in (1, 3, 5):
        a_task = task(lm, batch_size)
        losses, scores = read(a_task, point(lm))
        # Norms and rotations of some families are float32 inside, so padding moves their logits.
        assert losses.numpy() == pytest.approx(expected[:, 0], rel=1e-5), f"batches of {batch_size}"
        assert scores.numpy() == pytest.approx(expected[:, 1], abs=1e-12), f"batches of {batch_size}"
        assert a_task.score(point(lm)) == pytest.approx(expected[:, 1].mean(), abs=1e-12)
        assert float(losses.mean()) == pytest.approx(float(a_task.mean_loss(point(lm))), abs=1e-10)


def test_scores_differ_between_examples_so_that_the_check_can_fail():
    shares = {by_definition(model(kind), pair)[1] for kind in CAUSAL for pair in DATA}
    assert len(shares) > 3


def test_float64_is_exact():
    lm = model("gpt2")
    expected = [by_definition(lm, pair)[0] for pair in DATA]
    assert read(task(lm), point(lm))[0].numpy() == pytest.approx(np.array(expected), abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_lower_precision_reads_the_loss_of_the_task(kind, dtype):
    lm = causal_lm(kind, dtype=dtype)
    a_task = task(lm)
    losses, scores = read(a_task, point(lm))
    assert losses.dtype == scores.dtype == torch.float32
    assert float(losses.mean()) == pytest.approx(a_task.mean_loss(point(lm)), rel=2e-6)
    wide = copy.deepcopy(lm).double()
    exact = read(task(wide), point(wide))[0]
    step = torch.finfo(dtype).eps
    assert losses.double().numpy() == pytest.approx(exact.numpy(), rel=20 * step, abs=20 * step)


def directions(params, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        {key: torch.randn(value.shape, generator=generator, dtype=value.dtype) for key, value in params.items()}
        for _ in range(count)
    ]


@pytest.mark.parametrize("kind", ["gpt2", "adapter"])
def test_directional_derivatives_are_those_of_small_steps(kind):
    lm = model(kind)
    a_task, params = task(lm, 5), point(lm)
    (way,) = directions(params, 1)
    batch, outputs = a_task.batches[0], a_task.readout.outputs
    with differentiable_twice(), torch.no_grad():
        found = torch.func.jvp(lambda theta: outputs(theta, batch), (params,), (way,))[1]
        step = 1e-4 if kind == "adapter" else 1e-6  # float32 inside
        ends = [outputs({key: params[key] + sign * step * way[key] for key in params}, batch) for sign in (1, -1)]
    torch.testing.assert_close(found, (ends[0] - ends[1]) / (2 * step), rtol=2e-2, atol=2e-2 * float(found.abs().max()))
    assert found[batch["y"].sum(1) == 1, 1:].eq(0).all(), "padding does not move"


@pytest.mark.parametrize("kind", [*CAUSAL, "adapter"])
def test_many_models_and_many_directions_at_once(kind):
    lm = model(kind)
    a_task, params = task(lm, 5), point(lm)
    ways, batch, outputs = directions(params, 2), a_task.batches[0], a_task.readout.outputs
    stacked = {key: torch.stack([way[key] for way in ways]) for key in params}

    def along(way):
        return torch.func.jvp(lambda theta: outputs(theta, batch), (params,), (way,))[1]

    with differentiable_twice(), torch.no_grad():
        models = [{key: params[key] + 0.1 * way[key] for key in params} for way in ways]
        together = torch.func.vmap(lambda theta: outputs(theta, batch))(
            {key: params[key] + 0.1 * stacked[key] for key in params}
        )
        torch.testing.assert_close(
            together, torch.stack([outputs(each, batch) for each in models]), rtol=1e-4, atol=1e-4
        )
        slopes = torch.stack([along(way) for way in ways])
        torch.testing.assert_close(torch.func.vmap(along)(stacked), slopes, rtol=1e-4, atol=1e-4)


def test_binding_and_chosen_parameters_keep_the_outputs():
    lm = model("llama")
    whole, params = task(lm), point(lm)
    names = [name for name in params if "mlp" in name]
    fixed = {key: value for key, value in params.items() if key not in names}
    part = {key: params[key] + 0.1 for key in names}
    bound, chosen = whole.bind(fixed), task(lm, parameters=["*mlp*"])
    for other in (bound, chosen):
        assert other.score(part) == whole.score({**fixed, **part})
        for found, expected in zip(other.outputs(part), whole.outputs({**fixed, **part}), strict=True):
            assert torch.equal(found, expected)


def test_a_vocabulary_of_one_token_is_certain():
    lm = causal_lm("gpt2", vocabulary=1)
    a_task = Task.from_causal_lm("t", lm, None, [((0,), (0, 0)), ((), (0,))], instruction=(0,))
    losses, scores = read(a_task, point(lm))
    assert losses.eq(0).all() and scores.eq(1).all() and a_task.outputs(point(lm))[0].isfinite().all()


def test_there_is_no_constant_loss_to_hold_a_bound_against():
    assert task(model("gpt2")).constant_loss is None
