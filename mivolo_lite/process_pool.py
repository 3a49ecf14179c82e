"""Pools of worker processes that end with their parent process."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from mivolo_lite.errors import MachineError
from mivolo_lite.processes import live_as_worker
from mivolo_lite.system import MOST_IN_POOL


@contextmanager
def worker_pool(count: int, begin: Callable[..., None] | None = None, arguments: tuple = ()) -> Iterator:
    """A ``ProcessPoolExecutor`` of ``count`` processes, each of which calls ``begin(*arguments)`` first.

    There are fewer if the system limits them. An exception within ``with`` ends them at once.

    Raises:
        MachineError: a process was killed.
    """
    earlier_children = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(min(count, MOST_IN_POOL), initializer=_begin, initargs=(begin, arguments))
    try:
        yield pool
    except BaseException as error:
        for process in set(multiprocessing.active_children()) - earlier_children:
            process.kill()
        pool.shutdown(cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise MachineError(
                f"one of {count} worker processes was killed: if memory ran out (`dmesg` tells), use fewer --workers"
            ) from None
        raise
    pool.shutdown()


@contextmanager
def worker_map(count: int) -> Iterator[Callable[..., Iterator]]:
    """``map`` in ``count`` processes, or in this one for 1, since starting a process takes longer than most such
    work."""
    if count <= 1:
        yield map
        return
    with worker_pool(count) as pool:
        yield pool.map


def _begin(begin: Callable[..., None] | None, arguments: tuple) -> None:
    live_as_worker()
    if begin is not None:
        begin(*arguments)
