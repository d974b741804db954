"""The composition study: its data have known answers and disjoint splits, and it runs from end to end on its sample."""

from itertools import combinations

import pytest
import torch

from benchmarks.composition import outcomes
from benchmarks.composition.base import BaseSettings, make_tokenizer
from benchmarks.composition.data import SAMPLE, load_entries, load_study
from benchmarks.composition.experts import file_of
from benchmarks.composition.model import Architecture, answer_losses, collate, encode, evaluate, make_model, tokens_of
from benchmarks.composition.strings import (
    LETTERS,
    MIXED_PRACTICE,
    OPERATIONS,
    PARAPHRASES,
    PRACTICE,
    TARGETS,
    apply,
    instruction,
    pair,
    spaced,
)
from benchmarks.composition.tasks import QUICK_SIZES, SPLITS, Instructed, union
from benchmarks.debian import split_of

ANSWERS = {
    "reverse": "bpaek",
    "upper": "KEAPB",
    "sort": "abekp",
    "swap ends": "beapk",
    "drop first": "eapb",
    "double last": "keapbb",
    "next letter": "lfbac",
    "star vowels": "k**pb",
    "copy": "keapb",
    "drop last": "keap",
    "double first": "kkeapb",
    "previous letter": "jdpoa",
    "star first": "*eapb",
    "rotate": "eapbk",
    "star last": "keap*",
    "first three": "kea",
    "swap first two": "ekapb",
    "upper first": "Keapb",
}
COMMUTING = TARGETS[:8]


@pytest.fixture(scope="module")
def entries():
    return load_entries(SAMPLE)


@pytest.fixture(scope="module")
def study(entries):
    return load_study(QUICK_SIZES, entries)


@pytest.fixture(scope="module")
def tokenizer(entries):
    return make_tokenizer(entries, BaseSettings(architecture=Architecture(vocabulary=600)))


@pytest.mark.parametrize("word", ANSWERS)
def test_an_operation_does_what_it_says(word):
    assert apply("keapb", word) == ANSWERS[word]


def test_compositions_apply_the_first_operation_first():
    assert pair("keapb", "drop first", "upper") == (" k e a p b", " E A P B<eos>")
    assert apply("keapb", "reverse", "drop first") == "paek"
    assert apply("keapb", "next letter", "star vowels") == "lfb*c"


@pytest.mark.parametrize("words", TARGETS, ids=" + ".join)
def test_targets_commute_where_they_are_said_to(words):
    strings = ["keapb", "ponm", "aabp", "dcbaefgh"]
    same = all(apply(each, *words) == apply(each, *reversed(words)) for each in strings)
    assert same == (words in COMMUTING), f"{words}: commutes on these strings: {same}"


def test_the_study_has_the_targets_it_needs(study):
    families = [target.family for target in study.targets.values()]
    assert len(TARGETS) >= 14 and {word for words in TARGETS for word in words} == set(OPERATIONS)
    assert {family: families.count(family) for family in set(families)} == {
        "strings": len(TARGETS),
        "paraphrase": len(PARAPHRASES),
        "multi-task": 7,
        "real": 3,
    }
    assert not set(TARGETS) & {*PRACTICE, *MIXED_PRACTICE}, "the base model must not practise a target"


def test_every_task_has_a_file_of_its_own(study):
    assert len({file_of(name) for name in study.tasks}) == len(study.tasks)


def test_concatenated_instructions_are_concatenated_tokens(study, tokenizer):
    concatenated = {}
    for target in study.targets.values():
        parts = [tokens_of(tokenizer, study.tasks[name].instruction) for name in target.components]
        whole = tokens_of(tokenizer, study.tasks[target.name].instruction)
        concatenated.setdefault(target.family, []).append(whole == parts[0] + parts[1])
    assert all(concatenated["strings"] + concatenated["real"]), "an instruction is not its parts, token for token"
    assert not any(concatenated["paraphrase"] + concatenated["multi-task"])


@pytest.mark.parametrize("symbol", [*LETTERS, *LETTERS.upper(), *"0123456789*"])
def test_a_spaced_symbol_is_one_token(tokenizer, symbol):
    assert len(tokens_of(tokenizer, spaced(symbol * 3))) == 3


def test_text_survives_the_tokenizer(tokenizer, study):
    text = study.tasks["to French"].train[0][1]
    assert tokenizer.decode(tokens_of(tokenizer, text)) == text


def test_no_input_is_in_two_splits_of_any_tasks(study):
    seen = {split: {x for task in study.tasks.values() for x, _ in getattr(task, split)} for split in SPLITS}
    for one, other in combinations(SPLITS, 2):
        assert not seen[one] & seen[other], f"{one} and {other} share {sorted(seen[one] & seen[other])[:3]}"


def test_no_source_package_is_in_two_splits(entries, study):
    english = {f" {text}": each.source for each in entries for text in (each.short["en"], each.long["en"])}
    for name in ("summarise", "to German", "summarise + to Spanish"):
        for split, key in SPLITS.items():
            found = {split_of(english[x]) for x, _ in getattr(study.tasks[name], split)}
            assert found == {key}, f"{name}, {split}: packages of {found}"


def test_a_multi_task_target_is_the_union_of_its_components(study):
    targets = [target for target in study.targets.values() if target.family == "multi-task"]
    for target in targets:
        first, second = (study.tasks[name] for name in target.components)
        whole = study.tasks[target.name]
        assert sorted(whole.train) == sorted(first.train + second.train)
        assert len(first.train) == len(second.train)
        assert first.instruction == second.instruction == whole.instruction
        assert set(whole.test) <= set(first.test + second.test)


def test_components_of_unequal_size_make_no_union():
    parts = (Instructed("one", "", [("a", "b")], [], []), Instructed("two", "", [], [], []))
    with pytest.raises(ValueError, match="equal size"):
        union("both", "", parts)


def test_the_loss_is_the_answer_given_the_prompt_summed(tokenizer):
    """Against a loop over the tokens of one unpadded example at a time."""
    model = make_model(Architecture(width=16, hidden=32, layers=1, heads=2), tokenizer, 0).double().eval()
    rows = encode(tokenizer, instruction("sort"), [pair("keapb", "sort"), pair("ponmlk", "sort", "double last")])
    losses, _ = answer_losses(model, collate(rows, tokenizer.pad_token_id))
    for loss, (tokens, start) in zip(losses, rows, strict=True):
        assert tokens[0] == tokenizer.bos_token_id and tokens[-1] == tokenizer.eos_token_id
        logits = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
        expected = -sum(logits[place - 1, tokens[place]] for place in range(start, len(tokens)))
        torch.testing.assert_close(loss, expected.detach(), check_dtype=False, rtol=1e-5, atol=1e-5)


def test_an_exact_match_is_what_greedy_decoding_gives(tokenizer):
    model = make_model(Architecture(width=16, hidden=32, layers=1, heads=2), tokenizer, 0).eval()
    prompt = [tokenizer.bos_token_id, *tokens_of(tokenizer, " reverse : a b c")]
    decoded = list(prompt)
    for _ in range(4):
        decoded.append(model(torch.tensor([decoded])).logits[0, -1].argmax().item())
    wrong = [*decoded[:-1], decoded[-1] ^ 1]
    scores = evaluate(model, [(wrong, len(prompt)), (decoded, len(prompt))], tokenizer.pad_token_id)
    assert scores.exact.tolist() == [False, True]


def test_composition_dry_run(capsys):
    outcomes.main(["--quick"])
    printed = capsys.readouterr().out
    assert "Exact matches on the test split" in printed and "summarise + to French" in printed
