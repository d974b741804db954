"""What an audit of a composition costs, against loops that do no more than the passes its contexts need.

python -m benchmarks.audit_costs             # results/audit_costs.json, two minutes
python -m benchmarks.audit_costs --quick     # a tiny model, one repetition
"""

from __future__ import annotations

import argparse
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import diagnostics as dx
from diagnostics.inputs.segments import Row, Segmenter, collate
from diagnostics.report.json import write_json

RESULTS = Path(__file__).parent / "results" / "audit_costs.json"
BATCH, FOLDS = 8, 8


def build(width: int, count: int) -> tuple[LlamaForCausalLM, dict[str, Any]]:
    """A random Llama, and instructions with examples of random tokens for it."""
    torch.manual_seed(0)
    config = LlamaConfig(  # type: ignore[call-arg]
        vocab_size=2000,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
        attn_implementation="eager",
    )
    draw = random.Random(0)

    def text(length: int) -> list[int]:
        return [draw.randrange(2, 2000) for _ in range(length)]

    def examples() -> list[tuple[list[int], list[int]]]:
        return [(text(40), text(20)) for _ in range(count)]

    inputs = {
        "instructions": [text(4), text(4)],
        "target_examples": examples(),
        "component_examples": [examples(), examples()],
    }
    return LlamaForCausalLM(config).eval(), inputs


def plain_loop(model: LlamaForCausalLM, inputs: dict[str, Any], separate: bool) -> None:
    """A forward pass for each distinct context, and a backward pass for it, or for each segment that is wanted."""
    segments = Segmenter(None, model)
    first, second = map(tuple, inputs["instructions"])
    contexts = [(inputs["target_examples"], each, True) for each in ((), first, second, first + second)]
    contexts += [(inputs["component_examples"][i], each, False) for i, each in enumerate((first, second))]
    for examples, instruction, has_x in contexts:
        rows = [segments.sequence(((), (), ()), instruction, (tuple(x), tuple(y))) for x, y in examples]
        for start in range(0, len(rows), BATCH):
            x, y = log_likelihoods(model, rows[start : start + BATCH])
            losses = [x, y] if separate and has_x else [x + y]
            for number, loss in enumerate(losses, 1):
                torch.autograd.grad(loss, list(model.parameters()), retain_graph=number < len(losses))


def log_likelihoods(model: LlamaForCausalLM, rows: list[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed log-likelihoods of the x and the y of a batch."""
    batch = collate(rows, 0)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    each = logits[:, :-1].log_softmax(-1).gather(2, batch["input_ids"][:, 1:, None])[..., 0]
    return (each * batch["x"]).sum(), (each * batch["y"]).sum()


def interleaved(works: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each work, the works taken in turn so that a busy machine hurts all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(repeats + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            times[name] += [time.perf_counter() - started] if number else []
    return {name: statistics.median(each) for name, each in times.items()}


def peak(keep: bool, width: int) -> float:
    """Memory that an audit takes above what the process had before, in units of one gradient."""
    model, inputs = build(width, 16)
    bytes_of_gradient = sum(4 * value.numel() for value in model.parameters())
    before = high_water()
    dx.audit_composition(model, None, **inputs, batch_size=2, folds=FOLDS, keep_vectors=keep)
    return (high_water() - before) / bytes_of_gradient


def high_water() -> int:
    """Most bytes this process has held; ru_maxrss would count those of the process that started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found.group(1)) if found else 0


def measured_peaks(quick: bool) -> dict[str, float]:
    """Peaks with vectors kept and without, each in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.audit_costs", *(["--quick"] if quick else [])]
    return {
        kind: float(subprocess.run([*command, "--peak", kind], check=True, capture_output=True, text=True).stdout)
        for kind in ("kept", "sketched")
    }


def main(arguments: list[str] | None = None) -> None:
    """Time audits and loops, and measure what sketching changes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny model, one repetition")
    parser.add_argument("--peak", choices=("kept", "sketched"), help="print the peak memory of one audit, in gradients")
    options_given = parser.parse_args(arguments)
    quick = options_given.quick
    if options_given.peak:
        print(peak(options_given.peak == "kept", 16 if quick else 512))
        return
    model, inputs = build(*((16, 16) if quick else (160, 192)))
    options = {**inputs, "batch_size": BATCH, "folds": FOLDS}
    size = 1 << 12 if quick else 1 << 18
    works = {
        "loop, one backward pass a context": lambda: plain_loop(model, inputs, separate=False),
        "loop, one backward pass a segment": lambda: plain_loop(model, inputs, separate=True),
        "audit": lambda: dx.audit_composition(model, None, **options, sketch_size=size),
        "audit, interaction not split": lambda: dx.audit_composition(
            model, None, **options, sketch_size=size, split_interaction=False
        ),
        "audit without vectors": lambda: dx.audit_composition(
            model, None, **options, sketch_size=size, keep_vectors=False
        ),
    }
    seconds = interleaved(works, 1 if quick else 3)
    base = seconds["loop, one backward pass a segment"]
    dimension = sum(value.numel() for value in model.parameters())
    exact, sketched = (
        dx.audit_composition(model, None, **options, sketch_size=each, keep_vectors=keep)
        for each, keep in ((dimension, True), (size, False))
    )
    norms = exact.gram.diagonal().sqrt()
    scale = torch.outer(norms, norms).clamp_min(1e-30)
    result: dict[str, Any] = {
        "parameters": dimension,
        "examples": len(inputs["target_examples"]),
        "cost": str(exact.cost),
        "seconds": seconds,
        "ratio to one backward pass a segment": {name: each / base for name, each in seconds.items()},
        "ratio to one backward pass a context": {
            name: each / seconds["loop, one backward pass a context"] for name, each in seconds.items()
        },
        "sketch": {
            "size": size,
            "stated error of inner products": (2 / size) ** 0.5,
            "largest error of inner products": float(((sketched.gram - exact.gram) / scale).abs().max()),
            "relative error": [exact.relative_estimate.value, sketched.relative_estimate.value],
        },
        "peak memory in gradients": measured_peaks(quick),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }
    for label, value in result["ratio to one backward pass a segment"].items():
        other = result["ratio to one backward pass a context"][label]
        print(
            f"{label}: {seconds[label]:.2f} s, {other:.2f} of a backward pass a context, {value:.2f} of one a segment"
        )
    sketch = result["sketch"]
    print(
        f"sketch of {size:,} of {dimension:,} numbers: inner products off by at most "
        f"{sketch['largest error of inner products']:.2%} of the norms (stated standard error "
        f"{sketch['stated error of inner products']:.2%})"
    )
    for kind, value in result["peak memory in gradients"].items():
        print(f"peak memory, vectors {kind}: {value:.1f} gradients above the model")
    if not quick:
        write_json(RESULTS, result)


if __name__ == "__main__":
    main()
