"""What rounding leaves of an update: estimates against simulated updates whose truth is known."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics.measures.storage import Rounding, Stage, expected_rounding, measure_rounding, resolution

SIDE = 300


def weights(std: float = 0.02, seed: int = 0) -> torch.Tensor:
    return std * torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def cosine(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first * second).sum() / first.norm() / second.norm())


def simulate(how: str, std: float, dtype: torch.dtype = torch.bfloat16) -> tuple[Rounding, Stage, float, float]:
    """Store a known update; return what was measured, at which stage, the true cosine and the share of zeros."""
    update = std * torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    trained = weights().to(dtype) if how == "trained from the rounded base" else weights()
    stored = trained if how == "expert alone" else trained.to(dtype)
    expert = (trained.double() + update).to(dtype)
    stage, found_dtype, rounding = measure_rounding(stored, expert)
    assert found_dtype is dtype
    kept = expert.double() - stored.double()
    return rounding, stage, cosine(update, kept), float((kept == 0).double().mean())


@pytest.mark.parametrize("std", [3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 3e-3])
@pytest.mark.parametrize("how", ["trained from the rounded base", "both rounded at the end", "expert alone"])
def test_the_cosine_is_that_of_the_true_update(how: str, std: float) -> None:
    rounding, stage, truth, zeros = simulate(how, std)
    assert stage is (Stage.EXPERT if how == "expert alone" else Stage.TOGETHER)
    assert rounding.cosine == pytest.approx(truth, abs=0.015)
    if stage is Stage.TOGETHER:
        assert rounding.zero_share == pytest.approx(zeros)
    assert (rounding.true / SIDE**2) ** 0.5 == pytest.approx(std, rel=0.08)


def test_the_figures_of_the_docs() -> None:
    """Weights of std 0.02 and an update of std 1e-5, both stored in bfloat16: four fifths of it is zero."""
    rounding, _, truth, _ = simulate("both rounded at the end", 1e-5)
    print(f"zeros {rounding.zero_share:.2f}, cosine {truth:.2f}, estimated {rounding.cosine:.2f}")
    assert (round(rounding.zero_share, 2), round(truth, 2), round(rounding.cosine, 2)) == (0.8, 0.37, 0.37)


def test_other_types() -> None:
    for dtype, low, high in ((torch.float16, 0.85, 0.97), (torch.float32, 0.9999, 1.0)):
        rounding, _, truth, _ = simulate("trained from the rounded base", 1e-5, dtype)
        assert low <= rounding.cosine <= high, dtype
        assert rounding.cosine == pytest.approx(truth, abs=0.01)


def test_saving_is_measured_not_estimated() -> None:
    base = weights().bfloat16()
    expert = base.float() + 1e-5 * weights(1.0, seed=1)
    stage, dtype, rounding = measure_rounding(base, expert)
    assert (stage, dtype) == (Stage.SAVING, torch.bfloat16)
    left = expert.bfloat16().double() - base.double()
    assert rounding.cosine == pytest.approx(cosine(expert.double() - base.double(), left))
    assert rounding.zero_share == pytest.approx(float((left == 0).double().mean()))


def test_a_type_that_was_rounded_before_it_was_widened() -> None:
    narrow, wide = weights().bfloat16(), weights()
    assert resolution(narrow.float()) is torch.bfloat16
    assert resolution(wide.half().float()) is torch.float16
    assert resolution(wide) is torch.float32
    assert resolution(wide.double()) is torch.float32
    assert resolution(narrow) is torch.bfloat16
    unseen = wide.clone()
    unseen[:250] = 0
    assert resolution(unseen) is torch.float32, "rows of zeros are held by any type"
    hidden = measure_rounding(narrow.float(), (narrow.float() + 1e-5 * weights(1.0, 1)).bfloat16().float())
    assert hidden[:2] == (Stage.TOGETHER, torch.bfloat16)


def test_rows_that_never_changed_are_not_counted_as_rounded_away() -> None:
    base = weights().bfloat16()
    expert = (base.double() + 1e-3 * weights(1.0, 1).double()).bfloat16()
    whole = measure_rounding(base, expert)[2]
    expert[100:] = base[100:]
    part = measure_rounding(base, expert)[2]
    assert part.count == 100 * SIDE
    assert part.zero_share == pytest.approx(whole.zero_share, abs=0.01)
    assert part.cosine > 0.99


def test_no_update_is_no_evidence() -> None:
    for base in (weights(), weights().bfloat16(), torch.zeros(3, 3), torch.ones(())):
        assert measure_rounding(base, base)[2] == Rounding()


def test_everything_lost() -> None:
    assert Rounding(true=1.0, kept=0.0, product=0.0, zeros=4, count=4).cosine == 0.0


def test_values_beyond_the_type_stay_finite() -> None:
    found = measure_rounding(torch.ones(2, 2).half(), torch.full((2, 2), 1e6 + 0.5))[2]
    assert 0 < found.cosine <= 1


@settings(max_examples=30)
@given(st.floats(0.02, 30.0), st.booleans(), st.integers(0, 10_000))
def test_the_expectation_is_the_mean_of_a_simulation(scale: float, on_grid: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    update = scale * rng.normal(size=200_000)
    start = np.zeros_like(update) if on_grid else rng.uniform(-0.5, 0.5, size=len(update))
    left = np.round(start + update)
    expected = expected_rounding(np.array([1.0]), np.array([1.0]), scale, on_grid=on_grid)
    for name, values in (("product", update * left), ("kept", left**2), ("zeros", (left == 0).astype(float))):
        error = 5 * values.std() / len(values) ** 0.5 + 1e-4
        # Beyond eight steps the zeros are a sum that is cut; nothing is read from so few of them.
        assert getattr(expected, name) == pytest.approx(values.mean(), abs=error + 0.01 * (name == "zeros")), name


def test_the_series_and_its_limit_meet() -> None:
    for on_grid in (True, False):
        below, above = (
            expected_rounding(np.array([1.0]), np.array([1.0]), scale, on_grid=on_grid) for scale in (8.0, 8.000001)
        )
        assert below.kept == pytest.approx(above.kept, rel=1e-4)
        assert below.product == pytest.approx(above.product, rel=1e-4)
