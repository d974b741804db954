"""Small results for report tests, written down rather than measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from diagnostics.measures.geometry import Geometry
from diagnostics.report.bounds_section import bounds_headline, bounds_section
from diagnostics.report.curve_section import curve_section
from diagnostics.report.document import Document
from diagnostics.report.geometry_section import geometry_section
from diagnostics.report.outcomes_section import outcomes_section
from diagnostics.report.prediction_section import prediction_headline, prediction_section
from diagnostics.report.provenance import footer
from diagnostics.results import Assumption, Cost, Estimate, Status, Verdict
from diagnostics.theory.bound_report import BoundReport
from diagnostics.verdicts.mergeability import MergePrediction, Reason, TaskPrediction
from diagnostics.verdicts.scoring import Outcome, PredictorScore, Scorecard

NAMES = ("section", "language", "role-program", "toolkit")
HOSTILE = (
    "<script>alert('x')</script>",
    "_under & 'quote' \"double\" $\\frac{$",
    "]]>--><svg onload=alert(1)>\x1b[31m\x00\n",
    "日本語の要約{{ 7 * 7 }}[bold]",
)
GRID = (0.0, 0.25, 0.5, 0.75, 1.0)


def estimate(value: float, half: float, status: Status = Status.CONVERGED) -> Estimate:
    return Estimate(value, value - half, value + half, 0.9, status, f"expansion +-{half:.2g} over 200 examples")


def undefined() -> Estimate:
    return Estimate(math.nan, math.nan, math.nan, 0.9, Status.UNDEFINED, "the task has no score")


def geometry(names: Sequence[str] = NAMES, *, zero: bool = False) -> Geometry:
    """Cosines 0.2, -0.1, 0.05, …, in turn; with ``zero`` the last expert equals the base."""
    count = len(names)
    cosine = torch.eye(count, dtype=torch.float64)
    for i in range(count):
        for j in range(i):
            cosine[i, j] = cosine[j, i] = (0.2, -0.1, 0.05)[(i + j) % 3]
    norms = torch.linspace(1.2, 1.6, count, dtype=torch.float64)
    if zero:
        norms[-1] = 0.0
    gram = cosine * norms[:, None] * norms[None, :]
    layer = Geometry(tuple(names), gram, 1000, 20.0)
    return Geometry(tuple(names), gram, 22_713_216, 240.0, gram[0] * 0.5, 1.1, {"encoder.weight": layer})


def bound(name: str, gap: float = 0.12, constant: float | None = 1.9) -> BoundReport:
    """A chain from ``gap`` that ends far above a constant prediction."""
    chain = (
        ("measured gap", gap),
        ("= slope + integral of curvature (2.5)", gap),
        ("~ quadratic model at the expert (2.5)", gap * 0.8),
        ("<= upper sum of curvature along the way (2.6)", 0.31),
        ("<= task-subspace smoothness L^S (2.10)", 1.4),
        ("<= spectral norm L at the expert (2.5)", 120.0),
        ("<= L C (1 + eps) (2.1)", 389.0),
    )
    assumptions = {
        "stationary": Assumption(False, 0.21, 0.05, "(A1) the gradient vanishes at the expert"),
        "smooth": Assumption(None, 70.0, 71.0, "(A2, 2.6) curvature on the way is at most L at the expert"),
        "simplex": Assumption(True, 0.0, 1e-9, "(A3) coefficients are not negative and add up to one"),
    }
    quantities = {"L": 127.0, "L_lower": 126.4, "L_upper": 131.0, "L_S": 1.2, "norm_squared": 1.9, "slope": -0.04}
    quantities |= {"offset": 0.0, "C": 2.55, "epsilon": 0.2, "Q": 1.1}
    best, label = chain[3][1], chain[3][0]
    interval, tainted = (387.0, 401.0), Status.TAINTED
    return BoundReport(
        name,
        "addition (2.1)",
        gap,
        389.0,
        interval,
        chain,
        best,
        label,
        True,
        assumptions,
        tainted,
        0.4,
        constant,
        quantities,
    )


def bounds(names: Sequence[str] = NAMES) -> dict[str, BoundReport]:
    """One gap at or below zero among them."""
    gaps = (0.12, -0.03, 0.42, 0.07)
    return {name: bound(name, gap, None if name == names[-1] else 1.9) for name, gap in zip(names, gaps, strict=False)}


def prediction(names: Sequence[str] = NAMES, level: float = 0.5, verdict: Verdict = Verdict.REFUTED) -> MergePrediction:
    """Retentions from comfortable to failing; the last task has no score."""
    tasks = {}
    for i, name in enumerate(names):
        scored = i < len(names) - 1
        kept = estimate(0.99 - 0.09 * i * 2 * level, 0.03) if scored else undefined()
        score = estimate(0.88 - 0.08 * i, 0.03) if scored else undefined()
        tasks[name] = TaskPrediction(
            estimate(0.5 + 0.2 * i, 0.06), score, kept, 0.42 + 0.1 * i, 0.89 if scored else math.nan
        )
    reasons = (
        Reason(names[2], "own scaling", "", level, -0.11, 0.2),
        Reason(names[2], "interference", names[0], level, -0.05, 0.12),
        Reason(names[-1], "interference", names[1], level, math.nan, 0.08),
    )
    cost = Cost(forwards=24, jvps=36)
    return MergePrediction(dict.fromkeys(names, level), tasks, 0.1, verdict, reasons, cost, "task_arithmetic")


def outcomes(names: Sequence[str] = NAMES) -> list[Outcome]:
    """Three merges: one kept, one lost, one left open."""
    cases = ((0.2, Verdict.SUPPORTED, 0.97), (0.5, Verdict.REFUTED, 0.74), (0.35, Verdict.UNDECIDED, 0.88))
    found = []
    for level, verdict, worst in cases:
        guess = prediction(names, level, verdict)
        retention = {name: 0.985 - (0.985 - worst) * i / (len(names) - 1) for i, name in enumerate(names)}
        loss = {name: task.loss.value + 0.04 * (-1) ** i for i, (name, task) in enumerate(guess.tasks.items())}
        found.append(Outcome(guess, loss, retention, {name: task.expert_loss for name, task in guess.tasks.items()}))
    return found


def scorecard() -> Scorecard:
    nan = math.nan
    return Scorecard(
        merges=3,
        pairs=12,
        failures=2,
        verdicts={
            "supported": {"kept": 1, "lost": 0},
            "refuted": {"kept": 0, "lost": 1},
            "undecided": {"kept": 0, "lost": 1},
        },
        retention_coverage=0.917,
        loss_coverage=0.833,
        confidence=0.9,
        predictors={
            "coefficient process": PredictorScore(0.013, 0.95, 0.97, 0.99),
            "cosine": PredictorScore(nan, 0.12, 0.1, 0.55),
            "single models added up": PredictorScore(nan, 0.7, 0.88, 0.9),
        },
    )


def curves(names: Sequence[str] = NAMES) -> tuple[dict[str, list[Estimate]], dict[str, list[float]]]:
    """Retention that falls with the coefficient, undefined at one point; measured values beside and outside."""
    predicted = {n: [estimate(1 - 0.1 * i * x * x, 0.01 + 0.04 * x) for x in GRID] for i, n in enumerate(names)}
    predicted[names[-1]][0] = undefined()
    measured = {n: [1 - 0.1 * i * x * x + 0.02 * (-1) ** i for x in GRID] for i, n in enumerate(names)}
    measured[names[0]][1] = math.nan
    return predicted, measured


def document(names: Sequence[str] = NAMES, title: str = "Will these four models merge?") -> Document:
    """A report with every kind of section."""
    predicted, measured = curves(names)
    sections = (
        prediction_section(prediction(names)),
        geometry_section(geometry(names)),
        bounds_section(bounds(names)),
        outcomes_section(outcomes(names), scorecard()),
        curve_section("One coefficient for all", GRID, predicted, measured, threshold=0.9),
    )
    return Document(title, prediction_headline(prediction(names)), sections, footer())


def bounds_document() -> Document:
    """A report on two merges."""
    reports = [("merge one", bounds()), ("merge two", bounds(NAMES[:2]))]
    return Document("Bounds", bounds_headline(reports), (bounds_section(reports),))
