"""`diagnostics audit`: the numbers are the library's, and exit status and messages can be relied on."""

import dataclasses
import json
import re
from itertools import islice, permutations
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import diagnostics as dx
from diagnostics import cli
from diagnostics.commands import audit as command
from diagnostics.commands.options import parse_alphas
from diagnostics.results import Verdict
from tests.inputs.tiny_models import causal_lm, word_tokenizer

LETTERS = "abcdef"
WORDS = ["<s>", "[UNK]", "Summarise:", "Translate:", "Both:", *LETTERS, *LETTERS.upper()]
CONFIG = """
model: base
components:
  summarise: {instruction: "Summarise: ", data: summarise.jsonl}
  translate: {instruction: "Translate: ", data: translate.jsonl}
target: {data: both.jsonl}
"""


def examples() -> dict[str, list[tuple[str, str]]]:
    """Texts of three letters, and for each task one answer to all, so that few examples tell its gradient from zero."""
    texts = [" ".join(triple) + " " for triple in islice(permutations(LETTERS, 3), 0, 120, 5)]
    answers = {"summarise": "a", "translate": "A B", "both": "A"}
    return {name: [(x, answer) for x in texts] for name, answer in answers.items()}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    model().save_pretrained(folder / "base")
    tokenizer().save_pretrained(folder / "base")
    for name, pairs in examples().items():
        rows = [json.dumps({"x": x, "y": y}) for x, y in pairs]
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    (folder / "audit.yaml").write_text(CONFIG)
    (folder / "small.yaml").write_text(CONFIG + "examples: 6\nfolds: 4\nalphas: [1, 1]\n")
    return folder


def model() -> torch.nn.Module:
    return causal_lm("llama", vocabulary=len(WORDS), dtype=torch.float32)


def tokenizer() -> object:
    return word_tokenizer(WORDS)


@pytest.fixture(autouse=True)
def inside(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)


def run(*arguments: object) -> Result:
    """Run the command in this process, wide enough that no message is broken."""
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, ["audit", *map(str, arguments)])


def answered(result: Result, status: int = 0) -> Result:
    assert result.exit_code == status, (result.output, result.exception)
    return result


def stored(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def expected() -> dx.CompositionAudit:
    given = examples()
    return dx.audit_composition(
        model(),
        tokenizer(),
        instructions={"summarise": "Summarise: ", "translate": "Translate: "},
        target_examples=given.pop("both"),
        component_examples=given,
    )


def test_the_audit_is_that_of_the_library(expected: dx.CompositionAudit, tmp_path: Path) -> None:
    result = run("audit.yaml", "--json", tmp_path / "a.json")
    answered(result, status=int(expected.verdict is Verdict.REFUTED))
    found = stored(tmp_path / "a.json")["audit"]
    assert found["alphas"] == pytest.approx(expected.alphas, rel=1e-6)
    assert found["relative"] == pytest.approx(expected.relative, rel=1e-6)
    assert list(found["terms"]) == list(expected.terms)
    for name, term in expected.terms.items():
        assert found["terms"][name]["norm"] == pytest.approx(term.norm, rel=1e-5), name
    assert "Audit of the composition" in result.stdout


@pytest.mark.parametrize("verdict", Verdict)
def test_the_status_is_the_verdict(
    verdict: Verdict, expected: dx.CompositionAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = dataclasses.replace(expected, verdict=verdict)
    monkeypatch.setattr(command, "audit_composition", lambda *args, **options: given)
    result = answered(run("audit.yaml"), int(verdict is Verdict.REFUTED))
    assert verdict.upper() in result.stdout


def test_the_limit_decides(tmp_path: Path, files: Path) -> None:
    for limit, status in ((1e-6, 1), (1e6, 0)):
        path = tmp_path / "audit.yaml"
        path.write_text(
            f"{CONFIG}limit: {limit}\n".replace("base", str(files / "base")).replace("data: ", f"data: {files}/")
        )
        answered(run(path, "-q", "--alphas", "-1,-1"), status)


def test_settings_and_options_reach_the_audit(tmp_path: Path) -> None:
    answered(run("small.yaml", "--json", tmp_path / "a.json"))
    found = stored(tmp_path / "a.json")
    assert found["audit"]["alphas"] == [1.0, 1.0]
    assert found["audit"]["folds"] <= 4
    assert [note.split(": ")[1] for note in found["notes"]] == ["6 of 24 examples are used, drawn with seed 0"] * 3
    run("small.yaml", "--alphas", "translate=2,summarise=-1", "--examples", 5, "--json", tmp_path / "b.json")
    found = stored(tmp_path / "b.json")
    assert found["audit"]["alphas"] == [-1.0, 2.0]
    assert "5 of 24" in found["notes"][0]


def test_device_and_type_go_before_those_of_the_file(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[torch.dtype, dict]] = []
    real = command.audit_composition

    def spy(model: torch.nn.Module, *rest: object, **options: object) -> dx.CompositionAudit:
        calls.append((model.dtype, options))
        return real(model, *rest, **options)

    monkeypatch.setattr(command, "audit_composition", spy)
    (files / "half.yaml").write_text(CONFIG + "examples: 6\nalphas: [1, 1]\ndtype: bfloat16\ndevice: cpu\n")
    run("half.yaml", "-q")
    run("half.yaml", "-q", "--dtype", "float64", "--device", "cpu:0")
    assert [(kind, given["dtype"], given["device"]) for kind, given in calls] == [
        (torch.bfloat16, "bfloat16", "cpu"),
        (torch.float64, "float64", "cpu:0"),
    ]


def test_the_page_the_notes_and_the_progress(tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    result = run("small.yaml", "--html", page)
    assert "6 of 24 examples are used" in result.stdout
    assert f"figures in {page}" in result.stdout
    assert "reading the model\nmeasuring gradients\n" in result.stderr
    assert len(result.stderr.splitlines()) <= 12, "a log is not flooded"
    text = page.read_text()
    assert text.count("<svg") >= 2
    assert "6 of 24 examples are used" in text
    quiet = run("small.yaml", "--html", page, "--quiet")
    assert (quiet.stdout, quiet.stderr) == ("", "")


def test_it_can_be_told_to_use_few_examples() -> None:
    result = answered(run("audit.yaml", "--examples", 2))
    assert "too few examples for an interval" in result.stdout
    assert "[" not in re.search(r"UNDECIDED(.*)", result.stdout)[1]


BAD = {
    "no file": (("none.yaml",), r"Error: none\.yaml: expected a configuration file; found No such file"),
    "no argument": ((), r"Missing argument"),
    "another configuration": (
        ("merge.yaml",),
        r"merge\.yaml: expected keys among model, .*; found .*experts.* of a file for diag",
    ),
    "wrong line": (("line.yaml",), r"bad\.jsonl, line 2: y: expected a text; found 3"),
    "wrong word": (("audit.yaml", "--alphas", "most"), r"--alphas: expected numbers; found 'most'"),
    "too few alphas": (
        ("audit.yaml", "--alphas", "1"),
        r"--alphas: expected one number for each of .*; found 1: \[1\.0",
    ),
    "unknown component": (
        ("audit.yaml", "--alphas", "sumarise=1"),
        r"--alphas: .*'sumarise'\. Did you mean 'summarise'",
    ),
    "no examples": (("audit.yaml", "--examples", "0"), r"Invalid value for '--examples'"),
    "no device": (("audit.yaml", "--device", "gpu"), r"device: expected cpu, or cuda where .*; found 'gpu'"),
    "no type": (("audit.yaml", "--dtype", "int8"), r"dtype: expected one of float64, .*; found 'int8'"),
    "no folder": (("audit.yaml", "--html", "no/a.html"), r"--html: expected a file in a folder that is there"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_input_has_status_2_before_a_model_is_read(
    name: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (files / "merge.yaml").write_text("base: base\nexperts: {a: base}\n")
    (files / "bad.jsonl").write_text('{"x": "a", "y": "b"}\n{"x": "a", "y": 3}')
    (files / "line.yaml").write_text(CONFIG.replace("both.jsonl", "bad.jsonl"))
    monkeypatch.setattr(
        "diagnostics.inputs.audit_config.load_language_model", lambda *a, **o: pytest.fail("a model was read first")
    )
    arguments, message = BAD[name]
    result = answered(run(*arguments), 2)
    assert re.search(message, result.stderr), result.stderr
    assert result.stdout == ""


def test_what_the_audit_refuses_has_status_2_too(files: Path) -> None:
    refused = {
        "parameters: ['*.no']": r"parameters: expected names or patterns of the model's parameters; found \['\*\.no'\]",
        "chat_template: true": r"chat template: expected a tokenizer with one; found none",
        "max_length: 3": r"expected an instruction that leaves room",
        "bos: 99": r"bos: expected a token id from 0 to 16; found 99",
    }
    for text, message in refused.items():
        (files / "odd.yaml").write_text(CONFIG + text)
        result = answered(run("odd.yaml"), 2)
        assert re.search(message, result.stderr), result.stderr


def test_alphas_as_they_are_written() -> None:
    assert parse_alphas(None) is None
    assert parse_alphas("nonnegative") == "nonnegative"
    assert parse_alphas("0.5") == [0.5]
    assert parse_alphas("1, -2") == [1.0, -2.0]
    assert parse_alphas("a=1,b=-2") == {"a": 1.0, "b": -2.0}
    for text in ("", "Best", "a=1,2", "nan", "a=1,a=2"):
        with pytest.raises(dx.InputError, match="--alphas: expected"):
            parse_alphas(text)


def test_help_teaches_by_example() -> None:
    shown = answered(run("--help")).stdout
    assert "diagnostics audit audit.yaml --html report.html" in shown
    assert "components:" in shown
    assert "audit" in CliRunner().invoke(cli.app, ["--help"]).stdout
