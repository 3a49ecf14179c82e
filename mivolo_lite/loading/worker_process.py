"""A worker: a process that does what it is sent, one thing after another, and sends back what came of it."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from ctypes import c_bool
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

import cv2
import numpy as np
import torch
from torch import multiprocessing

from mivolo_lite.distributed.affinity import place_loader_worker
from mivolo_lite.errors import MachineError, worker_died
from mivolo_lite.processes import live_as_worker
from mivolo_lite.system import signals


class Worker:
    """A process with a pipe for its tasks and one for its results, both in order.

    torch's DataLoader has queues, whose threads take turns with decoding: a worker needed 132 microseconds a sample,
    and needs 118 now (benchmarks/results/loader_cpu.md). A pipe holds 64 KB: tasks must be small, or this process waits
    for a worker that waits for this process.

    Args:
        number: of the worker.
        work: its result for a task. It must not raise.
    """

    def __init__(self, number: int, work: Callable[[Any], Any]):
        context = multiprocessing.get_context()
        if context.get_start_method() == "forkserver":  # by default from Python 3.14 on; torch takes seconds to import
            context.set_forkserver_preload(["__main__", "mivolo_lite.loading.workers"])
        tasks, self._tasks = context.Pipe(duplex=False)
        self._results, results = context.Pipe(duplex=False)
        self._unneeded = context.RawValue(c_bool, False)
        others = self._tasks, self._results
        arguments = number, work, tasks, results, others, self._unneeded
        self._process: BaseProcess = context.Process(target=_run, args=arguments, daemon=True)
        self._process.start()
        for end in (tasks, results):  # the worker's own: once it ends, nobody writes its results
            end.close()

    def send(self, task: Any) -> None:
        """Give it a task. Raises MachineError where it died."""
        try:
            self._tasks.send(task)
        except OSError:
            raise self._death() from None

    def receive(self) -> Any:
        """Its next result. Raises MachineError where it died."""
        try:
            return self._results.recv()
        except (EOFError, OSError):
            raise self._death() from None

    def stop(self) -> None:
        """Let it end after what it is at, without waiting for that: it takes as long as to decode a batch."""
        self._unneeded.value = True
        with suppress(OSError):  # it died
            self._tasks.send(None)
        for end in (self._tasks, self._results):
            end.close()

    def _death(self) -> MachineError:
        self._process.join()
        code = self._process.exitcode
        how = f"was killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended with exit code {code}"
        return worker_died(f"a loader's worker (pid {self._process.pid}) {how}")


def _run(
    number: int,
    work: Callable[[Any], Any],
    tasks: Connection,
    results: Connection,
    others: tuple[Connection, Connection],
    unneeded: Any,
) -> None:
    for end in others:  # a worker that could read its own results would wait for ever for a reader that left
        end.close()
    begin_worker(number)
    with suppress(EOFError, OSError):  # nobody reads its results any more
        while (task := tasks.recv()) is not None and not unneeded.value:
            results.send(work(task))


def begin_worker(worker: int) -> None:
    """What a loader's worker process does first: it is one thread of work, and ends when its rank does."""
    live_as_worker()
    # Some batch systems warn a rank's children as well: a worker that ended then took its rank along, unsaved.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    place_loader_worker(worker)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    # Until a much larger block was freed once, glibc gives an image's memory back to the system when it is freed, and
    # each 4 KB of the next image are a page fault: more than a quarter of the time of augmenting it at 224 px.
    np.empty(2**24, np.uint8)


def end_workers_at_exit() -> None:
    """Let this process's workers end before Python waits for them: it would send them SIGTERM, and wait for ever.

    Where a run fails they have batches to decode, and nothing has told them to stop.
    """
    if _ends_workers != [os.getpid()]:  # a forked process has its own workers, and finalizers
        _ends_workers[:] = [os.getpid()]
        Finalize(None, _end_workers, exitpriority=100)


_ends_workers: list[int] = []


def _end_workers() -> None:
    for number in signals("SIGCHLD"):
        signal.signal(number, signal.SIG_DFL)  # torch would raise that a DataLoader's worker was killed
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()
