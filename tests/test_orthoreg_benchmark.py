"""The OrthoReg benchmark: dry runs, and figures that can be checked by hand."""

import io
import json
import math
from dataclasses import replace as changed

import pytest
import torch
from rich.console import Console
from scipy.stats import t as student

from benchmarks.orthoreg import digits, minilm, study, tables, variants
from benchmarks.orthoreg.figures import choose, disentanglement
from benchmarks.orthoreg.variants import PLAIN, Variant, fill, merged, penalise, radial, rescaled, size_penalty
from diagnostics.inputs.tasks import Task
from diagnostics.measures.orthoreg import orthoreg_penalty

FORMS = ("paper", "code", "size")


@pytest.mark.parametrize("benchmark", [digits, minilm], ids=["digits", "minilm"])
def test_dry_runs(benchmark, capsys):
    benchmark.main(["--quick"])
    printed = capsys.readouterr().out
    assert "Strengths tried" in printed and "Means over seeds and tasks" in printed and "Differences" in printed


@pytest.mark.parametrize("benchmark", [digits, minilm], ids=["digits", "minilm"])
def test_stored_results_are_shown(benchmark, capsys):
    benchmark.main(["--show"])
    printed = capsys.readouterr().out
    assert "plain, norm of paper" in printed and "±" in printed


def network(seed):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)).double()


def trained(prepare, penalty):
    """A network after a few steps on random data, with a term added to the loss or prepared beforehand."""
    model = network(0)
    inputs, targets = torch.randn(20, 3).double(), torch.randint(0, 2, (20,))
    prepare(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.0)
    for _ in range(10):
        optimiser.zero_grad()
        (torch.nn.functional.cross_entropy(model(inputs), targets) + penalty(model)).backward()
        optimiser.step()
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.mark.parametrize("form", FORMS)
def test_a_penalty_of_gradients_is_the_penalty_added_to_the_loss(form):
    variant, start = Variant(form, 0.3), dict(network(0).named_parameters())

    def term(model):
        deltas = [value - start[name].detach() for name, value in model.named_parameters() if value.ndim == 2]
        return variant.strength * sum(variant.penalty(delta) for delta in deltas)

    def nothing(model):
        return 0.0

    hooked = trained(lambda model: penalise(model, variant), nothing)
    assert torch.allclose(hooked, trained(nothing, term), rtol=1e-9)
    assert not torch.allclose(hooked, trained(nothing, nothing), rtol=1e-2)
    assert torch.equal(trained(lambda model: penalise(model, PLAIN), nothing), trained(nothing, nothing))


def test_without_a_penalty_the_loop_gives_the_experts_of_the_demo():
    lab = digits.lab(5, 1)
    for name in ("rotated", "loops"):
        again = lab.train(name, Variant("paper", 0.0))
        assert all(torch.equal(value, again[key]) for key, value in lab.train(name, PLAIN).items())
        other = lab.train(name, Variant("paper", 1.0))
        assert not torch.equal(other["second.weight"], again["second.weight"])


def test_the_size_part_is_what_equal_singular_values_leave():
    """diag(2, 1): squares 4 and 1, mean 2.5, so 2 · (2.5 − 1)² = 4.5 by size and 2 · 1.5² = 4.5 by shape."""
    assert float(size_penalty(torch.diag(torch.tensor([2.0, 1.0])))) == 4.5
    assert float(orthoreg_penalty(torch.diag(torch.tensor([2.0, 1.0])))) == 9
    assert float(size_penalty(torch.ones(2, 5) * math.sqrt(0.2))) == pytest.approx(0, abs=1e-12), (
        "any shape, right size"
    )


def test_controls_and_merges_by_hand():
    base = {"w": torch.tensor([1.0, 1.0]), "b": torch.tensor([0.0])}
    plain, like = {"w": torch.tensor([4.0, 5.0]), "b": base["b"]}, {"w": torch.tensor([1.0, 7.0]), "b": base["b"] + 8}
    found = rescaled(base, plain, like)
    assert torch.allclose(found["w"], torch.tensor([7.0, 9.0])), "(3, 4, 0) at the length of (0, 6, 8)"
    assert torch.equal(found["b"], base["b"])
    assert torch.equal(merged(base, {"a": plain, "b": like}, 0.5)["w"], torch.tensor([2.5, 6.0]))


def test_disentanglement_by_hand():
    """Linear models on the unit vectors; the second update turns the second example of the first task at α = 1 only."""
    data = (torch.eye(2), torch.tensor([0, 1]))
    model = torch.nn.Linear(2, 2, bias=False)
    tasks = {name: Task.from_module(name, model, torch.nn.functional.cross_entropy, data) for name in "ab"}
    base = {"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]])}
    experts = {"a": {"weight": base["weight"]}, "b": {"weight": torch.tensor([[1.0, 1.5], [0.0, 1.0]])}}
    # Columns are the outputs. On b's task both models move alike; on a's the unmoved base is compared with the merge.
    found = disentanglement(base, experts, tasks)["a", "b"]
    assert (found["xi 0.5"], found["xi 1"]) == (0.0, 0.5) and 0 < found["soft xi 0.5"] < found["soft xi 1"]


def test_size_and_turn_by_hand():
    base = {"w": torch.zeros(3, 4), "b": torch.zeros(3)}
    small = {"w": 1e-3 * torch.diag(torch.tensor([1.0, 2.0, 3.0])) @ torch.eye(3, 4), "b": torch.ones(3)}
    assert fill(base, small) == pytest.approx(14e-6 / 3) and radial(base, small) == pytest.approx(1, abs=1e-4)
    # Singular values s with s² of 2 and 0.5: the gradient 4 s(s² − 1) has the squares 32 and 2, and 7 along ΔW.
    base, uneven = {"w": torch.zeros(2, 2)}, {"w": torch.diag(torch.tensor([2.0, 0.5]).sqrt())}
    assert fill(base, uneven) == pytest.approx(1.25) and radial(base, uneven) == pytest.approx(7**2 / 2.5 / 34)
    assert math.isnan(radial(base, {"w": torch.eye(2)}))


def test_the_first_and_the_weakest_of_equals_is_chosen():
    assert choose((0.1, 0.2, 0.3), {0.1: 1.0, 0.2: 2.0, 0.3: 2.0}.__getitem__) == (0.2, 2.0)
    candidates = (Variant("paper", 1.0), Variant("paper", 0.1), Variant("code", 1.0))
    selection = [{"variant": name, "merged": 0.5} for name in ("plain", "paper-1", "paper-0.1", "code-1")]
    plan = study.Plan(candidates, ("code", "paper"), (), (1.0,), (), (0,), {})
    assert study.best(plan, selection) == [Variant("code", 1.0), Variant("paper", 0.1)]
    selection[2]["merged"] = 0.4
    assert study.best(changed(plan, finals=("paper",)), selection) == [Variant("paper", 1.0)]


def test_intervals_by_hand():
    """Seeds' means 1.5 and 3.5, tasks' means 2 and 3: variances 2/2 and 0.5/2."""
    middle, half = tables.interval(torch.tensor([[1.0, 2.0], [3.0, 4.0]]).numpy())
    freedom = 1.25**2 / (1 + 0.25**2)
    assert (middle, half) == (2.5, pytest.approx(student.ppf(0.95, freedom) * math.sqrt(1.25)))
    assert tables.interval(torch.ones(3, 4).numpy()) == (1.0, 0.0)
    assert math.isnan(tables.interval(torch.ones(1, 4).numpy())[1]), "one seed says nothing of others"


def share_covered(interval):
    """How often an interval holds zero when seeds, tasks and noise have effects of mean zero; 400 draws, fixed."""
    generator, held = torch.Generator().manual_seed(0), 0
    for _ in range(400):
        seeds, tasks, noise = (torch.randn(shape, generator=generator) for shape in ((3, 1), (1, 6), (3, 6)))
        middle, half = interval((0.3 * seeds + tasks + 0.5 * noise).numpy())
        held += abs(middle) <= half
    return held / 400


def test_intervals_cover_new_seeds_and_tasks():
    assert share_covered(tables.interval) >= 0.88


def test_an_interval_over_seeds_alone_would_not():
    def seeds_alone(values):
        means = values.mean(1)
        return means.mean(), student.ppf(0.95, 2) * means.std(ddof=1) / math.sqrt(3)

    assert share_covered(seeds_alone) < 0.88


def stored_row(seed, variant, expert, together):
    task = {"base": 0.5, "expert": expert, "merged": together, "norm": 1.0, "fill": 0.1, "radial": 1.0, "inside": 0.2}
    pair = {"between": 0.1, "cosine": 0.0, "xi 0.5": 0.1, "xi 1": 0.2, "soft xi 1": 0.1}
    return {
        **{"seed": seed, "variant": variant, "coefficient": 0.5, "tasks": {"a": task, "b": task}},
        **{"pairs": {"a + b": pair}, "null": {"cosine": 0.01, "columns": 0.05}},
    }


def test_figures_of_stored_rows_by_hand():
    rows = [
        *(stored_row(seed, "plain", 0.8, 0.6) for seed in (0, 1)),
        *(stored_row(seed, "paper-1", 0.8, 0.7) for seed in (1, 0)),
        stored_row(0, "plain, norm of paper-1", 0.4, 0.6),
    ]
    assert tables.difference(rows, "paper-1", "plain", "merged") == pytest.approx(0.1)
    assert tables.difference(rows, "paper-1", "plain", "merged").shape == (2, 2), "seeds are matched"
    assert tables.difference(rows, "paper-1", "plain, norm of paper-1", "merged").shape == (1, 2)
    assert tables.values(rows, "plain", "normalised")[0] == pytest.approx([0.75, 0.75])
    assert tables.values(rows, "plain, norm of paper-1", "normalised") == {}, "nobody trained these experts"
    assert tables.values(rows, "plain", "pair merged") == {}, "not measured"
    console = Console(width=200, file=io.StringIO())
    tables.show({"selection": [], "rows": rows}, console)
    printed = console.file.getvalue()
    assert "+10.0±0.0" in printed and "plain, norm of paper-1 (seed 0)" in printed


def test_a_run_goes_on_where_it_stopped(tmp_path):
    console = Console(quiet=True)
    digits.run(tmp_path / "out.json", True, console)
    before = json.loads((tmp_path / "out.json").read_text())

    def no_lab(seed):
        raise AssertionError("nothing is to be trained")

    study.run(digits.plan(True), no_lab, tmp_path / "out.json", console)
    assert json.loads((tmp_path / "out.json").read_text()) == before
    assert {row["variant"] for row in before["rows"]} >= {"plain", "paper-0.1", "plain, norm of code-0.1"}
    with pytest.raises(AssertionError, match="nothing is to be trained"):
        study.run(digits.plan(False), no_lab, tmp_path / "out.json", console)


def test_variants_have_names():
    assert [each.name for each in (PLAIN, Variant("paper", 0.1), Variant("code", 10.0))] == [
        "plain",
        "paper-0.1",
        "code-10",
    ]
    assert variants.PLAIN.strength == 0
