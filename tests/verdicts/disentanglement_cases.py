"""Pairs of experts for tests of the disentanglement error, and ξ counted by hand."""

import math

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from diagnostics import MergeProblem, Task

PAIR = ("first", "second")


def problem_of(model, base, experts, inputs, *, batch_sizes=(3, 4, 5), score=None):
    """Classification tasks on the given inputs in unequal batches, labelled at random."""
    generator = torch.Generator().manual_seed(99)
    tasks = {}
    for name, rows in zip(PAIR, inputs, strict=True):
        sizes = [*batch_sizes, len(rows) - sum(batch_sizes)] if len(rows) > sum(batch_sizes) else [len(rows)]
        with torch.no_grad():
            classes = model(rows[:1]).shape[1]
        targets = torch.randint(0, classes, (len(rows),), generator=generator)
        pairs = list(zip(rows.split(sizes), targets.split(sizes), strict=True))
        tasks[name] = Task.from_module(name, model, nn.functional.cross_entropy, pairs)
    return MergeProblem(base, dict(zip(PAIR, experts, strict=True)), tasks)


def network_problem(seed, *, scale=1.0, counts=(17, 23), second=None, classes=3):
    """A small network with random experts in float64; ``second`` makes the second update of the first."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, classes)).double()
    base = {key: torch.randn_like(value).detach() for key, value in model.named_parameters()}
    moves = [{key: scale * torch.randn_like(value) for key, value in base.items()} for _ in PAIR]
    if second is not None:
        moves[1] = {key: second * value for key, value in moves[0].items()}
    experts = [{key: value + move[key] for key, value in base.items()} for move in moves]
    return problem_of(model, base, experts, [torch.randn(count, 2).double() for count in counts])


def linear_problem(weights, inputs, base=None, bias=None):
    """Linear models, so that outputs are linear in the parameters."""
    rows, columns = weights[0].shape
    model = nn.Linear(columns, rows).double()
    start = {
        "weight": torch.zeros(rows, columns).double() if base is None else base,
        "bias": torch.zeros(rows).double(),
    }
    shifts = torch.zeros(2, rows).double() if bias is None else bias
    experts = [{"weight": start["weight"] + w, "bias": b} for w, b in zip(weights, shifts, strict=True)]
    return problem_of(model, start, experts, inputs)


def disjoint_problem(seed=0, count=20):
    """Each task's inputs use two of four features, and its update moves the weights of these alone."""
    generator = torch.Generator().manual_seed(seed)
    masks = [torch.tensor(mask).double() for mask in ([1, 1, 0, 0], [0, 0, 1, 1])]
    weights = [2 * torch.randn(3, 4, generator=generator).double() * mask for mask in masks]
    inputs = [torch.randn(count, 4, generator=generator).double() * mask for mask in masks]
    return linear_problem(weights, inputs, base=torch.randn(3, 4, generator=generator).double())


def forward_by_hand(params, x):
    """The network of ``network_problem`` on one input, in plain Python."""
    p = {key: value.tolist() for key, value in params.items()}
    hidden = [
        math.tanh(b + sum(w * v for w, v in zip(row, x, strict=True)))
        for row, b in zip(p["0.weight"], p["0.bias"], strict=True)
    ]
    return [
        b + sum(w * v for w, v in zip(row, hidden, strict=True))
        for row, b in zip(p["2.weight"], p["2.bias"], strict=True)
    ]


def divergence_by_hand(a, b):
    """Jensen–Shannon in bits out of two lists of logits."""
    p, q = ([math.exp(v) / sum(map(math.exp, each)) for v in each] for each in (a, b))
    m = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
    return sum(x * math.log2(x / z) + y * math.log2(y / z) for x, y, z in zip(p, q, m, strict=True)) / 2


def counted(problem, one, two):
    """Hard and soft ξ by task, example by example."""
    base, moves = problem.base, problem.task_vectors
    both = {k: v + one * moves["first"][k] + two * moves["second"][k] for k, v in base.items()}
    hard, soft = {}, {}
    for name, own in (("first", one), ("second", two)):
        alone = {k: v + own * moves[name][k] for k, v in base.items()}
        inputs = [x.tolist() for batch, _ in problem.tasks[name].batches for x in batch]
        outputs = [(forward_by_hand(alone, x), forward_by_hand(both, x)) for x in inputs]
        hard[name] = sum(a.index(max(a)) != b.index(max(b)) for a, b in outputs) / len(inputs)
        soft[name] = sum(divergence_by_hand(a, b) for a, b in outputs) / len(inputs)
    return hard, soft


def token_problem():
    """Two copies of a tiny language model, moved at random, on examples of unequal length."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config).double().eval()
    base = {key: value.detach().clone() for key, value in model.named_parameters()}
    examples = [([3], [4, 5]), ([2, 3], [6]), ([1], [7, 8, 2])]
    tasks = {n: Task.from_causal_lm(n, model, None, examples, instruction=[6], batch_size=2) for n in PAIR}
    experts = {name: {key: value + 0.3 * torch.randn_like(value) for key, value in base.items()} for name in PAIR}
    return MergeProblem(base, experts, tasks), model, examples


def regression_problem():
    model = nn.Linear(2, 2).double()
    base = {key: value.detach().clone() for key, value in model.named_parameters()}
    data = (torch.randn(4, 2).double(), torch.randn(4, 2).double())
    tasks = {name: Task.from_module(name, model, nn.functional.mse_loss, data) for name in PAIR}
    return MergeProblem(base, dict.fromkeys(PAIR, base), tasks)
