"""Predicted outputs of one task at any coefficients, with their standard deviation, and what is read off them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diagnostics.inputs.tasks import Task
from diagnostics.measures.outputs import OutputTable, cost_of, design, readout_of
from diagnostics.results import Cost
from diagnostics.theory.coefficient_process import fit_process

__all__ = ["NODES", "Envelope", "Reading", "Surrogate"]

# Where on each ray outputs are measured for predictions at any coefficients.
NODES = (0.5, 1.0, 1.5)
_DRAWS = 16
# Predicted outputs held in memory at once while many coefficients are looked at.
_NUMBERS = 2**22


@dataclass(frozen=True)
class Reading:
    """Losses and scores of one version of the outputs, one value an example."""

    losses: Tensor
    scores: Tensor | None

    @property
    def loss(self) -> float:
        """Mean loss."""
        return float(self.losses.mean())

    @property
    def score(self) -> float:
        """Mean score; NaN without one."""
        return math.nan if self.scores is None else float(self.scores.mean())


@dataclass(frozen=True)
class Envelope:
    """How much losses and scores of single examples move within the uncertainty of their outputs.

    Attributes:
        loss: Mean absolute change of an example's loss.
        score: Mean absolute change of an example's score; NaN without one.
    """

    loss: float
    score: float


class Surrogate:
    """Outputs of one task predicted from a table of measured ones.

    Args:
        task: The task.
        table: Its measured outputs.
        own: The task's own expert.
        names: The experts that take part.
        gram: Inner products of the experts' vectors, [T, T].
        nodes: Where on each ray outputs are measured.
        expert: Outputs of the task's own expert, one tensor a batch.
    """

    def __init__(
        self,
        task: Task,
        table: OutputTable,
        own: str,
        names: Sequence[str],
        gram: np.ndarray,
        nodes: tuple[float, ...],
        expert: Sequence[Tensor],
    ) -> None:
        self.task, self.names = task, tuple(names)
        wanted = design(self.names, own, nodes)
        self.cost: Cost = cost_of(wanted)
        self._rows = [batch.double() for batch in table.read(wanted)]
        # Near its minimum a loss by itself is a parabola; outputs such as logits level off instead.
        unit = dict(zip([*self.names, ""], [*np.eye(len(names)), np.zeros(len(names))], strict=True))
        points = np.array([each.at * unit[each.expert] for each in wanted])
        directions = np.array([unit[each.along] for each in wanted])
        # How soon outputs bend is told by what partners do where the task's own expert stands.
        beside = np.array([each.expert == own and bool(each.along) for each in wanted])
        flat = torch.cat([rows.flatten(1) for rows in self._rows], dim=1)
        moments = (flat @ flat.T).numpy()
        self._process = fit_process(points, directions, gram, 1 if task.readout else 2, beside, moments)
        energy = torch.from_numpy(self._process.energy())
        self._variances = [_pooled(torch.einsum("n...,nm,m...->...", rows, energy, rows)) for rows in self._rows]
        self.expert = self.read([batch.double() for batch in expert])

    def outputs(self, coefficients: Mapping[str, float]) -> list[Tensor]:
        """Return the predicted outputs of every batch.

        Args:
            coefficients: λ by expert; zero where it is not named.

        Returns:
            One tensor a batch.
        """
        weights = torch.from_numpy(self._process.weights(self._points(coefficients))[0])
        return [torch.tensordot(weights, rows, dims=1) for rows in self._rows]

    def envelope(self, coefficients: Mapping[str, float]) -> Envelope:
        """Return how far losses and scores are open, example by example.

        Args:
            coefficients: λ by expert.

        Returns:
            Mean absolute changes under one standard deviation of normal noise on the outputs, over fixed draws.
        """
        return self.envelopes(self._points(coefficients))[0]

    def read(self, outputs: Sequence[Tensor]) -> Reading:
        """Read losses and scores off outputs.

        Args:
            outputs: One tensor a batch.

        Returns:
            The reading.
        """
        parts = [self._read(*each) for each in zip(outputs, self.task.batches, self.task.sizes, strict=True)]
        scores = [part.scores for part in parts if part.scores is not None]
        return Reading(torch.cat([part.losses for part in parts]), torch.cat(scores) if scores else None)

    def scan(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict mean loss and mean score at many coefficients, going through the data once.

        Args:
            points: λ of the experts in their order, one row a point, [K, T].

        Returns:
            Losses and scores, [K] each; scores are NaN for a task without them.
        """
        weights = torch.from_numpy(self._process.weights(points))
        sums, counts = np.zeros((2, len(points))), np.zeros(2)
        for batch, size, rows in zip(self.task.batches, self.task.sizes, self._rows, strict=True):
            # One product for many points, as many as memory should hold at once.
            chunks = weights.split(max(1, _NUMBERS // rows[0].numel()))
            parts = [self._read_many(torch.tensordot(chunk, rows, dims=1), batch, size) for chunk in chunks]
            for kind, values in enumerate(torch.cat(part) for part in zip(*parts, strict=True)):
                sums[kind] += values.sum(1).numpy()
                counts[kind] += values.shape[1]
        losses, scores = sums / counts[:, None]
        return losses, scores

    def envelopes(self, points: np.ndarray, reference: int | None = None) -> list[Envelope]:
        """Return :meth:`envelope` at many coefficients, or of differences from one of them.

        Errors at nearby points are much the same, so differences are known better than their parts.

        Args:
            points: λ of the experts in their order, one row a point, [K, T].
            reference: Row of the point that the others are compared with, if any.

        Returns:
            For each point, mean absolute changes over joint draws of the noise at all points.
        """
        covariance = self._process.covariance(points)
        if self.task.readout is None:  # the output is the loss: no draws are needed
            variances = np.diag(covariance)
            if reference is not None:
                variances = variances + variances[reference] - 2 * covariance[:, reference]
            return [Envelope(self._loss_spread(max(0.0, float(each))), math.nan) for each in variances]
        eigenvalues, vectors = np.linalg.eigh(covariance)
        root = torch.from_numpy(vectors * np.sqrt(eigenvalues.clip(0)))
        weights, generator = torch.from_numpy(self._process.weights(points)), torch.Generator().manual_seed(0)
        batches = [
            (torch.tensordot(weights, rows, dims=1), variance.clamp_min(0).sqrt(), batch, size)
            for rows, variance, batch, size in zip(
                self._rows, self._variances, self.task.batches, self.task.sizes, strict=True
            )
        ]
        centers = [self._read_many(outputs, batch, size) for outputs, _, batch, size in batches]
        sums, counts = np.zeros((2, len(points))), np.zeros(2)
        for _ in range(_DRAWS):
            draws = _noise([outputs for outputs, *_ in batches], generator)
            for (outputs, deviation, batch, size), center, draw in zip(batches, centers, draws, strict=True):
                moved = self._read_many(outputs + deviation * torch.tensordot(root, draw, dims=1), batch, size)
                for kind, change in enumerate(new - old for new, old in zip(moved, center, strict=True)):
                    apart = change if reference is None else change - change[reference]
                    sums[kind] += apart.abs().sum(1).numpy()
                    counts[kind] += apart.shape[1]
        return [Envelope(float(loss), float(score)) for loss, score in (sums / counts[:, None]).T]

    def _points(self, coefficients: Mapping[str, float]) -> np.ndarray:
        """One point as a row; an expert that is not named has coefficient zero."""
        return np.array([[coefficients.get(name, 0.0) for name in self.names]])

    def _loss_spread(self, variance: float) -> float:
        """Standard deviation of a mean loss that is itself the output, all its batches moving together."""
        shares = torch.tensor(self.task.sizes).double() / self.task.examples
        spreads = [(variance * each.clamp_min(0)).sqrt().mean() for each in self._variances]
        return float((shares * torch.stack(spreads)).sum())

    def _read(self, outputs: Tensor, batch: Any, size: int) -> Reading:
        """Losses and scores of one batch."""
        readout = readout_of(self.task)
        scores = None if readout.score is None else readout.score(outputs, batch).double()
        return Reading(_spread(readout.losses(outputs, batch), size), scores)

    def _read_many(self, outputs: Tensor, batch: Any, size: int) -> tuple[Tensor, Tensor]:
        """Losses and scores of one batch at several points; NaN stands for scores that the task does not have."""
        readout = readout_of(self.task)
        losses = _at_each(lambda out: _spread(readout.losses(out, batch), size), outputs)
        score = readout.score
        if score is None:
            return losses, torch.full((len(outputs), 1), math.nan, dtype=torch.float64)
        return losses, _at_each(lambda out: score(out, batch).double(), outputs)


def _noise(outputs: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Normal noise of the shapes [K, examples, …] given; an example's does not depend on how batches are cut."""
    sizes = [each[0].numel() for each in outputs]
    parts = torch.randn(len(outputs[0]), sum(sizes), generator=generator, dtype=torch.float64).split(sizes, dim=1)
    return [part.reshape(each.shape) for part, each in zip(parts, outputs, strict=True)]


def _at_each(read: Callable[[Tensor], Tensor], outputs: Tensor) -> Tensor:
    """Read all points in one call; a function that looks at single numbers is called point by point."""
    try:
        return torch.func.vmap(read)(outputs)
    except RuntimeError:
        return torch.stack([read(each) for each in outputs])


def _pooled(variances: Tensor) -> Tensor:
    """σ² of an example's outputs, their mean: one output alone gives too rough an estimate."""
    return variances.mean(-1, keepdim=True) if variances.ndim > 1 else variances


def _spread(losses: Tensor, size: int) -> Tensor:
    """One loss an example; a batch that gives a single mean counts for all its examples."""
    return losses.double() if len(losses) == size else losses.double().expand(size)
