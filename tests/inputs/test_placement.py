"""Devices and types of evaluation."""

import pytest
import torch

import diagnostics as dx
from diagnostics.inputs.placement import Placement
from tests.cases import small_network
from tests.inputs.tiny_models import causal_lm

WITHOUT_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU here")


class WithBuffer(torch.nn.Module):
    """A network with a floating buffer and a parameter that no task moves, in float32."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = torch.nn.Linear(3, 4)
        self.frozen = torch.nn.Linear(4, 2)
        self.register_buffer("scale", torch.tensor([1.0, 0.5]))

    def forward(self, x):
        return self.frozen(self.inner(x).tanh()) * self.scale


def problem(**options):
    module, generator = WithBuffer(), torch.Generator().manual_seed(0)
    base = {key: value.detach() for key, value in module.inner.named_parameters(prefix="inner")}
    tasks, experts = {}, {}
    for name in "ab":
        data = (torch.randn(24, 3, generator=generator), torch.randint(0, 2, (24,), generator=generator))
        tasks[name] = dx.Task.from_module(
            name, module, torch.nn.functional.cross_entropy, data, batch_size=7, parameters=list(base)
        )
        experts[name] = {
            key: value + 0.3 * torch.randn(value.shape, generator=generator) for key, value in base.items()
        }
    return dx.MergeProblem(base, experts, tasks, **options)


def loss_of(found):
    return {name: task.loss.value for name, task in dx.predict_merge(found, 0.5).tasks.items()}


@pytest.mark.parametrize(
    ("dtype", "close"), [("float64", 1e-6), (torch.float64, 1e-6), ("bfloat16", 3e-2), ("float16", 3e-3)]
)
def test_a_type_of_evaluation_changes_numbers_by_its_rounding_and_no_more(dtype, close):
    """Buffers, frozen parameters and inputs follow the type of the parameters."""
    plain, other = problem(), problem(dtype=dtype)
    kind = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert other.base["inner.weight"].dtype == torch.promote_types(kind, torch.float32)
    expected, found = loss_of(plain), loss_of(other)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=close)
    assert found != expected, "the type asked for was not used"


def test_gradients_in_half_precision_come_back_wide():
    plain, half = problem(), problem(dtype="bfloat16")
    task, point = half.tasks["a"], half.base
    value, slope = dx.gradient(task, point)
    _, expected = dx.gradient(plain.tasks["a"], plain.base)
    for key, each in expected.items():
        assert slope[key].dtype == torch.float32
        assert float((slope[key] - each).norm()) < 0.05 * float(each.norm())
    assert value == pytest.approx(plain.tasks["a"].mean_loss(plain.base), rel=0.02)
    norm = dx.spectral_norm(task, point, max_products=30)
    assert norm.value == pytest.approx(dx.spectral_norm(plain.tasks["a"], plain.base).value, rel=0.1)


def test_a_module_keeps_its_own_type_and_device():
    module = WithBuffer()
    before = {key: (value.dtype, value.clone()) for key, value in module.state_dict().items()}
    data = (torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
    task = dx.Task.from_module("t", module, torch.nn.functional.cross_entropy, data)
    task.mean_loss({key: value.detach().double() for key, value in module.named_parameters()})
    for key, (kind, value) in before.items():
        assert module.state_dict()[key].dtype == kind and torch.equal(module.state_dict()[key], value)


def test_a_language_model_in_half_precision():
    model = causal_lm("gpt2")
    task = dx.Task.from_causal_lm("t", model, None, [((1, 2), (3,)), ((2,), (4, 4))], instruction=(5,))
    wide = {key: value.detach() for key, value in model.named_parameters()}
    half = Placement.named(None, "bfloat16").evaluated(task)
    assert half.mean_loss(wide) == pytest.approx(task.mean_loss(wide), rel=0.02)
    assert half.mean_loss(wide) != task.mean_loss(wide)


def test_what_transformers_computes_keeps_its_type():
    """Rotary frequencies in bfloat16 would be radians off after a thousand tokens; loading a model keeps them too."""
    model = causal_lm("llama", dtype=torch.float32)
    task = dx.Task.from_causal_lm("t", model, None, [((1, 2, 3) * 8, (3, 1))], instruction=(5,))
    half = {key: value.detach().bfloat16() for key, value in model.named_parameters()}
    found = task.mean_loss(half)
    for value in model.parameters():
        value.data = value.data.bfloat16()
    loaded = dx.Task.from_causal_lm("t", model, None, [((1, 2, 3) * 8, (3, 1))], instruction=(5,))
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert found == loaded.mean_loss(half), "evaluated otherwise than a model that is in bfloat16 itself"
    model.model.rotary_emb.inv_freq = model.model.rotary_emb.inv_freq.bfloat16()
    rounded = dx.Task.from_causal_lm("t", model, None, [((1, 2, 3) * 8, (3, 1))], instruction=(5,))
    assert found != rounded.mean_loss(half), "too short a text to tell"


def audit(model=None, **options):
    lists = [[((1,), (4,)), ((2, 3), (5, 1)), ((4,), (2,)), ((5, 5), (1,)), ((2,), (3,))] for _ in range(2)]
    target = [((1, 2), (3,)), ((2,), (4, 4)), ((3,), (1,)), ((6,), (2, 5))]
    given = {"instructions": [(5, 2), (3,)], "target_examples": target, "component_examples": lists, "folds": 2}
    return dx.audit_composition(model or causal_lm("llama", dtype=torch.float32), None, **given, **options)


def apart(found, expected):
    """The largest difference of norms, of the largest norm."""
    norms = {name: term.norm for name, term in expected.terms.items()}
    return max(abs(found.terms[name].norm - norm) for name, norm in norms.items()) / max(norms.values())


@pytest.mark.parametrize(("dtype", "close"), [("float64", 1e-5), ("bfloat16", 0.05), (torch.float16, 0.01)])
def test_an_audit_in_another_type(dtype, close):
    model, expected = causal_lm("llama", dtype=torch.float32), audit()
    found = audit(model, dtype=dtype)
    kind = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert 0 < apart(found, expected) < close
    vector = found.error.vector["lm_head.weight"]
    assert vector.dtype == torch.promote_types(kind, torch.float32), "gradients are added up in float32 at least"
    assert {value.dtype for value in model.parameters()} == {torch.float32}, "the model is evaluated on a copy"


def test_an_audit_of_some_parameters_moves_the_others_too():
    some = {"parameters": ["*.self_attn.*"]}
    assert 0 < apart(audit(**some, dtype="bfloat16"), audit(**some)) < 0.05
    assert apart(audit(**some, device="cpu"), audit(**some)) == 0


@pytest.mark.parametrize(("options", "message"), [({"device": "gpu"}, "found 'gpu'"), ({"dtype": "int8"}, "'int8'")])
def test_an_audit_refuses_what_is_not_there(options, message):
    with pytest.raises(dx.InputError, match=message):
        audit(**options)


@WITHOUT_GPU
@pytest.mark.parametrize("dtype", [None, "float64", "bfloat16"])
def test_an_audit_on_a_gpu(dtype):
    """Written for a GPU; the model stays where it is."""
    model = causal_lm("llama", dtype=torch.float32)
    found = audit(model, device="cuda", dtype=dtype)
    assert apart(found, audit(dtype=dtype)) < (3e-2 if dtype == "bfloat16" else 1e-4)
    assert found.error.vector["lm_head.weight"].is_cuda
    assert not any(value.is_cuda for value in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "device: expected cpu, or cuda where PyTorch sees a GPU; found 'gpu'. Write cpu"),
        (
            {"dtype": "float8"},
            "dtype: expected one of float64, float32, bfloat16, float16; found 'float8'. Did you mean 'float64'?",
        ),
        ({"dtype": torch.int64}, "found torch.int64."),
    ],
)
def test_what_is_not_there_is_refused(options, message):
    with pytest.raises(dx.InputError) as caught:
        problem(**options)
    assert message in str(caught.value)


def test_the_cpu_by_name_changes_nothing():
    assert loss_of(problem(device="cpu")) == loss_of(problem())


@WITHOUT_GPU
@pytest.mark.parametrize("dtype", [None, "float64", "bfloat16"])
def test_a_gpu_gives_what_the_cpu_gives(dtype):
    """Written for a GPU; data stay on the CPU and every batch follows the parameters."""
    close = 3e-2 if dtype == "bfloat16" else 1e-4
    host, gpu = problem(dtype=dtype), problem(dtype=dtype, device="cuda")
    assert gpu.base["inner.weight"].is_cuda
    for name, value in loss_of(host).items():
        assert loss_of(gpu)[name] == pytest.approx(value, rel=close)
    for name, report in dx.addition_bounds(host, 0.5).items():
        assert dx.addition_bounds(gpu, 0.5)[name].gap == pytest.approx(report.gap, rel=close, abs=close)
    found = dx.spectral_norm(gpu.tasks["a"], gpu.base)
    assert found.value == pytest.approx(dx.spectral_norm(host.tasks["a"], host.base).value, rel=0.05)
    aligned = dx.gradient_alignment(gpu.tasks["a"], [gpu.tasks["b"]], gpu.base)
    assert aligned.norm == pytest.approx(
        dx.gradient_alignment(host.tasks["a"], [host.tasks["b"]], host.base).norm, rel=close
    )


def test_the_network_without_buffers_follows_too():
    module = small_network()
    data = (torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 1, 0]))
    task = dx.Task.from_module("t", module, torch.nn.functional.cross_entropy, data)
    own = {key: value.detach() for key, value in module.named_parameters()}
    narrow = {key: value.float() for key, value in own.items()}
    assert task.mean_loss(narrow) == pytest.approx(task.mean_loss(own), rel=1e-5)
