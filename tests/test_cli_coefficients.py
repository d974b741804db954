"""`diagnostics coefficients`: the choice is the library's, and its exit status can be relied on."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

import diagnostics as dx
from diagnostics.commands import coefficients as command
from diagnostics.results import Verdict
from tests.test_cli import answered, files, importable, problem, run, stored  # noqa: F401


def ask(*arguments: object) -> object:
    return run("coefficients", "merge.yaml", *arguments)


@pytest.fixture(scope="module")
def expected(problem: dx.MergeProblem) -> dx.CoefficientChoice:  # noqa: F811
    return dx.best_coefficients(problem)


def test_the_choice_is_that_of_the_library(expected: dx.CoefficientChoice, tmp_path: Path) -> None:
    result = answered(ask("--json", tmp_path / "a.json"), int(expected.verdict is Verdict.REFUTED))
    assert stored(tmp_path / "a.json")["choice"] == json.loads(json.dumps(expected.to_dict()))
    assert "Which coefficients?" in result.stdout and "usual guesses" in result.stdout
    assert "looking at candidates" in result.stderr


def test_options_reach_the_search(problem: dx.MergeProblem, tmp_path: Path) -> None:  # noqa: F811
    options = ("--objective", "worst", "--metric", "loss", "--shared", "--upper", 0.8, "--verify", 2)
    found = dx.best_coefficients(
        problem,
        objective="worst",
        metric="loss",
        shared=True,
        bounds=(0.0, 0.8),
        verify=2,
        at_least={"news": 0.01},
    )
    answered(ask(*options, "--at-least", "news=0.01", "--json", tmp_path / "a.json"))
    told = stored(tmp_path / "a.json")["choice"]
    assert told == json.loads(json.dumps(found.to_dict()))
    assert len(set(told["coefficients"].values())) == 1 and told["evaluations"] == 2


@pytest.mark.parametrize("verdict", Verdict)
def test_the_status_is_the_verdict(
    verdict: Verdict, expected: dx.CoefficientChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = dataclasses.replace(expected, verdict=verdict)
    monkeypatch.setattr(command, "best_coefficients", lambda *args, **options: given)
    result = answered(ask(), int(verdict is Verdict.REFUTED))
    assert verdict.upper() in result.stdout


def test_page_and_quiet(tmp_path: Path) -> None:
    result = ask("--html", tmp_path / "a.html", "--quiet", "--shared", "--verify", 2)
    assert result.exit_code in (0, 1) and (result.stdout, result.stderr) == ("", "")
    page = (tmp_path / "a.html").read_text()
    assert page.count("<svg") == 3 and "where it was evaluated" in page


BAD = {
    "objective": (("--objective", "median"), r"--objective: expected one of \['mean', 'worst'\]; found 'median'"),
    "metric": (("--metric", "accuracy"), r"--metric: expected one of"),
    "upper": (("--upper", "0"), r"--upper: expected a number above 0; found 0"),
    "verify": (("--verify", "-1"), r"--verify"),
    "percent": (("--at-least", "news=95"), r"--at-least: expected shares from above 0 to 1 by name"),
    "no name": (("--at-least", "0.9"), r"--at-least: expected shares"),
    "no number": (("--at-least", "news=a"), r"--at-least: expected numbers; found 'a'"),
    "stranger": (("--at-least", "nws=0.9"), r"--at-least: expected one of the experts .* found 'nws'"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_input_has_status_2_before_a_model_is_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diagnostics.inputs.config.load_problem", lambda *a, **o: pytest.fail("a model was read"))
    arguments, message = BAD[name]
    result = answered(ask(*arguments), 2)
    assert re.search(message, result.stderr.replace("\n", " ")), result.stderr
    assert result.stdout == ""
