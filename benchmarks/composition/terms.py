"""The error terms of every target of the study, and what they are held against: measured before any merge is made.

python -m benchmarks.composition.terms        # resumes where it stopped; needs base and experts
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import diagnostics as dx
from benchmarks.composition.data import FOLDER, load_study
from benchmarks.composition.experts import EXPERTS, Loaded, Recipe, file_of, load_expert
from benchmarks.composition.model import set_parameters
from benchmarks.composition.tasks import Instructed, Pair, Study, Target
from benchmarks.records import read_record, write_record
from diagnostics.measures.vectors import flatten
from diagnostics.results import plain
from diagnostics.theory.alignment import alignment_row, best_alphas

TERMS = FOLDER / "terms"
EXAMPLES = 256


def measure(study: Study, target: Target, base: Loaded, recipe: Recipe, experts: Path, examples: int) -> dict:
    """The audit of a target, and the geometry of its gradients and task vectors."""
    started = time.perf_counter()
    tasks, data, losses, vectors = parts(study, target, base, recipe, experts, examples)
    joined = "".join(task.instruction for task in tasks[1:])
    audit = dx.audit_composition(
        base.model,
        base.tokenizer,
        instructions=[task.instruction for task in tasks[1:]],
        target_instruction=None if tasks[0].instruction == joined else tasks[0].instruction,
        target_examples=data[0],
        component_examples=data[1:],
        batch_size=32,
    )
    error = dx.merge_error(losses[0], losses[1:], base.parameters, vectors[0], vectors[1:])
    fits = [dx.gradient_fit(*each, folds=8) for each in zip(losses, 3 * [base.parameters], vectors, strict=True)]
    return {
        "audit": audit.to_dict(),
        "merge_error": error.to_dict(),
        "gradient_fit": [fit.to_dict() for fit in fits],
        "vectors": geometry(vectors),
        "slope": dx.gradient_alignment(losses[0], vectors[1:], base.parameters).to_dict()["relative_estimate"],
        "seconds": round(time.perf_counter() - started, 1),
    }


def parts(
    study: Study, target: Target, base: Loaded, recipe: Recipe, experts: Path, examples: int
) -> tuple[list[Instructed], list[list[Pair]], list[dx.Task], list[dict[str, Tensor]]]:
    """Of the target and its components: what they are, their examples, their losses and their task vectors."""
    set_parameters(base.model, base.parameters)
    tasks = [study.tasks[name] for name in (target.name, *target.components)]
    data = [sample(task.train, examples) for task in tasks]
    losses = [
        dx.Task.from_causal_lm(task.name, base.model, base.tokenizer, each, instruction=task.instruction, batch_size=32)
        for task, each in zip(tasks, data, strict=True)
    ]
    vectors = [difference(load_expert(task, base, recipe, experts), base.parameters) for task in tasks]
    return tasks, data, losses, vectors


def sample(pairs: list[Pair], count: int) -> list[Pair]:
    """So many examples, evenly from a list: a multi-task target has one component's before the other's."""
    return [pairs[(number * len(pairs)) // count] for number in range(min(count, len(pairs)))]


def difference(expert: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A task vector."""
    return {name: expert[name] - value for name, value in base.items()}


def geometry(vectors: list[dict[str, Tensor]]) -> dict[str, Any]:
    """Norms and cosines of (τ_*, τ_1, τ_2), and the share of τ_* outside the span of the other two."""
    flat = torch.stack([torch.cat([each.reshape(-1) for each in vector.values()]) for vector in vectors]).double()
    gram = flat @ flat.T
    row = alignment_row(best_alphas(gram))
    norms = gram.diagonal().sqrt()
    return plain(
        {
            "norms": norms,
            "cosines": gram / torch.outer(norms, norms),
            "outside": float((row @ gram @ row).clamp_min(0).sqrt() / norms[0]),
        }
    )


def preconditioned(
    losses: list[dx.Task], base: Mapping[str, Tensor], vectors: list[dict[str, Tensor]]
) -> dict[str, Any]:
    """The same for steps as Adam takes them, g/√E g² for each parameter; thought of after a look at cos(τ, g).

    Returns:
        Cosine of each task vector with its gradient and with its step, and the share of the target's step outside the
        span of the components' steps.
    """
    steps, cosines = [], []
    for task, vector in zip(losses, vectors, strict=True):
        batches = [
            (share, flatten(torch.func.grad(task.loss)(base, batch))) for share, batch in task.weighted_batches()
        ]
        mean = torch.stack([share * each for share, each in batches]).sum(0)
        second = torch.stack([share * each**2 for share, each in batches]).sum(0)
        steps.append((mean / (second.sqrt() + 1e-8)).double())
        tau = flatten(vector).double()
        cosines.append([float(tau @ each / tau.norm() / each.norm()) for each in (mean.double(), steps[-1])])
    gram = torch.stack(steps) @ torch.stack(steps).T
    row = alignment_row(best_alphas(gram))
    return {"cosines": cosines, "outside": float((row @ gram @ row).clamp_min(0).sqrt() / gram[0, 0].sqrt())}


def run(
    study: Study, names: list[str], base: Loaded, recipe: Recipe, experts: Path, folder: Path, examples: int = EXAMPLES
) -> list[dict[str, Any]]:
    """Measure targets, each into a file of its own, unless it is there already of the same base and data."""
    rows = []
    for name in names:
        target, path = study.targets[name], folder / f"{file_of(name)}.json"
        identity = {
            "base": base.digest,
            "data": [study.tasks[each].digest for each in (*target.components, name)],
            "examples": examples,
        }
        row = read_record(path)
        if any(row.get(key) != value for key, value in identity.items()):
            row = {"name": name, **identity, **measure(study, target, base, recipe, experts, examples)}
            write_record(path, row)
            print(f"{name}: {row['audit']['relative_estimate']['value']:.3f}, {row['seconds']} s", flush=True)
        if "preconditioned" not in row:
            _, _, losses, vectors = parts(study, target, base, recipe, experts, examples)
            row["preconditioned"] = preconditioned(losses, base.parameters, vectors)
            write_record(path, row)
        rows.append(row)
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Measure the terms of every target."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.composition.terms", description=main.__doc__)
    parser.add_argument("--threads", type=int, default=1, help="threads (%(default)s)")
    torch.set_num_threads(parser.parse_args(arguments).threads)
    study = load_study()
    run(study, list(study.targets), Loaded(), Recipe(), EXPERTS, TERMS)


if __name__ == "__main__":
    main()
