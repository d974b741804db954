"""What a language model of a billion parameters takes: operations and bytes, counted on PyTorch's meta device.

python -m benchmarks.plan_1b            # results/plan_1b.json, half a minute; after benchmarks.peak_memory
python -m benchmarks.plan_1b --show     # the tables from the stored results
python -m benchmarks.plan_1b --quick    # a dry run

The model is a Llama in the shapes of Llama 3.2 1B. Operations are those that FlopCounterMode counts in the forward pass
of one sequence, its gradient, a Hessian product and a directional derivative, with the attention kernel that can be
differentiated twice. Bytes of graphs are those of all tensors that they save, each storage once; bytes of vectors
follow from how many of them the code holds at once. The same counting is held against Llamas that run here: counted
bytes against the peaks that benchmarks.peak_memory stored, and counted operations against seconds.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks import peak_memory
from benchmarks.records import print_tables, read_record
from diagnostics.measures.hessian import differentiable_twice
from diagnostics.measures.outputs import cost_of, design
from diagnostics.report.json import write_json
from diagnostics.verdicts.surrogate import NODES

RESULTS = Path(__file__).parent / "results" / "plan_1b.json"
# One example is so many tokens, a quarter of them in y.
WORK: dict[str, int] = {"examples": 256, "tokens": 256, "batch": 4, "products": 8, "experts": 4}
TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
DEVICES = (24, 80, 141)
# Passes of an audit of two components: contexts, and segments beyond the first of each.
CONTEXTS, SEGMENTS, ATOMS = 6, 4, 10


def billion() -> LlamaConfig:
    """The shapes of Llama 3.2 1B."""
    sizes = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "vocab_size": 128256}
    return LlamaConfig(num_attention_heads=32, num_key_value_heads=8, tie_word_embeddings=True, **sizes)


class Saved:
    """Bytes that graphs made in a block save, each storage once; on the meta device storages have no address."""

    def __init__(self, known: list[Tensor]) -> None:
        self._storages = {value.untyped_storage()._cdata: value.untyped_storage() for value in known}
        self.total = 0
        self.hooks = saved_tensors_hooks(self._pack, lambda packed: packed)

    def _pack(self, tensor: Tensor) -> Tensor:
        """Count a tensor; its storage is held, so that no other gets its number."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._storages:
            self._storages[storage._cdata] = storage
            self.total += storage.nbytes()
        return tensor.detach()


class Counted:
    """One sequence of a model on the meta device, or on another.

    Args:
        config: The model's shapes.
        tokens: Tokens of the sequence.
        dtype: Type of the weights.
        device: Where it is.
        batch: Sequences.
    """

    def __init__(
        self, config: LlamaConfig, tokens: int, dtype: torch.dtype, device: str = "meta", batch: int = 1
    ) -> None:
        with torch.device(device):
            self.model = LlamaForCausalLM(config).eval().to(dtype)
            self.ids = torch.ones(batch, tokens, dtype=torch.long)
            # A mask of four dimensions is used as it is: any other would be looked at, and meta tensors have no values.
            self.mask = torch.zeros(1, 1, tokens, tokens, dtype=dtype)
        self.params = {name: value.detach().requires_grad_() for name, value in self.model.named_parameters()}
        self.scored = max(1, tokens // 4)

    def loss(self, params: dict[str, Tensor]) -> Tensor:
        """Mean negative log-likelihood of the last quarter, widened as in a task."""
        given = {"input_ids": self.ids, "attention_mask": self.mask, "use_cache": False}
        logits = torch.func.functional_call(self.model, params, (), given).logits[:, -self.scored - 1 : -1]
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), self.ids[:, -self.scored :].flatten(), reduction="mean"
        )

    def steps(self) -> dict[str, Callable[[], Any]]:
        """Each kind of pass; a product needs the graph that the one before it made."""
        leaves, graph = list(self.params.values()), {}
        point = {name: value.detach() for name, value in self.params.items()}

        def forward() -> Tensor:
            with torch.no_grad():
                return self.loss(self.params)

        def with_graph() -> None:
            graph["gradient"] = torch.autograd.grad(self.loss(self.params), leaves, create_graph=True)

        def product() -> Any:
            vector = [torch.ones_like(each) for each in leaves]
            return torch.autograd.grad(graph["gradient"], leaves, vector, retain_graph=True)

        def along() -> Tensor:
            with torch.no_grad():
                return torch.func.jvp(self.loss, (point,), (point,))[1]

        return {
            "forward": forward,
            "gradient": lambda: torch.autograd.grad(self.loss(self.params), leaves),
            "gradient with its graph": with_graph,
            "product, graph kept": product,
            "derivative along one direction": along,
        }


def count(config: LlamaConfig, tokens: int, dtype: torch.dtype) -> dict[str, Any]:
    """Operations and bytes of one sequence."""
    whole = Counted(config, tokens, dtype)
    flops, saved = {}, {}
    for name, step in whole.steps().items():
        counter, held = FlopCounterMode(display=False), Saved(list(whole.params.values()))
        with differentiable_twice(), counter, held.hooks if name.startswith("gradient") else nullcontext():
            step()
        flops[name] = counter.get_total_flops()
        saved[name] = held.total
    return {
        "parameters": sum(value.numel() for value in whole.params.values()),
        "flops": flops,
        "graph": saved["gradient"],
        "graph of the gradient": saved["gradient with its graph"],
    }


def held(width: int, work: dict[str, int]) -> dict[str, tuple[float, str, int]]:
    """For each quantity bytes of vectors a parameter, the kind of graph, and sequences whose graphs are held at once.

    Args:
        width: Bytes of a weight; vectors are held in float32.
        work: Examples, batch, products and experts.

    Returns:
        By quantity.
    """
    batch, every, products, experts = (work[name] for name in ("batch", "examples", "products", "experts"))
    narrow = width if width < 4 else 0  # a vector in the type of the weights
    # Weights, sum of gradients, gradient of a batch.
    gradient = width + 4 + width
    # … with the image, a narrow copy of the vector, and the product of a batch in place of its gradient.
    product = gradient + 4 + narrow
    lanczos = 4 * products + 4 + 4  # the basis, the noise that it began with, and the rest of an image
    # Weights, the same in float32, θ flat and moved, the gradient here, that being added up, and that of a batch.
    differences = width + (4 if width < 4 else 0) + 4 + 4 + 4 + 4 + 4
    first, second = "graph", "graph of the gradient"
    return {
        "gradient": (gradient, first, batch),
        "product, no graph kept": (product + width + 4, second, batch),
        "product, graphs kept": (product + 4, second, every),
        "product by differences": (differences, first, batch),
        "spectral_norm, exact, no graph kept": (product + width + lanczos, second, batch),
        "spectral_norm, exact, graphs kept": (product + lanczos, second, every),
        "spectral_norm, by differences": (differences + lanczos, first, batch),
        # Weights, buckets and signs of the sketch, sums of two segments, gradient of a batch.
        "audit_composition, keep_vectors=False": (width + 5 + 2 * 4 + width, first, batch),
        "audit_composition": (width + 5 + 2 * 4 + width + 4 * ATOMS, first, batch),
        # The module, 2T + 1 models, a point, directions taken together with what the module makes of both.
        "predict_merge": (4 * (2 * experts + 1) + 4 + 4 * experts + narrow * (1 + experts), first, 0),
    }


def passes(work: dict[str, int]) -> dict[str, dict[str, float]]:
    """For each quantity the passes over one task's data."""
    products, experts = work["products"], work["experts"]
    names = [str(index) for index in range(experts)]
    spent = cost_of(design(names, names[0], NODES))
    kept = {"gradient with its graph": 1, "product, graph kept": products}
    anew = {"gradient with its graph": 1 + products, "product, graph kept": products}
    audit = {"gradient": CONTEXTS, "forward": 2 * SEGMENTS}  # a backward pass is two forward passes
    return {
        "gradient": {"gradient": 1},
        "spectral_norm, exact, no graph kept": anew,
        "spectral_norm, exact, graphs kept": kept,
        "spectral_norm, by differences": {"gradient": 2 + products},
        "audit_composition, keep_vectors=False": audit,
        "audit_composition": audit,
        "predict_merge": {
            "forward": experts * spent.forwards,
            "derivative along one direction": experts * spent.jvps,
        },
    }


def planned(counted: dict[str, Any], width: int, work: dict[str, int]) -> dict[str, dict[str, float]]:
    """Operations and bytes of each quantity."""
    found = {}
    for name, (vectors, kind, sequences) in held(width, work).items():
        spent = passes(work).get(name)
        flops = spent and sum(counted["flops"][step] * times for step, times in spent.items()) * work["examples"]
        sizes = {"vectors": vectors * counted["parameters"], "graphs": counted[kind] * sequences}
        found[name] = {"flops": flops or 0, **sizes}
    return found


# What benchmarks.peak_memory measured, by the name that it has here.
MEASURED = {
    "gradient": "gradient",
    "product, no graph kept": "product, no graph kept",
    "product, graphs kept": "product, graphs kept",
    "product by differences": "product by differences",
    "spectral_norm, 6 exact products": "spectral_norm, exact, graphs kept",
    "spectral_norm, 6 by differences": "spectral_norm, by differences",
    "the same, keep_vectors=False": "audit_composition, keep_vectors=False",
    "audit_composition, two components": "audit_composition",
    "predict_merge, two experts": "predict_merge",
}


def against_peaks(stored: dict[str, Any]) -> list[dict[str, Any]]:
    """Counted bytes against the peaks of processes, beyond what a process takes that does no more than import."""
    work = {"examples": 8, "batch": 2, "products": peak_memory.PRODUCTS, "experts": 2}
    rows = []
    for place, width in enumerate(peak_memory.FULL["widths"]):
        counted = count(peak_memory.config(width), stored["tokens"][0], torch.float32)
        sizes = planned(counted, 4, work)
        for name, quantity in MEASURED.items():
            if name in stored["models"]:
                own, found = sizes[quantity], stored["models"][name][place] - stored["import"]
                rows.append({"parameters": counted["parameters"], "quantity": name, "measured": found, **own})
    return rows


def against_seconds(config: LlamaConfig, tokens: int, batch: int, repeats: int) -> dict[str, Any]:
    """Counted operations against seconds of a model that runs here."""
    counted = count(config, tokens, torch.float32)
    here = Counted(config, tokens, torch.float32, "cpu", batch)
    seconds = {}
    with differentiable_twice():
        for name, step in here.steps().items():
            times = []
            for _ in range(repeats):
                start = time.perf_counter()
                step()
                times.append(time.perf_counter() - start)
            seconds[name] = min(times)
    flops = {name: batch * each for name, each in counted["flops"].items()}
    return {"parameters": counted["parameters"], "seconds": seconds, "flops": flops}


def run(out: Path, console: Console, *, quick: bool = False) -> None:
    """Count and compare."""
    config = peak_memory.config(16) if quick else billion()
    work = {**WORK, "tokens": 16} if quick else WORK
    counted = {name: count(config, work["tokens"], dtype) for name, dtype in TYPES.items()}
    console.print("counted")
    small, repeats = (peak_memory.config(16), 1) if quick else (peak_memory.config(1024), 5)
    found: dict[str, Any] = {"work": work, "counted": counted}
    found["seconds"] = against_seconds(small, 128, 4, repeats)
    found["peaks"] = [] if quick else against_peaks(read_record(peak_memory.RESULTS))
    found["planned"] = {name: planned(each, TYPES[name].itemsize, work) for name, each in counted.items()}
    about = {"machine": platform.machine(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    write_json(out, {"environment": {**about, "load": os.getloadavg()}, **found})


def tables(stored: dict[str, Any]) -> dict[str, list[list[str]]]:
    """What was counted, by title: a row of headings, then rows of cells.

    Args:
        stored: The stored results.

    Returns:
        The tables.
    """
    # Their number does not depend on the type.
    counted, planned_ = stored["counted"]["bf16"], stored["planned"]
    passes_ = [
        [name, f"{each / 1e12:.2f}", f"{each / counted['flops']['forward']:.2f}"]
        for name, each in counted["flops"].items()
    ]
    plan = []
    for name, each in planned_["bf16"].items():
        if each["flops"]:
            row = [name, f"{each['flops'] / 1e15:.1f}"]
            for kind in planned_:
                sizes = planned_[kind][name]
                total = (sizes["vectors"] + sizes["graphs"]) / 1e9
                fits = next((f"{size}" for size in DEVICES if total < size), "none")
                row += [f"{sizes['vectors'] / 1e9:.1f} + {sizes['graphs'] / 1e9:.1f}", fits]
            plan.append(row)
    seconds, flops = stored["seconds"]["seconds"], stored["seconds"]["flops"]
    speed = [
        [
            *(name, f"{flops[name] / 1e9:.1f}", f"{seconds[name]:.2f}", f"{flops[name] / seconds[name] / 1e9:.0f}"),
            *(f"{seconds[name] / seconds['forward']:.2f}", f"{flops[name] / flops['forward']:.2f}"),
        ]
        for name in seconds
    ]
    return {
        "One sequence": [["pass", "TFLOP", "in forward passes"], *passes_],
        "A plan": [["quantity", "PFLOP", "bf16: vectors + graphs, GB", "fits", "fp32: GB", "fits"], *plan],
        "Counted operations against seconds": [
            ["pass", "counted GFLOP", "seconds", "GFLOP/s", "seconds, in forward passes", "counted, in forward passes"],
            *speed,
        ],
        "Counted bytes against peaks": _peaks(stored["peaks"]),
    }


def _peaks(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Measured over counted bytes, a column for each size."""
    sizes = sorted({row["parameters"] for row in rows})
    found = {(row["quantity"], row["parameters"]): row for row in rows}
    ratio = lambda row: f"{row['measured'] / (row['vectors'] + row['graphs']):.2f}"  # noqa: E731
    names = dict.fromkeys(row["quantity"] for row in rows)
    return [
        ["measured over counted", *(f"{size / 1e6:.1f} M parameters" for size in sizes)],
        *([name, *(ratio(found[name, size]) for size in sizes)] for name in names),
    ]


def main(arguments: list[str] | None = None) -> None:
    """Count or show what is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a dry run")
    parser.add_argument("--show", action="store_true", help="print the tables from the stored results")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    console = Console(width=120)
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder) / "quick.json", console, quick=True)
            print_tables(tables(read_record(Path(folder) / "quick.json")), console)
        return
    if not options.show:
        run(options.out, console)
    print_tables(tables(read_record(options.out)), console)


if __name__ == "__main__":
    main()
