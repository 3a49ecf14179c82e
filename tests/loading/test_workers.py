"""A loader's workers: what goes wrong in them, in one line, and how they end."""

import signal
import subprocess
import sys

import psutil
import pytest

from mivolo_lite.errors import MachineError, UserError, in_one_line
from mivolo_lite.loading.workers import as_user_error
from tests.training.launching import REPOSITORY


def test_what_a_worker_raises_is_one_line_with_the_exit_code_of_its_kind():
    gone = FileNotFoundError(2, "No such file or directory", "a.tar")
    assert str(as_user_error(gone)) == "a.tar: No such file or directory" and as_user_error(gone).exit_code == 1
    bad = UserError("bad input")
    assert as_user_error(bad) is bad and bad.exit_code == 2
    try:
        raise ValueError("a\nb")
    except ValueError as error:
        line = str(as_user_error(error))
    assert line.startswith("a loader's worker failed: ValueError: a b (") and "test_workers.py, line" in line


def test_what_torch_says_of_a_dead_worker_is_one_line():
    dead = in_one_line(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "))
    assert isinstance(dead, MachineError) and "pid 7" in str(dead) and "--shm-size" in str(dead)
    assert in_one_line(RuntimeError("shapes differ")) is None


READS = """
import sys
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.loading.workers import eval_loader
batches = iter(eval_loader(ShardIndex.load(sys.argv[1]), ("face",), 16, 1, workers=2))
next(batches)
print("reads", flush=True)
sys.stdin.readline()
for batch in batches:
    pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_ends_whatever_becomes_of_its_workers(people, number):
    """A worker that is killed ends it; that of SIGTERM is left to its rank. Neither hangs at the end."""
    command = [sys.executable, "-c", READS, str(people / "train")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=REPOSITORY, **pipes)
    assert process.stdout.readline() == "reads\n"
    workers = psutil.Process(process.pid).children()
    workers[0].send_signal(number)
    _, said = process.communicate("on\n", timeout=300)
    killed = number == signal.SIGKILL
    assert (
        process.returncode == killed
        and (f"a loader's worker (pid {workers[0].pid}) was killed by SIGKILL" in said) == killed
    )
    assert not any(worker.is_running() for worker in workers)
