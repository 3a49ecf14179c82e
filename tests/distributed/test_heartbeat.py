"""A rank that hangs or is cut off ends the others; one that only takes long does not."""

import os
import signal
import subprocess
import sys
import time
from unittest.mock import patch

import pytest
import torch.distributed as dist

from mivolo_lite.cli import main
from mivolo_lite.distributed import heartbeat
from mivolo_lite.distributed.heartbeat import Heartbeat, ending_together
from mivolo_lite.errors import MachineError, UserError
from tests.forked import forked_process, say_into
from tests.ports import free_ports
from tests.training.forked_ranks import run_launched
from tests.waiting import wait_until

PATIENCE = 10
"""Seconds of silence until a rank counts as lost."""


def work(rank, port, output, seconds):
    say_into(output)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo")
    heartbeat = Heartbeat(dist.get_rank(), 3, patience=PATIENCE)
    dist.barrier()
    print("up", flush=True)
    time.sleep(seconds)
    heartbeat.stop()
    dist.barrier()
    print("done", flush=True)


def is_up(output):
    return output.exists() and output.read_text() == "up\n"


@pytest.fixture
def ranks(tmp_path):
    """Starts three processes that are busy for some seconds. Gives them, and the files of what they say."""
    processes = []

    def start(seconds):
        (port,) = free_ports(1)
        said = [tmp_path / f"{rank}.out" for rank in range(3)]
        for rank in range(3):
            processes.append(forked_process(work, (rank, port, said[rank], seconds)))
            processes[-1].start()
        for output in said:
            wait_until(
                lambda output=output: output.exists() and output.read_text() == "up\n", 300, lambda: "all are up"
            )
        return processes, said

    yield start
    for process in processes:
        process.kill()
        process.join()


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_the_others_end_when_one_is_lost(ranks, lost):
    processes, said = ranks(300)
    os.kill(processes[lost].pid, signal.SIGSTOP)  # silent, with all its connections open
    began, other = time.monotonic(), (lost + 1) % 3
    processes[other].join(200)
    assert processes[other].exitcode == 1 and time.monotonic() - began > PATIENCE / 2
    assert f"no sign of life from rank {lost} for {PATIENCE} seconds" in said[other].read_text()


def train_and_fail(failing):
    def train(argv):
        dist.init_process_group("gloo")
        Heartbeat(dist.get_rank(), 3)
        with ending_together():
            if dist.get_rank() == failing:
                raise UserError("bad input")
            dist.barrier()

    with patch("mivolo_lite.cli.train.run", train):
        main(["train"])


def evaluate_and_fail(failing):
    def evaluate(options, is_main_process):
        if dist.get_rank() == failing:
            raise UserError("bad input")
        dist.barrier()

    with patch("mivolo_lite.cli.evaluate._evaluate", evaluate):
        main(["evaluate", "--checkpoint", "a", "--data", "b", "--out", "c"])


def evaluate_and_write(report):
    def evaluate(options, is_main_process):
        if is_main_process:
            time.sleep(1)
            report.touch()

    with patch("mivolo_lite.cli.evaluate._evaluate", evaluate):
        main(["evaluate", "--checkpoint", "a", "--data", "b", "--out", "c"])
    assert report.exists()


HANGS = """
import time
from mivolo_lite.distributed.heartbeat import Heartbeat
heartbeat = Heartbeat(0, 1)
with heartbeat.working():
    time.sleep(3)
    heartbeat.progress()
    time.sleep(600)
"""
EXIT_HANGS = """
import atexit, time
from mivolo_lite.distributed import heartbeat
heartbeat.GRACE = 1
heartbeat.Heartbeat(0, 1)
atexit.register(time.sleep, 600)
"""


@pytest.mark.slow
@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize("work_and_fail", [train_and_fail, evaluate_and_fail])
def test_the_others_end_and_say_why_when_one_fails(work_and_fail, failing, tmp_path):
    codes, _ = run_launched("ddp", 3, work_and_fail, (failing,), tmp_path, timeout=200)
    for rank, code in enumerate(codes):
        said = (tmp_path / f"rank-{rank}.out").read_text()
        line = [line for line in said.splitlines() if line.startswith("mivolo-lite: ")]
        assert "Traceback" not in said and len(line) == 1, said
        if rank == failing:
            assert code == 2 and line == ["mivolo-lite: bad input"]
        else:
            assert code == 1 and f"rank {rank} ends: rank {failing} failed (bad input)" in line[0]


@pytest.mark.slow
def test_no_rank_of_an_evaluation_ends_while_rank_0_writes(tmp_path):
    """Rank 0 would take it for lost."""
    codes, said = run_launched("ddp", 2, evaluate_and_write, (tmp_path / "report",), tmp_path, timeout=200)
    assert codes == [0, 0], said


@pytest.mark.slow
@pytest.mark.parametrize("code, said", [(HANGS, "nothing was done for 1 seconds, at "), (EXIT_HANGS, "did not end")])
def test_a_process_whose_main_thread_hangs_is_ended(code, said):
    environment = os.environ | {"MIVOLO_HANG_TIMEOUT": "1"}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200)
    assert process.returncode == 1 and said in process.stderr


@pytest.mark.slow
def test_busy_ranks_are_left_alone(ranks):
    processes, said = ranks(1.5 * PATIENCE)
    for process in processes:
        process.join(200)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert all(output.read_text() == "up\ndone\n" for output in said)


def test_a_connection_that_breaks_in_an_evaluation_is_one_line(monkeypatch):
    monkeypatch.setattr(heartbeat, "_running", [])
    broken = "[/gloo/transport/tcp/pair.cc:545] Read error [n2]:31: Connection reset by peer. This is typically"
    reason = r"broke \(Read error \[n2\]:31: Connection reset by peer\)$"
    with pytest.raises(MachineError, match=reason), ending_together():
        raise RuntimeError(broken)
    with pytest.raises(RuntimeError, match="a bug"), ending_together():
        raise RuntimeError("a bug")
