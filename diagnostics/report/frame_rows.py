"""Rows of the tables of results: plain mappings in the long form that data frames like, one observation a row.

An estimate in a row stands for the columns of its value, its interval and its status.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any

from diagnostics.bases.bases import Bases
from diagnostics.measures.geometry import Geometry
from diagnostics.measures.orthogonality import Orthogonality
from diagnostics.measures.update_structure import UpdateStructure
from diagnostics.verdicts.alignment import GradientAlignment
from diagnostics.verdicts.coefficients import CoefficientChoice
from diagnostics.verdicts.disentanglement import DisentanglementError
from diagnostics.verdicts.mergeability import MergePrediction
from diagnostics.verdicts.relations import OutputRelation

__all__ = [
    "Row",
    "angles_between",
    "angles_inside",
    "by_layer",
    "components",
    "finalists",
    "geometry_experts",
    "geometry_pairs",
    "geometry_sizes",
    "inner_products",
    "lambdas",
    "points",
    "predicted_tasks",
    "relation",
    "similarities",
    "tensors",
]

Row = Mapping[str, Any]


def lambdas(coefficients: Mapping[str, float]) -> dict[str, float]:
    """A column for each coefficient."""
    return {f"coefficient_{name}": value for name, value in coefficients.items()}


def geometry_experts(result: Geometry) -> Iterator[Row]:
    """A row for each expert."""
    for place, (name, norm) in enumerate(zip(result.names, result.norms.tolist(), strict=True)):
        target = math.nan if result.target_inner is None else float(result.target_inner[place])
        share = norm / result.base_norm if result.base_norm else math.nan
        yield {"expert": name, "norm": norm, "share_of_base": share, "target_inner": target}


def geometry_pairs(result: Geometry) -> Iterator[Row]:
    """A row for each pair of experts."""
    layerwise, conflict = result.null_cosine_layerwise, result.sign_conflict
    for i, j in combinations(range(len(result.names)), 2):
        yield {
            **{"first": result.names[i], "second": result.names[j], "inner": float(result.gram[i, j])},
            **{"cosine": float(result.cosine[i, j]), "null_cosine": result.null_cosine},
            "null_cosine_layerwise": float(layerwise[i, j]) if result.layers else math.nan,
            "sign_conflict": math.nan if conflict is None else float(conflict[i, j]),
        }


def by_layer(rows: Callable[[Any], Iterable[Row]], *without: str) -> Callable[[Any], Iterator[Row]]:
    """The rows of every tensor."""

    def found(result: Any) -> Iterator[Row]:
        for tensor, layer in result.layers.items():
            for row in rows(layer):
                yield {"tensor": tensor, **{key: value for key, value in row.items() if key not in without}}

    return found


def geometry_sizes(result: Geometry) -> Iterator[Row]:
    """A row for each expert, with the size of the tensor."""
    for row in geometry_experts(result):
        yield {**row, "parameters": result.dimension, "base_norm": result.base_norm}


def predicted_tasks(result: MergePrediction) -> Iterator[Row]:
    """A row for each task."""
    for name, task in result.tasks.items():
        yield {"task": name, "coefficient": result.coefficients.get(name, math.nan)} | vars(task)


def finalists(result: CoefficientChoice) -> Iterator[Row]:
    """A row for each merge that was evaluated, the best predicted first."""
    for place, merge in enumerate(result.evaluated, start=1):
        yield {"place": place, **lambdas(merge.coefficients), "predicted": merge.predicted, "measured": merge.measured}


def components(result: GradientAlignment) -> Iterator[Row]:
    """A row for each component."""
    for place, (name, alpha) in enumerate(zip(result.names[1:], result.alphas, strict=True), start=1):
        norm = math.sqrt(max(float(result.gram[place, place]), 0.0))
        yield {"component": name, "alpha": alpha, "norm": norm, "cosine": float(result.cosines[0, place])}


def inner_products(result: GradientAlignment) -> Iterator[Row]:
    """A row for each pair, the target among them."""
    for i, j in combinations(range(len(result.names)), 2):
        matrices = {"inner": result.gram, "inner_unbiased": result.gram_unbiased, "cosine": result.cosines}
        yield {
            **{"first": result.names[i], "second": result.names[j]},
            **{key: float(matrix[i, j]) for key, matrix in matrices.items()},
        }


def relation(result: OutputRelation) -> Iterator[Row]:
    """The one row of a pair."""
    alphas = {"centred": result.centred, "uncentred": result.uncentred, "change": result.change}
    yield {"first": result.first, "second": result.second, "kind": result.kind, **alphas}


def similarities(result: Bases) -> Iterator[Row]:
    """A row for each expert and basis."""
    for i, expert in enumerate(result.names):
        for j, (basis, members) in enumerate(result.members.items()):
            cosine = float(result.similarity[i, j])
            yield {"expert": expert, "basis": basis, "member": expert in members, "cosine": cosine}


def angles_inside(result: Orthogonality) -> Iterator[Row]:
    """A row for each expert."""
    for i, name in enumerate(result.names):
        yield {
            **{"expert": name, "norm": float(result.norms[i]), "inside": float(result.inside[i])},
            **{"null": float(result.cosine.null[i, i]), "ratio": float(result.cosine.ratio[i, i])},
            **{"square": float(result.square.value[i, i]), "floor": float(result.floor[i])},
            "zero": int(result.zero[i]),
        }


def angles_between(result: Orthogonality) -> Iterator[Row]:
    """A row for each pair of experts."""
    for i, j in combinations(range(len(result.names)), 2):
        row: dict[str, Any] = {"first": result.names[i], "second": result.names[j]}
        for key in ("cosine", "matched", "square"):
            angles = getattr(result, key)
            row |= {key: float(angles.value[i, j]), f"{key}_null": float(angles.null[i, j])}
        yield row


def tensors(result: UpdateStructure) -> Iterator[Row]:
    """A row for each tensor."""
    for each in result.tensors.values():
        moved = each.spectrum is not None and each.square > 0
        yield {
            **{"tensor": each.name, "shape": "x".join(map(str, each.shape)), "norm": math.sqrt(each.square)},
            **{"base_norm": math.sqrt(each.base_square), "matrix": each.spectrum is not None},
            "kept_rank_1": each.spectrum.kept(1) if each.spectrum and moved else math.nan,
            **{
                f"rank_for_{share:g}": each.spectrum.rank_for(share) if each.spectrum and moved else math.nan
                for share in result.shares
            },
            "rows_held_0.1": each.rows.held(0.1) if each.rows and moved else math.nan,
            "zero_share": each.entries.zero_share,
            **{f"below_{name}": share for name, share in each.entries.below_shares.items()},
        }


def points(result: DisentanglementError) -> Iterator[Row]:
    """A row for each point of the grid."""
    for first, second in result.points:
        forms = {form: result.at(first, second, form) for form in ("hard", "soft")}
        yield {"coefficient_first": first, "coefficient_second": second, **forms}
