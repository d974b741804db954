"""Test derivations of one's own: strategies for tasks, vectors and language models, and assertions that shrink.

Needs Hypothesis: ``pip install 'task-arithmetic-diagnostics[testing]'``.

Example:
    >>> from diagnostics.testing import assert_bound, merges
    >>> squared_distance = lambda merge: (merge.way**2).sum()
    >>> assert_bound(squared_distance, lambda merge: 2 * merge.C * (1 + merge.epsilon), merges).verdict.value
    'supported'
"""

try:
    import hypothesis as _hypothesis
except ModuleNotFoundError as problem:
    raise ModuleNotFoundError(
        "diagnostics.testing needs Hypothesis: pip install 'task-arithmetic-diagnostics[testing]'", name="hypothesis"
    ) from problem

from diagnostics.exact.claims import Claim, Condition, Mutant
from diagnostics.exact.evidence import Counterexample, Evidence
from diagnostics.exact.gradients import FirstGradients
from diagnostics.exact.language import Audit, Distribution, LanguageModel
from diagnostics.exact.merge import Merge
from diagnostics.exact.relations import Relation, judge
from diagnostics.exact.rounding import Rounded, lift, values
from diagnostics.exact.smooth import SmoothTask
from diagnostics.exact.surface import Surface
from diagnostics.testing.assertions import assert_bound, assert_case, assert_identity
from diagnostics.testing.gradients import first_gradients
from diagnostics.testing.language import audits, distributions, instructions, language_models
from diagnostics.testing.numbers import arrays, coefficients, numbers, symmetric, task_vectors, vectors_with_gram
from diagnostics.testing.search import search
from diagnostics.testing.surfaces import surfaces
from diagnostics.testing.tasks import merges, negations, negations_at_expert, smooth_tasks, targets

del _hypothesis

__all__ = [
    "Audit",
    "Claim",
    "Condition",
    "Counterexample",
    "Distribution",
    "Evidence",
    "FirstGradients",
    "LanguageModel",
    "Merge",
    "Mutant",
    "Relation",
    "Rounded",
    "SmoothTask",
    "Surface",
    "arrays",
    "assert_bound",
    "assert_case",
    "assert_identity",
    "audits",
    "coefficients",
    "distributions",
    "first_gradients",
    "instructions",
    "judge",
    "language_models",
    "lift",
    "merges",
    "negations",
    "negations_at_expert",
    "numbers",
    "search",
    "smooth_tasks",
    "surfaces",
    "symmetric",
    "targets",
    "task_vectors",
    "values",
    "vectors_with_gram",
]
