from . import derivations as derivations
from .bases.arithmetic import NoSimilarBasisWarning as NoSimilarBasisWarning
from .bases.bases import Bases as Bases
from .bases.build import task_vector_bases as task_vector_bases
from .bases.clustering import Clustering as Clustering
from .bases.clustering import cluster_similarities as cluster_similarities
from .bases.files import load_bases as load_bases
from .bases.history import cluster_history as cluster_history
from .bases.search import CoefficientSearch as CoefficientSearch
from .bases.search import search_coefficients as search_coefficients
from .errors import (
    CheckpointError as CheckpointError,
)
from .errors import (
    InputError as InputError,
)
from .errors import (
    MismatchError as MismatchError,
)
from .errors import (
    NotDeterministicError as NotDeterministicError,
)
from .errors import (
    ProcessError as ProcessError,
)
from .inputs.layout import Layout as Layout
from .inputs.live_models import peft_adapters as peft_adapters
from .inputs.problem import MergeProblem as MergeProblem
from .inputs.recipes import Recipe as Recipe
from .inputs.recipes import read_recipe as read_recipe
from .inputs.shards import shard_parameters as shard_parameters
from .inputs.tasks import Task as Task
from .measures.curvature import gradient as gradient
from .measures.curvature import hessian_vector_product as hessian_vector_product
from .measures.feature_use import FeatureUse as FeatureUse
from .measures.feature_use import feature_use as feature_use
from .measures.geometry import Geometry as Geometry
from .measures.geometry import geometry as geometry
from .measures.lora_merge import linear_lora_update as linear_lora_update
from .measures.merge_methods import merged_update as merged_update
from .measures.merge_methods import method_contributions as method_contributions
from .measures.orthogonality import Orthogonality as Orthogonality
from .measures.orthogonality import orthogonality as orthogonality
from .measures.orthoreg import orthoreg_penalty as orthoreg_penalty
from .measures.spectra import SpectralNorm as SpectralNorm
from .measures.spectra import spectral_norm as spectral_norm
from .measures.update_structure import UpdateStructure as UpdateStructure
from .measures.update_structure import update_structure as update_structure
from .processes import data_parallel as data_parallel
from .report.frames import to_frame as to_frame
from .results import Assumption as Assumption
from .results import Cost as Cost
from .results import Estimate as Estimate
from .results import Status as Status
from .results import Verdict as Verdict
from .theory.bound_report import BoundReport as BoundReport
from .theory.coefficient_conditions import (
    CoefficientRegion as CoefficientRegion,
)
from .theory.coefficient_conditions import (
    Regime as Regime,
)
from .theory.coefficient_conditions import (
    coefficient_region as coefficient_region,
)
from .verdicts.alignment import GradientAlignment as GradientAlignment
from .verdicts.alignment import gradient_alignment as gradient_alignment
from .verdicts.causes import Cause as Cause
from .verdicts.coefficients import CoefficientChoice as CoefficientChoice
from .verdicts.coefficients import best_coefficients as best_coefficients
from .verdicts.compatibility import check_compatibility as check_compatibility
from .verdicts.composition import (
    CompositionAudit as CompositionAudit,
)
from .verdicts.composition import (
    Term as Term,
)
from .verdicts.composition import (
    audit_composition as audit_composition,
)
from .verdicts.disentanglement import (
    DisentanglementError as DisentanglementError,
)
from .verdicts.disentanglement import (
    disentanglement_error as disentanglement_error,
)
from .verdicts.disentanglement import (
    disentanglement_errors as disentanglement_errors,
)
from .verdicts.feature_use import (
    FeatureSpecialisation as FeatureSpecialisation,
)
from .verdicts.feature_use import (
    task_feature_specialisation as task_feature_specialisation,
)
from .verdicts.findings import Code as Code
from .verdicts.findings import Finding as Finding
from .verdicts.findings import Severity as Severity
from .verdicts.gradient_fit import (
    GradientFit as GradientFit,
)
from .verdicts.gradient_fit import (
    MergeError as MergeError,
)
from .verdicts.gradient_fit import (
    gradient_fit as gradient_fit,
)
from .verdicts.gradient_fit import (
    merge_error as merge_error,
)
from .verdicts.loss_gaps import (
    addition_bounds as addition_bounds,
)
from .verdicts.loss_gaps import (
    negation_bounds as negation_bounds,
)
from .verdicts.loss_gaps import (
    out_of_distribution_bound as out_of_distribution_bound,
)
from .verdicts.mergeability import (
    MergePrediction as MergePrediction,
)
from .verdicts.mergeability import (
    TaskPrediction as TaskPrediction,
)
from .verdicts.mergeability import (
    predict_merge as predict_merge,
)
from .verdicts.relations import OutputRelation as OutputRelation
from .verdicts.relations import output_relation as output_relation
from .verdicts.update_reduction import ReductionReport as ReductionReport
from .verdicts.update_reduction import reduction_costs as reduction_costs

__version__: str
