"""Every term of a composition audit against its definition, and the sums that tie the terms together."""

from collections import Counter
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from diagnostics import Cause, InputError, Layout, Status, Verdict, audit_composition
from tests.inputs.tiny_models import causal_lm, word_tokenizer
from tests.verdicts.composition_oracle import Oracle, best, check_sums, check_terms, flat, vectors

model = cache(causal_lm)

# Llama's norms and rotations are float32 inside, whatever the weights: padding then shows in the last digits.
TOLERANCE = {"gpt2": 1e-10, "llama": 1e-5}

# Exact distributions over all nine pairs of three x and three y, as counts: data lists repeat pairs in proportion.
XS, YS = [(1,), (2, 3), ()], [(4,), (5, 1), (6, 6, 2)]
COUNTS = {
    "target": [2, 0, 1, 1, 1, 0, 0, 3, 1],
    "first": [1, 2, 0, 0, 1, 1, 2, 1, 0],
    "second": [0, 1, 1, 3, 0, 1, 1, 0, 2],
    "third": [1, 1, 1, 1, 1, 1, 1, 1, 1],
}
INSTRUCTIONS = [(5, 2), (3,), (6, 1, 4)]
OTHER_WORDING = (5, 3)


def data(name):
    pairs = list(product(XS, YS))
    return [pair for pair, count in zip(pairs, COUNTS[name], strict=True) for _ in range(count)]


COMPONENTS = [data("first"), data("second"), data("third")]


def audit(lm, instructions, target, examples, components, **options):
    return audit_composition(
        lm,
        None,
        instructions=instructions,
        target_instruction=target,
        target_examples=examples,
        component_examples=components,
        **options,
    )


def tokens(least, most):
    return st.lists(st.integers(1, 6), min_size=least, max_size=most).map(tuple)


@st.composite
def problems(draw):
    """Instructions (empty and equal ones too), a target's wording or none, and data, with and without x."""
    count = draw(st.integers(1, 4))
    pool = draw(st.lists(tokens(0, 2), min_size=1, max_size=count))
    instructions = [draw(st.sampled_from(pool)) for _ in range(count)]
    target = draw(st.none() | tokens(0, 3) | st.sampled_from(pool))
    pairs = st.lists(st.tuples(tokens(0, 2), tokens(1, 2)), min_size=1, max_size=4)
    examples = draw(pairs)
    components = [draw(st.just(examples) | pairs) for _ in range(count)]
    given_alphas = st.lists(st.floats(-2, 2), min_size=count, max_size=count)
    return instructions, target, examples, components, draw(st.sampled_from(["best", "nonnegative"]) | given_alphas)


@settings(max_examples=20)
@given(problem=problems(), family=st.sampled_from(["gpt2", "llama"]), seed=st.integers(0, 3), folds=st.integers(1, 4))
def test_the_terms_add_up(problem, family, seed, folds):
    instructions, target, examples, components, alphas = problem
    result = audit(model(family, seed), instructions, target, examples, components, alphas=alphas, folds=folds)
    found = vectors(result)
    check_sums(found, 1e-10)
    stacked = np.stack([flat(found[name]) for name in result.terms])
    assert result.gram.numpy() == pytest.approx(stacked @ stacked.T, rel=1e-9, abs=1e-9 * np.abs(stacked).max() ** 2)
    norms = {name: np.linalg.norm(flat(vector)) for name, vector in found.items()}
    assert {name: term.norm for name, term in result.terms.items()} | {"error": result.error.norm} == pytest.approx(
        norms, abs=1e-7 * max(norms.values())
    )


@settings(max_examples=16)
@given(problem=problems(), family=st.sampled_from(["gpt2", "gpt2", "llama"]), seed=st.integers(0, 3))
def test_every_term_is_what_its_definition_says(problem, family, seed):
    instructions, target, examples, components, alphas = problem
    result = audit(model(family, seed), instructions, target, examples, components, alphas=alphas, folds=3)
    wanted = sum(instructions, ()) if target is None else target
    expected = Oracle(model(family, seed)).terms(instructions, wanted, examples, components, result.alphas)
    check_terms(vectors(result), expected, TOLERANCE[family])


@pytest.mark.parametrize("family", TOLERANCE)
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("target", [None, OTHER_WORDING], ids=["concatenated", "other wording"])
def test_exact_distributions_over_a_tiny_vocabulary(family, count, target):
    """K = 3 steps through (1.11) with I_1 ⊕ I_2 as a prefix, which the audit never measures."""
    lm, instructions = model(family), INSTRUCTIONS[:count]
    result = audit(lm, instructions, target, data("target"), COMPONENTS[:count], alphas=[0.7, -0.4, 1.3][:count])
    wanted = sum(instructions, ()) if target is None else target
    expected = Oracle(lm).terms(instructions, wanted, data("target"), COMPONENTS[:count], result.alphas)
    check_terms(vectors(result), expected, TOLERANCE[family])
    check_sums(vectors(result), 1e-12)
    scale = np.linalg.norm(expected["error"])
    zero = {name for name, value in expected.items() if np.linalg.norm(value) < 1e-9 * scale}
    none_at_one = {"no_instruction", "interaction_x", "interaction_xy"}
    concatenated_at_one = {"delta_star"} if count == 1 and target is None else set()
    assert result.assumptions["concatenated"].holds is (target is None)
    expected_zero = (none_at_one if count == 1 else set()) | ({"seam"} if target is None else set())
    assert zero == expected_zero | concatenated_at_one, "the case must exercise every term that is not zero by nature"


def test_the_definition_of_the_interaction_agrees_with_its_short_form():
    """(1.9) from joint probabilities is (1.10), token by token behind growing prefixes."""
    oracle = Oracle(model("gpt2"))
    for x, y in product(XS, YS):
        for u, v in [((5, 2), (3,)), ((5, 2, 3), (6, 1, 4)), ((), (3,))]:
            long, short = oracle.interaction(u, v, x + y), oracle.interaction_short(u, v, x + y)
            assert float(long.detach()) == pytest.approx(float(short.detach()), abs=1e-12)
            assert np.abs(oracle.gradient(long) - oracle.gradient(short)).max() < 1e-12
        # log [p(y|I1,I2,x) / (p(y|I1,x) p(y|I2,x))] = −log p(y|x) + SI(x) − SI(x,y)
        left = oracle.log_p(y, (5, 2), (3,), x) - oracle.log_p(y, (5, 2), x) - oracle.log_p(y, (3,), x)
        right = oracle.interaction((5, 2), (3,), x) - oracle.interaction((5, 2), (3,), x + y) - oracle.log_p(y, x)
        assert np.abs(oracle.gradient(left) - oracle.gradient(right)).max() < 1e-12


@pytest.mark.parametrize("family", TOLERANCE)
def test_the_oracle_sees_no_token_ahead(family):
    """One pass over a sequence gives what a pass for each prefix gives."""
    oracle = Oracle(model(family))
    for x, y in product(XS, YS):
        one, many = oracle.log_p(y, (5, 2), x), oracle.log_p_by_prefix(y, (5, 2), x)
        assert float(one.detach()) == pytest.approx(float(many.detach()), abs=TOLERANCE[family])
        assert np.abs(oracle.gradient(one) - oracle.gradient(many)).max() < 10 * TOLERANCE[family]


@pytest.mark.parametrize("alphas", ["best", "nonnegative"])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_best_alpha_and_the_angle(alphas, count, seed):
    lm = model("gpt2", seed)
    result = audit(lm, INSTRUCTIONS[:count], OTHER_WORDING, data("target"), COMPONENTS[:count], alphas=alphas)
    target, *own = Oracle(lm).own_gradients(INSTRUCTIONS[:count], OTHER_WORDING, data("target"), COMPONENTS[:count])
    expected = best(target, own, nonnegative=alphas == "nonnegative")
    assert result.alphas == pytest.approx(expected, abs=1e-8)
    error = target - np.stack(own, axis=1) @ expected
    assert result.relative == pytest.approx(np.linalg.norm(error) / np.linalg.norm(target), rel=1e-9)


def test_losses_are_sums_over_tokens_and_means_over_examples():
    lm, oracle = model("gpt2"), Oracle(model("gpt2"))
    result = audit(
        lm, {"a": (5, 2), "b": (3,)}, OTHER_WORDING, data("target"), {"b": COMPONENTS[1], "a": COMPONENTS[0]}
    )
    expected = {
        "the target's data, its instruction": oracle.loss(data("target"), OTHER_WORDING),
        "the target's data, instruction a": oracle.loss(data("target"), (5, 2)),
        "the target's data, instruction b": oracle.loss(data("target"), (3,)),
        "the target's data, all instructions joined": oracle.loss(data("target"), (5, 2, 3)),
        "the target's data, no instruction": oracle.loss(data("target"), ()),
        "data of component a, its instruction": oracle.loss(COMPONENTS[0], (5, 2)),
        "data of component b, its instruction": oracle.loss(COMPONENTS[1], (3,)),
    }
    assert result.losses == pytest.approx(expected, rel=1e-12)
    assert result.components == ("a", "b")


def test_no_loss_is_lost_to_a_component_of_an_unlucky_name():
    components = {"target": COMPONENTS[0], "no": COMPONENTS[1]}
    named = audit(model("gpt2"), {"target": (5, 2), "no": (3,)}, OTHER_WORDING, data("target"), components)
    assert len(named.losses) == 7


def test_a_multi_task_target_has_no_error():
    """(1.7): L_* = Σ α'_i L_i with one instruction for all, at α = α'."""
    whole = COMPONENTS[0] + COMPONENTS[1]
    shares = [len(each) / len(whole) for each in COMPONENTS[:2]]
    result = audit(model("gpt2"), [(5, 2), (5, 2)], (5, 2), whole, COMPONENTS[:2], alphas=shares)
    assert np.linalg.norm(flat(result.error.vector)) < 1e-13
    assert result.relative < 1e-7  # from the Gram matrix, which knows squares to rounding


def test_causes_and_cancellation_come_from_the_vectors():
    rng = np.random.default_rng(0)
    draws = [[(tuple(x), tuple(y)) for x, y in rng.integers(1, 7, size=(40, 2, 2)).tolist()] for _ in range(4)]
    alphas = [0.7, -0.4, 1.3]
    result = audit(model("gpt2"), INSTRUCTIONS, OTHER_WORDING, draws[0], draws[1:], alphas=alphas, folds=8)
    found = {name: flat(vector) for name, vector in vectors(result).items()}
    groups = {
        Cause.DATA: found["delta_1"] + found["delta_2"] + found["delta_3"],
        Cause.PRIOR: found["no_instruction"],
        Cause.INTERACTION: found["interaction_x"] + found["interaction_xy"],
        Cause.SEAM: found["seam"],
    }
    squares = sum(value @ value for value in groups.values())
    assert result.cancellation == pytest.approx(found["error"] @ found["error"] / squares, rel=1e-9)
    assert sum(share.value for share in result.causes.values()) == pytest.approx(1)
    names = {Cause.DATA: ["delta_1", "delta_2", "delta_3"], Cause.INTERACTION: ["interaction_x", "interaction_xy"]}
    names |= {Cause.PRIOR: ["no_instruction"], Cause.SEAM: ["seam"]}
    for cause, own in names.items():
        assert sum(result.terms[name].share.value for name in own) == pytest.approx(result.causes[cause].value)
    assert str(result) and "vector" not in str(result.to_dict())


@settings(max_examples=12)
@given(problem=problems(), batch_size=st.integers(1, 5))
def test_each_context_of_each_example_is_run_once(problem, batch_size):
    """Counted at the model: (1.13) shares every pass that can be shared, and the cost says how many there were."""
    instructions, target, examples, components, alphas = problem
    assume(all(len(set(each)) == len(each) for each in [examples, *components]))
    lm = causal_lm("gpt2")
    seen, calls = Counter(), []

    def count(module, args, inputs):
        calls.append(len(inputs["input_ids"]))
        for ids, mask in zip(inputs["input_ids"].tolist(), inputs["attention_mask"].tolist(), strict=True):
            seen[tuple(ids[: sum(mask)])] += 1

    lm.register_forward_pre_hook(count, with_kwargs=True)
    result = audit(lm, instructions, target, examples, components, alphas=alphas, folds=2, batch_size=batch_size)
    joined = sum(instructions, ())
    wanted = {(): 0, **dict.fromkeys(instructions, 0), joined: 0, joined if target is None else target: 0}
    on_target = [each for each in wanted if each != () or len(instructions) > 1 or () in (target, *instructions)]
    others = {(own, tuple(q)) for own, q in zip(instructions, components, strict=True) if q != examples}
    # One component and no other wording: then nothing but the loss under I_1 is needed, on both data sets.
    expected = Counter((0, *each, *x, *y) for each in on_target for x, y in examples)
    expected += Counter((0, *own, *x, *y) for own, q in others for x, y in q)
    assert seen == expected
    assert result.cost.gradients == len(on_target) + len(others)
    segments = result.cost.gradients + result.cost.backwards
    assert result.cost.gradients <= segments <= 2 * len(on_target) + len(others)
    assert max(calls) <= batch_size


def test_two_instructions_take_four_contexts_and_the_two_losses():
    result = audit(model("gpt2"), INSTRUCTIONS[:2], None, data("target"), COMPONENTS[:2])
    assert (result.cost.gradients, result.cost.backwards, result.cost.forwards) == (6, 4, 0)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 50])
@pytest.mark.parametrize("folds", [1, 2, 5])
def test_batches_and_folds_change_nothing_but_the_order_of_sums(batch_size, folds):
    given_ = (INSTRUCTIONS[:2], OTHER_WORDING, data("target"), COMPONENTS[:2])
    reference = audit(model("gpt2"), *given_, alphas=[1, 1])
    other = audit(model("gpt2"), *given_, alphas=[1, 1], batch_size=batch_size, folds=folds, seed=7)
    check_terms(vectors(other), {name: flat(value) for name, value in vectors(reference).items()}, 1e-12)


def test_the_verdict_follows_the_interval():
    many = [((a, b), (c,)) for a, b, c in product(range(1, 7), repeat=3)]
    lm = model("gpt2")
    easy = audit(lm, [(5, 2)], (5, 2), many[::2], [many[1::2]], folds=8)
    hard = audit(lm, [(5, 2)], (3, 6), many[::2], [many[1::2]], alphas=[-3.0], folds=8)
    few = audit(lm, [(5, 2)], (5, 2), many[:2], [many[2:4]], folds=8)
    assert (easy.verdict, hard.verdict, few.verdict) == (Verdict.SUPPORTED, Verdict.REFUTED, Verdict.UNDECIDED)
    assert few.relative_estimate.status is Status.UNDEFINED and any("no intervals" in note for note in few.notes)
    assert easy.relative_estimate.upper < easy.limit < hard.relative_estimate.lower


def test_gradients_are_of_the_parameters_asked_for():
    lm = model("gpt2")
    names = [name for name, _ in lm.named_parameters() if ".mlp." in name]
    given_ = (INSTRUCTIONS[:2], OTHER_WORDING, data("target"), COMPONENTS[:2])
    result = audit(lm, *given_, alphas=[1, 1], parameters="*.mlp.*")
    assert list(result.error.vector) == names
    expected = Oracle(lm, names).terms(INSTRUCTIONS[:2], OTHER_WORDING, data("target"), COMPONENTS[:2], [1, 1])
    check_terms(vectors(result), expected, 1e-10)


def test_without_a_bos_the_first_token_is_certain():
    """Nothing predicts it, in any context: the sums still hold, and a note says so."""
    examples, others = [((1, 2), (4,)), ((3,), (5, 1))], [[((2,), (1,))], [((6, 1), (3, 3))]]
    result = audit(model("gpt2"), INSTRUCTIONS[:2], OTHER_WORDING, examples, others, alphas=[1, -1], bos=None)
    expected = Oracle(model("gpt2"), bos=()).terms(INSTRUCTIONS[:2], OTHER_WORDING, examples, others, [1, -1])
    check_terms(vectors(result), expected, 1e-10)
    assert any(note.startswith("no BOS") for note in result.notes)


def test_a_layout_is_part_of_every_context_and_another_for_the_target_is_seam():
    """What stands before all instructions acts like a longer BOS; what only the target has is part of I_*."""
    words = word_tokenizer(["<s>", "a", "b", "c", "d", "e", "f"])
    given_ = {"instructions": INSTRUCTIONS[:2], "target_examples": data("target"), "component_examples": COMPONENTS[:2]}
    result = audit_composition(
        model("gpt2"), words, **given_, alphas=[1, 1], layout=Layout(head="d a"), target_layout=Layout(head="d a f")
    )
    lengthened = Oracle(model("gpt2"), bos=(0, 4, 1))
    expected = lengthened.terms(INSTRUCTIONS[:2], (6, 5, 2, 3), data("target"), COMPONENTS[:2], [1, 1])
    check_terms(vectors(result), expected, 1e-10)
    assert result.terms["seam"].norm > 1e-3


BAD = {
    "too few α": ({"alphas": [1.0]}, "alphas: expected .* 2 finite numbers"),
    "α not a number": ({"alphas": [1.0, float("nan")]}, "alphas: expected .* 2 finite numbers"),
    "unknown word for α": ({"alphas": "worst"}, "'best', 'nonnegative'"),
    "a string of instructions": ({"instructions": "ab"}, "instructions: expected a list"),
    "no instructions": ({"instructions": []}, "instructions: expected a list"),
    "data missing": ({"component_examples": COMPONENTS[:1]}, "component_examples: expected one list .* 2 .* found 1"),
    "data of another name": (
        {"instructions": {"a": (5,), "b": (3,)}, "component_examples": {"a": COMPONENTS[0], "c": COMPONENTS[1]}},
        r"component_examples: expected examples for \['a', 'b'\]; found \['a', 'c'\]",
    ),
    "a task without examples": ({"component_examples": [COMPONENTS[0], []]}, "component_examples 2: expected at least"),
    "a target without examples": ({"target_examples": []}, "target_examples: expected at least one example"),
    "an empty y": ({"target_examples": [((1,), ())]}, "target_examples, example 0: expected a y with at least one"),
    "an instruction longer than the context": ({"instructions": [(1,) * 40, (3,)]}, "instruction that leaves room"),
    "an id out of range": ({"instructions": [(7,), (3,)]}, "instruction 1: expected token ids from 0 to 6.*found 7"),
    "a text without a tokenizer": ({"target_instruction": "add"}, "target_instruction: expected token ids.*'add'"),
    "unknown parameters": ({"parameters": ["head.*"]}, r"parameters: expected names or patterns.*found \['head"),
    "a BOS out of range": ({"bos": 7}, "bos: expected a token id from 0 to 6; found 7"),
}


@pytest.mark.parametrize("options, message", BAD.values(), ids=BAD)
def test_bad_input_is_refused_with_what_was_expected_and_found(options, message):
    usual = {"instructions": INSTRUCTIONS[:2], "target_examples": data("target"), "component_examples": COMPONENTS[:2]}
    with pytest.raises(InputError, match=message):
        audit_composition(model("gpt2"), None, **{**usual, **options})


def test_nan_weights_are_refused():
    lm = causal_lm("gpt2")
    with torch.no_grad():
        lm.transformer.wpe.weight[3, 0] = float("nan")
    with pytest.raises(InputError, match=r"expected a finite log-likelihood.*found NaN.*Look for NaN in the weights"):
        audit(lm, INSTRUCTIONS[:2], None, data("target"), COMPONENTS[:2])


def test_an_interaction_that_is_not_split_is_the_sum_and_takes_one_backward_pass_a_context():
    asked = (model("gpt2"), INSTRUCTIONS[:2], None, data("target"), COMPONENTS[:2])
    whole, split = (audit(*asked, alphas=[1, 2], split_interaction=each) for each in (False, True))
    assert list(whole.terms) == ["delta_1", "delta_2", "delta_star", "no_instruction", "interaction", "seam"]
    both = {name: split.terms["interaction_x"][name] + split.terms["interaction_xy"][name] for name in split.error}
    for name, value in both.items():
        torch.testing.assert_close(whole.terms["interaction"][name], value, rtol=1e-9, atol=1e-12)
    assert (whole.cost.gradients, whole.cost.backwards, split.cost.backwards) == (6, 0, 4)
    assert whole.causes[Cause.INTERACTION].value == pytest.approx(split.causes[Cause.INTERACTION].value)
