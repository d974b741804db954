"""Singular values: known answers, bounds that hold the truth and are reached, nulls, and what is said about them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from diagnostics import InputError
from diagnostics.measures.singular_values import (
    SingularValues,
    principal_axes,
    product_singular_values,
    random_kept,
    random_rank,
    rank_text,
    singular_values,
)
from diagnostics.results import Status


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_spectrum(values, shape, seed=0):
    """A matrix with these singular values in random bases."""
    left = torch.linalg.qr(gaussian(shape[0], len(values), seed=seed)).Q
    right = torch.linalg.qr(gaussian(shape[1], len(values), seed=seed + 1)).Q
    return left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right.T


def slow_kept(matrix, rank):
    """Squared length of the truncated SVD over that of the whole, by numpy in float64."""
    left, values, right = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    part = (left[:, :rank] * values[:rank]) @ right[:rank]
    return float((part**2).sum() / (matrix.double().numpy() ** 2).sum())


def slow_rank(matrix, share):
    return next(rank for rank in range(1, 1 + min(matrix.shape)) if slow_kept(matrix, rank) >= share - 1e-12)


def check_against_numpy(matrix, found):
    for rank in range(1 + min(matrix.shape)):
        truth, told = slow_kept(matrix, rank), found.kept(rank)
        assert told.lower - 1e-10 <= truth <= told.upper + 1e-10, f"rank {rank}: {truth} outside {told}"
    for share in (0.3, 0.5, 0.9, 0.99):
        truth, told = slow_rank(matrix, share), found.rank_for(share)
        assert told.lower <= truth <= told.upper, f"{share}: rank {truth} outside {told}"


def diagonal(squares):
    return torch.diag(torch.tensor(squares, dtype=torch.float64).sqrt())


def partial(squares, rest, side):
    """What is known of a matrix when the largest σ² and the squared length outside them are."""
    return SingularValues((side + 1, side), float(sum(squares) + rest), diagonal(squares).diag(), False)


shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))


class TestSingularValues:
    @settings(max_examples=40)
    @given(shape=shapes, seed=st.integers(0, 10**6), scale=st.floats(1e-6, 1e6))
    def test_exact_values_are_numpys(self, shape, seed, scale):
        matrix = scale * gaussian(*shape, seed=seed)
        found = singular_values(matrix)
        np.testing.assert_allclose(
            found.values, np.linalg.svd(matrix.numpy(), compute_uv=False), rtol=1e-6, atol=1e-7 * scale
        )
        check_against_numpy(matrix, found)
        assert found.kept(1).status is Status.EXACT and found.rank_for(0.9).lower == found.rank_for(0.9).upper
        assert np.array_equal(*found.bounds), "no width, not even of rounding"

    @settings(max_examples=40)
    @given(shape=shapes, seed=st.integers(0, 10**6), most=st.integers(1, 9), decay=st.floats(0.1, 1.0))
    def test_bounds_of_a_sketch_hold_the_truth(self, shape, seed, most, decay):
        values = [decay**index for index in range(min(shape))]
        matrix = with_spectrum(values, shape, seed)
        check_against_numpy(matrix, singular_values(matrix, exact_up_to=0, most=most, seed=seed))

    def test_check_catches_bounds_that_leave_out_the_rest(self):
        """The mutant takes the computed part for the whole, as a sketch without a certificate does."""
        matrix = gaussian(40, 30)
        honest = singular_values(matrix, exact_up_to=0, most=5)
        check_against_numpy(matrix, honest)
        mutant = SingularValues(honest.shape, float(honest.values.square().sum()), honest.values, True)
        with pytest.raises(AssertionError, match="outside"):
            check_against_numpy(matrix, mutant)

    def test_check_catches_norms_for_squared_norms(self):
        matrix = gaussian(8, 6)
        values = singular_values(matrix).values.sqrt()
        with pytest.raises(AssertionError, match="outside"):
            check_against_numpy(matrix, SingularValues((8, 6), float(values.square().sum()), values, True))

    def test_small_singular_values_do_not_disturb_shares(self):
        """σ from 1 to 1e-12: the Gram matrix squares the condition number, shares do not mind."""
        values = [10.0**-index for index in range(13)]
        matrix = with_spectrum(values, (60, 40))
        squares = np.square(values)
        for rank in range(1, 13):
            assert singular_values(matrix).kept(rank).value == pytest.approx(
                squares[:rank].sum() / squares.sum(), abs=1e-13
            )

    def test_a_low_rank_matrix_is_settled_by_its_sketch(self):
        matrix = gaussian(200, 5) @ gaussian(5, 120, seed=1)
        found = singular_values(matrix, exact_up_to=50)
        assert not found.complete and len(found.values) == 16
        exact = singular_values(matrix)
        for share in (0.5, 0.9, 0.99):
            told = found.rank_for(share)
            assert told.value == exact.rank_for(share).value and told.status is Status.EXACT

    def test_a_sketch_of_a_flat_spectrum_says_that_it_does_not_know(self):
        found = singular_values(gaussian(300, 200), exact_up_to=50, most=20)
        told = found.rank_for(0.9)
        assert told.status is Status.NOT_CONVERGED and "raise exact_up_to" in told.evidence
        assert told.lower < singular_values(gaussian(300, 200)).rank_for(0.9).value <= told.upper
        assert found.unexplained > 0.5

    def test_difference_and_transpose(self):
        matrix, base = gaussian(7, 4), gaussian(7, 4, seed=5)
        plain, moved = singular_values(matrix), singular_values(matrix.T + base.T, base.T)
        np.testing.assert_allclose(plain.values, moved.values, rtol=1e-10)
        assert (plain.shape, moved.shape) == ((7, 4), (4, 7))

    def test_ties_are_reached_to_rounding(self):
        assert singular_values(torch.eye(10)).rank_for(0.9).value == 9

    def test_zero_has_no_share(self):
        found = singular_values(torch.zeros(3, 4))
        for told in (found.kept(1), found.rank_for(0.9)):
            assert all(math.isnan(number) for number in (told.value, told.lower, told.upper))
            assert (told.confidence, told.status) == (1.0, Status.UNDEFINED)
            assert told.evidence == "a zero matrix has nothing to keep"
        assert math.isnan(found.unexplained) and found.to_dict()["kept_at_least"] == {}
        assert str(found) == "3×4, rank undefined for 90%, undefined for 99%"

    @pytest.mark.parametrize("scale", [1.0, -0.5])
    @pytest.mark.parametrize("shape", [(6, 3, 8), (2, 5, 8), (4, 4, 4)])
    def test_factors_give_the_values_of_their_product(self, shape, scale):
        rows, rank, columns = shape
        up, down = gaussian(rows, rank), gaussian(rank, columns, seed=1)
        found = product_singular_values(up, down, scale)
        check_against_numpy(scale * up @ down, found)
        assert len(found.values) <= rank and found.shape == (rows, columns)
        assert found.square == pytest.approx(float((scale * up @ down).square().sum()))

    def test_factors_are_taken_as_they_are_unless_scaled(self):
        up, down = gaussian(5, 2), gaussian(2, 4, seed=1)
        found = product_singular_values(up, down)
        check_against_numpy(up @ down, found)
        assert found.square == pytest.approx(float((up @ down).square().sum()))

    def test_all_values_are_computed_up_to_the_limit_and_a_part_beyond(self):
        matrix = gaussian(6, 5)
        assert singular_values(matrix, exact_up_to=5).complete is True
        assert singular_values(matrix, exact_up_to=4).complete is False

    def test_no_rank_keeps_more_than_everything(self):
        """Rounding alone puts sums of squares above the whole in every second matrix."""
        for seed in range(40):
            found = singular_values(gaussian(12, 3, seed=seed) @ gaussian(3, 10, seed=seed + 1))
            assert max(end.max() for end in found.bounds) == 1 and found.kept(99).value == 1, seed
            assert 0 <= found.unexplained < 1e-14, seed

    @pytest.mark.parametrize(
        ("settings_", "words"),
        [
            ({"matrix": torch.zeros(3)}, "a matrix with entries, or two of one shape; found [[3]]"),
            ({"matrix": torch.zeros(0, 3)}, "a matrix with entries, or two of one shape; found [[0, 3]]"),
            (
                {"matrix": torch.eye(2), "minus": torch.eye(3)},
                "a matrix with entries, or two of one shape; found [[2, 2], [3, 3]]",
            ),
            (
                {"matrix": torch.tensor([[math.inf, 0.0]])},
                "finite entries whose squares are finite; found others",
            ),
        ],
    )
    def test_what_is_no_matrix_is_refused(self, settings_, words):
        with pytest.raises(InputError) as refusal:
            singular_values(**settings_)
        assert str(refusal.value) == f"matrix: expected {words}."

    @pytest.mark.parametrize("share", [0, 1, 90, True, "0.9", math.nan])
    def test_shares_out_of_range_are_refused(self, share):
        for ask in (singular_values(torch.eye(2)).rank_for, lambda each: random_rank((2, 2), each)):
            with pytest.raises(InputError, match=r"^share: expected a share above 0 and below 1"):
                ask(share)

    def test_counts_out_of_range_are_refused(self):
        with pytest.raises(InputError, match=r"^rank: expected a whole number from 0 on; found -1"):
            singular_values(torch.eye(2)).kept(-1)
        with pytest.raises(InputError, match=r"^most: expected a whole number from 1 on; found 0"):
            singular_values(torch.eye(2), most=0)


class TestSketch:
    @pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
    def test_it_doubles_until_the_matrix_lies_within(self, scale):
        matrix = scale * gaussian(90, 20) @ gaussian(20, 80, seed=1)
        assert len(singular_values(matrix, exact_up_to=0).values) == 32
        flat = scale * gaussian(90, 80)
        assert [len(singular_values(flat, exact_up_to=0, most=most).values) for most in (9, 20, 99)] == [9, 20, 80]

    def test_nothing_lies_outside_a_sketch_of_zero(self):
        assert singular_values(torch.zeros(90, 80), exact_up_to=0).values.tolist() == [0.0] * 16

    def test_no_direction_is_overlooked(self):
        """A start on a coordinate axis would stay there."""
        for axis in range(4):
            matrix = torch.diag(3 * torch.eye(4)[axis])
            assert singular_values(matrix, exact_up_to=0, most=1).values.tolist() == pytest.approx([3.0])

    def test_it_repeats_and_another_seed_looks_elsewhere(self):
        first, again, other = (
            singular_values(gaussian(30, 20), exact_up_to=0, most=3, **seed).values
            for seed in ({}, {"seed": 0}, {"seed": 1})
        )
        assert torch.equal(first, again) and not torch.allclose(first, other, rtol=1e-6)

    @pytest.mark.parametrize("options", [{}, {"exact_up_to": 0, "most": 5}])
    def test_matrices_are_read_in_blocks_of_rows(self, options, monkeypatch):
        matrix, base = gaussian(30, 20), gaussian(30, 20, seed=1)
        whole, axes = singular_values(matrix, base, **options), principal_axes(matrix)[1]
        monkeypatch.setattr("diagnostics.measures.agreement._BLOCK", 80)
        parts = singular_values(matrix, base, **options)
        torch.testing.assert_close(parts.values, whole.values, rtol=1e-10, atol=0)
        torch.testing.assert_close(principal_axes(matrix)[1].abs(), axes.abs(), rtol=0, atol=1e-9)


class TestBounds:
    @settings(max_examples=40)
    @given(
        squares=st.lists(st.integers(3, 9), min_size=1, max_size=5).map(lambda each: sorted(each, reverse=True)),
        missing=st.integers(1, 4),
        rest=st.floats(0, 3),
    )
    def test_they_are_reached_when_the_rest_is_spread_evenly_and_when_it_is_all_in_the_first(
        self, squares, missing, rest
    ):
        found = partial(squares, rest, len(squares) + missing)
        even = diagonal([*squares, *[rest / missing] * missing])
        first = diagonal([squares[0] + rest, *squares[1:], *[0] * missing])
        for rank in range(found.side + 2):
            told = found.kept(rank)
            assert (told.value, told.confidence) == (told.lower, 1.0)
            assert told.lower == pytest.approx(slow_kept(even, rank), abs=1e-9), rank
            assert told.upper == pytest.approx(slow_kept(first, rank), abs=1e-9), rank

    @pytest.mark.parametrize(("rest", "status"), [(4, Status.CONVERGED), (7, Status.NOT_CONVERGED)])
    def test_a_share_is_settled_to_a_twentieth_of_the_whole(self, rest, status):
        assert partial([100 - rest], rest, 5).kept(1).status is status

    @pytest.mark.parametrize(
        ("total", "rest", "status"),
        [
            (20, 0, Status.EXACT),
            (20, 1, Status.CONVERGED),
            (20, 2, Status.NOT_CONVERGED),
            (100, 4, Status.CONVERGED),
            (100, 5, Status.NOT_CONVERGED),
        ],
    )
    def test_a_rank_is_settled_to_one_or_a_twentieth_of_it(self, total, rest, status):
        """Of equal values 90 % hold 90 %; as much less suffices as the rest may add to them."""
        told = partial([1] * (total - rest), rest, total).rank_for(0.9)
        enough = 9 * total / 10
        assert (told.value, told.lower, told.upper) == (enough, enough - rest, enough)
        assert (told.confidence, told.status) == (1.0, status)


class TestWhatIsSaid:
    def test_evidence_says_how_much_was_computed(self):
        exact, part = singular_values(torch.eye(3)), partial([64, 16], 20, 5)
        assert exact.kept(1).evidence == exact.rank_for(0.5).evidence == "all 3 singular values"
        words = (
            "2 of 5 directions computed, 20.00% of the squared length outside them; "
            "for the exact rank raise exact_up_to"
        )
        assert part.kept(1).evidence == part.rank_for(0.5).evidence == words

    def test_ranks_are_printed_as_they_are_known(self):
        assert str(singular_values(torch.eye(7, 4))) == "7×4, rank 4 for 90%, 4 for 99%"
        assert rank_text(partial([1] * 18, 2, 20).rank_for(0.9)) == "16 to 18"

    def test_it_is_stored_with_what_powers_of_two_keep(self):
        stored = partial([0.16, 0.04], 0.05, 5).to_dict()
        assert stored.pop("kept_at_least") == pytest.approx({"1": 0.64, "2": 0.8, "4": 0.8 + 0.4 / 3})
        assert stored.pop("kept_at_most") == pytest.approx({"1": 0.84, "2": 1.0, "4": 1.0})
        assert stored.pop("unexplained") == pytest.approx(0.2)
        assert stored == {"shape": [6, 5], "square": 0.25, "complete": False, "break_even": 30 / 11}

    def test_two_factors_of_the_break_even_rank_hold_as_many_numbers_as_the_matrix(self):
        found = singular_values(gaussian(6, 3))
        assert found.break_even * 6 + found.break_even * 3 == 6 * 3


class TestAxes:
    @settings(max_examples=30)
    @given(shape=shapes, seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3))
    def test_the_first_axes_give_the_best_approximation_of_every_rank(self, shape, seed, scale):
        matrix = scale * gaussian(max(shape), min(shape), seed=seed)
        squares, axes = principal_axes(matrix)
        torch.testing.assert_close(axes.T @ axes, torch.eye(min(shape), dtype=torch.float64))
        truth = np.linalg.svd(matrix.numpy(), compute_uv=False) ** 2
        for rank in range(1 + min(shape)):
            left = matrix - matrix @ axes[:, :rank] @ axes[:, :rank].T
            assert float(left.square().sum()) == pytest.approx(truth[rank:].sum(), abs=1e-12 * truth.sum())
        assert squares.tolist() == pytest.approx(truth, abs=1e-12 * truth.sum())

    def test_no_square_is_below_zero(self):
        for seed in range(10):
            squares, _ = principal_axes(gaussian(8, 2, seed=seed) @ gaussian(2, 6, seed=seed + 1))
            assert squares.min() >= 0 and squares[2:].max() < 1e-12


class TestNull:
    @pytest.mark.parametrize("shape", [(120, 120), (400, 100), (60, 300)])
    def test_null_is_what_random_matrices_give(self, shape):
        matrix = gaussian(*shape)
        for rank in (1, 5, min(shape) // 4, min(shape) // 2):
            assert random_kept(shape, rank) == pytest.approx(slow_kept(matrix, rank), abs=0.012)
        assert random_rank(shape, 0.9) == pytest.approx(slow_rank(matrix, 0.9), abs=2)
        assert random_kept(shape, min(shape)) == pytest.approx(1)

    @pytest.mark.parametrize("beta", [1.0, 0.25, 0.01])
    @pytest.mark.parametrize("place", [0.01, 0.3, 0.7, 0.98])
    def test_shares_are_integrals_of_the_density_of_marchenko_and_pastur(self, beta, place):
        """Sides in the millions leave the law alone: a rank is then any share of the values."""
        low, high = (1 - math.sqrt(beta)) ** 2, (1 + math.sqrt(beta)) ** 2
        shape = (10**8, round(10**8 * beta))

        def above(power):
            whole = 2 * math.pi * beta
            return quad(
                lambda x: x ** (power - 1) * math.sqrt((high - x) * (x - low)) / whole, low + place * (high - low), high
            )[0]

        rank = round(above(0) * min(shape))
        assert random_kept(shape, rank) == pytest.approx(above(1), abs=2e-6)
        assert random_rank(shape, above(1)) == pytest.approx(rank, abs=1e-5 * min(shape))

    @pytest.mark.parametrize("shape", [(50, 50), (60, 300)])
    def test_the_rank_that_keeps_what_a_rank_keeps_is_that_rank(self, shape):
        for rank in range(1, min(shape)):
            assert random_rank(shape, random_kept(shape, rank)) == rank
        assert random_kept(shape, 0) == 0 and random_rank(shape, 1e-6) == 1
