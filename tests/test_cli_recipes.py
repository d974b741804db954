"""A mergekit recipe as it stands, given to the commands that read one."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import diagnostics as dx
from diagnostics import cli
from tests.inputs.tiny_models import load, write_folders

RECIPE = {
    "merge_method": "ties",
    "base_model": "base",
    "models": [
        {"model": "kind", "parameters": {"weight": 0.7, "density": 0.5}},
        {"model": "mood", "parameters": {"weight": 0.4, "density": 0.9}},
    ],
    "parameters": {"normalize": False},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folders(tmp_path_factory.mktemp("models"))


@pytest.fixture
def recipe(folders: Path) -> Path:
    path = folders / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def data(folders: Path, *names: str) -> list[str]:
    return [part for name in names for part in ("--data", f"{name}={folders / name}.jsonl")]


def test_a_recipe_is_predicted_as_it_stands(folders: Path, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    code, printed = run("predict", recipe, *data(folders, "kind", "mood"), "--json", out)
    assert code in (0, 1), printed
    settings = {"method": "ties", "density": {"kind": 0.5, "mood": 0.9}, "convention": "mergekit", "normalize": False}
    wanted = dx.predict_merge(load(folders), {"kind": 0.7, "mood": 0.4}, **settings, layers=True)
    found = json.loads(out.read_text())["prediction"]
    assert found["method"] == "ties" and found["coefficients"] == {"kind": 0.7, "mood": 0.4}
    for name, task in wanted.tasks.items():
        assert found["tasks"][name]["loss"]["value"] == pytest.approx(task.loss.value, rel=1e-5)


def test_a_recipe_is_checked_as_it_stands(folders: Path, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    code, printed = run("check", recipe, "--json", out)
    alone = tmp_path / "alone.json"
    wanted, _ = run("check", folders / "base", folders / "kind", folders / "mood", "--json", alone)
    assert code == wanted, printed
    assert json.loads(out.read_text())["findings"] == json.loads(alone.read_text())["findings"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "--data kind=FILE.jsonl --data mood=FILE.jsonl"),
        (("kind",), "found none for ['mood']"),
        (("kind", "mood", "mod"), "Did you mean 'mood'?"),
    ],
)
def test_a_recipe_needs_data_for_its_experts_and_no_others(
    folders: Path, recipe: Path, names: tuple[str, ...], message: str
) -> None:
    code, printed = run("predict", recipe, *data(folders, *names))
    assert code == 2 and message in printed.replace("\n", " ")


def test_data_beside_a_configuration_is_refused(folders: Path) -> None:
    config = folders / "run.yaml"
    config.write_text("base: base\nexperts: {kind: kind}\n")
    code, printed = run("predict", config, *data(folders, "kind"))
    assert code == 2 and "expected a mergekit recipe" in printed


def test_a_recipe_without_a_base_cannot_be_predicted(folders: Path) -> None:
    path = folders / "linear.yaml"
    models = [{"model": name, "parameters": {"weight": 0.5}} for name in ("kind", "mood")]
    path.write_text(yaml.safe_dump({"merge_method": "linear", "models": models}))
    for command in (["predict", path, *data(folders, "kind", "mood")], ["check", path]):
        code, printed = run(*command)
        assert code == 2 and "base_model" in printed
