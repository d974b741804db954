"""Gradients on folds, against loops over examples; more in tests/verdicts/test_alignment.py."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics.errors import InputError
from diagnostics.inputs.tasks import Task
from diagnostics.measures import folds as module
from diagnostics.measures.folds import FoldedGradients, task_folds, widened
from diagnostics.measures.space import Space
from tests.measures.several import held_by, together

POINT = {"a": torch.zeros(2, dtype=torch.float64), "b": torch.zeros(1, 3, dtype=torch.float64)}


def rows(seed, count):
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(name, gradients, batch_size):
    """A task whose gradient at every point is the mean of some rows."""
    return Task(
        name,
        lambda p, b: (b @ torch.cat([p["a"], p["b"].reshape(-1)])).mean(),
        list(gradients.split(batch_size)),
    )


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    sizes=st.tuples(st.integers(3, 7), st.integers(3, 7)),
    batch=st.integers(1, 3),
    folds=st.integers(1, 4),
)
def test_folds_hold_means_over_their_examples_and_their_shares(seed, sizes, batch, folds):
    data = {name: rows(seed + i, size) for i, (name, size) in enumerate(zip("xy", sizes, strict=True))}
    tasks = {name: linear(name, each, batch) for name, each in data.items()}
    constant = {"a": torch.tensor([1.0, -2.0]), "b": torch.tensor([[0.5, 0.0, 3.0]])}
    found = task_folds(tasks, POINT, folds, constants={"c": constant})
    count = len(found.weights)
    flat = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0], dtype=torch.float64)
    means, shares = torch.zeros(count, 3, 5, dtype=torch.float64), torch.zeros(count, 3, dtype=torch.float64)
    for index, name in enumerate("xy"):
        whole = len(data[name].split(batch)) >= folds or batch == 1
        parts = data[name].split(batch) if whole else data[name].split(1)
        for number, part in enumerate(parts):
            means[number % count, index] += part.sum(0)
            shares[number % count, index] += len(part)
        means[:, index] /= shares[:, index, None]
        shares[:, index] /= len(data[name])
    means[:, 2], shares[:, 2] = flat, 1 / count
    assert found.names == ("x", "y", "c") and torch.allclose(found.weights, shares)
    assert torch.allclose(found.products(), torch.einsum("fad,gbd->fagb", means, means))
    every = torch.stack([data["x"].mean(0), data["y"].mean(0), flat])
    assert torch.allclose(found.plugin(), every @ every.T)
    row = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    combined = found.combine(row)
    assert combined["a"].tolist() == pytest.approx((row @ every)[:2].tolist()) and combined["b"].shape == (1, 3)
    assert combined["b"].flatten().tolist() == pytest.approx((row @ every)[2:].tolist())
    assert found.norm(row) == pytest.approx(float((row @ every).norm()))


def test_there_are_no_more_folds_than_every_task_can_fill():
    tasks = {"x": linear("x", rows(0, 6), 2), "y": linear("y", rows(1, 2), 1)}
    assert len(task_folds(tasks, POINT, 5).weights) == 2
    assert len(task_folds(tasks, POINT, 1).weights) == 1
    only = {"c": {name: value + 1 for name, value in POINT.items()}}
    assert len(task_folds({}, POINT, 3, constants=only).weights) == 3
    assert len(task_folds({"x": tasks["x"]}, POINT, 0).weights) == 1


def test_vectors_that_were_not_kept_have_norms_of_their_sketches():
    gradients = FoldedGradients(["x"], POINT, 2, keep=False)
    data = rows(3, 2)
    assert all(gradients.add(fold, "x", data[fold], 0.5) for fold in (0, 1))
    one = torch.ones(1)
    assert gradients.norm(one) == pytest.approx(float(data.mean(0).norm()))
    assert torch.allclose(gradients.plugin(), (data.mean(0) @ data.mean(0)).reshape(1, 1))
    with pytest.raises(InputError) as caught:
        gradients.combine(one)
    assert str(caught.value) == (
        "vectors were not kept (keep_vectors=False), so that a large model fits; norms, inner products and shares are "
        "there. For vectors, study fewer parameters (parameters=) and keep them."
    )


def test_long_vectors_are_sketched_with_the_seed_and_kept_whole(monkeypatch):
    like = {"w": torch.zeros(400)}
    vector = torch.randn(400, generator=torch.Generator().manual_seed(0))
    one = torch.ones(1)
    norms = []
    for seed in (0, 1):
        gradients = FoldedGradients(["x"], like, 1, sketch_size=50, seed=seed)
        gradients.add(0, "x", vector, 1.0)
        expected = gradients.sketch(vector)
        norms.append(float(gradients.products().sqrt()))
        assert norms[-1] == pytest.approx(float(expected.norm()), rel=1e-5)
        assert gradients.norm(one) == pytest.approx(float(vector.norm()), rel=1e-5), "that of the vector itself"
        assert float(gradients.plugin()) == pytest.approx(float(vector @ vector), rel=1e-5)
    assert norms[0] != pytest.approx(norms[1])
    default = FoldedGradients(["x"], like, 1, sketch_size=50)
    default.add(0, "x", vector, 1.0)
    assert float(default.products().sqrt()) == pytest.approx(norms[0])
    assert FoldedGradients(["x"], like, 1).sketch.exact and module.SKETCH_SIZE == 2**18
    monkeypatch.setattr(module, "_CHUNK", 7)
    assert float(default.plugin()) == pytest.approx(float(vector @ vector), rel=1e-5), "chunks add up"


def test_a_zero_vector_to_add_up_in():
    gradients = FoldedGradients(["x"], {"w": torch.zeros(3, dtype=torch.bfloat16)}, 1)
    zero = gradients.zero()
    assert zero.tolist() == [0.0] * 3 and zero.dtype == torch.float32
    assert FoldedGradients(["x"], POINT, 1).zero().dtype == torch.float64


def test_gradients_are_added_up_in_the_widest_type():
    half, single, double = (torch.zeros(1, dtype=each) for each in (torch.bfloat16, torch.float32, torch.float64))
    assert widened({"a": half}) == widened({"a": half, "b": single}) == torch.float32
    assert widened({"a": double, "b": half}) == torch.float64


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_told_and_refused(value):
    gradients = FoldedGradients(["x"], {"w": torch.zeros(2)}, 1)
    assert not gradients.add(0, "x", torch.tensor([1.0, value]), 1.0)
    steep = Task("steep", lambda p, b: (p["w"] * b).sum(), [torch.ones(1), torch.tensor([value])])
    with pytest.raises(InputError) as caught:
        task_folds({"s": steep}, {"w": torch.ones(1)}, 2)
    assert str(caught.value) == (
        f"task 'steep': expected a finite loss and gradient; found {value} in part 1 of its data. Look for NaN in "
        "inputs or weights, and for overflow in half precision"
    )
    lossy = Task("lossy", lambda p, b: p["w"].sum() + b.sum(), [torch.tensor([value])])
    with pytest.raises(InputError, match="part 0"):
        task_folds({"s": lossy}, {"w": torch.ones(1)}, 2)


def test_a_constant_of_another_shape_is_refused():
    with pytest.raises(InputError, match="shapes"):
        task_folds({}, POINT, 2, constants={"c": {"a": torch.zeros(3), "b": torch.zeros(1, 3)}})


def test_gradients_are_those_at_the_point_given():
    task = Task("q", lambda p, b: 0.5 * (p["w"] ** 2).sum() + 0 * b.sum(), [torch.zeros(1), torch.zeros(1)])
    found = task_folds({"q": task}, {"w": torch.tensor([3.0, 4.0], requires_grad=True)}, 2)
    assert torch.allclose(found.products(), torch.full((2, 1, 2, 1), 25.0).double())


def test_gradients_beyond_the_roots_of_single_precision_have_a_norm():
    gradients = FoldedGradients(["x"], {"w": torch.zeros(4)}, 1)
    gradients.add(0, "x", torch.full((4,), 1e25), 1.0)
    assert gradients.norm(torch.ones(1)) == pytest.approx(2e25) and float(gradients.plugin()) == pytest.approx(4e50)


def test_the_seed_of_the_sketch_is_zero_unless_told():
    point = {"w": torch.zeros(module.SKETCH_SIZE + 1)}
    vector = {"w": torch.randn(module.SKETCH_SIZE + 1, generator=torch.Generator().manual_seed(0))}
    default, zero, one = (
        task_folds({}, point, 1, constants={"c": vector}, **seed).products() for seed in ({}, {"seed": 0}, {"seed": 1})
    )
    assert torch.equal(default, zero) and not torch.allclose(default, one, rtol=1e-6)


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_chunks_of_columns_add_up(chunk, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    data = rows(0, 4)
    assert torch.allclose(module._gram(data, Space(data.shape[1])), data @ data.T)


def test_gradients_are_added_up_where_the_parameters_are():
    gradients = FoldedGradients(["x"], {"w": torch.zeros(40, device="meta")}, 2, sketch_size=8)
    assert [each.device.type for each in gradients.sums] == ["meta", "cpu", "meta"], "shares are numbers of the host"
    assert gradients.sketch(gradients.zero()).device.type == "meta"


def test_as_many_coefficients_as_gradients_are_needed():
    gradients = FoldedGradients(["x", "y"], POINT, 2)
    for count in (1, 3):
        with pytest.raises(ValueError, match=r"shorter|longer"):
            gradients.combine(torch.ones(count))


def filled(like, own, *, keep, size):
    """Two gradients of nine numbers on two folds, each in two goes; what of them a process holds is its own."""
    gradients = FoldedGradients(["x", "y"], like, 2, keep=keep, sketch_size=size, seed=3)
    every = torch.randn(8, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    finite = [
        gradients.add(fold, name, own(every[4 * fold + 2 * index + go]), share)
        for fold in (0, 1)
        for index, name in enumerate("xy")
        for go, share in enumerate((0.3, 0.2))
    ]
    assert all(finite)
    return gradients


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("size", [9, 4])
def test_vectors_in_parts_give_what_whole_ones_give(keep, size):
    point, row = torch.zeros(9, dtype=torch.float64), torch.tensor([2.0, -1.0])
    whole = filled({"w": point}, lambda vector: vector, keep=keep, size=size)

    def measured(rank, _):
        gradients = filled({"w": held_by(point, rank)}, lambda vector: held_by(vector, rank), keep=keep, size=size)
        return gradients.products(), gradients.plugin(), gradients.norm(row)

    for products, plugin, norm in together(measured):
        assert torch.allclose(products, whole.products()) and torch.allclose(plugin, whole.plugin())
        assert norm == pytest.approx(whole.norm(row))


@pytest.mark.parametrize("size", [9, 4])
def test_a_number_that_is_not_finite_is_told_to_those_who_hold_other_parts(size):
    vector = torch.ones(9)
    vector[8] = math.nan
    found = together(
        lambda rank, _: FoldedGradients(["x"], {"w": held_by(vector, rank)}, 1, sketch_size=size).add(
            0, "x", held_by(vector, rank), 1.0
        )
    )
    assert found == [False, False]


@pytest.mark.parametrize("keep", [True, False])
def test_sums_of_processes_that_worked_on_other_folds_add_up(keep):
    """As several processes do that hold whole models and share the data."""
    one, other, whole = (FoldedGradients(["x"], POINT, 2, keep=keep) for _ in range(3))
    data, row = rows(5, 2), torch.ones(1)
    for fold, own in ((0, one), (1, other)):
        own.add(fold, "x", data[fold], 0.5)
        whole.add(fold, "x", data[fold], 0.5)
    for mine, theirs in zip(one.sums, other.sums, strict=True):
        mine += theirs
    assert torch.equal(one.products(), whole.products()) and torch.equal(one.plugin(), whole.plugin())
    assert one.kept is keep and one.norm(row) == pytest.approx(float(data.mean(0).norm()))
