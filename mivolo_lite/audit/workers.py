"""Worker processes that read members of shards."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import cv2

from mivolo_lite.process_pool import worker_pool
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.storage import ShardFiles

_files: list[ShardFiles] = []


class ShardWorkers:
    """Maps a function ``(files by folder, task) -> result`` over tasks, in ``count`` processes or, with 1, in this one.

    The function must be importable; a process opens shards once and keeps them.
    """

    def __init__(self, indexes: Sequence[ShardIndex], count: int):
        self.indexes, self.count = indexes, count

    def __enter__(self) -> "ShardWorkers":
        self._stack = ExitStack()
        several = self.count > 1
        self._pool = self._stack.enter_context(worker_pool(self.count, _start, (self.indexes,))) if several else None
        return self

    def __exit__(self, *error) -> bool | None:
        return self._stack.__exit__(*error)

    def map(self, function: Callable[[Sequence[ShardFiles], Any], Any], tasks: Sequence) -> Iterator:
        """The results in the order of the tasks."""
        if self._pool:
            return self._pool.map(_call, [function] * len(tasks), tasks)
        return map(partial(function, [ShardFiles(index) for index in self.indexes]), tasks)


def _start(indexes: Sequence[ShardIndex]) -> None:
    _files[:] = [ShardFiles(index) for index in indexes]
    cv2.setNumThreads(0)


def _call(function: Callable, task):
    return function(_files, task)
