"""Operations on strings of letters ("k e t a b"), the tasks made of them, and their compositions."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations, product

from benchmarks.composition.tasks import END, SPLITS, Instructed, Pair, Sizes, Study, Target, union
from benchmarks.debian import SEED, split_of

LETTERS = "abcdefghijklmnop"
LENGTHS = range(4, 9)
_NEXT = str.maketrans(LETTERS + LETTERS.upper(), LETTERS[1:] + LETTERS[0] + LETTERS[1:].upper() + LETTERS[0].upper())
_PREVIOUS = {after: before for before, after in _NEXT.items()}

Operation = Callable[[str], str]

# The operations that are fine-tuned and merged; the words are their instructions.
OPERATIONS: dict[str, Operation] = {
    "reverse": lambda s: s[::-1],
    "upper": str.upper,
    "sort": lambda s: "".join(sorted(s, key=str.lower)),
    "swap ends": lambda s: s[-1] + s[1:-1] + s[0],
    "drop first": lambda s: s[1:],
    "double last": lambda s: s + s[-1],
    "next letter": lambda s: s.translate(_NEXT),
    "star vowels": lambda s: re.sub("[aeio]", "*", s, flags=re.IGNORECASE),
}
# Operations that only the base model is trained on: they teach it what an instruction is.
OTHERS: dict[str, Operation] = {
    "copy": lambda s: s,
    "drop last": lambda s: s[:-1],
    "double first": lambda s: s[0] + s,
    "previous letter": lambda s: s.translate({after: chr(before) for after, before in _PREVIOUS.items()}),
    "star first": lambda s: "*" + s[1:],
    "rotate": lambda s: s[1:] + s[0],
    "star last": lambda s: s[:-1] + "*",
    "first three": lambda s: s[:3],
    "swap first two": lambda s: s[1] + s[0] + s[2:],
    "upper first": lambda s: s[0].upper() + s[1:],
}
TARGETS: tuple[tuple[str, str], ...] = (
    # The order of the two makes no difference ...
    ("reverse", "upper"),
    ("upper", "sort"),
    ("upper", "drop first"),
    ("double last", "upper"),
    ("next letter", "swap ends"),
    ("star vowels", "reverse"),
    ("star vowels", "swap ends"),
    ("reverse", "swap ends"),
    # ... or it does, and the second undoes, moves or reads what the first has made.
    ("reverse", "drop first"),
    ("reverse", "double last"),
    ("drop first", "swap ends"),
    ("sort", "drop first"),
    ("sort", "double last"),
    ("next letter", "star vowels"),
    ("next letter", "sort"),
    ("star vowels", "sort"),
)
PARAPHRASES = {
    ("reverse", "upper"): "capitals from the end",
    ("sort", "drop first"): "all but the smallest",
    ("next letter", "swap ends"): "later with outer two exchanged",
}
# Compositions that the base model is trained on: of two other operations, and of one of these with one of the study.
PRACTICE = tuple(permutations(OTHERS, 2))
MIXED_PRACTICE = (*product(OTHERS, OPERATIONS), *product(OPERATIONS, OTHERS))


@dataclass(frozen=True)
class Strings:
    """Which strings a task draws: every length and letter equally often."""

    letters: str = LETTERS
    lengths: range = LENGTHS


HALVES = {
    "letters": (Strings(letters=LETTERS[:8]), Strings(letters=LETTERS[8:])),
    "lengths": (Strings(lengths=range(4, 6)), Strings(lengths=range(7, 9))),
}
MULTI_TASK = (
    ("reverse", "lengths"),
    ("swap ends", "letters"),
    ("sort", "letters"),
    ("next letter", "letters"),
    ("double last", "lengths"),
)


def instruction(*words: str) -> str:
    """The instruction of operations that are applied one after the other: the concatenation of theirs."""
    return "".join(f" {each} :" for each in words)


def spaced(symbols: str) -> str:
    """Symbols as text: one token each."""
    return "".join(f" {each}" for each in symbols)


def apply(symbols: str, *words: str) -> str:
    """The operations by name, the first one first."""
    for each in words:
        symbols = (OPERATIONS.get(each) or OTHERS[each])(symbols)
    return symbols


def draw(rng: random.Random, split: str, strings: Strings = Strings()) -> str:
    """A random string of a split of ``split_of``: in every task, and for the base model, it is in this one only."""
    while True:
        symbols = "".join(rng.choices(strings.letters, k=rng.choice(strings.lengths)))
        if split_of(symbols) == split:
            return symbols


def pair(symbols: str, *words: str) -> Pair:
    """A string and what the operations make of it."""
    return spaced(symbols), spaced(apply(symbols, *words)) + END


def string_study(sizes: Sizes) -> Study:
    """Every string task: operations, their compositions, paraphrases of some, and the multi-task controls."""
    tasks, targets = {}, {}
    for word in OPERATIONS:
        tasks[word] = _task(word, instruction(word), (word,), sizes)
    for words in TARGETS:
        name = " + ".join(words)
        tasks[name] = _task(name, instruction(*words), words, sizes)
        targets[name] = Target(name, "strings", words)
    for words, phrase in PARAPHRASES.items():
        name = f"{' + '.join(words)}, paraphrased"
        tasks[name] = _task(name, instruction(phrase), words, sizes)
        targets[name] = Target(name, "paraphrase", words)
    for word, halves in MULTI_TASK:
        name = f"{word}, both {halves}"
        parts = tuple(
            _task(f"{word}, {part} {halves}", instruction(word), (word,), sizes.part(), strings)
            for part, strings in zip(("first", "second"), HALVES[halves], strict=True)
        )
        tasks |= {part.name: part for part in parts}
        tasks[name] = union(name, instruction(word), parts)
        targets[name] = Target(name, "multi-task", (parts[0].name, parts[1].name))
    return Study(tasks, targets)


def _task(name: str, instructed: str, words: tuple[str, ...], sizes: Sizes, strings: Strings = Strings()) -> Instructed:
    """A task over distinct random strings."""
    splits: dict[str, list[Pair]] = {}
    for split, key in SPLITS.items():
        rng = random.Random(f"{SEED}:{name}:{split}")
        found: dict[str, None] = {}
        while len(found) < sizes.of(split):
            found.setdefault(draw(rng, key, strings))
        splits[split] = [pair(symbols, *words) for symbols in found]
    return Instructed(name, instructed, **splits)
