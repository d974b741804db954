"""Single-label text classification tasks made of the package descriptions that apt keeps on Debian.

The descriptions come in several languages and carry labels set by people: archive section and debtags.
Run ``python -m benchmarks.minilm.data`` to build every task into the cache and print its sizes.
"""

import hashlib
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path

from benchmarks.debian import (
    CACHE,
    LISTS,
    SEED,
    SHARES,
    UPDATE,
    Stanza,
    read_translations,
    source_of,
    split_description,
    split_of,
    write_rows,
)
from diagnostics.errors import InputError

SAMPLE = Path(__file__).with_name("sample.jsonl")
LANGUAGES = ("en", "fr", "de", "es", "ja")

SIZES = SHARES
SMALLEST = {"train": 600, "probe": 128, "test": 256}
MAX_CHARACTERS = 400

Example = tuple[str, int]


@dataclass(frozen=True)
class TextTask:
    """A classification task: the text of each label, and (text, label index) pairs in disjoint splits."""

    name: str
    labels: tuple[str, ...]
    train: list[Example]
    probe: list[Example]
    test: list[Example]

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of a SHA-256 over labels and examples: the identity of the data."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Rule:
    """A task takes the descriptions in ``languages`` that carry exactly one of the keys of ``labels``.

    With ``shifted`` each description is given the label after its own: a task that contradicts the one it is made of.
    """

    labels: dict[str, str]
    languages: tuple[str, ...] = ("en",)
    shifted: bool = False


SECTIONS = {
    "section::games": "games",
    "section::graphics": "graphics and images",
    "section::mail": "electronic mail",
    "section::net": "computer networks",
    "section::science": "science",
    "section::sound": "sound and music",
    "section::admin": "system administration",
}

ROLES = {
    "role::program": "program",
    "role::shared-lib": "shared library",
    "role::devel-lib": "development files",
    "role::documentation": "documentation",
    "role::app-data": "application data",
    "role::plugin": "plugin",
}

RULES = {
    "section-en": Rule(SECTIONS),
    "section-fr": Rule(SECTIONS, ("fr",)),
    "section-de": Rule(SECTIONS, ("de",)),
    "language": Rule(
        {
            "language::en": "text in English",
            "language::fr": "text in French",
            "language::de": "text in German",
            "language::es": "text in Spanish",
            "language::ja": "text in Japanese",
        },
        LANGUAGES,
    ),
    "implemented-in": Rule(
        {
            "implemented-in::c": "written in C",
            "implemented-in::c++": "written in C++",
            "implemented-in::perl": "written in Perl",
            "implemented-in::python": "written in Python",
            "implemented-in::java": "written in Java",
            "implemented-in::lisp": "written in Lisp",
        }
    ),
    "role": Rule(ROLES),
    "toolkit": Rule(
        {
            "uitoolkit::gtk": "GTK and GNOME",
            "uitoolkit::qt": "Qt and KDE",
            "uitoolkit::ncurses": "text terminal",
            "uitoolkit::sdl": "SDL multimedia and games",
        }
    ),
    "interface": Rule(
        {
            "interface::x11": "graphical window",
            "interface::commandline": "command line",
            "interface::daemon": "background service",
            "interface::text-mode": "text-mode screen",
            "interface::web": "web interface",
        }
    ),
    "works-with": Rule(
        {
            "works-with::text": "text",
            "works-with::audio": "audio",
            "works-with::image": "images",
            "works-with::mail": "mail",
            "works-with::db": "databases",
            "works-with::software:source": "source code",
            "works-with::video": "video",
            "works-with::network-traffic": "network traffic",
        }
    ),
    "purpose": Rule(
        {
            "use::gameplaying": "playing a game",
            "use::converting": "converting",
            "use::editing": "editing",
            "use::checking": "checking",
            "use::viewing": "viewing",
            "use::monitor": "monitoring",
            "use::configuring": "configuring",
        }
    ),
    "section-shifted": Rule(SECTIONS, shifted=True),
    "role-shifted": Rule(ROLES, shifted=True),
}


@dataclass(frozen=True)
class Description:
    """One description: its package and source package, its keys (section, language, debtags) and its text."""

    package: str
    source: str
    language: str
    keys: frozenset[str]
    text: str


def load_tasks(names: Iterable[str] | None = None, cache: Path = CACHE / "debian") -> dict[str, TextTask]:
    """Tasks by name, read from the cache; those not there yet are built from apt's lists and stored.

    Args:
        names: Keys of ``RULES``; all of them by default.
        cache: The folder that holds one JSONL file a task.

    Returns:
        The tasks, in the order of ``names``.

    Raises:
        InputError: A name is unknown, or a task is not cached and apt's lists do not hold the descriptions.
    """
    wanted = list(RULES if names is None else names)
    if unknown := [name for name in wanted if name not in RULES]:
        raise InputError(f"unknown tasks {unknown}: choose among {list(RULES)}")
    missing = [name for name in wanted if not (cache / f"{name}.jsonl").exists()]
    if missing:
        languages = sorted({language for name in missing for language in RULES[name].languages})
        descriptions = read_descriptions(languages)
        for name in missing:
            write_rows(cache / f"{name}.jsonl", _build(name, descriptions))
    return {name: read_tasks(cache / f"{name}.jsonl")[name] for name in wanted}


def read_tasks(path: Path) -> dict[str, TextTask]:
    """Tasks from a JSONL file whose rows have a ``task``, a ``split``, a ``label`` and a ``text``."""
    examples: dict[str, dict[str, list[Example]]] = defaultdict(lambda: {split: [] for split in SIZES})
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        row = json.loads(line)
        labels = list(RULES[row["task"]].labels.values())
        if row["label"] not in labels:
            raise InputError(
                f"{path}, line {number}: the label {row['label']!r} is not one of {labels}; "
                "the file is older than the rule of its task: delete it, and it is built again"
            )
        examples[row["task"]][row["split"]].append((row["text"], labels.index(row["label"])))
    return {name: TextTask(name, tuple(RULES[name].labels.values()), **splits) for name, splits in examples.items()}


def read_descriptions(languages: Iterable[str], lists: Path = LISTS) -> list[Description]:
    """Every description in ``languages`` that apt's lists hold, each text once in its language."""
    found: dict[tuple[str, str], Description] = {}
    for package, language, value in read_translations(languages, lists):
        description = _describe(package, language, value)
        found.setdefault((language, description.text.casefold()), description)
    return sorted(found.values(), key=lambda each: (each.package, each.language))


def _describe(package: Stanza, language: str, value: str) -> Description:
    """A description with its keys."""
    tags = re.split(r",\s*", package.get("Tag", ""))
    keys = frozenset([f"language::{language}", f"section::{package.get('Section', '')}", *filter(None, tags)])
    return Description(package["Package"], source_of(package), language, keys, _text(package["Package"], value))


def _text(package: str, value: str) -> str:
    """The short description and the first paragraph of the long one, without the package's own name."""
    text = re.sub(rf"(?<![\w-]){re.escape(package)}(?![\w-])", "", ". ".join(split_description(value)))
    return " ".join(text.split())[:MAX_CHARACTERS].strip(" .:")


def _build(name: str, descriptions: list[Description]) -> list[dict[str, str]]:
    """The rows of a task: in each split as balanced over the labels as the data allow, in a seeded order."""
    rule = RULES[name]
    pools: dict[str, dict[str, list[Description]]] = {split: defaultdict(list) for split in SIZES}
    for each in descriptions:
        keys = each.keys & rule.labels.keys()
        if each.language in rule.languages and len(keys) == 1:
            pools[split_of(each.source)][rule.labels[next(iter(keys))]].append(each)
    names = list(rule.labels.values())
    given = {label: names[(names.index(label) + rule.shifted) % len(names)] for label in names}
    rows = []
    for split, size in SIZES.items():
        drawn = _draw(pools[split], size, random.Random(f"{SEED}:{name}:{split}"))
        if len(drawn) < SMALLEST[split]:
            raise InputError(
                f"task {name}: {len(drawn)} examples for {split}, at least {SMALLEST[split]} needed; "
                f"apt's lists hold too few descriptions: run `{UPDATE}` with the full Debian archive enabled"
            )
        rows += [
            {"task": name, "split": split, "label": given[label], "package": each.package, "text": each.text}
            for label, each in drawn
        ]
    return rows


def _draw(pools: dict[str, list[Description]], size: int, rng: random.Random) -> list[tuple[str, Description]]:
    """Up to ``size`` examples, one label after the other: equal shares, until a rare label is used up."""
    shuffled = {label: rng.sample(pool, len(pool)) for label, pool in sorted(pools.items())}
    rounds = zip_longest(*([(label, each) for each in pool] for label, pool in shuffled.items()))
    drawn = [pair for pairs in rounds for pair in pairs if pair is not None][:size]
    return rng.sample(drawn, len(drawn))


def main() -> None:
    """Build every task and print its sizes and the frequency of its labels."""
    for name, task in load_tasks().items():
        counts = dict(Counter(task.labels[label] for _, label in task.train))
        sizes = [len(task.train), len(task.probe), len(task.test)]
        print(f"{name:15} {sizes}  {task.digest}  {counts}")


if __name__ == "__main__":
    main()
