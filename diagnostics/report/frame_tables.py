"""Results whose natural form is a table: for each class, the names of its tables, their columns and their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from diagnostics.bases.bases import Bases
from diagnostics.bases.search import CoefficientSearch
from diagnostics.measures.geometry import Geometry
from diagnostics.measures.orthogonality import Orthogonality
from diagnostics.measures.update_structure import UpdateStructure
from diagnostics.report import frame_rows as rows
from diagnostics.theory.bound_report import BoundReport
from diagnostics.verdicts.alignment import GradientAlignment
from diagnostics.verdicts.coefficients import CoefficientChoice
from diagnostics.verdicts.composition import CompositionAudit
from diagnostics.verdicts.disentanglement import DisentanglementError
from diagnostics.verdicts.findings import Finding
from diagnostics.verdicts.mergeability import MergePrediction
from diagnostics.verdicts.relations import OutputRelation

__all__ = ["TABLES", "Table"]

_PAIR = {"first": "name of an expert", "second": "name of another"}
_LAMBDA = {"coefficient_*": "λ of each expert, a column each"}


@dataclass(frozen=True)
class Table:
    """A table that results of a class have.

    Attributes:
        columns: What each column holds, with its unit. ``*`` in a name stands for names of experts or settings.
        rows: Returns the rows of a result.
    """

    columns: dict[str, str]
    rows: Callable[[Any], Iterable[rows.Row]]


_NORMS = {
    "expert": "name of the expert",
    "norm": "‖τ‖, in units of the parameters",
    "share_of_base": "‖τ‖/‖θ0‖",
    "target_inner": "⟨τ_tar, τ⟩, where a target was given",
}
_ANGLES = {
    **_PAIR,
    "inner": "⟨τ_i, τ_j⟩",
    "cosine": "cosine of the angle between τ_i and τ_j, −1 to 1",
    "null_cosine": "E|cos| of independent Gaussian vectors of this dimension",
    "null_cosine_layerwise": "the same with the norms of every tensor kept",
    "sign_conflict": "share of coordinates moved by both that they move in opposite directions, 0 to 1",
}
_OUTCOME = {
    "task": "name of the task",
    "coefficient": "λ of its expert",
    "loss": "predicted mean loss, in the unit of the task's loss; an estimate",
    "score": "predicted mean score; an estimate",
    "retention": "predicted score over the expert's own; an estimate",
    "expert_loss": "loss of the task's expert, measured",
    "expert_score": "score of the task's expert, measured",
}
_INSIDE = {
    "expert": "name of the expert",
    "norm": "‖ΔW‖_F",
    "inside": "mean |cos| between different columns of the update, 0 to 1",
    "null": "its expectation for independent random columns",
    "ratio": "the one over the other: 1 at chance",
    "square": "mean cos² between different columns",
    "floor": "least mean cos² that so many columns can have",
    "zero": "columns without a direction, left out",
}
_BETWEEN = {
    **_PAIR,
    "cosine": "mean |cos| over pairs of different columns, one of each update, 0 to 1",
    "cosine_null": "its expectation by chance",
    "matched": "mean |cos| of the same column of both updates",
    "matched_null": "its expectation by chance",
    "square": "mean cos² over all pairs: overlap of the spaces that the columns fill",
    "square_null": "its expectation by chance",
}
_TENSOR = {"tensor": "name of the tensor"}

TABLES: dict[type, dict[str, Table]] = {
    Geometry: {
        "pairs": Table(_ANGLES, rows.geometry_pairs),
        "experts": Table(_NORMS, rows.geometry_experts),
        "layers": Table(
            _TENSOR
            | {key: text for key, text in _NORMS.items() if key != "target_inner"}
            | {"parameters": "entries of the tensor", "base_norm": "‖W‖ of the base's tensor"},
            rows.by_layer(rows.geometry_sizes, "target_inner"),
        ),
        "layer pairs": Table(
            _TENSOR | {key: text for key, text in _ANGLES.items() if key != "null_cosine_layerwise"},
            rows.by_layer(rows.geometry_pairs, "null_cosine_layerwise"),
        ),
    },
    MergePrediction: {
        "tasks": Table(_OUTCOME, rows.predicted_tasks),
        "reasons": Table(
            {
                "task": "the task that pays",
                "cause": "own scaling, own trimming or interference",
                "partner": "the expert that interferes; empty for the task's own update",
                "coefficient": "how much of the update that causes it is applied",
                "retention": "change of the task's retention by this cause alone",
                "loss": "change of the task's loss by this cause alone",
            },
            lambda result: ({k: v for k, v in vars(each).items() if k != "layers"} for each in result.reasons),
        ),
    },
    CoefficientChoice: {
        "curve": Table(
            {"coefficient": "λ, the same for all experts", "objective": "predicted objective there"},
            lambda result: ({"coefficient": x, "objective": y} for x, y in result.curve),
        ),
        "finalists": Table(
            {
                "place": "rank by prediction, from 1",
                **_LAMBDA,
                "predicted": "objective as predicted",
                "measured": "objective as measured",
            },
            rows.finalists,
        ),
        "tasks": Table(_OUTCOME, lambda result: rows.predicted_tasks(result.prediction)),
        "baselines": Table(
            {"guess": "a usual choice of coefficients", "objective": "predicted objective there"},
            lambda result: ({"guess": name, "objective": value} for name, value in result.baselines.items()),
        ),
    },
    CoefficientSearch: {
        "merges": Table(
            {**_LAMBDA, "objective": "mean score of the tasks there, or minus the mean loss; measured"},
            lambda result: (rows.lambdas(merge) | {"objective": value} for merge, value in result.evaluated),
        ),
        "tasks": Table(
            {"task": "name of the task", "objective": "its own part at the best merge"},
            lambda result: ({"task": name, "objective": value} for name, value in result.tasks.items()),
        ),
    },
    BoundReport: {
        "chain": Table(
            {
                "step": "place in the chain, from the measured gap to the bound",
                "label": "what the step is",
                "value": "its value, in the unit of the loss",
                "vacuous": "whether it allows a loss above that of a constant prediction; none where that is unknown",
            },
            lambda result: (
                {"step": place, "label": label, "value": value, "vacuous": result.vacuous(value)}
                for place, (label, value) in enumerate(result.chain)
            ),
        ),
        "assumptions": Table(
            {
                "assumption": "its name",
                "holds": "whether it does; none where that could not be decided",
                "measured": "what was measured",
                "limit": "what it was held against",
                "note": "how, and in which unit",
            },
            lambda result: ({"assumption": name} | vars(item) for name, item in result.assumptions.items()),
        ),
    },
    GradientAlignment: {
        "components": Table(
            {
                "component": "name of the component",
                "alpha": "α",
                "norm": "‖g‖ on these data, in units of the loss over those of the parameters",
                "cosine": "cosine with the gradient of the target, −1 to 1",
            },
            rows.components,
        ),
        "pairs": Table(
            {
                "first": "the target or a component",
                "second": "a component",
                "inner": "⟨g_i, g_j⟩ on these data",
                "inner_unbiased": "the same without the bias of the sample",
                "cosine": "cosine on these data, −1 to 1",
            },
            rows.inner_products,
        ),
    },
    CompositionAudit: {
        "terms": Table(
            {
                "term": "name of the term",
                "norm": "its norm on these data",
                "norm_unbiased": "its norm for the expected gradients; an estimate",
                "share": "its share of ‖∇ℰ‖², negative where it cancels others; an estimate",
            },
            lambda result: (
                {"term": name, "norm": term.norm, "norm_unbiased": term.estimate, "share": term.share}
                for name, term in result.terms.items()
            ),
        ),
        "causes": Table(
            {"cause": "what the error comes from", "share": "its share of ‖∇ℰ‖²; an estimate"},
            lambda result: ({"cause": cause, "share": share} for cause, share in result.causes.items()),
        ),
    },
    OutputRelation: {
        "relation": Table(
            {
                **_PAIR,
                "kind": "aligned, irrelevant, contradictory or undecided",
                "centred": "α after each model's mean output is removed, −1 to 1; an estimate",
                "uncentred": "α of the outputs as they are; an estimate",
                "change": "α after the base's outputs are removed; an estimate",
            },
            rows.relation,
        ),
        "tasks": Table(
            {
                "task": "whose inputs",
                "centred": "α there, −1 to 1",
                "uncentred": "the same of the outputs as they are",
                "change": "the same after the base's outputs are removed",
            },
            lambda result: ({"task": name, **values} for name, values in result.by_task.items()),
        ),
    },
    Bases: {
        "experts": Table(
            {
                "expert": "name of the expert",
                "basis": "name of a basis",
                "member": "whether the expert was merged into it",
                "cosine": "cosine of its vector with the basis, −1 to 1",
            },
            rows.similarities,
        ),
    },
    Orthogonality: {
        "pairs": Table(_BETWEEN, rows.angles_between),
        "experts": Table(_INSIDE, rows.angles_inside),
        "layers": Table(_TENSOR | _INSIDE, rows.by_layer(rows.angles_inside)),
        "layer pairs": Table(_TENSOR | _BETWEEN, rows.by_layer(rows.angles_between)),
    },
    UpdateStructure: {
        "tensors": Table(
            {
                **_TENSOR,
                "shape": "its sizes, as 4x3",
                "norm": "‖ΔW‖_F",
                "base_norm": "‖W‖_F of the base",
                "matrix": "whether it is one and has a rank",
                "kept_rank_1": "share of ‖ΔW‖_F² that rank 1 keeps; an estimate",
                "rank_for_*": "least rank that keeps this share of ‖ΔW‖_F²; an estimate",
                "rows_held_0.1": "share of ‖ΔW‖_F² in a tenth of the rows",
                "zero_share": "share of the entries that are zero",
                "below_*": "share of the entries that storage in this type would lose",
            },
            rows.tensors,
        ),
    },
    DisentanglementError: {
        "points": Table(
            {
                "coefficient_first": "λ of the first expert",
                "coefficient_second": "λ of the second expert",
                "hard": "ξ by predictions that differ, 0 to 2; an estimate",
                "soft": "ξ as a divergence of output distributions; an estimate",
            },
            rows.points,
        ),
    },
    Finding: {
        "findings": Table(
            {
                "code": "what kind of thing",
                "severity": "how bad it is",
                "model": "the model concerned",
                "tensor": "the tensor concerned; none for the whole model",
                "message": "what was found",
                "remedy": "what to do about it",
            },
            lambda result: [vars(result)],
        ),
    },
}
