"""Every measure that takes models whose parameters several processes hold in parts, and what is refused of them.

python -m tests.parallel.parts FOLDER     in each process: stores what it found
"""

import copy
import json
import os
import sys
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import distributed as dist

import diagnostics as dx
from diagnostics.measures.hessian import HessianOperator
from diagnostics.measures.vectors import flatten
from tests.cases import small_network
from tests.inputs.tiny_models import causal_lm
from tests.parallel.quantities import vector_like


def whole(value):
    """All of a tensor, on every process."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def split(value, like):
    """A tensor held as another one is."""
    if not hasattr(like, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, like.device_mesh, like.placements)


def shared(module):
    """A module whose parameters the processes hold in parts, where there are several."""
    return dx.shard_parameters(copy.deepcopy(module)) if dist.is_initialized() else module


def flat(vector):
    return torch.cat([whole(value).reshape(-1) for value in vector.values()])


def network(seed):
    """A task of 11 examples, in a batch for the folds to cut, and the parameters of its network."""
    module, generator = shared(small_network(0)), torch.Generator().manual_seed(seed)
    inputs = torch.randn(11, 3, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 2, (11,), generator=generator)
    data = (inputs, targets)
    task = dx.Task.from_module(f"task {seed}", module, torch.nn.functional.cross_entropy, data, batch_size=6)
    return task, {name: value.detach() for name, value in module.named_parameters()}


def language(seed=0):
    """A task of a language model with tied embeddings."""
    module = shared(causal_lm("llama", tie_word_embeddings=True, num_hidden_layers=1))
    pairs = [((1, 2), (3,)), ((2,), (4, 4)), ((3,), (1, 5)), ((6,), (2, 5)), ((5, 1), (6,))]
    task = dx.Task.from_causal_lm("text", module, None, pairs, instruction=(seed + 1, 2), batch_size=3)
    return task, {name: value.detach() for name, value in module.named_parameters()}


def of_task(made, norms):
    """What is measured on one task."""
    task, params = made
    whole_vector = vector_like({name: whole(value) for name, value in params.items()}, 1)
    vector = {name: split(value, params[name]) for name, value in whole_vector.items()}
    value, slope = dx.gradient(task, params)
    yield "loss and score", torch.tensor([value, task.mean_loss(params), task.score(params)])
    yield "gradient", flat(slope)
    yield "product", flat(dx.hessian_vector_product(task, params, vector))
    for memory in (None, 0):
        hessian = HessianOperator(task, params, memory=memory)
        assert bool(hessian.kept) == (memory is None)
        image = dict(zip(params, params.values(), strict=True))
        parts = hessian(flatten(vector)).split([flatten({name: each}).numel() for name, each in image.items()])
        square = sum(float(part @ part) for part in parts)
        yield f"square of a product, memory {memory}", total(square, params)
    for method, products in norms:
        found = dx.spectral_norm(task, params, method=method, products=products, max_products=5)
        yield f"{method}, {products}", torch.tensor([found.value, found.lower, found.upper, found.products])


def total(number, params):
    """A number that processes hold parts of."""
    sums = torch.tensor(number, dtype=torch.float64)
    if hasattr(next(iter(params.values())), "full_tensor"):
        dist.all_reduce(sums)
    return sums


def of_alignment():
    """Gradients of three tasks against each other."""
    (first, params), (second, _), (third, _) = map(network, range(3))
    vector = {name: 0.1 * value for name, value in params.items()}
    aligned = dx.gradient_alignment(first, [second, third, vector], params, folds=4)
    yield "alignment", torch.cat([torch.tensor([*aligned.alphas, aligned.norm, aligned.norm_unbiased]).double()])
    yield "alignment, inner products", aligned.gram
    yield "alignment error", flat(aligned.error)


def of_audit(model, **options):
    """An audit of a composition, its vectors kept or sketched."""
    lists = [[((1,), (4,)), ((2, 3), (5, 1)), ((4,), (2,)), ((5, 5), (1,)), ((2,), (3,))] for _ in range(2)]
    target = [((1, 2), (3,)), ((2,), (4, 4)), ((3,), (1,)), ((6,), (2, 5))]
    given = {"instructions": [(5, 2), (3,)], "target_examples": target, "component_examples": lists, "folds": 2}
    audit = dx.audit_composition(shared(model), None, **given, **options)
    yield "audit", torch.tensor([*audit.alphas, audit.relative, *(term.norm for term in audit.terms.values())])
    yield "audit, inner products", audit.gram


def quantities_in_parts():
    """Every quantity by name, as a float64 tensor."""
    found = {}
    small = causal_lm("llama", num_hidden_layers=1)
    every = [("lanczos", "exact"), ("lanczos", "differences"), ("power", "exact")]
    for kind, values in (
        ("network", of_task(network(0), every)),
        ("language model", of_task(language(), every[:1])),
        ("network", of_alignment()),
        ("two dimensions", of_two_dimensions()),
        ("sketched", of_audit(small, keep_vectors=False, sketch_size=200)),
        ("some parameters", of_audit(small, parameters=["*.self_attn.*"])),
    ):
        found |= {f"in parts, {kind}: {name}": value for name, value in values}
    return {name: torch.as_tensor(value, dtype=torch.float64) for name, value in found.items()}


def of_two_dimensions():
    """One task whose batches one dimension of a mesh shares, and whose weights the other."""
    module, generator = small_network(0), torch.Generator().manual_seed(0)
    mesh = None
    if dist.is_initialized():
        from torch.distributed.device_mesh import init_device_mesh

        mesh = init_device_mesh("cpu", (dist.get_world_size(), 1), mesh_dim_names=("data", "shard"))
        dx.shard_parameters(module, mesh["shard"])
    data = (torch.randn(11, 3, generator=generator).double(), torch.arange(11) % 2)
    task = dx.Task.from_module("t", module, torch.nn.functional.cross_entropy, data, batch_size=2)
    params = {name: value.detach() for name, value in module.named_parameters()}
    with nullcontext() if mesh is None else dx.data_parallel(mesh["data"].get_group()):
        yield "gradient", flat(dx.gradient(task, params)[1])
        yield "norm", dx.spectral_norm(task, params).value


def shares():
    """Bytes that this process holds of a model and of its graphs, and all that there are."""
    task, params = language()
    hessian = HessianOperator(task, params)
    held = sum(value.to_local().nbytes for value in params.values())
    return {"held": held, "whole": sum(value.nbytes for value in params.values()), "graphs": hessian.kept_bytes}


def refusals(folder):
    """What cannot be done with a model that is held in parts, and what is said about it."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    task, params = network(0)
    managed = fully_shard(small_network(), mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    mixed = {name: whole(value) if name == "2.bias" else value for name, value in params.items()}
    data = (torch.zeros(2, 3).double(), torch.tensor([0, 1]))
    file = folder / f"{dist.get_rank()}.safetensors"
    save_file({name: torch.zeros(1, 2) for name in params}, file)
    with torch.device("meta"):
        empty = torch.nn.BatchNorm1d(3)

    def in_a_team():
        with dx.data_parallel():
            dx.gradient(task, params)

    found = {}
    for name, work in {
        "a team of the same processes": in_a_team,
        "fully_shard": lambda: dx.Task.from_module("t", managed, torch.nn.functional.cross_entropy, data),
        "some parameters whole": lambda: dx.spectral_norm(task, mixed),
        "a merge problem": lambda: dx.MergeProblem(params, {"a": params}, {"a": task}),
        "geometry": lambda: dx.geometry(params, {"a": params}),
        "a cache": lambda: dict(of_audit(causal_lm("llama", num_hidden_layers=1), cache=folder / "cache")),
        "other weights": lambda: dx.shard_parameters(small_network(), weights=file),
        "no values": lambda: dx.shard_parameters(empty),
        "numbers": lambda: dx.shard_parameters(torch.nn.ParameterList([torch.tensor(1.0)])),
    }.items():
        try:
            work()
        except (dx.InputError, dx.ProcessError) as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


def from_a_file(folder):
    """How far a model is from that of a file of which each process reads its own rows."""
    model = small_network()
    file = folder / f"model-{dist.get_rank()}.safetensors"
    save_file({name: value.detach() for name, value in model.named_parameters()}, file)
    with torch.device("meta"):
        made = small_network()
    read = dict(dx.shard_parameters(made, weights=file).named_parameters())
    return max(float((whole(read[name]) - value).detach().abs().max()) for name, value in model.named_parameters())


def main(folder):
    """Measure, and store what this process found."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    out = Path(folder) / str(dist.get_rank())
    torch.save(quantities_in_parts(), out.with_suffix(".pt"))
    told = {"refusals": refusals(out.parent), "shares": shares(), "from a file": from_a_file(out.parent)}
    out.with_suffix(".json").write_text(json.dumps(told))
    dist.barrier()  # one that ends while another still talks to it aborts that one
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
    # Threads of process groups that FSDP2 and meshes made may still run, and would abort the interpreter at its end.
    os._exit(0)
