"""Data files: every example is read as it stands, or refused by file, line, key and value."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from diagnostics.errors import InputError
from diagnostics.inputs.examples import TextExamples, class_targets, read_tensors, read_texts

TEXT = st.text(st.characters(codec="utf-8")).filter(lambda text: text.strip())


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "data.jsonl"


@given(st.lists(st.tuples(TEXT, st.integers(-3, 9) | TEXT), min_size=1, max_size=5), st.booleans())
def test_what_was_written_is_read(scratch: Path, rows: list, ascii_only: bool) -> None:
    lines = [json.dumps({"text": text, "label": label}, ensure_ascii=ascii_only) for text, label in rows]
    scratch.write_text("\n".join(lines), encoding="utf-8", newline="")
    examples = read_texts(scratch)
    assert list(zip(examples.texts, examples.labels, strict=True)) == rows
    assert examples.lines == tuple(range(1, len(rows) + 1))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_blank_lines_and_a_byte_order_mark_are_no_examples(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", '\ufeff{"x": "a", "y": 0}\r\n\n  \n{"x": "b", "y": 1}\n')
    examples = read_texts(file)
    assert (examples.texts, examples.labels, examples.lines) == (("a", "b"), (0, 1), (1, 4))


def test_columns_can_be_named_and_others_are_not_read(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", '{"id": 7, "review": "a", "text": "b", "label": 1, "stars": 0}')
    assert read_texts(file, {"text": "review"}).texts == ("a",)
    assert read_texts(file, {"text": "review"}).labels == (1,)
    assert read_texts(file, {"label": "stars"}).labels == (0,)


@given(st.lists(TEXT, min_size=1, max_size=4))
def test_texts_without_labels_are_read_without(scratch: Path, texts: list) -> None:
    scratch.write_text("\n".join(json.dumps({"x": text, "id": i}) for i, text in enumerate(texts)), encoding="utf-8")
    examples = read_texts(scratch)
    assert examples.texts == tuple(texts) and examples.labels is None
    assert class_targets(examples, {}, 2) is None


@given(st.lists(st.booleans(), min_size=2, max_size=6).filter(lambda has: any(has) and not all(has)))
def test_labels_in_some_lines_are_refused_at_the_first_without(scratch: Path, has: list) -> None:
    rows = [{"text": "a", "label": 0} if each else {"text": "a"} for each in has]
    scratch.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    message = rf"data\.jsonl, line {has.index(False) + 1}: expected the key 'label'.* {sum(has)} of {len(has)} lines"
    with pytest.raises(InputError, match=message):
        read_texts(scratch)


@pytest.mark.parametrize(
    "key", ["labels", "Label", "LABEL", "lable", "Y", "gold_label", "target", "class_id", "category"]
)
def test_labels_under_another_name_are_not_passed_over(tmp_path: Path, key: str) -> None:
    file = write(tmp_path / "a.jsonl", GOOD.replace("label", "id") + json.dumps({"text": "a", key: 0}))
    with pytest.raises(InputError, match=rf"a key 'label' or 'y'.*the label: columns {{label: {key}}}; or remove it"):
        read_texts(file)


def test_a_named_label_that_no_line_has_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", '{"text": "a"}')
    with pytest.raises(InputError, match="expected a key 'stars'"):
        read_texts(file, {"label": "stars"})


GOOD = '{"text": "a", "label": 0}\n'
BAD_TEXTS = {
    "empty": ("", {}, r"a\.jsonl: expected at least one example.*; found none\. Add examples"),
    "blank": ("\n \n", {}, r"found none"),
    "bad JSON": (GOOD + '{"text": "b", "label": }', {}, r"line 2: expected a JSON object; found .*Expecting value"),
    "a table": ("text,label\na,0", {}, r"line 1: expected a JSON object; found 'text,label'.*Write each example"),
    "an array": ('[{"text": "a", "label": 0}]', {}, r"line 1: expected a JSON object"),
    "no text": (
        '{"sentence": "a", "label": 0}',
        {},
        r"expected a key 'text' or 'x'; found only \['sentence', 'label'\]",
    ),
    "no label": ('{"text": "a", "labels": 0}', {}, r"a key 'label' or 'y'.*the label: columns \{label: labels\}"),
    "both": ('{"text": "a", "x": "b", "y": 0}', {}, r"one key 'text' or 'x'; found both \['text', 'x'\].*text: text"),
    "named, but absent": (GOOD, {"text": "txt"}, r"expected a key 'txt'.*columns \{text: text\}"),
    "absent later": (GOOD + '{"text": "b"}', {}, r"line 2: expected the key 'label'; found only \['text'\]"),
    "empty text": (GOOD * 2 + '{"text": " ", "label": 0}', {}, r"line 3: text: expected a text; found ' '"),
    "number as text": ('{"text": 5, "label": 0}', {}, r"line 1: text: expected a text; found 5"),
    "real label": ('{"text": "a", "label": 0.5}', {}, r"label: expected an integer or the name of a class; found 0\.5"),
    "truth as label": ('{"text": "a", "label": true}', {}, r"found True\. Give each class an integer"),
    "no value": ('{"text": "a", "label": null}', {}, r"found None"),
    "NaN": ('{"text": "a", "label": NaN}', {}, r"found nan"),
    "long value": ('{"text": ["' + "b" * 500 + '"], "label": 0}', {}, r"found .{0,70}…"),
}


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_bad_texts_are_refused(tmp_path: Path, name: str) -> None:
    content, columns, message = BAD_TEXTS[name]
    with pytest.raises(InputError, match=message) as caught:
        read_texts(write(tmp_path / "a.jsonl", content), columns)
    assert "a.jsonl" in str(caught.value)


def test_a_missing_file_a_folder_and_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl: expected a file.*No such file.*Check the path"):
        read_texts(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="Is a directory"):
        read_texts(tmp_path)
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"expected UTF-8 text.*\.safetensors"):
        read_texts(tmp_path / "a.jsonl")


def examples_of(*labels: int | str) -> TextExamples:
    return TextExamples(Path("a.jsonl"), ("text",) * len(labels), labels, tuple(range(3, 3 + len(labels))))


@given(st.lists(st.integers(0, 4) | st.sampled_from("abcde"), min_size=1))
def test_a_class_by_number_or_by_name(labels: list) -> None:
    names = {letter: index for index, letter in enumerate("abcde")}
    expected = [label if isinstance(label, int) else "abcde".index(label) for label in labels]
    assert class_targets(examples_of(*labels), names, 5).tolist() == expected


def test_classes_that_do_not_exist_are_refused() -> None:
    names = {"negative": 0, "positive": 1}
    refused = {
        2: r"line 4: label: expected a class from 0 to 1; found 2\. Count classes from 0",
        -1: r"found -1",
        "positve": r"expected a class of the model: 'negative', 'positive'; found 'positve'\. Did you mean 'positive'",
        "1": r"found '1'",
    }
    for label, message in refused.items():
        with pytest.raises(InputError, match=message):
            class_targets(examples_of(0, label), names, 2)
    with pytest.raises(InputError, match=r"a class of the model: none; found 'a'\. Give class numbers"):
        class_targets(examples_of("a"), {}, 2)


def test_tensors_are_read_as_positional_or_keyword_inputs(tmp_path: Path) -> None:
    file, targets = tmp_path / "a.safetensors", torch.tensor([0, 1])
    save_file({"inputs": torch.eye(2), "targets": targets}, file)
    inputs, found = read_tensors(file)
    assert torch.equal(inputs, torch.eye(2)) and torch.equal(found, targets)
    save_file({"ids": torch.eye(2), "mask": torch.ones(2, 3), "gold": targets}, file)
    inputs, found = read_tensors(file, {"inputs": "ids", "targets": "gold"})
    assert set(inputs) == {"ids", "mask"} and torch.equal(found, targets)


BAD_TENSORS = {
    "no inputs": ({"x": torch.ones(2)}, r"expected a key 'inputs'; found only .*columns \{inputs: x\}"),
    "NaN": ({"inputs": torch.tensor([1.0, torch.nan])}, r"inputs: expected finite values; found 1 of 2 NaN"),
    "infinite targets": (
        {"inputs": torch.ones(2), "targets": torch.tensor([1.0, torch.inf])},
        r"targets: expected finite values; found 1 of 2",
    ),
    "counts": (
        {"inputs": torch.ones(3, 2)},
        r"inputs: expected as many examples as targets \[2\]; found shape \[3, 2\]",
    ),
    "empty": ({"inputs": torch.ones(0, 2), "targets": torch.ones(0)}, r"inputs: expected at least one example"),
    "a number": ({"inputs": torch.tensor(1.0)}, r"inputs: expected at least one example, examples first; found shape"),
    "extra of another length": (
        {"inputs": torch.ones(2), "mask": torch.ones(1, 2)},
        r"mask: expected as many examples as targets \[2\]; found shape \[1, 2\]",
    ),
}


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_bad_tensors_are_refused(tmp_path: Path, name: str) -> None:
    tensors, message = BAD_TENSORS[name]
    file = tmp_path / "a.safetensors"
    save_file({"targets": torch.tensor([0, 1]), **tensors}, file)
    with pytest.raises(InputError, match=rf"a\.safetensors: {message}"):
        read_tensors(file)


def test_a_missing_tensor_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.safetensors: expected .*; found nothing there"):
        read_tensors(tmp_path / "none.safetensors")
