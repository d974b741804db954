"""Seven fine-tuned experts of one small network on the scikit-learn digits (1,797 real 8×8 images)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diagnostics.inputs.problem import MergeProblem
from diagnostics.inputs.tasks import Task

__all__ = ["DigitsDemo", "build_digits"]

WIDTH = 64
Split = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Recipe:
    """How a task changes the images and the labels."""

    about: str
    images: Callable[[Tensor], Tensor]
    labels: Callable[[Tensor], Tensor]
    classes: int = 10


def _noisy(images: Tensor) -> Tensor:
    """Images with strong fixed noise."""
    generator = torch.Generator().manual_seed(7)
    return images + 0.35 * torch.randn(images.shape, generator=generator)


def _rotated(images: Tensor) -> Tensor:
    """Images turned by 90 degrees."""
    return images.view(-1, 8, 8).rot90(1, (1, 2)).reshape(-1, 64)


def _same(value: Tensor) -> Tensor:
    return value


_LOOPS = torch.tensor([1, 0, 0, 0, 0, 0, 1, 0, 1, 1])

RECIPES = {
    "digits": Recipe("which digit, clean images", _same, _same),
    "noisy": Recipe("which digit, noisy images (aligned with digits)", _noisy, _same),
    "rotated": Recipe("which digit, images turned by 90 degrees", _rotated, _same),
    "parity": Recipe("odd or even, a head of its own", _same, lambda y: y % 2, 2),
    "loops": Recipe("has a closed loop (0, 6, 8, 9), a head of its own", _same, lambda y: _LOOPS[y], 2),
    "reversed": Recipe("9 minus the digit on the same images (contradicts digits)", _same, lambda y: 9 - y),
    "large": Recipe("five or more, a head of its own", _same, lambda y: (y >= 5).long(), 2),
}


@dataclass(frozen=True)
class DigitsDemo:
    """The problem on probe examples, and the same tasks on test examples that no prediction sees.

    Attributes:
        problem: Base, experts and tasks over the probe examples.
        test: Tasks over the test examples.
        about: What each task is.
    """

    problem: MergeProblem
    test: dict[str, Task]
    about: dict[str, str]


def build_digits(
    *,
    steps: int = 150,
    seed: int = 0,
    tasks: Sequence[str] = tuple(RECIPES),
    progress: Callable[[str], None] = lambda message: None,
) -> DigitsDemo:
    """Pretrain a network on digits, fine-tune an expert for each task and set up the merge problem.

    Args:
        steps: Fine-tuning steps of each expert; pretraining takes twice as many.
        seed: Seed of initial weights, splits and batches.
        tasks: Which of the seven experts to train, by name.
        progress: Called with a line for each model trained.

    Returns:
        The problem with its probe and test tasks.
    """
    from sklearn.datasets import load_digits

    recipes = {name: RECIPES[name] for name in tasks}
    data = load_digits()
    images = torch.tensor(data.data, dtype=torch.float32) / 8 - 1
    labels = torch.tensor(data.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    train, probe, test = order[:900], order[900:1300], order[1300:]
    torch.manual_seed(seed)
    base = _network(10)
    progress("pretraining on 300 clean digits")
    _train(base, (images[train[:300]], labels[train[:300]]), 2 * steps, 3e-3, seed)
    experts, probes, tests = {}, {}, {}
    for name, recipe in recipes.items():
        progress(f"fine-tuning {name}: {recipe.about}")
        split = {key: (recipe.images(images[part]), recipe.labels(labels[part])) for key, part in
                 {"train": train, "probe": probe, "test": test}.items()}  # fmt: skip
        model = _expert(base, recipe, split["train"], steps, seed)
        experts[name] = dict(model.state_dict())
        probes[name] = Task.from_module(name, model, nn.functional.cross_entropy, split["probe"], batch_size=400)
        tests[name] = Task.from_module(name, model, nn.functional.cross_entropy, split["test"], batch_size=500)
    problem = MergeProblem(dict(base.state_dict()), experts, probes, private=["head.*"])
    tests = {name: task.bind(problem.private[name]) for name, task in tests.items()}
    return DigitsDemo(problem, tests, {name: recipe.about for name, recipe in recipes.items()})


def _network(classes: int) -> nn.Module:
    """A smooth network, so that it has a Hessian everywhere."""
    layers = {
        "first": nn.Linear(64, WIDTH),
        "act1": nn.GELU(),
        "second": nn.Linear(WIDTH, WIDTH),
        "act2": nn.GELU(),
        "third": nn.Linear(WIDTH, WIDTH),
        "act3": nn.GELU(),
        "head": nn.Linear(WIDTH, classes),
    }
    network = nn.Sequential()
    for name, layer in layers.items():
        network.add_module(name, layer)
    return network


def _expert(base: nn.Module, recipe: Recipe, data: Split, steps: int, seed: int) -> nn.Module:
    """Fine-tune the body with a fixed head: the base's for digits, a linear probe for the other labels."""
    model = copy.deepcopy(base)
    head = model.get_submodule("head")
    if recipe.classes != 10:
        model.head = nn.Linear(WIDTH, recipe.classes)
        head = model.get_submodule("head")
        _train(model, data, steps, 1e-2, seed, list(head.parameters()))
    head.requires_grad_(False)
    body = [value for value in model.parameters() if value.requires_grad]
    _train(model, data, steps, 1e-3, seed, body)
    return model.requires_grad_(True)


def _train(
    model: nn.Module,
    data: Split,
    steps: int,
    rate: float,
    seed: int,
    parameters: list[nn.Parameter] | None = None,
) -> None:
    """Train in place with AdamW on shuffled batches of 64."""
    optimiser = torch.optim.AdamW(parameters or model.parameters(), lr=rate, weight_decay=0.0)
    with _one_thread():
        for inputs, targets in _batches(data, steps, seed):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimiser.step()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Batches this small lose more to waking threads than they gain, and one thread gives the same result anywhere."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _batches(data: Split, steps: int, seed: int) -> Iterator[Split]:
    """Yield random batches."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(data[1]), (64,), generator=generator)
        yield data[0][rows], data[1][rows]
