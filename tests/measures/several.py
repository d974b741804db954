"""Several processes that exchange numbers, played by threads of one process."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import distributed as dist

from diagnostics.measures.space import Space

GROUP = object()
# Nine numbers, of two tensors say, as two processes hold them.
PARTS = (((0, 3), (5, 7)), ((3, 5), (7, 9)))


def held_by(vector, rank):
    """The numbers of a vector that a process holds."""
    return torch.cat([vector[start:stop] for start, stop in PARTS[rank]])


def together(work):
    """What a function of rank and space gives in each of two processes, whose parameters are parts of nine numbers."""
    meeting, here, given = threading.Barrier(len(PARTS), timeout=30), threading.local(), {}

    def all_reduce(tensor, op=dist.ReduceOp.SUM, group=None):
        assert group is GROUP, "a message to other processes than those that hold the parts"
        given[here.rank] = tensor.clone()
        meeting.wait()
        every = torch.stack([given[rank] for rank in range(len(PARTS))])
        meeting.wait()  # nobody writes before everybody has read
        tensor.copy_({dist.ReduceOp.SUM: torch.sum, dist.ReduceOp.MAX: torch.amax}[op](every, dim=0))

    def space(rank):
        return Space(9, GROUP, PARTS[rank])

    def process(rank):
        here.rank = rank
        try:
            return work(rank, space(rank))
        except BaseException:
            meeting.abort()
            raise

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(len(PARTS)) as pool:
        patch.setattr(dist, "all_reduce", all_reduce)
        patch.setattr(Space, "of", lambda params: space(here.rank))
        return list(pool.map(process, range(len(PARTS))))
