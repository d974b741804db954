"""Configuration files: what is written is what is used, and every mistake is named with file, key and remedy."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.errors import InputError
from diagnostics.inputs import config as module
from diagnostics.inputs.config import RunConfig, is_config_file, load_config
from diagnostics.inputs.pretrained import KINDS

YAML = """
base: models/base
experts: {news: models/news, mail: models/mail}
data:
  news: news.jsonl
  mail: mail.jsonl
kind: sequence-classification
private: ["classifier.*"]
coefficients: {news: 0.5, mail: 1}
tolerance: 5e-2
batch_size: 8
max_length: 32
columns: {text: review}
instructions: {news: "Sort: "}
device: cpu
dtype: float64
cache: kept
seed: 3
target: mail
"""
TOML = """
base = "models/base"
kind = "sequence-classification"
private = ["classifier.*"]
tolerance = 0.05
batch_size = 8
max_length = 32
device = "cpu"
dtype = "float64"
cache = "kept"
seed = 3
target = "mail"
[experts]
news = "models/news"
mail = "models/mail"
[data]
news = "news.jsonl"
mail = "mail.jsonl"
[coefficients]
news = 0.5
mail = 1
[columns]
text = "review"

[instructions]
news = "Sort: "
"""


def write(folder: Path, text: str, name: str = "merge.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("models/base", "models/news", "models/mail"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("news.jsonl", "mail.jsonl"):
        (tmp_path / name).write_text("{}")
    return tmp_path


def test_both_formats_say_the_same(folder: Path) -> None:
    from_yaml, from_toml = load_config(write(folder, YAML)), load_config(write(folder, TOML, "merge.toml"))
    assert from_yaml.model_dump() == from_toml.model_dump()
    assert from_yaml.tolerance == 0.05
    assert from_yaml.columns.text == "review"
    assert from_yaml.merge() == {"news": 0.5, "mail": 1.0}
    assert [is_config_file(name) for name in ("a.YML", "a.toml", "a/base", "a.json")] == [True, True, False, False]


def test_paths_are_relative_to_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absolute = write(folder, YAML.replace("models/mail", str(folder / "models" / "mail")))
    monkeypatch.chdir("/")
    base, experts = load_config(absolute).models()
    assert (base, experts["news"]) == (folder / "models/base", folder / "models/news")
    assert experts["mail"] == folder / "models" / "mail"
    monkeypatch.setenv("HOME", str(folder))
    assert load_config(write(folder, "base: ~/models/base\nexperts: {a: ~/models/news}")).models()[0].is_dir()


def test_a_problem_gets_every_setting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(module, "load_problem", lambda *args, **options: calls.append((args, options)))
    load_config(write(folder, YAML)).problem()
    (base, experts, data), options = calls[0]
    assert (base, data["mail"]) == (folder / "models/base", folder / "mail.jsonl")
    assert list(experts) == ["news", "mail"]
    assert options == {
        "kind": "sequence-classification",
        "private": ["classifier.*"],
        "columns": {"text": "review"},
        "batch_size": 8,
        "max_length": 32,
        "instructions": {"news": "Sort: "},
        "device": "cpu",
        "dtype": "float64",
        "cache": folder / "kept",
    }


def test_sections_that_are_not_needed_may_be_absent(folder: Path) -> None:
    config = load_config(write(folder, "base: models/base\nexperts: {news: models/news}"))
    assert config.unseen() == ({"news": folder / "models/news"}, None)
    assert config.merge(0.3) == {"news": 0.3}
    for call, key in ((config.problem, "data"), (config.merge, "coefficients")):
        with pytest.raises(InputError, match=rf"merge\.yaml: {key}: expected .*; found nothing\. Write, .*{key}: "):
            call()
    for text, key in (("kind: a:b", "base"), ("base: models/base", "experts")):
        with pytest.raises(InputError, match=rf"merge\.yaml: {key}: expected .*; found nothing"):
            load_config(write(folder, text)).models()


def test_the_target_is_an_expert_or_a_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(write(folder, YAML))
    assert config.unseen() == ({"news": folder / "models/news"}, folder / "models/mail")
    assert config.unseen("news") == ({"mail": folder / "models/mail"}, folder / "models/news")
    by_path = load_config(write(folder, YAML.replace("target: mail", "target: models/base")))
    assert by_path.unseen()[1] == folder / "models/base"
    assert list(by_path.unseen()[0]) == ["news", "mail"]
    assert by_path.unseen("elsewhere")[1] == Path("elsewhere"), "an option's path starts where the program runs"
    with pytest.raises(InputError, match=r"merge\.yaml: target: expected a file or folder; found 'mial'"):
        load_config(write(folder, YAML.replace("target: mail", "target: mial"))).unseen()


def test_coefficients_fit_the_experts(folder: Path) -> None:
    config = load_config(write(folder, YAML))
    assert config.merge(0.3) == {"news": 0.3, "mail": 0.3}
    assert config.merge([0.1, 0.2]) == {"news": 0.1, "mail": 0.2}
    assert config.merge({"mail": 0.4}) == {"mail": 0.4}
    with pytest.raises(InputError, match=r"--coefficients: expected one number for each of \['news', 'mail'\]"):
        config.merge([0.1])
    with pytest.raises(InputError, match=r"--coefficients: expected one of the experts .*'mial'\. Did you mean 'mail'"):
        config.merge({"mial": 0.4})
    in_file = load_config(write(folder, YAML.replace("{news: 0.5, mail: 1}", "[1, 2, 3]")))
    with pytest.raises(InputError, match=r"merge\.yaml: coefficients: expected one number"):
        in_file.merge()


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "coefficients": st.floats(-9, 9) | st.lists(st.floats(-9, 9), min_size=1),
            "tolerance": st.floats(0, 1, exclude_max=True),
            "batch_size": st.integers(1, 10**6),
            "seed": st.integers(0, 2**40),
            "private": st.lists(st.text("ab*.[] :#'\"", min_size=1)),
            "kind": st.sampled_from(KINDS) | st.text("abc:.-").map("a:{}".format),
        },
    ).filter(bool)
)
def test_values_come_back_as_written(tmp_path_factory: pytest.TempPathFactory, content: dict) -> None:
    # JSON is YAML too, and is written here by another program than the one that reads it.
    config = load_config(write(tmp_path_factory.mktemp("config"), json.dumps(content)))
    assert {key: getattr(config, key) for key in content} == content


BAD_FILES = {
    "unknown key": ("bases: a", r"bases: expected a key among base, .*Did you mean 'base'\?"),
    "far from any key": ("zzz: a", r"zzz: expected a key among .*Check the spelling"),
    "private name": ("_file: a", r"_file: expected a key among"),
    "number as key": ("1: a", r"1: expected a key among"),
    "unknown column": ("columns: {txt: a}", r"columns\.txt: expected a key among text, label.*Did you mean 'text'"),
    "base": ("base: 3", r"base: expected a path; found 3\. Write, for example, base: models/base"),
    "empty base": ("base: ''", r"base: expected a path; found ''"),
    "experts as list": ("experts: [a, b]", r"experts: expected paths by name; found \['a', 'b'\]\. Write, .*\{news:"),
    "expert as list": ("experts: {a: [b]}", r"experts\.a: expected paths by name; found \['b'\]"),
    "number as name": ("experts: {1: b}", r"experts: expected paths by name; found the name 1, which is no text"),
    "no as name": ("data: {no: b}", r"data: expected paths by name of the expert; found the name False"),
    "nothing": ("experts:", r"experts: expected paths by name; found None"),
    "private": ("private: classifier", r"private: expected a list of names or patterns; found 'classifier'"),
    "in private": ("private: [a, 3]", r"private\.1: expected a list of names or patterns; found 3"),
    "coefficients": ("coefficients: half", r"coefficients: expected finite numbers: one, .*; found 'half'"),
    "infinite": ("coefficients: .inf", r"coefficients: expected finite numbers.*; found inf"),
    "truth": ("coefficients: {a: true}", r"coefficients: expected finite numbers.*; found \{'a': True\}"),
    "no coefficients": ("coefficients: []", r"coefficients: expected finite numbers.*; found \[\]"),
    "tolerance": (
        "tolerance: 1",
        r"tolerance: expected a number from 0 to below 1; found 1\. Write, .* tolerance: 0\.1",
    ),
    "tolerance as text": ("tolerance: 10%", r"tolerance: expected a number from 0 to below 1; found '10%'"),
    "batch size": ("batch_size: 0", r"batch_size: expected a whole number from 1 on; found 0"),
    "half a batch": ("batch_size: 1.5", r"batch_size: expected a whole number from 1 on; found 1\.5"),
    "length": ("max_length: '8'", r"max_length: expected a whole number from 1 on; found '8'"),
    "seed": ("seed: true", r"seed: expected a whole number from 0 to below 2\^63; found True"),
    "target": ("target: [a]", r"target: expected the name of an expert or a path; found \['a'\]"),
    "columns": ("columns: text", r"columns: expected names by role .*; found 'text'"),
    "kind": ("kind: 1", r"kind: expected one of \['sequence-classification', 'causal-lm'\], or .*; found 1"),
    "unknown kind": ("kind: casual-lm", r"kind: expected one of .*; found 'casual-lm'\. Did you mean 'causal-lm'\?"),
    "dtype": ("dtype: float31", r"dtype: expected one of .*; found 'float31'\. Did you mean 'float"),
    "tab": ("experts:\n\ta: b", r"expected valid YAML; found character 'tab' .*line 2, column 1\)\. Indent by spaces"),
    "two documents": ("base: a\n---\nbase: b", r"expected valid YAML; found another document \(at line 2"),
    "colon": (
        "base: a: b",
        r"expected valid YAML; found mapping values .*line 1, column 8\)\. Quote a text with a colon",
    ),
    "without end": ("base: " + 4000 * "[", r"expected valid YAML; found sections inside of each other without end"),
    "open quote": ("base: 'a", r"expected valid YAML; found unexpected end .*\. Close the quotation mark"),
    "a tag": ("base: !!python/object:os.system a", r"expected valid YAML; found could not determine a constructor"),
    "an audit's": (
        "model: a\ncomponents: {}",
        r"expected keys among base.*; found model, components, of .* audit\. Run",
    ),
    "a recipe": (
        "merge_method: ties\nmodels: []",
        r"expected keys among .*; found merge_method, of a file for mergekit",
    ),
    "a recipe's key": ("base: a\nmerge_method: ties", r"merge_method: expected a key among .*Did you mean 'method'"),
    "not YAML": ("base: [", r"expected valid YAML; found .*line 1"),
    "twice": ("base: a\nbase: b", r"expected valid YAML; found the key 'base' is given twice \(at line 2, column 1\)"),
    "twice inside": (
        "experts:\n  a: b\n  a: c",
        r"expected valid YAML; found the key 'a' is given twice \(at line 3, column 3\)",
    ),
    "empty file": ("", r"expected keys among base, .*; found nothing\. Begin with base: "),
    "a list": ("- base", r"expected keys among .*; found list"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused(tmp_path: Path, name: str) -> None:
    content, message = BAD_FILES[name]
    with pytest.raises(InputError, match=rf"merge\.yaml: {message}") as caught:
        load_config(write(tmp_path, content))
    assert len(str(caught.value).splitlines()) == 1, "one mistake, one message"


def test_every_mistake_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_config(write(tmp_path, "base: 3\nseed: -1\ntolerance: 2\nexperts: {a: 1, b: 2}"))
    keys = [line.split("merge.yaml: ")[1].split(":")[0] for line in str(caught.value).splitlines()]
    assert keys == ["base", "experts.a", "experts.b", "tolerance", "seed"]


def test_bad_toml_and_bad_places_are_refused(tmp_path: Path) -> None:
    refused = {
        write(
            tmp_path, "base = x", "a.toml"
        ): r"a\.toml: expected valid TOML; found Invalid value \(at line 1, column 8\)",
        write(
            tmp_path, "a = 1\na = 2\n", "b.toml"
        ): r"b\.toml: expected valid TOML; found Cannot overwrite a value \(at line 2, .*Remove one of them",
        write(tmp_path, "{}", "a.json"): r"expected a configuration ending in \.yaml, \.yml, \.toml; found \.json",
        tmp_path / "none.yaml": r"none\.yaml: expected a configuration file; found No such file",
    }
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xff")
    refused[tmp_path / "bytes.yaml"] = r"bytes\.yaml: expected valid YAML; .*Save it as UTF-8"
    for path, message in refused.items():
        with pytest.raises(InputError, match=message):
            load_config(path)


def test_paths_that_lead_nowhere_are_refused(folder: Path) -> None:
    (folder / "mail.jsonl").unlink()
    config = load_config(write(folder, YAML))
    with pytest.raises(InputError, match=r"merge\.yaml: data\.mail: .* found 'mail\.jsonl': nothing at .*relative to"):
        config.problem()
    (folder / "mails.jsonl").touch()
    with pytest.raises(InputError, match=r"data\.mail: .* nothing at .*\. Did you mean 'mails\.jsonl' there\?"):
        config.problem()
    with pytest.raises(InputError, match=r"base: expected a file or folder; found 'bert-base': nothing at"):
        load_config(write(folder, YAML.replace("models/base", "bert-base"))).models()


def test_data_without_an_expert_are_refused(folder: Path) -> None:
    config = load_config(write(folder, YAML.replace("  mail: mail.jsonl", "  mial: mail.jsonl")))
    with pytest.raises(
        InputError, match=r"merge\.yaml: data: expected one of the experts .*'mial'\. Did you mean 'mail'"
    ):
        config.problem()


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunConfig(base="a").base = "b"  # type: ignore[misc]
