"""A rank that hangs or is cut off ends the others; one that only takes long does not."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.slurm.cluster import free_ports

RANK = """
import sys, time
import torch.distributed as dist
from mivolo_lite.training.heartbeat import Heartbeat
dist.init_process_group("gloo")
heartbeat = Heartbeat(dist.get_rank(), 3, patience=10)
dist.barrier()
print("up", flush=True)
time.sleep(float(sys.argv[1]))
heartbeat.stop()
dist.barrier()
print("done", flush=True)
"""


@pytest.fixture
def ranks():
    """Starts three processes that are busy for some seconds."""
    processes = []

    def start(seconds):
        (port,) = free_ports(1)
        for rank in range(3):
            environment = os.environ | {"RANK": str(rank), "WORLD_SIZE": "3"}
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            command = [sys.executable, "-c", RANK, str(seconds)]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            processes.append(subprocess.Popen(command, env=environment, **pipes))
        assert all(process.stdout.readline() == "up\n" for process in processes)
        return processes

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_the_others_end_when_one_is_lost(ranks, lost):
    processes = ranks(300)
    processes[lost].send_signal(signal.SIGSTOP)  # silent, with all its connections open
    began = time.monotonic()
    assert processes[(lost + 1) % 3].wait(timeout=60) == 1 and time.monotonic() - began > 5
    assert f"no sign of life from rank {lost} for 10 seconds" in processes[(lost + 1) % 3].stderr.read()


@pytest.mark.slow
def test_busy_ranks_are_left_alone(ranks):
    processes = ranks(15)
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert all(process.stdout.read() == "done\n" for process in processes)
