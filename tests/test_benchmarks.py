"""Every benchmark runs from end to end on the sample that is shipped with it."""

from benchmarks import audit_costs, demo_seeds, derivative_costs, minilm_bounds
from benchmarks.composition import study


def test_minilm_bounds_dry_run(capsys):
    minilm_bounds.main(["--quick"])
    printed = capsys.readouterr().out
    assert "Bounds over" in printed and "Predictions (no merge evaluated)" in printed


def test_demo_seeds_dry_run(capsys):
    demo_seeds.main(["--quick"])
    assert "The demo at several seeds" in capsys.readouterr().out


def test_derivative_costs_dry_run(capsys):
    derivative_costs.main(["--quick"])
    assert "Hessian-vector product / gradient" in capsys.readouterr().out


def test_audit_costs_dry_run(capsys):
    audit_costs.main(["--quick"])
    printed = capsys.readouterr().out
    assert "of a backward pass a context" in printed and "peak memory, vectors sketched" in printed


def test_composition_study_dry_run(capsys):
    study.main(["--quick"])
    printed = capsys.readouterr().out
    assert "relative alignment error (main)" in printed and "published sign" in printed
