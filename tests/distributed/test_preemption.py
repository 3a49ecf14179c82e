"""When the ranks hear of a warning."""

import os
import pty
import signal
import subprocess
import sys

import pytest
import torch

from mivolo_lite.distributed import preemption
from mivolo_lite.distributed.preemption import Preemption, own_flags


class OneRank:
    """Stands for an accelerator of one process."""

    def __init__(self, device, is_main_process=True):
        self.device, self.is_main_process = torch.device(device), is_main_process

    def reduce(self, tensor):
        return tensor.clone()


@pytest.fixture
def received(monkeypatch):
    monkeypatch.setattr(preemption, "_received", [])
    return preemption._received


def test_a_warning_is_heard_one_call_later_and_from_then_on(received):
    should_stop = Preemption(OneRank("cpu")).should_stop
    assert [should_stop(), should_stop()] == [False, False]
    received.append(signal.SIGUSR2)
    assert [should_stop(), should_stop(), should_stop()] == [False, True, True]


def test_the_main_process_asks_for_a_save_and_no_other(received):
    assert own_flags(OneRank("cpu"), save=True).tolist() == [0, 1]
    assert own_flags(OneRank("cpu", is_main_process=False), save=True).tolist() == [0, 0]
    received.append(signal.SIGUSR2)
    assert own_flags(OneRank("cpu")).tolist() == [1, 0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_asking_does_not_wait_for_what_the_gpu_was_given_since(received):
    should_stop, done = Preemption(OneRank("cuda")).should_stop, torch.cuda.Event()
    received.append(signal.SIGUSR2)
    assert not should_stop()
    torch.cuda._sleep(10**10)  # cycles: some seconds
    done.record()
    assert should_stop() and not done.query()


LISTENS = """
import sys, time
from mivolo_lite.output import losable_output
from mivolo_lite.distributed.preemption import listen, preempted
listen()
print("listens", flush=True)
while not preempted():
    time.sleep(0.02)
with losable_output():
    print("saves", flush=True)
with losable_output():
    print("saves", file=sys.stderr, flush=True)
time.sleep(float(sys.argv[1]))
sys.exit(75)
"""


def heed_the_terminal():
    """As in a terminal, whatever the tests themselves were started with: nohup would have SIGHUP ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def listener(seconds=0.0, prefix=(), **options):
    command = [*prefix, sys.executable, "-c", LISTENS, str(seconds)]
    heeding = {"preexec_fn": heed_the_terminal}
    return subprocess.Popen(
        command, text=True, **(heeding | {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options)
    )


def test_the_first_ctrl_c_is_a_warning_and_the_second_ends_at_once():
    process = listener(seconds=60)
    assert process.stdout.readline() == "listens\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "saves\n"
    process.send_signal(signal.SIGTERM)  # as torchrun adds to the terminal's
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "another Ctrl-C ends it at once" in said and "Traceback" not in said


@pytest.mark.slow
def test_nohup_goes_on_when_its_terminal_closes():
    process = listener(prefix=["nohup"], stdin=subprocess.DEVNULL)
    assert process.stdout.readline() == "listens\n"
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75


def test_a_terminal_that_is_gone_is_no_error():
    terminal, its = pty.openpty()
    process = listener(stdin=its, stdout=its, stderr=its, start_new_session=True)
    os.close(its)
    said = b""
    while not said.endswith(b"\n"):  # a line may come in pieces, and closing amid it would be an error of its own
        said += os.read(terminal, 100)
    os.close(terminal)  # what it prints is an input/output error from now on
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 75


def test_a_pipe_that_nobody_reads_is_no_error():
    process = listener()
    assert process.stdout.readline() == "listens\n"
    process.stdout.close()  # as `tee` is ended by the same Ctrl-C
    process.stderr.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 75
