"""What is merged: groups of experts in each family, and the merges within a group."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import combinations

# In each family tasks meet in another way: the same texts with contradicting labels ("-shifted"), the same labels in
# other languages, and tasks that have nothing to do with each other. All twelve tasks take part somewhere.
GROUPS: dict[str, tuple[tuple[str, ...], ...]] = {
    "full": (("section-en", "section-shifted", "section-fr", "role", "interface"),),
    "full-high": (("role", "role-shifted", "section-en"),),
    "lora": (
        ("section-de", "section-shifted", "toolkit", "language"),
        ("section-en", "section-fr", "purpose", "implemented-in"),
    ),
    "lora-high": (("implemented-in", "section-en", "section-shifted", "works-with"),),
}
# Coefficients common to all experts of a merge: the average first, then what is drawn from.
COMMON = {2: (0.3, 0.7, 1.0, 1.5), 3: (0.5, 0.7, 1.0), 4: (0.5, 0.7), 5: (0.4, 0.6, 1.0)}
DRAWN = {2: 2, 3: 1, 4: 1, 5: 3}

Merge = dict[str, float]


def merges(group: tuple[str, ...], seed: int = 0) -> Iterator[Merge]:
    """Every subset of a group: its average, drawn common coefficients, and coefficients of their own."""
    chooser = random.Random(f"{seed}:{','.join(group)}")
    for size in range(2, len(group) + 1):
        for names in combinations(group, size):
            yield dict.fromkeys(names, round(1 / size, 4))
            for value in sorted(chooser.sample(COMMON[size], DRAWN[size])):
                yield dict.fromkeys(names, value)
            yield {name: round(chooser.uniform(0.1, 3 / size), 2) for name in names}


def label(merge: Merge, method: str = "task_arithmetic") -> str:
    """A merge as a key of files and tables."""
    terms = " + ".join(f"{value:g} {name}" for name, value in merge.items())
    return terms if method == "task_arithmetic" else f"{method}: {terms}"
