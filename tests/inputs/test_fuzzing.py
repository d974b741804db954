"""Broken files that fuzzing found readers to fail on, each refused now by a message."""

import json
from pathlib import Path

import pytest

from benchmarks.fuzzing.readers import READERS
from benchmarks.fuzzing.samples import TEMPLATE
from benchmarks.fuzzing.study import outcome

ADAPTER = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
BASES = {
    **{"format": 1, "names": ["a", "b", "c"], "clusters": {"basis-1": ["a", "b"], "basis-2": ["c"]}, "merge": "mean"},
    **{"density": None, "threshold": 0.5, "similarity": [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], "notes": []},
}
LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{k}: &{k} [{', '.join([f'*{j}'] * 9)}]\n" for j, k in zip("abcdefghi", "bcdefghij", strict=True)
)
DEEP = "[" * 100_000


def shard(name: str) -> str:
    """An index with one shard of this name."""
    return json.dumps({"weight_map": {"net.steps": name}})


def adapter(**options: object) -> str:
    """The configuration of an adapter."""
    return json.dumps({**ADAPTER, **options})


def bases(**changes: object) -> str:
    """An index of bases."""
    return json.dumps({**BASES, **changes})


RUN, INDEX, CONFIG = "run.yaml", "model.safetensors.index.json", "base/config.json"
LORA, TOKENIZER = "adapter/adapter_config.json", "tokenizer.json"
# Reader, file, and content by what was wrong.
FOUND = {
    "a number that is none": ("configuration, YAML", RUN, "base: a\noptions: {scale: .nan}"),
    "a number beyond all": ("configuration, YAML", RUN, f"base: a\ncoefficients: {10**400}"),
    "a seed beyond all": ("configuration, YAML", RUN, f"base: a\nseed: {10**400}"),
    "half a character": ("configuration, YAML", RUN, 'base: "\\ud800"'),
    "a bomb of references": ("configuration, YAML", RUN, f"{LAUGHS}base: *j"),
    "a list that holds itself": ("configuration, YAML", RUN, "base: &a [*a]"),
    "an entry of the wrong kind": ("audit", "audit.yaml", "{model: a, components: {}, target: {}, parameters: [1]}"),
    "architectures that are a number": ("mergekit recipe", CONFIG, '{"architectures": 3}'),
    "architectures of numbers": ("mergekit recipe", CONFIG, '{"architectures": [3]}'),
    "a model's configuration that is a list": ("mergekit recipe", CONFIG, "[]"),
    "a model's configuration cut": ("mergekit recipe", CONFIG, "{"),
    "a model's configuration nested for ever": ("mergekit recipe", CONFIG, DEEP),
    "a shard with a zero byte": ("index and shards", INDEX, shard("a\0b")),
    "a shard with half a character": ("index and shards", INDEX, shard("\ud800")),
    "a shard of a long name": ("index and shards", INDEX, shard("x" * 5000)),
    "a shard outside": ("index and shards", INDEX, shard("../outside.safetensors")),
    "patterns that are a list": ("adapter", LORA, adapter(rank_pattern=[1])),
    "patterns that are a number": ("adapter", LORA, adapter(alpha_pattern=1.5)),
    "a pattern that is none": ("adapter", LORA, adapter(rank_pattern={"(": 2})),
    "a pattern that is tried for ever": ("adapter", LORA, adapter(rank_pattern={"(a+)+$": 2})),
    "saved modules that are a number": ("adapter", LORA, adapter(modules_to_save=1)),
    "a rank beyond all": ("adapter", LORA, adapter(r=10**400)),
    "experts that are numbers": ("bases", "bases.json", bases(names=[1, 2, 3])),
    "a cluster that is a number": ("bases", "bases.json", bases(clusters={"basis-1": 3})),
    "a basis outside": ("bases", "bases.json", bases(clusters={"../outside": ["a", "b"], "basis-2": ["c"]})),
    "a ragged table": ("bases", "bases.json", bases(similarity=[[1.0], [1.0, 0.0], [0.0, 1.0]])),
    "a line nested for ever": ("texts", "data.jsonl", f'{{"text": {DEEP}'),
    "a text with half a character": ("pairs", "data.jsonl", '{"x": "\\ud800", "y": "a"}'),
    "a vocabulary of numbers": ("tokenizer files", TOKENIZER, '{"model": {"vocab": {"a": "b"}}}'),
    "a vocabulary that is a text": ("tokenizer files", TOKENIZER, '{"model": {"vocab": "ab"}}'),
    "a template cut": ("chat template", "template", "{{ messages"),
    "a template of unknown things": ("chat template", "template", "{{ messages[9].content.x }}"),
    "a template that refuses": ("chat template", "template", "{{ raise_exception('no system') }}"),
    "a template that divides by zero": ("chat template", "template", "{{ 1 / 0 }}"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of valid files for each reader."""
    homes = {label: tmp_path_factory.mktemp("reader") / "work" for label in READERS}
    for label, home in homes.items():
        home.mkdir()
        READERS[label].write(home)
    return homes


@pytest.mark.parametrize("case", FOUND)
def test_found(case: str, folders: dict[str, Path]) -> None:
    label, name, content = FOUND[case]
    path = folders[label] / name
    whole = path.read_bytes()
    assert outcome(READERS[label], folders[label]) == "accepted", "what is not broken is read"
    path.write_text(content, encoding="utf-8")
    try:
        assert outcome(READERS[label], folders[label]) == "refused"
    finally:
        path.write_bytes(whole)


def test_the_outcome_of_a_reader_that_fails_is_a_failure(folders: dict[str, Path]) -> None:
    reader = READERS["chat template"]
    broken = type(reader)(reader.write, reader.broken, lambda folder: 1 / 0)
    assert outcome(broken, folders["chat template"]).startswith("failed: ZeroDivisionError")
    assert TEMPLATE in (folders["chat template"] / "template").read_bytes()
