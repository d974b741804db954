"""What a gradient, a Hessian-vector product and a Jacobian-vector product cost on MiniLM, in units of each other.

python -m benchmarks.derivative_costs             # results/derivative_costs.json, half a minute
python -m benchmarks.derivative_costs --quick     # one repetition on the shipped sample
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import diagnostics as dx
from benchmarks.minilm_bounds import build, quick_parts
from diagnostics.measures.outputs import directional_derivative
from diagnostics.report.json import write_json

RESULTS = Path(__file__).parent / "results" / "derivative_costs.json"


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median time of some work after a first run that does not count."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main(arguments: list[str] | None = None) -> None:
    """Time the four operations in one run and print their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one repetition on the shipped sample")
    quick = parser.parse_args(arguments).quick
    problem = build(quick_parts(), "train", 32)
    name = problem.names[0]
    task, point, vector = problem.tasks[name], problem.experts[name], problem.task_vectors[name]
    repeats = 1 if quick else 7
    times = {
        "forward": seconds(lambda: task.mean_loss(point), repeats),
        "gradient": seconds(lambda: dx.gradient(task, point), repeats),
        "Hessian-vector product": seconds(lambda: dx.hessian_vector_product(task, point, vector), repeats),
        "Jacobian-vector product": seconds(lambda: directional_derivative(task, point, vector), repeats),
    }
    ratios = {
        "Hessian-vector product / gradient": times["Hessian-vector product"] / times["gradient"],
        "Jacobian-vector product / forward": times["Jacobian-vector product"] / times["forward"],
        "gradient / forward": times["gradient"] / times["forward"],
    }
    for label, value in ratios.items():
        print(f"{label}: {value:.2f}")
    if not quick:
        write_json(
            RESULTS, {"seconds": times, "ratios": ratios, "threads": torch.get_num_threads(), "texts": task.examples}
        )


if __name__ == "__main__":
    main()
