"""Tokenizer files of every kind, as transformers writes them, read without it."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models

from diagnostics.errors import CheckpointError
from diagnostics.inputs.tokenizer_files import read_tokenizer
from tests.inputs.tiny_models import WORDS, letter_tokenizer, tokenizer


def test_a_saved_tokenizer(tmp_path: Path) -> None:
    saved = tokenizer()
    saved.chat_template = "{{ messages }}"
    saved.save_pretrained(tmp_path)
    found = read_tokenizer(tmp_path)
    assert found.tokens == saved.get_vocab()
    assert found.tokens == {word: row for row, word in enumerate(WORDS)}
    assert found.special["pad_token"] == "[PAD]"
    assert found.template == "{{ messages }}"
    assert read_tokenizer(tmp_path / "model.safetensors") == found, "beside a file of weights"


def test_tokens_that_were_added(tmp_path: Path) -> None:
    saved = tokenizer()
    saved.add_tokens(["<user>"])
    saved.save_pretrained(tmp_path)
    assert read_tokenizer(tmp_path).tokens["<user>"] == len(WORDS)


def test_merges_are_the_same_in_both_spellings(tmp_path: Path) -> None:
    letter_tokenizer("abc", [("a", "b")]).save_pretrained(tmp_path)
    first = read_tokenizer(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["merges"] = ["a b"]
    path.write_text(json.dumps(content))
    assert read_tokenizer(tmp_path) == first
    content["model"]["merges"] = ["b c"]
    path.write_text(json.dumps(content))
    assert read_tokenizer(tmp_path).rules["merges"] != first.rules["merges"]


def test_truncation_is_no_property_of_a_tokenizer(tmp_path: Path) -> None:
    tokenizer().save_pretrained(tmp_path)
    first = read_tokenizer(tmp_path)
    raw = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    raw.enable_truncation(7)
    raw.enable_padding()
    raw.save(str(tmp_path / "tokenizer.json"))
    assert read_tokenizer(tmp_path) == first


def test_a_vocabulary_with_scores(tmp_path: Path) -> None:
    Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0)).save(str(tmp_path / "tokenizer.json"))
    assert read_tokenizer(tmp_path).tokens == {"<unk>": 0, "a": 1}


def test_older_files(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\na\nb\n")
    assert read_tokenizer(tmp_path).tokens == {"[PAD]": 0, "a": 1, "b": 2}
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1}')
    (tmp_path / "merges.txt").write_text("a b")
    (tmp_path / "added_tokens.json").write_text('{"<x>": 2}')
    found = read_tokenizer(tmp_path)
    assert (found.tokens, found.rules) == ({"a": 0, "b": 1, "<x>": 2}, {"merges": "a b"})


def test_a_binary_model_is_known_by_its_hash(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"one")
    first = read_tokenizer(tmp_path)
    assert first.tokens == {}
    (tmp_path / "tokenizer.model").write_bytes(b"two")
    assert first.digest != read_tokenizer(tmp_path).digest


def test_templates_in_a_file_and_in_a_list(tmp_path: Path) -> None:
    tokenizer().save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ a }}")
    assert read_tokenizer(tmp_path).template == "{{ a }}"
    (tmp_path / "chat_template.jinja").unlink()
    path = tmp_path / "tokenizer_config.json"
    templates = [{"name": "default", "template": "{{ b }}"}]
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": templates}))
    assert json.loads(read_tokenizer(tmp_path).template) == templates


def test_none_is_there(tmp_path: Path) -> None:
    assert read_tokenizer(tmp_path) is None
    assert read_tokenizer({"w": torch.zeros(1)}) is None


@pytest.mark.parametrize("content", ["[1]", "{", '{"model": 3}', '{"model": {"vocab": [1]}}', '{"added_tokens": [{}]}'])
def test_what_is_no_tokenizer_file(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"expected .*; found .* again"):
        read_tokenizer(tmp_path)
