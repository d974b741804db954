"""What the package measures, on models large enough that torch shares their sums among threads.

python -m tests.robustness.quantities FILE     stores what a fresh process finds
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from safetensors.torch import save_file
from torch import Tensor

import diagnostics as dx
from diagnostics.measures.vectors import flatten
from tests.inputs.tiny_models import causal_lm

INPUTS, HIDDEN, CLASSES = 16, 512, 5
# Enough that torch shares sums over all hidden units among threads; merges are measured on fewer, to be quick.
EXAMPLES, FEW = 70, 10
NAMES = ("a", "b", "c")


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal numbers from a generator of their own."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def network(dtype: torch.dtype) -> torch.nn.Module:
    """A smooth classifier of 16 features."""
    with torch.random.fork_rng(devices=[]):
        layers = (torch.nn.Linear(INPUTS, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, CLASSES))
    return torch.nn.Sequential(*layers).to(dtype)


def parameters(dtype: torch.dtype, seed: int = 0) -> dict[str, Tensor]:
    """Weights of the classifier."""
    shapes = {name: value.shape for name, value in network(dtype).named_parameters()}
    return {
        name: draw(seed + i, *shape, dtype=dtype) / shape[-1] ** 0.5 for i, (name, shape) in enumerate(shapes.items())
    }


def task(name: str, seed: int, dtype: torch.dtype, batch_size: int, examples: int) -> dx.Task:
    """Classification of random points by a random direction for each class."""
    inputs = draw(seed, examples, INPUTS, dtype=dtype)
    targets = (inputs.double() @ draw(seed + 1, INPUTS, CLASSES)).argmax(1)
    criterion = torch.nn.functional.cross_entropy
    return dx.Task.from_module(name, network(dtype), criterion, (inputs, targets), batch_size=batch_size)


def problem(dtype: torch.dtype, batch_size: int) -> dx.MergeProblem:
    """Three experts, each a step down its own gradient from the base."""
    base, tasks, experts = parameters(dtype), {}, {}
    for seed, name in enumerate(NAMES):
        tasks[name] = task(name, 100 * (seed + 1), dtype, batch_size, FEW)
        # The same experts whatever is varied: their gradients are taken once and for all in the same way.
        slope = dx.gradient(task(name, 100 * (seed + 1), torch.float64, FEW, FEW), parameters(torch.float64))[1]
        experts[name] = {key: (value.double() - 3 * slope[key]).to(dtype) for key, value in base.items()}
    return dx.MergeProblem(base, experts, tasks)


def numbers(*values: object) -> Tensor:
    """Numbers of any kind as one float64 tensor."""
    return torch.cat([torch.as_tensor(value, dtype=torch.float64).reshape(-1) for value in values])


def of_task(dtype: torch.dtype, batch_size: int) -> dict[str, Tensor]:
    """What is measured of one task."""
    one, params = task("a", 100, dtype, batch_size, EXAMPLES), parameters(dtype)
    vector = {name: draw(50 + i, *value.shape, dtype=dtype) for i, (name, value) in enumerate(params.items())}
    loss, slope = dx.gradient(one, params)
    norm = dx.spectral_norm(one, params)
    return {
        "loss": numbers(loss),
        "gradient": flatten(slope).double(),
        "hessian_vector_product": flatten(dx.hessian_vector_product(one, params, vector)).double(),
        "spectral_norm": numbers(norm.value, norm.eigenvalue, norm.lower, norm.upper),
    }


def of_problem(dtype: torch.dtype, batch_size: int) -> dict[str, Tensor]:
    """What is measured of a merge."""
    given = problem(dtype, batch_size)
    first, *others = given.tasks.values()
    aligned = dx.gradient_alignment(first, others, given.base, folds=4)
    told = dx.predict_merge(given, 0.4).tasks.values()
    bounds = dx.addition_bounds(given, {"a": 0.5, "b": 0.3, "c": 0.2}).values()
    chosen = dx.best_coefficients(given)
    shape = dx.geometry(given.base, given.experts)
    return {
        "gradient_alignment": numbers(aligned.alphas, aligned.norm, aligned.relative, aligned.cosines),
        "gradient_alignment, Gram matrix": numbers(aligned.gram),
        "predict_merge, loss": numbers(
            *(x for each in told for x in (each.loss.value, each.loss.lower, each.loss.upper))
        ),
        "predict_merge, retention": numbers(*(each.retention.value for each in told)),
        "addition_bounds": numbers(*(x for each in bounds for x in (each.gap, each.bound, each.best))),
        "best_coefficients": numbers(list(chosen.coefficients.values())),
        "geometry": numbers(shape.gram, shape.norms, shape.cosine, shape.C, shape.epsilon),
    }


def of_composition(dtype: torch.dtype, batch_size: int) -> dict[str, Tensor]:
    """What is measured of a composition."""
    generator = torch.Generator().manual_seed(5)

    def examples() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        lengths = torch.randint(1, 4, (12, 2), generator=generator).tolist()
        return [tuple(tuple(torch.randint(1, 7, (n,), generator=generator).tolist()) for n in pair) for pair in lengths]

    with torch.random.fork_rng(devices=[]):
        model = causal_lm("llama", dtype=dtype)
    audit = dx.audit_composition(
        model,
        None,
        instructions=[(5, 2), (3,)],
        target_examples=examples(),
        component_examples=[examples(), examples()],
        folds=4,
        batch_size=batch_size,
    )
    return {
        "audit_composition": numbers(audit.alphas, audit.relative, [term.norm for term in audit.terms.values()]),
        "audit_composition, Gram matrix": numbers(audit.gram),
    }


PARTS: tuple[Callable[[torch.dtype, int], dict[str, Tensor]], ...] = (of_task, of_problem, of_composition)


def quantities(dtype: torch.dtype, batch_size: int) -> dict[str, Tensor]:
    """Everything, by name."""
    return {name: value for part in PARTS for name, value in part(dtype, batch_size).items()}


def main(path: str) -> None:
    """Measure in both types, and store."""
    torch.set_num_threads(1)
    found = {str(dtype): quantities(dtype, 7) for dtype in (torch.float32, torch.float64)}
    save_file({f"{kind} {name}": value for kind, part in found.items() for name, value in part.items()}, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
