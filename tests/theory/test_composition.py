"""The terms of the audit, against their formulas with a random vector for every gradient."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.theory.composition import Atom, Contexts, alignment_terms, required_atoms

# No, single, joined and target instruction; the last three have contexts that are equal.
CASES = {
    "one": Contexts("", ("a",), "joined", "target", (1,)),
    "two": Contexts("", ("a", "b"), "ab", "target", (1, 2)),
    "three": Contexts("", ("a", "b", "c"), "abc", "target", (1, 2, 3)),
    "target is joined": Contexts("", ("a", "b"), "ab", "ab", (1, 2)),
    "the target's data": Contexts("", ("a", "b"), "ab", "target", (0, 0)),
    "same instruction twice": Contexts("", ("a", "a"), "aa", "aa", (1, 1)),
}


def literal(contexts, alphas, vector):
    """Every term as its formula says, with X[c], Y[c] and Z_i for the gradients."""

    def X(context):
        return vector[Atom(0, context, "x")]

    def Y(context):
        return vector[Atom(0, context, "y")]

    single, count = contexts.single, len(contexts.single)
    Z = [vector[Atom(data, context, "y")] for data, context in zip(contexts.data, single, strict=True)]
    terms = {f"delta_{i}": -Y(c) + alphas[i - 1] * Z[i - 1] for i, c in enumerate(single, 1)}
    terms["error"] = -Y(contexts.target) + sum(a * z for a, z in zip(alphas, Z, strict=True))
    terms["delta_star"] = -Y(contexts.target) + sum(Y(c) for c in single)
    terms["no_instruction"] = (count - 1) * Y(contexts.none)
    in_x = X(contexts.joined) - sum(X(c) for c in single) + (count - 1) * X(contexts.none)
    in_y = Y(contexts.joined) - sum(Y(c) for c in single) + (count - 1) * Y(contexts.none)
    terms["interaction_x"], terms["interaction_xy"], terms["interaction"] = in_x, -(in_x + in_y), -in_y
    terms["seam"] = -Y(contexts.target) + Y(contexts.joined)
    return terms


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("name", CASES)
@given(seed=st.integers(0, 10_000))
def test_every_term_is_its_formula(name, split, seed):
    contexts, rng = CASES[name], np.random.default_rng(seed)
    vector = defaultdict(lambda: rng.normal(size=5))
    alphas = rng.uniform(-2, 2, size=len(contexts.single)).tolist()
    expected = literal(contexts, alphas, vector)
    terms = alignment_terms(contexts, alphas, split=split)
    for term, coefficients in terms.items():
        found = sum((value * vector[atom] for atom, value in coefficients.items()), np.zeros(5))
        assert found == pytest.approx(expected[term]), term
        assert all(coefficients.values()), "what cancels is left out"
    parts = {"interaction_x", "interaction_xy"} if split else {"interaction"}
    assert terms.keys() == expected.keys() - {"interaction_x", "interaction_xy", "interaction"} | parts


def test_the_terms_add_up_to_the_error():
    """∇ℰ = Σ Δ_i + Δ_* + (1.10) is wrong term by term where one sign is: here all of them meet."""
    contexts, rng = CASES["three"], np.random.default_rng(0)
    vector = defaultdict(lambda: rng.normal(size=5))
    terms = {
        term: sum((value * vector[atom] for atom, value in coefficients.items()), np.zeros(5))
        for term, coefficients in alignment_terms(contexts, [0.5, 1.0, 2.0]).items()
    }
    whole = terms["delta_1"] + terms["delta_2"] + terms["delta_3"] + terms["delta_star"]
    assert whole == pytest.approx(terms["error"])
    parts = terms["no_instruction"] + terms["interaction_x"] + terms["interaction_xy"] + terms["seam"]
    assert parts == pytest.approx(terms["delta_star"])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("split", [True, False])
def test_the_atoms_required_are_those_of_any_alphas(name, split):
    contexts, rng = CASES[name], np.random.default_rng(1)
    used = {
        atom
        for _ in range(3)
        for term in alignment_terms(contexts, rng.uniform(0.1, 2, len(contexts.single)).tolist(), split=split).values()
        for atom in term
    }
    found = required_atoms(contexts, split=split)
    assert set(found) == used and len(found) == len(used)
    assert required_atoms(contexts) == required_atoms(contexts, split=True)
    assert alignment_terms(contexts, [1.0] * len(contexts.single)).keys() >= {"interaction_x", "interaction_xy"}
    assert (name == "one") or any(atom.part == "x" for atom in found) is split


def test_alphas_and_data_are_one_for_each_component():
    with pytest.raises(ValueError, match="zip"):
        alignment_terms(CASES["two"], [1.0])
    with pytest.raises(ValueError, match="zip"):
        alignment_terms(Contexts("", ("a", "b"), "ab", "ab", (1,)), [1.0, 1.0])
    contexts = CASES["two"]
    assert contexts.components == (Atom(1, "a", "y"), Atom(2, "b", "y"))
