"""Several processes that share the work (torch.distributed): who does what, and how the results come together.

Every process calls the same functions with the same arguments. Inside ``with data_parallel():`` a measure hands its
batches out in turn, each process works on its own, and all of them end up with the whole result. An error on one
process is raised on all: none is left waiting for an answer that will not come.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from diagnostics.errors import InputError, ProcessError

__all__ = ["Team", "data_parallel", "launched", "team"]

T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True)
class Team:
    """The processes that share the work; one alone by default.

    Attributes:
        rank: This process's number, from 0.
        size: How many there are.
        group: Their group, where there are several.
        outer: The team whose work this process does a part of by itself.

    Example:
        >>> list(Team(rank=1, size=3).mine("abcdef"))
        ['b', 'e']
        >>> Team().total(lambda: [torch.ones(2)])
        [tensor([1., 1.])]
    """

    rank: int = 0
    size: int = 1
    group: Any = None
    outer: Team | None = None

    def mine(self, items: Iterable[T]) -> Iterator[T]:
        """Return the items that this process works on: every ``size``-th.

        Args:
            items: All items, in the same order on every process.

        Returns:
            Its own.
        """
        return islice(items, self.rank, None, self.size)

    def total(self, work: Callable[[], Sequence[Tensor]]) -> Sequence[Tensor]:
        """Return the sums over processes of the tensors that each makes.

        Args:
            work: Makes this process's tensors, of the same shapes on every process. They are overwritten.

        Returns:
            The sums, bit for bit the same on every process.

        Raises:
            ProcessError: Another process failed, or is gone.
        """
        local = self._together(work)
        if self.size > 1:
            with _reachable():
                for tensor in local:
                    dist.all_reduce(tensor, group=self.group)
        return local

    def collect(self, items: Iterable[S], work: Callable[[S], T]) -> list[T]:
        """Return what a function gives for each item, the items handed out in turn.

        Args:
            items: The items, in the same order on every process.
            work: The function; what it returns must be picklable.

        Returns:
            The results in the order of the items, on every process.

        Raises:
            ProcessError: Another process failed, or is gone.
        """
        local = self._together(lambda: [work(item) for item in self.mine(items)])
        if self.size == 1:
            return local
        parts: list[list[T]] = [[] for _ in range(self.size)]
        with _reachable():
            dist.all_gather_object(parts, local, group=self.group)
        count = sum(map(len, parts))
        return [parts[index % self.size][index // self.size] for index in range(count)]

    def each(self, items: Sequence[S], work: Callable[[S], T]) -> list[T]:
        """Return what a function gives for each item, whose own work may be shared.

        Whole items are handed out where there is one for every process: that needs the fewest messages. Otherwise
        all processes work on each item together.

        Args:
            items: The items, in the same order on every process.
            work: The function; what it returns must be picklable, and it must keep nothing that it does not return.

        Returns:
            The results in the order of the items, on every process.

        Raises:
            ProcessError: Another process failed, or is gone.
        """
        return self.collect(items, work) if len(items) >= self.size else [work(item) for item in items]

    def _together(self, work: Callable[[], T]) -> T:
        """Do this process's work by itself; if that fails on any process, fail on all."""
        if self.size == 1:
            return work()
        failure: Exception | None = None
        token = _TEAM.set(replace(ALONE, outer=self))  # what the work calls must not wait for the others
        try:
            result = work()
        except Exception as error:
            failure = error
        finally:
            _TEAM.reset(token)
        messages = self._failures(failure)
        if failure is not None:
            raise failure
        if messages:
            raise ProcessError("; ".join(messages) + ". Nothing was written; see that process's own message")
        return result

    def _failures(self, failure: Exception | None) -> list[str]:
        """What failed anywhere; a number is exchanged each time and words only where there are some."""
        with _reachable():
            failed = torch.tensor([failure is not None], dtype=torch.int64)
            dist.all_reduce(failed, group=self.group)
            if not int(failed):
                return []
            words: list[Any] = [None] * self.size
            own = None if failure is None else f"{type(failure).__name__}: {failure}"
            dist.all_gather_object(words, own, group=self.group)
        return [f"process {rank} of {self.size} failed ({each})" for rank, each in enumerate(words) if each]


ALONE = Team()
_TEAM: ContextVar[Team] = ContextVar("team", default=ALONE)


def team() -> Team:
    """Return the processes that share the work here.

    Returns:
        The team; this process alone outside of :func:`data_parallel`.

    Example:
        >>> team().size
        1
    """
    return _TEAM.get()


@contextmanager
def data_parallel(group: Any = None) -> Iterator[Team]:
    """Share the work of every measure in this block among the processes of a group.

    Start the script with ``torchrun --nproc-per-node N`` and call ``torch.distributed.init_process_group()`` first.
    Every process must run the block with the same models, data and settings; each gets the same results, equal to
    those of one process to rounding.

    Args:
        group: A process group; the default one if not given.

    Yields:
        The team; write files where its ``rank`` is 0.

    Raises:
        InputError: If there is no process group, or one that carries nothing but CUDA tensors.

    Example:
        >>> with data_parallel():  # doctest: +IGNORE_EXCEPTION_DETAIL
        ...     pass
        Traceback (most recent call last):
        diagnostics.errors.InputError: data_parallel: expected an initialised process group; found none.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise InputError(
            "data_parallel: expected an initialised process group; found none. Start the script with torchrun and "
            "call torch.distributed.init_process_group() first"
        )
    if dist.get_backend(group) == dist.Backend.NCCL:
        raise InputError(
            "data_parallel: expected a process group that carries tensors of the CPU too; found backend 'nccl'. Call "
            "init_process_group() without a backend, or with 'cpu:gloo,cuda:nccl'"
        )
    token = _TEAM.set(Team(dist.get_rank(group), dist.get_world_size(group), group))
    try:
        yield _TEAM.get()
    finally:
        _TEAM.reset(token)


@contextmanager
def launched() -> Iterator[Team]:
    """Share the work among the processes that torchrun started, where it did.

    Yields:
        The team; this process alone where torchrun started none.

    Example:
        >>> with launched() as crew:
        ...     crew.size
        1
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield team()
        return
    dist.init_process_group()
    try:
        with data_parallel() as crew:
            yield crew
    finally:
        dist.destroy_process_group()


@contextmanager
def _reachable() -> Iterator[None]:
    """Say what it means that a message did not get through."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessError(
            f"another process did not answer: it has ended, or it is doing other work than this one ({error}). "
            "Nothing was written; see the other processes' messages, and run again"
        ) from error
