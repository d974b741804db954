"""What every module of the study shares: an instructed task, and a target with the components it is made of."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

END = "<eos>"
Pair = tuple[str, str]
Family = Literal["strings", "paraphrase", "multi-task", "real"]


@dataclass(frozen=True)
class Instructed:
    """A task: an instruction, and pairs of input and answer in disjoint splits.

    Instructions, inputs and answers start with a space, so that their tokens are the same wherever they stand;
    answers end with the end-of-text token.
    """

    name: str
    instruction: str
    train: list[Pair]
    val: list[Pair]
    test: list[Pair]

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of a SHA-256 over instruction and examples: the identity of the data."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Target:
    """A task that a merge of its components should solve; ``name`` and ``components`` name ``Instructed`` tasks."""

    name: str
    family: Family
    components: tuple[str, str]


@dataclass(frozen=True)
class Study:
    """Tasks by name, components and targets alike, and the targets."""

    tasks: dict[str, Instructed]
    targets: dict[str, Target]


@dataclass(frozen=True)
class Sizes:
    """Examples a split of one task; a multi-task component has two thirds of ``train``, the target twice as many."""

    train: int = 1500
    val: int = 256
    test: int = 256
    smallest: int = 700

    def of(self, split: str) -> int:
        """The size of a split by name."""
        return getattr(self, split)

    def part(self) -> "Sizes":
        """The sizes of a component of a multi-task target."""
        return replace(self, train=self.train * 2 // 3)


FULL_SIZES = Sizes()
QUICK_SIZES = Sizes(train=30, val=8, test=8, smallest=4)
# The names of the splits here, and those of ``split_of``.
SPLITS = {"train": "train", "val": "probe", "test": "test"}


def union(name: str, instruction: str, parts: Sequence[Instructed]) -> Instructed:
    """The multi-task target (1.7) of two components: all of both train splits, and half of each other split."""
    first, second = parts
    if len(first.train) != len(second.train):
        raise ValueError(f"{name}: components of equal size expected, found {len(first.train)}, {len(second.train)}")
    halves = {split: [each for part in parts for each in _half(getattr(part, split))] for split in ("val", "test")}
    return Instructed(name, instruction, [*first.train, *second.train], halves["val"], halves["test"])


def _half(pairs: list[Pair]) -> list[Pair]:
    """The first half of a list."""
    return pairs[: len(pairs) // 2]
