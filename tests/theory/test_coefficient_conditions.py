"""The coefficient conditions (3.1)-(3.3) against their literal statements, a linear model and a linear program."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import linprog

from diagnostics.errors import InputError
from diagnostics.results import Estimate, Status, Verdict
from diagnostics.theory.coefficient_conditions import Regime, Region, coefficient_region

ALPHA = st.floats(-1, 1)
LAMBDA = st.floats(-5, 5)
POSITIVE = st.floats(0.01, 3)


@st.composite
def intervals(draw):
    ends = sorted((draw(ALPHA), draw(ALPHA)))
    return ends[0], ends[1]


def margins(alpha, lam):
    """Two tasks with unit patterns of inner product α: the hinge margins of the linear model μ_1 + λμ_2 on both."""
    first, second = np.array([1.0, 0.0]), np.array([alpha, math.sqrt(1 - alpha**2)])
    merged = first + lam * second
    return merged @ first, merged @ second


def literal_unlearning(alpha, lam, theta, poly, small):
    """(3.2) as stated, with the unknown constants put in."""
    if alpha == 0:
        return lam <= 0
    if alpha < 0:
        # Multiplied out, because 1/α overflows next to 0.
        return lam * alpha**2 >= -theta and lam * alpha >= -poly
    return alpha <= small and 0 <= lam <= small


def follows_the_linear_model(region, alpha, lam):
    """At β = 0 (3.1) is the condition for both hinge margins to be at least 1."""
    both = min(margins(alpha, lam)) >= 1
    return region(alpha).multi_task.judge(lam) is (Verdict.SUPPORTED if both else Verdict.REFUTED)


@given(alpha=ALPHA, lam=LAMBDA)
def test_multi_task_success_is_both_margins_of_a_linear_model(alpha, lam):
    assume(min(abs(margin - 1) for margin in margins(alpha, lam)) > 1e-9)
    assert follows_the_linear_model(coefficient_region, alpha, lam)


@given(alpha=st.floats(-0.99, -0.01), lam=LAMBDA)
def test_being_right_on_both_tasks_asks_for_less_than_the_margins(alpha, lam):
    """For α < 0 no λ keeps both margins, but |α| < λ < 1/|α| keeps both signs in the linear model."""
    assume(min(abs(margin) for margin in margins(alpha, lam)) > 1e-9)
    assert bool(min(margins(alpha, lam)) > 0) is (-alpha < lam < -1 / alpha)
    assert coefficient_region(alpha).multi_task.judge(lam) is Verdict.REFUTED


@pytest.mark.parametrize(
    "mutant", [lambda alpha: coefficient_region(-alpha), lambda alpha: coefficient_region(alpha, beta=0.5)]
)
def test_the_linear_model_tells_a_wrong_region(mutant):
    cases = [(alpha, lam) for alpha in (0.2, 0.5) for lam in (0.35, 0.9, 1.3)]
    assert not all(follows_the_linear_model(mutant, alpha, lam) for alpha, lam in cases)


@given(span=intervals(), lam=LAMBDA, beta=st.floats(0, 0.5))
def test_an_interval_of_alpha_is_all_and_some_of_its_points(span, lam, beta):
    points = np.linspace(*span, 41)
    allowed = [alpha >= 0 and lam >= 1 - alpha + beta for alpha in points]
    verdict = coefficient_region(span, beta=beta).multi_task.judge(lam)
    # Between two points of the grid lies nothing but the edge itself, and the ends are points.
    expected = Verdict.SUPPORTED if all(allowed) else Verdict.UNDECIDED if any(allowed) else Verdict.REFUTED
    assert verdict is expected


@given(span=intervals(), lam=LAMBDA, theta=POSITIVE, poly=POSITIVE, small=st.floats(0.01, 1))
def test_unlearning_decides_only_what_every_constant_decides(span, lam, theta, poly, small):
    points = np.linspace(*span, 21)
    allowed = [literal_unlearning(alpha, lam, theta, poly, small) for alpha in points]
    verdict = coefficient_region(span).unlearning.judge(lam)
    assert verdict is not Verdict.SUPPORTED or all(allowed), "inside for some constants only"
    assert verdict is not Verdict.REFUTED or not any(allowed), "outside for some constants only"


def test_unlearning_known_answers():
    irrelevant = coefficient_region(0.0).unlearning
    assert (irrelevant.certain, irrelevant.undecided) == ((-math.inf, 0.0), ())
    contradictory = coefficient_region(-0.5).unlearning
    assert contradictory.certain == (0.0, 0.0), "only λ = 0 lies between the two unknown ends for certain"
    assert contradictory.undecided == ((-math.inf, 0.0), (0.0, math.inf))
    aligned = coefficient_region(0.5).unlearning
    assert (aligned.certain, aligned.possible) == (None, (-math.inf, math.inf))
    across = coefficient_region((-0.1, 0.0)).unlearning
    assert across.certain == (0.0, 0.0) and across.judge(1.0) is Verdict.UNDECIDED


def test_the_claims_at_their_edges():
    """What is stated at α = 1, at 0 and just below, and what is not: an upper end."""
    assert coefficient_region(1.0, beta=0.1).multi_task.certain == (pytest.approx(0.1), math.inf)
    # Two equal experts succeed at λ = 0; with β > 0 the condition leaves that out, so it cannot be necessary there.
    assert coefficient_region(1.0, beta=0.1).multi_task.judge(0.0) is Verdict.REFUTED
    assert coefficient_region(0.0).multi_task.certain == (1.0, math.inf)
    below = coefficient_region(-1e-9)
    assert below.multi_task.certain is None and below.multi_task.possible is None, "a jump at α = 0"
    assert coefficient_region((-1e-9, 0.0)).multi_task.undecided == ((1.0, math.inf),)
    assert coefficient_region(0.5).multi_task.judge(1e6) is Verdict.SUPPORTED


def test_a_threshold_counts_a_slightly_negative_alpha_as_zero():
    region = coefficient_region(-0.05, contradictory=-0.1, aligned=0.1)
    assert region.regime is Regime.IRRELEVANT
    assert region.multi_task.certain == (1.0, math.inf)
    assert region.unlearning.certain == (-math.inf, 0.0)
    assert coefficient_region((-0.2, -0.05), contradictory=-0.1).multi_task.undecided == ((1.0, math.inf),)


@given(alpha=st.floats(-0.3, 0.3), lam=LAMBDA)
def test_irrelevant_tasks_are_never_both_kept_and_unlearned(alpha, lam):
    region = coefficient_region(alpha, aligned=0.3, contradictory=-0.3)
    assert Verdict.REFUTED in (region.multi_task.judge(lam), region.unlearning.judge(lam))


@pytest.mark.parametrize(
    ("span", "regime"),
    [
        ((0.4, 0.9), Regime.ALIGNED),
        ((0.2, 0.4), Regime.UNDECIDED),
        ((-0.3, 0.3), Regime.IRRELEVANT),
        ((-0.9, -0.4), Regime.CONTRADICTORY),
        ((-0.9, 0.9), Regime.UNDECIDED),
        ((-0.9, 0.2), Regime.UNDECIDED),
        # At a threshold a task counts as irrelevant.
        ((0.37, 0.37), Regime.IRRELEVANT),
        ((0.37, 0.9), Regime.UNDECIDED),
        ((-0.37, -0.37), Regime.IRRELEVANT),
        ((-0.9, -0.37), Regime.UNDECIDED),
    ],
)
def test_the_regime_is_read_off_the_whole_interval(span, regime):
    assert coefficient_region(span, aligned=0.37, contradictory=-0.37).regime is regime


GAMMAS = st.lists(st.integers(-8, 8).map(lambda value: value / 4), min_size=1, max_size=4)


@given(gammas=GAMMAS, margin=st.sampled_from([0.0, 0.25]))
def test_reach_is_the_optimum_of_the_linear_program(gammas, margin):
    """Minimise m with |λ_i| <= m, λ·γ >= 1 + c and λ·γ² >= 1 + c."""
    row, count = np.array(gammas), len(gammas)
    identity, ones = np.eye(count), np.ones((count, 1))
    above = np.block([[-row, 0.0], [-(row**2), 0.0], [identity, -ones], [-identity, -ones]])
    limits = [-(1 + margin)] * 2 + [0.0] * (2 * count)
    found = linprog([0.0] * count + [1.0], A_ub=above, b_ub=limits, bounds=[(None, None)] * (count + 1))
    region = coefficient_region(gammas=gammas, margin=margin).out_of_distribution
    expected = found.fun if found.status == 0 else math.inf
    assert region.reach == pytest.approx(expected, rel=1e-6)


@given(gammas=GAMMAS, lam=st.floats(-4, 4), margin=st.floats(0, 0.5), beta=st.floats(0, 0.5))
def test_a_common_coefficient_meets_every_condition(gammas, lam, margin, beta):
    region = coefficient_region(gammas=gammas, margin=margin, beta=beta).out_of_distribution
    sums = lam * sum(gammas), lam * sum(g * g for g in gammas)
    edges = [*(value - 1 - margin for value in sums), abs(lam) * beta - margin]
    assume(min(map(abs, edges)) > 1e-6)
    holds = min(sums) >= 1 + margin and abs(lam) * beta <= margin
    assert region.judge([lam] * len(gammas)) is (Verdict.SUPPORTED if holds else Verdict.REFUTED)
    assert holds is (region.common is not None and region.common[0] <= lam <= region.common[1])


def test_out_of_distribution_known_answers():
    assert coefficient_region(gammas=[0.0, 0.0]).out_of_distribution.common is None, "some γ must not be 0"
    lone = coefficient_region(gammas=[-0.5]).out_of_distribution
    assert math.isinf(lone.reach) and "no λ meets both sums" in str(lone), "one negative γ asks for λ of both signs"
    assert math.isfinite(coefficient_region(gammas=[-1.0, -0.5]).out_of_distribution.reach)
    single = coefficient_region(gammas=[0.5], margin=0.1, beta=0.02).out_of_distribution
    assert single.common == (pytest.approx(1.1 / 0.25), pytest.approx(5.0))
    assert coefficient_region(gammas=[0.5], margin=0.1, beta=0.03).out_of_distribution.common is None
    assert coefficient_region(gammas=[1.0], margin=1.0, beta=0.5).out_of_distribution.common == (2.0, 2.0)


@pytest.mark.parametrize("gamma", [-0.5, -3.7, -1234.5, -765432.1])
def test_one_negative_gamma_is_out_of_reach_whatever_its_size(gamma):
    assert math.isinf(coefficient_region(gammas=[gamma]).out_of_distribution.reach)


def test_ends_are_inside():
    assert coefficient_region(0.0).multi_task.judge(1.0) is Verdict.SUPPORTED
    assert coefficient_region(0.0).unlearning.judge(0.0) is Verdict.SUPPORTED
    assert coefficient_region(-1.0).regime is Regime.CONTRADICTORY and coefficient_region(1.0).regime is Regime.ALIGNED
    extremes = coefficient_region((-1.0, 1.0), aligned=1.0, contradictory=-1.0)
    assert extremes.regime is Regime.IRRELEVANT, "thresholds that no α can cross"


def test_a_regime_has_the_notes_of_its_own_statement_alone():
    assert [note.split(":")[0] for note in coefficient_region(0.5).unlearning.unknown] == ["aligned"]
    assert [note.split(":")[0] for note in coefficient_region(0.0).unlearning.unknown] == ["irrelevant"]
    assert [note.split(":")[0] for note in coefficient_region(-0.5).unlearning.unknown] == ["contradictory"]
    assert coefficient_region(-0.5).multi_task.unknown == ()


BAD = {
    "nothing": ({}, "coefficient_region: expected alpha or gammas; found neither. Give one of them."),
    "low alpha": ({"alpha": -1.5}, "found [-1.5, -1.5]"),
    "alpha": ({"alpha": 1.5}, "alpha: expected a number or an ordered interval in"),
    "nan": ({"alpha": math.nan}, "alpha: expected a number"),
    "order": ({"alpha": (0.5, 0.1)}, "alpha: expected a number or an ordered interval"),
    "undefined": (
        {"alpha": Estimate(math.nan, math.nan, math.nan, 0.9, Status.UNDEFINED, "constant output")},
        "alpha: expected a defined estimate; found an undefined one (constant output)",
    ),
    "beta": ({"alpha": 0.5, "beta": -0.1}, "beta: expected a finite number from 0 on; found -0.1"),
    "margin": ({"gammas": [1.0], "margin": math.inf}, "margin: expected a finite number"),
    "thresholds": (
        {"alpha": 0.5, "aligned": -0.1},
        "aligned and contradictory: expected thresholds with -1 <= contradictory <= 0 <= aligned <= 1; "
        "found -0.1 and 0.0.",
    ),
    "far up": ({"alpha": 0.5, "aligned": 1.5}, "found 1.5 and 0.0"),
    "far down": ({"alpha": 0.5, "contradictory": -1.5}, "found 0.0 and -1.5"),
    "no gammas": ({"gammas": []}, "gammas: expected at least one finite number"),
    "gammas": ({"gammas": [math.nan]}, "gammas: expected at least one finite number"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_numbers_are_refused(name):
    options, message = BAD[name]
    with pytest.raises(InputError) as caught:
        coefficient_region(**options)
    assert message in str(caught.value)


def test_without_anything_to_go_by_there_is_no_region():
    with pytest.raises(InputError) as caught:
        coefficient_region()
    assert str(caught.value) == BAD["nothing"][1]


def test_coefficients_must_match_the_gammas():
    with pytest.raises(InputError, match="expected 2 numbers, one for each γ; found 1"):
        coefficient_region(gammas=[1.0, 1.0]).out_of_distribution.judge([1.0])


def test_an_estimate_is_read_by_its_interval_and_everything_prints():
    region = coefficient_region(Estimate(0.3, 0.2, 0.4, 0.9, Status.CONVERGED), gammas=[1.0])
    text = str(region)
    assert "aligned: α in [0.2, 0.4]" in text
    assert "both tasks succeed (3.1): λ in [0.8, inf); undecided λ in [0.6, 0.8]" in text
    assert "unknown small β" in text and "(3.2): no λ; undecided any λ" in text and "out of distribution (3.3)" in text
    stored = region.to_dict()
    assert stored["multi_task"]["certain"] == [0.8, "inf"] and stored["regime"] == "aligned"
    assert isinstance(region.multi_task, Region) and region.multi_task.assumptions


ACROSS = """\
undecided: α in [-0.2, 0.4]
both tasks succeed (3.1): no λ; undecided λ in [0.62, inf)
  lower end: true from λ = 0.6 + β for an unknown small β ≥ 0; read at β = 0.02
  no upper end is stated
the first task kept, the second unlearned (3.2): no λ; undecided any λ
  contradictory: from −Θ(α⁻²) to −poly(ηδ*)/α, a negative and a positive number, both unknown
  irrelevant: no lower end is stated
  aligned: only where α is small, how small is unknown, and no λ is stated
out of distribution (3.3): one λ for all λ in [4.4, 5]; some |λ_i| must reach 4.4
  c > 0 and β > 0 are unknown; read at c = 0.1 and β = 0.02
  γ is taken as exact"""
CONTRADICTORY = """\
contradictory: α in [-0.5, -0.5]
both tasks succeed (3.1): no λ
the first task kept, the second unlearned (3.2): λ = 0; undecided λ in (-inf, 0] and λ in [0, inf)
  contradictory: from −Θ(α⁻²) to −poly(ηδ*)/α, a negative and a positive number, both unknown"""
OPPOSED = """\
out of distribution (3.3): one λ for all no λ; no λ meets both sums
  c > 0 and β > 0 are unknown; read at c = 0 and β = 0
  γ is taken as exact"""


def test_the_text_says_which_coefficients_are_allowed_and_what_is_unknown():
    across = coefficient_region((-0.2, 0.4), gammas=[0.5], margin=0.1, beta=0.02, aligned=0.3)
    assert str(across) == ACROSS
    assert str(coefficient_region(-0.5)) == CONTRADICTORY
    assert str(coefficient_region(gammas=[-0.5])) == OPPOSED
    assert "unlearned (3.2): λ in (-inf, 0]" in str(coefficient_region(0.0))
    assert "both tasks succeed (3.1): λ in [0.5, inf)" in str(coefficient_region(0.5))


def test_assumptions_are_those_of_the_theory():
    network, orthogonal = coefficient_region(0.5, gammas=[1.0]).out_of_distribution.assumptions
    region = coefficient_region(0.5)
    assert region.multi_task.assumptions == region.unlearning.assumptions
    assert network == region.multi_task.assumptions[0] and network.startswith("a one-layer one-head transformer")
    assert orthogonal == "the target's pattern is Σ γ_iμ_i + κμ⊥ with patterns μ_i that are orthogonal"
