"""The bases command: groups, files that load again, and an exit status to rely on."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

import diagnostics as dx
from diagnostics import cli
from tests.bases.planted import models, planted

EXPERTS = [f"e{index}" for index in range(6)]
PATHS = ["base.safetensors", *(f"{name}.safetensors" for name in EXPERTS)]


def write(folder: Path, sizes: tuple[int, ...]) -> None:
    base, experts = models(planted(sizes, 0.5, 0.02, 1600), 8)
    for name, params in {"base": base, **experts}.items():
        save_file({key: value.float().contiguous() for key, value in params.items()}, folder / f"{name}.safetensors")


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base and six experts in three groups."""
    write(tmp_path, (3, 2, 1))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: object, columns: int = 160) -> Result:
    """Run the command in this process."""
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(cli.app, ["bases", *map(str, arguments)])


def answered(result: Result, status: int = 0) -> Result:
    assert result.exit_code == status, (result.output, result.exception)
    return result


def test_bases_are_those_of_the_library_and_load_again(files: Path) -> None:
    result = answered(run(*PATHS, "--out", "out", "--json", "found.json", "--html", "page.html"))
    assert "SUPPORTED  6 experts fall into groups: e0, e1 and e2; e3 and e4" in result.stdout
    expected = dx.task_vector_bases(PATHS[0], PATHS[1:])
    read = dx.load_bases("out", PATHS[0])
    assert read.clusters == expected.clusters
    assert all(torch.equal(read.add()[key], value) for key, value in expected.add().items())
    stored = json.loads((files / "found.json").read_text())["bases"]
    assert stored["clusters"]["basis-1"] == ["e0", "e1", "e2"] and stored["clustering"]["verdict"] == "supported"
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "bases.json", "basis-1.safetensors", "basis-2.safetensors", "basis-3.safetensors"
    ]  # fmt: skip
    assert "Spectrum of L" in (files / "page.html").read_text()


def test_no_groups_is_the_answer_no(files: Path) -> None:
    write(files, (1,) * 6)
    result = answered(run(*PATHS), 1)
    assert "REFUTED  6 experts fall into no groups" in result.stdout
    answered(run(*PATHS, "-k", 2))


def test_a_configuration_and_options(files: Path) -> None:
    experts = ", ".join(f"{name}: {name}.safetensors" for name in EXPERTS)
    (files / "merge.yaml").write_text(f"base: base.safetensors\nexperts: {{{experts}}}\n")
    options = ("-k", 2, "--merge", "topk", "--density", 0.5, "--out", "out", "--private", "layer0.*")
    answered(run("merge.yaml", *options))
    read = dx.load_bases("out", "base.safetensors")
    assert (read.k, read.merge, read.density) == (2, "topk", 0.5) and "layer0.weight" not in read.add()


def test_earlier_checkpoints_are_held_against_the_last(files: Path) -> None:
    for name in EXPERTS:
        (files / "models" / name / "checkpoint-1").mkdir(parents=True)
        (files / f"{name}.safetensors").rename(files / "models" / name / "model.safetensors")
        source = files / "models" / name
        (source / "checkpoint-1" / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    folders = [f"models/{name}" for name in EXPERTS]
    result = answered(run("base.safetensors", *folders, "--earlier", "checkpoint-1"))
    assert "checkpoint-1" in result.stdout and "same" in result.stdout
    missing = answered(run("base.safetensors", *folders, "--earlier", "checkpoint-2"), 2)
    assert "models/e0/checkpoint-2" in missing.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((PATHS[0],), "expected one configuration, or BASE and at least one EXPERT"),
        ((*PATHS, "--merge", "average"), "expected one of mean"),
        ((*PATHS, "--merge", "fisher"), "expected data beside fisher"),
        ((*PATHS, "--density", 0.5), "every entry is kept"),
        ((*PATHS, "--out", "e0.safetensors"), "found the file e0.safetensors"),
        ((*PATHS, "-k", 9), "expected at most 6"),
        ((*PATHS, "base.safetensors"), "none called 'base'"),
    ],
)
def test_wrong_input_has_status_2(arguments: tuple, message: str) -> None:
    assert message in " ".join(answered(run(*arguments), 2).stderr.split())


def test_fisher_takes_its_data_from_a_configuration(files: Path) -> None:
    (files / "my_tasks.py").write_text(
        "import torch\nimport diagnostics as dx\nfrom safetensors.torch import load_file\n\n\n"
        "def make(name, *, base, expert, data):\n"
        "    rows = load_file(data)['inputs']\n"
        "    loss = lambda p, b: sum((v - 1).square().sum() for v in p.values()) * b.mean()\n"
        "    return dx.Task(name, loss, [rows])\n"
    )
    save_file({"inputs": torch.ones(2)}, files / "rows.safetensors")
    lines = ["base: base.safetensors", "kind: my_tasks:make", "experts:"]
    lines += [f"  {name}: {name}.safetensors" for name in EXPERTS]
    lines += ["data:", *(f"  {name}: rows.safetensors" for name in EXPERTS)]
    (files / "merge.yaml").write_text("\n".join(lines))
    answered(run("merge.yaml", "--merge", "fisher", "--out", "out"))
    assert dx.load_bases("out", "base.safetensors").merge == "fisher"
