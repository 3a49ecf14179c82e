"""Processes that share work out, and how they end."""

import os
import signal
import time

import pytest

from mivolo_lite import process_pool
from mivolo_lite.errors import MachineError, UserError
from mivolo_lite.process_pool import worker_map, worker_pool


def square(number):
    return number * number


def process_number(_):
    return os.getpid()


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(seconds):
    time.sleep(seconds)


def fail(_):
    raise UserError("bad input")


def test_work_is_done_in_its_order():
    with worker_pool(2) as pool:
        assert list(pool.map(square, range(5))) == [0, 1, 4, 9, 16]


def test_one_worker_is_this_process():
    with worker_map(1) as here, worker_map(2) as elsewhere:
        assert set(here(process_number, range(3))) == {os.getpid()}
        assert os.getpid() not in set(elsewhere(process_number, range(3)))


def test_a_killed_worker_is_one_line():
    with pytest.raises(MachineError, match="one of 2 worker processes was killed"), worker_pool(2) as pool:
        list(pool.map(die, range(2)))


@pytest.mark.parametrize("error", [UserError, KeyboardInterrupt])
def test_an_error_ends_workers_whatever_they_are_at(error):
    began = time.monotonic()
    with pytest.raises(error), worker_pool(2) as pool:
        busy = pool.submit(sleep, 500)
        if error is KeyboardInterrupt:
            raise KeyboardInterrupt
        list(pool.map(fail, range(2)))
    assert time.monotonic() - began < 300 and not busy.running()


def test_a_pool_has_no_more_processes_than_the_system_allows(monkeypatch):
    monkeypatch.setattr(process_pool, "MOST_IN_POOL", 1)
    with worker_pool(3) as pool:
        assert len(set(pool.map(process_number, range(6)))) == 1
