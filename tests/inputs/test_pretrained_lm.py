"""Merge problems of causal language models in folders."""

import json
from pathlib import Path

import pytest
import torch

import diagnostics as dx
from diagnostics.errors import InputError
from tests.inputs.tiny_models import causal_lm, moved, with_lora, word_tokenizer

WORDS = ["<s>", "[UNK]", "Say:", "a", "good", "bad", "film"]
PAIRS = {
    "first": [("a good film", "good"), ("a bad film", "bad"), ("film", "a film")],
    "second": [("good", "bad"), ("bad", "good film"), ("a film", "a")],
}


def language_model():
    return causal_lm("llama", vocabulary=len(WORDS)).float()


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A base with its tokenizer, one whole expert, one LoRA expert, and data for both."""
    words = word_tokenizer(WORDS)
    language_model().save_pretrained(tmp_path / "base")
    words.save_pretrained(tmp_path / "base")
    moved(language_model(), 1).save_pretrained(tmp_path / "first")
    adapted = with_lora(language_model())
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            value += 0.05 * torch.randn_like(value) if "lora_B" in name else 0
    adapted.save_pretrained(tmp_path / "second")
    for name, pairs in PAIRS.items():
        rows = [json.dumps({"x": x, "y": y}) for x, y in pairs]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    return tmp_path


def load(folder: Path, **options: object) -> dx.MergeProblem:
    experts = {name: folder / name for name in PAIRS}
    data = {name: folder / f"{name}.jsonl" for name in PAIRS}
    return dx.MergeProblem.from_pretrained(folder / "base", experts, data, kind="causal-lm", **options)


def test_losses_are_those_of_the_tasks(folders):
    problem = load(folders, instructions={"first": "Say:"})
    words = word_tokenizer(WORDS)
    for name, instruction in {"first": "Say:", "second": ""}.items():
        task = dx.Task.from_causal_lm(name, language_model(), words, PAIRS[name], instruction=instruction)
        point = problem.experts[name]
        assert problem.tasks[name].mean_loss(point) == pytest.approx(task.mean_loss(point), rel=1e-6)


def test_outputs_and_scores_are_those_of_the_tasks(folders):
    problem = load(folders, instructions={"first": "Say:"})
    words = word_tokenizer(WORDS)
    for name, instruction in {"first": "Say:", "second": ""}.items():
        task = dx.Task.from_causal_lm(name, language_model(), words, PAIRS[name], instruction=instruction)
        point = problem.merged(0.5)
        for found, expected in zip(problem.tasks[name].outputs(point), task.outputs(point), strict=True):
            torch.testing.assert_close(found, expected)
        assert problem.tasks[name].score(point) == task.score(point)


def test_prediction_of_a_language_model(folders):
    # Every word as an answer to each x: where one is the greedy choice the others are not.
    rows = [{"x": x, "y": y} for x in ("a film", "good", "bad bad", "a good") for y in WORDS[2:]]
    (folders / "first.jsonl").write_text("\n".join(map(json.dumps, rows)))
    problem = load(folders)
    found = dx.predict_merge(problem, {"first": 1.0}).tasks["first"]
    expert = problem.experts["first"]
    assert 0 < problem.tasks["first"].score(expert) < 1
    assert found.loss.value == pytest.approx(problem.tasks["first"].mean_loss(expert), rel=1e-4)
    assert found.score.value == pytest.approx(problem.tasks["first"].score(expert))


def test_bounds_of_a_language_model(folders):
    reports = dx.addition_bounds(load(folders), 0.5)
    assert set(reports) == set(PAIRS) and all(report.holds for report in reports.values())


def test_names_of_instructions_are_checked(folders):
    with pytest.raises(InputError, match=r"instructions: expected names of experts.*found \['third'\]"):
        load(folders, instructions={"third": "Say:"})


def test_another_tokenizer_is_refused(folders):
    word_tokenizer([*WORDS[:-2], *reversed(WORDS[-2:])]).save_pretrained(folders / "first")
    with pytest.raises(InputError, match=r"the base's tokenizer; found 2 tokens with other ids"):
        load(folders)
