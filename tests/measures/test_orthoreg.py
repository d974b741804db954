"""orthoreg_penalty: an independent slow definition with mutants, derivatives, what the two forms are known to do."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.errors import InputError
from diagnostics.measures import orthoreg
from diagnostics.measures.orthoreg import orthoreg_penalty

FORMS = ("paper", "code")
SHAPES = [(4, 4), (2, 5), (5, 2), (1, 3), (3, 1), (1, 1)]
WIDE = torch.eye(16, 64)  # orthonormal rows

shapes = st.sampled_from(SHAPES)
seeds = st.integers(0, 10_000)
forms = st.sampled_from(FORMS)


def draw(shape, seed, scale=1.0):
    """A random float64 matrix."""
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthonormal(shape, seed):
    """A matrix whose shorter side is orthonormal."""
    rows, columns = shape
    basis = torch.linalg.qr(draw((max(shape), min(shape)), seed)).Q
    return basis if rows >= columns else basis.T


def gradient(delta, form):
    """Gradient of the penalty at a matrix."""
    leaf = delta.clone().requires_grad_()
    return torch.autograd.grad(orthoreg_penalty({"w": leaf}, form=form), leaf)[0]


def slow(deltas, form):
    """The definition, entry by entry in float64."""
    total = 0.0
    for delta in deltas:
        values = np.array(delta.double().tolist())
        if form == "code" and values.shape[0] < values.shape[1]:
            values = values.T
        squares = 0.0
        for i in range(values.shape[1]):
            for j in range(values.shape[1]):
                squares += (sum(row[i] * row[j] for row in values) - (i == j)) ** 2
        total += squares if form == "paper" else squares**0.5
    return total


def agrees_with_the_definition(form):
    """Single matrices of every shape, and all of them together, small and large."""
    for scale in (0.0, 1e-3, 0.5, 3.0):
        deltas = [draw(shape, seed, scale) for seed, shape in enumerate(SHAPES)]
        for group in ([each] for each in deltas):
            assert float(orthoreg_penalty(group, form=form)) == pytest.approx(slow(group, form), rel=1e-12, abs=1e-14)
        assert float(orthoreg_penalty(deltas, form=form)) == pytest.approx(slow(deltas, form), rel=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_both_forms_are_those_of_the_definition(form):
    agrees_with_the_definition(form)


def larger_side(delta):
    long = delta if delta.shape[0] >= delta.shape[1] else delta.T
    return long @ long.T - torch.eye(len(long), dtype=delta.dtype)


def without_identity(delta):
    short = delta if delta.shape[0] < delta.shape[1] else delta.T
    return short @ short.T


MUTANTS = {
    "paper without the square": ("paper", "_FORMS", {"paper": orthoreg._code}),
    "code squared": ("code", "_FORMS", {"code": lambda d: orthoreg._excess(d).square().sum()}),
    "paper on the smaller side only": ("paper", "_FORMS", {"paper": lambda d: orthoreg._excess(d).square().sum()}),
    "mean for a sum": ("paper", "_FORMS", {"paper": lambda d: larger_side(d.T).square().mean()}),
    "code on the larger side": ("code", "_excess", larger_side),
    "paper on the larger side": ("paper", "_excess", larger_side),
    "no identity, paper": ("paper", "_excess", without_identity),
    "no identity, code": ("code", "_excess", without_identity),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name, monkeypatch):
    form, attribute, mutant = MUTANTS[name]
    monkeypatch.setattr(orthoreg, attribute, mutant)
    with pytest.raises(AssertionError):
        agrees_with_the_definition(form)


class TestDerivatives:
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2)])
    def test_first_and_second_against_finite_differences(self, shape, form):
        leaf = draw(shape, 1).requires_grad_()
        assert torch.autograd.gradcheck(lambda delta: orthoreg_penalty([delta], form=form), leaf)
        assert torch.autograd.gradgradcheck(lambda delta: orthoreg_penalty([delta], form=form), leaf)

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("shape", SHAPES)
    def test_exactly_zero_at_no_update(self, shape, form):
        assert torch.count_nonzero(gradient(torch.zeros(shape), form)) == 0

    @pytest.mark.parametrize("form", FORMS)
    def test_zero_and_not_nan_at_the_target(self, form):
        found = gradient(torch.eye(3, 5), form)
        assert torch.count_nonzero(found) == 0

    @given(shapes, seeds)
    def test_closed_form(self, shape, seed):
        """4 ΔW(ΔWᵀΔW − I) whatever the side; the code's form divides half of it by the norm."""
        delta = draw(shape, seed)
        expected = 4 * delta @ (delta.T @ delta - torch.eye(shape[1], dtype=torch.float64))
        assert torch.allclose(gradient(delta, "paper"), expected, rtol=1e-9, atol=1e-12)
        size = float(orthoreg_penalty([delta], form="code"))
        assert torch.allclose(gradient(delta, "code"), expected / (2 * size), rtol=1e-9, atol=1e-12)

    def test_the_code_does_not_fade_out_at_its_target(self):
        """A hundredth of the way from the target the paper's gradient is a hundredth, the code's as long as before."""
        target, off = orthonormal((4, 4), 0), draw((4, 4), 1)
        paper = [float(gradient(target + step * off, "paper").norm()) for step in (1e-2, 1e-4)]
        code = [float(gradient(target + step * off, "code").norm()) for step in (1e-2, 1e-4)]
        assert paper[1] / paper[0] == pytest.approx(0.01, rel=0.1)
        assert code[1] / code[0] == pytest.approx(1, rel=0.1) and code[1] == pytest.approx(2, rel=0.1)


class TestSmallUpdates:
    """Near ΔW = 0 the penalty makes an update larger and does not turn it."""

    @given(shapes, seeds, forms)
    def test_the_step_is_the_update_up_to_third_order(self, shape, seed, form):
        direction = draw(shape, seed)
        direction = direction / direction.norm()
        speed = {"paper": 4.0, "code": 2 / math.sqrt(min(shape))}[form]
        # −∇ = speed · ΔW + O(‖ΔW‖³), and the constant of the remainder is at most 2 · speed at these norms.
        for size in (1e-1, 1e-2, 1e-3):
            step = -gradient(size * direction, form)
            assert float((step - speed * size * direction).norm()) <= 2 * speed * size**3

    @pytest.mark.parametrize("form", FORMS)
    def test_descent_grows_the_norm_and_keeps_the_direction(self, form):
        start = draw((6, 6), 0, scale=1e-3)
        delta = start.clone()
        for _ in range(20):
            delta -= 0.05 * gradient(delta, form)
        assert float(delta.norm()) > 2 * float(start.norm())
        assert float(torch.cosine_similarity(delta.flatten(), start.flatten(), dim=0)) > 0.9999


class TestTarget:
    @given(shapes, seeds)
    def test_an_orthonormal_short_side_is_the_floor_and_fixes_the_norm(self, shape, seed):
        delta = orthonormal(shape, seed)
        assert float(orthoreg_penalty([delta], form="code")) == pytest.approx(0, abs=1e-13)
        assert float(orthoreg_penalty([delta])) == pytest.approx(max(shape[1] - shape[0], 0), abs=1e-13)
        assert float(delta.norm()) == pytest.approx(math.sqrt(min(shape)), rel=1e-12)

    @pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4)])
    def test_descent_from_a_small_update_ends_there(self, shape):
        delta = draw(shape, 3, scale=0.05)
        for _ in range(400):
            delta -= 0.05 * gradient(delta, "paper")
        assert float(delta.norm()) == pytest.approx(math.sqrt(min(shape)), rel=1e-6)
        assert float(orthoreg_penalty([delta], form="code")) == pytest.approx(0, abs=1e-6)

    @given(shapes, seeds)
    def test_size_and_shape_parts_add_up(self, shape, seed):
        """With m the short side: ‖M − I‖² = (‖ΔW‖² − m)²/m + ‖M − (tr M/m) I‖²; only the second is scale-free."""
        delta, short = draw(shape, seed), min(shape)
        square = float(delta.square().sum())
        singular = torch.linalg.svdvals(delta).square()
        uneven = float((singular - singular.mean()).square().sum())
        expected = (square - short) ** 2 / short + uneven
        assert float(orthoreg_penalty([delta], form="code")) ** 2 == pytest.approx(expected, rel=1e-9, abs=1e-12)

    def test_the_published_example_of_how_the_forms_differ(self):
        assert float(orthoreg_penalty([WIDE], form="paper")) == 48
        assert float(orthoreg_penalty([WIDE], form="code")) == 0

    def test_two_perfect_updates_may_be_the_same_update(self):
        """Orthogonal inside says nothing about orthogonal to each other."""
        first = second = torch.eye(5)
        assert float(orthoreg_penalty([first])) == float(orthoreg_penalty([second])) == 0
        assert float(torch.cosine_similarity(first.flatten(), second.flatten(), dim=0)) == pytest.approx(1)


@given(shapes, seeds, forms)
def test_rotating_either_side_changes_nothing(shape, seed, form):
    delta = draw(shape, seed)
    left, right = orthonormal((shape[0],) * 2, seed + 1), orthonormal((shape[1],) * 2, seed + 2)
    before = float(orthoreg_penalty([delta], form=form))
    assert float(orthoreg_penalty([left @ delta @ right], form=form)) == pytest.approx(before, rel=1e-9, abs=1e-12)


@given(shapes, seeds)
def test_one_form_follows_from_the_other(shape, seed):
    paper, code = (float(orthoreg_penalty([draw(shape, seed)], form=form)) for form in FORMS)
    assert paper == pytest.approx(code**2 + max(shape[1] - shape[0], 0), rel=1e-12)


class TestPrecision:
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("scale", [1e-4, 0.1, 1.0, 30.0])
    def test_float32_has_its_digits(self, scale, form):
        delta = draw((64, 48), 0, scale).float()
        exact = float(orthoreg_penalty([delta.double()], form=form))
        assert float(orthoreg_penalty([delta], form=form)) == pytest.approx(exact, rel=2e-6)

    def test_near_the_target_the_expanded_square_would_cancel(self):
        """‖M‖² − 2‖ΔW‖² + c has no identity in it and loses the digits of a penalty near zero."""
        delta = 1.0003 * orthonormal((64, 64), 0).float()
        exact = float(orthoreg_penalty([delta.double()]))
        expanded = float((delta.T @ delta).square().sum() - 2 * delta.square().sum() + 64)
        assert abs(float(orthoreg_penalty([delta])) / exact - 1) < 1e-3
        assert abs(expanded / exact - 1) > 0.1

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_dtype_and_dimension_are_kept(self, dtype):
        found = [orthoreg_penalty({"w": torch.eye(2, 3, dtype=dtype), "b": torch.ones(2)}, form=f) for f in FORMS]
        assert [each.dtype for each in found] == [dtype, dtype] and [each.ndim for each in found] == [0, 0]


class TestInput:
    def test_mappings_sequences_and_single_tensors_are_the_same(self):
        matrix = draw((3, 2), 0)
        found = {float(orthoreg_penalty(given)) for given in (matrix, [matrix], {"w": matrix}, iter([matrix]))}
        assert len(found) == 1

    def test_only_matrices_count(self):
        matrix = draw((3, 2), 0)
        others = {"bias": torch.ones(3), "scale": torch.tensor(2.0), "kernel": torch.ones(2, 2, 3, 3)}
        assert orthoreg_penalty({"w": matrix, **others}) == orthoreg_penalty({"w": matrix})

    def test_the_parameters_of_a_model_and_the_factors_of_an_adapter_get_gradients(self):
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
        start = {name: value.detach().clone() for name, value in model.named_parameters()}
        with torch.no_grad():
            model[0].weight += 0.1
        orthoreg_penalty({name: value - start[name] for name, value in model.named_parameters()}).backward()
        assert torch.count_nonzero(model[0].weight.grad) == 12
        assert torch.count_nonzero(model[1].weight.grad) == 0, "not moved yet"

        down, up = draw((2, 5), 0).requires_grad_(), draw((4, 2), 1).requires_grad_()
        orthoreg_penalty({"w": 0.5 * up @ down}).backward()
        by_update = gradient((0.5 * up @ down).detach(), "paper")
        assert torch.allclose(up.grad, 0.5 * by_update @ down.detach().T)
        assert torch.allclose(down.grad, 0.5 * up.detach().T @ by_update)

    def test_not_a_number_is_not_hidden(self):
        update = torch.eye(2)
        update[0, 1] = math.nan
        assert all(orthoreg_penalty([torch.eye(2), update], form=form).isnan() for form in FORMS)

    @pytest.mark.parametrize(
        ("deltas", "form", "message"),
        [
            ([torch.eye(2)], "published", "form: expected one of paper, code; found 'published'."),
            ({}, "paper", "expected at least one matrix; found the shapes {}"),
            ({"b": torch.ones(3)}, "code", "found the shapes {'b': [3]}. Pass W − W0"),
            ({"ids": torch.ones(1, 5, dtype=torch.long)}, "paper", "['ids'] hold integers. Leave such buffers out"),
        ],
    )
    def test_bad_input_is_refused_by_name(self, deltas, form, message):
        with pytest.raises(InputError) as caught:
            orthoreg_penalty(deltas, form=form)
        assert message in str(caught.value)
