"""predict_merge: exact where it should be, honest where it is not, and never by evaluating the merge."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from diagnostics import InputError, MergeProblem, Task, linear_lora_update, merged_update, predict_merge
from diagnostics.inputs.zoo import quadratic_problem
from diagnostics.results import Estimate, Status, Verdict
from diagnostics.verdicts.mergeability import Reason, joint_verdict
from tests.inputs.tiny_models import bert, moved, tokenizer, with_lora, write_data


def linear_problem(contradiction=False, count=60, mislabelled=0):
    """Two tasks on disjoint inputs of a linear model, or on the same inputs with opposite labels."""
    generator = torch.Generator().manual_seed(0)
    tasks, experts = {}, {}
    for index, name in enumerate(["first", "second"]):
        inputs = torch.zeros(count, 4, dtype=torch.float64)
        columns = [0, 1] if contradiction or index == 0 else [2, 3]
        inputs[:, columns] = torch.randn(count, 2, generator=generator, dtype=torch.float64)
        targets = (inputs[:, columns[0]] > 0).long()
        targets[:mislabelled] = 1 - targets[:mislabelled]
        sign = -1 if contradiction and index == 1 else 1
        model = nn.Linear(4, 2, bias=False).double()
        tasks[name] = Task.from_module(
            name, model, nn.functional.cross_entropy, (inputs, targets if sign > 0 else 1 - targets), batch_size=25
        )
        weight = torch.zeros(2, 4, dtype=torch.float64)
        weight[0, columns[0]], weight[1, columns[0]] = -3.0 * sign, 3.0 * sign
        experts[name] = {"weight": weight}
    return MergeProblem({"weight": torch.zeros(2, 4, dtype=torch.float64)}, experts, tasks)


@settings(max_examples=20)
@given(first=st.floats(0.1, 1.5), second=st.floats(0.1, 1.5))
def test_exact_for_a_model_that_is_linear_in_its_parameters(first, second):
    problem = linear_problem()
    found = predict_merge(problem, {"first": first, "second": second})
    merged = problem.merged({"first": first, "second": second})
    for name, task in found.tasks.items():
        assert task.loss.value == pytest.approx(problem.tasks[name].mean_loss(merged), abs=1e-9)
        assert task.score.value == pytest.approx(problem.tasks[name].score(merged))
        alone = predict_merge(problem, {"first": first, "second": second}, about="examples").tasks[name]
        assert alone.loss.upper - alone.loss.lower < 1e-6, "a linear model leaves no uncertainty about its outputs"


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), a=st.floats(0, 1.5), b=st.floats(0, 1.5))
def test_exact_for_quadratic_losses_without_outputs(seed, a, b):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64)
    problem = quadratic_problem(
        root @ root.transpose(1, 2), torch.randn(2, 3, generator=generator, dtype=torch.float64)
    )
    found = predict_merge(problem, [a, b])
    for name in problem.names:
        truth = problem.tasks[name].mean_loss(problem.merged([a, b]))
        assert found.tasks[name].loss.value == pytest.approx(truth, abs=1e-8)
        assert math.isnan(found.tasks[name].retention.value)
    assert found.verdict is Verdict.UNDECIDED, "without a score nothing is known about retention"


def test_disjoint_tasks_are_supported_and_contradictory_ones_refuted():
    assert predict_merge(linear_problem(), 1.0).verdict is Verdict.SUPPORTED
    assert predict_merge(linear_problem(contradiction=True), {"first": 0.5, "second": 1.0}).verdict is Verdict.REFUTED


def test_the_merge_is_never_evaluated():
    """Every parameter point that the model sees is recorded; none of them is the merge or close to it."""
    seen = []

    class Recorded(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2, 3, dtype=torch.float64))

        def forward(self, x):
            point = self.weight
            while torch._C._functorch.is_functorch_wrapped_tensor(point):
                point = torch._C._functorch.get_unwrapped(point)
            seen.append(torch.autograd.forward_ad.unpack_dual(point).primal.detach().clone())
            return x @ self.weight.T

    data = (torch.randn(8, 3, dtype=torch.float64), torch.arange(8) % 2)
    tasks = {name: Task.from_module(name, Recorded(), nn.functional.cross_entropy, data) for name in "ab"}
    experts = {name: {"weight": torch.full((2, 3), value).double()} for name, value in {"a": 1.0, "b": 7.0}.items()}
    problem = MergeProblem({"weight": torch.zeros(2, 3).double()}, experts, tasks)
    merged = problem.merged(0.4)["weight"]
    seen.clear()
    predict_merge(problem, 0.4)
    assert len(seen) > 10
    assert min(float((point - merged).abs().max()) for point in seen) > 0.1


def test_contradiction_names_the_partner_first():
    found = predict_merge(linear_problem(contradiction=True), {"first": 0.5, "second": 1.0})
    worst = found.reasons[0]
    assert (worst.task, worst.cause, worst.partner) == ("first", "interference", "second")
    assert "second at 1 interferes" in str(worst)
    effects = [reason.retention for reason in found.reasons]
    assert effects == sorted(effects)


def test_own_scaling_is_told_apart_from_interference():
    reasons = predict_merge(linear_problem(), {"first": 0.2, "second": 1.0}).reasons
    assert all(reason.cause == "own scaling" for reason in reasons)
    assert any(reason.task == "first" and reason.loss > 0 for reason in reasons)


def test_interval_narrows_with_more_examples():
    widths = []
    for count in (20, 200):
        loss = predict_merge(linear_problem(contradiction=True, count=count), [0.9, 0.3]).tasks["first"].loss
        widths.append(loss.upper - loss.lower)
    assert widths[0] > 2 * widths[1]


class Bent(nn.Module):
    """Two logits that are cubic in two parameters."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, x):
        logit = x * (self.w[0] + 2 * self.w[1] + self.w[0] ** 2 * self.w[1])
        return torch.stack([-logit, logit], dim=1)


def bent_problem(count=40):
    inputs = torch.linspace(-1, 1, count, dtype=torch.float64)
    tasks = {
        name: Task.from_module(name, Bent(), nn.functional.cross_entropy, (inputs, (inputs > 0).long()))
        for name in "ab"
    }
    experts = {name: {"w": torch.eye(2, dtype=torch.float64)[index]} for index, name in enumerate("ab")}
    return MergeProblem({"w": torch.zeros(2, dtype=torch.float64)}, experts, tasks)


def test_interval_covers_outputs_that_are_not_known_exactly():
    problem = bent_problem()
    for value in (0.4, 0.8, 1.2):
        loss = predict_merge(problem, value).tasks["a"].loss
        truth = problem.tasks["a"].mean_loss(problem.merged(value))
        assert loss.value != pytest.approx(truth, abs=1e-6) and loss.lower <= truth <= loss.upper


def test_interval_grows_with_what_is_extrapolated():
    problem = bent_problem()
    widths = [
        loss.upper - loss.lower
        for loss in (predict_merge(problem, value, about="examples").tasks["a"].loss for value in (0.2, 0.5, 1.0, 2.0))
    ]
    assert widths == sorted(widths) and widths[-1] > 2 * widths[0]


def test_interval_about_the_examples_leaves_out_sampling():
    wide, narrow = (predict_merge(bent_problem(), 0.8, about=a).tasks["a"].loss for a in ("population", "examples"))
    assert wide.value == narrow.value and wide.upper - wide.lower > narrow.upper - narrow.lower
    assert "sampling" in wide.evidence and "sampling" not in narrow.evidence


def scalar_problem(loss, names="ab"):
    """A loss without outputs or examples: the interval is then the process's alone."""
    tasks = {name: Task(name, lambda p, b: loss(*p["w"]) + 0 * b.sum(), [torch.zeros(1)]) for name in names}
    experts = {name: {"w": torch.eye(len(names)).double()[index]} for index, name in enumerate(names)}
    return MergeProblem({"w": torch.zeros(len(names), dtype=torch.float64)}, experts, tasks)


def test_loss_without_outputs_is_exact_to_second_order_and_covered_beyond():
    exact = predict_merge(scalar_problem(lambda a, b: a + b + 3 * a * b), 1.2).tasks["a"].loss
    assert exact.value == pytest.approx(2 * 1.2 + 3 * 1.44) and exact.upper - exact.lower < 1e-6
    bent = predict_merge(scalar_problem(lambda a, b: a**2 * b), 1.0).tasks["a"].loss
    assert bent.value == pytest.approx(1.0, abs=0.4) and bent.lower <= 1.0 <= bent.upper


def test_negative_coefficients_and_an_expert_left_out():
    problem = linear_problem()
    found = predict_merge(problem, {"first": -0.5})
    assert list(found.tasks) == ["first"]
    assert found.tasks["first"].loss.value == pytest.approx(
        problem.tasks["first"].mean_loss(problem.merged({"first": -0.5})), abs=1e-9
    )


METHODS = [
    ("mean", {}),
    ("linear", {}),
    ("task_arithmetic", {"convention": "mergekit", "scale": 0.7}),
    ("ties", {"density": 0.6}),
    ("magnitude_prune", {"density": 0.6}),
    ("dare_linear", {"density": 0.6, "seed": 3}),
    ("dare_ties", {"density": 0.6, "seed": 3, "convention": "mergekit"}),
]


@pytest.mark.parametrize(("method", "options"), METHODS, ids=[name for name, _ in METHODS])
def test_every_method_is_exact_for_a_linear_model(method, options):
    problem = linear_problem(contradiction=True)
    lambdas = {"first": 0.8, "second": 0.5}
    found = predict_merge(problem, lambdas, method=method, **options)
    update = merged_update(problem.task_vectors, lambdas, method, **options)
    merged = {key: value + update[key] for key, value in problem.base.items()}
    for name, task in found.tasks.items():
        assert task.loss.value == pytest.approx(problem.tasks[name].mean_loss(merged), abs=1e-8)
        assert task.expert_loss == pytest.approx(problem.tasks[name].mean_loss(problem.experts[name]))
        assert task.score.value == pytest.approx(problem.tasks[name].score(merged))


def test_a_method_that_trims_an_update_says_so():
    problem = linear_problem()
    causes = {r.cause for r in predict_merge(problem, 1.0, method="magnitude_prune", density=0.2).reasons}
    assert causes == {"own trimming"}


@pytest.mark.parametrize(
    ("method", "options", "share"),
    [
        ("mean", {}, 0.5),
        ("linear", {}, 0.5),
        ("dare_linear", {"density": 0.5, "rescale": False, "convention": "mergekit"}, None),
    ],
)
def test_reasons_say_how_much_of_an_update_is_applied(method, options, share):
    """The mean of two applies one half of each, whatever the coefficients of 1 look like."""
    problem = linear_problem(contradiction=True)
    (own,) = (
        r for r in predict_merge(problem, 1.0, method=method, **options).reasons if r.task == "first" and not r.partner
    )
    assert own.cause == "own scaling" and "instead of 1" in str(own)
    assert own.coefficient < 1 if share is None else own.coefficient == pytest.approx(share)


def test_layers_of_an_interference_are_named_and_add_up_to_first_order():
    """One partner moves the second layer alone: that layer carries the whole change."""
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    base = {name: value.detach().clone() for name, value in model.named_parameters()}
    inputs = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = (inputs, (inputs[:, 0] > 0).long())
    tasks = {name: Task.from_module(name, model, nn.functional.cross_entropy, data) for name in "ab"}
    labels = 1 - 2 * (inputs[:, :1] > 0).double()
    push = torch.cat([labels, -labels], 1).T @ torch.tanh(model[0](inputs)).detach() / 50
    experts = {
        "a": {**base, "0.weight": base["0.weight"] + 0.1},
        "b": {**base, "2.weight": base["2.weight"] - 3 * push},
    }
    found = predict_merge(MergeProblem(base, experts, tasks), {"a": 1.0, "b": 0.2}, layers=True)
    (reason,) = (r for r in found.reasons if r.task == "a" and r.partner == "b")
    assert reason.layers[0][0] == "2" and reason.layers[0][1] == pytest.approx(reason.loss, rel=0.05)
    assert reason.layers[1][1] == pytest.approx(0, abs=1e-9), "a layer that the partner did not move has no effect"


def test_retention_is_compared_example_by_example():
    """Where the merge answers every example as the expert does, only what was not drawn is open: two in 62."""
    kept = predict_merge(linear_problem(mislabelled=9), 1.0).tasks["first"]
    assert kept.expert_score == pytest.approx(51 / 60) and kept.retention.value == 1.0
    half = 1.645 * math.sqrt(2 * (60 / 51) ** 2 / 61 / 62)
    assert kept.retention.upper - 1 == pytest.approx(half, rel=1e-3)
    assert kept.score.upper - kept.score.value > half, "the score itself varies from example to example"


def test_a_handful_of_examples_decides_nothing():
    """Six examples that all keep their answer do not show that nine in ten are kept."""
    found = predict_merge(linear_problem(count=6), 1.0)
    assert found.tasks["first"].retention.value == 1.0 and found.verdict is Verdict.UNDECIDED
    assert predict_merge(linear_problem(count=6), 1.0, about="examples").verdict is Verdict.SUPPORTED


def test_cost_is_counted_and_paid_once():
    problem = linear_problem()
    first = predict_merge(problem, 0.5)
    assert (first.cost.forwards, first.cost.jvps) == (2 * 7, 2 * 8)
    problem.cached(("outputs", "first"), lambda: pytest.fail("the table must be reused"))
    again = predict_merge(problem, 1.0).cost
    assert (again.forwards, again.jvps) == (first.cost.forwards, first.cost.jvps)


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ([Verdict.SUPPORTED, Verdict.SUPPORTED], Verdict.SUPPORTED),
        ([Verdict.SUPPORTED, Verdict.UNDECIDED], Verdict.UNDECIDED),
        ([Verdict.UNDECIDED, Verdict.REFUTED], Verdict.REFUTED),
    ],
)
def test_the_worst_task_decides(parts, whole):
    assert joint_verdict(parts) is whole


@pytest.mark.parametrize(
    ("lower", "upper", "status", "expected"),
    [
        (0.91, 0.99, Status.CONVERGED, Verdict.SUPPORTED),
        (0.80, 0.89, Status.CONVERGED, Verdict.REFUTED),
        (0.85, 0.99, Status.CONVERGED, Verdict.UNDECIDED),
        (0.80, 0.94, Status.CONVERGED, Verdict.UNDECIDED),
        (0.91, 0.99, Status.TAINTED, Verdict.UNDECIDED),
    ],
)
def test_an_interval_across_the_threshold_or_an_untrusted_one_decides_nothing(lower, upper, status, expected):
    assert Estimate((lower + upper) / 2, lower, upper, 0.9, status).against(0.9) is expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "slerp"}, "method"),
        ({"tolerance": 1.5}, "tolerance"),
        ({"about": "all"}, "about"),
        ({"method": "mean", "density": 0.5}, "density"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        predict_merge(linear_problem(), 0.5, **options)


def save_lora_classifiers(home):
    """A tiny classifier, two adapters of it with random factors, and examples for each."""
    base = moved(bert(0), 9, scale=0.3)  # as it is created its outputs hardly depend on its inputs
    base.save_pretrained(home / "base")
    tokenizer().save_pretrained(home / "base")
    for seed, name in enumerate(["kind", "mood"]):
        adapted = with_lora(copy.deepcopy(base), ["query", "value"], None)
        torch.manual_seed(seed)
        for key, value in adapted.named_parameters():
            value.data = 0.06 * torch.randn_like(value) if "lora_" in key else value.data
        adapted.save_pretrained(home / name)
        write_data(home / f"{name}.jsonl")
    names = ("kind", "mood")
    return home / "base", {name: home / name for name in names}, {name: home / f"{name}.jsonl" for name in names}


def test_linear_merging_of_adapters_is_predicted_with_its_cross_terms(tmp_path):
    """A and B merged apart: close to the real merge, where task arithmetic with the same coefficients is far off."""
    base, experts, data = save_lora_classifiers(tmp_path)
    problem = MergeProblem.from_pretrained(base, experts, data)
    lambdas = dict.fromkeys(experts, 1.0)
    found = predict_merge(problem, lambdas, method="linear_lora", adapters=experts, about="examples")
    update = linear_lora_update(experts, lambdas, base=base)
    merged = {key: value + update.get(key, 0) for key, value in problem.base.items()}
    plain = predict_merge(problem, lambdas, about="examples")
    for name, task in found.tasks.items():
        truth = problem.tasks[name].mean_loss(merged)
        assert abs(task.loss.value - truth) < 0.5 * abs(plain.tasks[name].loss.value - truth), name


def test_linear_merging_of_adapters_needs_their_folders():
    with pytest.raises(InputError, match="adapters: expected the adapter folders of"):
        predict_merge(linear_problem(), 1.0, method="linear_lora")


def test_a_reason_says_its_partner_and_its_layer():
    reason = Reason("a", "interference", "b", 0.5, -0.1, 0.2, layers=(("encoder.3", 0.15),))
    assert str(reason) == ("a: b at 0.5 interferes, mostly through encoder.3 (retention -10.0 points, loss +0.2)")


def test_outputs_that_overflow_are_named_and_not_predicted_from():
    """At one and a half times the second expert's update an exponential overflows: no number is made of that."""

    class Explosive(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(2))

        def forward(self, x):
            return torch.stack([x * self.w[0], torch.exp(self.w[1] * x.abs())], dim=1)

    inputs = torch.ones(8)
    tasks = {
        name: Task.from_module(name, Explosive(), nn.functional.cross_entropy, (inputs, (inputs > 0).long()))
        for name in ("calm", "wild")
    }
    experts = {"calm": {"w": torch.tensor([1.0, 0.0])}, "wild": {"w": torch.tensor([0.0, 80.0])}}
    problem = MergeProblem({"w": torch.zeros(2)}, experts, tasks)
    with pytest.raises(InputError, match=r"task 'calm'.*the base plus 1.5 times the update of 'wild'"):
        predict_merge(problem, 0.5)
