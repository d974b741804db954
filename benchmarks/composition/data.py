"""Every task of the study: string operations, and summaries and translations of Debian's package descriptions.

Run ``python -m benchmarks.composition.data`` to read apt's lists into the cache and print every task.
"""

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from benchmarks.composition.strings import instruction, string_study
from benchmarks.composition.tasks import END, FULL_SIZES, SPLITS, Instructed, Pair, Sizes, Study, Target, union
from benchmarks.debian import CACHE, SEED, read_translations, source_of, split_description, split_of, write_rows
from diagnostics.errors import InputError

FOLDER = CACHE / "composition"
ENTRIES = FOLDER / "entries.jsonl"
SAMPLE = Path(__file__).with_name("sample.jsonl")
LANGUAGES = {"en": "English", "fr": "French", "de": "German", "es": "Spanish"}
LONGEST = 200
SHORTEST = 60
LIBRARIES = ("libs", "libdevel", "oldlibs")
SAMPLE_OF_EACH = 40
DOCUMENTS = ("doc", "devel", "science", "education", "misc", "text")


@dataclass(frozen=True)
class Entry:
    """A package: its source package and section, and its short and long descriptions by language."""

    package: str
    source: str
    section: str
    short: dict[str, str]
    long: dict[str, str]


Make = Callable[[Entry], Pair | None]


def load_entries(path: Path = ENTRIES) -> list[Entry]:
    """Every package's descriptions, from the cache; built from apt's lists where it does not exist yet."""
    if not path.exists():
        if path == SAMPLE:
            raise InputError(f"{path}: the sample that comes with the study is missing")
        write_rows(path, (asdict(each) for each in build_entries()))
    return [Entry(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def build_entries() -> list[Entry]:
    """Descriptions from apt's lists; packages whose English text another package has as well appear once."""
    found: dict[str, Entry] = {}
    for package, language, value in read_translations(LANGUAGES):
        name = package["Package"]
        section = package.get("Section", "").rpartition("/")[2]
        entry = found.setdefault(name, Entry(name, source_of(package), section, {}, {}))
        short, long = (" ".join(part.split()) for part in split_description(value))
        entry.short.setdefault(language, short)
        entry.long.setdefault(language, _cut(long))
    distinct: dict[str, Entry] = {}
    for name in sorted(found):
        if "en" in found[name].short:
            distinct.setdefault(found[name].short["en"].casefold(), found[name])
    return list(distinct.values())


def _cut(text: str) -> str:
    """The text up to ``LONGEST`` characters, ended between words."""
    return text if len(text) <= LONGEST else text[: LONGEST + 1].rpartition(" ")[0]


def summarise(entry: Entry, language: str = "en") -> Pair | None:
    """Long English to short in a language; none where the long text is too short to need it."""
    long, short = entry.long.get("en", ""), entry.short.get(language)
    return (f" {long}", f" {short}{END}") if short and len(long) >= SHORTEST else None


def translate(entry: Entry, language: str) -> Pair | None:
    """Short English to short in another language; none where that is the English again."""
    english, other = entry.short["en"], entry.short.get(language)
    return (f" {english}", f" {other}{END}") if other and other.casefold() != english.casefold() else None


def load_study(sizes: Sizes = FULL_SIZES, entries: Iterable[Entry] | None = None) -> Study:
    """All tasks and targets; see ``strings.string_study`` for the first two families.

    Args:
        sizes: Examples a split.
        entries: The package descriptions; those of the cache by default.

    Raises:
        InputError: There are too few descriptions for a task, or apt's lists are not there.
    """
    entries = load_entries() if entries is None else list(entries)
    strings = string_study(sizes)
    tasks, targets = dict(strings.tasks), dict(strings.targets)
    tasks["summarise"] = _task("summarise", instruction("summarise"), entries, summarise, sizes)
    for code, language in list(LANGUAGES.items())[1:]:
        translated, both = f"to {language}", f"summarise + to {language}"
        one, two = instruction(translated), instruction("summarise", translated)
        tasks[translated] = _task(translated, one, entries, partial(translate, language=code), sizes)
        tasks[both] = _task(both, two, entries, partial(both_of, language=code), sizes)
        targets[both] = Target(both, "real", ("summarise", translated))
    for name, make in (("to French", partial(translate, language="fr")), ("summarise", summarise)):
        parts = tuple(
            _task(f"{name}, {kind}", instruction(name), [e for e in entries if e.section in kept], make, sizes.part())
            for kind, kept in (("libraries", LIBRARIES), ("documents", DOCUMENTS))
        )
        tasks |= {part.name: part for part in parts}
        tasks[f"{name}, both kinds"] = union(f"{name}, both kinds", instruction(name), parts)
        targets[f"{name}, both kinds"] = Target(f"{name}, both kinds", "multi-task", (parts[0].name, parts[1].name))
    return Study(tasks, targets)


def both_of(entry: Entry, language: str) -> Pair | None:
    """Long English to a short text in another language that is not the English one."""
    return summarise(entry, language) if translate(entry, language) else None


def _task(name: str, instructed: str, entries: list[Entry], make: Make, sizes: Sizes) -> Instructed:
    """A task over the packages that ``make`` makes a pair of, each split in a seeded order."""
    splits = {}
    for split, key in SPLITS.items():
        pairs = [made for each in entries if split_of(each.source) == key and (made := make(each)) is not None]
        rng = random.Random(f"{SEED}:{name}:{split}")
        splits[split] = rng.sample(pairs, min(len(pairs), sizes.of(split)))
    if len(splits["train"]) < sizes.smallest:
        raise InputError(f"task {name}: {len(splits['train'])} training examples, at least {sizes.smallest} needed")
    return Instructed(name, instructed, **splits)


def write_sample(path: Path = SAMPLE) -> None:
    """A few packages of every kind that the tasks need, for runs where apt's lists are not at hand."""
    entries = load_entries()
    kinds = (
        [e for e in entries if both_of(e, "es")],
        [e for e in entries if both_of(e, "de")],
        [e for e in entries if both_of(e, "fr") and e.section in LIBRARIES],
        [e for e in entries if both_of(e, "fr") and e.section in DOCUMENTS],
    )
    rng = random.Random(f"{SEED}:sample")
    chosen = {each.package: each for kind in kinds for each in rng.sample(kind, SAMPLE_OF_EACH)}
    write_rows(path, (asdict(chosen[name]) for name in sorted(chosen)))


def main() -> None:
    """Print every task."""
    study = load_study()
    for name, task in study.tasks.items():
        print(f"{name:32} {[len(task.train), len(task.val), len(task.test)]} {task.digest} {task.test[0]}")


if __name__ == "__main__":
    main()
