"""The derivations command: a list, one in full, checks, and a user's own claims."""

import json

import pytest
from typer.testing import CliRunner

from diagnostics.cli import app
from diagnostics.theory.derivations import registry

run = CliRunner()

WRONG = """
import numpy as np
from diagnostics.derivations import Claim, Derivation, Kind, Mutant, Relation
from diagnostics.testing import merges

def distance(merge):
    return ((np.mean(merge.vectors, 0) - merge.vectors[0]) ** 2).sum()

DERIVATIONS = [
    Derivation(
        "guess", "A guess.", "me", Kind.CLAIM,
        Claim("x", distance, lambda m: m.C * (1 + m.epsilon), Relation.AT_MOST, merges),
        (Mutant("half", right=lambda m: m.C * (1 + m.epsilon) / 2),),
    )
]
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.setattr(registry, "_added", {})


def test_the_list_has_every_claim_and_says_which_fail():
    found = run.invoke(app, ["derivations"])
    assert found.exit_code == 0
    assert "2.10-never-worse" in found.stdout and "fail as stated: 1.5" in " ".join(found.stdout.split())


def test_one_is_shown_in_full():
    found = run.invoke(app, ["derivations", "2.6"])
    text = " ".join(found.stdout.split())
    assert found.exit_code == 0 and "It fails as stated" in text and "L(w) = w⁴" in text


def test_a_check_counts_cases_and_wrong_forms(tmp_path):
    page, results = tmp_path / "page.html", tmp_path / "results.json"
    arguments = ["derivations", "--check", "2.6", "2.4-closed", "--examples", "200"]
    found = run.invoke(app, [*arguments, "--json", str(results), "--html", str(page)])
    assert found.exit_code == 0, found.output
    assert "SUPPORTED" in found.stdout and "2 derivations: 2 supported." in found.stdout
    checks = json.loads(results.read_text())["checks"]
    assert [check["id"] for check in checks] == ["2.6", "2.4-closed"]
    assert checks[0]["published"]["verdict"] == "refuted" and checks[0]["verdict"] == "supported"
    assert "5 of 5 wrong forms refuted" in page.read_text()


def test_a_claim_of_ones_own_that_is_wrong_is_refuted_with_exit_status_one(tmp_path):
    module = tmp_path / "claims.py"
    module.write_text(WRONG)
    found = run.invoke(app, ["derivations", "--check", "guess", "--module", str(module)])
    assert found.exit_code == 1, found.output
    assert "REFUTED" in found.stdout and "2.25 <= 2" in found.stdout
    assert "vectors = [[1], [-1], [-1], [-1]]" in found.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["2.66"], "derivation: expected a known id; found '2.66'. Nearest: 2.6"),
        (["--module", "nowhere.py"], "--module: expected a Python file; found nowhere.py."),
        (["--module", "{empty}"], "--module: expected a list DERIVATIONS of Derivation objects in"),
    ],
)
def test_wrong_input_is_answered_with_exit_status_two(arguments, message, tmp_path):
    empty = tmp_path / "empty.py"
    empty.write_text("DERIVATIONS = 3\n")
    found = run.invoke(app, ["derivations", *(part.format(empty=empty) for part in arguments)])
    assert found.exit_code == 2
    assert message in " ".join(found.output.split())
