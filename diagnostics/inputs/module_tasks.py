"""Tasks of torch modules: (inputs, targets) pairs, or inputs whose targets a model gives."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from diagnostics.errors import InputError
from diagnostics.inputs.functional import FunctionalModule
from diagnostics.inputs.readout import Readout, class_accuracy, constant_prediction_loss
from diagnostics.inputs.tasks import Parameters, Task, require_rereadable

__all__ = ["module_task"]

Criterion = Callable[[Tensor, Tensor], Tensor]
Score = Callable[[Tensor, Tensor], Tensor]
Pairs = Iterable[tuple[Any, Any]]


def module_task(
    name: str,
    module: torch.nn.Module,
    criterion: Criterion,
    data: Any,
    *,
    batch_size: int = 64,
    score: Score | None = None,
    parameters: Sequence[str] | None = None,
) -> Task:
    """Build the task of a torch module; see :meth:`Task.from_module`.

    Args:
        name: The task's name.
        module: The model.
        criterion: The mean loss over a batch.
        data: Inputs with their targets, or with ``None`` in their place.
        batch_size: Examples per batch when ``data`` is one pair.
        score: One value per example; accuracy for class targets by default.
        parameters: Names of the parameters the task is a function of.

    Returns:
        The task, unlabelled where the data have no targets.

    Raises:
        InputError: If names in ``parameters`` are not in the module, or data are empty or malformed.
    """
    made = _ModuleTask(name, FunctionalModule(name, module, parameters), criterion, score)
    own = {key: value.detach() for key, value in module.named_parameters() if key in made.model.names}
    given = _as_batches(name, data, batch_size)
    return made.unlabelled(own, given) if _lacks_targets(name, given) else made.labelled(own, given)


class _ModuleTask:
    """What the tasks of one module have in common, with targets and without."""

    def __init__(self, name: str, model: FunctionalModule, criterion: Criterion, score: Score | None) -> None:
        self.name, self.model, self.criterion, self.score = name, model, criterion, score

    def labelled(self, own: Parameters, given: Pairs, notes: Sequence[str] = ()) -> Task:
        """The task of inputs with targets, checked at a point."""
        _check_labels(self.name, self.model, own, given)
        Task(self.name, self._loss, given).check(own)
        # A loader may shuffle: from here on the order of examples is fixed, so outputs can be compared.
        batches = [(inputs, targets) for inputs, targets in given]
        targets = [target for _, target in batches]
        score = class_accuracy if self.score is None and all(map(_are_classes, targets)) else self.score
        readout = Readout.from_functions(self.model, self.criterion, score)
        with torch.no_grad():
            outputs = self.model(own, batches[0])
            constant_loss = constant_prediction_loss(outputs, targets, self.criterion)
            self._check_mean(outputs, targets[0])
        return Task(self.name, self._loss, batches, readout=readout, constant_loss=constant_loss, notes=notes)

    def unlabelled(self, own: Parameters, given: Pairs) -> Task:
        """The task of inputs without targets, with what can be checked before it has some."""
        # Against its own predictions a loss needs no targets, and shows what is random or not finite all the same.
        Task(self.name, self._loss_of_itself, given).check(own)
        batches = [(inputs, None) for inputs, _ in given]
        with torch.no_grad():
            outputs = self.model(own, batches[0])
            self._check_mean(outputs, self._classes(outputs))
        return Task(
            self.name,
            self._refuse,
            batches,
            readout=Readout(self.model, self._refuse, self._refuse),
            label=lambda params: self._labelled_by(params, batches),
        )

    def _labelled_by(self, params: Parameters, batches: Pairs) -> Task:
        """The task whose targets are the classes that a model predicts."""
        with torch.no_grad():
            pairs = [(batch[0], self._classes(self.model(params, batch))) for batch in batches]
        note = (
            f"task {self.name!r}: its inputs have no targets and a model's predicted classes stand for them (in a "
            "merge problem its own expert's): score and retention mean agreement with that model's predictions, and "
            "loss is the criterion against its predicted classes. Whether these are right is not measured"
        )
        return self.labelled(params, pairs, [note])

    def _loss(self, params: Parameters, batch: Any) -> Tensor:
        """The criterion on a batch."""
        outputs = self.model(params, batch)
        return self.criterion(outputs, batch[1].to(outputs.device))

    def _loss_of_itself(self, params: Parameters, batch: Any) -> Tensor:
        """The criterion on a batch against the model's own predictions."""
        outputs = self.model(params, batch)
        classes = self._classes(outputs)
        try:
            with warnings.catch_warnings():
                # Losses of real-valued targets stretch class indices to the outputs' shape, and only warn of it.
                warnings.filterwarnings("error", message="Using a target size")
                return self.criterion(outputs, classes)
        except (RuntimeError, IndexError, TypeError, ValueError, UserWarning) as error:
            raise InputError(
                f"task {self.name!r}: expected a criterion that takes class indices, as predicted classes stand for "
                f"the missing targets; found one that fails on them ({error}). Use cross-entropy, or give targets"
            ) from error

    def _classes(self, outputs: Tensor) -> Tensor:
        """The predicted classes, where outputs are class logits."""
        if outputs.ndim != 2 or outputs.shape[1] < 2:
            raise InputError(
                f"task {self.name!r}: inputs without targets need class outputs, [examples, classes] with two classes "
                f"or more; found outputs of shape {list(outputs.shape)}. Give targets"
            )
        return outputs.argmax(dim=1)

    def _check_mean(self, outputs: Tensor, targets: Tensor) -> None:
        """Refuse a criterion that is not the mean of what it gives for single examples: a sum, or a weighted mean."""
        losses = Readout.from_functions(self.model, self.criterion, None).losses(outputs, (None, targets))
        whole = self.criterion(outputs, targets.to(outputs.device))
        mean, tolerance = float(losses.double().mean()), max(1e-3, 8 * torch.finfo(whole.dtype).eps)
        if not math.isclose(mean, float(whole), rel_tol=tolerance, abs_tol=1e-6):
            raise InputError(
                f"task {self.name!r}: the criterion gives {float(whole):.6g} for a batch and {mean:.6g} as the mean "
                "over its examples; it must be a plain mean (reduction='mean', no class weights, no examples left out)"
            )

    def _refuse(self, *_: object) -> NoReturn:
        """Refuse to read a loss or a score where nothing says what is right."""
        raise InputError(
            f"task {self.name!r}: expected targets; found inputs alone, which have outputs but no loss and no score. "
            "Label them by a model with task.labelled_by(params), as MergeProblem does by the task's own expert"
        )


def _as_batches(name: str, data: Any, batch_size: int) -> Pairs:
    """Turn the two accepted forms of data into an iterable of (inputs, targets) pairs."""
    if isinstance(data, tuple) and len(data) == 2 and (data[1] is None or isinstance(data[1], Tensor)):
        return _split(name, data[0], data[1], batch_size)
    require_rereadable(name, data)
    for batch in data:
        pair = isinstance(batch, tuple | list) and len(batch) == 2
        if not (pair and (batch[1] is None or isinstance(batch[1], Tensor))):
            raise InputError(
                f"task {name!r}: a batch must be a pair (inputs, targets), or (inputs, None) where there are no "
                f"targets; found {type(batch).__name__}"
            )
    return data


def _split(name: str, inputs: Any, targets: Tensor | None, batch_size: int) -> Pairs:
    """Cut whole tensors into batches, after checking that they have as many examples."""
    parts: dict[str, Any] = dict(inputs) if isinstance(inputs, Mapping) else {"inputs": inputs}
    counts = {key: _count(name, key, value) for key, value in parts.items()}
    counts |= {} if targets is None else {"targets": _count(name, "targets", targets)}
    last = next(reversed(counts), "inputs")
    for key, count in counts.items():
        if count != counts[last]:
            raise InputError(f"task {name!r}: {key} has {count} examples and {last} {counts[last]}; they must agree")
    batches = []
    for start in range(0, counts.get(last, 0), batch_size):
        cut = slice(start, start + batch_size)
        some = {key: value[cut] for key, value in parts.items()}
        batches.append(
            (some if isinstance(inputs, Mapping) else some["inputs"], targets if targets is None else targets[cut])
        )
    return batches


def _count(name: str, key: str, value: Any) -> int:
    """Number of examples of one of the tensors of a pair."""
    if isinstance(value, tuple) or not hasattr(value, "__len__") or (isinstance(value, Tensor) and value.ndim == 0):
        raise InputError(
            f"task {name!r}: expected a tensor of {key} with examples first; found {type(value).__name__}. Data are "
            "one pair (inputs, targets), (inputs, None) where there are no targets, or a list of such pairs"
        )
    return len(value)


def _lacks_targets(name: str, batches: Pairs) -> bool:
    """Whether no batch has targets; refuse that some have and some have not."""
    lacking = [index for index, (_, targets) in enumerate(batches) if targets is None]
    count = sum(1 for _ in batches)
    if lacking and len(lacking) < count:
        raise InputError(
            f"task {name!r}: expected targets in all batches or in none; batch {lacking[0]} is the first of "
            f"{len(lacking)} without, of {count}. Give them, or make a task of its own of those without"
        )
    return bool(lacking)


def _check_labels(name: str, model: FunctionalModule, params: Parameters, batches: Pairs) -> None:
    """Refuse class labels that the model has no output for, before the loss fails on them."""
    for batch in batches:
        with torch.no_grad():
            outputs = model(params, batch)
        if not (_are_classes(batch[1]) and outputs.ndim == 2):
            return
        wrong = batch[1][(batch[1] < 0) | (batch[1] >= outputs.shape[1])]
        if len(wrong):
            raise InputError(
                f"task {name!r}: label {int(wrong[0])} is out of range, the model has {outputs.shape[1]} outputs "
                f"(labels 0 to {outputs.shape[1] - 1}). Check the label column, or give the model a head of its width"
            )


def _are_classes(targets: Tensor) -> bool:
    """Whether targets are one class index per example."""
    return targets.ndim == 1 and not targets.is_floating_point()
