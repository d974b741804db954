"""``result.plot()``: the picture that the report page shows for a result, on matplotlib axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diagnostics.bases.bases import Bases
from diagnostics.errors import InputError
from diagnostics.measures.geometry import Geometry
from diagnostics.measures.orthogonality import Orthogonality
from diagnostics.measures.update_structure import UpdateStructure
from diagnostics.report.bases_section import similarity_figure
from diagnostics.report.bounds_chart import chain_figure
from diagnostics.report.coefficients_section import shared_figure
from diagnostics.report.composition_section import composition_section
from diagnostics.report.disentanglement_section import error_map
from diagnostics.report.document import Figure
from diagnostics.report.extras import require
from diagnostics.report.geometry_section import geometry_section
from diagnostics.report.heat_map import cosine_heat_map
from diagnostics.report.orthogonality_section import orthogonality_section
from diagnostics.report.prediction_section import prediction_section
from diagnostics.report.structure_section import structure_section
from diagnostics.results import paint
from diagnostics.theory.bound_report import BoundReport
from diagnostics.verdicts.alignment import GradientAlignment
from diagnostics.verdicts.coefficients import CoefficientChoice
from diagnostics.verdicts.composition import CompositionAudit
from diagnostics.verdicts.disentanglement import DisentanglementError
from diagnostics.verdicts.mergeability import MergePrediction

__all__: list[str] = []


@paint.register
def _geometry(result: Geometry, ax: Any) -> Any:
    return _on_axes(geometry_section(result).figures[0], ax)


@paint.register
def _bounds(result: BoundReport, ax: Any) -> Any:
    return _on_axes(chain_figure("", {result.name: result}), ax)


@paint.register
def _prediction(result: MergePrediction, ax: Any) -> Any:
    return _on_axes(prediction_section(result).figures[0], ax)


@paint.register
def _coefficients(result: CoefficientChoice, ax: Any) -> Any:
    return _on_axes(shared_figure(result), ax)


@paint.register
def _audit(result: CompositionAudit, ax: Any) -> Any:
    return _on_axes(composition_section(result).figures[0], ax)


@paint.register
def _alignment(result: GradientAlignment, ax: Any) -> Any:
    return _on_axes(cosine_heat_map(result.names, result.cosines.tolist(), "", "Cosine between gradients."), ax)


@paint.register
def _bases(result: Bases, ax: Any) -> Any:
    return _on_axes(similarity_figure(result), ax)


@paint.register
def _structure(result: UpdateStructure, ax: Any) -> Any:
    return _first_of(structure_section({"": result}).figures, "a zero update", ax)


@paint.register
def _orthogonality(result: Orthogonality, ax: Any) -> Any:
    return _first_of(orthogonality_section(result).figures, "a single update", ax)


@paint.register
def _disentanglement(result: DisentanglementError, ax: Any) -> Any:
    figures = () if result.values.ndim == 1 else (error_map(result),)
    return _first_of(figures, "points that are no grid", ax)


def _first_of(figures: Sequence[Figure], without: str, ax: Any) -> Any:
    """The first picture, where there is one."""
    if not figures:
        raise InputError(f"plot: expected a result with a picture; {without} has none. Print it, or use to_dict().")
    return _on_axes(figures[0], ax)


def _on_axes(figure: Figure, ax: Any) -> Any:
    """Draw on the axes given, or on new ones of the figure's own size."""
    if ax is None:
        pyplot = require("matplotlib.pyplot")
        _, ax = pyplot.subplots(figsize=(figure.width / 72, figure.height / 72), layout="constrained")
    figure.paint(ax)
    return ax
