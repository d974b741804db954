"""output_relation: known answers, an independent slow definition, intervals that cover, merges held against regions."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student
from torch import nn

from diagnostics import InputError, MergeProblem, Task, output_relation
from diagnostics.inputs.zoo import quadratic_problem
from diagnostics.results import Status, Verdict
from diagnostics.theory.coefficient_conditions import Regime, coefficient_region
from diagnostics.verdicts import relations
from diagnostics.verdicts.relation_outcomes import Check, compare_outcomes
from diagnostics.verdicts.relations import GRID

KINDS = ("uncentred", "centred", "change")


def linear_problem(weights, *, base=None, bias=None, count=40, seed=0, batch_size=16):
    """Linear models of four inputs on random data of each task; ``bias`` is one that all models share."""
    generator = torch.Generator().manual_seed(seed)
    rows = weights[0].shape[0]
    shared = torch.zeros(rows).double() if bias is None else bias
    base = torch.zeros(rows, 4).double() if base is None else base
    tasks, experts = {}, {}
    for name, weight in zip(("first", "second"), weights, strict=True):
        inputs = torch.randn(count, 4, generator=generator, dtype=torch.float64)
        targets = (inputs @ weight.T).argmax(1)
        model = nn.Linear(4, rows).double()
        tasks[name] = Task.from_module(
            name, model, nn.functional.cross_entropy, (inputs, targets), batch_size=batch_size
        )
        experts[name] = {"weight": weight, "bias": shared}
    return MergeProblem({"weight": base, "bias": shared}, experts, tasks)


def random_weights(seed, rows=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, rows, 4, generator=generator, dtype=torch.float64).unbind()


WEIGHT = random_weights(7)[0]
# The first model writes to outputs 0 and 1, the second to 2 and 3.
DISJOINT = [
    torch.cat(parts) for parts in [(torch.eye(4)[:2], torch.zeros(2, 4)), (torch.zeros(2, 4), torch.eye(4)[2:])]
]


def slow_alpha(problem, kind):
    """The definition, example by example, in plain numpy."""
    total = 0.0
    for name in ("first", "second"):
        models = [problem.experts["first"], problem.experts["second"], problem.base]
        one, two, base = (torch.cat(problem.tasks[name].outputs(model)).numpy() for model in models)
        removed = {
            "uncentred": (np.zeros_like(one), np.zeros_like(one)),
            "centred": (np.tile(one.mean(0), (len(one), 1)), np.tile(two.mean(0), (len(one), 1))),
            "change": (base, base),
        }[kind]
        cosines = []
        for i in range(len(one)):
            a, b = one[i] - removed[0][i], two[i] - removed[1][i]
            cosines.append(sum(a * b) / math.sqrt(sum(a * a) * sum(b * b)))
        total += sum(cosines) / len(cosines) / 2
    return total


def agrees_with_the_definition(found, problem):
    return all(getattr(found, kind).value == pytest.approx(slow_alpha(problem, kind), abs=1e-10) for kind in KINDS)


@pytest.mark.parametrize("seed", range(4))
def test_values_are_those_of_the_definition(seed):
    weights = random_weights(seed)
    problem = linear_problem(
        weights, base=0.3 * random_weights(9)[0], bias=torch.tensor([1.0, 0.0, -1.0]).double(), seed=seed
    )
    found = output_relation(problem, "first", "second")
    assert agrees_with_the_definition(found, problem)
    swapped = dataclasses.replace(found, centred=found.uncentred, uncentred=found.centred)
    assert not agrees_with_the_definition(swapped, problem), "the two centrings must not pass for each other"
    assert not agrees_with_the_definition(dataclasses.replace(found, change=found.uncentred), problem)


@pytest.mark.parametrize(
    ("second", "value", "kind"),
    [(WEIGHT, 1.0, "aligned"), (-WEIGHT, -1.0, "contradictory"), (5 * WEIGHT, 1.0, "aligned")],
)
def test_identical_scaled_and_opposite_experts(second, value, kind):
    found = output_relation(linear_problem([WEIGHT, second]), "first", "second")
    assert [getattr(found, each).value for each in KINDS] == [pytest.approx(value, abs=1e-12)] * 3
    assert found.kind == kind
    assert found.by_task["first"]["centred"] == pytest.approx(value)


def test_disjoint_outputs_are_irrelevant():
    weights = [weight.double() for weight in DISJOINT]
    found = output_relation(linear_problem(weights, count=200), "first", "second")
    assert found.uncentred.value == 0 and found.change.value == 0 and found.centred.value == pytest.approx(0, abs=1e-12)
    assert found.kind is Regime.IRRELEVANT, found


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
def test_symmetric_and_free_of_scale(seed, scale):
    first, second = random_weights(seed)
    problem = linear_problem([first, second], seed=seed)
    found, swapped = (output_relation(problem, *pair) for pair in (("first", "second"), ("second", "first")))
    scaled = output_relation(linear_problem([first, scale * second], seed=seed), "first", "second")
    # Another scale moves labels, not inputs, so every α must stay.
    for kind in KINDS:
        one = getattr(found, kind)
        for other in (getattr(swapped, kind), getattr(scaled, kind)):
            assert (other.value, other.lower, other.upper) == pytest.approx((one.value, one.lower, one.upper), abs=1e-9)


def test_a_mean_output_that_all_models_share_does_not_decide():
    weights = [weight.double() for weight in DISJOINT]
    problem = linear_problem(weights, bias=torch.tensor([300.0, 0.0, 0.0, 0.0]).double(), count=200)
    found = output_relation(problem, "first", "second")
    assert found.uncentred.value > 0.99
    assert found.uncentred.against(0.37) is Verdict.SUPPORTED, "deciding by the uncentred α would say aligned"
    assert found.kind is Regime.IRRELEVANT


def test_constant_outputs_are_undefined_and_say_so():
    bias = torch.tensor([1.0, 0.1, 0.3]).double()
    found = output_relation(linear_problem([WEIGHT, 0 * WEIGHT], bias=bias), "first", "second", measure=True)
    for estimate in (found.centred, found.change):
        assert estimate.status is Status.UNDEFINED and "nothing has a direction" in estimate.evidence
    assert found.uncentred.status is Status.CONVERGED
    assert (found.kind, found.regions) == (Regime.UNDECIDED, None)
    assert all(each.multi_task.predicted is Verdict.UNDECIDED for each in found.agreement.outcomes)
    assert "undefined" in str(found)
    assert found.to_dict()["centred"]["value"] is None


def test_examples_without_a_direction_widen_the_interval_and_are_counted():
    cosines = torch.full((20,), 0.5, dtype=torch.float64)
    whole = relations._mean([cosines, cosines], 0.9)
    holed = cosines.clone()
    holed[:4] = torch.nan
    found = relations._mean([cosines, holed], 0.9)
    assert "4 of them without a direction" in found.evidence and "without" not in whole.evidence
    assert found.value == pytest.approx(0.5)
    # The second mean is 0.8 · 0.5 ± 0.2 if the four were all −1 or all 1.
    assert found.lower < min((0.5 + 0.4 - 0.2) / 2, whole.lower)
    assert found.upper > max((0.5 + 0.4 + 0.2) / 2, whole.upper)


def test_one_example_says_nothing():
    found = output_relation(linear_problem(random_weights(0), count=1), "first", "second")
    assert (found.uncentred.lower, found.uncentred.upper) == (-1.0, 1.0)
    assert found.centred.status is Status.UNDEFINED, "a mean of one example leaves nothing"


def population(generator, count):
    """Outputs of two related models with a common mean, as a task's examples would give them."""
    shared, first, second = generator.normal(size=(3, count, 3))
    mean = np.array([2.0, 0.0, -1.0])
    return [torch.tensor(mean + shared + 0.7 * own) for own in (first, second)]


def test_the_interval_of_the_centred_alpha_covers_what_it_promises():
    """400 samples of 30 + 30 examples, a number fixed beforehand; the truth from 200,000."""
    generator = np.random.default_rng(0)
    one, two = population(generator, 200_000)
    truth = float(relations._cosine(one - one.mean(0), two - two.mean(0), (0.0, 0.0)).mean())
    covered = 0
    for _ in range(400):
        samples = [population(generator, 30) for _ in range(2)]
        strata = [relations._cosine(a - a.mean(0), b - b.mean(0), (0.0, 0.0)) for a, b in samples]
        found = relations._mean(strata, 0.9)
        covered += found.lower <= truth <= found.upper
    assert 0.87 <= covered / 400 <= 0.99, f"{covered} of 400 intervals hold the truth, 360 were promised"


def test_the_interval_covers_where_values_are_mostly_equal():
    """Cosines of single numbers are ±1: 20 + 20 of them are often all 1, and Student's interval then has no width."""
    generator = np.random.default_rng(1)
    covered = plain = 0
    for _ in range(400):
        strata = [torch.tensor(np.where(generator.random(20) < 0.97, 1.0, -1.0)) for _ in range(2)]
        found = relations._mean(strata, 0.9)
        covered += found.lower <= 0.94 <= found.upper
        both = torch.cat(strata)
        half = student.ppf(0.95, 39) * float(both.std()) / math.sqrt(40)
        plain += abs(float(both.mean()) - 0.94) <= half
    assert covered / 400 >= 0.9, f"{covered} of 400"
    assert plain / 400 < 0.8, "the control, Student's interval alone, must fail here"


def test_the_kind_is_undecided_where_the_interval_crosses():
    alpha = output_relation(linear_problem(random_weights(3)), "first", "second").centred
    inside = {"aligned": max(alpha.value, 0.0), "contradictory": min(alpha.value, 0.0)}
    assert output_relation(linear_problem(random_weights(3)), "first", "second", **inside).kind is Regime.UNDECIDED


def test_regions_are_those_of_the_centred_interval():
    found = output_relation(linear_problem(random_weights(3)), "first", "second", beta=0.1)
    assert found.regions == coefficient_region(found.centred, beta=0.1, aligned=0.37, contradictory=-0.37)


def test_cost_is_what_is_spent_and_outputs_are_shared_between_pairs(monkeypatch):
    weights = random_weights(0)
    problem = linear_problem(weights)
    spent = []
    original = Task.outputs
    monkeypatch.setattr(Task, "outputs", lambda self, params: spent.append(self.name) or original(self, params))
    assert output_relation(problem, "first", "second").cost.forwards == len(spent) == 6
    again = output_relation(problem, "second", "first", measure=True, grid=[0.0, 1.0])
    assert len(spent) == 6 + 4 and again.cost.forwards == 6 + 4


class TestAgreement:
    def test_retention_is_that_of_the_merge_itself(self):
        problem = linear_problem(random_weights(2), count=300)
        agreement = output_relation(problem, "first", "second", measure=True).agreement
        assert [outcome.coefficient for outcome in agreement.outcomes] == list(GRID)
        for outcome in agreement.outcomes:
            merged = problem.merged({"first": 1.0, "second": outcome.coefficient})
            for name, kept in (("first", outcome.first), ("second", outcome.second)):
                own = problem.tasks[name].score(problem.experts[name])
                assert kept.value == pytest.approx(problem.tasks[name].score(merged) / own)
                assert kept.lower <= kept.value <= kept.upper

    def test_identical_experts_are_both_kept_even_at_0(self):
        found = output_relation(linear_problem([WEIGHT, WEIGHT]), "first", "second", measure=True, beta=0.2)
        at_zero = found.agreement.outcomes[GRID.index(0.0)].multi_task
        assert at_zero == Check(Verdict.REFUTED, Verdict.SUPPORTED) and at_zero.word == "outside but met"
        assert sum(found.agreement.counts["multi_task"].values()) == len(GRID)

    def test_opposite_experts_have_no_lambda(self):
        found = output_relation(linear_problem([WEIGHT, -WEIGHT]), "first", "second", measure=True)
        assert found.regions.multi_task.possible is None
        counts = found.agreement.counts["multi_task"]
        # At λ = 1 they cancel, and ties give the first class: never both.
        assert counts["agrees"] == len(GRID) and counts["inside but not met"] == 0

    def test_without_an_upper_end_a_large_lambda_is_inside_and_fails(self):
        found = output_relation(
            linear_problem(random_weights(2), count=300), "first", "second", measure=True, grid=[50.0], contradictory=-1
        )
        outcome = found.agreement.outcomes[0]
        assert found.regions.multi_task.judge(50.0) is Verdict.SUPPORTED
        assert outcome.multi_task.word == "inside but not met", str(found)
        assert "inside but not met" in str(found.agreement)

    def test_without_a_region_or_a_score_nothing_is_decided(self):
        problem = linear_problem(random_weights(2))
        for name, task in problem.tasks.items():
            blind = dataclasses.replace(task.readout, score=None)
            problem.tasks[name] = Task(name, task.loss, task.batches, sizes=task.sizes, readout=blind)
        found = output_relation(problem, "first", "second", measure=True)
        assert found.agreement.outcomes[0].first.status is Status.UNDEFINED
        assert found.agreement.counts["multi_task"]["undecided"] == len(GRID)

    def test_a_wrong_region_disagrees(self):
        """A mutant region that asks for the opposite of what was measured is wrong wherever something is decided."""
        problem = linear_problem([WEIGHT, -WEIGHT])
        own = {name: problem.tasks[name].outputs(problem.experts[name]) for name in problem.names}
        wrong = coefficient_region(1.0)
        counts = compare_outcomes(problem, own, wrong, GRID, 0.1, 0.9).counts["multi_task"]
        assert counts["inside but not met"] == sum(value >= 0 for value in GRID)

    @pytest.mark.parametrize(
        ("predicted", "measured", "word"),
        [
            (Verdict.SUPPORTED, Verdict.SUPPORTED, "agrees"),
            (Verdict.REFUTED, Verdict.REFUTED, "agrees"),
            (Verdict.SUPPORTED, Verdict.REFUTED, "inside but not met"),
            (Verdict.REFUTED, Verdict.SUPPORTED, "outside but met"),
            (Verdict.UNDECIDED, Verdict.SUPPORTED, "undecided"),
            (Verdict.REFUTED, Verdict.UNDECIDED, "undecided"),
        ],
    )
    def test_words(self, predicted, measured, word):
        assert Check(predicted, measured).word == word


def test_private_heads_stay_with_their_task():
    """Heads of other widths: both experts' bodies are read through the head of the task whose inputs they get."""
    generator = torch.Generator().manual_seed(0)
    tasks, experts = {}, {}
    for width, name in ((2, "first"), (5, "second")):
        model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, width)).double()
        data = (torch.randn(20, 4, generator=generator).double(), torch.arange(20) % width)
        tasks[name] = Task.from_module(name, model, nn.functional.cross_entropy, data)
        experts[name] = {key: value.detach() for key, value in model.named_parameters()}
    base = {key: torch.zeros_like(value) for key, value in experts["first"].items() if key.startswith("0")}
    problem = MergeProblem(base, experts, tasks, private=["1.*"])
    found = output_relation(problem, "first", "second")
    assert agrees_with_the_definition(found, problem)


def test_single_numbers_are_noted():
    data = (torch.randn(30, 4).double(), torch.randn(30, 1).double())
    tasks = {n: Task.from_module(n, nn.Linear(4, 1).double(), nn.functional.mse_loss, data) for n in ("a", "b")}
    experts = {n: {"weight": torch.randn(1, 4).double(), "bias": torch.zeros(1).double()} for n in tasks}
    base = {key: torch.zeros_like(value) for key, value in experts["a"].items()}
    found = output_relation(MergeProblem(base, experts, tasks), "a", "b")
    assert "outputs of a and b are single numbers" in found.notes[0] and "note: outputs" in str(found)


def test_tasks_without_outputs_are_refused():
    problem = quadratic_problem(torch.eye(2).double().repeat(2, 1, 1), torch.eye(2).double())
    with pytest.raises(InputError, match=r"\['task_0', 'task_1'\] have a loss only. Build them with Task.from_module"):
        output_relation(problem, "task_0", "task_1")


@pytest.mark.parametrize(
    "shape", [lambda count: (count, count), lambda count: (count, 5, 2), lambda count: (1, 3), lambda count: ()]
)
def test_outputs_that_are_not_one_vector_an_example_are_refused(shape):
    problem = linear_problem(random_weights(0))
    task = problem.tasks["second"]
    other = dataclasses.replace(task.readout, outputs=lambda params, batch: torch.ones(shape(len(batch[1]))))
    problem.tasks["second"] = Task("second", task.loss, task.batches, sizes=task.sizes, readout=other)
    with pytest.raises(InputError, match="expected as output one vector, always as long, for each of 40"):
        output_relation(problem, "first", "second")


def test_outputs_that_are_not_finite_are_refused():
    problem = linear_problem(random_weights(0))
    problem.base["bias"][0] = math.inf
    with pytest.raises(InputError, match="expected finite numbers; outputs at the base are not"):
        output_relation(problem, "first", "second")


BAD = {
    "unknown": (
        {"second": "third"},
        "different experts of ['first', 'second']; found 'first' and 'third'",
    ),
    "same": ({"second": "first"}, "expected two different experts"),
    "confidence": ({"confidence": 1.0}, "confidence: expected a number between 0 and 1; found 1.0"),
    "tolerance": ({"tolerance": 1.0}, "tolerance: expected a share"),
    "empty grid": ({"grid": []}, "grid: expected different finite λ"),
    "grid": ({"grid": [0.0, math.nan]}, "grid: expected different finite λ"),
    "repeated": ({"grid": [0.0, 0.0]}, "grid: expected different finite λ"),
    "thresholds": ({"aligned": -0.5}, "aligned and contradictory"),
    "beta": ({"beta": -1.0}, "beta: expected a finite number from 0 on"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_refused(name):
    options, message = BAD[name]
    with pytest.raises(InputError) as caught:
        output_relation(linear_problem(random_weights(0)), **{"first": "first", "second": "second", **options})
    assert message in str(caught.value)


def test_published_figures_fall_where_they_were_published():
    """Colored-MNIST pairs and the two texts beside an unlearned one."""
    figures = {0.164: "irrelevant", 0.891: "aligned", -0.849: "contradictory", 0.498: "aligned", 0.239: "irrelevant"}
    limits = {"aligned": relations.ALIGNED, "contradictory": relations.CONTRADICTORY}
    assert {value: str(coefficient_region(value, **limits).regime) for value in figures} == figures
