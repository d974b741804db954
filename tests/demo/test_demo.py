"""The demo: a dry run gives a whole report, the same one each time, and predicts before it evaluates."""

import json

import pytest
import torch

from diagnostics.demo import run as demo_run
from diagnostics.demo.digits import RECIPES, build_digits
from diagnostics.demo.run import _merges, run_demo
from diagnostics.report.html import render_html
from diagnostics.results import plain


@pytest.fixture(scope="module")
def quick():
    return run_demo(quick=True)


def test_report_has_every_part_that_was_asked_for(quick):
    document, payload = quick
    page = render_html(document)
    for part in ("similarity", "log", "measured", "coefficient", "digits"):
        assert part in page.lower(), f"{part} is missing on the page"
    assert page.count("<svg") >= 5
    json.dumps(plain(payload), allow_nan=False)
    assert set(payload) == {"geometry", "scorecard", "outcomes", "bounds"}


def test_every_merge_is_predicted_before_any_is_evaluated(monkeypatch):
    order = []
    predict, evaluate = demo_run.predict_merge, demo_run._evaluate
    monkeypatch.setattr(demo_run, "predict_merge", lambda *a, **k: order.append("predict") or predict(*a, **k))
    monkeypatch.setattr(demo_run, "_evaluate", lambda *a: order.append("evaluate") or evaluate(*a))
    monkeypatch.setattr(demo_run, "_curve", lambda *a: demo_run._about(a[0]))
    run_demo(quick=True)
    assert "predict" not in order[order.index("evaluate") :]
    assert order.count("evaluate") > 3


def test_same_seed_same_numbers():
    first, second = (build_digits(steps=5) for _ in range(2))
    assert all(
        torch.equal(value, second.problem.experts[name][key])
        for name, expert in first.problem.experts.items()
        for key, value in expert.items()
    )


def test_tasks_include_heads_of_their_own_and_a_contradiction():
    problem = build_digits(steps=2).problem
    widths = {name: len(head["head.bias"]) for name, head in problem.private.items()}
    assert widths["parity"] == 2 and widths["digits"] == 10
    labels = torch.arange(10)
    assert (RECIPES["digits"].labels(labels) != RECIPES["reversed"].labels(labels)).all()


def test_some_of_the_experts_are_those_of_all():
    some, every = build_digits(steps=2, tasks=["reversed", "digits"]), build_digits(steps=2)
    assert some.problem.names == ("reversed", "digits") and list(some.test) == list(some.about) == [
        "reversed",
        "digits",
    ]
    for name in some.problem.names:
        own, same = some.problem.experts[name], every.problem.experts[name]
        assert all(torch.equal(own[key], same[key]) for key in own)


def test_merges_cover_all_pairs_larger_sets_and_several_coefficients():
    merges = list(_merges(tuple(RECIPES)))
    assert len(merges) == 4 * 21 + 3 * 11
    assert {len(merge) for merge in merges} == {2, 3, 4, 7}
    assert len({value for merge in merges for value in merge.values()}) >= 6
