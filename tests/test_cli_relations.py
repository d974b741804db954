"""The relations command: the library's results for every pair, in a table, a page and a file."""

import json
from itertools import combinations
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
    """Linear classifier; the file's tensors are its data."""
    tensors = load_file(data)
    module = torch.nn.Linear(3, 2, bias=False).double()
    return Task.from_module(name, module, torch.nn.functional.cross_entropy, (tensors["inputs"], tensors["targets"]))
'''
NAMES = ("news", "mail", "spam")
CONFIG = f"""
base: base.safetensors
experts: {{{", ".join(f"{name}: {name}.safetensors" for name in NAMES)}}}
data: {{{", ".join(f"{name}: {name}-data.safetensors" for name in NAMES)}}}
kind: relation_tasks:make
tolerance: 0.2
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three linear experts: the second like the first, the third its opposite."""
    folder = tmp_path_factory.mktemp("relations")
    generator = torch.Generator().manual_seed(0)
    weight = torch.tensor([[1.0, 0.5, -1.0], [-1.0, 0.5, 1.0]]).double()
    save_file({"weight": torch.zeros(2, 3).double()}, folder / "base.safetensors")
    for name, scale in zip(NAMES, (1.0, 2.0, -1.0), strict=True):
        inputs = torch.randn(60, 3, generator=generator, dtype=torch.float64)
        targets = (scale * inputs @ weight.T).argmax(1)
        save_file({"inputs": inputs, "targets": targets}, folder / f"{name}-data.safetensors")
        save_file({"weight": scale * weight}, folder / f"{name}.safetensors")
    (folder / "relation_tasks.py").write_text(TASKS)
    (folder / "merge.yaml").write_text(CONFIG)
    return folder


@pytest.fixture(autouse=True)
def importable(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(files))
    monkeypatch.chdir(files)


def run(*arguments: object) -> Result:
    """Run the command in this process, wide enough that no message is broken."""
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, ["relations", *map(str, arguments)])


def answered(result: Result, status: int = 0) -> Result:
    assert result.exit_code == status, (result.output, result.exception)
    return result


def library(**options: object) -> list[dict]:
    """The same results without the command line."""
    paths = {name: f"{name}.safetensors" for name in NAMES}
    data = {name: f"{name}-data.safetensors" for name in NAMES}
    problem = dx.MergeProblem.from_pretrained("base.safetensors", paths, data, kind="relation_tasks:make")
    return [dx.output_relation(problem, *pair, **options).to_dict() for pair in combinations(NAMES, 2)]


def test_every_pair_has_a_relation(tmp_path: Path) -> None:
    result = answered(run("merge.yaml", "--json", tmp_path / "found.json"))
    stored = json.loads((tmp_path / "found.json").read_text())["relations"]
    assert stored == json.loads(json.dumps(library()))
    assert [each["kind"] for each in stored] == ["aligned", "contradictory", "contradictory"]
    assert "1 aligned (news, mail) and 2 contradictory (news, spam; mail, spam)" in result.stdout
    assert "comparing outputs of news and spam" in result.stderr


def test_measured_merges_and_the_tolerance_of_the_file(tmp_path: Path) -> None:
    result = answered(
        run("merge.yaml", "--measure", "--json", tmp_path / "found.json", "--html", tmp_path / "found.html")
    )
    stored = json.loads((tmp_path / "found.json").read_text())["relations"]
    assert stored == json.loads(json.dumps(library(measure=True, tolerance=0.2)))
    assert "80% counts as kept" in result.stdout and "All measured merges" in result.stdout
    page = (tmp_path / "found.html").read_text()
    assert "Heat map. Centred α between experts: from -1 to 1." in page and page.count("<svg") == 2


def test_quiet() -> None:
    result = answered(run("merge.yaml", "--quiet"))
    assert (result.stdout, result.stderr) == ("", "")


BAD = {
    "one expert": ("base: base.safetensors\nexperts: {news: news.safetensors}\n", "experts: expected at least two"),
    "no data": (
        "base: base.safetensors\nexperts: {a: news.safetensors, b: mail.safetensors}\n",
        "data: expected paths",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_input_has_status_2(name: str, tmp_path: Path, files: Path) -> None:
    text, message = BAD[name]
    (tmp_path / "bad.yaml").write_text(text)
    for source in files.glob("*.safetensors"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    result = answered(run(tmp_path / "bad.yaml"), 2)
    assert message in result.stderr and result.stdout == ""


def test_help_teaches_by_example() -> None:
    shown = answered(run("--help")).stdout
    assert "diagnostics relations merge.yaml --measure" in shown and "Exit status 0" in shown
    assert "relations" in CliRunner().invoke(cli.app, ["--help"]).stdout
