"""Which strength of the penalty, and what experts and merges are like with it: the same for every material."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.orthoreg.figures import Lab, choose, figures, merge_score
from benchmarks.orthoreg.variants import PLAIN, Parameters, Variant, fill, mean, rescaled
from diagnostics.measures.geometry import geometry
from diagnostics.report.json import write_json

Experts = dict[str, Parameters]


@dataclass(frozen=True)
class Plan:
    """What is tried.

    Attributes:
        candidates: Penalties tried at the first seed.
        finals: The forms of which the best strength goes on to all seeds.
        first: Candidates that are measured at the first seed whether they are chosen or not.
        coefficients: The λ that one of is chosen for the merge of all experts.
        pair_coefficients: The same for merges of two, one λ for all pairs; empty where pairs are not merged.
        seeds: Seeds of the fine-tuning.
        settings: What else decides the outcome, for the record.
    """

    candidates: tuple[Variant, ...]
    finals: tuple[str, ...]
    first: tuple[Variant, ...]
    coefficients: tuple[float, ...]
    pair_coefficients: tuple[float, ...]
    seeds: tuple[int, ...]
    settings: Mapping[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """What stored results must have been made with to be used again."""
        return {
            **self.settings,
            "candidates": [variant.name for variant in self.candidates],
            "finals": list(self.finals),
            "coefficients": list(self.coefficients),
            "pair_coefficients": list(self.pair_coefficients),
            "seeds": list(self.seeds),
        }


def run(plan: Plan, labs: Callable[[int], Lab], out: Path, console: Console) -> None:
    """Choose strengths at the first seed, measure at all, and store every row as soon as it is there."""
    store = Store(plan, out, console)
    first = plan.seeds[0]
    for variant in (PLAIN, *plan.candidates):
        store.add("selection", first, variant.name, lambda v=variant: select(labs(first), v, plan.coefficients))
    for seed in plan.seeds:
        for name, make in arms(best(plan, store.results["selection"])):
            store.add("rows", seed, name, lambda s=seed, m=make: _figures(plan, labs(s), m(labs(s))))
    for variant in plan.first:
        store.add("rows", first, variant.name, lambda v=variant: _figures(plan, labs(first), labs(first).experts(v)))


class Store:
    """Rows in a file, each made once.

    Args:
        plan: What the rows must have been made with.
        out: The file.
        console: Where progress is printed.
    """

    def __init__(self, plan: Plan, out: Path, console: Console) -> None:
        self.plan, self.out, self.console = plan, out, console
        stored = json.loads(out.read_text()) if out.exists() else {}
        same = stored.get("settings") == plan.identity
        self.results: dict[str, list[dict[str, Any]]] = {k: stored[k] if same else [] for k in ("selection", "rows")}

    def add(self, kind: str, seed: int, variant: str, make: Callable[[], dict[str, Any]]) -> None:
        """Make a row and store it, unless it is there."""
        rows, key = self.results[kind], {"seed": seed, "variant": variant}
        if any(key.items() <= row.items() for row in rows):
            return
        started = time.perf_counter()
        rows.append({**key, **make(), "seconds": round(time.perf_counter() - started, 1)})
        write_json(self.out, {"settings": self.plan.identity, "threads": torch.get_num_threads(), **self.results})
        self.console.print(f"{kind}: {variant}, seed {seed} ({rows[-1]['seconds']} s)")


def select(lab: Lab, variant: Variant, coefficients: Iterable[float]) -> dict[str, Any]:
    """What a candidate gives on the probe examples."""
    experts = lab.experts(variant)
    coefficient, score = choose(coefficients, lambda value: merge_score(lab, lab.probe, experts, value))
    alone = mean(lab.probe[name].score(expert) for name, expert in experts.items())
    return {"expert": alone, "merged": score, "coefficient": coefficient, **weights_of(lab, experts)}


def weights_of(lab: Lab, experts: Experts) -> dict[str, float]:
    """What a penalty does to size and direction, without data: means over experts and over pairs."""
    shape = geometry(lab.base, experts)
    pairs = [float(shape.cosine[i, j]) for i, j in combinations(range(len(experts)), 2)]
    filled = mean(fill(lab.base, expert) for expert in experts.values())
    return {"norm": mean(shape.norms.tolist()), "fill": filled, "cosine": mean(pairs)}


def best(plan: Plan, selection: Iterable[Mapping[str, Any]]) -> list[Variant]:
    """Of each form the strength whose merge answers best on the probe examples; the weakest of equal ones."""
    score = {row["variant"]: row["merged"] for row in selection}
    candidates = sorted(plan.candidates, key=lambda each: each.strength)
    forms = [[each for each in candidates if each.form == form] for form in plan.finals]
    return [max(each, key=lambda variant: score[variant.name]) for each in forms]


def arms(chosen: Iterable[Variant]) -> Iterator[tuple[str, Callable[[Lab], Experts]]]:
    """What is compared: plain, each chosen penalty, and the plain updates at the norm that it gave."""
    yield PLAIN.name, lambda lab: lab.experts(PLAIN)
    for variant in chosen:
        yield variant.name, lambda lab, variant=variant: lab.experts(variant)
        yield control_of(variant.name), lambda lab, variant=variant: _rescaled(lab, variant)


def control_of(variant: str) -> str:
    """Name of the plain updates at the norm of a variant."""
    return f"plain, norm of {variant}"


def _rescaled(lab: Lab, variant: Variant) -> Experts:
    """Plain experts at the norm of regularised ones."""
    like = lab.experts(variant)
    return {name: rescaled(lab.base, plain, like[name]) for name, plain in lab.experts(PLAIN).items()}


def _figures(plan: Plan, lab: Lab, experts: Experts) -> dict[str, Any]:
    """A row of figures."""
    return figures(lab, experts, plan.coefficients, plan.pair_coefficients)
