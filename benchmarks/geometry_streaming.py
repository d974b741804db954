"""Geometry in one pass over the files: throughput beside plain reading, peak memory, and growth with T and d.

python -m benchmarks.geometry_streaming            # results/geometry_streaming.json, 10 minutes, 5 GB of disk
python -m benchmarks.geometry_streaming --show     # the tables from the stored results
python -m benchmarks.geometry_streaming --quick    # a dry run

Models are random numbers in the shapes of a GPT-2: an embedding of 31% of all parameters, matrices of 3072 x 768
and biases. Plain reading is `readinto` of 8 MiB blocks, file after file. All times of a row are taken in turns in one
process: plain reading, the geometry, and (where it fits in memory) a plain loop that reads whole tensors, converts all
of them to float64 and multiplies; ratios are of medians. Files are in the page cache, unless the row says "dropped":
then their pages are dropped before every turn, so that all come from the disk. Peak memory is VmHWM of a fresh process
that does nothing else. Beyond eight experts the same eight files appear under several names (hard links), which changes
nothing for the work, and keeps the page cache warm as files of their own would not.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from safetensors import safe_open
from safetensors.torch import save_file

import diagnostics as dx
from diagnostics.report.json import write_json

RESULTS = Path(__file__).parent / "results" / "geometry_streaming.json"
BLOCK, WIDTH, FILES, LOOPED = 8 << 20, 768, 8, 32_000_000
FULL: dict[str, Any] = {
    "repeats": 3,
    "threads": min(2, os.cpu_count() or 1),
    # Parameters, experts, dtypes and whether pages are dropped before each turn.
    "speed": [
        *((d, 8, dtypes, False) for d in (8_000_000, 32_000_000, 125_000_000) for dtypes in ("fp32", "bf16", "mixed")),
        *((125_000_000, 8, dtypes, True) for dtypes in ("fp32", "bf16")),
    ],
    "memory": [(d, count, "fp32") for d in (8_000_000, 32_000_000, 125_000_000) for count in (2, 8, 32, 70)],
    "growth": [
        *((32_000_000, count, "fp32", False) for count in (2, 4, 8, 16, 32, 70)),
        *((d, 8, "fp32", False) for d in (2_000_000, 8_000_000)),
    ],
}
QUICK: dict[str, Any] = {
    "repeats": 1,
    "threads": 1,
    "speed": [(100_000, 2, "mixed", False)],
    "memory": [(100_000, 2, "bf16")],
    "growth": [(100_000, 10, "fp32", False)],
}
DTYPES = {"fp32": (torch.float32,), "bf16": (torch.bfloat16,), "mixed": (torch.float32, torch.bfloat16, torch.float16)}


def shapes(parameters: int) -> dict[str, tuple[int, ...]]:
    """Tensors of a model of about this size."""
    found: dict[str, tuple[int, ...]] = {"embed": (max(1, parameters * 31 // 100 // WIDTH), WIDTH)}
    left = parameters - math.prod(found["embed"])
    for layer in range(max(1, left // (4 * WIDTH * WIDTH + 4 * WIDTH))):
        found |= {f"{layer}.weight": (4 * WIDTH, WIDTH), f"{layer}.bias": (4 * WIDTH,)}
    return found


def write_models(folder: Path, parameters: int, count: int, dtypes: str) -> list[Path]:
    """A base and experts; those beyond a few are further names of the first."""
    generator = torch.Generator().manual_seed(0)
    base = {name: 0.02 * torch.randn(shape, generator=generator) for name, shape in shapes(parameters).items()}
    kinds = DTYPES[dtypes]
    paths = [folder / "base.safetensors"]
    save_file({name: value.to(kinds[0]) for name, value in base.items()}, paths[0])
    for number in range(count):
        paths.append(folder / f"expert-{number}.safetensors")
        if number >= FILES:
            os.link(paths[1 + number % FILES], paths[-1])
            continue
        dtype = kinds[(number + 1) % len(kinds)]
        moved = {name: value + 1e-3 * torch.randn(value.shape, generator=generator) for name, value in base.items()}
        save_file({name: value.to(dtype) for name, value in moved.items()}, paths[-1])
    return paths


def read_plainly(paths: list[Path]) -> int:
    """Read files from end to end into one buffer, and count their bytes."""
    buffer, total = memoryview(bytearray(BLOCK)), 0
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while read := file.readinto(buffer):
                total += read
    return total


def loop_plainly(paths: list[Path]) -> np.ndarray:
    """The Gram matrix by whole tensors: each file opened for each tensor, and everything in float64."""
    gram = np.zeros((len(paths) - 1, len(paths) - 1))
    with safe_open(paths[0], "pt") as file:
        names = list(file.keys())
    for name in names:
        values = []
        for path in paths:
            with safe_open(path, "pt") as file:
                values.append(file.get_tensor(name).reshape(-1).double())
        moves = torch.stack([value - values[0] for value in values[1:]])
        gram += (moves @ moves.T).numpy()
    return gram


def drop(paths: list[Path]) -> None:
    """Drop the pages of files from the page cache, once they are on the disk."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def clock(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds by the clock and of all cores together."""
    wall, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - busy


def speed(parameters: int, count: int, dtypes: str, dropped: bool, repeats: int) -> dict[str, Any]:
    """Times of one case, in turns."""
    with tempfile.TemporaryDirectory() as home:
        paths = write_models(Path(home), parameters, count, dtypes)
        jobs: dict[str, Callable[[], Any]] = {
            "plain reading": lambda: read_plainly(paths),
            "geometry": lambda: dx.geometry(paths[0], paths[1:]),
        }
        # The plain loop holds the largest tensor of every model several times over, in float64, and takes its time.
        if count <= FILES and parameters <= LOOPED:
            jobs["plain loop"] = lambda: loop_plainly(paths)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
        read_plainly(paths)
        for _ in range(repeats):
            for name, job in jobs.items():
                if dropped:
                    drop(paths)
                found[name].append(clock(job))
        size = read_plainly(paths)
    seconds = {name: statistics.median(wall for wall, _ in each) for name, each in found.items()}
    busy = {name: statistics.median(cpu for _, cpu in each) for name, each in found.items()}
    return {
        **{"parameters": parameters, "experts": count, "dtypes": dtypes, "dropped": dropped, "bytes": size},
        **{"seconds": seconds, "core_seconds": busy, "all": found},
        "ratio": seconds["plain reading"] / seconds["geometry"],
    }


def peak(parameters: int, count: int, dtypes: str, threads: int) -> dict[str, Any]:
    """Peak memory of a fresh process that measures a geometry, beside one that does no more than import."""
    with tempfile.TemporaryDirectory() as home:
        paths = [*map(str, write_models(Path(home), parameters, count, dtypes))]
        found = {}
        for name, given in (("import", []), ("geometry", paths)):
            command = [sys.executable, "-m", "benchmarks.geometry_streaming", "--work", *given]
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            found[name] = int(done.stdout.splitlines()[-1])
    return {"parameters": parameters, "experts": count, "dtypes": dtypes, "peak": found}


def work(paths: list[Path]) -> None:
    """What a process of its own does; its peak memory in bytes is printed."""
    if paths:
        dx.geometry(paths[0], paths[1:])
    lines = Path("/proc/self/status").read_text().splitlines()
    print(1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1]))


def run(out: Path, plan: dict[str, Any], console: Console) -> None:
    """Measure every case."""
    torch.set_num_threads(plan["threads"])
    found: dict[str, list[dict[str, Any]]] = {"speed": [], "growth": [], "memory": []}
    for part in ("speed", "growth"):
        for case in plan[part]:
            found[part].append(speed(*case, plan["repeats"]))
            console.print(part, case, f"ratio {found[part][-1]['ratio']:.2f}")
    for case in plan["memory"]:
        found["memory"].append(peak(*case, plan["threads"]))
        console.print("memory", case, f"{found['memory'][-1]['peak']['geometry'] / 2**20:.0f} MiB")
    about = {
        **{"threads": plan["threads"], "cores": os.cpu_count(), "repeats": plan["repeats"]},
        **{"machine": platform.machine(), "torch": torch.__version__, "numpy": np.__version__},
        "load": os.getloadavg(),
    }
    write_json(out, {"environment": about, **found})


def show(out: Path, console: Console) -> None:
    """Print times and peaks."""
    stored = json.loads(out.read_text())
    about = stored["environment"]
    console.print(f"{about['threads']} threads on {about['cores']} cores, torch {about['torch']}, load {about['load']}")
    for part, title in (("speed", "Throughput, geometry beside plain reading"), ("growth", "Time as T and d grow")):
        table = Table(title=title)
        for column in (
            "d",
            "T",
            "dtypes",
            "pages",
            "reading: GB/s",
            "geometry: GB/s",
            "ratio",
            "core s",
            "loop: s",
            "s",
        ):
            table.add_column(column, justify="right")
        for row in stored[part]:
            seconds, size = row["seconds"], row["bytes"] / 1e9
            table.add_row(
                *(f"{row['parameters']:,}", str(row["experts"]), row["dtypes"]),
                "dropped" if row["dropped"] else "cached",
                *(f"{size / seconds[name]:.2f}" for name in ("plain reading", "geometry")),
                *(f"{row['ratio']:.2f}", f"{row['core_seconds']['geometry']:.2f}"),
                f"{seconds['plain loop']:.2f}" if "plain loop" in seconds else "",
                f"{seconds['geometry']:.2f}",
            )
        console.print(table)
    table = Table(title="Peak memory of the process (VmHWM)")
    for column in ("d", "T", "dtypes", "import: MiB", "geometry: MiB"):
        table.add_column(column, justify="right")
    for row in stored["memory"]:
        sizes = (f"{row['peak'][name] / 2**20:.0f}" for name in ("import", "geometry"))
        table.add_row(f"{row['parameters']:,}", str(row["experts"]), row["dtypes"], *sizes)
    console.print(table)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark or show what is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a dry run")
    parser.add_argument("--show", action="store_true", help="print the tables from the stored results")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    console = Console(width=120)
    if options.work is not None:
        work(options.work)
        return
    if options.quick:
        threads = torch.get_num_threads()
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder) / "quick.json", QUICK, console)
            show(Path(folder) / "quick.json", console)
        torch.set_num_threads(threads)
        return
    if not options.show:
        run(options.out, FULL, console)
    show(options.out, console)


if __name__ == "__main__":
    main()
