"""Predict whether a task-arithmetic merge will work, and measure why.

The names below are the whole public interface. Each is imported when it is first asked for, as PyTorch and SciPy take
seconds that ``diagnostics --help`` and a use of one measure need not wait for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see; a test holds it against the table
    from diagnostics import derivations as derivations
    from diagnostics.bases.arithmetic import NoSimilarBasisWarning as NoSimilarBasisWarning
    from diagnostics.bases.bases import Bases as Bases
    from diagnostics.bases.build import task_vector_bases as task_vector_bases
    from diagnostics.bases.clustering import Clustering as Clustering
    from diagnostics.bases.clustering import cluster_similarities as cluster_similarities
    from diagnostics.bases.files import load_bases as load_bases
    from diagnostics.bases.history import cluster_history as cluster_history
    from diagnostics.bases.search import CoefficientSearch as CoefficientSearch
    from diagnostics.bases.search import search_coefficients as search_coefficients
    from diagnostics.errors import CheckpointError as CheckpointError
    from diagnostics.errors import InputError as InputError
    from diagnostics.errors import MismatchError as MismatchError
    from diagnostics.errors import NotDeterministicError as NotDeterministicError
    from diagnostics.errors import ProcessError as ProcessError
    from diagnostics.inputs.layout import Layout as Layout
    from diagnostics.inputs.live_models import peft_adapters as peft_adapters
    from diagnostics.inputs.problem import MergeProblem as MergeProblem
    from diagnostics.inputs.recipes import Recipe as Recipe
    from diagnostics.inputs.recipes import read_recipe as read_recipe
    from diagnostics.inputs.tasks import Task as Task
    from diagnostics.measures.curvature import gradient as gradient
    from diagnostics.measures.curvature import hessian_vector_product as hessian_vector_product
    from diagnostics.measures.feature_use import FeatureUse as FeatureUse
    from diagnostics.measures.feature_use import feature_use as feature_use
    from diagnostics.measures.geometry import Geometry as Geometry
    from diagnostics.measures.geometry import geometry as geometry
    from diagnostics.measures.lora_merge import linear_lora_update as linear_lora_update
    from diagnostics.measures.merge_methods import merged_update as merged_update
    from diagnostics.measures.merge_methods import method_contributions as method_contributions
    from diagnostics.measures.orthogonality import Orthogonality as Orthogonality
    from diagnostics.measures.orthogonality import orthogonality as orthogonality
    from diagnostics.measures.orthoreg import orthoreg_penalty as orthoreg_penalty
    from diagnostics.measures.spectra import SpectralNorm as SpectralNorm
    from diagnostics.measures.spectra import spectral_norm as spectral_norm
    from diagnostics.measures.update_structure import UpdateStructure as UpdateStructure
    from diagnostics.measures.update_structure import update_structure as update_structure
    from diagnostics.processes import data_parallel as data_parallel
    from diagnostics.report.frames import to_frame as to_frame
    from diagnostics.results import Assumption as Assumption
    from diagnostics.results import Cost as Cost
    from diagnostics.results import Estimate as Estimate
    from diagnostics.results import Status as Status
    from diagnostics.results import Verdict as Verdict
    from diagnostics.theory.bound_report import BoundReport as BoundReport
    from diagnostics.theory.coefficient_conditions import CoefficientRegion as CoefficientRegion
    from diagnostics.theory.coefficient_conditions import Regime as Regime
    from diagnostics.theory.coefficient_conditions import coefficient_region as coefficient_region
    from diagnostics.verdicts.alignment import GradientAlignment as GradientAlignment
    from diagnostics.verdicts.alignment import gradient_alignment as gradient_alignment
    from diagnostics.verdicts.causes import Cause as Cause
    from diagnostics.verdicts.coefficients import CoefficientChoice as CoefficientChoice
    from diagnostics.verdicts.coefficients import best_coefficients as best_coefficients
    from diagnostics.verdicts.compatibility import check_compatibility as check_compatibility
    from diagnostics.verdicts.composition import CompositionAudit as CompositionAudit
    from diagnostics.verdicts.composition import Term as Term
    from diagnostics.verdicts.composition import audit_composition as audit_composition
    from diagnostics.verdicts.disentanglement import DisentanglementError as DisentanglementError
    from diagnostics.verdicts.disentanglement import disentanglement_error as disentanglement_error
    from diagnostics.verdicts.disentanglement import disentanglement_errors as disentanglement_errors
    from diagnostics.verdicts.feature_use import FeatureSpecialisation as FeatureSpecialisation
    from diagnostics.verdicts.feature_use import task_feature_specialisation as task_feature_specialisation
    from diagnostics.verdicts.findings import Code as Code
    from diagnostics.verdicts.findings import Finding as Finding
    from diagnostics.verdicts.findings import Severity as Severity
    from diagnostics.verdicts.gradient_fit import GradientFit as GradientFit
    from diagnostics.verdicts.gradient_fit import MergeError as MergeError
    from diagnostics.verdicts.gradient_fit import gradient_fit as gradient_fit
    from diagnostics.verdicts.gradient_fit import merge_error as merge_error
    from diagnostics.verdicts.loss_gaps import addition_bounds as addition_bounds
    from diagnostics.verdicts.loss_gaps import negation_bounds as negation_bounds
    from diagnostics.verdicts.loss_gaps import out_of_distribution_bound as out_of_distribution_bound
    from diagnostics.verdicts.mergeability import MergePrediction as MergePrediction
    from diagnostics.verdicts.mergeability import TaskPrediction as TaskPrediction
    from diagnostics.verdicts.mergeability import predict_merge as predict_merge
    from diagnostics.verdicts.relations import OutputRelation as OutputRelation
    from diagnostics.verdicts.relations import output_relation as output_relation
    from diagnostics.verdicts.update_reduction import ReductionReport as ReductionReport
    from diagnostics.verdicts.update_reduction import reduction_costs as reduction_costs

__version__ = "0.1.0"

# Every public name, with the module of this package that it comes from.
_HOMES = {
    "Assumption": "results",
    "Bases": "bases.bases",
    "BoundReport": "theory.bound_report",
    "Cause": "verdicts.causes",
    "CheckpointError": "errors",
    "Clustering": "bases.clustering",
    "Code": "verdicts.findings",
    "CoefficientChoice": "verdicts.coefficients",
    "CoefficientRegion": "theory.coefficient_conditions",
    "CoefficientSearch": "bases.search",
    "CompositionAudit": "verdicts.composition",
    "Cost": "results",
    "DisentanglementError": "verdicts.disentanglement",
    "Estimate": "results",
    "FeatureSpecialisation": "verdicts.feature_use",
    "FeatureUse": "measures.feature_use",
    "Finding": "verdicts.findings",
    "Geometry": "measures.geometry",
    "GradientAlignment": "verdicts.alignment",
    "GradientFit": "verdicts.gradient_fit",
    "InputError": "errors",
    "Layout": "inputs.layout",
    "MergeError": "verdicts.gradient_fit",
    "MergePrediction": "verdicts.mergeability",
    "MergeProblem": "inputs.problem",
    "MismatchError": "errors",
    "NoSimilarBasisWarning": "bases.arithmetic",
    "NotDeterministicError": "errors",
    "Orthogonality": "measures.orthogonality",
    "OutputRelation": "verdicts.relations",
    "ProcessError": "errors",
    "Recipe": "inputs.recipes",
    "ReductionReport": "verdicts.update_reduction",
    "Regime": "theory.coefficient_conditions",
    "Severity": "verdicts.findings",
    "SpectralNorm": "measures.spectra",
    "Status": "results",
    "Task": "inputs.tasks",
    "TaskPrediction": "verdicts.mergeability",
    "Term": "verdicts.composition",
    "UpdateStructure": "measures.update_structure",
    "Verdict": "results",
    "addition_bounds": "verdicts.loss_gaps",
    "audit_composition": "verdicts.composition",
    "best_coefficients": "verdicts.coefficients",
    "check_compatibility": "verdicts.compatibility",
    "cluster_history": "bases.history",
    "cluster_similarities": "bases.clustering",
    "coefficient_region": "theory.coefficient_conditions",
    "data_parallel": "processes",
    "derivations": "derivations",
    "disentanglement_error": "verdicts.disentanglement",
    "disentanglement_errors": "verdicts.disentanglement",
    "feature_use": "measures.feature_use",
    "geometry": "measures.geometry",
    "gradient": "measures.curvature",
    "gradient_alignment": "verdicts.alignment",
    "gradient_fit": "verdicts.gradient_fit",
    "hessian_vector_product": "measures.curvature",
    "linear_lora_update": "measures.lora_merge",
    "load_bases": "bases.files",
    "merge_error": "verdicts.gradient_fit",
    "merged_update": "measures.merge_methods",
    "method_contributions": "measures.merge_methods",
    "negation_bounds": "verdicts.loss_gaps",
    "orthogonality": "measures.orthogonality",
    "orthoreg_penalty": "measures.orthoreg",
    "out_of_distribution_bound": "verdicts.loss_gaps",
    "output_relation": "verdicts.relations",
    "peft_adapters": "inputs.live_models",
    "predict_merge": "verdicts.mergeability",
    "read_recipe": "inputs.recipes",
    "reduction_costs": "verdicts.update_reduction",
    "search_coefficients": "bases.search",
    "spectral_norm": "measures.spectra",
    "task_feature_specialisation": "verdicts.feature_use",
    "task_vector_bases": "bases.build",
    "to_frame": "report.frames",
    "update_structure": "measures.update_structure",
}

__all__ = list(_HOMES)


if not TYPE_CHECKING:  # seeing this, they would let every name pass

    def __getattr__(name: str) -> Any:
        """Import a public name, once."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(f"{__name__}.{_HOMES[name]}")
        value = globals()[name] = module if name == _HOMES[name] else getattr(module, name)
        return value


def __dir__() -> list[str]:
    """List the public names, for completion in notebooks; what is not imported yet is no attribute so far."""
    return ["__version__", *__all__]
