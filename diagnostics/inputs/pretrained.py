"""Merge problems from model folders and data files, as transformers and PEFT write them."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.inputs.adapters import open_expert
from diagnostics.inputs.alignment import align, find_differences
from diagnostics.inputs.checkpoints import Checkpoint, is_adapter, open_checkpoint
from diagnostics.inputs.encoding import UNREADABLE, TruncationWarning, encode, open_tokenizer, transformers
from diagnostics.inputs.examples import class_targets, is_tensor_file, listed, read_tensors, read_texts, refuse_input
from diagnostics.inputs.placement import Placement
from diagnostics.inputs.pretrained_lm import causal_lm_tasks
from diagnostics.inputs.problem import MergeProblem
from diagnostics.inputs.tasks import Task
from diagnostics.inputs.texts import user_path

__all__ = ["KINDS", "TruncationWarning", "load_problem"]

KINDS = ("sequence-classification", "causal-lm")

_BATCH_SIZE = 64


def load_problem(
    base: str | Path,
    experts: Mapping[str, str | Path],
    data: Mapping[str, str | Path],
    *,
    kind: str = "sequence-classification",
    private: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    batch_size: int | None = None,
    max_length: int | None = None,
    instructions: Mapping[str, str] | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    cache: str | Path | None = None,
) -> MergeProblem:
    """Build a merge problem from folders and data files.

    A classification head that does not fit in every model, or that the base lacks, is private to its task; one
    that fits is merged like any other parameter, unless ``private`` names it.

    Args:
        base: The base's folder, with weights and tokenizer.
        experts: Folders of the experts by name, whole models or PEFT adapters.
        data: A data file for each expert, JSON lines or ``.safetensors``; where no line has a label, the expert's
            predictions stand for them.
        kind: ``"sequence-classification"``, ``"causal-lm"``, or ``"module:function"`` for a task of your own, where
            ``function(name, base=…, expert=…, data=…)`` gets the paths and returns a :class:`Task`.
        private: Names or glob patterns of further parameters that are not merged.
        columns: Names of the keys or tensors of the data files (``text``, ``label``, ``inputs``, ``targets``).
        batch_size: Examples per batch; 64 by default, 16 for language models.
        max_length: Tokens per text; by default what tokenizer and model allow. Longer texts are cut, with a warning;
            for language models they are refused unless this is given.
        instructions: What stands before x in a task of a language model, by expert.
        device: Where models are evaluated.
        dtype: The type in which models are evaluated.
        cache: A folder where measured outputs are kept by content.

    Returns:
        The problem.

    Raises:
        InputError: If names, folders, data or models do not fit together.
    """
    base, experts, data = _path("base", base), _paths("experts", experts), _paths("data", data)
    _check_names(experts, data)
    placed: dict[str, Any] = {"device": device, "dtype": dtype, "cache": cache}
    Placement.named(device, dtype)  # refused now and not after all models are read
    options = {"columns": columns, "batch_size": batch_size, "max_length": max_length, "instructions": instructions}
    if ":" in kind:
        _refuse_options(kind, options)
        tasks = {name: _custom_task(kind, name, base, path, data[name]) for name, path in experts.items()}
        return MergeProblem(base, experts, tasks, private=private, **placed)
    _check_kind(kind)
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size: expected at least 1; found {batch_size}. Leave it out for {_BATCH_SIZE}.")
    if kind == "causal-lm":
        texts = causal_lm_tasks(
            base,
            experts,
            data,
            columns=columns,
            batch_size=batch_size,
            max_length=max_length,
            instructions=instructions,
        )
        return MergeProblem(base, experts, texts, private=private, **placed)
    if instructions is not None:
        raise InputError(f"instructions: expected kind 'causal-lm' with them; found kind {kind!r}. Remove them.")
    models = _Models(base, experts, private)
    size = batch_size or _BATCH_SIZE
    tasks = {}
    for name, file in data.items():
        examples = _read(models, name, file, columns, size, max_length)
        tasks[name] = _task(models, name, examples, file, size)
    return MergeProblem(base, experts, tasks, private=models.private, **placed)


class _Models:
    """The models of a problem: their checkpoints, what is private to each, and modules to run them with."""

    def __init__(self, base: Path, experts: Mapping[str, Path], private: Sequence[str]) -> None:
        self.base, self.experts = base, experts
        origin = open_checkpoint(base, label="base")
        self.checkpoints = {name: open_expert(origin, path, label=name) for name, path in experts.items()}
        # Without values: T models at once need no memory before one of them is run.
        self.outlines = {name: self._outline(name) for name in experts}
        head = self._head(origin)
        misfits = {difference.tensor for difference in find_differences(origin, self.checkpoints, private)}
        # A head is one function: where a part of it cannot be shared, merging the rest would make no sense.
        self.private = (*private, *(head if misfits.intersection(head) else ()))
        # Before any look at the data: its message says best what does not fit.
        alignment = align(origin, self.checkpoints, self.private)
        self.unused = {name: self._fit(name, alignment.private[name]) for name in experts}

    def _outline(self, name: str) -> Any:
        """The module of an expert, without values."""
        path, checkpoint = self.experts[name], self.checkpoints[name]
        folder = self.base if is_adapter(path) else path
        config = _config(name, folder)
        module = _build(folder, config, "meta")
        inside = f"{module.base_model_prefix}."
        head = {key: tuple(value.shape) for key, value in module.named_parameters() if not key.startswith(inside)}
        stored = {key: checkpoint.shape(key) for key in head if key in checkpoint.names}
        rows = [shape[0] for key, shape in stored.items() if shape and shape != head[key]]
        if rows:
            # The head knows how many classes there are; an adapter says it nowhere else, BART not always.
            config.num_labels = rows[0]
            module = _build(folder, config, "meta")
        _check_classifier(f"expert {name!r}: {path}", config)
        return module

    def _head(self, origin: Checkpoint) -> list[str]:
        """Names outside the base model in the base and in every expert."""
        heads: list[str] = []
        for name, module in self.outlines.items():
            prefix = f"{module.base_model_prefix}."
            heads += [*_outside(origin, prefix), *_outside(self.checkpoints[name], prefix)]
        return list(dict.fromkeys(heads))

    def _fit(self, name: str, private: Sequence[str]) -> frozenset[str]:
        """Refuse a checkpoint that is not the module's parameters; return what an adapter's base adds to them."""
        checkpoint, module = self.checkpoints[name], self.outlines[name]
        own = {key: tuple(value.shape) for key, value in module.named_parameters()}
        buffers = {key: tuple(value.shape) for key, value in module.named_buffers()}
        floating = {key for key in checkpoint.names if checkpoint.dtype(key).is_floating_point}
        unknown = [key for key in checkpoint.names if key not in (own if key in floating else buffers)]
        # A base that was pretrained with another head keeps it under every adapter, where no task reads it.
        unused = frozenset(unknown).intersection(private if is_adapter(self.experts[name]) else ())
        found = [f"missing {key}" for key in own if key not in floating]
        found += [f"unknown {key}" for key in unknown if key not in unused]
        for key, expected in {**buffers, **own}.items():
            if key in checkpoint.names and checkpoint.shape(key) != expected:
                found.append(f"{key} {list(checkpoint.shape(key))} instead of {list(expected)}")
        if found:
            remedy = "Load it with the installed transformers and save it again; tied weights are stored once."
            refuse_input(
                f"expert {name!r}", f"the {len(own)} parameters of {type(module).__name__}", listed(found), remedy
            )
        return unused

    def module(self, name: str) -> Any:
        """A module with random parameters and the integer constants that its checkpoint has."""
        outline, checkpoint = self.outlines[name], self.checkpoints[name]
        module = _build(self.experts[name], outline.config, "cpu")
        for key, value in module.named_buffers():
            if key in checkpoint.names:
                value.copy_(checkpoint.tensor(key))
        return module

    def label_names(self, name: str) -> dict[str, int]:
        """Index of each class by the name that a model gives it; an adapter's folder gives none."""
        named = not is_adapter(self.experts[name])
        return dict(self.outlines[name].config.label2id or {}) if named else {}


def _read(
    models: _Models, name: str, file: Path, columns: Mapping[str, str] | None, batch_size: int, max_length: int | None
) -> Any:
    """The examples of one task, in a form that Task.from_module takes."""
    module = models.outlines[name]
    classes = module.config.num_labels
    if is_tensor_file(file):
        inputs, indices = read_tensors(file, columns)
        _check_classes(file, indices, classes)
        return inputs, indices.long()
    examples = read_texts(file, columns)
    targets = class_targets(examples, models.label_names(name), classes)
    tokenizer = open_tokenizer(models.base, models.experts[name], list(examples.texts))
    return encode(examples, targets, tokenizer, module, batch_size=batch_size, max_length=max_length)


def _task(models: _Models, name: str, data: Any, file: Path, batch_size: int) -> Task:
    """The task of one expert: mean cross-entropy and accuracy on its data."""
    module = models.module(name)
    _check_keywords(file, module, data)
    try:
        task = Task.from_module(name, module, torch.nn.functional.cross_entropy, data, batch_size=batch_size)
    except InputError:
        raise
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        remedy = "Names, shapes, types and token ids of the inputs must be those of the model."
        refuse_input(file, f"inputs for {type(module).__name__} of expert {name!r}", str(error), remedy)
    for value in module.parameters():
        # Every call brings its own parameters; the module's random ones would only fill memory.
        value.data = value.data.new_empty(0)
    unused = models.unused[name]
    if not unused:
        return task
    return task.through(lambda params: {key: value for key, value in params.items() if key not in unused})


def _outside(checkpoint: Checkpoint, prefix: str) -> list[str]:
    """Names without a prefix; none where all are without it, as then it goes by another."""
    names = [key for key in checkpoint.names if not key.startswith(prefix)]
    return names if len(names) < len(checkpoint.names) else []


def _config(name: str, folder: Path) -> Any:
    """The configuration of a model."""
    if not (folder / "config.json").is_file():
        remedy = "Pass the folder that save_pretrained wrote."
        refuse_input(f"expert {name!r}: {folder}", "a model folder with config.json", "none", remedy)
    try:
        config = transformers().AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except UNREADABLE as error:
        refuse_input(
            folder / "config.json", "a configuration that transformers reads", str(error), "Save the model again."
        )
    return config


def _check_classifier(where: str, config: Any) -> None:
    """Refuse regression and several labels per text."""
    if config.problem_type not in (None, "single_label_classification") or config.num_labels < 2:
        found = f"problem_type {config.problem_type!r} with {config.num_labels} labels"
        remedy = "Give a task of your own by kind='module:function'."
        refuse_input(where, "a classifier with one of several classes per text", found, remedy)


def _build(folder: Path, config: Any, device: str) -> Any:
    """A module made from a configuration, leaving the random state of the caller as it was."""
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(0)
        try:
            # Fused attention has no forward-mode derivative and no second one.
            module = transformers().AutoModelForSequenceClassification.from_config(
                config, attn_implementation="eager", trust_remote_code=False
            )
        except UNREADABLE as error:
            remedy = "Give a task of your own by kind='module:function'."
            refuse_input(folder, "a model that transformers can classify with", str(error), remedy)
    return module.float()


def _check_keywords(file: Path, module: Any, data: Any) -> None:
    """Refuse inputs that the model has no name for, which models of transformers pass over in silence."""
    inputs = data[0] if isinstance(data, tuple) else data[0][0]
    known = list(inspect.signature(module.forward).parameters)
    unknown = [key for key in inputs if key not in known] if isinstance(inputs, Mapping) else []
    if unknown:
        remedy = "Name tensors as the model does; for texts, set model_input_names in the tokenizer's configuration."
        refuse_input(file, f"inputs of {type(module).__name__}: {listed(known)}", listed(unknown), remedy)


def _check_classes(file: Path, targets: Tensor, classes: int) -> None:
    """Refuse targets that are not one class per example."""
    kind = f"{str(targets.dtype).removeprefix('torch.')} of shape {list(targets.shape)}"
    integers = not (targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool)
    if targets.ndim != 1 or not integers:
        refuse_input(f"{file}: targets", "one integer class per example", kind, "Save class indices of dtype int64.")
    outside = targets[(targets < 0) | (targets >= classes)]
    if len(outside):
        remedy = "Count classes from 0 as the model does."
        refuse_input(f"{file}: targets", f"classes from 0 to {classes - 1}", str(int(outside[0])), remedy)


def _custom_task(kind: str, name: str, base: Path, expert: Path, data: Path) -> Task:
    """The task that a function of the user's makes."""
    module_name, _, function_name = kind.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError, TypeError) as error:
        remedy = "Put it beside the configuration file or into the folder you run from, or install it."
        refuse_input(f"kind {kind!r}", f"a module {module_name!r} to import", str(error), remedy)
    function = getattr(module, function_name, None)
    if not callable(function):
        callables = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        refuse_input(f"kind {kind!r}", f"a function {function_name!r}", listed(callables), "Check its name.")
    task = function(name, base=base, expert=expert, data=data)
    if not isinstance(task, Task):
        refuse_input(
            f"kind {kind!r}", "a function that returns a diagnostics.Task", type(task).__name__, "Return a Task."
        )
    return task


def _refuse_options(kind: str, options: Mapping[str, object]) -> None:
    """Refuse settings that a task of the user's would not get to see."""
    given = [key for key, value in options.items() if value is not None]
    if given:
        remedy = f"Remove {'it' if len(given) == 1 else 'them'}, and set this in the function."
        refuse_input(", ".join(given), f"nothing, as kind {kind!r} reads its own data", "a value", remedy)


def _check_kind(kind: str) -> None:
    """Refuse kinds that are unknown."""
    own = "give a task of your own by kind='module:function'"
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1, cutoff=0.0)[0]
        raise InputError(f"kind: expected one of {list(KINDS)}; found {kind!r}. Did you mean {near!r}? Or {own}.")


def _check_names(experts: Mapping[str, Path], data: Mapping[str, Path]) -> None:
    """Refuse experts without data and data without an expert."""
    lone_experts, lone_data = sorted(set(experts) - set(data)), sorted(set(data) - set(experts))
    if lone_experts or lone_data or not experts:
        raise InputError(
            "experts and data: expected the same names in both, at least one; "
            f"found experts without data: {lone_experts}, data without an expert: {lone_data}. Give each its partner."
        )


def _path(key: str, path: object) -> Path:
    """A path with the home folder filled in."""
    if not isinstance(path, str | Path):
        remedy = (
            "A model in memory has no tokenizer beside it: make tasks with Task.from_module or Task.from_causal_lm, "
            "and pass models and tasks to MergeProblem."
        )
        refuse_input(key, "a path, as data and models are read from files", type(path).__name__, remedy)
    return user_path(path)


def _paths(key: str, paths: Mapping[str, str | Path]) -> dict[str, Path]:
    """Paths by name with the home folder filled in."""
    return {name: _path(f"{key}.{name}", path) for name, path in paths.items()}
