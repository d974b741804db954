"""What several commands have in common: a cache, and a method that they make no use of."""

import re
from pathlib import Path

import pytest

from tests.test_cli import CONFIG, answered, files, importable, run  # noqa: F401


def test_a_cache_is_used_by_other_commands_and_told_of(files: Path, tmp_path: Path) -> None:  # noqa: F811
    folder = tmp_path / "kept"
    first = answered(run("predict", "half.yaml", "--tolerance", 0.9, "--cache", folder))
    assert f"cache {folder}: 0 results found in it, 30 added" in first.stdout
    for command in ("predict", "coefficients", "relations"):
        told = run(command, "half.yaml", "--cache", folder).stdout  # the answer may be yes or no
        assert re.search(rf"cache {re.escape(str(folder))}: \d+ results found in it, 0 added", told), (command, told)


@pytest.mark.parametrize("command", ["coefficients", "bounds"])
def test_a_method_that_a_command_does_not_use_is_named(command: str, files: Path, tmp_path: Path) -> None:  # noqa: F811
    (files / "dense-ties.yaml").write_text(CONFIG + "coefficients: 0.5\nmethod: ties\noptions: {density: 0.5}\n")
    told, plain = (run(command, name, "--json", tmp_path / "a.json") for name in ("dense-ties.yaml", "half.yaml"))
    note = "All numbers are of plain task arithmetic: the method ties has no part in them"
    assert note in told.stdout and "plain task arithmetic" not in plain.stdout
