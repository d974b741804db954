"""Folders, options and data that do not fit together: refused by a message that says what and where."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
)

from diagnostics.errors import InputError, MismatchError
from diagnostics.inputs.pretrained import load_problem
from tests.inputs.tiny_models import (
    LABELS,
    SIZES,
    WORDS,
    bert,
    load,
    tokenizer,
    write_data,
    write_folders,
)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return write_folders(tmp_path)


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rename(path: Path, change: Callable[[str], str]) -> None:
    save_file({change(key): value for key, value in load_file(path).items()}, path)


def only_body(folders: Path) -> None:
    BertModel(BertConfig(**SIZES, max_position_embeddings=12)).save_pretrained(folders / "base")


BAD_FOLDERS: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "no configuration": (lambda f: (f / "kind/config.json").unlink(), r"'kind'.*with config\.json; found none"),
    "broken configuration": (lambda f: (f / "kind/config.json").write_text("{"), r"kind/config\.json: expected"),
    "unknown architecture": (lambda f: edit_config(f / "kind", model_type="none_such"), r"config\.json.*none_such"),
    "no classifier of this kind": (lambda f: edit_config(f / "kind", model_type="vit"), r"can classify with; found"),
    "regression": (lambda f: edit_config(f / "kind", problem_type="regression"), r"found problem_type 'regression'"),
    "one label": (lambda f: bert(0, labels=1).save_pretrained(f / "kind"), r"with 1 labels\. Give a task"),
    "config of another size": (
        lambda f: edit_config(f / "kind", intermediate_size=32),
        r"'kind': expected the 41 parameters of BertForSequenceClassification.*\[24, 16\] instead of \[32, 16\]",
    ),
    "config of more layers": (lambda f: edit_config(f / "kind", num_hidden_layers=3), r"found missing bert.*11 more"),
    "config of fewer layers": (lambda f: edit_config(f / "kind", num_hidden_layers=1), r"found unknown bert\.encoder"),
    "another prefix": (
        lambda f: rename(f / "kind/model.safetensors", lambda key: f"model.{key}"),
        r"differ only by the prefix 'model\.'",
    ),
    "base without a prefix": (only_body, r"differ only by the prefix 'bert\.'"),
    "no weights": (lambda f: (f / "mood/model.safetensors").unlink(), r"mood: expected model\.safetensors"),
    "no tokenizer": (
        lambda f: [file.unlink() for file in (f / "base").glob("tokenizer*")],
        r"base: .*expected a tokenizer beside the weights",
    ),
    "broken tokenizer": (lambda f: (f / "base/tokenizer.json").write_text("{"), "a tokenizer that transformers reads"),
    "another vocabulary": (
        lambda f: tokenizer([*WORDS[:-2], WORDS[-1], WORDS[-2]]).save_pretrained(f / "mood"),
        r"mood: expected the base's tokenizer; found 2 tokens with other ids: 'dull', 'long'",
    ),
    "other rules": (
        lambda f: (tokenizer().save_pretrained(f / "mood"), swap_template(f / "mood")),
        r"the same vocabulary, but 'a good film' becomes \[3",
    ),
    "no padding token": (
        lambda f: tokenizer(pad_token=None).save_pretrained(f / "base"),
        r"expected a padding token, to make batches",
    ),
    "label out of range": (
        lambda f: write_data(f / "mood.jsonl", labels=[1, 2, *LABELS[2:]]),
        r"mood\.jsonl, line 2: label: expected a class from 0 to 1; found 2",
    ),
    "label of no class": (
        lambda f: write_data(f / "mood.jsonl", labels=["LABEL_7", *LABELS[1:]]),
        r"line 1: label: expected a class of the model: 'LABEL_0', 'LABEL_1'; found 'LABEL_7'\. Did you mean",
    ),
    "not a number": (
        lambda f: save_file(
            {**load_file(f / "kind/model.safetensors"), "classifier.bias": torch.full((2,), torch.nan)},
            f / "kind/model.safetensors",
        ),
        r"kind: expected finite values; found classifier\.bias: 2 NaN",
    ),
}


def swap_template(folder: Path) -> None:
    """Exchange the first and last token of every text."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["post_processor"]["single"].reverse()
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_bad_folders_are_refused(folders: Path, name: str) -> None:
    spoil, message = BAD_FOLDERS[name]
    spoil(folders)
    with pytest.raises(InputError, match=rf"(?s){message}"):
        load(folders)


BAD_OPTIONS = {
    "instructions": ({"instructions": {"kind": "Say: "}}, r"instructions: expected kind 'causal-lm' with them"),
    "unknown kind": ({"kind": "sequence_clasification"}, r"Did you mean 'sequence-classification'\?"),
    "batch size": ({"batch_size": 0}, r"batch_size: expected at least 1; found 0"),
    "too long": ({"max_length": 13}, r"max_length: expected between 3 and 12 for BertFor.*; found 13"),
    "too short": ({"max_length": 2}, r"max_length: expected between 3 and 12"),
    "unmatched private": ({"private": ["clasifier.*"]}, r"'clasifier\.\*' matches none.*classifier"),
    "columns": (
        {"columns": {"text": "review"}},
        r"kind\.jsonl: expected a key 'review'; found only \['text', 'label'\]",
    ),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_options_are_refused(folders: Path, name: str) -> None:
    options, message = BAD_OPTIONS[name]
    with pytest.raises(InputError, match=message):
        load(folders, **options)


def test_names_must_agree(folders: Path) -> None:
    with pytest.raises(InputError, match=r"experts without data: \['kind'\], data without an expert: \['mood'\]"):
        load_problem(folders / "base", {"kind": folders / "kind"}, {"mood": folders / "mood.jsonl"})


def test_models_in_memory_have_no_tokenizer_to_read_texts_with(folders: Path) -> None:
    data = {"kind": folders / "kind.jsonl"}
    for base, experts, key in (
        (torch.nn.Tanh(), folders / "kind", "base"),
        (folders / "base", torch.nn.Tanh(), "kind"),
    ):
        with pytest.raises(InputError, match=rf"{key}: expected a path.*found Tanh.*Task\.from_module"):
            load_problem(base, {"kind": experts}, data)


def save_tensors(folders: Path, **changes: torch.Tensor) -> dict[str, Path]:
    path = folders / "data.safetensors"
    save_file({"inputs": torch.tensor([[2, 5, 3], [2, 6, 3]]), "targets": torch.tensor([1, 0]), **changes}, path)
    return {"kind": path}


BAD_TENSORS = {
    "classes": ({"targets": torch.tensor([0, 2])}, r"targets: expected classes from 0 to 1; found 2"),
    "one-hot": ({"targets": torch.eye(2)}, r"expected one integer class per example; found float32 of shape \[2, 2\]"),
    "token ids": (
        {"inputs": torch.tensor([[2, 99, 3], [2, 6, 3]])},
        r"inputs for BertForSequence.*'kind'; found index",
    ),
    "further tensors": ({"mask": torch.ones(2, 3)}, r"expected inputs of BertFor.*: input_ids, .*; found inputs, mask"),
}


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_bad_tensors_are_refused(folders: Path, name: str) -> None:
    changes, message = BAD_TENSORS[name]
    with pytest.raises(InputError, match=rf"data\.safetensors.*{message}"):
        load_problem(folders / "base", {"kind": folders / "kind"}, save_tensors(folders, **changes))


def test_missing_transformers_names_the_remedy(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'task-arithmetic-diagnostics\[transformers\]'"):
        load(folders)


def test_a_body_of_another_shape_is_never_private_by_itself(folders: Path) -> None:
    torch.manual_seed(0)
    wide = BertConfig(**{**SIZES, "vocab_size": len(WORDS) + 1}, max_position_embeddings=12, num_labels=5)
    BertForSequenceClassification(wide).save_pretrained(folders / "mood")
    with pytest.raises(MismatchError, match=r"vocabulary_mismatch in 'mood'"):
        load(folders)
