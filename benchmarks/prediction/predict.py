"""Predictions of every merge, and baselines, beside what was measured: one row for each merge and task."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy

import diagnostics as dx
from benchmarks.minilm.experts import ProblemParts
from benchmarks.prediction.measure import SEEN, load_table, problem_of
from benchmarks.prediction.plan import Merge, label, merges
from diagnostics.measures.outputs import Observation, OutputTable
from diagnostics.verdicts.merge_parts import merge_parts
from diagnostics.verdicts.mergeability import task_prediction

Row = dict[str, Any]


def rows_of(parts: ProblemParts, folder: Path, family: str, seen: int = SEEN) -> list[Row]:
    """Predict every merge of a group from its stored tables, then read the stored outputs of the merges."""
    problem = problem_of(parts, 0, seen)
    tables = {name: load_table(folder / f"{name}.safetensors") for name in problem.names}
    for name, entries in tables.items():
        table = OutputTable(problem.tasks[name], problem.base, problem.task_vectors)
        table.entries.update(entries)
        problem.cached(("outputs", name), lambda table=table: table)
    outcomes = load_file(folder / "outcomes.safetensors")
    shape = dx.geometry(problem.base, problem.experts)
    rows = []
    for merge in merges(problem.names):
        together = merge_parts(problem, merge, "task_arithmetic", {})
        for name in merge:
            # What predict_merge does, without the reasons, which cost as much again.
            (surrogate,) = together.surrogates(problem, [name])
            near, far = (task_prediction(surrogate, merge, about) for about in ("examples", "population"))
            merged, alone = outcomes[f"{name}|{label(merge)}"], outcomes[f"{name}|{label({name: 1.0})}"]
            targets = parts.data[name]["test"][1][: len(merged)]
            rows.append(
                {
                    "family": family,
                    "merge": merge,
                    "task": name,
                    "seen": outcome(merged[:seen], alone[:seen], targets[:seen]),
                    "unseen": outcome(merged[seen:], alone[seen:], targets[seen:]),
                    "loss": {"examples": _numbers(near.loss), "population": _numbers(far.loss)},
                    "retention": {
                        "examples": _numbers(near.retention),
                        "population": _numbers(far.retention),
                    },
                    "baselines": baselines(tables[name], name, merge, alone[:seen], targets[:seen]),
                    "similarities": similarities(shape, name, merge),
                }
            )
    return rows


def outcome(merged: Tensor, alone: Tensor, targets: Tensor) -> dict[str, float]:
    """Loss and retention on some examples, and how uncertain sampling them makes the retention and the loss."""
    right, own = ((out.argmax(1) == targets).double() for out in (merged, alone))
    loss, own_loss = (cross_entropy(out.double(), targets, reduction="none") for out in (merged, alone))
    retention = right.mean() / own.mean()
    root = len(targets) ** 0.5
    return {
        "loss": loss.mean().item(),
        "expert_loss": own_loss.mean().item(),
        "retention": retention.item(),
        "loss_stderr": (loss.std() / root).item(),
        "retention_stderr": ((right - retention * own).std() / own.mean() / root).item(),
    }


def _numbers(estimate: dx.Estimate) -> list[float]:
    """Value and interval."""
    return [estimate.value, estimate.lower, estimate.upper]


def baselines(
    table: Mapping[Observation, list[Tensor]], name: str, merge: Merge, alone: Tensor, targets: Tensor
) -> dict[str, dict[str, float]]:
    """Loss and retention off outputs that simpler rules predict."""
    base = table[Observation()][0].double()
    slopes = {expert: table[Observation(along=expert)][0].double() for expert in merge}
    rays = {expert: _ray(table, expert, value) for expert, value in merge.items()}
    tangent = base + sum(value * slopes[expert] for expert, value in merge.items())
    added = base + sum(rays.values())
    mixed = torch.zeros_like(base)
    for first, second in combinations(merge, 2):
        sides = [
            table[Observation(at, 1.0, along)][0].double() - slopes[along]
            for at, along in ((first, second), (second, first))
        ]
        mixed += merge[first] * merge[second] * (sides[0] + sides[1]) / 2
    predicted = {
        "own update alone": base + rays[name],
        "tangent at the base": tangent,
        "single models added": added,
        "added, with mean mixed term (5.3)": added + mixed,
    }
    read = {rule: outcome(out, alone.double(), targets) for rule, out in predicted.items()}
    return {rule: {"loss": values["loss"], "retention": values["retention"]} for rule, values in read.items()}


def _ray(table: Mapping[Observation, list[Tensor]], expert: str, value: float) -> Tensor:
    """f(θ0 + λτ) − f(θ0) off the polynomial through the measured points of a ray and its slope at the base."""
    base, nodes = table[Observation()][0].double(), (0.5, 1.0, 1.5)
    powers = torch.arange(1, len(nodes) + 2).double()
    system = torch.stack([*(torch.tensor(node).double() ** powers for node in nodes), (powers == 1).double()])
    seen = [table[Observation(expert, node)][0].double() - base for node in nodes]
    seen.append(table[Observation(along=expert)][0].double())
    weights = torch.linalg.solve(system.T, value**powers)
    return torch.tensordot(weights, torch.stack(seen), dims=1)


def similarities(shape: dx.Geometry, name: str, merge: Merge) -> dict[str, float]:
    """What is known from the weights alone: the partners' size and direction."""
    index = {expert: number for number, expert in enumerate(shape.names)}
    partners = [expert for expert in merge if expert != name]
    cosines = [float(shape.cosine[index[name], index[expert]]) for expert in partners]
    sizes = [merge[expert] * float(shape.norms[index[expert]]) for expert in partners]
    return {
        "mean cosine with the partners": sum(cosines) / len(cosines),
        "size of the partners' updates": -sum(sizes),
        "own coefficient": merge[name],
        "partners' coefficients": sum(merge[expert] for expert in partners),
    }
