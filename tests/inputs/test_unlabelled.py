"""Inputs without targets: outputs at once, loss and score once a model has labelled them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from diagnostics import InputError, MergeProblem, NotDeterministicError, Task, gradient
from tests.cases import small_network

ENTROPY = nn.functional.cross_entropy
INPUTS = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def parameters(module):
    return {key: value.detach() for key, value in module.named_parameters()}


BASE, EXPERT = parameters(small_network(0)), parameters(small_network(3))


def unlabelled(data=(INPUTS, None), **options):
    return Task.from_module("t", small_network(), ENTROPY, data, **{"batch_size": 4, **options})


def logits(params, inputs=INPUTS):
    """Outputs of the small network, by hand."""
    first = np.tanh(inputs.numpy() @ params["0.weight"].numpy().T + params["0.bias"].numpy())
    return np.tanh(first @ params["2.weight"].numpy().T + params["2.bias"].numpy())


def agreement(params, teacher):
    """Mean loss against a teacher's predicted classes and share of equal predictions, by softmax."""
    ours, classes = logits(params), logits(teacher).argmax(1)
    p = np.exp(ours) / np.exp(ours).sum(1, keepdims=True)
    return -np.log(p[np.arange(len(p)), classes]).mean(), (ours.argmax(1) == classes).mean()


def test_the_cases_disagree_so_that_a_wrong_teacher_is_seen():
    assert agreement(EXPERT, EXPERT)[1] == 1 > agreement(BASE, EXPERT)[1] > 0
    assert abs(agreement(BASE, EXPERT)[0] - agreement(BASE, BASE)[0]) > 1e-2


def test_there_are_outputs_before_there_are_targets():
    task = unlabelled()
    assert task.unlabelled and task.sizes == (4, 4, 1) and task.constant_loss is None
    assert torch.cat(task.outputs(EXPERT)).numpy() == pytest.approx(logits(EXPERT))


@given(st.integers(0, 50), st.integers(0, 50))
def test_targets_are_the_predicted_classes(student, teacher):
    one, other = parameters(small_network(student)), parameters(small_network(teacher))
    labelled = unlabelled().labelled_by(other)
    loss, score = agreement(one, other)
    assert labelled.mean_loss(one) == pytest.approx(loss) and labelled.score(one) == pytest.approx(score)
    assert labelled.score(other) == 1, "a model agrees with itself"
    assert torch.cat([batch[1] for batch in labelled.batches]).tolist() == logits(other).argmax(1).tolist()
    assert not labelled.unlabelled and labelled.sizes == (4, 4, 1)


def test_a_labelled_task_is_the_task_of_those_labels():
    labelled = unlabelled().labelled_by(EXPERT)
    same = Task.from_module("t", small_network(), ENTROPY, (INPUTS, torch.tensor(logits(EXPERT).argmax(1))))
    assert labelled.constant_loss == pytest.approx(same.constant_loss)
    assert labelled.mean_loss(BASE) == pytest.approx(same.mean_loss(BASE))
    (note,) = labelled.notes
    assert note.startswith("task 't': its inputs have no targets") and "agreement with that model's predictions" in note
    assert same.notes == unlabelled().notes == ()


class ByKeyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = small_network()

    def forward(self, values, scale):
        return self.inner(values) * scale[:, None]


def test_forms_of_data_are_the_same_task():
    expected = unlabelled().labelled_by(EXPERT).mean_loss(BASE)
    pairs = [(INPUTS[:5], None), (INPUTS[5:], None)]
    for data in (pairs, tuple(pairs), [list(pair) for pair in pairs]):
        assert unlabelled(data).labelled_by(EXPERT).mean_loss(BASE) == pytest.approx(expected)
    keywords = {"values": INPUTS, "scale": torch.ones(9, dtype=torch.float64)}
    task = Task.from_module("t", ByKeyword(), ENTROPY, (keywords, None), batch_size=4)
    base, expert = ({f"inner.{key}": value for key, value in params.items()} for params in (BASE, EXPERT))
    assert task.sizes == (4, 4, 1) and task.labelled_by(expert).mean_loss(base) == pytest.approx(expected)


def test_a_score_of_the_users_own_is_kept():
    task = unlabelled(score=lambda outputs, targets: outputs.gather(1, targets[:, None])[:, 0])
    expected = logits(BASE)[np.arange(9), logits(EXPERT).argmax(1)].mean()
    assert task.labelled_by(EXPERT).score(BASE) == pytest.approx(expected)


def test_binding_goes_through_to_the_labels():
    head = {key: value for key, value in EXPERT.items() if key.startswith("2.")}
    body, base = ({key: params[key] for key in params if key not in head} for params in (EXPERT, BASE))
    bound = unlabelled().bind(head)
    assert bound.unlabelled
    loss, score = agreement({**base, **head}, EXPERT)
    labelled = bound.labelled_by(body)
    assert labelled.mean_loss(base) == pytest.approx(loss) and labelled.score(base) == pytest.approx(score)


def test_other_parameters_go_through_to_the_labels():
    """As for an adapter whose base has a head that no task reads."""
    task = unlabelled().through(lambda params: {key: value for key, value in params.items() if key != "unused"})
    base, expert = ({**params, "unused": torch.zeros(1)} for params in (BASE, EXPERT))
    labelled = task.labelled_by(expert)
    assert labelled.mean_loss(base) == pytest.approx(agreement(BASE, EXPERT)[0])
    assert torch.equal(labelled.outputs(base)[0], task.outputs(base)[0])


@pytest.mark.parametrize("private", [[], ["2.*"]], ids=["all shared", "own heads"])
def test_a_merge_problem_labels_by_each_tasks_own_expert(private):
    experts = {"a": EXPERT, "b": parameters(small_network(2)), "c": parameters(small_network(1))}
    told = torch.tensor(logits(BASE).argmax(1))
    tasks = {name: unlabelled() for name in "ab"} | {"c": unlabelled((INPUTS, told))}
    problem = MergeProblem(BASE, experts, tasks, private=private)
    for name in "ab":
        at_base = {**BASE, **problem.private[name]}
        loss, score = agreement(at_base, experts[name])
        assert not problem.tasks[name].unlabelled and len(problem.tasks[name].notes) == 1
        assert problem.tasks[name].score(problem.experts[name]) == 1, "the expert of the task is its teacher"
        assert problem.tasks[name].mean_loss(problem.base) == pytest.approx(loss)
        assert problem.tasks[name].score(problem.base) == pytest.approx(score)
    assert tasks["a"].unlabelled, "the task that was given stays as it was"
    assert problem.tasks["c"].notes == () and problem.tasks["c"].score(experts["c"]) < 1, "given labels are kept"


USES = {
    "loss": lambda task: task.loss(BASE, next(iter(task.batches))),
    "mean_loss": lambda task: task.mean_loss(BASE),
    "score": lambda task: task.score(BASE),
    "check": lambda task: task.check(BASE),
    "gradient": lambda task: gradient(task, BASE),
    "losses off outputs": lambda task: task.readout.losses(task.outputs(BASE)[0], next(iter(task.batches))),
    "the loss after binding": lambda task: task.bind({"2.bias": BASE["2.bias"]}).mean_loss(BASE),
}


@pytest.mark.parametrize("use", USES)
def test_what_needs_targets_says_how_to_get_them(use):
    with pytest.raises(InputError, match=r"task 't': expected targets; .*task\.labelled_by\(params\)"):
        USES[use](unlabelled())


class Noisy(nn.Linear):
    def forward(self, x):
        return super().forward(x) + torch.randn(len(x), 2, dtype=x.dtype)


def of(module, criterion=ENTROPY, data=(INPUTS, None)):
    return lambda: Task.from_module("t", module.double(), criterion, data)


SOME = [(INPUTS[:4], None), (INPUTS[4:], torch.zeros(5, dtype=torch.long))]
LINEAR = nn.Linear(3, 2)
REFUSED = {
    "targets in some batches": (of(LINEAR, data=SOME), "in all batches or in none; batch 0 is the first of 1 without"),
    "no class outputs": (of(nn.Unflatten(1, (3, 1))), r"need class outputs.*found outputs of shape \[9, 3, 1\]"),
    "one output": (of(nn.Linear(3, 1)), r"two classes or more; found outputs of shape \[9, 1\]. Give targets"),
    "a criterion for real targets": (
        of(nn.Linear(3, 4), nn.functional.mse_loss),
        "a criterion that takes class indices",
    ),
    "a sum": (of(LINEAR, nn.CrossEntropyLoss(reduction="sum")), "plain mean"),
    "NaN": (of(LINEAR, data=(INPUTS * torch.nan, None)), "finite"),
    "dropout left on": (of(Noisy(3, 2)), "and then"),
    "a generator": (of(LINEAR, data=((INPUTS, None) for _ in range(2))), "only once"),
    "a pair in place of inputs": (
        of(LINEAR, data=((INPUTS, INPUTS), None)),
        "expected a tensor of inputs.*found tuple",
    ),
    "no inputs": (of(LINEAR, data=({}, None)), "no batches"),
    "uneven inputs": (of(LINEAR, data=({"a": INPUTS, "b": INPUTS[:2]}, None)), "a has 9 examples and b 2"),
    "a batch that is no pair": (of(LINEAR, data=[INPUTS]), r"must be a pair.*\(inputs, None\)"),
    "labels twice": (lambda: unlabelled().labelled_by(BASE).labelled_by(BASE), "expected a task without targets"),
    "a teacher of NaN": (
        lambda: unlabelled().labelled_by({key: value * torch.nan for key, value in BASE.items()}),
        "finite",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_labelled_is_refused(case):
    build, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        build()


def test_randomness_has_its_own_error():
    with pytest.raises(NotDeterministicError, match="dropout"):
        of(Noisy(3, 2))()


def test_a_task_of_the_users_own_can_be_unlabelled_too():
    def refuse(params, batch):
        raise InputError("no targets yet")

    def label(params):
        target = params["w"].clone()
        return Task("fit", lambda p, batch: ((p["w"] - target) ** 2).sum(), [torch.zeros(1)])

    task = Task("fit", refuse, [torch.zeros(1)], label=label)
    problem = MergeProblem({"w": torch.zeros(2)}, {"fit": {"w": torch.ones(2)}}, {"fit": task})
    assert (
        problem.tasks["fit"].mean_loss(problem.base) == 2 and problem.tasks["fit"].mean_loss({"w": torch.ones(2)}) == 0
    )
