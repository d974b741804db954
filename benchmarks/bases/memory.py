"""Peak memory and time of a coefficient search over all vectors and over bases (2.15), each in a fresh process.

python -m benchmarks.bases.memory            # results/bases_memory.json, 3 minutes on one core
python -m benchmarks.bases.memory --show     # the table from the stored results
python -m benchmarks.bases.memory --quick    # a dry run

Experts are random models in files, of the same number of parameters and in groups; the task is a small loss on all
parameters, so that what is measured is the vectors. Peak memory is the largest resident size of the process less its
size when it holds the base alone, as Linux counts them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file

import diagnostics as dx
from diagnostics.report.json import write_json

RESULTS = Path(__file__).parent.parent / "results" / "bases_memory.json"
TENSORS, GROUPS = 16, 3
GRID = (0.3, 0.6, 1.0)
CASES = ((6, 8_000_000), (12, 8_000_000), (24, 8_000_000), (12, 2_000_000))
QUICK = ((6, 20_000),)
MODES = ("all vectors", "making bases", "bases")


def write_models(folder: Path, count: int, parameters: int) -> None:
    """A base and experts in groups, each in a file of its own."""
    generator = torch.Generator().manual_seed(0)
    shape = (parameters // TENSORS,)
    shared = [[torch.randn(shape, generator=generator) for _ in range(TENSORS)] for _ in range(GROUPS)]
    base = {f"layer{index}.weight": torch.randn(shape, generator=generator) for index in range(TENSORS)}
    save_file(base, folder / "base.safetensors")
    for number in range(count):
        moved = {
            name: value + 0.01 * (shared[number % GROUPS][index] + torch.randn(shape, generator=generator))
            for index, (name, value) in enumerate(base.items())
        }
        save_file(moved, folder / f"expert-{number}.safetensors")


def work(folder: Path, mode: str) -> None:
    """What one process does; its peak memory and seconds are printed."""
    base = load_file(folder / "base.safetensors")
    # From here on the largest size is counted anew: importing alone has a peak of its own.
    Path("/proc/self/clear_refs").write_text("5")
    before, started = resident("VmRSS"), time.perf_counter()
    files = sorted(folder.glob("expert-*.safetensors"))
    tasks = {"t": dx.Task("t", lambda params, batch: sum(v.square().mean() for v in params.values()), [torch.ones(1)])}
    if mode == "making bases":
        dx.task_vector_bases(folder / "base.safetensors", files, k=GROUPS, resamples=1).save(folder / "bases")
    if mode == "bases":
        vectors = dx.load_bases(folder / "bases", base).vectors
        dx.search_coefficients(base, vectors, tasks, grid=GRID)
    if mode == "all vectors":
        vectors = {}
        for file in files:
            expert = load_file(file)
            vectors[file.stem] = {name: expert.pop(name).sub_(value) for name, value in base.items()}
        dx.search_coefficients(base, vectors, tasks, grid=GRID)
    print(json.dumps({"peak": resident("VmHWM") - before, "seconds": time.perf_counter() - started}))


def resident(what: str) -> int:
    """Bytes of this process in memory, now (VmRSS) or at the most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(what)).split()[1])


def measure(folder: Path, mode: str) -> dict[str, float]:
    """Run one mode in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bases.memory", "--work", mode, "--folder", str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(out: Path, cases: tuple[tuple[int, int], ...], console: Console) -> None:
    """Measure every case."""
    rows: list[dict[str, Any]] = []
    for count, parameters in cases:
        with tempfile.TemporaryDirectory() as home:
            write_models(Path(home), count, parameters)
            rows.append({"vectors": count, "parameters": parameters, "groups": GROUPS}
                        | {mode: measure(Path(home), mode) for mode in MODES})  # fmt: skip
        console.print(f"{count} vectors of {parameters:,}")
    write_json(out, {"grid": GRID, "machine": platform.machine(), "rows": rows})


def show(out: Path, console: Console) -> None:
    """Print memory beyond the base, in megabytes and in vectors."""
    table = Table(title="A search over three values of one λ: memory beyond a process that holds the base")
    for column in (
        "vectors",
        "MB each",
        "all: MB",
        "bases: MB",
        "saved",
        "T to m saves",
        "making: MB",
        "all: s",
        "bases: s",
    ):
        table.add_column(column, justify="right")
    for row in json.loads(out.read_text())["rows"]:
        peak = {mode: row[mode]["peak"] / 1e6 for mode in MODES}
        saved = f"{1 - peak['bases'] / peak['all vectors']:.1%}" if peak["all vectors"] > 0 else "none"
        table.add_row(
            str(row["vectors"]),
            f"{4 * row['parameters'] / 1e6:.0f}",
            *(f"{peak[mode]:.0f}" for mode in ("all vectors", "bases")),
            saved,
            f"{1 - row['groups'] / row['vectors']:.1%}",
            f"{peak['making bases']:.0f}",
            *(f"{row[mode]['seconds']:.1f}" for mode in ("all vectors", "bases")),
        )
    console.print(table)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark or show what is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a dry run")
    parser.add_argument("--show", action="store_true", help="print the table from the stored results")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", choices=MODES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    console = Console(width=120)
    if options.work:
        work(options.folder, options.work)
        return
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder) / "quick.json", QUICK, console)
            show(Path(folder) / "quick.json", console)
        return
    if not options.show:
        run(options.out, CASES, console)
    show(options.out, console)


if __name__ == "__main__":
    main()
