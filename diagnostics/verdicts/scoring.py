"""How good the predictions were: predictions of merges held against the merges evaluated afterwards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import rankdata

from diagnostics.results import Estimate, Result, Verdict
from diagnostics.verdicts.mergeability import QUANTILE, MergePrediction

__all__ = ["OURS", "Baseline", "Outcome", "PredictorScore", "Scorecard", "score_predictions"]

# This package's own predictor, in tables of predictors.
OURS = "coefficient process"


@dataclass(frozen=True)
class Outcome(Result):
    """A prediction and what the merge then did.

    Attributes:
        prediction: Made before the merge was evaluated.
        loss: Measured loss by task.
        retention: Measured retention by task: score over the expert's own score on the same examples.
        expert_loss: Loss of each task's own expert on the same examples.
        loss_stderr: Standard error of each measured loss as that of the population; zero by default.
        retention_stderr: The same of the retention.
    """

    prediction: MergePrediction
    loss: dict[str, float]
    retention: dict[str, float]
    expert_loss: dict[str, float]
    loss_stderr: Mapping[str, float] = field(default_factory=dict)
    retention_stderr: Mapping[str, float] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        """Whether every task kept its share of its expert's score."""
        return min(self.retention.values()) >= 1 - self.prediction.tolerance


@dataclass(frozen=True)
class Baseline:
    """Another predictor of the same merges.

    Attributes:
        values: For each outcome a value per task, larger for a better expected outcome.
        is_retention: Whether the values are retentions, so that their error has a meaning.
    """

    values: Sequence[Mapping[str, float]]
    is_retention: bool = False


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
        retention_coverage: Share of retention intervals that hold the measured value, widened by its sampling error.
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

    def keeps_promise(self, coverage: float) -> bool | None:
        """Whether a coverage is what the confidence promises.

        Args:
            coverage: A share of intervals that hold the measured value.

        Returns:
            ``None`` where it is short by less than two standard errors of independent pairs.

        Example:
            >>> card = Scorecard(100, 100, 0, {}, 0.87, 0.80, 0.9, {})
            >>> card.keeps_promise(0.95), card.keeps_promise(0.87), card.keeps_promise(0.80)
            (True, None, False)
        """
        if coverage >= self.confidence:
            return True
        error = math.sqrt(self.confidence * (1 - self.confidence) / self.pairs)
        return None if coverage >= self.confidence - 2 * error else False


def score_predictions(outcomes: Sequence[Outcome], baselines: Mapping[str, Baseline] | None = None) -> Scorecard:
    """Score predictions, and baselines beside them, against what was measured.

    Args:
        outcomes: Predictions with their measured outcomes.
        baselines: Other predictors of the same merges, by name.

    Returns:
        The scorecard.
    """
    pairs = [(outcome, name) for outcome in outcomes for name in outcome.prediction.tasks]
    predicted = [outcome.prediction.tasks[name] for outcome, name in pairs]
    retention = np.array([outcome.retention[name] for outcome, name in pairs])
    loss = np.array([outcome.loss[name] for outcome, name in pairs])
    gap = loss - np.array([outcome.expert_loss[name] for outcome, name in pairs])
    kept = np.array([outcome.kept for outcome in outcomes])

    def scored(values: np.ndarray, gaps: np.ndarray, is_retention: bool) -> PredictorScore:
        ends = np.cumsum([len(outcome.prediction.tasks) for outcome in outcomes])[:-1]
        worst = np.array([part.min() for part in np.split(values, ends)])
        error = float(np.abs(values - retention).mean()) if is_retention else math.nan
        return PredictorScore(error, _pearson(values, retention), _spearman(gaps, gap), _auc(worst, kept))

    ours = np.array([task.retention.value for task in predicted])
    our_gap = np.array([task.loss.value - task.expert_loss for task in predicted])
    predictors = {OURS: scored(ours, our_gap, True)}
    for label, baseline in (baselines or {}).items():
        rows = zip(baseline.values, outcomes, strict=True)
        flat = np.array([row[name] for row, outcome in rows for name in outcome.prediction.tasks])
        predictors[label] = scored(flat, -flat, baseline.is_retention)
    return Scorecard(
        merges=len(outcomes),
        pairs=len(pairs),
        failures=int((~kept).sum()),
        verdicts=_table(outcomes),
        retention_coverage=_coverage(
            [task.retention for task in predicted],
            retention,
            [outcome.retention_stderr.get(name, 0.0) for outcome, name in pairs],
        ),
        loss_coverage=_coverage(
            [task.loss for task in predicted], loss, [outcome.loss_stderr.get(name, 0.0) for outcome, name in pairs]
        ),
        confidence=predicted[0].retention.confidence,
        predictors=predictors,
    )


def _coverage(estimates: Sequence[Estimate], measured: np.ndarray, stderr: Sequence[float]) -> float:
    """Share of intervals that hold the measured value, each widened by the measurement's own error."""
    held = [
        value.value - math.hypot(value.value - value.lower, QUANTILE * error) <= seen
        and seen <= value.value + math.hypot(value.upper - value.value, QUANTILE * error)
        for value, seen, error in zip(estimates, measured, stderr, strict=True)
    ]
    return float(np.mean(held))


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
