"""A merge as a sum of one vector for each expert, and what is measured to predict its outputs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.inputs.problem import MergeProblem
from diagnostics.measures.lora_merge import linear_lora_contributions
from diagnostics.measures.merge_methods import MERGE_METHODS, method_contributions
from diagnostics.measures.outputs import Observation, OutputTable, design
from diagnostics.measures.vectors import inner
from diagnostics.processes import team
from diagnostics.verdicts.surrogate import NODES, Surrogate

__all__ = ["DROPPED", "LINEAR_LORA", "MergeParts", "merge_parts", "own_outputs"]

# A merge that is not linear in the task vectors is one point: no coefficients beyond it are asked for.
_METHOD_NODES = (0.5, 1.0)
LINEAR_LORA = "linear_lora"
DROPPED = "entries dropped at random"


@dataclass(frozen=True)
class MergeParts:
    """A merge as a sum of one vector for each expert, at coefficients that may be one.

    Attributes:
        keep: ``keep(key, compute)`` returns what was computed before: for the task vectors with the problem, where
            every merge shares it; for others with the merge, so that memory does not grow with the merges predicted.
        vectors: By expert; for a method that is not linear, what survives of each.
        point: The coefficient of each vector.
        nodes: Where on each vector's ray outputs are measured.
    """

    keep: Callable[[Any, Callable[[], Any]], Any]
    vectors: Mapping[str, Mapping[str, Tensor]]
    point: dict[str, float]
    nodes: tuple[float, ...]

    def surrogates(
        self, problem: MergeProblem, names: Sequence[str], progress: Callable[[float], None] = lambda share: None
    ) -> list[Surrogate]:
        """Return the predicted outputs of some tasks, measured once for a problem.

        Args:
            problem: The problem.
            names: The tasks.
            progress: Called with the share of the measurements that are done.

        Returns:
            The surrogates.
        """
        crew, before = team(), itertools.count()
        own = math.ceil(len(names) / crew.size) if len(names) >= crew.size else len(names)

        def measured(name: str) -> list[tuple[Any, Any]]:
            place = next(before)
            tables = self._measured(problem, name, lambda share: progress((place + share) / own))
            return [(table.identity, table.entries) for table in tables]

        found = crew.each(names, measured)
        for name, known in zip(names, found, strict=True):
            for table, (identity, entries) in zip(self._tables(problem, name), known, strict=True):
                table.identity = identity
                table.entries.update(entries)
        return [self._surrogate(problem, name) for name in names]

    def _tables(self, problem: MergeProblem, name: str) -> tuple[OutputTable, OutputTable]:
        """Where the outputs of a task are kept: along the parts, and of its own expert."""
        return _table(problem, name, self.keep, self.vectors), _table(
            problem, name, problem.cached, problem.task_vectors
        )

    def _measured(
        self, problem: MergeProblem, name: str, progress: Callable[[float], None]
    ) -> tuple[OutputTable, OutputTable]:
        """The tables with all in them that the prediction of a task needs."""
        along, own = self._tables(problem, name)
        along.read(design(tuple(self.point), name, self.nodes), progress)
        own.read([Observation(name, 1.0)])
        return along, own

    def _surrogate(self, problem: MergeProblem, name: str) -> Surrogate:
        """The predicted outputs of one task."""
        names = tuple(self.point)
        table, expert = self._tables(problem, name)[0], own_outputs(problem, name, name)
        return self.keep(
            ("surrogate", name, names),
            lambda: Surrogate(problem.tasks[name], table, name, names, self._gram(), self.nodes, expert),
        )

    def _gram(self) -> np.ndarray:
        """Inner products of the vectors."""

        def product(first: str, second: str) -> float:
            pair = sorted((first, second))
            return self.keep(("inner", *pair), lambda: inner(*(self.vectors[each] for each in pair)))

        return np.array([[product(first, second) for second in self.point] for first in self.point])


def own_outputs(problem: MergeProblem, task: str, model: str) -> list[Tensor]:
    """Return the outputs of an expert, or of the base, on the inputs of a task, measured once for a problem.

    Args:
        problem: The problem.
        task: The task.
        model: The expert; empty for the base.

    Returns:
        One tensor a batch.
    """
    table = _table(problem, task, problem.cached, problem.task_vectors)
    return [batch[0] for batch in table.read([Observation(model, float(bool(model)))])]


def _table(problem: MergeProblem, name: str, keep: Callable[..., Any], vectors: Mapping[str, Any]) -> OutputTable:
    """The outputs measured for one task."""
    return keep(("outputs", name), lambda: OutputTable(problem.tasks[name], problem.base, vectors, problem.store))


def _while_it_lives() -> Callable[[Any, Callable[[], Any]], Any]:
    """A cache that goes with the merge it belongs to."""
    memo: dict[Any, Any] = {}

    def keep(key: Any, compute: Callable[[], Any]) -> Any:
        if key not in memo:
            memo[key] = compute()
        return memo[key]

    return keep


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
        return MergeParts(problem.cached, problem.task_vectors, lambdas, NODES)
    if method == LINEAR_LORA:
        return _lora_parts(problem, lambdas, **settings)
    known = MERGE_METHODS.get(method)
    if known is not None and known.keeps == "all" and not known.elects:
        # A method that is linear in the task vectors changes the coefficients and nothing else.
        units = {name: {"": torch.ones(1, dtype=torch.float64)} for name in lambdas}
        shares = method_contributions(units, lambdas, method, **settings)
        return MergeParts(problem.cached, problem.task_vectors, {n: float(s[""]) for n, s in shares.items()}, NODES)
    vectors = method_contributions(problem.task_vectors, lambdas, method, **settings)
    if known is not None and known.keeps == "random" and not known.elects:
        return _noisy_parts(problem, vectors)
    return MergeParts(_while_it_lives(), vectors, dict.fromkeys(lambdas, 1.0), _METHOD_NODES)


def _noisy_parts(problem: MergeProblem, parts: Mapping[str, Mapping[str, Tensor]]) -> MergeParts:
    """The task vectors themselves, and in one vector more what dropping entries at random has added to them."""
    taus = {name: problem.task_vectors[name] for name in parts}
    shares = {name: inner(part, taus[name]) / max(inner(taus[name], taus[name]), 1e-30) for name, part in parts.items()}
    noise = {
        key: sum((part[key] - shares[name] * taus[name][key] for name, part in parts.items()), torch.zeros_like(value))
        for key, value in problem.base.items()
    }
    return MergeParts(_while_it_lives(), {**taus, DROPPED: noise}, {**shares, DROPPED: 1.0}, _METHOD_NODES)


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
    parts = linear_lora_contributions(given, lambdas, base=problem.base)
    if lost := {key for part in parts.values() for key in part} - set(problem.base):
        raise InputError(f"adapters: expected changes of merged parameters alone; found {sorted(lost)}.")
    zeros = {name: torch.zeros_like(value) for name, value in problem.base.items()}
    vectors = {name: {**zeros, **{k: v.to(zeros[k]) for k, v in part.items()}} for name, part in parts.items()}
    return MergeParts(_while_it_lives(), vectors, dict.fromkeys(vectors, 1.0), _METHOD_NODES)
