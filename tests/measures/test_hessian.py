"""The Hessian as an operator: against the dense one, whatever is kept in memory and however the data are cut."""

import gc
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel

from diagnostics import InputError, Task, spectral_norm
from diagnostics.measures.hessian import HessianOperator, Slopes
from diagnostics.measures.memory import SavedBytes
from diagnostics.measures.reference import dense_gradient, dense_hessian
from tests.cases import small_network, small_task


def whole_loss(task):
    batches = list(task.batches)
    whole = (torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches]))
    return lambda params: task.loss(params, whole)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 100),
    count=st.integers(1, 11),
    batch_size=st.integers(1, 5),
    memory=st.sampled_from([0, 1000, 2000, 4000, None]),
)
def test_value_gradient_and_products_are_the_dense_ones(seed, count, batch_size, memory):
    """None fits, some fit, all fit: the numbers are the same."""
    task, params = small_task(seed=seed, count=count, batch_size=batch_size)
    operator = HessianOperator(task, params, memory=memory)
    loss = whole_loss(task)
    assert operator.value == pytest.approx(float(loss(params)), rel=1e-12)
    np.testing.assert_allclose(operator.gradient, dense_gradient(loss, params), atol=1e-8)
    dense = dense_hessian(loss, params)
    for column in (0, 7, 25):
        unit = torch.zeros(26, dtype=torch.float64)
        unit[column] = 1
        np.testing.assert_allclose(operator(unit), dense[:, column], atol=1e-12)
        np.testing.assert_allclose(operator(unit), dense[:, column], atol=1e-12)


@pytest.mark.parametrize(("memory", "kept"), [(None, "all"), (2_000, "some"), (0, "none")])
def test_what_fits_is_kept_and_nothing_more(memory, kept):
    task, params = small_task(count=12, batch_size=3)
    operator = HessianOperator(task, params, memory=memory)
    expected = {"all": operator.kept == 4, "some": 0 < operator.kept < 4, "none": operator.kept == 0}
    assert expected[kept], f"{operator.kept} of 4 graphs kept with memory={memory}, {operator.kept_bytes} bytes"
    assert operator.kept_bytes <= operator.memory


def watched_task(count, batch_size):
    """A task, its parameters, and a list of how many examples its loss is given each time."""
    sizes = []
    whole, params = small_task(count=count, batch_size=batch_size)

    def loss(theta, batch):
        sizes.append(len(batch[1]))
        return whole.loss(theta, batch)

    return Task("t", loss, list(whole.batches), sizes=whole.sizes), params, sizes


@pytest.mark.parametrize(
    ("fitting", "parts"), [(0, [1] * 8), (1, [1] * 8), (3, [3, 3, 2]), (7, [7, 1]), (8, [8]), (9, [8])]
)
def test_a_batch_that_does_not_fit_is_worked_on_in_the_largest_parts_that_do(fitting, parts):
    task, params, sizes = watched_task(8, 8)
    inputs, targets = next(iter(task.batches))
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    with SavedBytes(leaves.values()) as saved:
        Slopes(task, leaves, (inputs[:1], targets[:1]))
    sizes.clear()
    operator = HessianOperator(task, params, memory=fitting * saved.total)
    # A look at one example first; and where the batch is cut, whether its parts give the gradient of the whole.
    assert sizes == [1, *([8, 4, 4] if len(parts) > 1 else []), *parts]
    vector = torch.linspace(-1, 1, 26, dtype=torch.float64)
    np.testing.assert_allclose(operator(vector), dense_hessian(whole_loss(task), params) @ vector.numpy(), atol=1e-12)


def test_a_batch_of_one_example_is_not_looked_at_before():
    task, params, sizes = watched_task(1, 1)
    HessianOperator(task, params, memory=0)
    assert sizes == [1]
    task, params, sizes = watched_task(2, 2)
    HessianOperator(task, params, memory=0)
    assert sizes[-2:] == [1, 1], "a batch of two can be cut"


def test_data_are_read_again_for_graphs_alone_that_did_not_fit():
    task, params, sizes = watched_task(4, 1)
    operator = HessianOperator(task, params)
    for memory, again in ((operator.kept_bytes, []), (operator.kept_bytes - 1, [1]), (0, [1] * 4)):
        tight = HessianOperator(task, params, memory=memory)
        assert tight.kept == 4 - len(again) and tight.kept_bytes <= memory
        sizes.clear()
        unit = torch.ones(26, dtype=torch.float64)
        np.testing.assert_allclose(tight(unit), operator(unit), atol=1e-12)
        assert sizes == again, f"{memory} of {operator.kept_bytes} bytes"


def test_graphs_that_are_not_kept_are_there_one_at_a_time():
    storages, alive = [], []
    whole, params = small_task(count=4, batch_size=1)

    def loss(theta, batch):
        alive.append(sum(saved() is not None for saved in storages))
        middle = (theta["0.weight"] ** 2).exp()
        storages.append(weakref.ref(middle.untyped_storage()))
        return whole.loss(theta, batch) + middle.sum()

    operator = HessianOperator(Task("t", loss, list(whole.batches), sizes=whole.sizes), params, memory=0)
    operator(torch.ones(26, dtype=torch.float64))
    assert alive == [0] * 8, "a graph is made while that of the batch before is there"


def test_a_batch_that_cannot_be_cut_stays_whole():
    """A loss that is not a mean over examples has other parts than its whole."""
    data = torch.linspace(0, 1, 6, dtype=torch.float64)
    task = Task("t", lambda p, b: (p["w"] * b).sum() ** 2, [data], sizes=[6])
    found = HessianOperator(task, {"w": torch.ones(1, dtype=torch.float64)}, memory=0)(torch.ones(1).double())
    assert float(found) == pytest.approx(2 * float(data.sum()) ** 2)
    seen, one = set(), torch.ones(1, dtype=torch.float64)

    def loss(params, batch):
        seen.update(map(len, batch))
        return (params["w"] * batch[0]).square().mean() * batch[1].sum()

    task = Task("t", loss, [(data, torch.ones(3, dtype=torch.float64))], sizes=[6])
    assert float(HessianOperator(task, {"w": one}, memory=0)(one)) == pytest.approx(6 * float(data.square().mean()))
    assert seen == {6, 3}, "a tensor of other things than examples was cut"


def test_graphs_are_freed_with_the_operator_and_gradients_before():
    """The graph saves a tensor of the loss; the gradient of each batch is as long as the parameters are."""
    storages, gradients = [], []
    whole, params = small_task()

    def loss(theta, batch):
        middle = (theta["0.weight"] ** 2).exp()
        storages.append(weakref.ref(middle.untyped_storage()))
        theta["2.weight"].register_hook(lambda slope: gradients.append(weakref.ref(slope.untyped_storage())))
        return whole.loss(theta, batch) + middle.sum()

    operator = HessianOperator(Task("t", loss, list(whole.batches), sizes=whole.sizes), params)
    gc.collect()
    assert operator.kept == 3 and all(saved() is not None for saved in storages[-3:])
    assert gradients and all(slope() is None for slope in gradients), "the gradient of a batch outlives its addition"
    del operator
    gc.collect()
    assert all(saved() is None for saved in storages), "the graph of a gradient outlives its operator"


def test_parameters_changed_after_building_are_noticed():
    task, params = small_task()
    operator = HessianOperator(task, params)
    with torch.no_grad():
        params["0.weight"].mul_(2)
    with pytest.raises(InputError, match="the parameters that the Hessian was made at"):
        operator(torch.ones(26, dtype=torch.float64))


@pytest.mark.parametrize("loss", [lambda p, b: (p["w"] * b).sum(), lambda p, b: b.sum()], ids=["linear", "constant"])
def test_losses_without_curvature(loss):
    operator = HessianOperator(Task("t", loss, [torch.ones(2)]), {"w": torch.ones(2), "unused": torch.ones(1)})
    assert operator(torch.ones(3)).tolist() == [0.0, 0.0, 0.0]


def test_a_parameter_that_the_loss_does_not_use_has_a_zero_row():
    task = Task("t", lambda p, b: (p["w"] ** 3).sum(), [torch.ones(1)])
    operator = HessianOperator(task, {"w": torch.tensor([2.0]), "unused": torch.ones(2)})
    assert operator(torch.ones(3)).tolist() == [12.0, 0.0, 0.0] and operator.gradient.tolist() == [12.0, 0.0, 0.0]


def test_half_precision_is_added_up_in_float32():
    """1024 batches of slope 1/1024 each: in bfloat16 the sum would stop at 1/2."""
    task = Task("t", lambda p, b: p["w"].square().sum() / 2, [torch.ones(1)] * 1024)
    operator = HessianOperator(task, {"w": torch.ones(1, dtype=torch.bfloat16)})
    assert operator.gradient.dtype == torch.float32
    assert float(operator.gradient) == pytest.approx(1, rel=1e-3)
    assert float(operator(torch.ones(1))) == pytest.approx(1, rel=1e-3)


def test_fused_attention_is_switched_off_for_the_duration():
    """The fused kernel has no second derivative; asked for outright, it is still not what is used."""
    torch.manual_seed(0)
    shape = (1, 1, 4, 8)
    keys, values = torch.randn(shape), torch.randn(shape)

    def loss(params, batch):
        return torch.nn.functional.scaled_dot_product_attention(params["q"], keys, values).square().sum()

    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        operator = HessianOperator(Task("t", loss, [torch.ones(1)]), {"q": torch.randn(shape)})
        assert operator(torch.ones(32)).norm() > 0
        assert not torch.backends.cuda.math_sdp_enabled(), "the kernels asked for are not back"


def many(w):
    """Terms of a loss, each with a graph of its own."""
    return [w.exp().cos().square().sum() for _ in range(10)]


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda kernel, w: kernel(w),
        lambda kernel, w: kernel(w) ** 2,
        lambda kernel, w: sum([*many(w), kernel(w.sin().cos()), *many(w)]),
    ],
    ids=["last", "inside", "one of many"],
)
def test_a_kernel_without_a_second_derivative_is_refused(wrapped):
    """PyTorch itself passes over it: of such a kernel's curvature it makes zero, without a word."""

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            ctx.save_for_backward(value)
            return value.square().sum()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, slope):
            return 2 * slope * ctx.saved_tensors[0]

    task = Task("kernel", lambda p, b: wrapped(Once.apply, p["w"]), [torch.ones(1)])
    with pytest.raises(InputError) as caught:
        HessianOperator(task, {"w": torch.ones(2)})(torch.ones(2))
    assert str(caught.value) == (
        "task 'kernel': expected a loss that PyTorch can differentiate twice; found an operation, of a custom kernel "
        "say, that it can differentiate only once. Load the model with attn_implementation='sdpa' or 'eager', without "
        "custom kernels, and do not compile it"
    )


def test_an_operation_of_pytorch_without_a_second_derivative_is_refused():
    keys = torch.randn(1, 1, 4, 8)

    def loss(params, batch):
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # set inside the model, it wins
            return torch.nn.functional.scaled_dot_product_attention(params["q"], keys, keys).square().sum()

    with pytest.raises(InputError, match="task 'fused': expected a loss that PyTorch can differentiate twice"):
        HessianOperator(Task("fused", loss, [torch.ones(1)]), {"q": torch.randn(1, 1, 4, 8)})(torch.ones(32))


def test_an_operation_without_any_derivative_is_refused():
    task = Task("step", lambda p, b: torch.heaviside(p["w"], b).sum(), [torch.ones(2)])
    with pytest.raises(InputError, match=r"found one that cannot \(derivative .*heaviside is not implemented\)"):
        HessianOperator(task, {"w": torch.ones(2)})


def test_an_error_inside_a_derivative_stays_what_it_is():
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.sum()

        @staticmethod
        def backward(ctx, slope):
            raise RuntimeError("out of paper")

    with pytest.raises(RuntimeError, match="out of paper"):
        HessianOperator(Task("t", lambda p, b: Broken.apply(p["w"]), [torch.ones(1)]), {"w": torch.ones(2)})


def test_an_error_of_the_loss_itself_stays_what_it_is():
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        HessianOperator(Task("t", lambda p, b: (p["w"] @ b).sum(), [torch.ones(3)]), {"w": torch.ones(2)})


@pytest.mark.parametrize("memory", [0, None])
def test_memory_reaches_the_operator_and_does_not_change_the_norm(memory):
    task, params = small_task()
    found = spectral_norm(task, params, memory=memory, rtol=1e-6)
    truth = np.abs(np.linalg.eigvalsh(dense_hessian(whole_loss(task), params))).max()
    assert found.value == pytest.approx(truth, rel=1e-6)


@pytest.mark.parametrize(("memory", "passes"), [(0, 1 + 3), (1 << 20, 1)])
def test_a_norm_makes_the_graph_for_every_product_only_where_memory_has_no_room_for_it(memory, passes):
    scale, calls = torch.linspace(1, 2, 5), []
    task = Task("q", lambda p, b: calls.append(1) or (scale * p["w"] ** 2).sum(), [torch.zeros(1)])
    found = spectral_norm(task, {"w": torch.zeros(5)}, memory=memory, max_products=3, rtol=1e-6)
    assert (found.products, len(calls)) == (3, passes)


def test_a_wide_upper_end_costs_fewer_products_and_says_so():
    """Residual within 1 %, upper end within a factor of two: a larger eigenvalue is not excluded, a double one is."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.randn(3000, generator=generator).abs().double()
    scale[0] = 12.0
    task = Task("q", lambda p, b: 0.5 * (scale * p["w"] ** 2).sum(), [torch.zeros(1)])
    point = {"w": torch.zeros(3000, dtype=torch.float64)}
    tight, wide = spectral_norm(task, point), spectral_norm(task, point, upper_rtol=1.0)
    assert (str(tight.status), str(wide.status)) == ("converged", "lower bound")
    assert wide.products < tight.products
    assert wide.residual <= 0.01 * wide.value and wide.upper <= 2 * wide.value
    assert wide.value == pytest.approx(12, rel=1e-3) and wide.upper > 1.01 * wide.value


def test_the_network_of_the_other_tests_has_curvature():
    """Guards the tests above: a Hessian of zeros would agree with anything."""
    task, params = small_task()
    assert np.abs(dense_hessian(whole_loss(task), params)).max() > 1e-3
    assert sum(value.numel() for value in small_network().parameters()) == 26
