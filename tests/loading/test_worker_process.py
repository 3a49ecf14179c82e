"""A worker: its order, its death and its end."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from mivolo_lite.errors import MachineError
from mivolo_lite.loading.worker_process import Worker

LARGE = 2**20
"""Bytes that no pipe holds."""


def work(task):
    return os.getpid(), bytes(task)


@pytest.fixture
def worker():
    worker = Worker(0, work)
    yield worker
    worker.stop()


def ended(worker, seconds=30):
    process, end = worker._process, time.monotonic() + seconds
    while process.is_alive() and time.monotonic() < end:
        time.sleep(0.02)
    return not process.is_alive()


def test_results_come_in_the_order_of_the_tasks(worker):
    for size in (3, LARGE, 0):
        worker.send(size)
    pids, results = zip(*(worker.receive() for _ in range(3)), strict=True)
    assert [len(result) for result in results] == [3, LARGE, 0] and len({os.getpid(), *pids}) == 2


@pytest.mark.parametrize("asked", ["send", "receive"])
def test_its_death_is_one_line(worker, asked):
    pid = worker._process.pid
    psutil.Process(pid).kill()
    with pytest.raises(MachineError, match=rf"worker \(pid {pid}\) was killed by SIGKILL: if memory ran out"):
        while True:
            worker.send(1) if asked == "send" else worker.receive()


def test_one_that_cannot_go_on_is_one_line():
    worker = Worker(0, lambda task: lambda: None)  # cannot be sent
    worker.send(1)
    with pytest.raises(MachineError, match="ended with exit code 1"):
        worker.receive()


@pytest.mark.parametrize("tasks", [[], [1], [LARGE] * 3])
def test_it_ends_when_it_is_no_longer_needed(tasks):
    """Also one that waits for its result to be read, while a later worker has the same pipes."""
    workers = [Worker(number, work) for number in range(2)]
    for worker in workers:
        for task in tasks:
            worker.send(task)
    for worker in workers:
        worker.stop()
    assert all(ended(worker) and worker._process.exitcode == 0 for worker in workers)


def test_it_ends_in_the_middle_of_a_result_that_nobody_reads():
    workers = [Worker(number, work) for number in range(2)]
    for worker in workers:
        worker.send(LARGE)
        assert worker._results.poll(30)  # it sends, and waits for a reader
    for worker in workers:
        worker.stop()
    assert all(ended(worker, 10) and worker._process.exitcode == 0 for worker in workers)


def test_a_batch_system_that_ends_it_is_not_heard(worker):
    worker.send(0)
    pid, _ = worker.receive()
    os.kill(pid, signal.SIGTERM)
    worker.send(0)
    assert worker.receive() == (pid, b"")


SERVED = """
import multiprocessing, psutil
from mivolo_lite.loading.worker_process import Worker
multiprocessing.set_start_method("forkserver")
worker = Worker(0, abs)
worker.send(-1)
worker.receive()
server = psutil.Process(worker._process.pid).parent()
print(any("libtorch" in file.path for file in server.memory_maps()))
worker.stop()
"""


@pytest.mark.slow
def test_a_server_that_forks_workers_has_imported_torch_for_all_of_them():
    """Python 3.14 starts them so."""
    assert subprocess.check_output([sys.executable, "-c", SERVED], text=True) == "True\n"
