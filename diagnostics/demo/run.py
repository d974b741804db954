"""The demo's story: predict every merge of seven digit experts first, then evaluate them, and say how it went."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from diagnostics.demo.digits import DigitsDemo, build_digits
from diagnostics.inputs.problem import MergeProblem
from diagnostics.inputs.tasks import Parameters, Task
from diagnostics.report.bounds_section import bounds_section
from diagnostics.report.curve_section import curve_section
from diagnostics.report.document import Document, Section
from diagnostics.report.geometry_section import geometry_section
from diagnostics.report.outcomes_section import outcomes_headline, outcomes_section
from diagnostics.report.prediction_section import prediction_section
from diagnostics.theory.bound_report import BoundReport
from diagnostics.verdicts.loss_gaps import addition_bounds, problem_geometry
from diagnostics.verdicts.mergeability import MergePrediction, predict_merge
from diagnostics.verdicts.scoring import Baseline, Outcome, score_predictions

__all__ = ["run_demo"]

Progress = Callable[[str], None]
# Merges whose bounds are shown: two that agree, two that have little to do with each other, two that contradict.
BOUND_PAIRS = (("digits", "noisy"), ("parity", "loops"), ("digits", "reversed"))
CURVE_PAIR = ("digits", "rotated")


def run_demo(
    *, quick: bool = False, seed: int = 0, progress: Progress = lambda message: None
) -> tuple[Document, dict[str, Any]]:
    """Train, predict, evaluate and report.

    Args:
        quick: A dry run: fewer training steps and merges, numbers without meaning.
        seed: Seed of initial weights, splits and batches.
        progress: Called with a line at each step.

    Returns:
        The report and its numbers for JSON.
    """
    started = time.perf_counter()
    demo = build_digits(steps=20 if quick else 300, seed=seed, progress=progress)
    problem = demo.problem
    progress("measuring the geometry of the task vectors")
    shape = problem_geometry(problem)
    predictions = []
    merges = list(_merges(problem.names))[:: 20 if quick else 1]
    for name in problem.names:
        progress(f"predicting all {len(merges)} merges: outputs and derivatives for {name}")
        predict_merge(problem, {name: 1.0})
    predictions = [predict_merge(problem, merge) for merge in merges]
    progress(f"evaluating the {len(merges)} merges on examples that no prediction has seen")
    outcomes = [_evaluate(demo, prediction) for prediction in predictions]
    scorecard = score_predictions(outcomes, _baselines(demo, merges))
    bounds = []
    for pair in BOUND_PAIRS[: 1 if quick else 3]:
        progress(f"bounding the loss gaps of {' + '.join(pair)}")
        bounds.append((" + ".join(pair), addition_bounds(problem, dict.fromkeys(pair, 0.5))))
    progress("drawing the coefficient curve")
    document = Document(
        "Which merges of seven digit experts work?",
        outcomes_headline(outcomes, scorecard),
        (
            outcomes_section(outcomes, scorecard),
            prediction_section(_most_instructive(outcomes).prediction),
            _curve(demo, 4 if quick else 16),
            geometry_section(shape),
            bounds_section(bounds),
            _about(demo),
        ),
        (f"Made by `diagnostics demo` in {time.perf_counter() - started:.0f} seconds on scikit-learn's digits.",),
    )
    payload = {
        "geometry": shape.to_dict(),
        "scorecard": scorecard.to_dict(),
        "outcomes": [outcome.to_dict() for outcome in outcomes],
        "bounds": [{"merge": label, "tasks": _plain(reports)} for label, reports in bounds],
    }
    return document, payload


def _plain(reports: dict[str, BoundReport]) -> dict[str, Any]:
    """Reports by task as plain data."""
    return {name: report.to_dict() for name, report in reports.items()}


def _merges(names: tuple[str, ...]) -> Iterator[dict[str, float]]:
    """All pairs at four coefficients, fifteen larger sets at three, and all experts together."""
    for coefficient in (0.3, 0.5, 0.8, 1.0):
        for pair in combinations(names, 2):
            yield dict.fromkeys(pair, coefficient)
    chooser = random.Random(0)
    sets = [tuple(chooser.sample(names, size)) for size in (3, 3, 3, 3, 3, 3, 4, 4, 4, 4)]
    for coefficient in (0.2, 0.35, 0.5):
        for group in sets:
            yield dict.fromkeys(group, coefficient)
        yield dict.fromkeys(names, coefficient / 2)


def _evaluate(demo: DigitsDemo, prediction: MergePrediction) -> Outcome:
    """Evaluate a merge on the test examples."""
    merged = demo.problem.merged(prediction.coefficients)
    seen = {name: _examples(demo.test[name], merged) for name in prediction.tasks}
    own = {name: _examples(demo.test[name], demo.problem.experts[name]) for name in prediction.tasks}
    retention = {name: float(score.mean() / own[name][1].mean()) for name, (_, score) in seen.items()}
    lost = {name: (score - retention[name] * own[name][1]) / own[name][1].mean() for name, (_, score) in seen.items()}
    return Outcome(
        prediction,
        {name: float(loss.mean()) for name, (loss, _) in seen.items()},
        retention,
        {name: float(loss.mean()) for name, (loss, _) in own.items()},
        {name: float(loss.std() / len(loss) ** 0.5) for name, (loss, _) in seen.items()},
        {name: float(each.std() / len(each) ** 0.5) for name, each in lost.items()},
    )


def _examples(task: Task, params: Parameters) -> tuple[Tensor, Tensor]:
    """Loss and score of each example."""
    readout = task.readout
    assert readout is not None and readout.score is not None  # the demo's tasks are classifiers
    pairs = list(zip(task.outputs(params), task.batches, strict=True))
    losses = torch.cat([readout.losses(out, batch).double() for out, batch in pairs])
    return losses, torch.cat([readout.score(out, batch).double() for out, batch in pairs])


def _baselines(demo: DigitsDemo, merges: list[dict[str, float]]) -> dict[str, Baseline]:
    """What others predict from, on the same data as the predictions."""
    problem = demo.problem
    shape = problem_geometry(problem)
    cosine, norms = shape.cosine, dict(zip(shape.names, shape.norms.tolist(), strict=True))
    index = {name: number for number, name in enumerate(shape.names)}
    alone, cosines, partners = [], [], []
    for merge in merges:
        others = {name: [other for other in merge if other != name] for name in merge}
        alone.append({name: _alone(problem, name, value) for name, value in merge.items()})
        cosines.append(
            {name: sum(float(cosine[index[name], index[o]]) for o in rest) / len(rest) for name, rest in others.items()}
        )
        partners.append({name: -sum(merge[o] * norms[o] for o in rest) for name, rest in others.items()})
    return {
        "own update alone, scaled": Baseline(alone, is_retention=True),
        "mean cosine with the partners": Baseline(cosines),
        "size of the partners' updates": Baseline(partners),
    }


def _alone(problem: MergeProblem, name: str, coefficient: float) -> float:
    """Retention of one expert at θ0 + λτ without any partner."""

    def measure() -> float:
        task = problem.tasks[name]
        return task.score(problem.merged({name: coefficient})) / task.score(problem.experts[name])

    return problem.cached(("alone", name, coefficient), measure)


def _most_instructive(outcomes: list[Outcome]) -> Outcome:
    """The pair in which one expert hurts the other most: the page explains it as an example."""
    pairs = [outcome for outcome in outcomes if len(outcome.loss) == 2]

    def interference(outcome: Outcome) -> float:
        return min((r.retention for r in outcome.prediction.reasons if r.cause == "interference"), default=0.0)

    return min(pairs, key=interference)


def _curve(demo: DigitsDemo, steps: int) -> Section:
    """One coefficient for both experts of a pair, from 0 to 1.5."""
    grid = [1.5 * step / (steps - 1) for step in range(steps)]
    predictions = [predict_merge(demo.problem, dict.fromkeys(CURVE_PAIR, value)) for value in grid]
    measured = [_evaluate(demo, prediction) for prediction in predictions]
    predicted = {name: [p.tasks[name].retention for p in predictions] for name in CURVE_PAIR}
    truth = {name: [outcome.retention[name] for outcome in measured] for name in CURVE_PAIR}
    title = f"Which coefficient for {' and '.join(CURVE_PAIR)}?"
    return curve_section(title, grid, predicted, truth, threshold=0.9)


def _about(demo: DigitsDemo) -> Section:
    """Where the experts come from."""
    problem = demo.problem
    return Section(
        "About this demonstration",
        (
            f"A network of {problem.dimension:,} shared parameters was pretrained on 300 of scikit-learn's 1,797 real "
            "images of handwritten digits and fine-tuned on 900 for each task. Predictions use 400 other examples; "
            "every merge was evaluated afterwards on the remaining 497.",
            "Tasks: " + "; ".join(f"{name}: {about}" for name, about in demo.about.items()) + ".",
        ),
    )
