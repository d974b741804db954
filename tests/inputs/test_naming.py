"""Names of experts, from mappings and from paths."""

from pathlib import Path

import pytest
import torch

from diagnostics.errors import InputError
from diagnostics.inputs.naming import name_experts


def test_paths_are_named_by_their_last_part(tmp_path: Path) -> None:
    file = tmp_path / "mail.safetensors"
    file.touch()
    assert list(name_experts([tmp_path / "news", file], reserved="base")) == ["news", "mail"]


def test_names_that_are_given_are_kept() -> None:
    given = {"a": {"w": torch.zeros(1)}, "b": "somewhere"}
    assert name_experts(given, reserved="base") == given


@pytest.mark.parametrize(
    ("experts", "message"),
    [
        ([], "expected at least one"),
        ({}, "expected at least one"),
        ({"base": "x"}, "none called 'base'"),
        (["x/news", "y/news"], "whose last parts differ"),
        (torch.nn.Linear(1, 1), r"by name; found Linear\. Write {name: model}"),
        (["x", torch.nn.Linear(1, 1)], r"by name; found a list with Linear\. Write {name: model}"),
        ("x/news", r"expected a list of paths or a mapping by name; found 'x/news'\. Write \[path\]"),
    ],
)
def test_what_is_refused(experts: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        name_experts(experts, reserved="base")
