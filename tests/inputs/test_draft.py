"""A first configuration from models: what is written loads, runs, and names whatever could not be told."""

import json
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from diagnostics.errors import InputError
from diagnostics.inputs.columns import guess_columns
from diagnostics.inputs.config import RunConfig, load_config
from diagnostics.inputs.draft import OWN_KIND, Draft, draft_config
from diagnostics.inputs.draft_text import draft_text, meanings
from diagnostics.inputs.model_kind import kind_of

from .tiny_models import HEAD, bert, causal_lm, moved, with_lora, write_data, write_folders


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and data side by side: two experts, one with a wider head, an adapter, and language models."""
    folder = write_folders(tmp_path_factory.mktemp("models"))
    moved(bert(0, labels=3), 3).save_pretrained(folder / "wide")
    causal_lm("gpt2").save_pretrained(folder / "lm")
    with_lora(causal_lm("gpt2")).save_pretrained(folder / "chat")
    return folder


def drafted(folders: Path, *names: str, base: str = "base", **data: Path) -> Draft:
    return draft_config(folders / base, [folders / name for name in names], data, folders)


def written(folder: Path, draft: Draft) -> RunConfig:
    path = folder / "written.yaml"
    path.write_text(draft_text(draft), encoding="utf-8")
    return load_config(path)


def test_a_draft_says_what_the_folders_say(folders: Path) -> None:
    draft = drafted(folders, "kind", "mood")
    assert draft.gaps == {}
    assert draft.content == {
        "base": "base",
        "experts": {"kind": "kind", "mood": "mood"},
        "data": {"kind": "kind.jsonl", "mood": "mood.jsonl"},
        "kind": "sequence-classification",
        "coefficients": 0.5,
    }
    config = written(folders, draft)
    assert {key: getattr(config, key) for key in draft.content} == draft.content
    assert set(config.problem().tasks) == {"kind", "mood"}


def test_paths_start_at_the_file(folders: Path) -> None:
    elsewhere = folders / "configurations" / "first"
    elsewhere.mkdir(parents=True)
    draft = draft_config(folders / "base", [folders / "kind"], {}, elsewhere)
    assert (draft.content["base"], draft.content["data"]["kind"]) == ("../../base", "../../kind.jsonl")
    assert written(elsewhere, draft).models()[0].resolve() == (folders / "base").resolve()


def test_heads_that_do_not_fit_are_private(folders: Path) -> None:
    draft = drafted(folders, "kind", "wide", wide=folders / "kind.jsonl")
    assert draft.content["private"] == ["classifier.*"]
    assert "wide differs from the base in classifier.bias, classifier.weight" in draft.remarks["private"]
    problem = written(folders, draft).problem()
    assert set(problem.private["wide"]) == HEAD


def test_models_that_do_not_fit_at_all_are_named_and_not_hidden(folders: Path) -> None:
    draft = drafted(folders, "lm")
    assert "private" not in draft.content
    assert "the models do not fit together" in draft.gaps["private"]


def test_kinds(folders: Path, tmp_path: Path) -> None:
    assert [kind_of(folders / name) for name in ("kind", "lm", "chat")] == [
        "sequence-classification",
        *["causal-lm"] * 2,
    ]
    assert drafted(folders, "chat", base="lm").content["kind"] == "causal-lm"
    with_lora(causal_lm("gpt2"), task_type=None).save_pretrained(folders / "plain")
    assert kind_of(folders / "plain") is None
    assert drafted(folders, "plain", base="lm").content["kind"] == "causal-lm", "its base says it"
    mixed = drafted(folders, "kind", "lm")
    assert mixed.content["kind"] == OWN_KIND
    assert "kind: sequence-classification, lm: causal-lm" in mixed.gaps["kind"]
    assert f"# kind: {OWN_KIND}" not in draft_text(mixed) and f"\nkind: {OWN_KIND}\n" in draft_text(mixed)
    configs = {
        "regression": {"architectures": ["BertForSequenceClassification"], "problem_type": "regression"},
        "one": {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}},
        "encoder": {"architectures": ["BertModel"]},
        "none": {},
    }
    for name, config in configs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        assert kind_of(tmp_path / name) is None, name
    assert kind_of(tmp_path) is None


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a/news", "b/mail"], ["news", "mail"]),
        (["news/checkpoint-1", "mail/checkpoint-1"], ["news", "mail"]),
        (["news/last/model", "mail/last/model"], ["news", "mail"]),
        (["news/v1", "news/v2", "mail/v1"], ["news-v1", "news-v2", "mail-v1"]),
        (["runs/base", "runs/mail"], ["runs-base", "runs-mail"]),
        (["runs/a,b"], ["a-b"]),
        (["one/a,b", "two/a-b", "two/c"], ["one-a-b", "two-a-b", "two-c"]),
    ],
)
def test_experts_are_named_by_what_tells_them_apart(tmp_path: Path, paths: list[str], expected: list[str]) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "base.safetensors")
    for path in paths:
        (tmp_path / path).mkdir(parents=True)
        save_file({"w": torch.ones(2)}, tmp_path / path / "model.safetensors")
    draft = draft_config(tmp_path / "base.safetensors", [tmp_path / path for path in paths], {}, tmp_path)
    assert draft.content["experts"] == dict(zip(expected, paths, strict=True))


def test_data_that_are_not_found_or_not_readable_are_named(folders: Path, tmp_path: Path) -> None:
    gaps = drafted(folders, "kind", "wide").gaps
    assert gaps == {"data": "no examples were found for wide; looked for wide.jsonl beside the models."}
    (tmp_path / "bad.jsonl").write_text('{"text": "good", "label": 1}\n{"text": ""}\n')
    assert "line 2" in drafted(folders, "kind", kind=tmp_path / "bad.jsonl").gaps["columns"]
    unlike = write_data(tmp_path / "unlike.jsonl", keys=("review", "stars_class"))
    assert "the same keys in every file" in drafted(folders, "kind", "mood", mood=unlike).gaps["columns"]
    draft = drafted(folders, "kind", kind=unlike)
    assert draft.content["columns"] == {"text": "review", "label": "stars_class"}
    assert written(folders, draft).problem().tasks["kind"].sizes == (6,)


def test_names_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    (tmp_path / "news").mkdir()
    (tmp_path / "news.safetensors").touch()
    with pytest.raises(InputError, match="expected experts whose names tell them apart"):
        draft_config(tmp_path, [tmp_path / "news", tmp_path / "news.safetensors"], {}, tmp_path)


REFUSED = {
    "twice": (("kind", "kind"), {}, "expected every expert once; found .*kind twice"),
    "unknown name": (
        ("kind",),
        {"knid": "kind.jsonl"},
        r"--data: expected one of the experts \['kind'\].*Did you mean",
    ),
    "no file": (("kind",), {"kind": "none.jsonl"}, r"--data kind: expected a file; found .*none\.jsonl: nothing there"),
    "no model": (("none",), {}, "none: expected a safetensors file or a model folder; found nothing"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused(folders: Path, name: str) -> None:
    experts, data, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        drafted(folders, *experts, **{key: folders / file for key, file in data.items()})


@pytest.mark.parametrize(
    ("kind", "row", "expected"),
    [
        ("sequence-classification", {"text": "a", "label": 1}, {}),
        ("sequence-classification", {"x": "a", "y": 1}, {}),
        ("sequence-classification", {"id": 3, "review": "a"}, {"text": "review"}),
        ("sequence-classification", {"text": "a", "target": "up"}, {"label": "target"}),
        ("causal-lm", {"x": "a", "y": "b"}, {}),
        ("causal-lm", {"id": 1, "prompt": "a", "answer": "b"}, {"x": "prompt", "y": "answer"}),
        ("causal-lm", {"x": "a", "answer": "b"}, {"y": "answer"}),
    ],
)
def test_columns_are_guessed_where_one_key_can_be_meant(tmp_path: Path, kind: str, row: dict, expected: dict) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    assert guess_columns(tmp_path / "a.jsonl", kind) == expected


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("sequence-classification", {"title": "a", "body": "b"}),
        ("sequence-classification", {"text": "a", "class": 1, "target": 2}),
        ("causal-lm", {"a": "a", "b": "b", "c": "c"}),
        ("causal-lm", {"x": "a"}),
    ],
)
def test_columns_are_not_guessed_where_several_can_be_meant(tmp_path: Path, kind: str, row: dict) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    with pytest.raises(InputError, match=r"expected one key that can hold the .*; found \['"):
        guess_columns(tmp_path / "a.jsonl", kind)


def test_every_key_of_a_configuration_is_in_the_file_with_its_meaning(folders: Path) -> None:
    text = draft_text(drafted(folders, "kind", "mood"))
    for key, meaning in meanings().items():
        assert meaning.endswith(".") and not meaning.startswith("Its keys"), f"RunConfig does not document {key}"
        assert " ".join(text.replace("\n# ", " ").split()).count(meaning) == 1, f"the meaning of {key} is not there"
        assert len(re.findall(rf"^(?:# )?{key}:", text, flags=re.MULTILINE)) == 1, f"{key} is not there just once"
    assert list(meanings()) == list(RunConfig.model_fields)
    assert "Its keys: density, seed" in meanings()["options"]


def test_every_key_in_a_comment_can_be_used_as_it_stands(folders: Path) -> None:
    draft = drafted(folders, "kind", "mood")
    (folders / "all.yaml").write_text(re.sub(r"^# (?=[a-z_]+: )", "", draft_text(draft), flags=re.MULTILINE))
    config = load_config(folders / "all.yaml")
    assert config.model_fields_set == set(RunConfig.model_fields)
    assert (config.tolerance, config.seed, config.target) == (0.1, 0, "kind")
    assert config.instructions == {"kind": "Summarise: ", "mood": "Answer: "}


names = st.text(min_size=1).filter(lambda text: text.strip() == text)


@given(st.dictionaries(names, names, min_size=1, max_size=3), st.text())
def test_any_name_comes_back_as_written(tmp_path_factory: pytest.TempPathFactory, experts: dict, gap: str) -> None:
    draft = Draft({"base": "base", "experts": experts}, {"base": gap}, {"kind": gap})
    config = written(tmp_path_factory.mktemp("names"), draft)
    assert (config.base, config.experts) == ("base", experts)
