"""Every derivation: what holds is not refuted, what is wrong is, and its words fit its objects."""

import importlib
import re

import numpy as np
import pytest
from latex2mathml.converter import convert

from diagnostics import derivations
from diagnostics.errors import InputError
from diagnostics.exact.relations import Relation
from diagnostics.results import Status, Verdict
from diagnostics.testing.search import judged
from diagnostics.theory.addition import addition_report
from diagnostics.theory.derivations.addition import ADDITION
from diagnostics.theory.derivations.derivation import Claim, Derivation, Kind, Mutant
from diagnostics.theory.derivations.ways import addition
from diagnostics.theory.loss_gap import Curvature, Displacement
from diagnostics.verdicts.derivations import check_derivation

ALL = derivations.all()
WRONG = [item for item in ALL if not item.as_stated]
MUTANTS = [(item, mutant) for item in ALL for mutant in item.mutants]
# Of a bound that cannot be lowered some case has all but the whole; a short search finds this share at least.
ATTAINED = 0.75
NOT_ATTAINED = {"2.2": 0.5, "2.7-minimum": 0.6}
# Equations of the theory that the package states: section, last number.
LAST = {1: 15, 2: 15, 3: 4, 4: 3, 5: 3}


def named(item):
    return item.id if isinstance(item, Derivation) else item.description


@pytest.mark.parametrize("item", ALL, ids=named)
def test_what_holds_is_not_refuted(item):
    evidence = item.check()
    assert evidence.verdict is Verdict.SUPPORTED, str(evidence)
    attained = evidence.closest is None or NOT_ATTAINED.get(item.id, ATTAINED) <= evidence.closest <= 1 + 2.0**-26
    assert attained, f"a bound is either attained or named: {evidence}"


@pytest.mark.parametrize(("item", "mutant"), MUTANTS, ids=named)
def test_a_wrong_form_is_refuted(item, mutant):
    single = Derivation(item.id, item.title, item.source, item.kind, item.claim, (mutant,))
    evidence = single.check_mutants()[mutant.description]
    assert evidence.verdict is Verdict.REFUTED, str(evidence)
    broken = evidence.counterexample.broken
    assert mutant.without in ("", *broken), f"without {mutant.without!r}, refuted by a case that meets it: {evidence}"


@pytest.mark.parametrize("item", WRONG, ids=named)
def test_a_published_form_that_fails_is_refuted_and_so_by_its_stored_case(item):
    found = item.check_as_stated()
    assert found.verdict is Verdict.REFUTED, str(found)
    audit = item.published.audit(item.published.read(item.counterexample))
    assert all(condition.holds for condition in audit.values()), audit
    judgement = judged(item.published, item.counterexample)
    assert not judgement.holds, f"the stored counterexample fits: {judgement}"


@pytest.mark.parametrize("item", WRONG, ids=named)
def test_where_the_stored_case_meets_what_the_right_form_assumes_it_fits_it(item):
    audit = item.claim.audit(item.claim.read(item.counterexample))
    met = all(condition.holds for condition in audit.values())
    assert not met or judged(item.claim, item.counterexample).holds


@pytest.mark.parametrize("item", ALL, ids=named)
def test_the_words_are_there(item):
    assert item.title.endswith(".") and item.source
    assert item.kind is not Kind.SHARPER or item.proof, "a claim that goes beyond its source needs a proof"
    assert convert(item.statement) and convert(item.claim.statement)
    assert len({mutant.description for mutant in item.mutants}) == len(item.mutants)
    assert item.to_dict()["as_stated"] is item.as_stated


@pytest.mark.parametrize("item", ALL, ids=named)
def test_the_functions_it_names_are_there(item):
    for name in item.code:
        parts = name.split(".")
        depth = next(n for n in range(len(parts) - 1, 0, -1) if importlib.util.find_spec(".".join(parts[:n])))
        found = importlib.import_module(".".join(parts[:depth]))
        for part in parts[depth:]:
            found = getattr(found, part)
        assert callable(found)


def test_every_equation_is_in_the_registry():
    known = {re.match(r"\d+\.\d+", item.id)[0] for item in ALL}
    wanted = {f"{section}.{number}" for section, last in LAST.items() for number in range(1, last + 1)}
    assert wanted <= known, sorted(wanted - known)


def test_ids_are_found_and_unknown_ones_are_answered_with_the_nearest():
    assert derivations.get("2.1").id == "2.1"
    with pytest.raises(InputError, match=r"Nearest: .*2\.10"):
        derivations.get("2.100")


def test_a_derivation_of_ones_own_is_added_and_the_packages_are_not_replaced():
    mine = Derivation("mine", "Mine.", "me", Kind.CLAIM, ADDITION.claim, ADDITION.mutants)
    derivations.register(mine)
    assert derivations.get("mine") is mine and derivations.all()[-1] is mine
    with pytest.raises(InputError, match="the package's own"):
        derivations.register(ADDITION)


def test_a_derivation_without_a_mutant_or_with_half_an_erratum_is_refused():
    with pytest.raises(InputError, match="a mutant"):
        Derivation("x", "X.", "me", Kind.CLAIM, ADDITION.claim, ())
    with pytest.raises(InputError, match="correction, counterexample and by_hand"):
        Derivation("x", "X.", "me", Kind.CLAIM, ADDITION.claim, ADDITION.mutants, correction="only words")


def test_a_check_whose_mutant_survives_is_undecided():
    same = Mutant("no mutant at all", right=ADDITION.claim.right)
    found = check_derivation(Derivation("x", "X.", "me", Kind.CLAIM, ADDITION.claim, (same,)), 50)
    assert found.verdict is Verdict.UNDECIDED and found.survivors == ("no mutant at all",)


def test_a_report_measures_the_assumptions_of_the_derivation_itself():
    """The same objects give the property test and the audit at run time."""
    flat = Curvature(2.0, 2.0, 2.0, Status.EXACT)
    way = Displacement(1.0, 1.5, 0.0, 0.0, 0.0, 1.0, (0.0, 1.0), (1.0, 1.0), 0.5, 0.0, 1e-6, (), flat)
    report = addition_report("a", way, {"a": 0.5, "b": 0.75}, 2.0, 0.1)
    assert list(report.assumptions) == [condition.name for condition in ADDITION.assumptions]
    assert report.assumptions["simplex"].holds is False


def test_a_drawn_case_is_read_as_the_numbers_that_a_report_is_about():
    case = addition(derivations.get("2.6").counterexample)
    assert (case.way.start, case.way.end, case.way.norm_squared, case.C) == (0.0, 1.0, 1.0, 1.0)
    assert case.way.spectral.value == 0.0 and max(case.way.spectral_along) == 12.0


def test_a_chain_has_all_the_steps_of_its_statement():
    case = addition(derivations.get("2.6").counterexample)
    assert len(derivations.get("2.5-chain").claim.left(case)) == 6


def test_a_claim_is_read_with_its_relation():
    claim = Claim("", lambda x: x, lambda x: x + 0, Relation.EQUAL, lambda d: None)
    assert judged(claim, np.float64(1.0)).holds
