"""The reports of (2.1)-(2.3) and (2.7) on made-up measurements: every step of a chain is its formula."""

import dataclasses

import pytest

from diagnostics.results import Status
from diagnostics.theory.addition import addition_report
from diagnostics.theory.loss_gap import Curvature, Displacement, common_steps
from diagnostics.theory.negation import negation_report
from diagnostics.theory.out_of_distribution import out_of_distribution_report, span_report

# Small and without a slope, so that no assumption fails by itself.
WAY = Displacement(
    start=1.0,
    end=1.3,
    offset=0.0,
    slope=0.0,
    gradient_norm=0.0,
    norm_squared=0.5,
    nodes=(0.0, 0.5, 1.0),
    curvatures=(0.2, 0.8, 0.6),
    integral=0.3,
    mismatch=0.0,
    tolerance=1e-6,
    subspace=(1.7,),
    spectral=Curvature(3.0, 2.9, 3.1, Status.CONVERGED),
)
MOVED = dataclasses.replace(WAY, offset=-0.25, slope=0.125)
COMMON = [
    "measured gap",
    "= slope + integral of curvature (2.5)",
    "~ quadratic model at the expert (2.5)",
    "<= upper sum of curvature along the way (2.6)",
    "<= largest curvature along the way (2.6)",
    "<= task-subspace smoothness L^S (2.10)",
    "<= spectral norm L at the expert (2.5)",
]
ANGLES = "<= L C Q / 2, norms and angles replaced by C and eps (2.4)"


@pytest.mark.parametrize(("way", "linear", "gap"), [(WAY, 0.0, 0.3), (MOVED, -0.125, 0.05)])
def test_the_chain_is_taylors_formula_bounded_step_by_step(way, linear, gap):
    steps = common_steps(way)
    # The upper sum: 0.8 on both halves, of weights 3/8 and 1/8.
    expected = [linear + 0.3, linear + 0.1, linear + 0.4, linear + 0.4, linear + 1.7 * 0.25, linear + 3.0 * 0.25]
    assert [label for label, _ in steps] == COMMON
    assert [value for _, value in steps] == pytest.approx([gap, *expected])


def test_the_smoothness_of_the_subspace_covers_the_way():
    assert WAY.subspace_smoothness == 1.7
    sharp = dataclasses.replace(WAY, curvatures=(0.2, -0.95))
    assert sharp.subspace_smoothness == pytest.approx(1.9), "|φ''|/‖v‖², of either sign"
    assert dataclasses.replace(sharp, norm_squared=0.0, subspace=()).subspace_smoothness == 0.0
    assert dataclasses.replace(sharp, norm_squared=2.0, subspace=()).subspace_smoothness == pytest.approx(0.475)
    assert MOVED.linear == pytest.approx(-0.125) and MOVED.reference == pytest.approx(1.25)


def rest(report):
    """The steps that are the bound's own, and what it says of itself."""
    return dict(report.chain[len(COMMON) :])


def heading(report):
    return report.name, report.claim, report.constant_loss


def test_addition_on_the_simplex_and_off_it():
    on = addition_report("a", MOVED, {"a": 0.25, "b": 0.75}, 2.0, 0.5, 9.0)
    spread = 0.75**2 * 2 + 2 * 0.5 * 0.75**2  # t = (α_a - 1, α_b)
    assert heading(on) == ("a", "addition (2.1)", 9.0)
    assert rest(on) == pytest.approx(
        {ANGLES: -0.125 + 3 * 2 * spread / 2, "<= L C (1 + eps) (2.1)": -0.125 + 3 * 2 * 1.5}
    )
    assert on.bound == pytest.approx(9.0) and on.bound_interval == pytest.approx((8.7, 9.3))
    assert {name: on.quantities[name] for name in ("C", "epsilon", "Q")} == pytest.approx(
        {"C": 2.0, "epsilon": 0.5, "Q": spread}
    )
    off = addition_report("a", WAY, {"a": 0.5, "b": 0.75}, 2.0, 0.5)
    assert list(rest(off)) == [ANGLES] and off.bound == pytest.approx(9.0) and off.constant_loss is None
    assert rest(off)[ANGLES] == pytest.approx(3 * (0.5**2 + 0.75**2 + 0.5 * 0.75))
    assert off.status is Status.TAINTED, "the paper's bound is about the simplex"


SHARPER, STATED = "<= L C (1 + eps), the expert beats the base (2.7)", "<= L C (3/2 + eps) (2.2)"


def test_negation_counts_from_the_base():
    found = negation_report("b", MOVED, 0.5, 2.0, 0.25, 9.0)
    spread = 0.5**2 + 1 + 2 * 0.25 * 0.5
    assert heading(found) == ("b", "negation (2.2)", 9.0)
    expected = {ANGLES: -0.125 + 3 * 2 * spread / 2, SHARPER: 0.125 + 3 * 2 * 1.25, STATED: 0.125 + 3 * 2 * 1.75}
    assert rest(found) == pytest.approx(expected) and list(rest(found)) == [ANGLES, SHARPER, STATED]
    assert found.bound == pytest.approx(3 * 2 * 1.75) and found.bound_interval == pytest.approx((10.15, 10.85))
    assert {name: found.quantities[name] for name in ("C", "epsilon", "Q")} == pytest.approx(
        {"C": 2.0, "epsilon": 0.25, "Q": spread}
    )


def test_steps_of_a_negation_need_their_own_assumptions():
    assert list(rest(negation_report("b", WAY, 0.5, 2.0, 0.25))) == [ANGLES, SHARPER, STATED], "no worse is enough"
    worse = dataclasses.replace(WAY, offset=0.5)
    assert list(rest(negation_report("b", worse, 0.5, 2.0, 0.25))) == [ANGLES, STATED], "the expert lost to the base"
    assert list(rest(negation_report("b", WAY, 1.5, 2.0, 0.25))) == [ANGLES], "more than the whole expert is taken off"


def test_out_of_distribution_and_the_best_in_the_span():
    found = out_of_distribution_report("t", MOVED, 2.0, 0.25, 0.4, 9.0)
    assert heading(found) == ("t", "out of distribution (2.3)", 9.0)
    assert rest(found) == pytest.approx({"<= L C (1 - beta) (2.3)": -0.125 + 3 * 2 * 0.75})
    assert found.bound == pytest.approx(4.5) and found.bound_interval == pytest.approx((4.35, 4.65))
    own = {"C": 2.0, "beta": 0.25, "span_norm_squared": 0.4, "span_bound": 0.6}
    assert {name: found.quantities[name] for name in own} == pytest.approx(own)
    span = span_report("t", MOVED, 2.0, 9.0)
    assert heading(span) == ("t", "best in the span (2.7)", 9.0) and rest(span) == {}
    assert span.bound == pytest.approx(3 * 0.25) and span.quantities["C"] == 2.0


@pytest.mark.parametrize("report", [
    lambda way: addition_report("a", way, {"a": 0.25, "b": 0.75}, 2.0, 0.5),
    lambda way: negation_report("b", way, 0.5, 2.0, 0.25),
    lambda way: out_of_distribution_report("t", way, 2.0, 0.25, 0.4),
    lambda way: span_report("t", way, 2.0),
])  # fmt: skip
def test_without_a_slope_and_within_the_lengths_every_assumption_holds(report):
    found = report(WAY)
    assert [str(item) for item in found.assumptions.values() if not item.holds] == []
    assert found.status is Status.CONVERGED and found.name in {"a", "b", "t"} and found.constant_loss is None
