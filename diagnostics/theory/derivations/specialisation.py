"""(4.1), (4.2) What of τ_jᵀJ(x) predictions see, and which orthogonality specialisation does imply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diagnostics.exact.relations import Relation
from diagnostics.theory.derivations.derivation import Claim, Condition, Derivation, Kind, Mutant

__all__ = ["DERIVATIONS"]


def _logits(classes: int) -> Any:
    """Logits of one input at the task's own model, J(x)τ_j there, and λ_j."""
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import arrays, numbers

    moves = arrays(classes + 1) | numbers().map(lambda number: np.full(classes + 1, number))
    return st.tuples(arrays(classes + 1), moves, numbers(-2, 2))


def _centred(row: Any) -> Any:
    return row - row.sum() / len(row)


def _log_probabilities(logits: Any) -> Any:
    return logits - np.log(np.exp(logits).sum())


def _seen(case: Any) -> Any:
    """How the log-probabilities move, less the mean of that over the classes."""
    logits, move, weight = case
    return _centred(_log_probabilities(logits + weight * move) - _log_probabilities(logits))


CENTRED = Derivation(
    id="4.1-centred",
    title="In the linear regime a distribution sees of λ_j J(x)τ_j what is left without its mean over the classes.",
    source="sharper form of Liu 2026, lemma for the NTK regime",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"C \big( \log p(x; \theta_0 + \lambda_1 \tau_1 + \lambda_2 \tau_2) - \log p(x; \theta_0 + "
        r"\lambda_t \tau_t) \big) = \lambda_j\, C J(x) \tau_j, \quad C = I - \tfrac1n 11^\top",
        left=_seen,
        right=lambda case: case[2] * _centred(case[1]),
        relation=Relation.EQUAL,
        cases=_logits,
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("J(x)τ_j with its mean", right=lambda case: case[2] * case[1]),
        Mutant("the coefficient forgotten", right=lambda case: _centred(case[1])),
        Mutant("the sign flipped", right=lambda case: -case[2] * _centred(case[1])),
    ),
    proof=(
        "Log-probabilities are the logits less one number for all classes, which C removes. So the distributions are "
        "the same at every λ_j if and only if CJ(x)τ_j = 0: what the lemma says of J(x)τ_j for outputs holds of its "
        "centred form for distributions, and one half of it for predictions."
    ),
    code=("diagnostics.disentanglement_error",),
)


@dataclass(frozen=True)
class _Network:
    """f(x) = Σ_k a_k max(w_kᵀx, 0), with inputs of two tasks and vectors that are trained on them.

    Attributes:
        columns: w_k, [units, r].
        readout: a_k, [units].
        inputs: Of task 1 and of task 2, [2, n, r].
        steps: What each input weighs in its task's vector, [2, n].
        decay: How much of the weights themselves is taken off each vector.
    """

    columns: Any
    readout: Any
    inputs: Any
    steps: Any
    decay: Any

    def slopes(self, task: int) -> Any:
        """∂f/∂z_k at each input of a task, [n, units]."""
        return np.where(self.inputs[task] @ self.columns.T > 0, self.readout, 0.0)

    def vector(self, task: int) -> Any:
        """τ: a combination of the gradients at the task's inputs, less the decay, [units, r]."""
        weighted = self.steps[task].reshape(-1, 1) * self.slopes(task)
        return weighted.T @ self.inputs[task] - self.decay * self.columns

    def moves(self, task: int, vector: Any) -> Any:
        """τᵀJ(x) at each input of a task, [n]."""
        return (self.slopes(task) * (self.inputs[task] @ vector.T)).sum(1)


def _networks(size: int) -> Any:
    from hypothesis import strategies as st

    from diagnostics.testing.numbers import arrays

    parts = (arrays(2, size), arrays(2), arrays(2, 2, size), arrays(2, 2), st.just(0.0))
    return st.builds(_Network, *parts)


def _cut(network: _Network) -> _Network:
    """The same without reading out units that both tasks would use."""
    readout = np.where(_use(network)[0] * _use(network)[1] > 0, 0.0, network.readout)
    return _Network(network.columns, readout, network.inputs, network.steps, network.decay)


def _turned(network: _Network) -> _Network:
    """The first unit on the side of task 1's inputs, the second on that of task 2's, by the first coordinate."""
    sides = np.array([1.0, -1.0])
    inputs, columns = network.inputs.copy(), network.columns.copy()
    inputs[:, :, 0] = sides[:, None] * (1 + abs(inputs[:, :, 0]))
    # Large enough for the first coordinate to outweigh all others.
    columns[:, 0] = sides * (1 + (abs(columns[:, None, None, 1:] * inputs[:, :, 1:]).sum(-1)).max((1, 2)))
    readout = np.where(network.readout == 0, 1.0, network.readout)
    return _Network(columns, readout, inputs, network.steps, network.decay)


def _specialised(size: int) -> Any:
    """Networks whose units do not serve both tasks: by where they point, or because they are not read out."""
    return _networks(size).map(_cut) | _networks(size).map(_turned)


def _decayed(size: int) -> Any:
    def weaker(network: _Network) -> _Network:
        return _Network(network.columns, network.readout, network.inputs, network.steps, 0.5)

    return _specialised(size).map(weaker)


def _use(network: _Network) -> Any:
    """E|∂f/∂z_k| by task, [2, units]."""
    return np.stack([abs(network.slopes(task)).sum(0) / len(network.steps[task]) for task in (0, 1)])


_DISJOINT = Condition(
    "disjoint", "no feature is used by both tasks (TFS)", lambda network: float((_use(network) > 0).all(0).sum())
)
_GRADIENTS = Condition(
    "gradients", "task vectors are combinations of gradients at the tasks' own inputs", lambda network: network.decay
)


def _entangled(network: _Network) -> Any:
    """⟨τ_1, τ_2⟩, and τ_jᵀJ(x) at every input of the other task."""
    vectors = [network.vector(task) for task in (0, 1)]
    moved = [network.moves(1 - task, vectors[task]) for task in (0, 1)]
    return np.concatenate([(vectors[0] * vectors[1]).sum().reshape(1), *moved])


def _columns_apart(network: _Network) -> Any:
    """⟨Δw_k, Δw_l⟩ of different columns of the two vectors."""
    product = network.vector(0) @ network.vector(1).T
    return product - np.diag(np.diag(product))


VECTORS = Derivation(
    id="4.2",
    title="Under specialisation task vectors made of their own gradients are orthogonal, and disentangled.",
    source="sharper form of Liu 2026, theorem 1 and its corollary, NTK regime",
    kind=Kind.SHARPER,
    claim=Claim(
        statement=r"I_1 \cap I_2 = \emptyset,\; \tau_t = \sum_{x \sim \mu_t} c_x J(x) \;\Rightarrow\; \langle \tau_1, "
        r"\tau_2 \rangle = 0 \text{ and } \tau_j^\top J(x) = 0 \text{ for } x \sim \mu_t,\, t \ne j",
        left=_entangled,
        right=lambda network: 0.0 * _entangled(network),
        relation=Relation.EQUAL,
        cases=_specialised,
        assumptions=(_DISJOINT, _GRADIENTS),
        sizes=(1, 2, 3),
    ),
    mutants=(
        Mutant("features that both tasks use", without="disjoint", cases=_networks),
        Mutant("weight decay", without="gradients", cases=_decayed),
        Mutant("different columns too", left=_columns_apart, right=lambda network: 0.0 * _columns_apart(network)),
    ),
    proof=(
        "Column k of a gradient at x is ∂f/∂z_k · x, so τ_t is zero outside I_t: no column is changed by both vectors, "
        "and J(x) for x of task t is zero where τ_j is not. Different columns of the two need not be orthogonal, nor "
        "need the weight vectors at θ0 (4.2-columns): what specialisation makes orthogonal is task vectors as a whole, "
        "column by matched column."
    ),
    code=("diagnostics.task_feature_specialisation", "diagnostics.geometry", "diagnostics.orthogonality"),
)
DERIVATIONS = (CENTRED, VECTORS)
