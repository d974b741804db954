"""Tasks: what they compute, what they leave alone, what they refuse."""

import pytest
import torch
from torch import nn

from diagnostics import InputError, NotDeterministicError, Task
from tests.cases import small_network, small_task

ENTROPY = nn.functional.cross_entropy
DATA = (torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 1, 0]))


def parameters(module):
    return {key: value.detach() for key, value in module.named_parameters()}


def test_module_is_never_changed():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).double().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    task = Task.from_module("t", model, ENTROPY, DATA)
    moved = {key: value + 1 for key, value in parameters(model).items()}
    task.mean_loss(moved), task.score(moved), task.outputs(moved)
    assert model.training and all(layer.training for layer in model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_parameters_are_those_given_and_not_the_modules():
    model = small_network()
    task = Task.from_module("t", model, ENTROPY, DATA)
    other = parameters(small_network(seed=5))
    expected = float(ENTROPY(torch.func.functional_call(model, other, (DATA[0],)), DATA[1]).detach())
    assert task.mean_loss(other) == pytest.approx(expected)
    with torch.no_grad():
        next(model.parameters()).add_(100)
    assert task.mean_loss(other) == pytest.approx(expected)


def test_score_is_the_accuracy_over_all_batches():
    task, params = small_task(count=10, batch_size=3)
    outputs, targets = torch.cat(task.outputs(params)), torch.cat([batch[1] for batch in task.batches])
    assert task.score(params) == pytest.approx(float((outputs.argmax(1) == targets).double().mean()))


def test_inputs_as_a_dictionary_and_outputs_with_logits():
    class Output:
        def __init__(self, logits):
            self.logits = logits

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2).double()

        def forward(self, values, scale):
            return Output(self.linear(values) * scale[:, None])

    model = Model()
    data = ({"values": DATA[0], "scale": torch.full((6,), 2.0, dtype=torch.float64)}, DATA[1])
    task = Task.from_module("t", model, ENTROPY, data, batch_size=4)
    assert task.sizes == (4, 2)
    expected = float(ENTROPY(2 * model.linear(DATA[0]), DATA[1]).detach())
    assert task.mean_loss(parameters(model)) == pytest.approx(expected)


def test_a_subset_of_parameters_leaves_the_others_as_they_are():
    model = small_network()
    names = ["2.weight", "2.bias"]
    task = Task.from_module("t", model, ENTROPY, DATA, parameters=names)
    part = {key: value for key, value in parameters(model).items() if key in names}
    whole = Task.from_module("t", model, ENTROPY, DATA)
    assert task.mean_loss(part) == pytest.approx(whole.mean_loss(parameters(model)))


def test_a_shuffling_loader_is_accepted_and_its_order_fixed():
    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(list(zip(*DATA, strict=True)), batch_size=4, shuffle=True)
    task = Task.from_module("t", small_network(), ENTROPY, loader)
    params = parameters(small_network())
    assert torch.equal(torch.cat(task.outputs(params)), torch.cat(task.outputs(params)))


def test_constant_loss_is_the_entropy_of_the_labels_or_the_variance():
    task, _ = small_task()
    targets = torch.cat([batch[1] for batch in task.batches])
    share = torch.bincount(targets).double() / len(targets)
    assert task.constant_loss == pytest.approx(float(-(share * share.log()).sum()))
    regression = Task.from_module("r", small_network(), nn.functional.mse_loss, (DATA[0], DATA[0][:, :2]))
    assert regression.constant_loss == pytest.approx(float(DATA[0][:, :2].var(dim=0, unbiased=False).mean()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_models_pass_the_door(dtype):
    model = small_network().to(dtype)
    task = Task.from_module("t", model, ENTROPY, (DATA[0].to(dtype), DATA[1]))
    assert 0 < task.mean_loss(parameters(model)) < 3


def test_a_single_batch_of_any_kind_needs_no_size():
    task = Task("t", lambda params, batch: params["w"].sum() * batch["scale"], [{"scale": 2.0}])
    assert task.sizes == (1,) and task.mean_loss({"w": torch.ones(3)}) == 6.0


def test_binding_fixes_some_parameters():
    task, params = small_task()
    fixed = {key: value for key, value in params.items() if key.startswith("2.")}
    rest = {key: value for key, value in params.items() if key not in fixed}
    bound = task.bind(fixed)
    assert bound.mean_loss(rest) == task.mean_loss(params) and bound.score(rest) == task.score(params)
    assert bound.constant_loss == task.constant_loss


def test_tied_weights_are_one_parameter():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x))

    model = Tied().double()
    task = Task.from_module("t", model, ENTROPY, DATA)
    assert set(parameters(model)) == {"first.weight", "first.bias", "second.bias"}
    zero = {key: torch.zeros_like(value) for key, value in parameters(model).items()}
    assert task.mean_loss(zero) == pytest.approx(float(torch.tensor(3.0).log()))


class Noisy(nn.Linear):
    def forward(self, x):
        return super().forward(x) + torch.randn(len(x), 2, dtype=x.dtype)


REFUSED = {
    "dropout left on": (lambda: Task.from_module("t", Noisy(3, 2).double(), ENTROPY, DATA), "and then"),
    "generator": (lambda: Task("t", lambda p, b: b.sum(), (b for b in [torch.ones(2)])), "only once"),
    "no batches": (lambda: Task("t", lambda p, b: b.sum(), []), "no batches"),
    "sizes for other batches": (lambda: Task("t", lambda p, b: b.sum(), [torch.ones(2)], sizes=[1, 1]), "2 sizes"),
    "no sizes": (lambda: Task("t", lambda p, b: torch.zeros(()), ["text", "more"]), "give sizes="),
    "empty batch": (lambda: Task("t", lambda p, b: b.sum(), [torch.ones(0)] * 2), "at least one example"),
    "targets missing": (lambda: Task.from_module("t", small_network(), ENTROPY, [DATA[0]]), "pair"),
    "uneven data": (lambda: Task.from_module("t", small_network(), ENTROPY, (DATA[0], DATA[1][:4])), "6 examples"),
    "unknown parameter": (
        lambda: Task.from_module("t", small_network(), ENTROPY, DATA, parameters=["9.weight"]),
        "9.weight",
    ),
    "label out of range": (
        lambda: Task.from_module("t", small_network(), ENTROPY, (DATA[0], DATA[1] + 5)),
        "out of range",
    ),
    "a sum": (
        lambda: Task.from_module("t", small_network(), nn.CrossEntropyLoss(reduction="sum"), DATA),
        "plain mean",
    ),
    "class weights": (
        lambda: Task.from_module("t", small_network(), nn.CrossEntropyLoss(torch.tensor([9.0, 0.1]).double()), DATA),
        "plain mean",
    ),
    "not finite": (lambda: Task.from_module("t", small_network(), ENTROPY, (DATA[0] * torch.nan, DATA[1])), "finite"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_tasks_are_refused(case):
    build, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        build()


def test_randomness_has_its_own_error():
    with pytest.raises(NotDeterministicError, match="dropout"):
        Task.from_module("t", Noisy(3, 2).double(), ENTROPY, DATA)


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_parameters_that_do_not_fit_are_refused_at_every_call(change):
    task, params = small_task()
    wrong = {
        "missing": {key: value for key, value in params.items() if key != "0.bias"},
        "unknown": {**params, "head.weight": torch.zeros(2)},
    }[change]
    with pytest.raises(InputError, match="0.bias" if change == "missing" else "head.weight"):
        task.mean_loss(wrong)


@pytest.mark.parametrize("method", ["outputs", "score"])
def test_a_task_that_has_only_a_loss_says_so(method):
    task = Task("t", lambda params, batch: batch.sum(), [torch.ones(2)])
    with pytest.raises(InputError, match="from_module"):
        getattr(task, method)({})
