"""A worker process: it runs tasks in order and sends back their results."""

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

    The threads of the queues in torch's DataLoader interrupt decoding: a worker needed 132 microseconds a sample with
    them, and 118 with pipes (benchmarks/results/loader_cpu.md). A pipe holds 64 KB. Tasks must be small, or this
    process and the worker wait for each other.

    Args:
        number: of the worker.
        work: computes the result of a task. It must not raise.
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
        for end in (tasks, results):  # the worker's end: when the worker ends, reading fails instead of waiting
            end.close()

    def send(self, task: Any) -> None:
        """Send a task. Raises MachineError if the worker died."""
        try:
            self._tasks.send(task)
        except OSError:
            raise self._death() from None

    def receive(self) -> Any:
        """The next result. Raises MachineError if the worker died."""
        try:
            return self._results.recv()
        except (EOFError, OSError):
            raise self._death() from None

    def stop(self) -> None:
        """Let the worker end after its current task, without waiting for it."""
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
    for end in others:  # otherwise a worker would wait for ever after its rank ended
        end.close()
    begin_worker(number)
    with suppress(EOFError, OSError):  # nobody reads its results any more
        while (task := tasks.recv()) is not None and not unneeded.value:
            results.send(work(task))


def begin_worker(worker: int) -> None:
    """Set up a loader's worker process: it uses one thread, and ends when its rank ends."""
    live_as_worker()
    # Some batch systems also signal a rank's children. A worker must not end then, or its rank fails before it saves.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    place_loader_worker(worker)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    # Until a much larger block was freed once, glibc returns an image's memory to the system. Page faults then take
    # more than a quarter of the time of augmenting the next image at 224 px.
    np.empty(2**24, np.uint8)


def end_workers_at_exit() -> None:
    """End this process's workers at exit, before Python sends them SIGTERM, which they ignore, and waits for ever.

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
