"""orthogonality: an independent slow definition, exact nulls against simulation, known answers, what is left out."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from diagnostics import InputError, MismatchError
from diagnostics.exact.random_vectors import null_cosine
from diagnostics.measures import column_angles
from diagnostics.measures import orthogonality as module
from diagnostics.measures.column_angles import (
    null_deviation,
    null_square_deviation,
    pair_sums,
    rotation_deviation,
    unit_columns,
)
from diagnostics.measures.orthogonality import orthogonality


def matrices(seed, *shape, count=3):
    return list(torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def measured(updates, base=None, **options):
    """Updates of one tensor, added to a base."""
    base = torch.zeros_like(updates[0]) if base is None else base
    experts = {f"m{index}": {"w": base + update} for index, update in enumerate(updates)}
    return orthogonality({"w": base}, experts, **options)


def slow(first, second, *, inside):
    """Means of |cos|, matched |cos| and cos², column by column, in plain numpy."""
    first, second = np.asarray(first), np.asarray(second)
    different, squares, matched = [], [], []
    for k in range(first.shape[1]):
        for l in range(second.shape[1]):  # noqa: E741
            a, b = first[:, k], second[:, l]
            if not a.any() or not b.any() or (inside and k == l):
                continue
            cosine = abs(sum(a * b)) / math.sqrt(sum(a * a) * sum(b * b))
            squares.append(cosine**2)
            (matched if k == l else different).append(cosine)
    return [np.mean(each) if each else math.nan for each in (different, matched, squares)]


def agrees_with_the_definition(updates, **options):
    found = measured(updates, **options)
    if options.get("side") == "rows":
        updates = [update.T for update in updates]
    for i, first in enumerate(updates):
        for j, second in enumerate(updates):
            cells = [getattr(found, kind).value[i, j].item() for kind in ("cosine", "matched", "square")]
            np.testing.assert_allclose(cells, slow(first, second, inside=i == j), atol=1e-12)


def with_zero_columns():
    updates = matrices(3, 4, 6)
    updates[0][:, 2] = 0
    updates[1][:, 2:4] = 0
    return updates


@pytest.mark.parametrize("side", ["columns", "rows"])
@pytest.mark.parametrize("shape", [(3, 5), (7, 2), (1, 4), (4, 1)])
def test_values_are_those_of_the_definition(shape, side):
    agrees_with_the_definition(matrices(0, *shape), side=side)


def test_zero_columns_are_left_out_and_counted():
    agrees_with_the_definition(with_zero_columns())
    found = measured(with_zero_columns())
    assert found.zero.tolist() == [1, 2, 0] and found.base_zero == 6
    assert found.notes == (
        "columns that did not change have no direction and are left out: 1 of m0, 2 of m1",
        "6 zero columns of the base are left out",
    )


@pytest.mark.parametrize(
    ("where", "name", "mutant"),
    [
        (column_angles, "pair_sums", lambda a, b: tuple(2 * s for s in pair_sums(a, b))),
        (column_angles, "pair_sums", lambda a, b: pair_sums(a, a)),
        (module, "unit_columns", lambda m: (m, unit_columns(m)[1])),
        (module, "unit_columns", lambda m: (unit_columns(m)[0], torch.ones(m.shape[1], dtype=torch.bool))),
    ],
    ids=["pairs counted twice", "the first update with itself", "not normalised", "zero columns counted"],
)
def test_mutants_fail(monkeypatch, where, name, mutant):
    monkeypatch.setattr(where, name, mutant)
    with pytest.raises(AssertionError):
        agrees_with_the_definition(with_zero_columns())


def test_known_values_of_the_null():
    assert [null_cosine(r) for r in (1, 2, 3)] == pytest.approx([1, 2 / math.pi, 1 / 2], abs=1e-14)
    assert null_cosine(100_000) == pytest.approx(math.sqrt(2 / (math.pi * 100_000)), rel=1e-5)
    with pytest.raises(InputError, match="at least 1"):
        null_cosine(0)


DRAWS = 4000


def simulated(dimension, count, seed=0):
    """Mean |cos| inside, and mean |cos| and cos² between, for many independent pairs of random matrices."""
    generator = torch.Generator().manual_seed(seed)
    one, two = torch.randn(2, DRAWS, dimension, count, generator=generator, dtype=torch.float64)
    one, two = (each / each.norm(dim=1, keepdim=True) for each in (one, two))
    off = ~torch.eye(count, dtype=torch.bool)
    inside, between = (one.mT @ one)[:, off], (one.mT @ two).flatten(1)
    return inside.abs().mean(1), between.abs().mean(1), inside.square().mean(1), between.square().mean(1)


def null_holds(dimension, count):
    inside, between, inside_squares, between_squares = simulated(dimension, count)
    pairs = count * (count - 1) // 2
    told = [
        (inside, null_cosine(dimension), null_deviation(dimension, pairs)),
        (between, null_cosine(dimension), null_deviation(dimension, count**2)),
        (inside_squares, 1 / dimension, null_square_deviation(dimension, pairs)),
        (between_squares, 1 / dimension, null_square_deviation(dimension, count**2)),
    ]
    for values, mean, deviation in told:
        # Five standard errors, of a mean and of a standard deviation (for tails no heavier than here).
        assert float(values.mean()) == pytest.approx(mean, abs=5 * deviation / math.sqrt(DRAWS) + 1e-12)
        assert float(values.std()) == pytest.approx(deviation, rel=0.1, abs=1e-7)


@pytest.mark.parametrize(("dimension", "count"), [(1, 3), (2, 4), (5, 6), (12, 3)])
def test_null_and_its_spread_against_simulation(dimension, count):
    null_holds(dimension, count)


def test_a_wrong_null_fails(monkeypatch):
    wrong = lambda dimension: math.sqrt(2 / (math.pi * dimension))  # noqa: E731
    monkeypatch.setitem(globals(), "null_cosine", wrong)
    with pytest.raises(AssertionError):
        null_holds(2, 4)


def rotation_null_holds(told):
    """A fixed, structured pair; one is turned at random."""
    generator = torch.Generator().manual_seed(1)
    left = torch.randn(5, 2, generator=generator, dtype=torch.float64) @ torch.randn(
        2, 7, generator=generator, dtype=torch.float64
    )
    right = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    one, two = (unit_columns(each)[0] for each in (left, right))
    turns, upper = torch.linalg.qr(torch.randn(DRAWS, 5, 5, generator=generator, dtype=torch.float64))
    turns = turns * upper.diagonal(dim1=1, dim2=2).sign()[:, None, :]
    values = (one.T @ turns @ two).square().mean((1, 2))
    filled = [float((each.T @ each).square().mean()) for each in (one, two)]
    deviation = told(5, *filled)
    assert float(values.mean()) == pytest.approx(1 / 5, abs=5 * deviation / math.sqrt(DRAWS))
    assert float(values.std()) == pytest.approx(deviation, rel=0.1)
    # The other columns only have to be of the same shape: each pair of updates has its own spread.
    found = measured([left, torch.cat([right, torch.zeros(5, 3)], 1)])
    assert found.square.deviation[0, 1].item() == pytest.approx(deviation, rel=1e-12)


def test_turning_one_update_at_random_gives_the_spread_told():
    rotation_null_holds(rotation_deviation)
    with pytest.raises(AssertionError):
        rotation_null_holds(lambda r, a, b: math.sqrt(a * b / (r * r)))


def test_orthogonal_inside_does_not_mean_orthogonal_between():
    eye = torch.eye(6).double()
    found = measured([eye, eye, eye.flip(1)])
    assert found.inside.tolist() == [0, 0, 0]
    assert found.matched.value[0, 1] == 1 and found.cosine.value[0, 1] == 0
    assert found.matched.value[0, 2] == 0 and found.cosine.value[0, 2] == pytest.approx(1 / 5)
    assert found.square.value[0, 1] == pytest.approx(1 / 6), "both fill the whole space, as chance would"


def test_rank_one_updates():
    rank_one = torch.outer(torch.arange(1.0, 5), torch.tensor([1.0, -2, 3])).double()
    found = measured([rank_one, -3 * rank_one])
    np.testing.assert_allclose(found.cosine.value, 1)
    assert found.matched.value[0, 1] == pytest.approx(1) and found.square.value[0, 1] == pytest.approx(1)
    assert (found.cosine.deviations > 1).all()


def test_the_floor_is_reached_by_a_tight_frame():
    angles = torch.arange(5) * math.pi / 5
    frame = torch.stack([angles.cos(), angles.sin()]).double()
    found = measured([frame])
    assert found.square.value.item() == pytest.approx(found.floor.item(), rel=1e-6)
    assert found.floor.item() == pytest.approx(3 / (2 * 4))
    assert measured([torch.eye(4).double()]).floor.item() == 0


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), scale=st.floats(1e-100, 1e100))
def test_scale_of_updates_does_not_matter(seed, scale):
    updates = matrices(seed, 3, 4, count=2)
    one, two = measured(updates), measured([scale * updates[0], -updates[1]])
    for kind in ("cosine", "matched", "square"):
        np.testing.assert_allclose(getattr(one, kind).value, getattr(two, kind).value, atol=1e-12)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_a_common_rotation_does_not_matter(seed):
    turn, _ = torch.linalg.qr(matrices(seed + 1, 4, 4)[0])
    updates = matrices(seed, 4, 5, count=2)
    one, two = measured(updates), measured([turn @ update for update in updates])
    for kind in ("cosine", "matched", "square"):
        np.testing.assert_allclose(getattr(one, kind).value, getattr(two, kind).value, atol=1e-12)


def test_random_updates_are_at_chance():
    found = measured(matrices(5, 40, 60))
    off = ~torch.eye(3, dtype=torch.bool)
    for kind in ("cosine", "square"):
        assert getattr(found, kind).deviations.abs().max() < 4
    assert found.matched.deviations[off].abs().max() < 4
    np.testing.assert_allclose(found.cosine.ratio, 1, atol=0.05)


def test_an_update_of_zero_is_undefined_and_named():
    found = measured([torch.zeros(3, 3).double(), *matrices(0, 3, 3, count=1)])
    assert found.inside[0].isnan() and not found.inside[1].isnan() and found.cosine.value[0, 1].isnan()
    assert found.notes[0] == "no change in the tensors covered, so no direction: m0"
    both = measured([torch.zeros(3, 3).double(), torch.zeros(3, 3).double()])
    assert both.notes[0] == "no change in the tensors covered, so no direction: m0, m1"
    assert found.to_dict()["cosine"]["value"][0] == [None, None]


def test_drawn_columns_come_with_an_error_that_holds():
    """Columns of very different mean |cos|, so that drawing matters."""
    common, own = torch.ones(6, 1).double(), matrices(2, 6, 120, count=2)
    mixed = [each + 3 * common * (torch.arange(120) % 3 == 0) for each in own]
    whole = measured(mixed)
    drawn = [measured(mixed, max_columns=30, seed=seed) for seed in range(60)]
    assert whole.cosine.stderr.sum() == 0 and "30 of 120 columns were drawn" in drawn[0].notes[-1]
    for kind in ("cosine", "square"):
        values = torch.stack([getattr(each, kind).value for each in drawn])
        errors = torch.stack([getattr(each, kind).stderr for each in drawn])
        np.testing.assert_allclose(errors.square().mean(0).sqrt() / values.std(0), 1, atol=0.3)
        shift = (values.mean(0) - getattr(whole, kind).value) / (values.std(0) / math.sqrt(60))
        assert shift.abs().max() < 4
    assert drawn[0].matched.value[0, 1] == whole.matched.value[0, 1], "matched columns are all compared"


def test_the_seed_decides_which_columns_are_drawn():
    updates = matrices(2, 3, 40, count=2)
    first, second, other = (measured(updates, max_columns=10, **seed) for seed in ({}, {"seed": 0}, {"seed": 1}))
    assert torch.equal(first.cosine.value, second.cosine.value)
    assert not torch.equal(first.cosine.value, other.cosine.value)


def test_2048_columns_are_compared_unless_told_otherwise():
    found = measured(matrices(0, 1, 2049, count=1))
    assert (found.columns, found.drawn) == (2049, 2048)


def two_layers():
    base = {"h.0.w": torch.zeros(3, 4), "h.1.w": torch.zeros(3, 4), "b": torch.zeros(3), "conv": torch.zeros(2, 2, 3)}
    first, second = matrices(4, 3, 4, count=2), matrices(6, 3, 4, count=2)
    experts = {
        f"m{i}": {"h.0.w": first[i].float(), "h.1.w": 5 * second[i].float(), "b": torch.ones(3), "conv": base["conv"]}
        for i in range(2)
    }
    return base, experts


def test_totals_are_weighted_by_norms_or_parameters():
    base, experts = two_layers()
    found = orthogonality(base, experts)
    parts = [found.layers[name] for name in ("h.0.w", "h.1.w")]
    weights = [torch.outer(part.norms, part.norms) for part in parts]
    expected = sum(w * part.cosine.value for w, part in zip(weights, parts, strict=True)) / sum(weights)
    np.testing.assert_allclose(found.cosine.value, expected)
    deviations = sum((w * part.cosine.deviation) ** 2 for w, part in zip(weights, parts, strict=True)).sqrt()
    np.testing.assert_allclose(found.cosine.deviation, deviations / sum(weights))
    plain = found.averaged("parameters")
    np.testing.assert_allclose(plain.cosine.value, (parts[0].cosine.value + parts[1].cosine.value) / 2)
    kinds = found.by_kind()
    assert list(kinds) == ["h.*.w"] and torch.equal(kinds["h.*.w"].cosine.value, found.cosine.value)
    assert found.averaged().to_dict() == found.to_dict()
    with pytest.raises(InputError, match=r"^weighting: expected one of"):
        found.averaged("size")


def test_what_has_no_columns_is_listed():
    found = orthogonality(*two_layers())
    assert found.not_covered == {"b": "1 dimension", "conv": "3 dimensions"}
    assert "not covered: 1 with 1 dimension, 1 with 3 dimensions" in found.notes
    assert found.parameters == 24 and "not covered" in str(found)
    with_empty = orthogonality(
        {"w": torch.zeros(2, 2), "e": torch.zeros(0, 3)}, {"m": {"w": torch.eye(2), "e": torch.zeros(0, 3)}}
    )
    assert with_empty.not_covered == {"e": "no values"}


def test_an_update_that_moves_other_columns_is_left_out_of_matched_alone():
    one, two = torch.zeros(2, 3, 3).double()
    one[0, 0], two[0, 1] = 1, 1
    found = measured([one, two])
    assert found.cosine.value[0, 1] == 1 and found.matched.value[0, 1].isnan() and found.inside.isnan().all()


def test_files_and_memory_agree(tmp_path):
    base, experts = two_layers()
    paths = {}
    for name, params in {"base": base, **experts}.items():
        paths[name] = tmp_path / f"{name}.safetensors"
        save_file({key: value.contiguous() for key, value in params.items()}, paths[name])
    found = orthogonality(paths.pop("base"), list(paths.values()))
    assert found.names == ("m0", "m1")
    assert torch.equal(found.cosine.value, orthogonality(base, experts).cosine.value)


def test_bad_input_is_refused():
    base, experts = two_layers()
    for named in ({}, {"base": experts["m0"]}):
        with pytest.raises(InputError, match="experts: expected at least one, and none called 'base'"):
            orthogonality(base, named)
    with pytest.raises(InputError, match="side: expected one of"):
        orthogonality(base, experts, side="left")
    with pytest.raises(InputError, match=r"^max_columns: expected"):
        orthogonality(base, experts, max_columns=1)
    assert orthogonality(base, experts, max_columns=2).drawn == 4
    with pytest.raises(InputError, match="two dimensions; found 1 with 1 dimension"):
        orthogonality({"b": torch.zeros(3)}, {"m": {"b": torch.ones(3)}})
    with pytest.raises(InputError, match=r"m: expected finite values; found h\.0\.w: 12 NaN"):
        orthogonality(base, {"m": {**base, "h.0.w": torch.full((3, 4), math.nan)}})
    with pytest.raises(MismatchError):
        orthogonality(base, {"m": {"h.0.w": torch.zeros(3, 4)}})
    assert orthogonality(base, experts, private=["h.0.*"]).parameters == 12
