"""Tables of stored results, with intervals over seeds and tasks, and the command line that both materials share."""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import t as student

from benchmarks.orthoreg.study import control_of
from benchmarks.orthoreg.variants import PLAIN

CONFIDENCE = 0.9
# Key, heading, factor, format: figures of each task, then of each pair.
TASK_FIGURES = (
    ("base", "base", 100, ".1f"),
    ("expert", "expert", 100, ".1f"),
    ("merged", "merged", 100, ".1f"),
    ("normalised", "normal.", 100, ".1f"),
    ("norm", "‖τ‖", 1, ".2f"),
    ("fill", "fill", 1, ".2g"),
    ("radial", "radial", 1, ".3f"),
    ("inside", "inside", 1, ".3f"),
)
PAIR_FIGURES = (
    ("between", "between", 1, ".3f"),
    ("cosine", "cos τ", 1, ".3f"),
    ("xi 0.5", "ξ(½)", 1, ".3f"),
    ("xi 1", "ξ(1)", 1, ".3f"),
    ("soft xi 1", "soft", 1, ".3f"),
    ("pair merged", "pairs", 100, ".1f"),
)
COMPARED = ("expert", "merged", "normalised", "pair merged", "inside", "between", "cosine", "xi 0.5", "xi 1")
CAPTION = (
    "base, expert, merged, pairs: accuracy on test examples of the base, of each expert alone, of all experts merged "
    "and of pairs merged, with one λ chosen on the probe examples; normal.: merged over expert, in %; fill: ‖ΔW‖²/m, 1 "
    "at the target; radial: share of the penalty's squared gradient that only rescales; inside, between: mean |cos| of "
    "columns; cos τ: of whole task vectors; ξ: of pairs, soft at (1, 1)"
)
Grid = np.ndarray
Rows = Sequence[Mapping[str, Any]]


def interval(values: Grid, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Mean and half-width of its interval over new seeds and new tasks.

    The variance of the mean is taken as s²/S of the seeds' means plus s²/T of the tasks' means, which counts what is
    left over twice and so errs to the wide side; Student's quantile has the degrees of freedom of that sum. Pairs of
    experts share experts, so for them the width is a little short.

    Args:
        values: One value for each seed and task, [S, T].
        confidence: Of the interval.

    Returns:
        Mean and half-width; the half-width is not a number for fewer than two seeds or tasks.
    """
    parts = [
        (each.var(ddof=1) / len(each), len(each) - 1) for each in (values.mean(1), values.mean(0)) if len(each) > 1
    ]
    if len(parts) < 2:
        return float(values.mean()), math.nan
    total = sum(part for part, _ in parts)
    if total == 0:
        return float(values.mean()), 0.0
    freedom = total**2 / sum(part**2 / degrees for part, degrees in parts)
    return float(values.mean()), float(student.ppf((1 + confidence) / 2, freedom) * math.sqrt(total))


def values(rows: Rows, variant: str, key: str) -> dict[int, list[float]]:
    """A figure of a variant for each task or pair, by seed; empty where it was not measured."""
    if key == "normalised":
        return _normalised(rows, variant)
    kind = "tasks" if key in {name for name, *_ in TASK_FIGURES} else "pairs"
    found = {row["seed"]: [each.get(key) for each in row[kind].values()] for row in rows if row["variant"] == variant}
    return {seed: numbers for seed, numbers in found.items() if None not in numbers}


def _normalised(rows: Rows, variant: str) -> dict[int, list[float]]:
    """Merged accuracy over the expert's, by seed; not of controls, whose experts nobody trained."""
    if variant != PLAIN.name and variant.startswith(PLAIN.name):
        return {}
    experts = values(rows, variant, "expert")
    return {seed: list(np.divide(merged, experts[seed])) for seed, merged in values(rows, variant, "merged").items()}


def difference(rows: Rows, first: str, second: str, key: str) -> Grid:
    """What two variants differ by, [seeds that both have, tasks or pairs]."""
    left, right = values(rows, first, key), values(rows, second, key)
    return np.array([np.subtract(left[seed], right[seed]) for seed in left if seed in right])


def show(stored: Mapping[str, Any], console: Console) -> None:
    """Print the choice of strengths, the figures and what differs."""
    rows = stored["rows"]
    for table in (selection_table(stored["selection"]), figure_table(rows), difference_table(rows)):
        console.print(table)


def selection_table(selection: Rows) -> Table:
    """A row for each strength tried."""
    table = Table(title="Strengths tried at the first seed, accuracy on probe examples (%)")
    for column in ("penalty", "experts", "merged", "λ", "‖τ‖", "fill", "cos τ"):
        table.add_column(column, justify="left" if column == "penalty" else "right")
    for row in selection:
        scores = (f"{100 * row[key]:.1f}" for key in ("expert", "merged"))
        weights = (f"{row['norm']:.2f}", f"{row['fill']:.2g}", f"{row['cosine']:.3f}")
        table.add_row(row["variant"], *scores, f"{row['coefficient']:g}", *weights)
    return table


def figure_table(rows: Rows) -> Table:
    """Means over seeds and tasks, the λ chosen at each seed, and what chance gives."""
    figures = [each for each in (*TASK_FIGURES, *PAIR_FIGURES) if values(rows, "plain", each[0])]
    table = Table(title="Means over seeds and tasks", caption=CAPTION)
    for column in ("penalty", *(heading for _, heading, *_ in figures), "λ"):
        table.add_column(column, justify="left" if column == "penalty" else "right", no_wrap=True)
    for variant in dict.fromkeys(row["variant"] for row in rows):
        means = [_mean(values(rows, variant, key), factor, style) for key, _, factor, style in figures]
        chosen = {row["seed"]: f"{row['coefficient']:g}" for row in rows if row["variant"] == variant}
        partial = (
            f" (seed {', '.join(map(str, chosen))})" if len(chosen) < len(values(rows, PLAIN.name, "norm")) else ""
        )
        table.add_row(variant + partial, *means, " ".join(chosen.values()))
    null = rows[0]["null"]
    chance = {"inside": null["columns"], "between": null["columns"], "cosine": null["cosine"]}
    table.add_row("chance", *(f"{chance[key]:.3f}" if key in chance else "" for key, *_ in figures), "")
    return table


def _mean(found: Mapping[int, Sequence[float]], factor: float, style: str) -> str:
    """A mean as a cell, blank where there is none."""
    return f"{factor * np.mean(list(found.values())):{style}}" if found else ""


def difference_table(rows: Rows) -> Table:
    """What each penalty changes at the same seed and task, with its interval."""
    figures = [
        each
        for key in COMPARED
        for each in (*TASK_FIGURES, *PAIR_FIGURES)
        if each[0] == key and values(rows, "plain", key)
    ]
    table = Table(title=f"Differences at the same seed and task, {CONFIDENCE:.0%} intervals over seeds and tasks")
    for column in ("penalty", "against", *(heading for _, heading, *_ in figures)):
        table.add_column(column, justify="left" if column in {"penalty", "against"} else "right")
    for first, second in comparisons(list(dict.fromkeys(row["variant"] for row in rows))):
        cells = []
        for key, _, factor, style in figures:
            found = difference(rows, first, second, key)
            cells.append(_with_interval(found, factor, style) if found.size else "")
        table.add_row(first, "plain" if second == "plain" else "its norm", *cells)
    return table


def _with_interval(found: Grid, factor: float, style: str) -> str:
    """A difference as a cell, with its interval where there is one."""
    middle, half = interval(found)
    return f"{factor * middle:+{style}}" + ("" if math.isnan(half) else f"±{factor * half:{style}}")


def comparisons(names: Sequence[str]) -> list[tuple[str, str]]:
    """Each penalty against plain, and against plain at its norms, where both were measured."""
    penalised = [name for name in names if not name.startswith("plain")]
    return [(n, other) for n in penalised for other in ("plain", control_of(n)) if other in names]


def command(about: str | None, arguments: list[str] | None, results: Path, run: Callable[..., None]) -> None:
    """Run a benchmark, or show what is stored."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a dry run")
    parser.add_argument("--show", action="store_true", help="print the tables from the stored results")
    parser.add_argument("--out", type=Path, default=results)
    options = parser.parse_args(arguments)
    console = Console(width=176)
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "quick.json"
            run(out, True, console)
            show(json.loads(out.read_text()), console)
        return
    if not options.show:
        run(options.out, False, console)
    show(json.loads(options.out.read_text()), console)
