"""Every measure that processes share, on problems with more and with fewer batches than there are processes.

python -m tests.parallel.quantities FOLDER [FAULT]     in each process: stores what it found
"""

import os
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed as dist

import diagnostics as dx
from diagnostics.measures.curvature import jet, subspace_hessian
from diagnostics.measures.hessian import HessianOperator
from diagnostics.measures.outputs import directional_derivatives, pullback
from diagnostics.measures.vectors import flatten
from tests.cases import small_task


def vector_like(params, seed):
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(value.shape, generator=generator, dtype=value.dtype) for key, value in params.items()}


def problem(batch_size, names="abc", cache=None):
    """Experts of a small network, their tasks of 11 examples each."""
    tasks, experts = {}, {}
    for seed, name in enumerate(names):
        tasks[name], base = small_task(name, seed=seed, count=11, batch_size=batch_size)
        move = vector_like(base, seed)
        experts[name] = {key: value + 0.3 * move[key] for key, value in base.items()}
    return dx.MergeProblem(base, experts, tasks, cache=cache)


def of_task(batch_size):
    """What is measured on one task."""
    task, params = small_task(count=11, batch_size=batch_size)
    first, second = vector_like(params, 1), vector_like(params, 2)
    value, slope = dx.gradient(task, params)
    yield "mean loss", task.mean_loss(params)
    yield "score", task.score(params)
    yield "value", value
    yield "gradient", flatten(slope)
    yield "product", flatten(dx.hessian_vector_product(task, params, first))
    yield "curvature", jet(task, params, first).curvature
    yield "subspace", subspace_hessian(task, params, {"a": first, "b": second})
    yield "outputs", torch.cat(task.outputs(params))
    # Processes with less and with more memory have to cut the data alike.
    tight = HessianOperator(task, params, memory=1000 * (1 + 3 * int(os.environ.get("RANK", "0"))))
    yield "product within limits of their own", tight(flatten(first))
    slopes = directional_derivatives(task, params, [first, second])
    yield "derivatives", torch.cat(slopes, 1)
    yield "pullback", flatten(pullback(task, params, task.outputs(params)))
    for method in ("lanczos", "power"):
        found = dx.spectral_norm(task, params, method=method, rtol=1e-6)
        yield method, torch.tensor([found.value, found.lower, found.upper, found.products])


def of_problem(batch_size):
    """What is measured on a merge problem."""
    given = problem(batch_size)
    prediction = dx.predict_merge(given, 0.4)
    for name, task in prediction.tasks.items():
        yield f"predicted loss of {name}", torch.tensor([task.loss.value, task.loss.lower, task.loss.upper])
    yield "coefficients", torch.tensor(list(dx.best_coefficients(given).coefficients.values()))
    for name, report in dx.addition_bounds(given, 1 / 3).items():
        yield f"bounds of {name}", torch.tensor([report.gap, report.bound, report.best])
    tasks = list(given.tasks.values())
    aligned = dx.gradient_alignment(tasks[0], tasks[1:], given.base, folds=4)
    yield "alignment", torch.cat([torch.tensor([*aligned.alphas, aligned.norm]).double(), aligned.gram.flatten()])


def of_cache():
    """Predictions with a folder of each process's own: what one process finds and another does not is measured."""
    with tempfile.TemporaryDirectory() as folder:
        for run in ("first", "second"):
            for names in ("ab", "abc"):  # with three processes, two tasks are shared and three are dealt out
                given = problem(4, names, folder)
                for name, task in dx.predict_merge(given, 0.4).tasks.items():
                    yield f"{run} run with a cache, {name} of {names}", torch.tensor([task.loss.value, task.loss.lower])


def of_audit():
    """What is measured of a composition."""
    from tests.inputs.tiny_models import causal_lm  # slow to import, and not needed where a process is to fail

    lists = [[((1,), (4,)), ((2, 3), (5, 1)), ((4,), (2,)), ((5, 5), (1,)), ((2,), (3,))] for _ in range(2)]
    target = [((1, 2), (3,)), ((2,), (4, 4)), ((3,), (1,)), ((6,), (2, 5))]
    audit = dx.audit_composition(
        causal_lm("gpt2"),
        None,
        instructions=[(5, 2), (3,)],
        target_examples=target,
        component_examples=lists,
        folds=2,
    )
    yield "audit", torch.tensor([*audit.alphas, audit.relative, *(term.norm for term in audit.terms.values())])
    yield "audit gram", audit.gram


def quantities():
    """Every quantity by name, as a float64 tensor."""
    found = {}
    for batch_size in (2, 16):  # six batches, and one
        for values in (of_task(batch_size), of_problem(batch_size)):
            found |= {f"{name}, batches of {batch_size}": value for name, value in values}
    found |= dict(of_cache()) | dict(of_audit())
    return {name: torch.as_tensor(value, dtype=torch.float64) for name, value in found.items()}


def fail(kind):
    """One process refuses its input, or ends without a word, in the middle of shared work."""
    task, params = small_task(count=11, batch_size=2)
    whole = task.loss

    def loss(theta, batch):
        if dist.get_rank() == 1:
            if kind == "death":
                os._exit(7)
            raise dx.InputError("this batch is bad")
        return whole(theta, batch)

    task.loss = loss
    dx.gradient(task, params)


def main(folder, fault=None):
    """Measure, and store what this process found or how it failed."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    out = Path(folder) / str(dist.get_rank())
    try:
        with dx.data_parallel():
            found = fail(fault) if fault else quantities()
        torch.save(found, out.with_suffix(".pt"))
    except (dx.InputError, dx.ProcessError) as error:
        out.with_suffix(".error").write_text(f"{type(error).__name__}: {error}")
    finally:
        if not fault:
            dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
