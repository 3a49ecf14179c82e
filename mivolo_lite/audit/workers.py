"""Worker processes that read members of shards."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import cv2

from mivolo_lite.process_pool import worker_pool
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.storage import ShardFiles

_files: list[ShardFiles] = []


Map = Callable[[Callable[[Sequence[ShardFiles], Any], Any], Sequence], Iterator]
"""Maps a function ``(files by folder, task) -> result`` over tasks, in order."""


@contextmanager
def shard_workers(indexes: Sequence[ShardIndex], count: int) -> Iterator[Map]:
    """A ``Map`` in ``count`` processes, or in this one for 1. Each opens the shards once.

    The function must be importable.
    """
    if count <= 1:
        yield lambda function, tasks: map(partial(function, [ShardFiles(index) for index in indexes]), tasks)
        return
    with worker_pool(count, _start, (indexes,)) as pool:
        yield lambda function, tasks: pool.map(partial(_call, function), tasks)


def _start(indexes: Sequence[ShardIndex]) -> None:
    _files[:] = [ShardFiles(index) for index in indexes]
    cv2.setNumThreads(0)


def _call(function: Callable[..., Any], task: Any) -> Any:
    return function(_files, task)
