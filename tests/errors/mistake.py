"""A mistake of a user, and the valid files that it is made in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from diagnostics.inputs.config import load_config
from diagnostics.inputs.recipe_config import recipe_config
from tests.inputs.tiny_models import write_folders

CONFIG = """\
base: base.safetensors
experts: {news: news.safetensors, mail: mail.safetensors}
data: {news: data.safetensors, mail: data.safetensors}
kind: mistaken_tasks:make
coefficients: 0.5
"""
TEXTS = """\
base: base
experts: {kind: kind, mood: mood}
data: {kind: kind.jsonl, mood: mood.jsonl}
coefficients: 0.5
"""
TASKS = '''
import torch
from safetensors.torch import load_file
from diagnostics import Task

def make(name, *, base, expert, data):
    """Logistic regression."""
    tensors = load_file(data)
    examples = (tensors["inputs"], tensors["targets"])
    return Task.from_module(name, torch.nn.Linear(3, 2), torch.nn.functional.cross_entropy, examples)
'''
RECIPE = """\
merge_method: ties
base_model: base.safetensors
models:
  - {model: news.safetensors, parameters: {weight: 0.5, density: 0.5}}
  - {model: mail.safetensors, parameters: {weight: 0.5, density: 0.5}}
"""


@dataclass(frozen=True)
class Mistake:
    """What a user gets wrong, among files that are right.

    Attributes:
        command: The command line, run in the folder.
        change: Makes the mistake in the folder.
        call: The same in Python, where it is not one of the command line alone.
    """

    command: str
    change: Callable[[Path], object] = lambda folder: None
    call: Callable[[], object] | None = None


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """A linear classifier of three features."""
    draw = torch.Generator().manual_seed(seed)
    return {"weight": torch.randn(2, 3, generator=draw), "bias": torch.randn(2, generator=draw)}


def write_valid(folder: Path) -> None:
    """A base, two experts, data and configurations; folders of text classifiers too."""
    for seed, name in enumerate(("base", "news", "mail")):
        save_file(weights(seed), folder / f"{name}.safetensors")
    inputs = torch.randn(20, 3, generator=torch.Generator().manual_seed(3))
    save_file({"inputs": inputs, "targets": torch.arange(20) % 2}, folder / "data.safetensors")
    write_folders(folder)
    files = {
        "merge.yaml": CONFIG,
        "texts.yaml": TEXTS,
        "recipe.yaml": RECIPE,
        "mistaken_tasks.py": TASKS,
        "notes.txt": "notes",
    }
    for name, text in files.items():
        (folder / name).write_text(text)


def text(name: str, content: str | bytes) -> Callable[[Path], object]:
    """Puts a file there."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def appended(name: str, content: str) -> Callable[[Path], object]:
    """Adds to a file."""
    return lambda folder: (folder / name).write_text((folder / name).read_text() + content)


def model(name: str, **tensors: torch.Tensor) -> Callable[[Path], object]:
    """Replaces tensors of a model, or adds some; ``None`` removes one."""

    def change(folder: Path) -> None:
        found = {**weights(7), **tensors}
        save_file({key: value for key, value in found.items() if value is not None}, folder / name)

    return change


def header(content: object, values: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header, whose length may be told otherwise."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return (len(data) if length is None else length).to_bytes(8, "little") + data + values


def problem_of(name: str = "merge.yaml") -> Callable[[], object]:
    """Builds the problem of a configuration."""
    return lambda: load_config(name).problem()


def recipe_of(*names: str, data: str = "data.safetensors") -> Callable[[], object]:
    """Reads a recipe with data for the experts."""
    return lambda: recipe_config("recipe.yaml", dict.fromkeys(names, data))
