"""How good the predictions were: predictions of merges held against the merges evaluated afterwards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from diagnostics.results import Result, Verdict
from diagnostics.verdicts.mergeability import MergePrediction

__all__ = ["Outcome", "PredictorScore", "Scorecard", "score_predictions"]


@dataclass(frozen=True)
class Outcome(Result):
    """A prediction and what the merge then did.

    Attributes:
        prediction: Made before the merge was evaluated.
        loss: Measured loss by task.
        retention: Measured retention by task: score over the expert's own score on the same examples.
        expert_loss: Loss of each task's own expert on the same examples.
    """

    prediction: MergePrediction
    loss: dict[str, float]
    retention: dict[str, float]
    expert_loss: dict[str, float]

    @property
    def kept(self) -> bool:
        """Whether every task kept its share of its expert's score."""
        return min(self.retention.values()) >= 1 - self.prediction.tolerance


@dataclass(frozen=True)
class PredictorScore(Result):
    """One predictor's accuracy over all (merge, task) pairs; NaN where it predicts no such number.

    Attributes:
        retention_mae: Mean absolute error of the retention.
        retention_r: Pearson correlation of predicted and measured retention.
        gap_spearman: Rank correlation of predicted and measured loss gap.
        failure_auc: Probability that a merge that fails is ranked below one that does not, ties counted half.
    """

    retention_mae: float
    retention_r: float
    gap_spearman: float
    failure_auc: float


@dataclass(frozen=True)
class Scorecard(Result):
    """All predictors over the same merges.

    Attributes:
        merges: Number of merges.
        pairs: Number of (merge, task) pairs.
        failures: Merges in which some task lost more than the tolerance.
        verdicts: For each verdict, how many merges kept every task and how many did not.
        retention_coverage: Share of retention intervals that hold the measured value.
        loss_coverage: The same for the loss.
        confidence: The share that was promised.
        predictors: Scores by predictor, this package's first, baselines after.
    """

    merges: int
    pairs: int
    failures: int
    verdicts: dict[str, dict[str, int]]
    retention_coverage: float
    loss_coverage: float
    confidence: float
    predictors: dict[str, PredictorScore]


def score_predictions(
    outcomes: Sequence[Outcome], baselines: Mapping[str, Sequence[Mapping[str, float]]] | None = None
) -> Scorecard:
    """Score predictions, and baselines beside them, against what was measured.

    Args:
        outcomes: Predictions with their measured outcomes.
        baselines: For each baseline a value per outcome and task, larger for a better expected outcome.

    Returns:
        The scorecard.
    """
    pairs = [(outcome, name) for outcome in outcomes for name in outcome.prediction.tasks]
    predicted = [outcome.prediction.tasks[name] for outcome, name in pairs]
    retention = np.array([outcome.retention[name] for outcome, name in pairs])
    gap = np.array([outcome.loss[name] - outcome.expert_loss[name] for outcome, name in pairs])
    ours = np.array([task.retention.value for task in predicted])
    our_gap = np.array([task.loss.value - task.expert_loss for task in predicted])
    kept = np.array([outcome.kept for outcome in outcomes])
    lowest = np.array([min(t.retention.value for t in o.prediction.tasks.values()) for o in outcomes])
    predictors = {
        "output expansion": PredictorScore(
            float(np.abs(ours - retention).mean()),
            _pearson(ours, retention),
            _spearman(our_gap, gap),
            _auc(lowest, kept),
        )
    }
    for label, values in (baselines or {}).items():
        flat = np.array(
            [row[name] for row, outcome in zip(values, outcomes, strict=True) for name in outcome.prediction.tasks]
        )
        worst = np.array([min(row.values()) for row in values])
        predictors[label] = PredictorScore(
            math.nan, _pearson(flat, retention), _spearman(-flat, gap), _auc(worst, kept)
        )
    inside = [t.retention.lower <= value <= t.retention.upper for t, value in zip(predicted, retention, strict=True)]
    measured = [outcome.loss[name] for outcome, name in pairs]
    loss_inside = [t.loss.lower <= value <= t.loss.upper for t, value in zip(predicted, measured, strict=True)]
    return Scorecard(
        merges=len(outcomes),
        pairs=len(pairs),
        failures=int((~kept).sum()),
        verdicts=_table(outcomes),
        retention_coverage=float(np.mean(inside)),
        loss_coverage=float(np.mean(loss_inside)),
        confidence=predicted[0].retention.confidence,
        predictors=predictors,
    )


def _table(outcomes: Sequence[Outcome]) -> dict[str, dict[str, int]]:
    """Count outcomes by verdict."""
    table = {str(verdict): {"kept": 0, "lost": 0} for verdict in Verdict}
    for outcome in outcomes:
        table[str(outcome.prediction.verdict)]["kept" if outcome.kept else "lost"] += 1
    return table


def _pearson(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson correlation; NaN where one side is constant."""
    if first.std() == 0 or second.std() == 0:
        return math.nan
    return float(np.corrcoef(first, second)[0, 1])


def _spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Rank correlation."""
    return _pearson(rankdata(first), rankdata(second))


def _auc(score: np.ndarray, kept: np.ndarray) -> float:
    """Area under the ROC curve of "kept" by a score; NaN where all outcomes are alike."""
    positive, negative = int(kept.sum()), int((~kept).sum())
    if positive == 0 or negative == 0:
        return math.nan
    ranks = rankdata(score)
    return float((ranks[kept].sum() - positive * (positive + 1) / 2) / (positive * negative))
