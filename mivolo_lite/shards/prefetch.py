"""Which blocks of remote shards to fetch before they are needed, and the threads that fetch them."""

import os
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import count
from threading import Lock, Thread
from typing import TypeVar

import numpy as np

from mivolo_lite.errors import UserError
from mivolo_lite.shards.sample_ref import SampleRef

BlockName = TypeVar("BlockName", bound=Hashable)

NOW, AHEAD = 0, 1
"""Urgency of a block: what is needed now goes first."""

_SAMPLES_AHEAD = 32768  # two windows; all blocks of a small data set are known soon
_BLOCKS_REMEMBERED = 4096  # which were fetched for the latest batches


def blocks_ahead(
    batches: Iterable[Sequence[SampleRef]], blocks_of: Callable[[np.ndarray], Sequence[BlockName]], readahead: int
) -> Iterator[tuple[Sequence[SampleRef], Sequence[BlockName]]]:
    """Each batch, with the blocks of later batches to prefetch while it is read, each once.

    Args:
        batches: what will be read.
        blocks_of: the blocks in which samples lie.
        readahead: how many blocks to know before a batch needs them.
    """
    waiting: deque[tuple[Sequence[SampleRef], int]] = deque()
    fetch: list[BlockName] = []
    ahead, samples_ahead = 0, 0
    recent: dict[BlockName, None] = {}  # the blocks of the latest batches
    for refs in batches:
        blocks = blocks_of(np.array([ref.sample for ref in refs]))
        new_blocks = [block for block in blocks if block not in recent]
        for block in blocks:
            recent.pop(block, None)
            recent[block] = None
        while len(recent) > _BLOCKS_REMEMBERED:
            recent.pop(next(iter(recent)))
        fetch += new_blocks
        waiting.append((refs, len(new_blocks)))
        ahead, samples_ahead = ahead + len(new_blocks), samples_ahead + len(refs)
        while waiting and (ahead - waiting[0][1] >= readahead or samples_ahead > _SAMPLES_AHEAD):
            refs, batch_blocks = waiting.popleft()
            ahead, samples_ahead = ahead - batch_blocks, samples_ahead - len(refs)
            yield refs, fetch
            fetch = []
    for refs, _ in waiting:
        yield refs, fetch
        fetch = []


class FetchThreads:
    """Threads of one process that fetch blocks, the most urgent first. They end when no blocks are left."""

    def __init__(self, make: Callable[[int], None], limit: int):
        self.make, self.limit, self.process = make, limit, os.getpid()
        self._tasks: list[tuple[int, int, int]] = []
        self._order, self._running, self._lock = count(), 0, Lock()

    def add(self, blocks: Iterable[int], urgency: int) -> None:
        with self._lock:
            for block in blocks:
                heappush(self._tasks, (urgency, next(self._order), block))
            while self._running < min(self.limit, len(self._tasks)):
                self._running += 1
                Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while (block := self._next()) is not None:
            try:
                self.make(block)
            except UserError:
                pass  # the reader that needs the block raises the same error

    def _next(self) -> int | None:
        with self._lock:
            if self._tasks:
                return heappop(self._tasks)[-1]
            self._running -= 1
            return None
