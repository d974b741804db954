"""Results: printing, plain data, statuses."""

import json
import math
from dataclasses import dataclass

import pytest
import torch

from diagnostics.results import Assumption, Cost, Estimate, Result, Status, plain


@pytest.mark.parametrize("status", Status)
def test_every_status_carries_its_advice(status):
    assert status.advice.endswith(".") and len(status.advice) > 30


def test_only_exact_and_converged_are_trusted():
    assert [status for status in Status if status.trusted] == [Status.EXACT, Status.CONVERGED]


def test_plain_handles_nesting_and_is_strict_json():
    @dataclass(frozen=True)
    class Nested(Result):
        inner: Estimate
        values: dict

    nested = Nested(
        Estimate(math.nan, -math.inf, math.inf, 0.9, Status.UNDEFINED),
        {("a", 1): torch.eye(2), "set": (1, None, True), "status": Status.EXACT},
    )
    text = json.dumps(nested.to_dict(), allow_nan=False)
    assert json.loads(text)["inner"] == {
        "value": None, "lower": "-inf", "upper": "inf", "confidence": 0.9, "status": "undefined", "evidence": ""
    }  # fmt: skip
    assert plain(nested)["values"]["status"] == "exact"


def test_an_estimate_prints_its_interval_and_its_distrust():
    assert str(Estimate(1.0, 0.5, 1.5, 0.9, Status.CONVERGED)) == "1 [0.5, 1.5]"
    assert "tainted" in str(Estimate(1.0, 0.5, 1.5, 0.9, Status.TAINTED))


def test_an_assumption_prints_what_was_measured():
    assert str(Assumption(None, 1.0, 2.0, "note")) == "undecided: 1 against 2. note"


def test_costs_add_up():
    assert Cost(1, 2, 3, 4) + Cost(forwards=1) == Cost(2, 2, 3, 4)
    assert str(Cost(forwards=2, jvps=1)) == "2 forwards, 1 jvps" and str(Cost()) == "nothing"
