"""A first configuration, told from model folders and data files, with what could not be told named."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diagnostics.errors import InputError
from diagnostics.inputs.adapters import open_expert
from diagnostics.inputs.alignment import BASE, propose_private
from diagnostics.inputs.checkpoints import is_adapter, open_checkpoint
from diagnostics.inputs.columns import guess_columns
from diagnostics.inputs.documents import nearest
from diagnostics.inputs.examples import is_tensor_file, listed, read_pairs, read_tensors, read_texts, refuse_input
from diagnostics.inputs.model_kind import kind_of

__all__ = ["Draft", "draft_config"]

# What stands for a kind that cannot be told, until its user names one.
OWN_KIND = "my_tasks:make_task"
# No expert may be called what other models are called in messages and results.
_TAKEN = (BASE, "target")
_COEFFICIENT = 0.5


@dataclass(frozen=True)
class Draft:
    """What a configuration begins with.

    Attributes:
        content: Values by key, as the file has them.
        remarks: What was told from what, by key.
        gaps: What could not be told and has to be filled in or looked at, by key.
    """

    content: dict[str, Any]
    remarks: dict[str, str]
    gaps: dict[str, str]


def draft_config(base: Path, experts: Sequence[Path], data: Mapping[str, Path], folder: Path) -> Draft:
    """Tell from models and data what a configuration of their merge begins with; no weights are read.

    Args:
        base: The base's folder or file.
        experts: Folders or files of the experts.
        data: Data files by name of the expert, where they are not found beside the models.
        folder: Where the configuration will be; its paths start there.

    Returns:
        The draft.

    Raises:
        InputError: If a model cannot be read, an expert is given twice, or data name no expert or lead nowhere.
    """
    models = _named(experts)
    draft = Draft({"base": _relative(base, folder)}, {}, {})
    draft.content["experts"] = {name: _relative(path, folder) for name, path in models.items()}
    files = _data(base, models, data, folder)
    if files:
        draft.content["data"] = {name: _relative(file, folder) for name, file in files.items()}
    lacking = [name for name in models if name not in files]
    if lacking:
        wanted = listed(f"{name}.jsonl" for name in lacking)
        draft.gaps["data"] = f"no examples were found for {listed(lacking)}; looked for {wanted} beside the models."
    _add_kind(draft, base, models)
    _add_private(draft, base, models)
    draft.content["coefficients"] = _COEFFICIENT
    draft.remarks["coefficients"] = "A first guess; diagnostics coefficients finds better ones."
    _add_columns(draft, files)
    return draft


def _named(experts: Sequence[Path]) -> dict[str, Path]:
    """Experts by the last part of their paths that tells them apart."""
    paths = [path.absolute() for path in experts]
    twice = [str(path) for path, count in Counter(paths).items() if count > 1]
    if twice:
        refuse_input("init", "every expert once", f"{twice[0]} twice", "Name it once.")
    # A comma would end the name in --coefficients a=0.5,b=0.3.
    parts = [
        [part.replace(",", "-") for part in (*path.parts[1:-1], path.stem if path.is_file() else path.name)]
        for path in paths
    ]
    while len(parts) > 1 and min(map(len, parts)) > 1 and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]  # news/checkpoint-100 and mail/checkpoint-100 are news and mail
    choices = [["-".join(part[-depth:]) for part in parts] for depth in range(1, max(map(len, parts)) + 1)]
    names = next((each for each in choices if len({*each, *_TAKEN}) == len(each) + len(_TAKEN)), None)
    if names is None:
        refuse_input("init", "experts whose names tell them apart", listed(map(str, experts)), "Rename one.")
    return dict(zip(names, experts, strict=True))


def _relative(path: Path, folder: Path) -> str:
    """A path as a configuration in a folder names it."""
    try:
        found = Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
    except ValueError:  # another drive
        return path.absolute().as_posix()
    return f"./{found}" if found.startswith("~") else found


def _data(base: Path, models: Mapping[str, Path], given: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """A data file for each expert that has one."""
    for name, file in given.items():
        if name not in models:
            refuse_input("--data", f"one of the experts {list(models)}", repr(name), nearest(name, models))
        if not file.is_file():
            refuse_input(f"--data {name}", "a file", f"{file}: nothing there", "Check the path.")
    found = {}
    for name, path in models.items():
        places = dict.fromkeys((path.absolute().parent, base.absolute().parent, folder.absolute()))
        beside = [place / f"{each}.jsonl" for place in places for each in dict.fromkeys((name, path.name))]
        there = [given[name]] if name in given else [each for each in beside if each.is_file()]
        if there:
            found[name] = there[0]
    return found


def _add_kind(draft: Draft, base: Path, models: Mapping[str, Path]) -> None:
    """The kind of the tasks, where the experts' configurations agree on one; an adapter may leave it to its base."""
    kinds = {name: kind_of(path) or (kind_of(base) if is_adapter(path) else None) for name, path in models.items()}
    told = set(kinds.values())
    kind = told.pop() if len(told) == 1 else None
    draft.content["kind"] = kind or OWN_KIND
    if kind:
        draft.remarks["kind"] = "Told from the configurations of the experts."
        return
    found = listed(f"{name}: {each or 'none that is known'}" for name, each in kinds.items())
    remedy = f"Write one of them, or a function of yours that makes a Task, in place of {OWN_KIND}."
    draft.gaps["kind"] = f"the models do not all say that they are one of the known kinds ({found}). {remedy}"


def _add_private(draft: Draft, base: Path, models: Mapping[str, Path]) -> None:
    """Tensors that cannot be merged, heads as a rule."""
    origin = open_checkpoint(base, label=BASE)
    experts = {name: open_expert(origin, path, label=name) for name, path in models.items()}
    entries, differences = propose_private(origin, experts)
    tensors = {name: [each.tensor for each in differences if each.model == name] for name in models}
    found = "; ".join(f"{name} differs from the base in {listed(each)}" for name, each in tensors.items() if each)
    if entries:
        draft.content["private"] = entries
        draft.remarks["private"] = f"Not every model has these in one shape: {found}."
    elif differences:
        draft.gaps["private"] = f"the models do not fit together: {found}. See what diagnostics check says about them."


def _add_columns(draft: Draft, files: Mapping[str, Path]) -> None:
    """Names of the keys in the data, where they are not the usual ones, and whether the data can be read by them."""
    kind = draft.content["kind"]
    texts = {name: file for name, file in files.items() if not is_tensor_file(file)}
    if kind == OWN_KIND or not files:
        return
    try:
        columns = _one(guess_columns(file, kind) for file in texts.values())
        for file in files.values():
            _read(file, kind, columns)
    except InputError as error:
        draft.gaps["columns"] = f"the data cannot be read as they are. {error}"
        return
    if columns:
        draft.content["columns"] = columns
        draft.remarks["columns"] = "Guessed from the keys in the data: look whether they are the right ones."


def _one(guesses: Iterable[dict[str, str]]) -> dict[str, str]:
    """What all data files agree on."""
    found = list(guesses)
    if any(each != found[0] for each in found):
        refuse_input("data", "the same keys in every file", listed(map(str, found)), "Name the keys alike.")
    return found[0] if found else {}


def _read(file: Path, kind: str, columns: Mapping[str, str]) -> None:
    """Read a data file as a run would, to see whether it can be."""
    if is_tensor_file(file):
        read_tensors(file)
    elif kind == "causal-lm":
        read_pairs(file, columns)
    else:
        read_texts(file, columns)
