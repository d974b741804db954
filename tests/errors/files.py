"""Mistakes in data files, configurations and recipes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import diagnostics as dx
from diagnostics.inputs.audit_config import load_audit_config
from diagnostics.inputs.config import load_config
from tests.errors.mistake import CONFIG, RECIPE, Mistake, problem_of, recipe_of, text

AUDIT = """\
model: base
components: {a: {instruction: "A: ", data: kind.jsonl}}
target: {data: kind.jsonl}
columns: {x: text, y: text}
"""


def texts(*lines: str | bytes) -> Mistake:
    """A data file of a text classifier."""
    content = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    return Mistake("predict texts.yaml", text("kind.jsonl", content), problem_of("texts.yaml"))


def config(content: str | Callable[[Path], object], name: str = "wrong.yaml") -> Mistake:
    """A configuration, read by a command that uses all of it."""
    change = text(name, content) if isinstance(content, str) else content
    return Mistake(f"predict {name}", change, lambda: _used(name))


def _used(name: str) -> object:
    """What a prediction needs of a configuration."""
    given = load_config(name)
    given.merge()
    return dx.predict_merge(given.problem(), given.merge(), **given.settings)


def recipe(change: Callable[[Path], object], *names: str) -> Mistake:
    """A mergekit recipe, given with data for some experts."""
    options = "".join(f" --data {name}=data.safetensors" for name in names)
    return Mistake(f"predict recipe.yaml{options}", change, recipe_of(*names))


def audit(content: str) -> Mistake:
    """The configuration of an audit."""
    return Mistake("audit audit.yaml", text("audit.yaml", content), lambda: load_audit_config("audit.yaml").data())


def same(folder: Path) -> None:
    """Nothing changes."""


GOOD = '{"text": "a good film", "label": 1}'
BOTH = ("news", "mail")

FILES: dict[str, Mistake] = {
    "no data": texts(""),
    "blank lines": texts("", "  ", ""),
    "a broken line": texts(GOOD, "", '{"text": "a bad film", "label": 0'),
    "a line of another kind": texts(GOOD, "[1, 2]"),
    "a line of endless brackets": texts(GOOD, "[" * 100_000),
    "other columns": texts('{"review": "good", "label": 1}'),
    "a column missing in a line": texts(GOOD, '{"label": 0}'),
    "an empty text": texts('{"text": " ", "label": 1}'),
    "a label out of range": texts(GOOD, '{"text": "a", "label": 2}'),
    "a label of no class": texts(GOOD, '{"text": "a", "label": "good"}'),
    "a label in some lines": texts(GOOD, '{"text": "a"}'),
    "labels under another name": texts('{"text": "good", "target": 1}'),
    "a label that is no class": texts('{"text": "good", "label": 0.5}'),
    "bytes that are no text": texts(b"\x80\x04\x95"),
    "a folder for a data file": Mistake(
        "predict texts.yaml",
        lambda folder: [(folder / "kind.jsonl").unlink(), (folder / "kind.jsonl").mkdir()],
        problem_of("texts.yaml"),
    ),
    "a configuration that is not there": config(same, "nowhere.yaml"),
    "a configuration that is a folder": config(lambda folder: (folder / "wrong.yaml").mkdir()),
    "a configuration of another ending": config(same, "notes.txt"),
    "an empty configuration": config(""),
    "a configuration that is a list": config("[base, experts]"),
    "a configuration that is not YAML": config("base: [a"),
    "a configuration that is not TOML": config("base = [", "wrong.toml"),
    "a configuration of endless brackets": config("base: " + "[" * 3_000),
    "a configuration that runs code": config("base: !!python/object/apply:os.system ['touch opened-by-yaml']"),
    "a configuration in another encoding": config(text("wrong.yaml", b"base: \xff\xfe")),
    "a key given twice": config("base: a\nbase: b"),
    "an unknown key": config(CONFIG + "tolerence: 0.1\n"),
    "unknown keys of sections": config(CONFIG + "columns: {test: review}\noptions: {denisty: 0.5}\n"),
    "a value of the wrong type": config(CONFIG + "batch_size: many\nprivate: head\n"),
    "a number that is none": config(CONFIG.replace("0.5", ".nan") + "options: {scale: .inf}\n"),
    "a number out of range": config(CONFIG + "tolerance: 1\nseed: -1\n"),
    "a seed too large": config(CONFIG + f"seed: {2**63}\n"),
    "a path of a configuration": config(CONFIG.replace("mail.safetensors", "male.safetensors")),
    "no experts": config("base: base.safetensors\ncoefficients: 1\n"),
    "an expert without data": config(CONFIG.replace(", mail: data.safetensors", "")),
    "data without an expert": config(CONFIG.replace("{news: news.safetensors, ", "{")),
    "a coefficient of nobody": config(CONFIG.replace("0.5", "{mial: 0.5}")),
    "too few coefficients": config(CONFIG.replace("0.5", "[0.5]")),
    "an unknown kind": config(CONFIG.replace("mistaken_tasks:make", "causal-ml")),
    "a kind that cannot be imported": config(CONFIG.replace("mistaken_tasks:make", "mistaken_task:make")),
    "a kind without its function": config(CONFIG.replace("mistaken_tasks:make", "mistaken_tasks:made")),
    "an unknown method": config(CONFIG + "method: tise\n"),
    "an unknown device": config(CONFIG + "device: gpu\n"),
    "an unknown dtype": config(CONFIG + "dtype: float8\n"),
    "a recipe of an unknown method": recipe(text("recipe.yaml", RECIPE.replace("ties", "tise")), *BOTH),
    "a recipe of a method not read": recipe(text("recipe.yaml", RECIPE.replace("ties", "slerp")), *BOTH),
    "a recipe without a base": recipe(text("recipe.yaml", RECIPE.replace("base_model", "base")), *BOTH),
    "a recipe of a model of the Hub": recipe(
        text("recipe.yaml", RECIPE.replace("model: mail.safetensors", "model: org/mail")), *BOTH
    ),
    "a recipe without data": recipe(same, "news"),
    "data beside a recipe for nobody": recipe(same, *BOTH, "male"),
    "an audit without a target": audit(AUDIT.replace("target: {data: kind.jsonl}\n", "")),
    "an audit with an unknown key": audit(AUDIT + "alpha: best\n"),
    "an audit with too many alphas": audit(AUDIT + "alphas: [1, 2]\n"),
    "an audit with a misspelt component": audit(AUDIT + "alphas: {b: 1}\n"),
    "an audit with other columns": audit(AUDIT.replace("y: text", "y: answer")),
}
