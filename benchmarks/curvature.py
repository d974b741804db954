"""What derivatives cost, and the largest eigenvalue of a Hessian against the tools that find it.

python -m benchmarks.curvature             # results/curvature.json, a quarter of an hour on 2 idle cores
python -m benchmarks.curvature --show      # the tables from the stored results
python -m benchmarks.curvature --quick     # a dry run on the shipped sample

The other tools are measured where they are found:
pip install --no-deps --target .peers PyHessian==0.1 curvlinops-for-pytorch==3.0.1 hessian-eigenthings==1.0.0a5 \
    backpack-for-pytorch einops einconv unfoldNd linear_operator jaxtyping wadler_lindig
PYTHONPATH=.peers python -m benchmarks.curvature
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import cross_entropy

import diagnostics as dx
from benchmarks.minilm.data import SAMPLE, load_tasks, read_tasks
from benchmarks.minilm.experts import LabelTextClassifier, as_batch, load_base, make_classifier
from benchmarks.records import write_record
from diagnostics.measures.hessian import HessianOperator, differentiable_twice
from diagnostics.measures.outputs import directional_derivatives
from diagnostics.measures.vectors import flatten, unflatten

RESULTS = Path(__file__).parent / "results" / "curvature.json"
TEXT_TASKS = ("section-en", "toolkit")
TOLERANCE = 0.01
# Of the truth: a tool that is further off has the wrong eigenvalue.
RIGHT = 0.01
TOLS = (1e-3, 1e-4, 1e-5, 1e-6)
SLOW = 15.0

Found = tuple[float, Tensor | None]


class Texts(torch.nn.Module):
    """A classifier of texts packed into one tensor [texts, 2, tokens], as the other tools want their inputs."""

    def __init__(self, model: LabelTextClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, packed: Tensor) -> Tensor:
        """The logits."""
        return self.model(packed[:, 0], packed[:, 1])


class Pair(torch.nn.Module):
    """Two networks with the same start: with the second's loss counted −0.99 times, their eigenvalues nearly tie."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = torch.nn.Linear(64, width), torch.nn.Tanh(), torch.nn.Linear(width, width), torch.nn.Tanh()
        self.first = torch.nn.Sequential(*layers, torch.nn.Linear(width, 10))
        self.second = torch.nn.Sequential(*(type(each)(*_sizes(each)) for each in self.first))
        self.second.load_state_dict(self.first.state_dict())

    def forward(self, images: Tensor) -> Tensor:
        """Logits of both, [images, 20]."""
        return torch.cat([self.first(images), self.second(images)], 1)


def _sizes(layer: torch.nn.Module) -> tuple[int, ...]:
    """Arguments that make another layer like this one."""
    return (layer.in_features, layer.out_features) if isinstance(layer, torch.nn.Linear) else ()


class NearlyTied(torch.nn.Module):
    """Mean loss of the first network less 0.99 of the second's."""

    reduction = "mean"

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss."""
        return cross_entropy(outputs[:, :10], targets) - 0.99 * cross_entropy(outputs[:, 10:], targets)


@dataclass
class Problem:
    """A Hessian: of a loss over one batch, at a model's own parameters."""

    name: str
    model: torch.nn.Module
    criterion: torch.nn.Module
    inputs: Tensor
    targets: Tensor

    @property
    def params(self) -> dict[str, Tensor]:
        """The parameters that the Hessian is in."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    @cached_property
    def task(self) -> dx.Task:
        """The same as a task, made and checked once."""
        data, names = (self.inputs, self.targets), list(self.params)
        return dx.Task.from_module(
            self.name, self.model, self.criterion, data, batch_size=len(self.targets), parameters=names
        )


def problems(quick: bool) -> list[Problem]:
    """Three tasks of texts, and two networks whose largest eigenvalues nearly tie."""
    bert, tokenizer = load_base()
    tasks = read_tasks(SAMPLE) if quick else load_tasks(TEXT_TASKS)
    found = []
    for name in list(tasks)[: 1 if quick else None]:
        inputs, targets = as_batch(tokenizer, tasks[name].train[: 2 if quick else 32])
        packed = torch.stack([inputs["input_ids"], inputs["attention_mask"]], 1)
        texts = Texts(make_classifier(bert, tokenizer, tasks[name]))
        found.append(Problem(f"MiniLM, {name}", texts, torch.nn.CrossEntropyLoss(), packed, targets))
    digits = load_digits()
    count, width = (16, 4) if quick else (1024, 256)
    images, labels = torch.tensor(digits.data[:count] / 16).float(), torch.tensor(digits.target[:count])
    return [*found, Problem("digits, nearly tied", Pair(width), NearlyTied(), images, labels)]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that some work took, and what it gave."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def unit_costs(problem: Problem, repeats: int) -> dict[str, float]:
    """Median seconds of each derivative, the kinds taken in turn so that a busy machine hurts all of them alike."""
    task, params = problem.task, {name: value.detach() for name, value in problem.params.items()}
    operator = HessianOperator(task, params)
    vector = torch.randn(operator.gradient.shape, generator=torch.Generator().manual_seed(0))
    named = unflatten(vector / vector.norm(), params)
    batch = next(iter(task.batches))

    def forward_over_reverse() -> Any:
        with differentiable_twice():
            return torch.func.jvp(lambda theta: torch.func.grad(task.loss)(theta, batch), (params,), (named,))

    works: dict[str, Callable[[], Any]] = {
        "forward": lambda: task.mean_loss(params),
        "gradient": lambda: dx.gradient(task, params),
        "operator built": lambda: HessianOperator(task, params),
        "product, graph kept": lambda: operator(vector),
        "product alone": lambda: dx.hessian_vector_product(task, params, named),
        "product, forward over reverse": forward_over_reverse,
        "derivative along one direction": lambda: directional_derivatives(task, params, [named]),
        "derivatives along four": lambda: directional_derivatives(task, params, [named] * 4),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(repeats + 1):
        for name, work in works.items():
            seconds, _ = timed(work)
            times[name] += [seconds] if number else []
    return {name: statistics.median(each) for name, each in times.items()}


def ours(problem: Problem, seed: int, **options: Any) -> Found:
    """This package; its residual is its own."""
    found = dx.spectral_norm(problem.task, problem.params, seed=seed, **{"rtol": TOLERANCE, **options})
    return found.eigenvalue, torch.tensor(found.residual / found.value)


def pyhessian(problem: Problem, seed: int, tol: float) -> Found:
    """PyHessian's power iteration, which stops by the change of its eigenvalue."""
    import pyhessian as peer

    torch.manual_seed(seed)
    hessian = peer.hessian(problem.model, problem.criterion, data=(problem.inputs, problem.targets), cuda=False)
    values, vectors = hessian.eigenvalues(maxIter=1000, tol=tol)
    problem.model.zero_grad()
    return values[0], torch.cat([part.reshape(-1) for part in vectors[0]]).detach()


def curvlinops(problem: Problem, seed: int, tol: float) -> Found:
    """Curvlinops' operator under SciPy's eigsh."""
    from curvlinops import HessianLinearOperator as Peer
    from scipy.sparse.linalg import eigsh

    torch.manual_seed(seed)
    params = list(problem.params.values())
    start = torch.randn(sum(each.numel() for each in params)).numpy()
    operator = Peer(problem.model, problem.criterion, params, [(problem.inputs, problem.targets)])
    values, vectors = eigsh(operator.to_scipy(), k=1, which="LM", tol=tol, v0=start)
    return float(values[0]), torch.from_numpy(vectors[:, 0])


def _eigenthings(problem: Problem) -> Any:
    """Hessian-eigenthings' operator."""
    from hessian_eigenthings import HessianOperator as Peer

    names = set(problem.params)
    return Peer(
        problem.model,
        [(problem.inputs, problem.targets)],
        lambda model, batch: problem.criterion(model(batch[0]), batch[1]),
        param_filter=lambda name, _: name in names,
    )


def eigenthings_power(problem: Problem, seed: int, tol: float) -> Found:
    """Its power iteration, which stops by change and residual."""
    from hessian_eigenthings.algorithms.power_iteration import power_iteration_one

    value, vector, *_ = power_iteration_one(_eigenthings(problem), max_iter=1000, tol=tol, seed=seed)
    return value, vector


def eigenthings_lanczos(problem: Problem, seed: int, k: int) -> Found:
    """Its Lanczos with as many steps as it takes by itself, 2k."""
    from hessian_eigenthings.algorithms.lanczos import lanczos

    found = lanczos(_eigenthings(problem), k=k, seed=seed)
    top = int(found.eigenvalues.abs().argmax())
    return float(found.eigenvalues[top]), found.eigenvectors[top]


TOOLS: dict[str, tuple[Callable[..., Found], dict[str, Any]]] = {
    "diagnostics, differences, residual within 1 %": (ours, {"upper_rtol": 1.0, "products": "differences"}),
    "diagnostics, exact, residual within 1 %": (ours, {"upper_rtol": 1.0}),
    "diagnostics, differences, upper end within 1 % too": (ours, {"products": "differences", "rtol": 0.005}),
    "diagnostics, exact, upper end within 1 % too": (ours, {}),
    "PyHessian, as it comes": (pyhessian, {"tol": 1e-3}),
    "PyHessian, until its residual is within 1 %": (pyhessian, {"tol": TOLS}),
    "curvlinops + eigsh, tol 1e-2": (curvlinops, {"tol": 1e-2}),
    "hessian-eigenthings power, tol 1e-2": (eigenthings_power, {"tol": 1e-2}),
    "hessian-eigenthings Lanczos, k = 1": (eigenthings_lanczos, {"k": 1}),
    "hessian-eigenthings Lanczos, k = 10": (eigenthings_lanczos, {"k": 10}),
}


def residual_of(operator: HessianOperator, value: float, vector: Tensor | None) -> float:
    """‖Hy − λy‖/|λ| of what a tool returned; our own comes with it."""
    if vector is None or vector.numel() == 1:
        return float("nan") if vector is None else float(vector)
    unit = vector.float() / vector.norm()
    return float((operator(unit) - value * unit).norm()) / abs(value)


def measure(problem: Problem, tool: str, operator: HessianOperator, truth: float, repeats: int) -> dict[str, Any]:
    """Time one tool on one problem, and judge what it returned."""
    run, given = TOOLS[tool]
    options = dict(given)
    try:
        if isinstance(options.get("tol"), tuple):  # the loosest that does, found beforehand
            options["tol"] = next(
                (tol for tol in TOLS if residual_of(operator, *run(problem, 0, tol)) <= TOLERANCE), TOLS[-1]
            )
        seconds, found = [], []
        for seed in range(repeats):
            took, result = timed(lambda seed=seed: run(problem, seed, **options))
            seconds.append(took)
            found.append((result[0], residual_of(operator, *result)))
            if took > SLOW:
                break
    except ImportError as error:
        return {"missing": str(error)}
    wrong = sum(abs(abs(value) - truth) > RIGHT * truth for value, _ in found)
    return {
        "options": {key: str(value) for key, value in options.items()},
        "seconds": statistics.median(seconds),
        "runs": len(seconds),
        "value": found[0][0],
        "largest relative residual": max(each for _, each in found),
        "wrong": wrong,
    }


def run(quick: bool) -> dict[str, Any]:
    """All problems and tools."""
    rows = []
    for problem in problems(quick):
        task, params = problem.task, {name: value.detach() for name, value in problem.params.items()}
        truth = dx.spectral_norm(task, params, rtol=0.1 if quick else 1e-4, upper_rtol=0.5 if quick else 1e-2)
        operator = HessianOperator(task, params)
        costs = unit_costs(problem, 1 if quick else 5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the other tools
            tools = {}
            for tool in list(TOOLS)[:4] if quick else TOOLS:
                tools[tool] = measure(problem, tool, operator, truth.value, 1 if quick else 3)
                print(f"{problem.name}: {tool}: {tools[tool].get('seconds', 0):.1f} s", flush=True)
        for tool in tools.values():
            if "seconds" in tool:
                tool["gradients"] = tool["seconds"] / costs["gradient"]
        rows.append(
            {
                "problem": problem.name,
                "parameters": flatten(params).numel(),
                "examples": len(problem.targets),
                "norm": truth.to_dict(),
                "seconds": costs,
                "graph bytes": operator.kept_bytes,
                "tools": tools,
            }
        )
    return {
        "rows": rows,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
    }


def show(stored: dict[str, Any], console: Console) -> None:
    """Print the tables."""
    table = Table(title=f"Derivatives, {stored['threads']} threads")
    names = [row["problem"] for row in stored["rows"]]
    for column in ("in units of", *names):
        table.add_column(column, justify="left" if column == "in units of" else "right")
    for kind in list(stored["rows"][0]["seconds"])[1:]:
        unit = "forward" if kind == "gradient" or kind.startswith("derivative") else "gradient"
        cells = [f"{row['seconds'][kind] / row['seconds'][unit]:.2f}" for row in stored["rows"]]
        table.add_row(f"{unit}: {kind}", *cells)
    console.print(table)
    for row in stored["rows"]:
        console.print(_of_tools(row))


def _of_tools(row: dict[str, Any]) -> Table:
    """The tools on one problem."""
    table = Table(
        title=f"{row['problem']}: ‖H‖₂ = {row['norm']['value']:.4g}, {row['parameters']:,} parameters, "
        f"gradient {row['seconds']['gradient']:.2f} s"
    )
    for column in ("tool", "value", "residual", "wrong", "seconds", "gradients", "ours is faster by"):
        table.add_column(column, justify="left" if column == "tool" else "right")
    best = row["tools"][next(iter(TOOLS))]["seconds"]
    for tool, found in row["tools"].items():
        if "missing" in found:
            table.add_row(tool, "not installed")
            continue
        table.add_row(
            tool, f"{found['value']:.4g}", f"{found['largest relative residual']:.2%}",
            f"{found['wrong']} of {found['runs']}", f"{found['seconds']:.2f}", f"{found['gradients']:.1f}",
            f"{found['seconds'] / best:.2f}",
        )  # fmt: skip
    return table


def main(arguments: list[str] | None = None) -> None:
    """Measure, or show what is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a dry run on the shipped sample")
    parser.add_argument("--show", action="store_true", help="print the tables from the stored results")
    options = parser.parse_args(arguments)
    console = Console(width=130)
    stored = json.loads(RESULTS.read_text()) if options.show else run(options.quick)
    show(stored, console)
    if not (options.quick or options.show):
        write_record(RESULTS, stored)


if __name__ == "__main__":
    main()
