"""Peak memory of fresh processes as models, data, experts and processes grow.

python -m benchmarks.peak_memory            # results/peak_memory.json, 15 minutes, 5 GB of disk
python -m benchmarks.peak_memory --show     # the tables from the stored results
python -m benchmarks.peak_memory --quick    # a dry run

Every number is VmHWM of a process of its own that does one thing. Models are Llamas of random weights in float32, four
layers wide enough for 1, 4 and 16 times the parameters; data are eight sequences in batches of two (of eight, where
the tokens of a batch grow). "Copies" is the growth from the last size but one to the last over that of the
parameters: what of the peak is vectors as long as the model. Files for the check of compatibility are those of
geometry_streaming.
"""

from __future__ import annotations

import argparse
import os
import platform
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import distributed as dist
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

import diagnostics as dx
from benchmarks.geometry_streaming import write_models
from benchmarks.records import print_tables, read_record
from diagnostics.measures.differences import DifferenceOperator
from diagnostics.measures.hessian import HessianOperator
from diagnostics.report.json import write_json

RESULTS = Path(__file__).parent / "results" / "peak_memory.json"
VOCABULARY, PRODUCTS = 512, 6


def config(width: int) -> LlamaConfig:
    """A small Llama of this width."""
    sizes = {"hidden_size": width, "intermediate_size": 43 * width // 16, "num_hidden_layers": 4}
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    return LlamaConfig(vocab_size=VOCABULARY, num_attention_heads=4, max_position_embeddings=1024, **sizes, **ids)


def pairs(tokens: int, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    """Eight sequences of random tokens, y a quarter of each."""
    drawn = torch.randint(1, VOCABULARY, (8, tokens), generator=torch.Generator().manual_seed(seed))
    return [(row[: -tokens // 4].tolist(), row[-tokens // 4 :].tolist()) for row in drawn]


def task_of(model: torch.nn.Module, tokens: int, batch: int, seed: int = 0) -> dx.Task:
    """The task of these sequences."""
    return dx.Task.from_causal_lm(f"task {seed}", model, None, pairs(tokens, seed), instruction=[1], batch_size=batch)


def operate(hessian: Callable[[torch.Tensor], torch.Tensor], like: torch.Tensor) -> None:
    """Two products, one after the other."""
    for _ in range(2):
        hessian(torch.ones_like(like))


def exact(task: dx.Task, params: dict[str, torch.Tensor], memory: int | None) -> None:
    """Two exact products."""
    hessian = HessianOperator(task, params, memory=memory)
    operate(hessian, hessian.gradient)


def by_differences(task: dx.Task, params: dict[str, torch.Tensor]) -> None:
    """Two products by differences."""
    hessian = DifferenceOperator(task, params)
    operate(hessian, hessian.gradient)


def norm(task: dx.Task, params: dict[str, torch.Tensor], products: Any) -> None:
    """A spectral norm of just so many products."""
    dx.spectral_norm(task, params, products=products, max_products=PRODUCTS, rtol=1e-9)


def predict(task: dx.Task, params: dict[str, torch.Tensor], tokens: int, batch: int, model: Any) -> None:
    """A prediction for two experts."""
    experts = {name: {key: value + 1e-3 for key, value in params.items()} for name in "ab"}
    dx.predict_merge(dx.MergeProblem(params, experts, {"a": task, "b": task_of(model, tokens, batch, 1)}), 0.5)


def audit(model: Any, tokens: int, batch: int, keep: bool) -> None:
    """An audit of two components."""
    data = {"target_examples": pairs(tokens), "component_examples": [pairs(tokens, 1), pairs(tokens, 2)]}
    given = {"instructions": [[1], [2]], "folds": 4, "batch_size": batch, "keep_vectors": keep}
    dx.audit_composition(model, None, **given, **data)


WORK: dict[str, Callable[..., Any]] = {
    "model alone": lambda model, params, task, size: None,
    "gradient": lambda model, params, task, size: dx.gradient(task, params),
    "product, graphs kept": lambda model, params, task, size: exact(task, params, None),
    "product, no graph kept": lambda model, params, task, size: exact(task, params, 0),
    "product by differences": lambda model, params, task, size: by_differences(task, params),
    f"spectral_norm, {PRODUCTS} exact products": lambda model, params, task, size: norm(task, params, "exact"),
    f"spectral_norm, {PRODUCTS} by differences": lambda model, params, task, size: norm(task, params, "differences"),
    "gradient_alignment, one component": lambda model, params, task, size: dx.gradient_alignment(
        task, [task_of(model, *size, 1)], params, folds=4
    ),
    "audit_composition, two components": lambda model, params, task, size: audit(model, *size, keep=True),
    "the same, keep_vectors=False": lambda model, params, task, size: audit(model, *size, keep=False),
    "predict_merge, two experts": lambda model, params, task, size: predict(task, params, *size, model),
}
FULL: dict[str, Any] = {
    "widths": [256, 512, 1024],
    "models": list(WORK),
    "tokens": [32, 128, 512],
    "grown": ["gradient", "product, graphs kept", "product, no graph kept", "product by differences"],
    "checks": [(d, count) for d in (8_000_000, 125_000_000) for count in (2, 10, 40)],
    "processes": [1, 2, 4],
    "divided": ["model alone", "gradient", f"spectral_norm, {PRODUCTS} by differences"],
}
QUICK: dict[str, Any] = {
    **{"widths": [16, 32], "models": ["gradient"], "tokens": [8], "grown": []},
    **{"checks": [], "processes": [1], "divided": ["gradient"]},
}


def work(what: str, width: int, tokens: int, batch: int) -> None:
    """Do one thing with a model that this process holds whole."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(config(width)).eval()
    params = {name: value.detach() for name, value in model.named_parameters()}
    WORK[what](model, params, task_of(model, tokens, batch), (tokens, batch))


def divided(what: str, width: int, tokens: int, folder: str) -> None:
    """Do one thing with a model that processes hold in parts, read from a file."""
    dist.init_process_group("gloo")
    with torch.device("meta"):
        model = LlamaForCausalLM(config(width)).eval()
    model.model.rotary_emb = LlamaRotaryEmbedding(model.config)
    dx.shard_parameters(model, weights=folder)
    params = {name: value.detach() for name, value in model.named_parameters()}
    WORK[what](model, params, task_of(model, tokens, 2), (tokens, 2))
    dist.destroy_process_group()


def main_of_a_process(kind: str, *given: str) -> None:
    """What a process of its own does; its peak memory in bytes is printed."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if kind == "work":
        work(given[0], *map(int, given[1:]))
    elif kind == "divided":
        divided(given[0], *map(int, given[1:3]), given[3])
    elif kind == "check":
        dx.check_compatibility(given[0], given[1:])
    lines = Path("/proc/self/status").read_text().splitlines()
    print(1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1]))


def peak(kind: str, *given: object, processes: int = 1) -> int:
    """The largest peak of fresh processes that do one thing."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.peak_memory", "--work", kind, *map(str, given)]
    shared = {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    shared |= {"WORLD_SIZE": str(processes)}
    running = [
        subprocess.Popen(command, env=os.environ | shared | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(processes)
    ]
    told = [each.communicate()[0] for each in running]
    if any(each.returncode for each in running):
        raise RuntimeError(f"{kind} {given}: a process failed")
    return max(int(each.splitlines()[-1]) for each in told)


def run(out: Path, plan: dict[str, Any], console: Console) -> None:
    """Measure every case."""
    tokens = plan["tokens"][0]
    counts = [LlamaForCausalLM(config(width)).num_parameters() for width in plan["widths"]]
    found: dict[str, Any] = {"import": peak("import"), "parameters": counts, "tokens": plan["tokens"], "grown": {}}
    found["models"] = {
        what: [peak("work", what, width, tokens, 2) for width in plan["widths"]] for what in plan["models"]
    }
    console.print("models measured")
    for what in plan["grown"]:
        found["grown"][what] = [peak("work", what, plan["widths"][0], each, 8) for each in plan["tokens"]]
    console.print("data measured")
    with tempfile.TemporaryDirectory() as home:
        LlamaForCausalLM(config(plan["widths"][-1])).save_pretrained(home)
        cases = {what: (what, plan["widths"][-1], tokens, home) for what in plan["divided"]}
        found["divided"] = {
            what: [peak("divided", *case, processes=count) for count in plan["processes"]]
            for what, case in cases.items()
        }
    found["processes"] = plan["processes"]
    write_json(out, found)  # the checks take longest
    console.print("parts measured")
    found["checks"] = [check(*case) for case in plan["checks"]]
    about = {"machine": platform.machine(), "torch": torch.__version__, "products": PRODUCTS}
    write_json(out, {"environment": about, **found})


def check(parameters: int, count: int) -> dict[str, int]:
    """Peak of a check of compatibility."""
    with tempfile.TemporaryDirectory() as home:
        paths = write_models(Path(home), parameters, count, "fp32")
        return {"parameters": parameters, "experts": count, "peak": peak("check", *paths)}


def copies(peaks: list[int], parameters: list[int]) -> float:
    """Vectors as long as the model, in float32, by the growth from the last size but one to the last."""
    return (peaks[-1] - peaks[-2]) / (4 * (parameters[-1] - parameters[-2]))


def tables(stored: dict[str, Any]) -> dict[str, list[list[str]]]:
    """What was measured, by title: a row of headings, then rows of cells.

    Args:
        stored: The stored results.

    Returns:
        The tables.
    """
    mib = lambda values: [f"{value / 2**20:.0f}" for value in values]  # noqa: E731
    sizes, tokens = stored["parameters"], stored["tokens"]
    return {
        f"Peak memory in MiB as the model grows, beside {stored['import'] / 2**20:.0f} for the import": [
            ["", *(f"{count / 1e6:.1f} M parameters" for count in sizes), "copies"],
            *([what, *mib(peaks), f"{copies(peaks, sizes):.1f}"] for what, peaks in stored["models"].items()),
        ],
        f"Peak memory in MiB as the sequences of one batch of eight grow, {sizes[0] / 1e6:.1f} M parameters": [
            ["", *(f"{count} tokens" for count in tokens)],
            *([what, *mib(peaks)] for what, peaks in stored["grown"].items()),
        ],
        "Peak memory in MiB of `check_compatibility` on files": [
            ["parameters", "experts", "MiB"],
            *([f"{row['parameters']:,}", str(row["experts"]), *mib([row["peak"]])] for row in stored["checks"]),
        ],
        f"Peak memory in MiB of each process that holds a part of {sizes[-1] / 1e6:.1f} M parameters": [
            ["", *(f"{count} process{'es' if count > 1 else ''}" for count in stored["processes"])],
            *([what, *mib(peaks)] for what, peaks in stored["divided"].items()),
        ],
    }


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark or show what is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a dry run")
    parser.add_argument("--show", action="store_true", help="print the tables from the stored results")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    console = Console(width=120)
    if options.work:
        main_of_a_process(*options.work)
        return
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder) / "quick.json", QUICK, console)
            print_tables(tables(read_record(Path(folder) / "quick.json")), console)
        return
    if not options.show:
        run(options.out, FULL, console)
    print_tables(tables(read_record(options.out)), console)


if __name__ == "__main__":
    main()
