"""Groups that are there and groups that are not: how often each rule finds them.

python -m benchmarks.bases.planted             # results/bases_planted.json, 5 minutes on one core
python -m benchmarks.bases.planted --show      # the tables from the stored results
python -m benchmarks.bases.planted --quick     # a dry run

Similarities are those of random vectors with known groups in 4,000 dimensions, and multiplied by 1 + 0.2 z.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from sklearn.cluster import SpectralClustering
from torch import Tensor

from diagnostics.bases.clustering import cluster_similarities
from diagnostics.report.json import write_json
from diagnostics.results import Verdict
from diagnostics.theory.eigengap import eigengap

RESULTS = Path(__file__).parent.parent / "results" / "bases_planted.json"
DIMENSION, JITTER = 4000, 0.2
FAMILIES = {
    "groups of equal size": [(2, 2), (3, 3, 3), (4, 4), (10, 10, 10), (10,) * 7],
    "groups of unequal size": [(5, 2), (4, 2, 2), (8, 3), (12, 6, 4, 3), (40, 20, 10)],
    "groups and single vectors": [(2, 1), (2, 1, 1), (3,) + (1,) * 9, (4, 2) + (1,) * 6, (10, 5, 3) + (1,) * 52],
    "no groups": [(1,) * count for count in (3, 4, 6, 12, 30, 70)],
}
LEVELS = ((0.5, 0.05), (0.25, 0.03), (0.3, 0.1))


def similarities(sizes: Sequence[int], within: float, between: float, seed: int) -> Tensor:
    """Cosines of vectors in groups, with a spread of their own."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    rows = torch.randn(len(label), DIMENSION, generator=generator, dtype=torch.float64)
    shared = torch.randn(len(sizes), DIMENSION, generator=generator, dtype=torch.float64)
    common = torch.randn(DIMENSION, generator=generator, dtype=torch.float64)
    rows = math.sqrt(1 - within) * rows + math.sqrt(within - between) * shared[label] + math.sqrt(between) * common
    unit = rows / rows.norm(dim=1, keepdim=True)
    spread = torch.randn(len(label), len(label), generator=generator, dtype=torch.float64).triu(1)
    return (unit @ unit.T * (1 + JITTER * (spread + spread.T))).clamp(-1, 1).fill_diagonal_(1.0)


def spectral(matrix: Tensor, k: int) -> set[tuple[int, ...]]:
    """Groups of scikit-learn's spectral clustering, as the published code makes them."""
    model = SpectralClustering(k, affinity="precomputed", assign_labels="kmeans", random_state=0)
    labels = model.fit_predict((matrix.abs() + 1e-6).fill_diagonal_(1.0).numpy())
    return {tuple(i for i, each in enumerate(labels) if each == label) for label in set(labels.tolist())}


RULES: dict[str, Callable[[Tensor], set[tuple[int, ...]]]] = {
    "as published (2.12)": lambda matrix: spectral(matrix, eigengap(matrix).stated or 1),
    "largest ratio": lambda matrix: spectral(matrix, eigengap(matrix).relative or 1),
    "normalised Laplacian": lambda matrix: spectral(matrix, eigengap(matrix).normalised or 1),
}


def trial(sizes: Sequence[int], within: float, between: float, seed: int) -> dict[str, Any]:
    """Which rules find the groups of one draw, and our verdict."""
    matrix = similarities(sizes, within, between, seed)
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    planted = {tuple(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)}
    ours = cluster_similarities(matrix, noise=1 / math.sqrt(DIMENSION), draws=99, seed=seed)
    found = {rule: find(matrix) == planted for rule, find in RULES.items()}
    return {"found": {**found, "this package": set(ours.groups) == planted}, "verdict": str(ours.verdict)}


def run(out: Path, seeds: int, console: Console) -> None:
    """Draw every family at every level."""
    rows = []
    for family, cases in FAMILIES.items():
        for within, between in LEVELS:
            level = within if family != "no groups" else between
            for sizes in cases if seeds > 1 else cases[:1]:
                for seed in range(seeds):
                    rows.append({"family": family, "sizes": sizes, "within": level, "between": between}
                                | trial(sizes, level, between, seed))  # fmt: skip
        console.print(family)
    write_json(out, {"dimension": DIMENSION, "jitter": JITTER, "seeds": seeds, "rows": rows})


def show(out: Path, console: Console) -> None:
    """Print how often the groups were found, and the verdicts."""
    rows = json.loads(out.read_text())["rows"]
    table = Table(title="Share of draws in which exactly the planted groups are found")
    labels = list(rows[0]["found"])
    for column in ("", "draws", *labels, "supported", "undecided", "refuted"):
        table.add_column(column, justify="right" if column else "left")
    slices = {family: [row for row in rows if row["family"] == family] for family in FAMILIES}
    slices["all with groups"] = [row for row in rows if row["family"] != "no groups"]
    for family, chosen in slices.items():
        shares = [f"{sum(row['found'][label] for row in chosen) / len(chosen):.3f}" for label in labels]
        told = Counter(row["verdict"] for row in chosen)
        counts = [str(told[str(verdict)]) for verdict in (Verdict.SUPPORTED, Verdict.UNDECIDED, Verdict.REFUTED)]
        table.add_row(family, str(len(chosen)), *shares, *counts)
    console.print(table)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark or show what is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a dry run")
    parser.add_argument("--show", action="store_true", help="print the table from the stored results")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    console = Console(width=150)
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder) / "quick.json", 1, console)
            show(Path(folder) / "quick.json", console)
        return
    if not options.show:
        run(options.out, 10, console)
    show(options.out, console)


if __name__ == "__main__":
    main()
