"""A merge as a sum of one vector for each expert, and what is measured to predict its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.inputs.problem import MergeProblem
from diagnostics.measures.lora_merge import linear_lora_contributions
from diagnostics.measures.merge_methods import MERGE_METHODS, method_contributions
from diagnostics.measures.outputs import Observation, OutputTable
from diagnostics.measures.vectors import inner
from diagnostics.verdicts.surrogate import NODES, Surrogate

__all__ = ["LINEAR_LORA", "VECTORS", "MergeParts", "merge_parts"]

# A merge that is not linear in the task vectors is one point: no coefficients beyond it are asked for.
_METHOD_NODES = (0.5, 1.0)
VECTORS = "task vectors"
LINEAR_LORA = "linear_lora"


@dataclass(frozen=True)
class MergeParts:
    """A merge as a sum of one vector for each expert, at coefficients that may be one.

    Attributes:
        key: What identifies the vectors in the problem's cache.
        vectors: By expert; for a method that is not linear, what survives of each.
        point: The coefficient of each vector.
        nodes: Where on each vector's ray outputs are measured.
    """

    key: Any
    vectors: Mapping[str, Mapping[str, Tensor]]
    point: dict[str, float]
    nodes: tuple[float, ...]

    def surrogate(self, problem: MergeProblem, name: str) -> Surrogate:
        """Return the predicted outputs of one task, measured once for a problem.

        Args:
            problem: The problem.
            name: The task.

        Returns:
            The surrogate.
        """
        table = _table(problem, name, self.key, self.vectors)
        expert = _table(problem, name, VECTORS, problem.task_vectors).read([Observation(name, 1.0)])
        return problem.cached(
            ("surrogate", self.key, name, tuple(self.point)),
            lambda: Surrogate(
                problem.tasks[name],
                table,
                name,
                list(self.point),
                self._gram(problem),
                self.nodes,
                [batch[0] for batch in expert],
            ),
        )

    def _gram(self, problem: MergeProblem) -> np.ndarray:
        """Inner products of the vectors, each computed once for a problem."""

        def product(first: str, second: str) -> float:
            pair = sorted((first, second))
            return problem.cached(("inner", self.key, *pair), lambda: inner(*(self.vectors[each] for each in pair)))

        return np.array([[product(first, second) for second in self.point] for first in self.point])


def _table(problem: MergeProblem, name: str, key: Any, vectors: Mapping[str, Mapping[str, Tensor]]) -> OutputTable:
    """The outputs measured for one task, kept with the problem."""
    return problem.cached(("outputs", key, name), lambda: OutputTable(problem.tasks[name], problem.base, vectors))


def merge_parts(
    problem: MergeProblem, lambdas: dict[str, float], method: str, settings: Mapping[str, Any]
) -> MergeParts:
    """Split a merge into the parts of its experts.

    Args:
        problem: The problem.
        lambdas: λ by expert.
        method: The merge method.
        settings: Its settings.

    Returns:
        The parts.

    Raises:
        InputError: If the method or a setting is not known.
    """
    if method == "task_arithmetic" and not settings:
        return MergeParts(VECTORS, problem.task_vectors, lambdas, NODES)
    if method == LINEAR_LORA:
        return _lora_parts(problem, lambdas, **settings)
    known = MERGE_METHODS.get(method)
    if known is not None and known.keeps == "all" and not known.elects:
        # A method that is linear in the task vectors changes the coefficients and nothing else.
        units = {name: {"": torch.ones(1, dtype=torch.float64)} for name in lambdas}
        shares = method_contributions(units, lambdas, method, **settings)
        return MergeParts(VECTORS, problem.task_vectors, {n: float(s[""]) for n, s in shares.items()}, NODES)
    key = (method, repr(sorted(settings.items())), tuple(lambdas.items()))
    vectors = problem.cached(key, lambda: method_contributions(problem.task_vectors, lambdas, method, **settings))
    return MergeParts(key, vectors, dict.fromkeys(lambdas, 1.0), _METHOD_NODES)


def _lora_parts(
    problem: MergeProblem, lambdas: dict[str, float], adapters: Mapping[str, Any] | None = None
) -> MergeParts:
    """The parts of a merge of adapters factor by factor; what A and B of different experts make is one more part."""
    if adapters is None or set(lambdas) - set(adapters):
        raise InputError(
            f"adapters: expected the adapter folders of {list(lambdas)}, whose factors {LINEAR_LORA!r} merges; "
            f"found {list(adapters or ())}."
        )
    given = {name: adapters[name] for name in lambdas}
    key = (LINEAR_LORA, repr(sorted(given.items())), tuple(lambdas.items()))
    parts = problem.cached(key, lambda: linear_lora_contributions(given, lambdas, base=problem.base))
    if lost := {key for part in parts.values() for key in part} - set(problem.base):
        raise InputError(f"adapters: expected changes of merged parameters alone; found {sorted(lost)}.")
    zeros = {name: torch.zeros_like(value) for name, value in problem.base.items()}
    vectors = {name: {**zeros, **{k: v.to(zeros[k]) for k, v in part.items()}} for name, part in parts.items()}
    return MergeParts(key, vectors, dict.fromkeys(vectors, 1.0), _METHOD_NODES)
