"""What is told of the structure of an update: known numbers and texts, intervals of ranks, what is undefined."""

import math
from dataclasses import fields, replace

import pytest
import torch
from scipy.stats import chi2

from diagnostics import InputError
from diagnostics.measures import agreement
from diagnostics.measures.singular_values import SingularValues, random_kept
from diagnostics.measures.storage import Rounding
from diagnostics.measures.update_structure import update_structure
from diagnostics.results import Status
from tests.measures.test_singular_values import gaussian
from tests.measures.test_update_structure import BASE, moved


def known():
    """Singular values 4, 2, 2, 1 eighths of a matrix, half of the squared length in a vector, little of the base."""
    base = {"w": torch.zeros(4, 4).double(), "b": torch.tensor([0.0, 0.5]).double()}
    bias = torch.tensor([0.625, 2.0**-10]).double()
    return base, {"w": torch.diag(torch.tensor([4.0, 2, 2, 1]) / 8).double(), "b": base["b"] + bias}


def random_rows(share):
    """Of the squared length of rows of four normal entries, what the largest hold."""
    return chi2.sf(chi2.isf(share, 4), 6)


class TestWhatIsTold:
    def test_all_numbers_of_a_known_update(self):
        found = update_structure(*known())
        told = found.to_dict()
        assert told["square"] == pytest.approx(50 / 64, rel=1e-5) and told["base_square"] == 0.25
        assert told["outside"] == pytest.approx(0.5, abs=1e-5)
        assert told["entries"]["zeros"] == 12 and told["entries"]["below"] == {"bfloat16": 13, "float16": 12}
        assert {share: rank["value"] for share, rank in told["ranks"].items()} == {"0.9": 2, "0.99": 4}
        assert told["kept"] == pytest.approx({"1": 0.82, "2": 0.9, "4": 1}, abs=1e-5)
        chance = {str(rank): 0.5 + 0.5 * random_kept((4, 4), rank) for rank in (1, 2, 4)}
        assert told["null_kept"] == pytest.approx(chance, abs=1e-5)
        assert told["held"] == pytest.approx({"0.1": 0.82, "0.25": 0.82, "0.5": 0.9}, abs=1e-5)
        chance = {"0.1": random_rows(0.25), "0.25": random_rows(0.25), "0.5": random_rows(0.5)}
        assert told["null_held"] == pytest.approx({key: 0.5 + 0.5 * value for key, value in chance.items()}, abs=1e-5)
        assert told["notes"] == ["no matrices: 1 of 2 tensors, with 50.00% of the squared length"]
        assert told["tensors"]["w"]["square"] == 25 / 64 and told["shares"] == [0.9, 0.99]

    def test_text_of_a_known_update(self):
        found = update_structure(*known())
        assert str(found).splitlines() == [
            "2 tensors, norm 0.8839 (176.78% of the base)",
            "  rank of every matrix: 2 for 0.9, 4 for 0.99; rank 1 keeps 82.0% "
            f"(random: {0.5 + 0.5 * random_kept((4, 4), 1):.1%})",
            f"  a tenth of the rows holds 82.0% (random: {0.5 + 0.5 * random_rows(0.25):.1%})",
            "  entries: 66.7% zero; storage would lose 72.2% below bfloat16, 66.7% below float16",
            "  note: no matrices: 1 of 2 tensors, with 50.00% of the squared length",
        ]
        assert str(found.tensors["w"]) == "w: norm 0.625, 75.0% zeros, 4×4, rank 3 for 90%, 4 for 99%"
        assert str(found.tensors["b"]) == "b: norm 0.625, 0.0% zeros, no matrix"

    def test_a_base_of_zeros_has_no_length_to_compare_with(self):
        found = update_structure({"w": torch.zeros(2, 2)}, {"w": torch.eye(2)})
        assert str(found).splitlines()[0] == "1 tensors, norm 1.414"
        assert found.notes == ()

    def test_tensors_that_are_read_as_matrices_are_named(self):
        base = {"one": torch.zeros(2, 2, 2), "two": torch.zeros(2, 1, 1, 2), "w": torch.zeros(2, 2)}
        found = update_structure(base, {name: value + 1 for name, value in base.items()})
        assert found.notes == ("read as matrices of their first dimension by all others: one, two",)

    def test_an_expert_that_is_its_base_has_neither_shares_nor_ranks(self):
        found = update_structure(BASE, BASE)
        for told in (found.kept(1), found.rank_for(0.9)):
            assert all(math.isnan(value) for value in (told.value, told.lower, told.upper))
            assert (told.confidence, told.evidence) == (1, "the expert is its base")
        assert found.notes == (
            "unchanged: 3 of 3 tensors",
            "read as matrices of their first dimension by all others: conv.weight",
        )
        assert str(found) == "3 tensors, norm 0: no update"

    def test_rounding_of_all_tensors_is_the_sum_of_theirs(self):
        base = {name: gaussian(50, 40, seed=seed).bfloat16() for seed, name in enumerate(("first", "second"))}
        moved_ = {name: (value.double() + 2e-3 * gaussian(50, 40, seed=2)).bfloat16() for name, value in base.items()}
        found = update_structure(base, moved_)
        for each in fields(Rounding):
            parts = [getattr(tensor.rounding, each.name) for tensor in found.tensors.values()]
            assert min(parts) > 0 and getattr(found.rounding, each.name) == pytest.approx(sum(parts))
        told, first = found.to_dict()["tensors"]["first"]["rounding"], found.tensors["first"].rounding
        assert told == {"lost": first.lost, "zero_share": first.zeros / first.count}

    def test_what_did_not_move_lost_nothing_that_could_be_told(self):
        assert update_structure(BASE, BASE).tensors["bias"].to_dict()["rounding"] == {"lost": None, "zero_share": 0}

    def test_matrices_come_by_the_length_of_their_updates(self):
        base = {name: torch.zeros(2, 2) for name in "abc"} | {"still": torch.zeros(2, 2), "vector": torch.zeros(2)}
        moves = {"a": 2.0, "b": 3.0, "c": 1.0, "still": 0.0, "vector": 9.0}
        found = update_structure(base, {name: value + moves[name] for name, value in base.items()})
        assert [each.name for each in found.matrices] == ["b", "a", "c"]

    def test_an_update_of_vectors_alone_needs_no_rank(self):
        found = update_structure(BASE, moved({"bias": torch.ones(5)}))
        assert found.rank_for(0.99).value == 0 and found.kept(0).value == found.kept(3).value == 1
        assert found.outside == 1 and found.to_dict()["kept"] == {}

    @pytest.mark.parametrize("count", [3, 7, 9])
    def test_a_share_that_is_reached_to_rounding_is_reached(self, count):
        found = update_structure({"w": torch.zeros(10, 10)}, {"w": torch.eye(10)})
        assert found.rank_for(count / 10).value == count

    def test_a_rank_is_a_whole_number_from_none_on(self):
        found = update_structure(*known())
        assert found.kept(0).value == pytest.approx(0.5, abs=1e-5)
        with pytest.raises(InputError, match=r"^rank: expected"):
            found.kept(-1)

    @pytest.mark.parametrize("share", [0, 1, -0.5, 90])
    def test_a_share_for_ranks_lies_between_none_and_all(self, share):
        found = update_structure(*known())
        with pytest.raises(InputError, match=f"^share: expected a share above 0 and below 1; found {share}"):
            found.rank_for(share)


def in_part(rest):
    """A matrix of 100 × 100 alone, of which 50 equal singular values are known and a share is not."""
    found = update_structure({"w": torch.zeros(100, 100)}, {"w": torch.eye(100)})
    values = torch.full((50,), math.sqrt((1 - rest) / 50)).double()
    tensor = replace(found.tensors["w"], square=1.0, spectrum=SingularValues((100, 100), 1.0, values, False))
    return replace(found, tensors={"w": tensor})


class TestSpectraInPart:
    def test_shares_lie_between_nothing_more_and_all_that_is_not_known(self):
        told = in_part(0.04).kept(10)
        assert (told.value, told.lower, told.upper) == pytest.approx((0.192, 0.192, 0.232))
        assert (told.confidence, told.status) == (1, Status.CONVERGED)
        assert told.evidence == "1 matrices, 1 of them in part: for exact ranks raise exact_up_to"
        assert in_part(0.06).kept(10).status is Status.NOT_CONVERGED

    # Each known value holds (1 - rest) / 50 of the squared length.
    @pytest.mark.parametrize(
        ("rest", "share", "least", "enough", "status"),
        [
            (0.015, 0.19, 9, 10, Status.CONVERGED),
            (0.04, 0.185, 8, 10, Status.NOT_CONVERGED),
            (0.04, 0.74, 37, 39, Status.NOT_CONVERGED),
            (0.04, 0.76, 38, 40, Status.CONVERGED),
        ],
    )
    def test_a_rank_is_settled_within_one_or_a_twentieth(self, rest, share, least, enough, status):
        told = in_part(rest).rank_for(share)
        assert (told.value, told.lower, told.upper) == (enough, least, enough)
        assert (told.confidence, told.status) == (1, status)
        assert told.evidence == "1 matrices, 1 of them in part: for exact ranks raise exact_up_to"

    def test_one_matrix_in_part_makes_the_whole_inexact(self):
        other = update_structure({"v": torch.zeros(2, 2)}, {"v": torch.eye(2)})
        both = replace(other, tensors=in_part(0.04).tensors | other.tensors)
        assert other.rank_for(0.9).status is Status.EXACT and other.rank_for(0.9).evidence == "1 matrices"
        assert both.rank_for(0.9).status is not Status.EXACT
        assert both.kept(1).evidence == "2 matrices, 1 of them in part: for exact ranks raise exact_up_to"


class TestReading:
    def test_blocks_of_rows_add_up(self, monkeypatch):
        base = {"w": 2 * torch.eye(4).double()}
        expert = {"w": base["w"] + known()[1]["w"]}
        whole = update_structure(base, expert).to_dict()
        monkeypatch.setattr(agreement, "_BLOCK", 1)
        by_rows = update_structure(base, expert).to_dict()
        assert by_rows == whole and by_rows["base_square"] == 16

    @pytest.mark.parametrize(("shape", "is_matrix"), [((1, 1), True), ((0, 3), False), ((3, 0), False), ((3,), False)])
    def test_a_matrix_is_what_has_two_dimensions_and_values(self, shape, is_matrix):
        base = {"w": torch.zeros(shape), "other": torch.zeros(2, 2)}
        found = update_structure(base, {name: value + 1 for name, value in base.items()}).tensors["w"]
        assert (found.spectrum is not None, found.rows is not None) == (is_matrix, is_matrix)
        assert found.shape == shape and found.square == found.entries.count == math.prod(shape)

    def test_tied_tensors_are_read_by_the_name_each_model_stores(self):
        shared, other = gaussian(3, 3), gaussian(3, 3, seed=1)
        found = update_structure({"in": shared, "out": shared}, {"out": other})
        assert list(found.tensors) == ["in"]
        assert found.square == pytest.approx(float((other - shared).square().sum()))

    def test_random_directions_are_those_of_the_seed(self):
        base, expert = {"w": torch.zeros(300, 300)}, {"w": gaussian(300, 300)}
        found = [update_structure(base, expert, exact_up_to=3, **seed) for seed in ({}, {"seed": 0}, {"seed": 1})]
        first, second, other = (each.tensors["w"].spectrum.values for each in found)
        assert torch.equal(first, second) and not torch.equal(first, other)
