"""Problems from folders whose data files have no labels, in Python and on the command line."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification
from typer.testing import CliRunner

from diagnostics import cli, predict_merge
from diagnostics.errors import InputError
from tests.inputs.tiny_models import LABELS, TEXTS, bert, load, moved, tokenizer, write_data, write_folders


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """The usual folders; ``kind`` and ``wide``, with five classes, have no labels."""
    write_folders(tmp_path)
    moved(bert(0, labels=5), 3, scale=0.5).save_pretrained(tmp_path / "wide")
    for name in ("kind", "wide"):
        write_rows(tmp_path / f"{name}.jsonl", [{"id": i, "text": text} for i, text in enumerate(TEXTS)])
    return tmp_path


def predicted(folder: Path) -> list[int]:
    """Classes that a model predicts, one text at a time."""
    model, encode = AutoModelForSequenceClassification.from_pretrained(folder).double().eval(), tokenizer()
    with torch.no_grad():
        return [int(model(**encode(text, return_tensors="pt")).logits.argmax()) for text in TEXTS]


def test_the_own_expert_labels_and_given_labels_are_kept(folders: Path) -> None:
    problem = load(folders, "kind", "mood", "wide", batch_size=4)
    expected = {"kind": predicted(folders / "kind"), "mood": LABELS, "wide": predicted(folders / "wide")}
    for name, classes in expected.items():
        task = problem.tasks[name]
        assert torch.cat([batch[1] for batch in task.batches]).tolist() == classes
        assert len(task.notes) == (name != "mood"), task.notes
    assert problem.tasks["kind"].score(problem.experts["kind"]) == 1
    assert set(expected["wide"]) != set(expected["kind"]), "each expert labels its own task"


def test_the_problem_is_that_of_a_file_with_the_predicted_classes(folders: Path) -> None:
    without = load(folders)
    write_data(folders / "kind.jsonl", labels=predicted(folders / "kind"))
    told = load(folders)
    merged = without.merged(0.5)
    assert without.tasks["kind"].mean_loss(merged) == pytest.approx(told.tasks["kind"].mean_loss(merged), rel=1e-6)
    assert without.tasks["kind"].score(merged) == told.tasks["kind"].score(merged)
    assert without.tasks["kind"].constant_loss == pytest.approx(told.tasks["kind"].constant_loss)


def test_labels_in_some_lines_are_refused_by_file_and_line(folders: Path) -> None:
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]
    for lacking in (0, 3):
        some = [{"text": row["text"]} if i == lacking else row for i, row in enumerate(rows)]
        write_rows(folders / "kind.jsonl", some)
        message = rf"kind\.jsonl, line {lacking + 1}: expected the key 'label'; found only \['text'\]\. 5 of 6 lines"
        with pytest.raises(InputError, match=message):
            load(folders)


def test_a_merge_is_predicted_without_labels(folders: Path) -> None:
    found = predict_merge(load(folders, "kind", "wide"), 0.5)
    assert set(found.tasks) == {"kind", "wide"}
    for task in found.tasks.values():
        assert task.expert_score == 1 and task.retention.value == pytest.approx(task.score.value)


def test_the_command_line_works_through_it(folders: Path) -> None:
    shutil.copy(folders / "kind.jsonl", folders / "mood.jsonl")
    config = {"base": "base", "kind": "sequence-classification", "coefficients": 0.5}
    config |= {"experts": {n: n for n in ("kind", "mood")}, "data": {n: f"{n}.jsonl" for n in ("kind", "mood")}}
    (folders / "merge.yaml").write_text(json.dumps(config))  # JSON is YAML
    output = folders / "out.json"
    runner = CliRunner(env={"COLUMNS": "200"})
    result = runner.invoke(cli.app, ["predict", str(folders / "merge.yaml"), "--json", str(output)])
    assert result.exit_code in (0, 1) and output.is_file(), (result.output, result.exception)
    assert set(json.loads(output.read_text())["prediction"]["tasks"]) == {"kind", "mood"}
    write_rows(folders / "mood.jsonl", [{"text": "good", "label": 1}, {"text": "bad"}])
    refused = runner.invoke(cli.app, ["predict", str(folders / "merge.yaml")])
    assert refused.exit_code == 2 and "mood.jsonl, line 2: expected the key 'label'" in " ".join(refused.output.split())
