"""Pairwise metrics of the kind that linear predictors of mergeability are fitted on, and such a predictor.

The metrics are those that "Demystifying Mergeability" (Zhou et al., 2026) reports as its best: distances and angles of
task vectors, overlaps of their singular subspaces, and distances and angles of gradients.

python -m benchmarks.prediction.metrics
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import diagnostics as dx
from benchmarks.minilm.experts import EXPERTS, load_problem_parts
from benchmarks.prediction.measure import FOLDER, problem_of
from benchmarks.prediction.plan import GROUPS
from benchmarks.records import write_record
from diagnostics.measures.curvature import gradient

RANK = 8
GRADIENT_EXAMPLES = 64
RIDGE = 1.0

Pair = dict[str, float]


def pair_metrics(problem: dx.MergeProblem) -> dict[str, Pair]:
    """All metrics of all pairs of a group, keyed by the two names in order."""
    bases = {
        name: {key: _subspaces(value) for key, value in vector.items() if value.ndim == 2}
        for name, vector in problem.task_vectors.items()
    }
    gradients = {name: _flat(gradient(problem.tasks[name], problem.base)[1]) for name in problem.names}
    found = {}
    for first, second in combinations(problem.names, 2):
        one, two = _flat(problem.task_vectors[first]), _flat(problem.task_vectors[second])
        found[f"{first}|{second}"] = {
            "task vector cosine": _cosine(one, two),
            "task vector distance": float((one - two).norm()),
            "norm ratio": float(min(one.norm(), two.norm()) / max(one.norm(), two.norm())),
            "sign conflicts": float((one * two < 0).double().mean()),
            "left subspace overlap": _overlap(bases[first], bases[second], 0),
            "right subspace overlap": _overlap(bases[first], bases[second], 1),
            "effective rank ratio": _rank_ratio(bases[first], bases[second]),
            "gradient cosine": _cosine(gradients[first], gradients[second]),
            "gradient distance": float((gradients[first] - gradients[second]).norm()),
        }
    return found


def linear_predictor(rows: Sequence[dict], metrics: Mapping[str, Mapping[str, Pair]]) -> np.ndarray:
    """Retention by ridge regression, for each merge fitted on all merges that share no task with it."""
    features = np.array([_features(row, metrics[row["family"]]) for row in rows])
    features = (features - features.mean(0)) / np.where(features.std(0) > 0, features.std(0), 1)
    target = np.array([row["seen"]["retention"] for row in rows])
    members = [frozenset(row["merge"]) for row in rows]
    found = np.full(len(rows), np.nan)
    for names in set(members):
        train = np.array([names.isdisjoint(each) for each in members])
        test = np.array([names == each for each in members])
        if train.sum() < 20:
            continue
        x, mean = np.hstack([features[train], np.ones((train.sum(), 1))]), target[train].mean()
        penalty = RIDGE * np.diag([1.0] * (x.shape[1] - 1) + [0.0])
        weights = np.linalg.solve(x.T @ x + penalty, x.T @ (target[train] - mean))
        found[test] = np.hstack([features[test], np.ones((test.sum(), 1))]) @ weights + mean
    return found


def _features(row: dict, metrics: Mapping[str, Pair]) -> list[float]:
    """Metrics averaged over the partners, and the coefficients."""
    partners = [name for name in row["merge"] if name != row["task"]]
    pairs = [metrics.get(f"{row['task']}|{name}") or metrics[f"{name}|{row['task']}"] for name in partners]
    means = [float(np.mean([pair[key] for pair in pairs])) for key in pairs[0]]
    own, others = row["merge"][row["task"]], sum(row["merge"][name] for name in partners)
    return [*means, own, others, own * own, others * others]


def _flat(params: Mapping[str, Tensor]) -> Tensor:
    """All parameters in one vector."""
    return torch.cat([value.reshape(-1) for value in params.values()])


def _cosine(one: Tensor, two: Tensor) -> float:
    """Cosine of two vectors."""
    return float(torch.dot(one, two) / (one.norm() * two.norm()))


def _subspaces(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Leading left and right singular vectors, and all singular values."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return left[:, :RANK], right[:RANK].T, values


def _overlap(one: Mapping[str, tuple], two: Mapping[str, tuple], side: int) -> float:
    """Mean squared cosine between leading subspaces."""
    return float(np.mean([float((one[key][side].T @ two[key][side]).square().sum()) / RANK for key in one]))


def _rank_ratio(one: Mapping[str, tuple], two: Mapping[str, tuple]) -> float:
    """Smaller over larger effective rank, exp of the entropy of the singular values."""

    def rank(values: Tensor) -> float:
        share = values / values.sum()
        return float(torch.exp(-(share * share.clamp_min(1e-30).log()).sum()))

    pairs = [(rank(one[key][2]), rank(two[key][2])) for key in one]
    return float(np.mean([min(pair) / max(pair) for pair in pairs]))


def load_metrics() -> dict[str, dict[str, Pair]]:
    """Stored metrics by family."""
    return {
        family: {
            key: pair
            for number in range(len(groups))
            if path_of(family, number).exists()
            for key, pair in json.loads(path_of(family, number).read_text()).items()
        }
        for family, groups in GROUPS.items()
    }


def path_of(family: str, number: int) -> Path:
    """Where a group's metrics are."""
    return FOLDER / family / str(number) / "metrics.json"


def main() -> None:
    """Measure what is not yet stored."""
    for family, groups in GROUPS.items():
        for number, group in enumerate(groups):
            if not path_of(family, number).exists():
                parts = load_problem_parts(group, folder=EXPERTS / family)
                write_record(path_of(family, number), pair_metrics(problem_of(parts, 0, GRADIENT_EXAMPLES)))
                print(f"{family} {number}: metrics of {len(group)} experts", flush=True)


if __name__ == "__main__":
    main()
