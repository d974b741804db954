"""Gradients, Hessian products and ways against dense float64 definitions."""

import gc
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics import InputError, Task, gradient, hessian_vector_product
from diagnostics.measures.curvature import jet, subspace_hessian
from diagnostics.measures.paths import measure_way
from diagnostics.measures.reference import dense_gradient, dense_hessian
from diagnostics.measures.vectors import flatten, inner, shifted, unflatten
from tests.cases import small_task


def whole_loss(task):
    """The loss over all examples as one batch: the definition that batching must reproduce."""
    batches = list(task.batches)
    whole = (torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches]))
    return lambda params: task.loss(params, whole)


def direction(params, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(value.shape, generator=generator, dtype=value.dtype) for key, value in params.items()}


@settings(max_examples=15)
@given(seed=st.integers(0, 100), count=st.integers(1, 11), batch_size=st.integers(1, 5))
def test_gradient_and_product_equal_the_dense_ones(seed, count, batch_size):
    task, params = small_task(seed=seed, count=count, batch_size=batch_size)
    vector = direction(params, seed)
    value, slope = gradient(task, params)
    assert value == pytest.approx(float(whole_loss(task)(params)), rel=1e-12)
    np.testing.assert_allclose(flatten(slope), dense_gradient(whole_loss(task), params), atol=1e-8)
    dense = dense_hessian(whole_loss(task), params) @ flatten(vector).numpy()
    np.testing.assert_allclose(flatten(hessian_vector_product(task, params, vector)), dense, atol=1e-12)


def test_unequal_batches_weighted_by_batch_instead_of_example_would_be_caught():
    task, params = small_task(count=10, batch_size=4)  # sizes 4, 4, 2
    unweighted = np.mean([float(task.loss(params, batch)) for batch in task.batches])
    assert abs(unweighted - float(whole_loss(task)(params))) > 1e-6
    assert task.mean_loss(params) == pytest.approx(float(whole_loss(task)(params)), rel=1e-12)


def test_jet_agrees_with_its_parts():
    task, params = small_task()
    vector = direction(params)
    found = jet(task, params, vector)
    value, slope = gradient(task, params)
    assert found.value == pytest.approx(value, rel=1e-12)
    assert found.slope == pytest.approx(inner(slope, vector))
    assert found.curvature == pytest.approx(inner(hessian_vector_product(task, params, vector), vector))


def test_subspace_hessian_is_the_projected_dense_hessian():
    task, params = small_task()
    vectors = {name: direction(params, seed) for seed, name in enumerate("abc")}
    basis = np.stack([flatten(vector).numpy() for vector in vectors.values()])
    dense = basis @ dense_hessian(whole_loss(task), params) @ basis.T
    np.testing.assert_allclose(subspace_hessian(task, params, vectors), dense, rtol=1e-10, atol=1e-10)
    weights = {"a": 0.5, "b": -2.0, "c": 0.0}
    mixed = {key: sum(w * vectors[name][key] for name, w in weights.items()) for key in params}
    known = (weights, hessian_vector_product(task, params, mixed))
    np.testing.assert_allclose(subspace_hessian(task, params, vectors, known), dense, atol=1e-10)


def test_a_known_product_saves_one_and_is_really_used():
    task, params = small_task()
    vectors = {name: direction(params, seed) for seed, name in enumerate("ab")}
    wrong = ({"a": 0.1, "b": 1.0}, {key: torch.zeros_like(value) for key, value in params.items()})
    right = subspace_hessian(task, params, vectors)
    assert not torch.allclose(subspace_hessian(task, params, vectors, wrong), right)


def test_where_all_is_known_nothing_is_differentiated():
    def loss(params, batch):
        raise AssertionError("a gradient that nobody needs")

    params = {"w": torch.tensor([1.0, 2.0])}
    found = subspace_hessian(Task("t", loss, [0]), params, {"a": params}, ({"a": 2.0}, {"w": torch.tensor([3.0, 4.0])}))
    assert found.tolist() == [[(1 * 3 + 2 * 4) / 2]]


def test_a_jet_holds_the_graph_of_one_batch_at_a_time():
    held, alive = [], []

    def loss(params, batch):
        alive.append(sum(saved() is not None for saved in held))
        middle = (params["w"] * batch).exp()
        held.append(weakref.ref(middle.untyped_storage()))
        return middle.sum()

    jet(Task("t", loss, list(torch.ones(4, 1))), {"w": torch.ones(3)}, {"w": torch.ones(3)})
    gc.collect()
    assert len(alive) == 4 and not any(alive), f"graphs of {alive} earlier batches are there when the next is made"
    assert not any(saved() is not None for saved in held)


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_vectors_that_do_not_fit_are_refused(change):
    task, params = small_task()
    vector = direction(params)
    if_missing = {key: value for key, value in vector.items() if key != "0.bias"}
    wrong = {
        "missing": if_missing,
        "extra": {**vector, "more": torch.ones(1)},
        "shape": {**vector, "0.bias": torch.ones(7, dtype=torch.float64)},
    }[change]
    with pytest.raises(InputError, match=r"0\.bias|more"):
        hessian_vector_product(task, params, wrong)


def test_attention_without_a_second_derivative_is_switched():
    """Fused attention cannot be differentiated in forward mode; the product must work and be right all the same."""
    torch.manual_seed(0)

    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.project = torch.nn.Linear(4, 12)

        def forward(self, x):
            q, k, v = self.project(x).chunk(3, dim=-1)
            return torch.nn.functional.scaled_dot_product_attention(q, k, v).mean(1)

    model = Attention().double()
    data = (torch.randn(3, 5, 4, dtype=torch.float64), torch.tensor([0, 1, 2]))
    task = Task.from_module("attention", model, torch.nn.functional.cross_entropy, data)
    params = {key: value.detach() for key, value in model.named_parameters()}
    vector = direction(params)
    step = 1e-5
    ends = [flatten(gradient(task, shifted(params, sign * step, vector))[1]) for sign in (1, -1)]
    numeric = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(flatten(hessian_vector_product(task, params, vector)), numeric, atol=1e-7)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_flatten_and_unflatten_are_inverse(seed):
    _, params = small_task(seed=seed % 7)
    vector = direction(params, seed)
    assert inner(vector, vector) == pytest.approx(float((flatten(vector) ** 2).sum()))
    back = unflatten(flatten(vector), params)
    assert all(torch.equal(back[key], vector[key]) for key in vector)


def test_way_closes_taylors_formula_on_a_smooth_loss():
    task, params = small_task()
    vector = direction(params, 3)
    way = measure_way(task, params, vector)
    end = {key: value + vector[key] for key, value in params.items()}
    assert way.rise == pytest.approx(task.mean_loss(end) - task.mean_loss(params))
    assert way.mismatch <= way.tolerance
    assert way.norm_squared == pytest.approx(inner(vector, vector))


def test_way_sees_a_kink_between_its_nodes():
    """|w| has slope and curvature everywhere but at 0, and Taylor's formula does not close across it."""
    task = Task("kink", lambda p, b: p["w"].abs().sum() * b.sum(), [torch.ones(1, dtype=torch.float64)])
    way = measure_way(task, {"w": torch.tensor([-0.3], dtype=torch.float64)}, {"w": torch.ones(1).double()})
    assert way.mismatch > way.tolerance
    assert len(way.nodes) == 17, "more nodes must be tried before the loss is called not smooth"


@pytest.mark.parametrize("loss", [lambda w: (w**2).sum(), lambda w: w.abs().sum()], ids=["smooth", "kinked"])
def test_way_keeps_the_products_asked_for_at_every_resolution(loss):
    task = Task("t", lambda p, b: loss(p["w"]) * b.sum(), [torch.ones(1, dtype=torch.float64)])
    start, move = {"w": torch.tensor([-0.3, 1.0]).double()}, {"w": torch.ones(2).double()}
    assert sorted(measure_way(task, start, move, keep=(0.0, 0.5, 1.0)).products) == [0.0, 0.5, 1.0]


def test_way_adds_nodes_only_where_needed():
    task = Task("cube", lambda p, b: (p["w"] ** 3).sum() * b.sum(), [torch.ones(1, dtype=torch.float64)])
    way = measure_way(task, {"w": torch.ones(2).double()}, {"w": torch.ones(2).double()})
    assert way.hessian_products == 5
    assert way.integral == pytest.approx(8.0)  # 2·(2³ − 1³ − 3)


@pytest.mark.parametrize(
    "layer", [torch.nn.LayerNorm(4), torch.nn.SiLU(), torch.nn.GELU()], ids=lambda x: type(x).__name__
)
def test_product_agrees_with_two_backward_passes_through_layers_of_transformers(layer):
    """Forward mode alone, taken twice, is silently wrong for LayerNorm in some releases of PyTorch."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), layer, torch.nn.Linear(4, 2)).double()
    data = (torch.randn(6, 3, dtype=torch.float64), torch.randint(0, 2, (6,)))
    task = Task.from_module("t", model, torch.nn.functional.cross_entropy, data)
    point = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    vector = {name: torch.randn_like(value) for name, value in point.items()}
    loss = torch.nn.functional.cross_entropy(torch.func.functional_call(model, point, data[0]), data[1])
    slopes = torch.autograd.grad(loss, list(point.values()), create_graph=True)
    along = sum((slope * vector[name]).sum() for name, slope in zip(point, slopes, strict=True))
    expected = torch.autograd.grad(along, list(point.values()))
    found = hessian_vector_product(task, {name: value.detach() for name, value in point.items()}, vector)
    for name, value in zip(point, expected, strict=True):
        np.testing.assert_allclose(found[name], value, atol=1e-12, err_msg=name)


def test_a_direction_is_taken_in_the_type_of_the_parameters():
    task = Task("cube", lambda p, b: (p["w"] ** 3).sum(), [torch.zeros(1)])
    wide = {"w": torch.tensor([0.1, 0.7], dtype=torch.float64)}
    narrow = {"w": wide["w"].float()}
    found, expected = (jet(task, {"w": torch.tensor([0.3, 0.9])}, vector) for vector in (wide, narrow))
    assert (found.slope, found.curvature) == (expected.slope, expected.curvature)
    assert torch.equal(found.product["w"], expected.product["w"])
