"""Instruction, x and y as tokens: what stands before what, where segments begin and end, and what is refused."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnostics import InputError, Layout
from diagnostics.inputs.segments import Row, Segmenter, collate
from tests.inputs.tiny_models import causal_lm, letter_tokenizer, word_tokenizer

WORDS = ["<s>", "[UNK]", "add", "to", "one", "two", "three"]
PLAIN = ((), (), ())

model = cache(causal_lm)


def segmenter(tokenizer=None, **options):
    return Segmenter(tokenizer, model("gpt2"), **options)


def notes_about(segments, word):
    return [note for note in segments.notes if word in note]


def test_a_sequence_is_bos_instruction_x_y():
    segments = segmenter()
    row = segments.sequence(PLAIN, (5, 2), ((1, 3), (4,)))
    assert row == Row((0, 5, 2, 1, 3, 4), (3, 5), (5, 6))
    assert segments.sequence(PLAIN, (), ((), (4, 4))) == Row((0, 4, 4), (1, 1), (1, 3))


def test_a_layout_stands_around_the_segments():
    segments = segmenter(word_tokenizer(WORDS))
    parts = segments.layout(Layout(head="<s> to", between="one", tail="two two"))
    row = segments.sequence(parts, (2,), ((6,), (5,)))
    assert row == Row((0, 3, 2, 4, 6, 5, 5, 5), (4, 5), (7, 8)), "the template's own BOS is not a second one"


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %} {{ m['content'] }} {% else %}"
    " to {{ m['content'] }} to {% endif %}{% endfor %}{% if add_generation_prompt %}two {% endif %}"
)


def test_a_chat_template_gives_its_layout():
    tokenizer = word_tokenizer(WORDS, chat_template=TEMPLATE)
    assert Layout.from_chat_template(tokenizer) == Layout("<s> to ", "", " to two ")
    assert Layout.from_chat_template(tokenizer, system="three").head == "<s> three  to "
    segments = segmenter(tokenizer)
    parts = segments.layout(Layout.from_chat_template(tokenizer))
    whole = tokenizer.apply_chat_template(
        [{"role": "user", "content": "add one"}], add_generation_prompt=True, tokenize=False
    )
    row = segments.sequence(parts, segments.tokens("i", "add "), segments.pairs("d", [("one", "three")])[0])
    assert row.tokens == tuple(tokenizer(whole + "three", add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("template", ["{{ messages[0]['content'] }} " * 2, "{{ messages[0]['content'] | upper }}"])
def test_a_template_that_changes_the_message_is_refused(template):
    with pytest.raises(InputError, match=r"once and unchanged; found it .* Write the layout by hand"):
        Layout.from_chat_template(word_tokenizer(WORDS, chat_template=template))


def test_a_tokenizer_without_a_template_is_refused():
    with pytest.raises(InputError, match=r"expected a tokenizer with one; found none.*Use the tokenizer of"):
        Layout.from_chat_template(word_tokenizer(WORDS))


def test_the_bos_is_the_tokenizers_or_the_models():
    assert segmenter().bos == 0 and segmenter().notes == ()
    assert segmenter(word_tokenizer(WORDS, adds_bos=True)).notes == ()
    silent = segmenter(word_tokenizer(WORDS))
    assert silent.bos == 0 and notes_about(silent, "which this tokenizer does not do by itself")
    other = segmenter(word_tokenizer(WORDS, bos_token="to"))
    assert other.bos == 3 and notes_about(other, "the model's configuration says 0")


def test_a_bos_that_the_tokenizer_adds_is_not_there_twice():
    segments = segmenter(word_tokenizer(WORDS, adds_bos=True))
    assert segments.instruction("i", "add two") == (2, 5)
    assert segments.pairs("d", [("one", "two three")]) == [((4,), (5, 6))]


@pytest.mark.parametrize("text", [(0, 5, 2), "<s> add two"], ids=["ids", "text"])
def test_a_bos_that_is_brought_along_is_left_out_and_noted(text):
    segments = segmenter(word_tokenizer(WORDS))
    assert segments.instruction("instruction a", text)[0] != 0
    assert notes_about(segments, "instruction a: a BOS at the start was left out")
    ((x, y),) = segments.pairs("d", [((0, 4), (0, 5))])
    assert (x, y) == ((4,), (0, 5)), "what y begins with is data"
    assert notes_about(segments, "d: x: a BOS at the start was left out")


def test_without_a_bos_nothing_is_put_before():
    segments = segmenter(bos=None)
    assert segments.sequence(PLAIN, (5,), ((1,), (2,))).tokens == (5, 1, 2)
    assert notes_about(segments, "no BOS, as asked for")
    none = Segmenter(None, causal_lm("gpt2", bos_token_id=None))
    assert none.bos is None and notes_about(none, "neither tokenizer nor model has one")


def test_a_y_with_nothing_before_it_is_refused():
    with pytest.raises(InputError, match=r"d, example 1: .*found no BOS and an empty x. Pass bos="):
        segmenter(bos=None).pairs("d", [((1,), (2,)), ((), (2,))])


def test_unknown_words_are_counted():
    segments = segmenter(word_tokenizer(WORDS))
    segments.pairs("d", [("one", "two"), ("four", "two"), ("one", "five six")])
    assert notes_about(segments, "d: 2 of 3 examples have text that the tokenizer does not know")


def test_texts_are_tokenised_apart():
    segments = segmenter(letter_tokenizer("abc", [("a", "b")]))
    assert segments.tokens("t", "ab") == (4,)
    assert segments.tokens("t", "a") + segments.tokens("t", "b") == (1, 2)


@settings(max_examples=60)
@given(
    rows=st.lists(st.tuples(*[st.lists(st.integers(1, 6), max_size=4)] * 2, st.integers(1, 3)), min_size=1, max_size=5)
)
def test_batches_score_each_token_of_a_segment_once(rows):
    """Against the definition: position t of x or y is true where token t + 1 belongs to it."""
    segments = segmenter()
    sequences = [segments.sequence(PLAIN, tuple(i), (tuple(x), (5,) * y)) for i, x, y in rows]
    batch = collate(sequences, pad=3)
    width = batch["input_ids"].shape[1]
    assert width == max(len(row.tokens) for row in sequences)
    for number, (row, (i, x, y)) in enumerate(zip(sequences, rows, strict=True)):
        length = 1 + len(i) + len(x) + y
        assert batch["input_ids"][number].tolist() == [*row.tokens, *[3] * (width - length)]
        assert batch["attention_mask"][number].tolist() == [1] * length + [0] * (width - length)
        kinds = ["-"] * len(i) + ["x"] * len(x) + ["y"] * y + ["-"] * (width - length)
        for part in "xy":
            assert batch[part][number].tolist() == [kind == part for kind in kinds]


def test_the_first_token_of_a_sequence_is_predicted_by_nothing():
    segments = segmenter(bos=None)
    batch = collate([segments.sequence(PLAIN, (), ((4, 5), (6,)))], pad=0)
    assert batch["x"].tolist() == [[True, False]] and batch["y"].tolist() == [[False, True]]


@settings(max_examples=60)
@given(data=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)), min_size=1, max_size=5), room=st.integers(4, 12))
def test_x_is_cut_at_its_end_and_only_as_far_as_needed(data, room):
    segments = segmenter(max_length=room + 3)
    pairs = [(tuple(range(x)), (6,) * y) for x, y in data]
    fitted = segments.fit("d", pairs, overhead=3)
    for (x, y), (short, same) in zip(pairs, fitted, strict=True):
        most = max(len(other) for again, other in pairs if again == x)
        assert same == y and short == x[: max(0, room - most)], "an x that comes twice is cut alike"
    longest = {x: max(len(other) for again, other in pairs if again == x) for x, _ in pairs}
    cut = sum(len(x) + longest[x] > room for x, _ in pairs)
    noted = [f"d: {cut} of {len(pairs)} examples have their x cut to fit {room + 3} tokens"]
    assert list(segments.notes) == (noted if cut else [])


def test_the_models_positions_are_the_limit():
    assert segmenter().limit == 32 and segmenter(max_length=50).limit == 32 and segmenter(max_length=9).limit == 9
    segments, pair = segmenter(), ((1,) * 28, (2,) * 3)
    assert segments.fit("d", [pair], overhead=1) == [pair]
    with pytest.raises(InputError, match=r"d: expected at most 32 .* 1 of 1 examples that are longer, up to 31.*cut x"):
        segments.fit("d", [pair], overhead=2)


REFUSED = {
    "an instruction longer than the context": (
        lambda s: s.fit("d", [((), (1,))], 32),
        "leaves room for y in 32.*found 32",
    ),
    "a y longer than the context": (lambda s: s.fit("d", [((), (1,) * 40)], 1), "1 of 1 .* up to 40. Shorten the y"),
    "an id that is too large": (
        lambda s: s.tokens("t", [1, 7]),
        r"t: expected token ids from 0 to 6.*found 7\. Use the",
    ),
    "a negative id": (lambda s: s.tokens("t", [-1]), r"t: expected token ids from 0 to 6.*found -1"),
    "a text without a tokenizer": (
        lambda s: s.tokens("t", "add one"),
        "t: expected token ids, as there is no tokenizer.*add one",
    ),
    "no examples": (lambda s: s.pairs("d", []), r"d: expected at least one example \(x, y\); found none. Add"),
    "an empty y": (
        lambda s: s.pairs("d", [((1,), (2,)), ((1,), ())]),
        "d, example 1: expected a y with at least one token",
    ),
    "not a pair": (lambda s: s.pairs("d", [((1,), (2,), (3,))]), r"d, example 0: expected a pair \(x, y\); found"),
    "a string for a pair": (lambda s: s.pairs("d", ["ab"]), r"d, example 0: expected a pair \(x, y\); found 'ab'"),
}


@pytest.mark.parametrize("call, message", REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(segmenter())


def test_a_tokenizer_with_more_tokens_than_the_model_has_rows_is_refused():
    with pytest.raises(InputError, match=r"at most 7 tokens, the rows.*found 8. It does not belong to this model: use"):
        segmenter(word_tokenizer([*WORDS, "four"]))


def test_a_model_without_embeddings_is_refused():
    with pytest.raises(InputError, match="expected a causal language model of transformers; found Linear"):
        Segmenter(None, torch.nn.Linear(2, 2))


def test_an_x_that_is_cut_for_another_data_set_is_noted():
    segments = segmenter(max_length=10)
    assert segments.fit("d", [((1, 2, 3), (6,))], overhead=3, cuts={(1, 2, 3): 1}) == [((1,), (6,))]
    assert list(segments.notes) == ["d: 1 of 1 examples have their x cut to fit 10 tokens"]


def test_special_tokens_in_x_are_noted():
    segments = segmenter(word_tokenizer(WORDS))
    bos = WORDS[0]
    segments.pairs("d", [(f"{WORDS[1]} {bos}", WORDS[1]), (WORDS[1], f"{WORDS[1]} {bos}")])
    assert notes_about(segments, "special") == ["d: 1 of 2 examples have special tokens in their x, read as such"]
