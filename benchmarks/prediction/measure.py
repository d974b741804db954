"""Model runs of the benchmark, each stored once: what predictions are made from, and the merges themselves.

python -m benchmarks.prediction.measure --family full      # a run that was cut short goes on
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

import diagnostics as dx
from benchmarks.minilm.data import CACHE
from benchmarks.minilm.experts import EXPERTS, ProblemParts, load_problem_parts
from benchmarks.prediction.plan import GROUPS, label, merges
from benchmarks.records import replace
from diagnostics.measures.outputs import Observation, OutputTable, design

FOLDER = CACHE / "prediction"
NODES = (0.5, 1.0, 1.5)
# Predictions are made on the first examples of the test split; merges are evaluated on these and on others.
SEEN, UNSEEN = 160, 128


def problem_of(parts: ProblemParts, first: int, last: int) -> dx.MergeProblem:
    """The merge problem over some examples of the test split."""
    tasks = {}
    for name in parts.experts:
        inputs, targets = parts.data[name]["test"]
        data = ({key: value[first:last] for key, value in inputs.items()}, targets[first:last])
        module = parts.module(name)
        tasks[name] = dx.Task.from_module(
            name, module, cross_entropy, data, batch_size=last - first, parameters=list(parts.base)
        )
    return dx.MergeProblem(parts.base, parts.experts, tasks)


def measure_table(problem: dx.MergeProblem, name: str, path: Path) -> None:
    """Everything that predictions for one task of a group are made from."""
    table = OutputTable(problem.tasks[name], problem.base, problem.task_vectors)
    wanted = design(problem.names, name, NODES)
    rows = table.read(wanted)[0]
    stored = {"|".join(map(str, (o.expert, o.at, o.along))): row for o, row in zip(wanted, rows, strict=True)}
    replace(path, lambda temporary: save_file({key: value.contiguous() for key, value in stored.items()}, temporary))


def load_table(path: Path) -> dict[Observation, list[Tensor]]:
    """What ``measure_table`` stored, as the entries of an ``OutputTable``."""
    entries = {}
    for key, value in load_file(path).items():
        expert, at, along = key.split("|")
        entries[Observation(expert, float(at), along)] = [value]
    return entries


def measure_outcomes(problem: dx.MergeProblem, path: Path) -> None:
    """Outputs of every merge, and of the experts alone."""
    single = [{name: 1.0} for name in problem.names]
    stored = {}
    for merge in [*single, *merges(problem.names)]:
        point = problem.merged(merge)
        for name in merge:
            stored[f"{name}|{label(merge)}"] = problem.tasks[name].outputs(point)[0].contiguous()
    replace(path, lambda temporary: save_file(stored, temporary))


def measure(family: str, groups: tuple[tuple[str, ...], ...]) -> None:
    """Measure what is not yet stored."""
    for number, group in enumerate(groups):
        folder = FOLDER / family / str(number)
        parts = load_problem_parts(group, folder=EXPERTS / family)
        jobs = [(folder / f"{name}.safetensors", name) for name in group]
        if any(not path.exists() for path, _ in jobs):
            problem = problem_of(parts, 0, SEEN)
            for path, name in jobs:
                if not path.exists():
                    started = time.perf_counter()
                    measure_table(problem, name, path)
                    print(f"{family} {number} {name}: table, {time.perf_counter() - started:.0f} s", flush=True)
        path = folder / "outcomes.safetensors"
        if not path.exists():
            started = time.perf_counter()
            measure_outcomes(problem_of(parts, 0, SEEN + UNSEEN), path)
            print(f"{family} {number}: outcomes, {time.perf_counter() - started:.0f} s", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Measure the families."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prediction.measure", description=__doc__)
    parser.add_argument("--family", choices=GROUPS, action="append", help="one of the families; by default all")
    options = parser.parse_args(arguments)
    for family in options.family or GROUPS:
        measure(family, GROUPS[family])


if __name__ == "__main__":
    main()
