"""Experts with tasks to tune on and tasks to report on: digits, MiniLM, and a sample for dry runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import diagnostics as dx
from benchmarks.minilm.experts import load_problem_parts
from diagnostics.demo.digits import build_digits

Params = Mapping[str, Tensor]


@dataclass
class Material:
    """A base, its experts, and a task for each on examples to tune on (probe) and to report on (test)."""

    base: dict[str, Tensor]
    experts: dict[str, dict[str, Tensor]]
    probe: dict[str, dx.Task]
    test: dict[str, dx.Task]
    known: dict[tuple[str, str, str], float] = field(default_factory=dict)

    def score(self, task: str, split: str, label: str, params: Callable[[], Params]) -> float:
        """The score of a model on a task, computed once for each label."""
        key = (task, split, label)
        if key not in self.known:
            self.known[key] = getattr(self, split)[task].score(params())
        return self.known[key]

    def own(self, task: str, split: str) -> float:
        """The score of the task's own expert."""
        return self.score(task, split, f"expert {task}", lambda: self.experts[task])

    def zero(self, task: str, split: str) -> float:
        """The score of the base."""
        return self.score(task, split, "base", lambda: self.base)


def digits(seed: int, steps: int = 300) -> Material:
    """The demo's seven digit experts."""
    demo = build_digits(steps=steps, seed=seed)
    return Material(demo.problem.base, dict(demo.problem.experts), dict(demo.problem.tasks), demo.test)


def minilm(probe: int, test: int) -> Material:
    """MiniLM experts of real text tasks, full fine-tunes."""
    parts = load_problem_parts()
    splits = {}
    for split, count in (("probe", probe), ("test", test)):
        splits[split] = {}
        for name in parts.experts:
            inputs, targets = parts.data[name][split]
            rows = ({key: value[:count] for key, value in inputs.items()}, targets[:count])
            splits[split][name] = dx.Task.from_module(
                name, parts.module(name), cross_entropy, rows, batch_size=64, parameters=list(parts.base)
            )
    return Material(parts.base, parts.experts, splits["probe"], splits["test"])


def vectors_of(material: Material) -> dict[str, dict[str, Tensor]]:
    """τ by expert."""
    return {
        name: {key: expert[key] - value for key, value in material.base.items()}
        for name, expert in material.experts.items()
    }


def plus(base: Params, vector: Params, factor: float) -> dict[str, Tensor]:
    """θ0 + λ v."""
    return {key: torch.add(value, vector[key], alpha=factor) for key, value in base.items()}
