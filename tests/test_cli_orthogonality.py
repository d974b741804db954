"""The orthogonality command: the library's results from weights alone, and from data where there are some."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

import diagnostics as dx
from diagnostics import cli

TASKS = '''
import torch
from safetensors.torch import load_file
from diagnostics import Task

def make(name, *, base, expert, data):
    """A linear classifier; for "bare" a loss without outputs."""
    tensors = load_file(data)
    module = torch.nn.Linear(4, 2, bias=False).double()
    module.load_state_dict(load_file(base))
    if name == "bare":
        return Task(name, lambda p, b: p["weight"].square().sum() + 0 * b.sum(), [tensors["inputs"]])
    return Task.from_module(name, module, torch.nn.functional.cross_entropy, (tensors["inputs"], tensors["targets"]))
'''
CONFIG = """
base: base.safetensors
experts: {{{experts}}}
data: {{{data}}}
kind: orthogonality_tasks:make
"""
NAMES = ("left", "right", "bare")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two linear experts that use different inputs, and one with a loss only."""
    folder = tmp_path_factory.mktemp("orthogonality")
    generator = torch.Generator().manual_seed(0)
    weight = torch.tensor([[1.0, 1.0, 1.0, 1.0], [-1.0, -1.0, -1.0, -1.0]]).double()
    save_file({"weight": torch.zeros(2, 4).double()}, folder / "base.safetensors")
    parts = {"left": [1.0, 1, 0, 0], "right": [0.0, 0, 1, 1], "bare": [1.0, 0, 1, 0]}
    for name, used in parts.items():
        inputs = torch.randn(40, 4, generator=generator, dtype=torch.float64) * torch.tensor(used).double()
        save_file({"inputs": inputs, "targets": (inputs @ weight.T).argmax(1)}, folder / f"{name}-data.safetensors")
        save_file({"weight": weight * torch.tensor(used).double()}, folder / f"{name}.safetensors")
    (folder / "orthogonality_tasks.py").write_text(TASKS)
    for label, names in {"merge": NAMES[:2], "loss": NAMES[::2]}.items():
        experts = ", ".join(f"{name}: {name}.safetensors" for name in names)
        data = ", ".join(f"{name}: {name}-data.safetensors" for name in names)
        (folder / f"{label}.yaml").write_text(CONFIG.format(experts=experts, data=data))
    return folder


@pytest.fixture(autouse=True)
def importable(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(files))
    monkeypatch.chdir(files)


def run(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "160"}).invoke(cli.app, ["orthogonality", *map(str, arguments)])


def answered(result: Result, status: int = 0) -> Result:
    assert result.exit_code == status, (result.output, result.exception)
    return result


def test_weights_alone_give_angles_and_structure(tmp_path: Path) -> None:
    paths = ["base.safetensors", "left.safetensors", "right.safetensors"]
    result = answered(run(*paths, "--json", tmp_path / "found.json"))
    stored = json.loads((tmp_path / "found.json").read_text())
    assert stored["orthogonality"] == dx.orthogonality(paths[0], paths[1:]).to_dict()
    assert stored["structure"]["left"] == dx.update_structure(paths[0], paths[1]).to_dict()
    assert "disentanglement" not in stored and "How orthogonal are these updates?" in result.stdout


def test_data_give_feature_use_and_disentanglement(tmp_path: Path) -> None:
    result = answered(run("merge.yaml", "--json", tmp_path / "found.json", "--html", tmp_path / "page.html"))
    stored = json.loads((tmp_path / "found.json").read_text())
    (error,) = stored["disentanglement"]
    assert (error["first"], error["second"]) == ("left", "right")
    assert error["values"] == [0.0, 0.0], "inputs of one task are where the other's update is zero"
    assert "Do these tasks stay apart?" in result.stdout and stored["features"]
    assert "Disentanglement" in (tmp_path / "page.html").read_text()


def test_a_grid_can_be_given(tmp_path: Path) -> None:
    answered(run("merge.yaml", "--grid", "0,0.5,1", "--json", tmp_path / "found.json"))
    assert len(json.loads((tmp_path / "found.json").read_text())["disentanglement"][0]["points"]) == 9


def test_what_a_task_does_not_allow_is_noted_and_the_rest_answered(tmp_path: Path) -> None:
    result = answered(run("loss.yaml", "--json", tmp_path / "found.json"))
    stored = json.loads((tmp_path / "found.json").read_text())
    assert len(stored["notes"]) == 2 and all("'bare'" in note for note in stored["notes"])
    assert "disentanglement" not in stored and stored["orthogonality"]["names"] == ["left", "bare"]
    assert "Not measured, disentanglement of every pair" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("base.safetensors",), "expected one configuration, or BASE and at least one EXPERT"),
        (("base.safetensors", "left.safetensors", "--grid", "0,1"), "a configuration with data"),
        (("merge.yaml", "--grid", "0,x"), "--grid: expected different finite numbers"),
        (("merge.yaml", "--grid", "1,1"), "--grid: expected different finite numbers"),
    ],
)
def test_wrong_input_has_status_2(arguments: tuple, message: str) -> None:
    assert message in " ".join(answered(run(*arguments), 2).stderr.split())
