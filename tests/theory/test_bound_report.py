"""The verdict on a bound, from measurements made up for it: which rungs count, what holds, and what is printed."""

import dataclasses
import math
from types import SimpleNamespace

import pytest

from diagnostics.results import Assumption, Status
from diagnostics.theory.bound_report import BoundReport, build_report
from diagnostics.theory.loss_gap import Curvature, Displacement, LossGap

YES, NO = Assumption(True, 0.0, 1.0), Assumption(False, 2.0, 1.0, "too much")
# Gap 0.5; steps 0.5, 0.5, 0.1 + 0.4 / 2, upper sum, 0.1 + 1 / 2, 0.1 + 2 · 1 / 2, 0.1 + L · 1 / 2.
WAY = Displacement(
    start=1.0,
    end=1.4,
    offset=0.1,
    slope=0.0,
    gradient_norm=0.0,
    norm_squared=1.0,
    nodes=(0.0, 1.0),
    curvatures=(0.4, 1.0),
    integral=0.4,
    mismatch=0.0,
    tolerance=0.0,
    subspace=(2.0,),
    spectral=Curvature(3.0, 2.0, 4.0, Status.CONVERGED),
)


def report(way=WAY, differentiable=YES, smooth=YES, tail=(("last", 2.0),), factor=0.5, others=None, constant=None):
    assumptions = {"differentiable": differentiable, "smooth": smooth, **(others or {})}
    claim = SimpleNamespace(audit=lambda case: assumptions)
    return build_report("t", "a bound (9.9)", LossGap(way, 1.0), claim, tail, factor, constant, {"extra": 7.0})


def with_spectral(lower, value, upper, status=Status.CONVERGED, **changes):
    return dataclasses.replace(WAY, spectral=Curvature(value, lower, upper, status), **changes)


def test_a_report_carries_what_entered():
    found = report(constant=2.5)
    assert (found.name, found.claim, found.gap, found.reference_loss, found.constant_loss) == (
        *("t", "a bound (9.9)", pytest.approx(0.5)),
        *(pytest.approx(0.9), 2.5),
    )
    assert found.bound == 1.5 and found.bound_interval == (1.0, 2.0), "the interval of L, times the factor"
    assert found.quantities == {
        **{"L": 3.0, "L_lower": 2.0, "L_upper": 4.0, "L_S": 2.0, "norm_squared": 1.0, "slope": 0.0, "offset": 0.1},
        "extra": 7.0,
    }
    assert found.assumptions == {"differentiable": YES, "smooth": YES}
    assert [value for _, value in found.chain] == pytest.approx([0.5, 0.5, 0.3, 0.6, 0.6, 1.1, 1.6, 2.0])
    along = report(dataclasses.replace(WAY, spectral_along=(1.0, 5.0, 2.0)))
    assert along.quantities["L_along"] == 5.0 and "L_along" not in found.quantities


@pytest.mark.parametrize(
    ("changes", "best", "label"),
    [
        ({}, 0.6, "<= upper sum of curvature along the way (2.6)"),
        ({"tail": [("last", 0.55)]}, 0.55, "last"),
        ({"tail": [("last", 0.55)], "smooth": NO}, 0.6, "<= upper sum of curvature along the way (2.6)"),
        ({"tail": [("last", 0.55)], "way": with_spectral(2.0, 3.0, 4.0, Status.LOWER_BOUND)}, 0.6, "<= upper sum"),
        ({"way": with_spectral(0.5, 0.5, 0.5)}, 0.35, "<= spectral norm L at the expert (2.5)"),
        ({"way": with_spectral(0.5, 0.5, 0.5), "smooth": NO}, 0.6, "<= upper sum"),
        ({"way": with_spectral(0.5, 0.5, 0.5), "differentiable": NO}, math.inf, "none"),
        ({"tail": [("last", 0.55)], "differentiable": NO, "smooth": NO}, math.inf, "none"),
    ],
)
def test_the_best_bound_is_the_least_whose_own_assumptions_hold(changes, best, label):
    """Rungs from nodes need a smooth way; those from L need that no larger curvature is hidden, and L itself."""
    found = report(**changes)
    assert found.best == pytest.approx(best) and found.best_label.startswith(label)


def test_the_upper_sum_is_the_best_bound_where_the_way_bends_down_at_its_end():
    way = dataclasses.replace(WAY, nodes=(0.0, 0.5, 1.0), curvatures=(1.0, -8.0, -8.0), subspace=(0.0,))
    found = report(way)
    # Upper sum: the larger of 1 and -8 on the first half, whose weight is (1 - 1/4)/2, and -8 on the rest.
    assert found.best == pytest.approx(0.1 + 0.375 - 1.0) and "upper sum" in found.best_label


@pytest.mark.parametrize(
    ("lower", "upper", "holds"), [(1.0, 4.0, True), (0.9, 4.0, None), (0.9, 1.0, None), (0.2, 0.9, False)]
)
def test_a_bound_holds_where_the_whole_interval_of_L_says_so(lower, upper, holds):
    assert report(with_spectral(lower, 0.9, upper)).holds is holds


def test_rounding_does_not_break_a_bound():
    exact = with_spectral(1.0, 1.0, 1.0, end=1.4 + 1e-6, tolerance=2e-3)
    assert report(exact).holds is True, "a thousandth of the tolerance"
    assert report(dataclasses.replace(exact, tolerance=0.5e-3)).holds is False
    large = dataclasses.replace(exact, start=1001.0, end=1001.4 + 5e-7, tolerance=0.0)
    assert report(large).holds is True, "10^-9 of the loss"
    assert report(dataclasses.replace(large, end=1001.4 + 2e-6)).holds is False
    negative = dataclasses.replace(large, start=-1001.0, end=-1000.6 + 5e-7)
    assert report(negative).holds is True, "of its size, whatever its sign"
    tolerant = with_spectral(0.8, 0.9, 0.9, end=1.35 + 1e-6, tolerance=2e-3)
    assert report(tolerant).holds is None, "above the lower end, and not above the upper one but for rounding"


def test_the_status_is_that_of_L_unless_an_assumption_is_not_met():
    assert report().status is Status.CONVERGED
    assert report(with_spectral(1.0, 2.0, 3.0, Status.LOWER_BOUND)).status is Status.LOWER_BOUND
    assert report(others={"small": NO}).status is Status.TAINTED
    assert report(others={"small": Assumption(None, 0.0, 0.0)}).status is Status.TAINTED


def test_a_bound_is_vacuous_where_it_allows_what_a_constant_does():
    found = report(constant=2.4)  # reference 0.9, bound 1.5
    assert found.vacuous() is True, "equality says nothing about the model either"
    assert report(constant=2.5).vacuous() is False and report(constant=2.5).vacuous(1.6) is True
    assert found.vacuous(0.0) is False and found.vacuous(1.4) is False and found.vacuous(1.6) is True
    assert report().vacuous() is None and report().vacuous(9.0) is None
    stored = found.to_dict()
    assert stored["vacuous"] is True and stored["best_vacuous"] is False and stored["gap"] == found.gap
    assert report(constant=2.5, differentiable=NO).to_dict()["best_vacuous"] is True, "an infinite bound"


@pytest.mark.parametrize(("lower", "upper", "word"), [(1, 4, "holds"), (0.9, 4, "undecided"), (0.2, 0.9, "BROKEN")])
def test_a_report_prints_its_chain_and_its_assumptions(lower, upper, word):
    lines = str(report(with_spectral(lower, 0.9, upper), smooth=NO)).split("\n")
    assert lines[0] == f"t: gap 0.5, bound 0.45 (a bound (9.9)) {word}; best 0.6"
    assert lines[1] == "           0.5  measured gap" and lines[8] == "             2  last"
    assert lines[9:] == ["  differentiable: holds: 0 against 1.", "  smooth: fails: 2 against 1. too much"]
    assert isinstance(report(), BoundReport)
