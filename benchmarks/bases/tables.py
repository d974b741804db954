"""The tables of the stored results, with intervals over resampled tasks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

RESAMPLES = 2000


def interval(values: Iterable[float]) -> str:
    """Mean and its 90 % interval over resampled entries."""
    array = np.array(list(values))
    rows = np.random.default_rng(0).integers(len(array), size=(RESAMPLES, len(array)))
    low, high = np.quantile(array[rows].mean(1), [0.05, 0.95])
    return f"{array.mean():.3f} [{low:.3f}, {high:.3f}]"


def groups(parts: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Parts of the same experts at several seeds, together."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, part in parts.items():
        found.setdefault(name.split()[0], []).append(part)
    return found


def retentions(parts: list[dict[str, Any]], label: str) -> tuple[list[float], list[float], list[float]]:
    """Over all seeds: the tasks' shares of their expert's score, vectors held and λ."""
    kept, vectors, values = [], [], []
    for part in parts:
        for row in part["addition"]:
            if row["label"].startswith(label):
                kept += [score / part["experts"][name]["own"] for name, score in row["scores"].items()]
                vectors.append(row["vectors"])
                values.append(row["coefficient"])
    return kept, vectors, values


def addition_table(name: str, parts: list[dict[str, Any]]) -> Table:
    """What is left of every expert's score, method by method, and the difference to all vectors."""
    table = Table(title=f"Addition, {name}: share of the expert's score, λ tuned on other examples")
    for column in ("method", "vectors", "λ", "mean over tasks", "worst task", "minus all vectors"):
        table.add_column(column, justify="left" if column == "method" else "right")
    reference = np.array(retentions(parts, "all vectors")[0])
    alone = [expert["base"] / expert["own"] for part in parts for expert in part["experts"].values()]
    table.add_row("base alone", "0", "0", interval(alone), f"{min(alone):.3f}", interval(alone - reference))
    rows = [row["label"] for part in parts for row in part["addition"]]
    labels = dict.fromkeys(label.rstrip("0123456789") if label.startswith("random") else label for label in rows)
    for label in labels:
        kept, vectors, values = retentions(parts, label)
        paired = np.array(kept) - np.resize(reference, len(kept)) if len(kept) % len(reference) == 0 else None
        table.add_row(
            label.strip(),
            span(vectors),
            span(values),
            interval(kept),
            f"{min(kept):.3f}",
            "" if paired is None or label == "all vectors" else interval(paired),
        )
    return table


def span(values: list[float]) -> str:
    """One number, or the range of several."""
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def negation_table(name: str, parts: list[dict[str, Any]]) -> Table:
    """How much of the base's score a forgotten task keeps, and the others."""
    table = Table(title=f"Negation, {name}: points of accuracy lost, and the others' score over the base's")
    for column in ("vectors used", "forgotten task", "others", "not possible"):
        table.add_column(column, justify="left" if column == "vectors used" else "right")
    rows = [(part, row) for part in parts for row in part["negation"]]
    for label in ("all vectors", "bases", "one model"):
        chosen = [(part, row) for part, row in rows if row["label"] == label]
        target = [forgotten(part, row) for part, row in chosen]
        stuck = sum(row["coefficient"] == 0 for _, row in chosen)
        table.add_row(label, interval(target), interval(row["others"] for _, row in chosen), f"{stuck}/{len(chosen)}")
    mates = [(part, row) for part, row in rows if row["mates"] > 0]
    for label in ("all vectors", "bases") if mates else ():
        target = [forgotten(part, row) for part, row in mates if row["label"] == label]
        table.add_row(f"{label}, tasks that share a basis", interval(target), "", "")
    return table


def forgotten(part: dict[str, Any], row: dict[str, Any]) -> float:
    """Points of the base's accuracy that a negation takes away."""
    return 100 * float(part["experts"][row["task"]]["base"] - row["target"])


def generalisation_table(name: str, parts: list[dict[str, Any]]) -> Table:
    """The score of a new task, as a share of what its own expert has."""
    table = Table(title=f"A new task, {name}: share of the score of its own expert")
    for column in ("what is added", "tasks with a similar basis", "other tasks"):
        table.add_column(column, justify="left" if column == "what is added" else "right")
    rows = [(part, row) for part in parts for row in part["generalisation"]]
    labels = ["base alone", *rows[0][1]["scores"]]
    for label in labels:
        cells = []
        for similar in (True, False):
            kept = []
            for part, row in rows:
                expert = part["experts"][row["task"]]
                if row["similar"] is similar:
                    kept.append((expert["base"] if label == "base alone" else row["scores"][label]) / expert["own"])
            cells.append(f"{interval(kept)} ({len(kept)})" if kept else "none")
        table.add_row(label, *cells)
    return table


def show(stored: dict[str, Any], console: Console) -> None:
    """Print all tables."""
    for name, parts in groups(stored["parts"]).items():
        for part in parts:
            made = part["bases"]
            clusters = "; ".join(", ".join(each) for each in made["clusters"].values() if len(each) > 1) or "none"
            memory, stability = made["memory"], made["stability"]
            same = "not measured" if stability["same"] is None else f"{stability['same']:.0%}"
            console.print(
                f"{name}: {memory['vectors']} vectors to {memory['bases']} bases, {memory['saved']:.0%} saved; groups "
                f"{made['clustering']['verdict']}: {clusters}; the same in {same} of the resamples"
            )
        console.print(addition_table(name, parts), negation_table(name, parts), generalisation_table(name, parts))
