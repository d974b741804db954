"""Units in another order, sign or basis are found; everything else is not."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.measures import permutation as module
from diagnostics.measures.agreement import agreement
from diagnostics.measures.permutation import Motion, Reordering, find_reordering


def matrices(seed: int, *shape: int, count: int = 2) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def found(base: torch.Tensor, expert: torch.Tensor) -> list[Reordering]:
    return find_reordering(base, expert, agreement(base, expert))


def tuned(base: torch.Tensor, ratio: float, seed: int = 9) -> torch.Tensor:
    return base + ratio * base.std() * matrices(seed, *base.shape, count=1)[0]


@given(st.integers(0, 500), st.permutations(range(24)), st.floats(0.0, 0.4))
def test_any_order_of_the_rows_is_found(seed: int, order: list[int], ratio: float) -> None:
    base = matrices(seed, 24, 60, count=1)[0]
    moved = sum(place != unit for place, unit in enumerate(order))
    result = found(base, tuned(base, ratio)[order])
    assert [(each.motion, each.axis, each.moved) for each in result] == [(Motion.PERMUTED, "rows", moved)] * bool(moved)


@given(st.integers(0, 500))
def test_columns_are_the_rows_of_the_transpose(seed: int) -> None:
    base = matrices(seed, 40, 30, count=1)[0]
    expert = tuned(base, 0.1)[:, torch.randperm(30, generator=torch.Generator().manual_seed(seed))]
    across, down = found(base, expert), found(base.T.contiguous(), expert.T.contiguous())
    assert [each.axis for each in across] == ["columns"]
    assert [each.axis for each in down] == ["rows"]
    assert across[0].moved == down[0].moved
    assert across[0].explained == pytest.approx(down[0].explained)


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.3, 0.7])
def test_units_in_their_place_are_not_moved(ratio: float) -> None:
    base = matrices(0, 64, 48, count=1)[0]
    assert found(base, tuned(base, ratio)) == []


@given(st.integers(0, 200), st.integers(4, 80), st.integers(2, 80))
def test_independent_matrices_are_not_matched(seed: int, rows: int, columns: int) -> None:
    base, expert = matrices(seed, rows, columns)
    assert found(base, expert) == []


def test_two_units_that_changed_places() -> None:
    base = matrices(0, 512, 64, count=1)[0]
    order = torch.arange(512)
    order[[3, 400]] = order[[400, 3]]
    (result,) = found(base, tuned(base, 0.1)[order])
    assert (result.motion, result.moved, result.total) == (Motion.PERMUTED, 2, 512)
    assert result.explained > 0.95 > 0.75 > result.chance


def test_heads_that_changed_places() -> None:
    base = matrices(0, 96, 48, count=1)[0]
    heads = torch.tensor([2, 0, 1])[:, None] * 32 + torch.arange(32)
    (result,) = found(base, base[heads.flatten()])
    assert (result.motion, result.axis, result.moved) == (Motion.PERMUTED, "rows", 96)


def test_signs() -> None:
    base = matrices(0, 40, 30, count=1)[0]
    signs = torch.ones(40)
    signs[:11] = -1
    (result,) = found(base, signs[:, None] * base)
    assert (result.motion, result.axis, result.moved) == (Motion.FLIPPED, "rows", 11)
    assert [each.motion for each in found(base, -base)] == [Motion.FLIPPED], "said once for the whole matrix"


def test_scaled_units_stay_in_place() -> None:
    base = matrices(0, 40, 30, count=1)[0]
    assert found(base, base * torch.linspace(0.1, 9.0, 40)[:, None]) == []


@pytest.mark.parametrize("side", ["rows", "columns"])
def test_rotations(side: str) -> None:
    base, noise = matrices(0, 60, 60)
    basis = torch.linalg.qr(noise).Q
    expert = basis @ tuned(base, 0.05) if side == "rows" else tuned(base, 0.05) @ basis
    (result,) = found(base, expert)
    assert (result.motion, result.axis) == (Motion.ROTATED, side)


def test_singular_values_alone_are_no_rotation() -> None:
    """Independent matrices have nearly the same singular values, and nothing else in common."""
    base, expert = matrices(0, 80, 80)
    left, _, right = torch.linalg.svd(expert)
    same_spectrum = left @ torch.diag(torch.linalg.svdvals(base)) @ right
    torch.testing.assert_close(torch.linalg.svdvals(same_spectrum), torch.linalg.svdvals(base), rtol=1e-3, atol=1e-3)
    assert found(base, same_spectrum) == []


def test_few_entries_make_good_matches_of_anything() -> None:
    """With two entries to a unit the best of many fits by chance, so only an exact order counts."""
    base, expert = matrices(0, 400, 2)
    best = (torch.nn.functional.normalize(expert) @ torch.nn.functional.normalize(base).T).abs().max(1).values
    assert (best**2).mean() > 0.99, "matching alone would call this permuted"
    assert found(base, expert) == []


def test_zero_and_new_rows_are_not_moved_units() -> None:
    base, other = matrices(0, 40, 30)
    expert = base.clone()
    expert[:5] = 0
    expert[5:10] = other[:5]
    assert found(base, expert) == []


def test_many_units_are_sampled() -> None:
    base = matrices(0, 3000, 16, count=1)[0]
    (result,) = found(base, base.roll(1, 0))
    assert result.total == 3000
    assert result.moved > 2900, "some neighbours are alike by chance"


def test_the_pool_is_searched_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    base = matrices(0, 90, 40, count=1)[0]
    expert = tuned(base, 0.2).roll(30, 0)
    whole = found(base, expert)
    monkeypatch.setattr(module, "_POOL", 7)
    (part,) = found(base, expert)
    assert (part.motion, part.moved) == (whole[0].motion, 90)
    assert part.explained == pytest.approx(whole[0].explained)


def at_cosine(base: torch.Tensor, cosine: float) -> torch.Tensor:
    """Rows of one length that have this cosine with the rows of the base."""
    noise = matrices(3, *base.shape, count=1)[0]
    unit = torch.nn.functional.normalize(base)
    noise = torch.nn.functional.normalize(noise - (noise * unit).sum(1, keepdim=True) * unit)
    return cosine * unit + (1 - cosine**2) ** 0.5 * noise


@pytest.mark.parametrize("margin", [-0.02, 0.02])
def test_the_edge_of_what_must_be_explained(margin: float) -> None:
    base = matrices(0, 60, 800, count=1)[0]
    expert = at_cosine(base, (0.75 + margin) ** 0.5).roll(1, 0)
    assert bool(found(base, expert)) is (margin > 0)


@pytest.mark.parametrize("margin", [-0.05, 0.05])
def test_the_edge_of_being_in_place(margin: float) -> None:
    """A unit between its own place and another is moved only where it has left its own."""
    base = torch.linalg.qr(matrices(0, 60, 60, count=1)[0]).Q[:, :60]
    own = 0.5 + margin
    expert = own * base + (1 - own**2) ** 0.5 * base.roll(1, 0)
    assert any(each.axis == "rows" for each in found(base, expert)) is (margin < 0)


@pytest.mark.parametrize(("ratio", "expected"), [(0.14, True), (0.18, False)])
def test_the_edge_of_a_rotation(ratio: float, expected: bool) -> None:
    """Inner products of an update of ratio r keep a squared correlation of 1/(1 + r²)²."""
    base, noise = matrices(0, 300, 200)
    expert = tuned(base, ratio) @ torch.linalg.qr(noise[:200]).Q
    assert bool(found(base, expert)) is expected


def test_first_layers_trained_apart_are_no_rotation() -> None:
    """Rows that follow the same inputs have like inner products, without being each other's in another basis."""
    scales = torch.linspace(0.2, 1.0, 64)
    mixing = matrices(1, 64, 64, count=1)[0] * scales
    base, expert = matrices(0, 600, 64) @ mixing
    products = [(part.T @ part)[*torch.triu_indices(64, 64, 1)] for part in (base, expert)]
    agreement_of_products = float(torch.corrcoef(torch.stack(products))[0, 1]) ** 2
    assert 0.7 < agreement_of_products < 0.95
    assert found(base, expert) == []


def test_few_units_are_matched_by_chance() -> None:
    """Two to five units of two to five entries often fit one another; they are called moved once in a while."""
    shapes = [(rows, columns) for rows in (2, 3, 4, 5) for columns in (2, 3, 5)]
    called = sum(bool(found(*matrices(seed, *shape))) for shape in shapes for seed in range(200))
    assert called <= 3, f"{called} of {200 * len(shapes)}"


def test_units_that_all_became_one_are_not_permuted() -> None:
    base = matrices(0, 40, 60, count=1)[0]
    expert = base[:1].expand(40, 60) + 0.1 * matrices(1, 40, 60, count=1)[0]
    assert found(base, expert) == []


def test_opposite_inner_products_are_no_rotation() -> None:
    """The products are perfectly correlated, with the wrong sign: no basis does that."""
    signs = matrices(0, 12, 12, count=1)[0]
    part = 0.05 * (signs + signs.T).double().fill_diagonal_(0.0)
    eye, basis = torch.eye(12).double(), torch.linalg.qr(matrices(1, 12, 12, count=1)[0].double()).Q
    base, expert = torch.linalg.cholesky(eye + part).T, basis @ torch.linalg.cholesky(eye - part).T
    products = [(each.T @ each)[*torch.triu_indices(12, 12, 1)] for each in (base, expert)]
    torch.testing.assert_close(products[0], -products[1])
    assert [each for each in found(base, expert) if each.axis == "rows"] == []


def test_a_rotation_is_told_with_its_correlation() -> None:
    base = matrices(0, 20, 40, count=1)[0].double()
    turn = torch.linalg.qr(matrices(1, 20, 20, count=1)[0].double()).Q
    expert = turn @ base + 0.05 * matrices(2, 20, 40, count=1)[0]
    (result,) = found(base, expert)
    pairs = torch.triu_indices(40, 40, offset=1)
    products = [(each.T @ each)[pairs[0], pairs[1]] for each in (base, expert)]
    assert result.explained == pytest.approx(float(torch.corrcoef(torch.stack(products))[0, 1]) ** 2)
    assert (result.motion, result.axis, result.moved, result.total) == (Motion.ROTATED, "rows", 20, 20)
    assert result.chance == 0.0 and 0.95 < result.explained < 0.9999


@pytest.mark.parametrize(("count", "expected"), [(8, [Motion.ROTATED]), (7, [])])
def test_a_rotation_of_few_vectors_cannot_be_told(count: int, expected: list[Motion]) -> None:
    base = matrices(3, 12, count, count=1)[0].double()
    turn = torch.linalg.qr(matrices(1, 12, 12, count=1)[0].double()).Q
    assert [each.motion for each in found(base, turn @ base) if each.axis == "rows"] == expected


@pytest.mark.parametrize(("moved", "expected"), [(8, 1), (7, 0)])
def test_few_units_of_few_entries_must_be_eight(moved: int, expected: int) -> None:
    """With three entries, chance alone matches any unit well."""
    base = matrices(0, 40, 3, count=1)[0]
    order = torch.arange(40)
    order[:moved] = order[:moved].roll(1)
    result = [each for each in found(base, base[order]) if each.axis == "rows"]
    assert len(result) == expected


def test_rows_and_columns_that_moved_are_both_told() -> None:
    """Rolling the rows of a circulant matrix is rolling its columns."""
    first = matrices(0, 1, 30, count=1)[0, 0]
    base = torch.stack([first.roll(shift) for shift in range(30)])
    result = found(base, base.roll(3, dims=0))
    assert [(each.motion, each.axis) for each in result] == [(Motion.PERMUTED, "rows"), (Motion.PERMUTED, "columns")]


def test_chance_is_that_of_shuffled_entries_and_repeats() -> None:
    base = matrices(0, 200, 12, count=1)[0]
    (result,) = found(base, base.roll(1, dims=0))
    unit = torch.nn.functional.normalize(base, dim=1)
    best = (unit[:, torch.randperm(12, generator=torch.Generator().manual_seed(9))] @ unit.T).abs().amax(1)
    assert result.chance == pytest.approx(float(best.square().mean()), rel=0.1)
    assert found(base, base.roll(1, dims=0))[0].chance == result.chance


def test_the_nearest_unit_is_found_in_any_part_of_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POOL", 7)
    pool = matrices(0, 20, 30, count=1)[0]
    best, index = module._nearest(module._unit_rows(-3 * pool.flip(0)), pool)
    assert index.tolist() == list(range(19, -1, -1)) and best.tolist() == pytest.approx([1.0] * 20)
