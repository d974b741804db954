"""Cases that many tests share: spectra, small models and losses."""

from __future__ import annotations

import numpy as np
import torch

from diagnostics import Task

SPECTRA = {
    "indefinite": [3.0, -5.0, 1.0, 0.1],
    "tied": [2.0, -2.0, 1.0],
    "nearly tied": [2.0, -1.99, 1.0],
    "singular": [0.0, 0.0, 0.0, 4.0],
    "zero": [0.0, 0.0, 0.0],
    "one dimension": [-3.0],
    "repeated": [1.0, 1.0, 1.0, 1.0],
    "outlier": [100.0, *np.linspace(-1, 1, 60)],
    "clustered top": [*np.linspace(0.99, 1.0, 30), *np.linspace(-0.5, 0.5, 30)],
}


def rotated(spectrum: list[float], seed: int = 0) -> torch.Tensor:
    """A symmetric matrix with this spectrum in a random basis, float64."""
    generator = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(generator.normal(size=(len(spectrum), len(spectrum))))
    matrix = basis @ np.diag(spectrum) @ basis.T
    return torch.tensor((matrix + matrix.T) / 2)


def small_network(seed: int = 0) -> torch.nn.Module:
    """A smooth float64 network with 26 parameters."""
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2), torch.nn.Tanh()).double()


def small_task(name: str = "task", seed: int = 0, count: int = 10, batch_size: int = 4) -> tuple[Task, dict]:
    """A classification task on random data and the parameters of its network."""
    model = small_network(seed)
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 2, (count,), generator=generator)
    task = Task.from_module(name, model, torch.nn.functional.cross_entropy, (inputs, targets), batch_size=batch_size)
    return task, {key: value.detach() for key, value in model.named_parameters()}
