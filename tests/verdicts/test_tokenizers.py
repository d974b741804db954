"""Tokenizers that differ: how bad it is depends on whether rows mean other tokens."""

import re
from dataclasses import replace

import pytest

from diagnostics.inputs.tokenizer_files import TokenizerFiles
from diagnostics.verdicts.findings import Code, Severity
from diagnostics.verdicts.tokenizers import added_tokens, compare_tokenizers

BASE = TokenizerFiles({"<s>": 0, "a": 1, "b": 2}, {"merges": "[]"}, {"bos_token": "<s>"}, "{{ x }}")
DIFFERENT = {
    "moved": (replace(BASE, tokens={"<s>": 0, "a": 2, "b": 1}), Severity.ERROR, "2 tokens have rows .* 'a', 'b'"),
    "replaced": (replace(BASE, tokens={"<s>": 0, "a": 1, "c": 2}), Severity.ERROR, "1 tokens have rows .* 'c'"),
    "added": (replace(BASE, tokens={**BASE.tokens, "<u>": 3}), Severity.WARNING, "Only the expert's .* '<u>'"),
    "removed": (replace(BASE, tokens={"<s>": 0, "a": 1}), Severity.WARNING, "Only the base's .* 'b'"),
    "rules": (replace(BASE, rules={"merges": "[1]"}), Severity.WARNING, "other rules than the base's: merges"),
    "special": (replace(BASE, special={"bos_token": "a"}), Severity.WARNING, "bos_token is 'a', the base's '<s>'"),
    "template": (replace(BASE, template="{{ y }}"), Severity.NOTE, "base and expert have different chat templates"),
    "no template": (replace(BASE, template=None), Severity.NOTE, "the base alone has a chat template"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_each_difference_has_its_severity(name: str) -> None:
    expert, severity, message = DIFFERENT[name]
    (found,) = compare_tokenizers(BASE, expert, "news")
    assert (found.code, found.severity, found.model, found.tensor) == (Code.TOKENIZER, severity, "news", None)
    assert re.search(message, found.message), found.message
    assert found.remedy


def test_equal_tokenizers_and_what_one_of_them_does_not_say() -> None:
    assert compare_tokenizers(BASE, BASE, "news") == []
    assert compare_tokenizers(BASE, replace(BASE, rules={}, special={"eos_token": "b"}), "news") == []


def test_binary_models_are_compared_where_there_is_nothing_else() -> None:
    one, two = TokenizerFiles(digest="1"), TokenizerFiles(digest="2")
    assert [each.severity for each in compare_tokenizers(one, two, "news")] == [Severity.ERROR]
    assert compare_tokenizers(one, one, "news") == []
    readable = replace(BASE, digest="2", template=None)
    assert compare_tokenizers(replace(readable, digest="1"), readable, "news") == [], "the tokens are the same"
    assert compare_tokenizers(TokenizerFiles(), readable, "news") == []


def test_only_a_few_tokens_are_named() -> None:
    many = replace(BASE, tokens={**BASE.tokens, **{f"<{i}>": 3 + i for i in range(9)}})
    assert "'<4>' and 4 more" in added_tokens(BASE, many)
    assert added_tokens(None, many) == added_tokens(BASE, TokenizerFiles(digest="1")) == ""
