"""(4.2) Task-feature specialisation: what it says of weight vectors, and cosines of task vectors of outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diagnostics.exact.relations import Relation
from diagnostics.theory.derivations.derivation import Claim, Condition, Derivation, Kind, Mutant

__all__ = ["DERIVATIONS"]

_SOURCE = "Liu 2026"


@dataclass(frozen=True)
class _Layer:
    """f(x) = Σ_k a_k max(w_kᵀx, 0) with one input of each of two tasks.

    Attributes:
        columns: w_k, [units, r].
        readout: a_k, [units].
        inputs: x of task 1 and of task 2, [2, r].
    """

    columns: Any
    readout: Any
    inputs: Any

    def slopes(self, task: int) -> Any:
        """∂f/∂z_k at the input of a task, [units]."""
        return np.where(self.columns @ self.inputs[task] > 0, self.readout, 0.0)


def _any(size: int) -> Any:
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import arrays

    return st.builds(_Layer, arrays(2, size), arrays(2), arrays(2, size))


def _shared(layer: _Layer) -> float:
    """Units with a slope at the inputs of both tasks."""
    return float(((layer.slopes(0) != 0) & (layer.slopes(1) != 0)).sum())


_DISJOINT = Condition("disjoint", "no feature is used by both tasks (TFS)", _shared)


def _silent(layer: _Layer) -> Any:
    """What units that task 1 does not use contribute to its output."""
    unused = layer.slopes(0) == 0
    return np.where(unused, layer.readout * np.maximum(layer.columns @ layer.inputs[0], 0.0), 0.0)


_CROSS = Condition(
    "specialised",
    "the first feature is task 1's alone and the second task 2's alone",
    lambda layer: float((layer.slopes(0)[0] == 0) + (layer.slopes(1)[1] == 0) + (layer.slopes(0)[1] != 0)),
)
COLUMNS = Derivation(
    id="4.2-columns",
    title="A feature that a task does not use adds nothing to its output; its weights need not be orthogonal.",
    source=f"{_SOURCE}, corollary to theorem 1",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"k \notin I_t \;\Rightarrow\; a_k \max(w_k^\top x, 0) = 0, \quad x \sim \mu_t",
        left=_silent,
        right=lambda layer: 0 * layer.readout,
        relation=Relation.EQUAL,
        cases=_any,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("without the rectifier", left=lambda layer: _silent_linear(layer)),
        Mutant("features that it uses", left=lambda layer: layer.slopes(0) * (layer.columns @ layer.inputs[0])),
    ),
    published=Claim(
        statement=r"\langle w_k, w_l \rangle = 0, \quad k \in I_t,\; l \in I_j,\; t \ne j",
        left=lambda layer: layer.columns[0] @ layer.columns[1],
        right=lambda layer: 0.0,
        relation=Relation.EQUAL,
        cases=_any,
        assumptions=(_DISJOINT, _CROSS),
        sizes=(1, 2, 3),
    ),
    correction=(
        "Read as a consequence of specialisation alone it fails. That a task does not use a feature says where the "
        "feature's pre-activation is not positive on its inputs, and nothing about the angle to the features that it "
        "does use: opposite weight vectors specialise as well as orthogonal ones. Orthogonality of columns across "
        "index sets is thus one way to specialise, to be measured beside the use of features, and not a consequence of "
        "it."
    ),
    counterexample=_Layer(np.array([[1.0], [-1.0]]), np.array([1.0, 1.0]), np.array([[1.0], [-1.0]])),
    by_hand=(
        "One input dimension, f(x) = max(x, 0) + max(−x, 0), so w_1 = 1 and w_2 = −1. Task 1 has x = 1 and uses the "
        "first feature only, task 2 has x = −1 and uses the second only: the index sets {1} and {2} are disjoint, and "
        "⟨w_1, w_2⟩ = −1."
    ),
    code=("diagnostics.task_feature_specialisation", "diagnostics.orthogonality"),
)


def _silent_linear(layer: _Layer) -> Any:
    unused = layer.slopes(0) == 0
    return np.where(unused, layer.readout * (layer.columns @ layer.inputs[0]), 0.0)


def _triples(size: int) -> Any:
    from diagnostics.testing.numbers import arrays

    # τ_t, τ_j and J(x), none of them zero.
    return arrays(3, size).filter(lambda rows: (abs(rows).sum(1) > 0.1).all())


def _norm(row: Any) -> Any:
    return np.sqrt((row**2).sum())


def _product(rows: Any) -> Any:
    return abs(rows[1] @ rows[2])


def _by_cosine(rows: Any) -> Any:
    """‖τ_j‖ ‖J‖ |cos(τ_j, τ_t)|."""
    return _norm(rows[2]) * abs(rows[1] @ rows[0]) / _norm(rows[0])


def _sine(rows: Any) -> Any:
    """‖τ_j‖ ‖J‖ sin∠(J, τ_t), by the part of J that is orthogonal to τ_t."""
    along = (rows[2] @ rows[0]) / (rows[0] ** 2).sum()
    return _norm(rows[1]) * _norm(rows[2] - along * rows[0])


EQUATION_NINE = Derivation(
    id="4.2-cosine",
    title="The cosine of two task vectors stands for τ_jᵀJ(x) up to the sine of the angle between J(x) and τ_t.",
    source=f"{_SOURCE}, equation 9",
    kind=Kind.CLAIM,
    claim=Claim(
        statement=r"\Big| |\tau_j^\top J| - \Vert \tau_j \Vert \Vert J \Vert |\cos \angle(\tau_j, \tau_t)| \Big| \le "
        r"\Vert \tau_j \Vert \Vert J \Vert \sin \angle(J, \tau_t)",
        left=lambda rows: abs(_product(rows) - _by_cosine(rows)),
        right=_sine,
        relation=Relation.AT_MOST,
        cases=_triples,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("half of the sine", right=lambda rows: _sine(rows) / 2),
        Mutant("the sine squared", right=lambda rows: _sine(rows) ** 2 / (_norm(rows[1]) * _norm(rows[2]))),
    ),
    published=Claim(
        statement=r"|\tau_j^\top J(x)| \approx \Vert \tau_j \Vert \Vert J(x) \Vert |\cos \angle(\tau_j, \tau_t)|",
        left=_product,
        right=_by_cosine,
        relation=Relation.EQUAL,
        cases=_triples,
        sizes=(1, 2, 3),
    ),
    correction=(
        "As an equality it fails. The approximation is exact where J(x) is parallel to τ_t, and can be off by as much "
        "as the sine of the angle between them: orthogonal task vectors leave outputs alone only as far as Jacobians "
        "point along them. That angle, or τ_jᵀJ(x) itself, is to be measured."
    ),
    counterexample=np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),
    by_hand="τ_t = (1, 0), τ_j = (0, 1) and J = (1, 1): the cosine of the task vectors is 0, and τ_jᵀJ = 1.",
    proof=(
        "For unit vectors with j = cos φ · t + sin φ · n, n orthogonal to t, |⟨u, j⟩| ≤ |⟨u, t⟩| + sin φ, and the same "
        "with t and j exchanged. So |⟨u, j⟩| and |⟨u, t⟩| differ by at most sin φ."
    ),
    code=("diagnostics.disentanglement_error",),
)
DERIVATIONS = (COLUMNS, EQUATION_NINE)
