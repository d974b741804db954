"""Predict whether a task-arithmetic merge will work, and measure why.

The names below are the whole public interface, in the order in which data flow through the package.
"""

from diagnostics.errors import CheckpointError, InputError, MismatchError, NotDeterministicError
from diagnostics.inputs.problem import MergeProblem
from diagnostics.inputs.tasks import Task
from diagnostics.measures.curvature import gradient, hessian_vector_product
from diagnostics.measures.geometry import Geometry, geometry
from diagnostics.measures.spectra import SpectralNorm, spectral_norm
from diagnostics.report import plotting as _plotting
from diagnostics.results import Assumption, Cost, Estimate, Status, Verdict
from diagnostics.theory.loss_gap import BoundReport
from diagnostics.verdicts.loss_gaps import addition_bounds, negation_bounds, out_of_distribution_bound
from diagnostics.verdicts.mergeability import MergePrediction, TaskPrediction, predict_merge

__version__ = "0.1.0"

del _plotting  # importing it is what gives results their pictures

__all__ = [
    "Assumption",
    "BoundReport",
    "CheckpointError",
    "Cost",
    "Estimate",
    "Geometry",
    "InputError",
    "MergePrediction",
    "MergeProblem",
    "MismatchError",
    "NotDeterministicError",
    "SpectralNorm",
    "Status",
    "Task",
    "TaskPrediction",
    "Verdict",
    "addition_bounds",
    "geometry",
    "gradient",
    "hessian_vector_product",
    "negation_bounds",
    "out_of_distribution_bound",
    "predict_merge",
    "spectral_norm",
]
