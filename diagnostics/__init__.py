"""Predict whether a task-arithmetic merge will work, and measure why.

The names below are the whole public interface, in the order in which data flow through the package.
"""

from diagnostics import derivations
from diagnostics.bases.arithmetic import NoSimilarBasisWarning
from diagnostics.bases.bases import Bases
from diagnostics.bases.build import task_vector_bases
from diagnostics.bases.clustering import Clustering, cluster_similarities
from diagnostics.bases.files import load_bases
from diagnostics.bases.history import cluster_history
from diagnostics.bases.search import CoefficientSearch, search_coefficients
from diagnostics.errors import CheckpointError, InputError, MismatchError, NotDeterministicError, ProcessError
from diagnostics.inputs.layout import Layout
from diagnostics.inputs.problem import MergeProblem
from diagnostics.inputs.recipes import Recipe, read_recipe
from diagnostics.inputs.shards import shard_parameters
from diagnostics.inputs.tasks import Task
from diagnostics.measures.curvature import gradient, hessian_vector_product
from diagnostics.measures.feature_use import FeatureUse, feature_use
from diagnostics.measures.geometry import Geometry, geometry
from diagnostics.measures.lora_merge import linear_lora_update
from diagnostics.measures.merge_methods import merged_update, method_contributions
from diagnostics.measures.orthogonality import Orthogonality, orthogonality
from diagnostics.measures.orthoreg import orthoreg_penalty
from diagnostics.measures.spectra import SpectralNorm, spectral_norm
from diagnostics.measures.update_structure import UpdateStructure, update_structure
from diagnostics.processes import data_parallel
from diagnostics.report import plotting as _plotting
from diagnostics.results import Assumption, Cost, Estimate, Status, Verdict
from diagnostics.theory.bound_report import BoundReport
from diagnostics.theory.coefficient_conditions import CoefficientRegion, Regime, coefficient_region
from diagnostics.verdicts.alignment import GradientAlignment, gradient_alignment
from diagnostics.verdicts.causes import Cause
from diagnostics.verdicts.coefficients import CoefficientChoice, best_coefficients
from diagnostics.verdicts.compatibility import check_compatibility
from diagnostics.verdicts.composition import CompositionAudit, Term, audit_composition
from diagnostics.verdicts.disentanglement import DisentanglementError, disentanglement_error, disentanglement_errors
from diagnostics.verdicts.feature_use import FeatureSpecialisation, task_feature_specialisation
from diagnostics.verdicts.findings import Code, Finding, Severity
from diagnostics.verdicts.gradient_fit import GradientFit, MergeError, gradient_fit, merge_error
from diagnostics.verdicts.loss_gaps import addition_bounds, negation_bounds, out_of_distribution_bound
from diagnostics.verdicts.mergeability import MergePrediction, TaskPrediction, predict_merge
from diagnostics.verdicts.relations import OutputRelation, output_relation
from diagnostics.verdicts.update_reduction import ReductionReport, reduction_costs

__version__ = "0.1.0"

del _plotting  # importing it is what gives results their pictures

__all__ = [
    "Assumption",
    "Bases",
    "BoundReport",
    "Cause",
    "CheckpointError",
    "Clustering",
    "Code",
    "CoefficientChoice",
    "CoefficientRegion",
    "CoefficientSearch",
    "CompositionAudit",
    "Cost",
    "DisentanglementError",
    "Estimate",
    "FeatureSpecialisation",
    "FeatureUse",
    "Finding",
    "Geometry",
    "GradientAlignment",
    "GradientFit",
    "InputError",
    "Layout",
    "MergeError",
    "MergePrediction",
    "MergeProblem",
    "MismatchError",
    "NoSimilarBasisWarning",
    "NotDeterministicError",
    "Orthogonality",
    "OutputRelation",
    "ProcessError",
    "Recipe",
    "ReductionReport",
    "Regime",
    "Severity",
    "SpectralNorm",
    "Status",
    "Task",
    "TaskPrediction",
    "Term",
    "UpdateStructure",
    "Verdict",
    "addition_bounds",
    "audit_composition",
    "best_coefficients",
    "check_compatibility",
    "cluster_history",
    "cluster_similarities",
    "coefficient_region",
    "data_parallel",
    "derivations",
    "disentanglement_error",
    "disentanglement_errors",
    "feature_use",
    "geometry",
    "gradient",
    "gradient_alignment",
    "gradient_fit",
    "hessian_vector_product",
    "linear_lora_update",
    "load_bases",
    "merge_error",
    "merged_update",
    "method_contributions",
    "negation_bounds",
    "orthogonality",
    "orthoreg_penalty",
    "out_of_distribution_bound",
    "output_relation",
    "predict_merge",
    "read_recipe",
    "reduction_costs",
    "search_coefficients",
    "shard_parameters",
    "spectral_norm",
    "task_feature_specialisation",
    "task_vector_bases",
    "update_structure",
]
