"""The command line: what it computes is what the library computes, and its exit status can be relied on."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

import diagnostics as dx
from diagnostics import cli
from diagnostics.commands import bounds, predict
from diagnostics.commands.options import parse_coefficients
from diagnostics.inputs.config import RunConfig
from diagnostics.report.document import Document, Headline
from diagnostics.results import Verdict
from tests.inputs.tiny_models import TEXTS, bert, moved, tokenizer, write_data

ROOT = Path(__file__).parent.parent
TASKS = '''
import torch
from safetensors.torch import load_file
from diagnostics import Task

def make(name, *, base, expert, data):
    """Logistic regression; the file's tensors are its data."""
    tensors = load_file(data)
    module = torch.nn.Linear(3, 2).double()
    examples = (tensors["inputs"], tensors["targets"])
    return Task.from_module(name, module, torch.nn.functional.cross_entropy, examples)
'''
CONFIG = """
base: base.safetensors
experts: {news: news.safetensors, mail: mail.safetensors}
data: {news: news-data.safetensors, mail: mail-data.safetensors}
kind: own_tasks:make
"""


def regression(seed: int, count: int = 60) -> tuple[dict, dict]:
    """Data of a task and the weights that fit it, an optimum of the loss to rounding."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    logits = inputs @ torch.randn(3, 2, generator=generator, dtype=torch.float64)
    targets = torch.distributions.Categorical(logits=logits).sample()
    model = torch.nn.Linear(3, 2).double()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(model(inputs), targets)
        value.backward()
        return value

    optimizer.step(loss)
    weights = {key: value.detach().clone() for key, value in model.named_parameters()}
    return {"inputs": inputs, "targets": targets}, weights


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration, its models and its data."""
    folder = tmp_path_factory.mktemp("merge")
    torch.manual_seed(0)
    save_file({"weight": torch.zeros(2, 3).double(), "bias": torch.zeros(2).double()}, folder / "base.safetensors")
    for seed, name in enumerate(["news", "mail"]):
        data, weights = regression(seed)
        save_file(data, folder / f"{name}-data.safetensors")
        save_file(weights, folder / f"{name}.safetensors")
    (folder / "own_tasks.py").write_text(TASKS)
    (folder / "merge.yaml").write_text(CONFIG)
    (folder / "half.yaml").write_text(CONFIG + "coefficients: 0.5\ntarget: mail\n")
    (folder / "ties.yaml").write_text(CONFIG + "coefficients: 0.5\nmethod: tie\n")
    (folder / "dense.yaml").write_text(CONFIG + "coefficients: 0.5\nmethod: ties\noptions: {density: 2}\n")
    return folder


@pytest.fixture(autouse=True)
def importable(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(files))
    monkeypatch.chdir(files)


def run(*arguments: object) -> Result:
    """Run a command in this process, wide enough that no message is broken."""
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, [str(argument) for argument in arguments])


def answered(result: Result, status: int = 0) -> Result:
    assert result.exit_code == status, (result.output, result.exception)
    return result


def stored(path: Path, **options: object) -> dict:
    return json.loads(path.read_text(), **options)


@pytest.fixture(scope="module")
def problem(files: Path) -> dx.MergeProblem:
    sys.path.insert(0, str(files))
    names = ("news", "mail")
    experts, data = ({name: files / f"{name}{end}" for name in names} for end in (".safetensors", "-data.safetensors"))
    return dx.MergeProblem.from_pretrained(files / "base.safetensors", experts, data, kind="own_tasks:make")


def test_geometry_is_the_same_from_paths_and_from_a_file(files: Path, tmp_path: Path) -> None:
    answered(run("geometry", "base.safetensors", "news.safetensors", "mail.safetensors", "--json", tmp_path / "a.json"))
    result = answered(run("geometry", "merge.yaml", "--json", tmp_path / "b.json"))
    assert "Geometry of task vectors" in result.stdout
    found = [stored(tmp_path / name)["geometry"] for name in ("a.json", "b.json")]
    assert found[0] == found[1]
    experts = [files / "news.safetensors", files / "mail.safetensors"]
    assert found[0] == json.loads(json.dumps(dx.geometry(files / "base.safetensors", experts).to_dict()))


def test_geometry_takes_a_target_and_private_parameters(files: Path, tmp_path: Path) -> None:
    models = [files / f"{name}.safetensors" for name in ("base", "news", "mail")]
    expected = dx.geometry(models[0], {"news": models[1]}, target=models[2], private=["bias"])
    commands = [
        ("base.safetensors", "news.safetensors", "--target", "mail.safetensors", "--private", "bias"),
        ("merge.yaml", "--target", "mail", "--private", "b*"),
        ("half.yaml", "--private", "bias"),
    ]
    for command in commands:
        answered(run("geometry", *command, "--json", tmp_path / "a.json"))
        found = stored(tmp_path / "a.json")["geometry"]
        assert (found["beta"], found["dimension"], found["names"]) == (expected.beta, 6, ["news"]), command


def test_a_prediction_is_that_of_the_library(problem: dx.MergeProblem, tmp_path: Path) -> None:
    merge, wanted = {"news": 0.6, "mail": 0.2}, tmp_path / "a.json"
    expected = dx.predict_merge(problem, merge, tolerance=0.3, layers=True)
    result = run("predict", "merge.yaml", "-c", "news=0.6,mail=0.2", "--tolerance", 0.3, "--json", wanted)
    answered(result, status=int(expected.verdict is Verdict.REFUTED))
    assert stored(wanted)["prediction"] == json.loads(json.dumps(expected.to_dict()))


@pytest.mark.parametrize(
    ("coefficients", "tolerance", "status"), [("1,0", 0.9, 0), ("-1.0", 0.0, 1), ("mail=-2,news=-2", 0.1, 1)]
)
def test_the_status_of_a_prediction_is_its_verdict(coefficients: str, tolerance: float, status: int) -> None:
    result = run("predict", "merge.yaml", "--coefficients", coefficients, "--tolerance", tolerance)
    assert ("REFUTED" in answered(result, status).stdout) == bool(status)


@pytest.mark.parametrize(
    ("options", "failing"),
    [
        ((), {"refuted"}),
        (("--fail-on", "refuted"), {"refuted"}),
        (("--fail-on", "undecided"), {"refuted", "undecided"}),
        (("--fail-on", "never"), set()),
    ],
)
def test_a_gate_fails_on_what_it_is_told_to(
    options: tuple[str, ...], failing: set[str], problem: dx.MergeProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    for verdict in Verdict:
        given = dataclasses.replace(dx.predict_merge(problem, 0.5), verdict=verdict)
        monkeypatch.setattr(predict, "predict_merge", lambda *args, given=given, **options: given)
        answered(run("predict", "half.yaml", "--quiet", *options), int(verdict.value in failing))


def bounds_of(path: Path) -> dict[str, list[str]]:
    """Claims by merge."""
    groups = stored(path)["bounds"]
    return {group["merge"]: [report["claim"] for report in group["tasks"].values()] for group in groups}


def test_bounds_are_those_that_were_asked_for(problem: dx.MergeProblem, tmp_path: Path) -> None:
    wanted = tmp_path / "a.json"
    commands = {
        ("half.yaml",): {"news + mail at 0.5": 2, "mail unseen": 1},
        ("half.yaml", "--negate", "news"): {"news at -0.5": 1},
        ("merge.yaml", "--negate", "news"): {"news at -1": 1},
        ("merge.yaml", "--negate", "mail", "-c", "mail=0.4"): {"mail at -0.4": 1},
        ("merge.yaml", "--target", "news"): {"news unseen": 1},
        ("merge.yaml", "-c", "0.7,0.3"): {"0.7 news + 0.3 mail": 2},
    }
    for command, expected in commands.items():
        answered(run("bounds", *command, "--json", wanted))
        assert {merge: len(claims) for merge, claims in bounds_of(wanted).items()} == expected, command
    last = stored(wanted)["bounds"][0]["tasks"]["mail"]
    report = dx.addition_bounds(problem, {"news": 0.7, "mail": 0.3})["mail"]
    assert (last["gap"], last["holds"]) == (report.gap, report.holds)
    assert last["bound"] == pytest.approx(report.bound, rel=1e-2)


def test_a_broken_bound_is_a_no(problem: dx.MergeProblem, monkeypatch: pytest.MonkeyPatch) -> None:
    report = dx.addition_bounds(problem, 0.5)["news"]
    for holds, status in ((True, 0), (None, 0), (False, 1)):
        given = {"news": dataclasses.replace(report, holds=holds), "mail": report}
        monkeypatch.setattr(bounds, "addition_bounds", lambda *args, given=given, **options: given)
        answered(run("bounds", "merge.yaml", "-c", "0.5"), status)


def test_pages_and_quiet(tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    result = answered(run("predict", "half.yaml", "--tolerance", 0.9, "--html", page, "--quiet"))
    assert (result.stdout, result.stderr) == ("", "")
    assert page.read_text().startswith("<!doctype html>") or page.read_text().startswith("<!DOCTYPE html>")
    loud = answered(run("predict", "half.yaml", "--tolerance", 0.9, "--html", page))
    assert f"figures in {page}" in loud.stdout
    assert "reading models and data\npredicting news + mail at 0.5" in loud.stderr


def test_the_demo_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_demo(*, quick: bool, progress: object) -> tuple[Document, dict]:
        progress(f"quick is {quick}")
        return Document("The demo", Headline(None, "It ran.", "Surely."), ()), {"score": 1}

    module = type(sys)("diagnostics.demo.run")
    module.run_demo = run_demo
    monkeypatch.setitem(sys.modules, "diagnostics.demo.run", module)
    result = answered(run("demo", "--quick", "--json", tmp_path / "a.json"))
    assert "It ran." in result.stdout
    assert "quick is True" in result.stderr
    assert stored(tmp_path / "a.json")["score"] == 1


def test_a_demo_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    result = answered(run("demo", "--quick"), 2)
    assert "pip install 'task-arithmetic-diagnostics[demo]'" in result.stderr


def test_a_page_without_its_extra_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.setattr(predict, "load_run", lambda *args: pytest.fail("work was begun"))
    result = answered(run("predict", "half.yaml", "--html", "a.html"), 2)
    assert "pip install 'task-arithmetic-diagnostics[report]'" in result.stderr


BAD = {
    "no such file": (("predict", "none.yaml"), r"Error: none\.yaml: expected a configuration file; found No such file"),
    "no such model": (("geometry", "base.safetensors", "none"), r"Error: none: expected a safetensors file"),
    "one model": (("geometry", "base.safetensors"), r"expected one configuration, or BASE and at least one EXPERT"),
    "file and models": (("geometry", "half.yaml", "news.safetensors"), r"expected one configuration, or BASE"),
    "nothing": (("geometry",), r"Missing argument"),
    "unknown option": (("geometry", "half.yaml", "--jsn", "a"), r"No such option"),
    "unknown command": (("predikt", "half.yaml"), r"No such command 'predikt'"),
    "not a number": (("predict", "half.yaml", "--tolerance", "much"), r"Invalid value for '--tolerance'"),
    "tolerance": (("predict", "half.yaml", "--tolerance", "1"), r"--tolerance: expected a share from 0 to below 1"),
    "no coefficients": (("predict", "merge.yaml"), r"merge\.yaml: coefficients: expected .*; found nothing"),
    "no coefficients to bound": (("bounds", "merge.yaml"), r"coefficients: expected .*; found nothing"),
    "coefficients": (("predict", "merge.yaml", "-c", "a=b"), r"--coefficients: expected numbers; found 'b' in 'a=b'"),
    "unknown expert": (("predict", "merge.yaml", "-c", "nws=1"), r"one of the experts .*; found 'nws'\. Did you mean"),
    "unknown negated": (("bounds", "merge.yaml", "--negate", "mial"), r"--negate: expected one of the experts"),
    "negated without a coefficient": (
        ("bounds", "merge.yaml", "--negate", "mail", "-c", "news=1"),
        r"--negate: expected a coefficient for 'mail'",
    ),
    "unknown target": (("bounds", "merge.yaml", "--target", "mial"), r"--target: expected one of the experts"),
    "two questions": (("bounds", "merge.yaml", "--target", "mail", "--negate", "news"), r"choose one of them"),
    "method": (
        ("predict", "ties.yaml"),
        r"ties\.yaml: method: expected .*; found 'tie'\. Did you mean 'ties'\?\n",
    ),
    "density": (
        ("predict", "dense.yaml"),
        r"dense\.yaml: density of news: expected a number above 0 and up to 1; found 2",
    ),
    "unknown gate": (("predict", "half.yaml", "--fail-on", "refute"), r"Invalid value for '--fail-on'.*'refute'"),
    "no folder": (
        ("predict", "half.yaml", "--json", "no/a.json"),
        r"--json: expected a file in a folder that is there",
    ),
    "no folder for a page": (("demo", "--html", "no/a.html"), r"--html: expected a file in a folder .*Create no first"),
    "a folder": (("geometry", "half.yaml", "--html", "."), r"--html: expected a file; found the folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_input_has_status_2_and_a_message(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunConfig, "problem", lambda self: pytest.fail("models were read first"))
    command, message = BAD[name]
    result = answered(run(*command), 2)
    assert re.search(message, result.stderr), result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_a_message_is_one_unbroken_paragraph(tmp_path: Path) -> None:
    path = tmp_path / ("long " * 40) / "merge.yaml"
    result = CliRunner(env={"COLUMNS": "40"}).invoke(cli.app, ["predict", str(path)])
    assert str(path) in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_message_cannot_move_the_cursor() -> None:
    assert "\x1b" not in answered(run("predict", "a\x1b[2Jb.yaml"), 2).stderr


def test_coefficients_as_they_are_written() -> None:
    assert parse_coefficients(None) is None
    assert parse_coefficients("-0.5") == -0.5
    assert parse_coefficients("1,2e-1") == [1.0, 0.2]
    assert parse_coefficients("a=b=0.5, c=1") == {"a=b": 0.5, "c": 1.0}
    for text in ("", "a", "a=", "1,", "nan", "a=inf", "a=1,2", "a=1,a=2"):
        with pytest.raises(dx.InputError, match="--coefficients: expected"):
            parse_coefficients(text)


def test_texts_that_are_cut_are_noted_everywhere(tmp_path: Path) -> None:
    bert(0).save_pretrained(tmp_path / "base")
    tokenizer().save_pretrained(tmp_path / "base")
    moved(bert(0, labels=3), 1).save_pretrained(tmp_path / "news")
    write_data(tmp_path / "news.jsonl", texts=["good " * 30, *TEXTS[1:]])
    config = "base: base\nexperts: {news: news}\ndata: {news: news.jsonl}\ncoefficients: 1\n"
    (tmp_path / "merge.yaml").write_text(config)
    result = answered(run("predict", tmp_path / "merge.yaml", "--json", tmp_path / "a.json"))
    note = "1 of 6 texts are cut to 12 tokens (max_length)"
    assert note in result.stdout
    assert note in result.stderr
    cut, private = stored(tmp_path / "a.json")["notes"]
    assert note in cut
    assert private == "Private to their tasks and not merged: classifier.bias, classifier.weight"


def spawn(*arguments: object, cwd: Path, processes: int = 1) -> subprocess.CompletedProcess:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(cwd), str(ROOT)]),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(torchrun if processes > 1 else []), "-m", "diagnostics", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=400)


def test_the_program_itself(files: Path) -> None:
    done = spawn("predict", "half.yaml", "-c", "-3", cwd=files)
    assert done.returncode == 1, done.stderr
    assert "REFUTED" in done.stdout
    assert "reading models and data" in done.stderr
    wrong = spawn("predict", "none.yaml", cwd=files)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert (
        wrong.stderr
        == "Error: none.yaml: expected a configuration file; found No such file or directory. Check the path.\n"
    )


def test_two_processes_give_one_answer(files: Path, tmp_path: Path) -> None:
    """Under torchrun: one report and one file, the same as from one process."""
    answered(run("predict", "half.yaml", "--json", tmp_path / "one.json"), status=1)
    done = spawn("predict", "half.yaml", "--json", tmp_path / "two.json", cwd=files, processes=2)
    assert done.returncode == 1, done.stderr[-3000:]
    assert done.stdout.count("Made with") == 1 and done.stderr.count("reading models and data") == 1
    one, two = (stored(tmp_path / f"{name}.json")["prediction"]["tasks"] for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        assert two[name]["loss"]["value"] == pytest.approx(one[name]["loss"]["value"], rel=1e-9)


def test_a_message_of_several_processes_says_whose_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    result = run("predict", "none.yaml")
    assert result.exit_code == 2 and result.stderr.startswith("[process 1] Error: none.yaml: expected a configuration")


def test_a_fault_of_the_program_is_not_the_answer_no(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(predict, "predict_merge", fail)
    monkeypatch.setattr(sys, "argv", ["diagnostics", "predict", "half.yaml"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 3
    assert "ZeroDivisionError: a fault" in capsys.readouterr().err


def test_help_teaches_by_example() -> None:
    for command in ("geometry", "bounds", "predict", "demo"):
        assert f"diagnostics {command}" in answered(run(command, "--help")).stdout
        assert command in answered(run("--help")).stdout
    assert answered(run("--version")).stdout == f"diagnostics {dx.__version__}\n"
