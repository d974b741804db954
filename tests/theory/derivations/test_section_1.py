"""Section 1: the functions that measure give the numbers of the derivations, and the worked examples are as written."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diagnostics as dx
from diagnostics import derivations
from diagnostics.exact.gradients import FirstGradients
from diagnostics.exact.language import LanguageModel
from diagnostics.exact.smooth import SmoothTask
from diagnostics.testing.gradients import first_gradients
from diagnostics.testing.language import audits
from diagnostics.theory.composition import Contexts, required_atoms
from diagnostics.theory.derivations.audit_terms import contexts, specific_interaction, terms

SECTION = [item for item in derivations.all() if item.id.startswith("1.")]
cases = st.integers(1, 3).flatmap(first_gradients)


def test_what_fails_as_stated_is_the_sign_of_the_merge_error_alone():
    assert [item.id for item in SECTION if not item.as_stated] == ["1.5"]


def linear(name, gradient):
    """A task with one gradient everywhere."""
    return dx.Task(name, lambda params, batch: (batch @ params["w"]).mean(), [torch.tensor(gradient).reshape(1, -1)])


def origin(case):
    return {"w": torch.zeros(case.vectors.shape[1], dtype=torch.float64)}


def tasks(case):
    return [linear(f"task {number}", row) for number, row in enumerate(case.gradients)]


def vectors(case):
    return [{"w": torch.tensor(row)} for row in case.vectors]


@settings(max_examples=50)
@given(case=cases)
def test_the_measured_alignment_error_is_that_of_the_derivation(case):
    """(1.3), (1.6)."""
    target, *components = tasks(case)
    result = dx.gradient_alignment(target, components, origin(case), alphas=list(case.alphas))
    np.testing.assert_allclose(result.error["w"].numpy(), case.error, atol=1e-12)
    best = dx.gradient_alignment(target, components, origin(case))
    sine = derivations.get("1.6-sine").claim.left(case)
    assert best.relative**2 == pytest.approx(float(sine), abs=1e-6)


@settings(max_examples=50)
@given(case=cases)
def test_the_measured_merge_error_is_that_of_the_derivation(case):
    """(1.1), (1.5), (1.15): norms of Δ and of its first part, and of a merge with coefficients of one's own."""
    target, *components = tasks(case)
    own, *others = vectors(case)
    result = dx.merge_error(target, components, origin(case), own, others, alphas=list(case.alphas))
    item = derivations.get("1.5").claim
    scale = 1e-7 * max(1.0, float(np.sqrt((item.left(case).value ** 2).sum())))
    assert result.norm == pytest.approx(np.linalg.norm(item.left(case).value), abs=scale)
    assert result.norm == pytest.approx(np.linalg.norm(item.right(case).value), abs=scale)
    first = result.etas[0] * case.error
    rest = np.linalg.norm(item.right(case).value - first)
    assert result.norm < scale or result.miss * result.norm == pytest.approx(rest, abs=scale)
    merged = dx.merge_error(target, components, origin(case), own, others, coefficients=list(case.alphas))
    assert merged.norm == pytest.approx(derivations.get("1.15-failure").claim.left(case), abs=scale)


@settings(max_examples=50)
@given(case=cases)
def test_the_measured_fit_is_that_of_the_derivation(case):
    """(1.4)."""
    fit = dx.gradient_fit(tasks(case)[0], origin(case), vectors(case)[0])
    square = derivations.get("1.4").claim.left(case)
    assert fit.remainder_norm**2 == pytest.approx(float(square), abs=1e-9 * (1 + fit.vector_norm**2))
    whole = derivations.get("1.4-remainder").claim
    assert fit.vector_norm**2 == pytest.approx(float(whole.left(case)))
    assert (fit.eta * fit.gradient_norm) ** 2 + fit.remainder_norm**2 == pytest.approx(float(whole.left(case)))


class Causal(torch.nn.Module):
    """The drawn model as one of transformers: token ids in, logits of each next token out; BOS is token V."""

    def __init__(self, model):
        super().__init__()
        self.model, self.theta = model, torch.nn.Parameter(torch.tensor(model.theta))

    def get_input_embeddings(self):
        return torch.nn.Embedding(self.model.vocabulary + 1, 1)

    def forward(self, input_ids, attention_mask, use_cache=False):
        size, table = self.model.vocabulary, torch.tensor(self.model.features)
        logits = []
        for row in input_ids.tolist():
            place, prefix = 0, []
            for token in row:
                prefix = [] if token == size else [*prefix, token]
                known = sum(size**length for length in range(len(prefix)))
                place = known + sum(t * size**k for k, t in enumerate(reversed(prefix)))
                # Nothing is predicted from a whole sequence, nor from padding.
                features = table[place] if place < len(table) else 0 * table[0]
                logits.append(torch.cat([features @ self.theta, self.theta.new_full((1,), -torch.inf)]))
        return SimpleNamespace(logits=torch.stack(logits).reshape(*input_ids.shape, size + 1))


def counted(data):
    """Examples in the proportions of a distribution in sixteenths."""
    return [pair for pair, weight in zip(data.pairs, data.weights, strict=True) for _ in range(round(16 * weight))]


@settings(max_examples=25, deadline=None)
@given(audit=st.integers(1, 3).flatmap(audits))
def test_the_measured_terms_are_those_of_the_derivations(audit):
    """(1.8)–(1.12): every term of an audit of the drawn model, from token ids to gradients."""
    result = dx.audit_composition(
        Causal(audit.model),
        None,
        instructions=audit.instructions,
        target_instruction=audit.target_instruction,
        target_examples=counted(audit.target),
        component_examples=[counted(data) for data in audit.components],
        alphas=list(audit.alphas),
        bos=audit.model.vocabulary,
    )
    for name, term in result.terms.items():
        np.testing.assert_allclose(term["theta"].numpy(), terms(audit, name), atol=1e-10, err_msg=name)
    np.testing.assert_allclose(result.error["theta"].numpy(), derivations.get("1.8").claim.right(audit), atol=1e-10)
    gram_sum = float(derivations.get("1.15").claim.right(audit))
    assert result.error.norm**2 == pytest.approx(gram_sum, abs=1e-9)


def test_the_sign_of_the_published_merge_error():
    """(1.5): the case that is worked out by hand."""
    case = derivations.get("1.5").counterexample
    assert case.gradients.tolist() == case.vectors.tolist() == [[1.0], [1.0]] and case.alphas.tolist() == [0.5]
    result = dx.merge_error(*split(case), alphas=[0.5])
    assert result.coefficients == (0.5,) and result.norm == 0.5
    assert result.miss == 0 and result.miss_as_stated == 2


def split(case):
    target, *components = tasks(case)
    own, *others = vectors(case)
    return target, components, origin(case), own, others


def bowl(hessian, minimum):
    """A quadratic with this minimum."""
    anchor = np.array(minimum)
    size = len(anchor)
    return SmoothTask(anchor, np.array(hessian), np.zeros(size), 0.0, np.zeros((0, size)), np.zeros(0), np.zeros(0))


def at_base(first, second):
    """A target and one component, trained to their minima from θ0 = 0."""
    point = np.zeros(len(first.anchor))
    gradients = np.stack([first.gradient(point), second.gradient(point)])
    return FirstGradients(np.stack([first.anchor, second.anchor]), gradients, np.ones(1))


def smooth(name, task):
    return dx.Task(name, task.torch_loss, [torch.zeros(1, dtype=torch.float64)])


def test_a_merge_can_be_perfect_beside_an_alignment_error_that_nothing_makes_smaller():
    """(1.15): two bowls with one minimum, whose first gradients are orthogonal."""
    bowls = bowl([[2.0, -1.0], [-1.0, 1.0]], [1.0, 1.0]), bowl([[1.0, -1.0], [-1.0, 2.0]], [1.0, 1.0])
    assert all(np.linalg.eigvalsh(each.hessian).min() > 0 for each in bowls)
    case = at_base(*bowls)
    assert case.gradients.tolist() == [[-1.0, 0.0], [0.0, -1.0]]
    found = dx.gradient_alignment(smooth("target", bowls[0]), [smooth("component", bowls[1])], origin(case))
    assert found.alphas == (0,) and found.relative == 1
    merged = case.vectors[1]
    assert bowls[0].loss(merged) == bowls[1].loss(merged) == 0
    assert np.all(case.merge_error(np.ones(1)) == 0)


def test_no_alignment_error_does_not_make_a_merge_succeed():
    """(1.15): two bowls with one first gradient, whose minima no coefficient joins."""
    bowls = bowl(np.eye(2), [1.0, 1.0]), bowl([[2.0, 0.0], [0.0, 0.5]], [0.5, 2.0])
    case = at_base(*bowls)
    assert case.gradients.tolist() == [[-1.0, -1.0], [-1.0, -1.0]] and not case.error.any()
    own, other = case.vectors
    nearest = (own @ other) / (other @ other)
    assert np.linalg.norm(case.merge_error(np.array([nearest]))) > 0.5


def test_four_contexts_are_enough_for_a_concatenation_of_two_and_not_for_a_paraphrase():
    """(1.13): none, I_1, I_2 and I_1 ⊕ I_2; a paraphrase is a fifth."""

    def on_target(target):
        atoms = required_atoms(Contexts("", ("a", "b"), "ab", target, (1, 2)))
        return {atom.instruction for atom in atoms if atom.data == 0}

    assert on_target("ab") == {"", "a", "b", "ab"} and on_target("c") == {"", "a", "b", "ab", "c"}


def test_the_prefixes_in_between_are_not_needed():
    """(1.11), (1.13): of I_1 ⊕ I_2 ⊕ I_3 no part but the single instructions and the whole."""
    atoms = required_atoms(Contexts("", ("a", "b", "c"), "abc", "abc", (1, 2, 3)))
    assert {atom.instruction for atom in atoms if atom.data == 0} == {"", "a", "b", "c", "abc"}


def test_the_interaction_of_a_language_model_depends_on_the_order_of_instructions():
    """(1.9) is symmetric for events of one joint distribution; instructions right after BOS are not events of one.

    All probabilities are ½ but p(1 | 0, 1) = ⅔. So SI(0; 1; 1) = log [½ · ½ / (⅔ · ½)] = log ¾ and SI(1; 0; 1) = 0.
    """
    features = np.zeros((7, 2, 1))
    features[4, 1] = 1.0  # after (), (0,), (1,), (0, 0) comes (0, 1)
    log = LanguageModel(features, np.log([2.0])).log_probability
    assert np.exp(log((1,), (0, 1))) == pytest.approx(2 / 3) and np.exp(log((1,), (1, 0))) == pytest.approx(1 / 2)
    assert specific_interaction(log, (0,), (1,), (1,)) == pytest.approx(np.log(3 / 4))
    assert specific_interaction(log, (1,), (0,), (1,)) == pytest.approx(0, abs=1e-15)


@settings(max_examples=50)
@given(audit=audits(2, joined=True))
def test_the_first_part_is_minus_the_gradient_without_an_instruction(audit):
    """(1.10)."""
    np.testing.assert_allclose(terms(audit, "no_instruction"), -audit.mean_gradient(audit.target, ()), atol=1e-12)
    assert contexts(audit).none == ()
