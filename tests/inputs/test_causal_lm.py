"""Language-model tasks: the loss by its definition, whatever the batch, the padding, the BOS and the tokenizer."""

from functools import cache

import numpy as np
import pytest
import torch

from diagnostics import InputError, Layout, Task, audit_composition, gradient
from diagnostics.inputs.causal_lm import select_parameters
from diagnostics.inputs.encoding import TruncationWarning
from tests.inputs.tiny_models import CAUSAL, causal_lm, letter_tokenizer, with_lora, word_tokenizer
from tests.verdicts.composition_oracle import Oracle, check_terms, flat, vectors

DATA = [((1,), (4, 2)), ((), (5,)), ((2, 6, 3, 3, 1), (1, 1, 6)), ((4, 4), (6, 6, 2, 5)), ((3,), (0,))]
INSTRUCTION = (5, 2, 1)
WORDS = ["<s>", "[UNK]", "add", "to", "one", "two", "three"]
# Norms and rotations of the newer families are float32 inside, whatever the weights.
TOLERANCE = {"gpt2": 1e-11, "phi": 1e-5, "llama": 1e-5, "qwen2": 1e-5, "gemma": 1e-5}

model = cache(causal_lm)


def task(lm, examples, tokenizer=None, **options):
    return Task.from_causal_lm("t", lm, tokenizer, examples, **{"instruction": INSTRUCTION, **options})


def point(lm):
    return {name: value.detach() for name, value in lm.named_parameters()}


def slope(a_task, lm):
    """∇L at the model's parameters, flattened."""
    return flat(gradient(a_task, point(lm))[1])


@pytest.mark.parametrize("family", CAUSAL)
def test_the_loss_is_summed_over_tokens_and_averaged_over_examples(family):
    lm, oracle = model(family), Oracle(model(family))
    expected = sum(oracle.loss([pair], INSTRUCTION) for pair in DATA) / len(DATA)
    for batch_size in (1, 2, 5):
        found = task(lm, DATA, batch_size=batch_size).mean_loss(point(lm))
        assert found == pytest.approx(expected, rel=TOLERANCE[family]), f"batches of {batch_size}"


@pytest.mark.parametrize("family", CAUSAL)
def test_padding_changes_no_loss_and_no_gradient(family):
    """One batch of mixed lengths against one sequence at a time; the padding is a token like any other."""
    lm = model(family)
    mixed = slope(task(lm, DATA, batch_size=5), lm)
    single = sum(slope(task(lm, [pair]), lm) for pair in DATA) / len(DATA)
    assert np.linalg.norm(mixed - single) <= TOLERANCE[family] * np.linalg.norm(single)
    together = task(lm, DATA, batch_size=5)
    apart = [task(lm, [pair]).mean_loss(point(lm)) for pair in DATA]
    assert together.mean_loss(point(lm)) == pytest.approx(np.mean(apart), rel=TOLERANCE[family])


@pytest.mark.parametrize("family", CAUSAL)
def test_the_gradient_is_that_of_the_definition(family):
    lm = model(family)
    expected = Oracle(lm).loss_gradient(DATA, INSTRUCTION)
    found = slope(task(lm, DATA, batch_size=2), lm)
    assert np.linalg.norm(found - expected) <= TOLERANCE[family] * np.linalg.norm(expected)


def test_the_bos_is_there_however_it_is_asked_for():
    lm = model("gpt2")
    expected = Oracle(lm).loss([((4,), (5, 6))], (2,))
    for adds_bos in (True, False):
        tokenizer = word_tokenizer(WORDS, adds_bos=adds_bos)
        given = task(lm, [("one", "two three")], tokenizer, instruction="add")
        brought = task(lm, [("one", "two three")], tokenizer, instruction="<s> add")
        assert given.mean_loss(point(lm)) == brought.mean_loss(point(lm)) == pytest.approx(expected)
        assert sum("left out" in note for note in brought.notes) == 1 and not any("left out" in n for n in given.notes)
    assert task(lm, [((4,), (5, 6))], instruction=(2,), bos=0).mean_loss(point(lm)) == pytest.approx(expected)


def test_without_a_bos_the_sequence_begins_with_the_instruction():
    lm = model("gpt2")
    expected = Oracle(lm, bos=()).loss(DATA[:1], INSTRUCTION)
    without = task(lm, DATA[:1], bos=None)
    assert without.mean_loss(point(lm)) == pytest.approx(expected)
    assert abs(without.mean_loss(point(lm)) - task(lm, DATA[:1]).mean_loss(point(lm))) > 1e-3


def test_a_layout_is_read_and_not_scored():
    lm, oracle = model("gpt2"), Oracle(model("gpt2"))
    layout = Layout(head="to", between="two", tail="three")
    found = task(lm, [("one", "add one")], word_tokenizer(WORDS), instruction="add", layout=layout)
    expected = -oracle.log_p((2, 4), (3, 2, 5), (4,), (6,))
    assert found.mean_loss(point(lm)) == pytest.approx(float(expected.detach()))


def test_tokens_that_merge_across_a_seam_are_noted():
    lm = model("gpt2")
    tokenizer = letter_tokenizer("abc", [("a", "b")])
    merged = task(lm, [("ba", "c"), ("c", "c"), ("ca", "ba")], tokenizer, instruction="ca")
    (note,) = [note for note in merged.notes if "whole prompt" in note]
    assert "in 2 of 3 examples" in note, note
    assert not [note for note in task(lm, [("c", "b")], tokenizer, instruction="c").notes if "whole prompt" in note]


def test_an_audit_notes_instructions_that_merge():
    tokenizer = letter_tokenizer("abc", [("a", "b")])
    given = {"target_examples": [("c", "a")], "component_examples": [[("c", "b")], [("c", "c")]]}
    result = audit_composition(model("gpt2"), tokenizer, instructions=["ca", "bc"], **given)
    assert any(
        note.startswith("instructions: the tokenizer reads them together as other tokens") for note in result.notes
    )
    seam = audit_composition(model("gpt2"), tokenizer, instructions=["ca", "bc"], target_instruction="cabc", **given)
    assert result.terms["seam"].norm == 0 < seam.terms["seam"].norm


def test_unknown_words_are_noted():
    found = task(model("gpt2"), [("four", "one"), ("one", "one")], word_tokenizer(WORDS), instruction="add")
    assert any("1 of 2 examples have text that the tokenizer does not know" in note for note in found.notes)


def test_cut_texts_are_announced():
    lm = model("gpt2")
    with pytest.warns(TruncationWarning, match="1 of 2 examples have their x cut to fit 8 tokens"):
        found = task(lm, [((1, 2, 3, 4, 5), (6,)), ((1, 2), (6,))], max_length=8)
    expected = Oracle(lm).loss([((1, 2, 3), (6,)), ((1, 2), (6,))], INSTRUCTION)
    assert found.mean_loss(point(lm)) == pytest.approx(expected)


def test_an_audit_cuts_a_text_the_same_in_every_context():
    """As if the examples had been cut beforehand, for the longest context that they stand in."""
    lm, instructions, target = model("gpt2"), [(5, 2), (3,)], (6, 1, 4, 4)
    texts = [((1, 2, 3, 4), (5,)), ((2, 6, 1), (4, 4)), ((3,), (1,))]
    own = [((4, 3, 2, 1, 1, 2), (5,)), ((6,), (2, 2))]
    # Eight tokens: the target's longest context is BOS and four, that of the second component BOS and one.
    short = [((1, 2), (5,)), ((2,), (4, 4)), ((3,), (1,))]
    own_short = [((4, 3, 2, 1, 1), (5,)), ((6,), (2, 2))]
    usual = {"instructions": instructions, "target_instruction": target, "alphas": [1, 1]}
    long = audit_composition(lm, None, target_examples=texts, component_examples=[texts, own], max_length=8, **usual)
    cut = audit_composition(lm, None, target_examples=short, component_examples=[short, own_short], **usual)
    check_terms(vectors(long), {name: flat(value) for name, value in vectors(cut).items()}, 1e-12)
    assert sum("x cut to fit 8 tokens" in note for note in long.notes) == 2


def test_parameters_of_an_adapter_are_the_default_of_an_audit_and_patterns_choose():
    lm = with_lora(causal_lm("llama"), ["q_proj"])
    assert {name.rsplit(".", 3)[1] for name in select_parameters(lm, None)} == {"lora_A", "lora_B"}
    assert len(select_parameters(lm, "all")) == len(list(lm.parameters()))
    plain = causal_lm("llama")
    assert list(select_parameters(plain, None)) == [name for name, _ in plain.named_parameters()]
    assert list(select_parameters(plain, ["*.norm.*", "lm_*"])) == ["model.norm.weight", "lm_head.weight"]
    with pytest.raises(InputError, match=r"expected names or patterns.*found \['none.*'\]. It has "):
        select_parameters(plain, ["none.*"])


def test_the_model_is_left_as_it_was():
    lm = causal_lm("gpt2", resid_pdrop=0.5, embd_pdrop=0.5).train()
    before = {name: value.clone() for name, value in lm.state_dict().items()}
    found = task(lm, DATA, batch_size=2)
    assert found.mean_loss(point(lm)) == found.mean_loss(point(lm)), "dropout must be off"
    assert lm.training and all(value.requires_grad and value.grad is None for value in lm.parameters())
    assert all(torch.equal(value, before[name]) for name, value in lm.state_dict().items())


def test_a_task_is_a_function_of_parameters_and_not_of_the_model():
    lm, other = causal_lm("gpt2", 0), causal_lm("gpt2", 1)
    found = task(lm, DATA)
    assert found.mean_loss(point(other)) == pytest.approx(Oracle(other).loss(DATA, INSTRUCTION))


def nan_model():
    lm = causal_lm("gpt2")
    with torch.no_grad():
        lm.transformer.h[0].mlp.c_fc.weight[0, 0] = float("nan")
    return lm


REFUSED = {
    "a NaN weight": (nan_model, {}, "(?i)task 't'.*(finite|nan)"),
    "no examples": (model, {"examples": []}, "task 't': expected at least one example"),
    "an empty y": (model, {"examples": [((1,), ())]}, "task 't', example 0: expected a y with at least one token"),
    "an instruction longer than the context": (
        model,
        {"instruction": (1,) * 32},
        "task 't': .*leaves room for y in 32",
    ),
    "an id out of range": (
        model,
        {"instruction": (9,)},
        "task 't': instruction: expected token ids from 0 to 6.*found 9",
    ),
    "a text without a tokenizer": (model, {"examples": [("a", "b")]}, "task 't', example 0: x: .*no tokenizer.*'a'"),
    "a foreign tokenizer": (model, {"tokenizer": word_tokenizer([*WORDS, "four"])}, "at most 7 tokens.*found 8"),
    "a text that is too long": (
        model,
        {"examples": [((1,) * 29, (1,))]},
        "task 't': expected at most 32.*Pass max_length",
    ),
    "unknown parameters": (model, {"parameters": "head"}, "expected names or patterns"),
}


@pytest.mark.parametrize("make, options, message", REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused(make, options, message):
    lm = make("gpt2") if make is model else make()
    with pytest.raises(InputError, match=message):
        Task.from_causal_lm("t", lm, **{"tokenizer": None, "examples": DATA, "instruction": INSTRUCTION, **options})
