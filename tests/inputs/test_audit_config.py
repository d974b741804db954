"""Configurations of an audit: what is written is what the audit gets, and every mistake is named with its remedy."""

import json
from pathlib import Path

import pytest
import torch

from diagnostics.errors import InputError
from diagnostics.inputs.audit_config import AuditConfig, load_audit_config
from diagnostics.inputs.examples import read_pairs

REQUIRED = """
model: base
components:
  summarise: {instruction: "Summarise: ", data: summarise.jsonl}
  translate: {instruction: "Translate: ", data: translate.jsonl}
target: {data: both.jsonl}
"""
YAML = (
    REQUIRED.replace("target: {", 'target: {instruction: "Both: ", ')
    + """
adapter: fresh
alphas: {translate: 0.5, summarise: 1}
parameters: ["*.weight"]
chat_template: true
system: Be brief.
limit: 0.6
folds: 4
seed: 3
batch_size: 2
split_interaction: false
max_length: 64
examples: 3
columns: {x: article}
dtype: bfloat16
cache: kept
device: cpu
bos: none
"""
)
TOML = """
model = "base"
target = {instruction = "Both: ", data = "both.jsonl"}
adapter = "fresh"
alphas = {translate = 0.5, summarise = 1}
parameters = ["*.weight"]
chat_template = true
system = "Be brief."
limit = 0.6
folds = 4
seed = 3
batch_size = 2
split_interaction = false
max_length = 64
examples = 3
columns = {x = "article"}
dtype = "bfloat16"
cache = "kept"
device = "cpu"
bos = "none"
[components]
summarise = {instruction = "Summarise: ", data = "summarise.jsonl"}
translate = {instruction = "Translate: ", data = "translate.jsonl"}
"""


def write(folder: Path, text: str, name: str = "audit.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def write_pairs(path: Path, count: int = 8, keys: tuple[str, str] = ("x", "y")) -> Path:
    rows = [dict(zip(keys, (f"x{i}", f"{path.stem}{i}"), strict=True)) for i in range(count)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("summarise", "translate", "both"):
        write_pairs(tmp_path / f"{name}.jsonl")
    for name in ("base", "fresh"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_both_formats_say_the_same(folder: Path) -> None:
    from_yaml, from_toml = (
        load_audit_config(write(folder, YAML)),
        load_audit_config(write(folder, TOML, "audit.toml")),
    )
    assert from_yaml.model_dump() == from_toml.model_dump()
    assert list(from_yaml.components) == ["summarise", "translate"]


def test_an_audit_gets_every_setting(folder: Path) -> None:
    for name in ("summarise", "translate", "both"):
        write_pairs(folder / f"{name}.jsonl", keys=("article", "y"))
    found = load_audit_config(write(folder, YAML.replace("examples: 3", ""))).data()
    examples = {name: [(f"x{i}", f"{name}{i}") for i in range(8)] for name in ("summarise", "translate", "both")}
    assert found.keywords == {
        "instructions": {"summarise": "Summarise: ", "translate": "Translate: "},
        "target_instruction": "Both: ",
        "target_examples": examples.pop("both"),
        "component_examples": examples,
        "alphas": [1.0, 0.5],
        "parameters": ["*.weight"],
        "limit": 0.6,
        "folds": 4,
        "seed": 3,
        "batch_size": 2,
        "split_interaction": False,
        "max_length": 64,
        "bos": None,
        "device": "cpu",
        "dtype": "bfloat16",
        "cache": folder / "kept",
    }
    assert found.notes == ()


def test_what_is_left_out_is_left_to_the_audit(folder: Path) -> None:
    config = load_audit_config(write(folder, REQUIRED))
    keywords = config.data().keywords
    assert keywords["target_instruction"] is None
    assert (keywords["alphas"], keywords["seed"]) == ("best", 0)
    absent = {"parameters", "limit", "folds", "batch_size", "max_length", "bos"}
    assert not absent & keywords.keys()
    assert config.layout(tokenizer=None) is None


def test_values_of_several_kinds(folder: Path) -> None:
    kinds = {
        "bos: 7": ("bos", 7),
        "bos: none": ("bos", None),
        "parameters: all": ("parameters", "all"),
        "alphas: nonnegative": ("alphas", "nonnegative"),
        "alphas: [1, -0.5]": ("alphas", [1.0, -0.5]),
    }
    for text, (key, expected) in kinds.items():
        assert load_audit_config(write(folder, f"{REQUIRED}{text}\n")).data().keywords[key] == expected, text


def test_options_go_before_the_file(folder: Path) -> None:
    config = load_audit_config(write(folder, f"{REQUIRED}alphas: [1, 1]\nexamples: 2\n"))
    found = config.data(alphas={"translate": 2.0, "summarise": 3.0}, examples=4)
    assert found.keywords["alphas"] == [3.0, 2.0]
    assert len(found.keywords["target_examples"]) == 4
    with pytest.raises(InputError, match=r"--alphas: expected one number for each of .*; found 1: \[0\.5\]"):
        config.data(alphas=[0.5])


def test_examples_are_drawn_with_the_seed_and_stay_parallel(folder: Path) -> None:
    def drawn(seed: int) -> dict:
        return load_audit_config(write(folder, f"{REQUIRED}examples: 3\nseed: {seed}\n")).data()

    found = drawn(0)
    lines = [x for x, _ in found.keywords["target_examples"]]
    assert len(lines) == 3
    assert [x for x, _ in found.keywords["component_examples"]["translate"]] == lines
    assert len(found.notes) == 3
    assert "both.jsonl: 3 of 8 examples are used, drawn with seed 0" in found.notes[0]
    assert drawn(0) == found
    assert {str(drawn(seed).keywords["target_examples"]) for seed in range(5)} != {str(found)}
    shared = REQUIRED.replace("translate.jsonl", "both.jsonl")
    same = load_audit_config(write(folder, f"{shared}examples: 3\n")).data()
    assert same.keywords["component_examples"]["translate"] is same.keywords["target_examples"]
    assert len(same.notes) == 2, "a file that is used twice is noted once"


def test_pairs_are_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": "", "y": " 4", "z": 1}\n\n{"y": "5", "x": "2 + 3 = "}\n')
    assert read_pairs(path) == [("", " 4"), ("2 + 3 = ", "5")]
    path.write_text('{"question": "a", "answer": "b"}')
    assert read_pairs(path, {"x": "question", "y": "answer"}) == [("a", "b")]


BAD_LINES = {
    "no x": ('{"y": "b"}', r"expected a key 'x'; found only \['y'\]\. Name the one .*columns \{x: "),
    "other names": ('{"prompt": "a", "y": "b"}', r"expected a key 'x'; .*columns \{x: prompt\}"),
    "a number": ('{"x": 3, "y": "b"}', r", line 1: x: expected a text; found 3\. Write a text; \"\" if there is none"),
    "no text": ('{"x": null, "y": "b"}', r", line 1: x: expected a text; found None"),
    "empty y": ('{"x": "a", "y": ""}', r", line 1: y: expected a text; found ''"),
    "y is a list": ('{"x": "a", "y": "b"}\n{"x": "a", "y": ["b"]}', r", line 2: y: expected a text; found \['b'\]"),
    "another key": ('{"x": "a", "y": "b"}\n{"x": "a", "z": "b"}', r", line 2: expected the key 'y'; found only"),
    "no JSON": ("x", r", line 1: expected a JSON object; found 'x'"),
    "nothing": ("\n", r"expected at least one example"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_bad_lines_are_refused(folder: Path, name: str) -> None:
    content, message = BAD_LINES[name]
    (folder / "translate.jsonl").write_text(content)
    with pytest.raises(InputError, match=rf"translate\.jsonl.*{message}"):
        load_audit_config(write(folder, REQUIRED)).data()


def changed(old: str, new: str) -> str:
    assert old in REQUIRED, old
    return REQUIRED.replace(old, new)


BAD_FILES = {
    "nothing": ("", r"expected keys among model, .*; found nothing\. Begin with model: .* and components: .*target: "),
    "no model": (changed("model: base", ""), r"model: expected a model folder .*; found nothing\. Write, .*model: "),
    "model": (changed("model: base", "model: 3"), r"model: expected a model folder with its tokenizer; found 3"),
    "unknown": (REQUIRED + "alpha: best", r"alpha: expected a key among model, .*Did you mean 'alphas'"),
    "unknown inside": (
        changed('instruction: "Translate: "', "instructions: a"),
        r"components\.translate\.instructions: expected a key among instruction, data\. Did you mean 'instruction'",
    ),
    "unknown in target": (
        changed("target: {", "target: {x: a, "),
        r"target\.x: expected a key among instruction, data",
    ),
    "unknown column": (REQUIRED + "columns: {text: a}", r"columns\.text: expected a key among x, y"),
    "no instruction": (
        changed('instruction: "Translate: ", ', ""),
        r"components\.translate\.instruction: expected a text, .*; found nothing\. Write, .*instruction: ",
    ),
    "empty instruction": (changed("Translate: ", ""), r"components\.translate\.instruction: expected a text.*found ''"),
    "no data": (changed("data: both.jsonl", ""), r"target\.data: expected a file with one .*; found nothing"),
    "data": (changed("both.jsonl", "[a]"), r"target\.data: expected a file with one .*; found \['a'\]"),
    "components": (
        changed("model: base", "model: base\nadapter: {}"),
        r"adapter: expected the folder of a LoRA adapter",
    ),
    "target": ("model: a\ncomponents: {}\ntarget: b", r"target: expected the target's data, .*; found 'b'"),
    "alphas": (REQUIRED + "alphas: least", r"alphas: expected best, nonnegative, or finite numbers.*; found 'least'"),
    "infinite": (REQUIRED + "alphas: [.inf, 1]", r"alphas: expected .*finite numbers.*; found \[inf, 1\]"),
    "one alpha": (REQUIRED + "alphas: 1", r"alphas: expected .*; found 1\. Write, .*alphas: \{summarise: 1"),
    "parameters": (
        REQUIRED + "parameters: some",
        r"parameters: expected a list of names or patterns, or all; found 'so",
    ),
    "chat": (REQUIRED + "chat_template: 1", r"chat_template: expected true or false; found 1"),
    "system": (REQUIRED + "system: 1", r"system: expected a text"),
    "limit": (REQUIRED + "limit: 0", r"limit: expected a number above 0.*; found 0"),
    "no limit": (REQUIRED + "limit: .inf", r"limit: expected a number above 0.*; found inf"),
    "folds": (REQUIRED + "folds: 1", r"folds: expected a whole number from 2 on; found 1"),
    "seed": (REQUIRED + "seed: -1", r"seed: expected a whole number from 0 to below 2\^63; found -1"),
    "batch": (REQUIRED + "batch_size: 0", r"batch_size: expected a whole number from 1 on; found 0"),
    "length": (REQUIRED + "max_length: 0", r"max_length: expected a whole number from 1 on; found 0"),
    "examples": (REQUIRED + "examples: all", r"examples: expected a whole number from 1 on, .*; found 'all'"),
    "columns": (REQUIRED + "columns: [a]", r"columns: expected names of the keys for x and y; found \['a'\]"),
    "dtype": (REQUIRED + "dtype: int8", r"dtype: expected one of \['float64', .*\]; found 'int8'"),
    "bos": (REQUIRED + "bos: first", r"bos: expected auto, none, or the id of a token; found 'first'"),
    "bos as truth": (REQUIRED + "bos: true", r"bos: expected auto, none, or the id of a token; found True"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused(tmp_path: Path, name: str) -> None:
    content, message = BAD_FILES[name]
    with pytest.raises(InputError, match=rf"audit\.yaml: {message}"):
        load_audit_config(write(tmp_path, content))


def test_one_mistake_has_one_message(tmp_path: Path) -> None:
    for text in ("bos: first", "parameters: some", "alphas: least", "dtype: int8"):
        with pytest.raises(InputError) as caught:
            load_audit_config(write(tmp_path, REQUIRED + text))
        assert len(str(caught.value).splitlines()) == 1, str(caught.value)


BAD_TOGETHER = {
    "too few": ("alphas: [1]", r"audit\.yaml: alphas: expected one number for each of .*; found 1: \[1\.0\]\. .*has 0"),
    "missing": ("alphas: {translate: 1}", r"audit\.yaml: alphas: expected one number for each"),
    "unknown": (
        "alphas: {summarise: 1, trans: 2}",
        r"alphas: expected one of the components .*Did you mean 'translate'",
    ),
    "system alone": ("system: a", r"system: expected chat_template: true .*; found no chat template\. Add it"),
}


@pytest.mark.parametrize("name", BAD_TOGETHER)
def test_settings_that_do_not_fit_together_are_refused(folder: Path, name: str) -> None:
    content, message = BAD_TOGETHER[name]
    with pytest.raises(InputError, match=message):
        load_audit_config(write(folder, REQUIRED + content)).data()


def test_paths_that_lead_nowhere_are_refused(folder: Path) -> None:
    (folder / "translate.jsonl").unlink()
    config = load_audit_config(write(folder, YAML))
    with pytest.raises(InputError, match=r"components\.translate\.data: .* found 'translate\.jsonl': nothing at"):
        config.data()
    for name in ("base", "fresh"):
        (folder / name).rmdir()
    with pytest.raises(InputError, match=r"audit\.yaml: adapter: .*found 'fresh': nothing at"):
        config.language_model()
    with pytest.raises(InputError, match=r"audit\.yaml: model: .*found 'base': nothing at"):
        load_audit_config(write(folder, REQUIRED)).language_model()


def test_the_model_is_loaded_as_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(
        "diagnostics.inputs.audit_config.load_language_model", lambda *args, **options: calls.append((args, options))
    )
    for text in (YAML, REQUIRED):
        load_audit_config(write(folder, text)).language_model()
    assert calls == [
        ((folder / "base",), {"adapter": folder / "fresh", "dtype": torch.bfloat16}),
        ((folder / "base",), {"adapter": None, "dtype": None}),
    ]


def test_the_layout_is_the_chat_template(folder: Path) -> None:
    class Chat:
        chat_template = "any"

        def apply_chat_template(self, messages: list[dict], **options: object) -> str:
            return "".join(f"<{each['role']}>{each['content']}" for each in messages) + "<assistant>"

    layout = load_audit_config(write(folder, YAML)).layout(Chat())
    assert (layout.head, layout.tail) == ("<system>Be brief.<user>", "<assistant>")


def test_a_configuration_does_not_change(folder: Path) -> None:
    config = load_audit_config(write(folder, REQUIRED))
    assert isinstance(config, AuditConfig)
    with pytest.raises(ValueError, match="frozen"):
        config.model = "b"  # type: ignore[misc]
