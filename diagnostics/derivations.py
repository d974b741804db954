r"""Every numbered claim of the theory as an object that states itself, checks itself and can be refuted.

Example:
    >>> from diagnostics import derivations
    >>> bound = derivations.get("2.1")
    >>> print(bound.statement)
    L_i(\theta^*) - L_i(\theta_i) \le L_i C (1 + \varepsilon)
    >>> bound.as_stated, bound.check(max_examples=50).verdict.value
    (True, 'supported')
    >>> wrong = derivations.get("2.6")
    >>> wrong.as_stated, wrong.check_as_stated().verdict.value, wrong.check(max_examples=50).verdict.value
    (False, 'refuted', 'supported')
"""

from diagnostics.exact.claims import Claim, Condition, Mutant
from diagnostics.exact.relations import Relation
from diagnostics.theory.derivations.derivation import Derivation, Kind
from diagnostics.theory.derivations.registry import all_derivations as all
from diagnostics.theory.derivations.registry import get, register

__all__ = ["Claim", "Condition", "Derivation", "Kind", "Mutant", "Relation", "all", "get", "register"]
