"""Every benchmark runs from end to end on the sample that is shipped with it."""

import json

import pytest
import torch

import diagnostics as dx
from benchmarks import (
    audit_costs,
    coefficient_regret,
    curvature,
    demo_seeds,
    derivations,
    disentanglement,
    geometry_streaming,
    language_predictions,
    method_predictions,
    minilm_bounds,
    orthogonality,
    peak_memory,
    plan_1b,
    update_structure,
)
from benchmarks.bases import arithmetic as bases_arithmetic
from benchmarks.bases import history as bases_history
from benchmarks.bases import memory as bases_memory
from benchmarks.bases import planted as bases_planted
from benchmarks.composition import study
from benchmarks.fuzzing import study as fuzzing
from benchmarks.prediction import methods as prediction_methods
from benchmarks.prediction import study as prediction_study
from benchmarks.prediction.plan import GROUPS, merges
from benchmarks.prediction.study import OURS
from diagnostics.measures.hessian import differentiable_twice
from diagnostics.measures.memory import SavedBytes
from diagnostics.measures.outputs import OutputTable


def test_minilm_bounds_dry_run(capsys):
    minilm_bounds.main(["--quick"])
    printed = capsys.readouterr().out
    assert "Bounds over" in printed and "What entered" in printed


def test_demo_seeds_dry_run(capsys):
    demo_seeds.main(["--quick"])
    assert "The demo at several seeds" in capsys.readouterr().out


def test_coefficient_regret_dry_run(capsys):
    coefficient_regret.main(["--quick"])
    printed = capsys.readouterr().out
    assert "Regret of chosen coefficients" in printed and "within the bound told in 2 of 2" in printed


def test_curvature_dry_run(capsys):
    curvature.main(["--quick"])
    printed = capsys.readouterr().out
    assert "product, graph kept" in printed and "diagnostics, exact, residual within 1 %" in printed


def test_audit_costs_dry_run(capsys):
    audit_costs.main(["--quick"])
    printed = capsys.readouterr().out
    assert "of a backward pass a context" in printed and "peak memory, vectors sketched" in printed


def test_geometry_streaming_dry_run(capsys):
    geometry_streaming.main(["--quick"])
    printed = capsys.readouterr().out
    assert "geometry beside plain reading" in printed and "Peak memory of the process" in printed


def test_the_plain_loop_that_a_geometry_is_timed_against_finds_the_same(tmp_path):
    paths = geometry_streaming.write_models(tmp_path, 100_000, 9, "mixed")
    found = dx.geometry(paths[0], paths[1:]).gram
    assert torch.allclose(found, torch.from_numpy(geometry_streaming.loop_plainly(paths)), rtol=1e-12)
    assert paths[9].samefile(paths[1]) and not paths[2].samefile(paths[1])


def test_peak_memory_dry_run(capsys):
    peak_memory.main(["--quick"])
    printed = capsys.readouterr().out
    assert "as the model grows" in " ".join(printed.split()) and "gradient" in printed


def test_plan_of_a_billion_parameters_dry_run(capsys):
    plan_1b.main(["--quick"])
    printed = capsys.readouterr().out
    assert "A plan" in printed and "product, graph kept" in printed


def test_counted_operations_are_those_of_the_matrix_products():
    """A forward pass multiplies every weight of a matrix twice a token, and scores with values once more a pair."""
    config, tokens = peak_memory.config(16), 8
    counted = plan_1b.count(config, tokens, torch.float32)
    matrices = counted["parameters"] - 512 * 16 - (2 * 4 + 1) * 16  # without embedding and norms
    scores = 4 * 2 * 2 * tokens * tokens * 16  # layers, scores and values
    assert counted["flops"]["forward"] == 2 * tokens * matrices + scores
    for name, passes in (("gradient", 3), ("product, graph kept", 6), ("derivative along one direction", 3)):
        assert counted["flops"][name] == pytest.approx(passes * counted["flops"]["forward"], rel=0.15), name


def test_bytes_of_graphs_on_the_meta_device_are_those_of_a_real_model():
    """Counted by another hook, on tensors that have values."""
    config = peak_memory.config(16)
    counted = plan_1b.count(config, 8, torch.float32)
    real = plan_1b.Counted(config, 8, torch.float32, "cpu")
    with SavedBytes(real.params.values()) as saved, differentiable_twice():
        held = real.loss(real.params)
    assert saved.total > 0 and held.requires_grad
    assert counted["graph"] == pytest.approx(saved.total, rel=0.05)


def test_composition_study_dry_run(capsys):
    study.main(["--quick"])
    printed = capsys.readouterr().out
    assert "relative alignment error (main)" in printed and "published sign" in printed


def test_method_predictions_dry_run(capsys):
    method_predictions.main(["--quick"])
    printed = capsys.readouterr().out
    assert "all that trim or drop" in printed and "of these, 3 experts" in printed


def test_language_predictions_dry_run(capsys):
    language_predictions.main(["--quick"])
    printed = capsys.readouterr().out
    assert "on 4 seen examples" in printed and "on 4 unseen examples" in printed


def test_update_structure_dry_run(capsys):
    update_structure.main(["--quick"])
    assert "predicted against measured" in capsys.readouterr().out


def test_disentanglement_dry_run(capsys):
    disentanglement.main(["--quick"])
    assert "rank correlation with what a pair loses" in capsys.readouterr().out


def test_orthogonality_dry_run(capsys):
    orthogonality.main(["--quick"])
    assert "rank correlation" in capsys.readouterr().out.lower()


def test_planted_groups_dry_run(capsys):
    bases_planted.main(["--quick"])
    printed = capsys.readouterr().out
    assert "as published (2.12)" in printed and "no groups" in printed


def test_arithmetic_with_bases_dry_run(capsys):
    bases_arithmetic.main(["--quick"])
    printed = capsys.readouterr().out
    assert all(f"{use}, digits" in printed for use in ("Addition", "Negation", "A new task"))


def test_memory_of_bases_dry_run(capsys):
    bases_memory.main(["--quick"])
    assert "memory beyond a process that holds the base" in capsys.readouterr().out


def test_history_of_bases_dry_run(capsys):
    bases_history.main(["--quick"])
    assert "Groups of experts early in fine-tuning" in capsys.readouterr().out


def around(value):
    """An interval of +-0.1."""
    return [value - 0.1, value + 0.1]


def row(loss, retention, told_loss, told_retention):
    """A row of a prediction benchmark: measured and predicted, an expert of loss 1, intervals of +-0.1."""
    return {
        "seen": {"loss": loss, "expert_loss": 1.0, "retention": retention},
        "predicted": {OURS: {"loss": told_loss, "retention": told_retention}, "size": {"score": -told_loss}},
        "intervals": {"seen": {"loss": around(told_loss), "retention": around(told_retention)}},
    }


def test_figures_of_predictions_known_by_hand():
    rows = [row(1.0, 1.0, 1.05, 0.98), row(1.5, 0.8, 1.4, 0.72), row(3.0, 0.5, 2.0, 0.62)]
    found = method_predictions.figures(rows, OURS)
    assert found["MAE"] == pytest.approx(100 * (0.02 + 0.08 + 0.12) / 3)
    assert found["gap"] == pytest.approx(1), "the order is right, if not the size"
    assert method_predictions.figures(rows, "size")["gap"] == pytest.approx(1), "a lower score means a larger gap"
    assert method_predictions.coverage(rows) == {"retention": pytest.approx(2 / 3), "loss": pytest.approx(2 / 3)}
    assert method_predictions.lost(rows) == pytest.approx(2 / 3)


def test_an_error_of_measurement_widens_intervals():
    short = row(1.0, 0.8, 1.0, 1.0)
    noisy = {**short, "seen": {**short["seen"], "retention_stderr": 0.2}}
    assert method_predictions.coverage([short])["retention"] == 0
    assert method_predictions.coverage([noisy])["retention"] == 1


def test_single_models_added_on_outputs_are_exact_for_a_linear_model():
    torch.manual_seed(0)
    base, *experts = [{"weight": torch.randn(3, 2), "bias": torch.randn(3)} for _ in range(3)]
    data = (torch.randn(5, 2), torch.tensor([0, 1, 2, 0, 1]))
    task = dx.Task.from_module("a", torch.nn.Linear(2, 3), torch.nn.functional.cross_entropy, data, batch_size=3)
    problem = dx.MergeProblem(base, dict(zip("ab", experts, strict=True)), {"a": task, "b": task})
    table, merge = OutputTable(problem.tasks["a"], problem.base, problem.task_vectors), {"a": 0.5, "b": 0.7}
    told = {rule: torch.cat(each) for rule, each in language_predictions.simpler(table, "a", merge).items()}
    real = torch.cat(task.outputs(problem.merged(merge))).double()
    assert torch.allclose(told["single models added"], real, atol=1e-5)
    assert not torch.allclose(told["own update alone"], real, atol=0.1), "the partner's part is missing there"
    assert torch.allclose(told["own update alone"], torch.cat(task.outputs(problem.merged({"a": 0.5}))).double())


def test_prediction_study_dry_run(capsys):
    prediction_study.main(["--quick"])
    printed = capsys.readouterr().out
    assert "Predictors of merges, no merge evaluated" in printed and "Ours by kind of merge" in printed


def test_every_subset_of_a_group_is_merged_and_averages_come_first():
    group = GROUPS["lora"][0]
    found = list(merges(group))
    assert len({tuple(merge) for merge in found}) == 2 ** len(group) - 1 - len(group)
    assert found[0] == dict.fromkeys(group[:2], 0.5)


def test_figures_of_a_predictor_are_those_of_their_definitions():
    rows = [
        {
            "family": "full",
            "merge": {"a": value, "b": 0.5},
            "task": task,
            "seen": {"retention": kept, "loss": 1 - kept, "expert_loss": 0.0},
        }
        for value, task, kept in ((0.3, "a", 0.9), (0.3, "b", 0.8), (1.5, "a", 0.7), (1.5, "b", 0.6))
    ]
    real = prediction_study.truth(rows)
    found = prediction_study.scores(rows, {"retention": real["retention"] + 0.02, "gap": real["gap"]})
    assert found["retention MAE"] == pytest.approx(2.0)
    assert found["gap Spearman, all"] == pytest.approx(1.0) == pytest.approx(found["residual gap r"])
    # What is left is +-0.1 for both tasks: a predictor that knows a task's mean alone has none of it.
    means = prediction_study.residual(real["retention"], rows)
    assert means.tolist() == pytest.approx([0.1, 0.1, -0.1, -0.1])


def test_stored_merges_of_other_methods_are_shown(capsys):
    prediction_methods.main(["--show"])
    assert "TIES and DARE on MiniLM" in capsys.readouterr().out


def test_fuzzing_dry_run(capsys):
    fuzzing.main(["--quick"])
    printed = capsys.readouterr().out
    assert printed.count(f"0 of {fuzzing.QUICK} failed") == len(fuzzing.READERS), printed


def test_stored_fuzzing_found_nothing_that_is_left(capsys):
    fuzzing.main(["--show"])
    stored = json.loads(fuzzing.RESULTS.read_text())["readers"]
    assert "Broken files" in capsys.readouterr().out and list(stored) == list(fuzzing.READERS)
    assert (
        sum(row["failed"] for row in stored.values()) == 0 and sum(row["inputs"] for row in stored.values()) >= 100_000
    )


def test_derivations_dry_run(capsys):
    derivations.main(["--quick"])
    printed = capsys.readouterr().out
    assert "3 not refuted; 1 fail as stated, 1 of these found; 8 of 8 wrong forms refuted" in " ".join(printed.split())
