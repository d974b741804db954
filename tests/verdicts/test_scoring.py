"""Scoring predictions: counts, errors, ranks and coverage on outcomes made by hand."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.results import Cost, Estimate, Status, Verdict
from diagnostics.verdicts.mergeability import MergePrediction, TaskPrediction
from diagnostics.verdicts.scoring import Baseline, Outcome, score_predictions


def outcome(predicted, measured, verdict=Verdict.SUPPORTED, half=0.05):
    """An outcome with one task per value; the loss is one minus the retention."""
    tasks, names = {}, [f"t{index}" for index in range(len(predicted))]
    for name, value in zip(names, predicted, strict=True):
        kept = Estimate(value, value - half, value + half, 0.9, Status.CONVERGED)
        loss = Estimate(1 - value, 1 - value - half, 1 - value + half, 0.9, Status.CONVERGED)
        tasks[name] = TaskPrediction(loss, kept, kept, 0.0, 1.0)
    prediction = MergePrediction(dict.fromkeys(names, 0.5), tasks, 0.1, verdict, (), Cost(), "task_arithmetic")
    measures = dict(zip(names, measured, strict=True))
    return Outcome(prediction, {name: 1 - v for name, v in measures.items()}, measures, dict.fromkeys(names, 0.0))


OUTCOMES = [
    outcome([0.99, 0.95], [1.00, 0.93]),
    outcome([0.95, 0.70], [0.97, 0.50], Verdict.REFUTED),
    outcome([0.91, 0.92], [0.93, 0.80], Verdict.UNDECIDED),
]


def test_counts_of_verdicts_against_events():
    card = score_predictions(OUTCOMES)
    assert (card.merges, card.pairs, card.failures) == (3, 6, 2)
    assert card.verdicts == {
        "supported": {"kept": 1, "lost": 0},
        "refuted": {"kept": 0, "lost": 1},
        "undecided": {"kept": 0, "lost": 1},
    }


def test_errors_and_coverage():
    card = score_predictions(OUTCOMES)
    assert card.predictors["coefficient process"].retention_mae == pytest.approx(
        (0.01 + 0.02 + 0.02 + 0.2 + 0.02 + 0.12) / 6
    )
    assert card.retention_coverage == card.loss_coverage == pytest.approx(4 / 6)
    assert card.predictors["coefficient process"].failure_auc == 1.0


def test_a_perfect_and_a_reversed_baseline():
    truth = [dict(item.retention) for item in OUTCOMES]
    reverse = [{name: -value for name, value in row.items()} for row in truth]
    card = score_predictions(OUTCOMES, {"oracle": Baseline(truth, is_retention=True), "reversed": Baseline(reverse)})
    oracle, wrong = card.predictors["oracle"], card.predictors["reversed"]
    assert (oracle.retention_mae, oracle.failure_auc) == (0.0, 1.0)
    assert oracle.retention_r == pytest.approx(1) and oracle.gap_spearman == pytest.approx(1)
    assert wrong.retention_r == pytest.approx(-1) and wrong.gap_spearman == pytest.approx(-1)
    assert math.isnan(wrong.retention_mae), "an error needs a prediction in the same units"


def test_auc_needs_both_outcomes():
    assert math.isnan(score_predictions(OUTCOMES[:1]).predictors["coefficient process"].failure_auc)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_auc_is_the_share_of_pairs_in_order(kept, lost):
    outcomes = [outcome([told], [1.0]) for told in kept] + [outcome([told], [0.5]) for told in lost]
    pairs = [(high > low) + 0.5 * (high == low) for high in kept for low in lost]
    found = score_predictions(outcomes).predictors["coefficient process"].failure_auc
    assert found == pytest.approx(sum(pairs) / len(pairs))


def test_coverage_allows_for_the_error_of_the_measurement():
    """A measured value just outside the interval is held where it is itself uncertain, and not where it is exact."""
    (first, *_) = OUTCOMES
    name = next(iter(first.prediction.tasks))
    told = first.prediction.tasks[name].retention
    missed = dataclasses.replace(first, retention={**first.retention, name: told.upper + 0.01})
    unsure = dataclasses.replace(missed, retention_stderr={name: 0.1})
    exact, wide = (score_predictions([each]).retention_coverage for each in (missed, unsure))
    assert wide > exact
