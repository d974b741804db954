"""Readers of configurations, checkpoints and data, tried on broken files.

python -m benchmarks.fuzzing.study                       # results/fuzzing.json, some minutes on two cores
python -m benchmarks.fuzzing.study --only bases --seed 7 # one reader, from other random numbers; stores nothing
python -m benchmarks.fuzzing.study --show                # the table from the stored results
python -m benchmarks.fuzzing.study --quick               # a dry run

Each file is valid before it is broken. Whatever is then read must be valid and, for tensors, be what the safetensors
library reads; anything else must be refused by an InputError. Failures are other exceptions, acceptance of what is
not valid, more than a few seconds of computing, more memory than an allowance, and anything read from beside the
folder.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.fuzzing.readers import READERS, Reader
from diagnostics.errors import InputError
from diagnostics.inputs.texts import is_text
from diagnostics.report.json import write_json

RESULTS = Path(__file__).parent.parent / "results" / "fuzzing.json"
INPUTS, QUICK = 8_000, 40
SECONDS, MEMORY = 5, 1 << 30
JOBS = 2


class Slow(BaseException):
    """Reading took too long; no handler of a reader's may catch this."""


@contextmanager
def limits(seconds: float, memory: int) -> Iterator[None]:
    """Bound the address space of this process for a while, and let the alarm end what is slow."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    now = 1024 * int(Path("/proc/self/status").read_text().split("VmSize:")[1].split()[0])
    handler = signal.signal(signal.SIGPROF, _stop)
    resource.setrlimit(resource.RLIMIT_AS, (now + memory, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGPROF, handler)


def _stop(number: int, frame: Any) -> None:
    raise Slow


def outcome(reader: Reader, folder: Path, seconds: float = SECONDS) -> str:
    """How reading a folder ends: accepted, refused, or a failure with its kind and place."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        reader.read(folder)
    except InputError as error:
        return "refused" if is_text(str(error)) and str(error).strip() else f"failed: the message {str(error)[:60]!r}"
    except (Exception, Slow) as error:
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if "/diagnostics/" in frame.filename]
        place = f"{Path(own[-1].filename).name}, {own[-1].name}" if own else "the check"
        what = " ".join(str(error).split())[:60] if isinstance(error, AssertionError) else ""
        return f"failed: {type(error).__name__} in {place}{': ' * bool(what)}{what}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "accepted"


def attempt(reader: Reader, folder: Path, draw: Random) -> tuple[str, str, bytes]:
    """Break one file of a folder, read, and put the file back: the outcome, the file and what was in it."""
    name, breaker = draw.choice(list(reader.broken.items()))
    path, others = folder / name, list(reader.others)
    whole = path.read_bytes()
    start = draw.choice([whole, whole, whole, *others]) if len(reader.broken) == 1 else whole
    content = breaker(draw, start, others)
    path.write_bytes(content)
    try:
        return outcome(reader, folder), name, content
    finally:
        path.write_bytes(whole)


def try_reader(label: str, inputs: int, seed: int, keep: Path | None = None) -> dict[str, Any]:
    """Try one reader on so many inputs: counts of outcomes, and each distinct failure with its first input."""
    reader, draw = READERS[label], Random(f"{seed} {label}")
    counts: Counter[str] = Counter()
    failures: dict[str, int] = {}
    slowest = 0.0
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "work"
        folder.mkdir()
        reader.write(folder)
        reader.read(folder)  # what is not broken is read
        with limits(SECONDS, MEMORY):
            for _ in range(inputs):
                started = time.process_time()
                found, name, content = attempt(reader, folder, draw)
                slowest = max(slowest, time.process_time() - started)
                counts[found.partition(":")[0]] += 1
                if found not in ("accepted", "refused"):
                    if found not in failures and keep:
                        (keep / f"{label} {len(failures)} {Path(name).name}").write_bytes(content)
                    failures[found] = failures.get(found, 0) + 1
        strays = sorted(
            path.name for path in Path(home).iterdir() if path.name not in ("work", "outside", "outside.safetensors")
        )
    assert not strays, f"written outside of the folder: {strays}"
    return {
        "inputs": inputs,
        **{kind: counts[kind] for kind in ("accepted", "refused", "failed")},
        "slowest_seconds": slowest,
        "failures": failures,
    }


def run(path: Path | None, labels: Sequence[str], inputs: int, seed: int, keep: Path | None, console: Console) -> dict:
    """Try the readers and store what was found."""
    found = {}
    started = time.perf_counter()
    with ProcessPoolExecutor(JOBS) as pool:
        waiting = {label: pool.submit(try_reader, label, inputs, seed, keep) for label in labels}
    for label, future in waiting.items():
        found[label] = future.result()
        console.print(f"{label}: {found[label]['failed']} of {inputs:,} failed", highlight=False)
        for failure, count in sorted(found[label]["failures"].items(), key=lambda item: -item[1]):
            console.print(f"  {count}: {failure}", highlight=False, markup=False)
    stored = {
        "settings": {"seed": seed, "seconds_allowed": SECONDS, "memory_allowed": MEMORY},
        "seconds": time.perf_counter() - started,
        "readers": found,
    }
    if path is not None:
        write_json(path, stored)
    return stored


def show(stored: dict[str, Any], console: Console) -> None:
    """Print the table."""
    table = Table(title="Broken files: how reading them ended")
    for column in ("reader", "inputs", "accepted", "refused", "failed", "slowest, ms"):
        table.add_column(column, justify="left" if column == "reader" else "right")
    for label, row in stored["readers"].items():
        counts = (f"{row[kind]:,}" for kind in ("inputs", "accepted", "refused", "failed"))
        table.add_row(label, *counts, f"{1e3 * row['slowest_seconds']:.0f}")
    sums = (
        f"{sum(row[kind] for row in stored['readers'].values()):,}"
        for kind in ("inputs", "accepted", "refused", "failed")
    )
    table.add_row("all", *sums, "")
    console.print(table)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark or show what is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a dry run")
    parser.add_argument("--show", action="store_true", help="print the table from the stored results")
    parser.add_argument("--only", nargs="+", choices=READERS, help="these readers; nothing is stored")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers")
    parser.add_argument("--inputs", type=int, default=INPUTS, help="for each reader")
    parser.add_argument("--keep", type=Path, help="folder for an input of each distinct failure")
    options = parser.parse_args(arguments)
    console = Console(width=120)
    if options.keep:
        shutil.rmtree(options.keep, ignore_errors=True)
        options.keep.mkdir(parents=True)
    if options.show:
        show(json.loads(RESULTS.read_text()), console)
        return
    whole = not (options.quick or options.only or options.seed or options.inputs != INPUTS)
    inputs = QUICK if options.quick else options.inputs
    show(
        run(RESULTS if whole else None, options.only or list(READERS), inputs, options.seed, options.keep, console),
        console,
    )


if __name__ == "__main__":
    main()
