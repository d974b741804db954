"""The mutation benchmark: how it prepares a module, tells mutants apart, and holds survivors against explanations."""

import ast
import importlib.util
import json

import pytest

from benchmarks import mutation, mutation_copy

SOURCE = '''\
class Box:
    """A box."""

    @property
    def area(self):
        """Width times height."""
        return self.width * self.height

    @cached_property
    def _slow(self):
        return 1

    @staticmethod
    def made():
        return Box()
'''


def function(text):
    return ast.parse(text).body[0]


def test_properties_become_functions_that_are_properties():
    found = mutation_copy.without_properties("from functools import cached_property\n" + SOURCE)
    names = {}
    exec(found, names)
    box = names["Box"]()
    box.width, box.height = 2, 3
    assert (box.area, box._slow, box.of_area()) == (6, 1, 6) and isinstance(names["Box"].made(), names["Box"])
    assert "_slow" in vars(box), "kept after the first time"
    assert found.count("@") == 1, "only the static method is decorated"


CLAIMS = """\
__all__ = ["exported"]

def exported(x):
    return x

def _half(x):
    return x / 2

def _side(x):
    return _half(x)

@cache
def _drawn(size):
    return [size]

def _wrong(x):
    return _half(x) + 1

ONE = Derivation(Claim(left=_side, right=lambda x: x, cases=_drawn), (Mutant("one more", right=_wrong),))
"""


def test_what_is_wrong_on_purpose_and_what_is_drawn_is_left_as_it_is():
    found = ast.parse(mutation_copy.without_wrong_forms(CLAIMS))
    functions = [node for node in found.body if isinstance(node, ast.FunctionDef)]
    decorators = {node.name: len(node.decorator_list) for node in functions}
    assert decorators == {"exported": 0, "_half": 0, "_side": 0, "_drawn": 2, "_wrong": 1}


def test_a_change_of_letters_is_wording_and_a_change_of_numbers_is_not():
    original = function("def f__orig(x):\n    return note('small', x < 1)")
    loud = function("def f__1(x):\n    return note('SMALL', x < 1)")
    default = function("def f__3(x=1):\n    return note('small', x < 1)")
    assert mutation.skeleton(original) != mutation.skeleton(default)
    other = function("def f__2(x):\n    return note('small', x <= 1)")
    assert mutation.skeleton(original) == mutation.skeleton(loud) != mutation.skeleton(other)
    assert mutation.difference(original, other) == {
        "removed": "return note('small', x < 1)",
        "added": "return note('small', x <= 1)",
    }


@pytest.mark.parametrize(
    ("code", "meaning"),
    [(0, "survived"), (1, "killed"), (33, "no tests"), (-24, "timeout"), (36, "timeout"), (None, "not run")],
)
def test_exit_statuses(code, meaning):
    assert mutation.outcome(code) == meaning


def survivor(removed, added):
    return {"function": "f", "removed": removed, "added": added, "wording": False, "outcome": "survived"}


def test_every_survivor_needs_an_explanation_and_every_explanation_a_survivor(tmp_path, monkeypatch):
    explained = tmp_path / "explained.yaml"
    explained.write_text(
        "rules:\n"
        '- {ignoring: ", strict=(True|False)", why: equal lengths}\n'
        "modules:\n"
        "  theory/a:\n"
        "    f:\n"
        "    - {lines: ['return x >= 1', 'return gone'], why: equal at 1}\n"
        "  theory/elsewhere:\n"
        "    g: [{lines: [anything], why: not measured here}]\n"
    )
    monkeypatch.setattr(mutation, "EXPLAINED", explained)
    survivors = [
        survivor("return x > 1", "return x >= 1"),
        survivor("zip(a, strict=True)", "zip(a, strict=False)"),
        survivor("return 1", "return 2"),
        survivor("", ""),
    ]
    stored = {"modules": {"theory/a": {"survivors": survivors}}}
    wrong = mutation.explain(stored)
    assert [item["why"] for item in survivors] == [
        "equal at 1",
        "equal lengths",
        None,
        "The same program: 1e150 + 1 is 1e150.",
    ]
    assert wrong == [
        "no explanation: theory/a f\n  - return 1\n  + return 2",
        "explains nothing: theory/a f\n  + return gone",
    ]


def test_folders_are_all_their_modules_but_those_without_formulas():
    assert mutation.expanded(["theory/subspace"]) == ["theory/subspace"]
    found = mutation.expanded(["theory", "measures"])
    assert {"theory/alignment", "measures/folds"} <= set(found)
    assert not {"theory/__init__", "measures/paths"} & set(found)
    assert all((mutation.ROOT / "diagnostics" / f"{name}.py").exists() for name in mutation.NO_FORMULAS)


def test_every_module_with_formulas_is_in_the_stored_run():
    stored = json.loads(mutation.RESULTS.read_text())["modules"]
    assert sorted(stored) == sorted(mutation.expanded(["theory", "theory/derivations", "measures"]))


@pytest.mark.skipif(importlib.util.find_spec("mutmut") is None, reason="mutmut is not installed")
def test_dry_run(capsys):
    assert mutation.main(["--quick"]) == 0
    printed = capsys.readouterr().out
    assert "Mutants of the mathematics" in printed and "theory/subspace" in printed and "not run" not in printed
