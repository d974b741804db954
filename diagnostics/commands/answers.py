"""Results as answers: title, headline, sections and JSON are the same whichever command gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diagnostics.commands.terminal import Answer
from diagnostics.measures.geometry import Geometry
from diagnostics.report.bounds_section import bounds_headline, bounds_section
from diagnostics.report.compatibility_section import compatibility_headline, compatibility_section
from diagnostics.report.composition_section import composition_headline, composition_section
from diagnostics.report.geometry_section import geometry_headline, geometry_section
from diagnostics.report.prediction_section import prediction_headline, prediction_section
from diagnostics.report.relations_section import relations_headline, relations_section
from diagnostics.results import Cost, Verdict
from diagnostics.theory.bound_report import BoundReport
from diagnostics.verdicts.composition import CompositionAudit
from diagnostics.verdicts.findings import Finding, Severity
from diagnostics.verdicts.mergeability import MergePrediction
from diagnostics.verdicts.relations import OutputRelation

__all__ = [
    "audit_answer",
    "bounds_answer",
    "compatibility_answer",
    "geometry_answer",
    "prediction_answer",
    "relations_answer",
]


def compatibility_answer(findings: Sequence[Finding], experts: Sequence[str]) -> Answer:
    """Answer whether checkpoints can be merged.

    Args:
        findings: What was found.
        experts: Names of the experts.

    Returns:
        The answer: no with an error among the findings.
    """
    negative = any(finding.severity is Severity.ERROR for finding in findings)
    sections = (compatibility_section(findings, experts),)
    payload = {"compatible": not negative, "findings": findings}
    headline = compatibility_headline(findings, experts)
    return Answer("Can these checkpoints be merged?", headline, sections, payload, negative)


def geometry_answer(shape: Geometry) -> Answer:
    """Answer how long and how parallel task vectors are.

    Args:
        shape: The geometry.

    Returns:
        The answer.
    """
    sections = (geometry_section(shape),)
    return Answer("Geometry of task vectors", geometry_headline(shape), sections, {"geometry": shape})


def prediction_answer(prediction: MergePrediction) -> Answer:
    """Answer whether a merge will work.

    Args:
        prediction: The prediction.

    Returns:
        The answer: no if it is refuted.
    """
    sections, payload = (prediction_section(prediction),), {"prediction": prediction}
    negative, headline = prediction.verdict is Verdict.REFUTED, prediction_headline(prediction)
    return Answer("Will the merge work?", headline, sections, payload, negative, prediction.cost)


def bounds_answer(groups: Sequence[tuple[str, Mapping[str, BoundReport]]]) -> Answer:
    """Answer whether bounds hold.

    Args:
        groups: A label and reports by task, for each merge.

    Returns:
        The answer: no if one is broken.
    """
    payload = {"bounds": [{"merge": label, "tasks": reports} for label, reports in groups]}
    broken = any(report.holds is False for _, reports in groups for report in reports.values())
    return Answer(
        "Loss gaps and their bounds", bounds_headline(groups), (bounds_section(groups),), payload, negative=broken
    )


def relations_answer(relations: Sequence[OutputRelation]) -> Answer:
    """Answer how experts are related.

    Args:
        relations: One for each pair.

    Returns:
        The answer.
    """
    sections, payload = (relations_section(relations),), {"relations": relations}
    cost = sum((relation.cost for relation in relations), Cost())
    headline = relations_headline(relations)
    return Answer("How are these experts related?", headline, sections, payload, cost=cost)


def audit_answer(audit: CompositionAudit) -> Answer:
    """Answer whether task vectors can add up to a target.

    Args:
        audit: The audit.

    Returns:
        The answer: no if it is refuted.
    """
    sections, payload = (composition_section(audit),), {"audit": audit}
    negative, headline = audit.verdict is Verdict.REFUTED, composition_headline(audit)
    return Answer("Can these task vectors reach the target?", headline, sections, payload, negative, audit.cost)
