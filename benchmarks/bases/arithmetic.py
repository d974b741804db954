"""Addition, negation and use out of distribution with bases, with all vectors, and with one saved model.

python -m benchmarks.bases.arithmetic                 # digits, three seeds: results/bases.json, 3 minutes on one core
python -m benchmarks.bases.arithmetic --minilm        # and MiniLM's twelve experts, 40 minutes on one core
python -m benchmarks.bases.arithmetic --show          # the tables from the stored results
python -m benchmarks.bases.arithmetic --quick         # a dry run on digits

Coefficients are tuned on the probe examples, figures are of the test examples.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import diagnostics as dx
from benchmarks.bases.material import Material, Params, digits, minilm, plus, vectors_of
from benchmarks.bases.tables import show
from diagnostics.bases.merging import merge_vectors
from diagnostics.report.json import write_json

RESULTS = Path(__file__).parent.parent / "results" / "bases.json"
SHARED = (0.08, 0.15, 0.3, 0.45, 0.6, 0.8, 1.0, 1.5, 2.5)
NEGATIVE = (0.25, 0.5, 0.75, 1.0)
# A negation may cost the other tasks so much of the base's score.
ALLOWED = 0.95
MERGES = ("mean", "ties", "topk", "localize_and_stitch", "mask_sharing", "fisher")
RANDOM = 2


def run(material: Material, console: Console) -> dict[str, Any]:
    """All three uses on one set of experts."""
    made = dx.task_vector_bases(material.base, material.experts)
    console.print(str(made))
    return {
        "experts": {
            name: {"own": material.own(name, "test"), "base": material.zero(name, "test")} for name in made.names
        },
        "bases": {key: value for key, value in made.to_dict().items() if key != "geometry"},
        "addition": list(addition(material, made, console)),
        "negation": list(negation(material, made, console)),
        "generalisation": list(generalisation(material, console)),
    }


def addition(material: Material, made: dx.Bases, console: Console) -> Iterator[dict[str, Any]]:
    """One λ for all vectors that are held, tuned on the probe."""
    every = vectors_of(material)
    yield tuned(material, "all vectors", every, console)
    yield tuned(material, "one model", {"all": merge_vectors(every)}, console, grid=[len(every) * x for x in SHARED])
    for merge in MERGES:
        tasks = material.probe if merge == "fisher" else None
        found = made if merge == "mean" else regrouped(material, made, merge, tasks)
        yield tuned(material, f"bases, {merge}", found.vectors, console)
    for number in range(RANDOM):
        groups = shuffled(made, number)
        vectors = {f"basis-{i}": merge_vectors({name: every[name] for name in each}) for i, each in enumerate(groups)}
        yield tuned(material, f"random groups {number}", vectors, console)
    for k in sorted({len(every) // 2} - {made.k}):
        forced = dx.task_vector_bases(material.base, material.experts, k=k)
        yield tuned(material, f"bases, k={k}", forced.vectors, console)


def regrouped(material: Material, made: dx.Bases, merge: str, tasks: Any) -> dx.Bases:
    """The same clusters, merged otherwise."""
    found = dx.task_vector_bases(
        material.base, material.experts, k=made.k, merge=merge, tasks=tasks, fisher_examples=64, resamples=1
    )
    assert set(found.clusters) == set(made.clusters), "the same number of groups gives the same groups"
    return found


def shuffled(made: dx.Bases, number: int) -> list[list[str]]:
    """Random groups of the same sizes, never the same groups."""
    names, chooser = list(made.names), random.Random(number)
    while True:
        chooser.shuffle(names)
        rest, groups = list(names), []
        for members in made.clusters:
            groups.append([rest.pop() for _ in members])
        if {frozenset(each) for each in groups} != {frozenset(each) for each in made.clusters} or made.k == len(names):
            return groups


def tuned(
    material: Material, label: str, vectors: dict[str, Params], console: Console, grid: Any = SHARED
) -> dict[str, Any]:
    """The best shared λ on the probe, and what it gives on the test examples."""
    found = dx.search_coefficients(material.base, vectors, material.probe, grid=grid)
    value = next(iter(found.coefficients.values()))
    merged = plus(material.base, merge_vectors(vectors, "task_arithmetic"), value)
    scores = {name: task.score(merged) for name, task in material.test.items()}
    mean = sum(scores[name] / material.own(name, "test") for name in scores) / len(scores)
    console.print(f"addition, {label}: λ {value:g}, {mean:.3f} of the experts' own scores")
    return {"label": label, "vectors": len(vectors), "coefficient": value, "scores": scores, "evaluated": len(grid)}


def negation(material: Material, made: dx.Bases, console: Console) -> Iterator[dict[str, Any]]:
    """Forget each task: the largest λ that leaves the others 95 % of the base's score on the probe."""
    every = vectors_of(material)
    one = merge_vectors(every)
    for name in made.names:
        basis = made.basis_of(name)
        own = f"expert {made.members[basis][0]}" if len(made.members[basis]) == 1 else basis
        spared = [other for other in made.names if other not in made.members[basis]]
        options: dict[str, tuple[str, Params]] = {
            "all vectors": (f"expert {name}", every[name]),
            "bases": (own, made.vectors[basis]),
            "one model": ("one", one),
        }
        for label, (source, vector) in options.items():
            scale = len(every) if source == "one" else 1.0
            yield {"task": name, "label": label, "mates": len(made.members[basis]) - 1} | forget(
                material, name, spared, source, vector, scale
            )
        console.print(f"negation of {name}")


def forget(
    material: Material, name: str, spared: list[str], source: str, vector: Params, scale: float
) -> dict[str, Any]:
    """Score of the forgotten task, and that of the others over the base's, at the largest λ that spares them."""

    def score(task: str, split: str, value: float) -> float:
        return material.score(task, split, f"- {value} {source}", lambda: plus(material.base, vector, -value))

    def kept(split: str, value: float) -> float:
        return sum(score(task, split, value) for task in spared) / sum(material.zero(task, split) for task in spared)

    chosen = 0.0
    for value in (scale * each for each in NEGATIVE):
        if kept("probe", value) < ALLOWED:
            break
        chosen = value
    if chosen == 0:
        return {"coefficient": 0.0, "target": material.zero(name, "test"), "others": 1.0}
    return {"coefficient": chosen, "target": score(name, "test", chosen), "others": kept("test", chosen)}


def generalisation(material: Material, console: Console) -> Iterator[dict[str, Any]]:
    """Each task in turn is new: what the others' vectors, bases and mean do for it, at λ = 1."""
    for name in material.experts:
        rest = {other: expert for other, expert in material.experts.items() if other != name}
        made = dx.task_vector_bases(material.base, rest, resamples=1)
        alone = dx.task_vector_bases(material.base, rest, k=len(rest), resamples=1)
        near = made.relate(material.experts[name])
        offers: dict[str, Callable[[dx.Bases, Params], Params]] = {
            "one model": lambda known, _: known.add(1 / known.k),
            "nearest vector": nearest,
            "nearest basis": nearest,
            "span of the vectors": spanned,
            "span of the bases": spanned,
        }
        scores = {
            label: material.test[name].score(offer(made if "bas" in label else alone, material.experts[name]))
            for label, offer in offers.items()
        }
        yield {
            "task": name,
            "bases": made.k,
            "vectors": len(rest),
            "cosine": max(near.values()),
            "similar": max(near.values()) >= made.threshold,
            "scores": scores,
        }
        console.print(f"{name} as a new task: nearest basis {scores['nearest basis']:.3f}")


def nearest(made: dx.Bases, target: Params) -> Params:
    """θ0 plus the nearest basis, whether or not it counts as similar."""
    return replace(made, threshold=-1.0).generalise(target)


def spanned(made: dx.Bases, target: Params) -> Params:
    """θ0 plus the point of the span nearest to the new vector (2.7), whether or not a basis counts as similar."""
    return replace(made, threshold=-1.0).generalise(target, use="span")


def store(out: Path, part: str, found: dict[str, Any], **settings: Any) -> None:
    """Add one part to the stored results."""
    known = json.loads(out.read_text())["parts"] if out.exists() else {}
    head = {"threads": torch.get_num_threads(), "coefficients": SHARED, "negative": NEGATIVE, "allowed": ALLOWED}
    write_json(out, {**head, "parts": {**known, part: {**settings, **found}}})


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark or show what is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a dry run")
    parser.add_argument("--minilm", action="store_true", help="MiniLM's experts instead of digits")
    parser.add_argument("--show", action="store_true", help="print the tables from the stored results")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    console = Console(width=110)
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "quick.json"
            store(out, "digits 0", run(digits(0, steps=10), console))
            show(json.loads(out.read_text()), console)
        return
    if options.minilm:
        store(options.out, "minilm", run(minilm(probe=96, test=256), console), probe=96, test=256)
    elif not options.show:
        for seed in range(3):
            store(options.out, f"digits {seed}", run(digits(seed), console))
    show(json.loads(options.out.read_text()), console)


if __name__ == "__main__":
    main()
