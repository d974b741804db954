"""Smooth tasks against finite differences, autograd, and the definition of a convex hull."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

import diagnostics as dx
from diagnostics.testing import arrays, numbers, smooth_tasks


def with_a_point(dimension):
    return st.tuples(smooth_tasks(dimension, stationary=False), arrays(dimension))


tasks = st.integers(1, 3).flatmap(with_a_point)


@given(case=tasks)
def test_gradient_and_hessian_are_those_of_autograd(case):
    task, point = case
    start = torch.tensor(point)

    def loss(w):
        return task.torch_loss({"w": w}, torch.zeros(1))

    assert np.isclose(float(loss(start)), task.loss(point), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(torch.func.grad(loss)(start), task.gradient(point), rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(torch.func.hessian(loss)(start), task.hessian_at(point), rtol=1e-10, atol=1e-9)


@given(case=tasks)
def test_the_anchor_has_the_slope_and_hessian_given(case):
    task, _ = case
    np.testing.assert_array_equal(task.gradient(task.anchor), task.slope)
    np.testing.assert_array_equal(task.hessian_at(task.anchor), task.hessian)


@given(case=tasks, s=st.floats(0, 1))
def test_no_hessian_on_the_way_has_a_larger_norm_than_the_corners(case, s):
    task, end = case
    along = np.linalg.norm(task.hessian_at(task.anchor + s * (end - task.anchor)), 2)
    corners = max(np.linalg.norm(hessian, 2) for hessian in task.corners(task.anchor, end))
    assert along <= corners * (1 + 1e-9) + 1e-9


@given(case=tasks)
def test_the_remainder_is_the_integral_by_a_fine_sum(case):
    task, end = case
    way = end - task.anchor
    nodes = (np.arange(2000) + 0.5) / 2000
    fine = np.mean([(1 - s) * task.curvature(task.anchor + s * way, way) for s in nodes])
    exact = task.remainder(task.anchor, way)
    assert abs(fine - exact) <= 1e-5 * (1 + max(abs(task.curvature(task.anchor + s * way, way)) for s in (0, 0.5, 1)))


@given(case=tasks, direction=numbers())
def test_a_task_of_the_package_sees_the_same_loss(case, direction):
    smooth, point = case
    task = dx.Task("smooth", smooth.torch_loss, [torch.zeros(1, dtype=torch.float64)])
    params = {"w": torch.tensor(point)}
    np.testing.assert_allclose(task.mean_loss(params), smooth.loss(point), rtol=1e-12, atol=1e-12)
    vector = np.full(len(point), direction)
    product = dx.hessian_vector_product(task, params, {"w": torch.tensor(vector)})["w"]
    np.testing.assert_allclose(product, smooth.hessian_at(point) @ vector, rtol=1e-9, atol=1e-8)
