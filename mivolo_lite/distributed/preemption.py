"""Signals that a run must end soon: before its time limit, before it makes room for another job, or by Ctrl-C.

A handler only notes the signal. All ranks learn of it between the same two steps, so that they save together.
"""

import atexit
import os
import signal
import subprocess
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from mivolo_lite.output import drop_lost_outputs
from mivolo_lite.processes import find_launcher, signal_when_parent_ends
from mivolo_lite.system import signals

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

EXIT_CODE = 75
"""Of a run that was preempted and saved. EX_TEMPFAIL in sysexits.h: start it again, and it resumes."""
PREEMPTION_SIGNALS = signals("SIGUSR2", "SIGTERM")
"""What batch systems send, heeded even where the shell before this process ignored it until now."""
TERMINAL = signals("SIGINT", "SIGHUP")
"""Ctrl-C and a closed terminal, heeded unless this process was started to ignore them, as by nohup."""

_received: list[int] = []


def listen() -> None:
    """Note preemption signals from now on. Needs to be called before torch is imported: a signal may come in those
    seconds.

    A launcher that ends is one as well. accelerate's ends at TERM or USR2, and its training continued without it.
    """
    for signal_number in PREEMPTION_SIGNALS:
        signal.signal(signal_number, _receive)
    for signal_number in TERMINAL:
        if signal.getsignal(signal_number) is not signal.SIG_IGN:
            signal.signal(signal_number, _receive)
    # A closed terminal sends SIGHUP, and so does the shell in it. Python takes its handlers away as it ends: the second
    # one would end a run that has saved with another exit code.
    for hangup in signals("SIGHUP"):
        atexit.register(signal.signal, hangup, signal.SIG_IGN)
    launcher = find_launcher()
    if launcher is not None:
        signal_when_parent_ends(signal.SIGTERM)
        if os.getppid() != launcher.pid:  # it ended before Linux was asked
            _received.append(signal.SIGTERM)


def run_training(command: Sequence[str]) -> tuple[int, bool]:
    """Run a training as a process. At a signal it saves and ends, and this process waits for that.

    Ctrl-C reaches the training as well. A second one would end it at once, so that one is not passed on.

    Returns:
        Its exit code, and whether a signal came.
    """
    received: list[int] = []
    training: subprocess.Popen[bytes] | None = None

    def pass_on(signal_number: int, _frame: FrameType | None) -> None:
        received.append(signal_number)
        if training is not None and signal_number in PREEMPTION_SIGNALS:
            training.send_signal(signal_number)

    is_deaf = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    heeded = PREEMPTION_SIGNALS if is_deaf else (*PREEMPTION_SIGNALS, signal.SIGINT)
    earlier = {number: signal.signal(number, pass_on) for number in heeded}
    try:
        training = subprocess.Popen(command)
        if received:  # before there was anybody to pass it on to
            training.terminate()
        return training.wait(), bool(received)
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def preempted() -> bool:
    """Whether this process was preempted."""
    return bool(_received)


def _receive(signal_number: int, _frame: FrameType | None) -> None:
    if signal_number in TERMINAL:
        drop_lost_outputs()
    if signal_number == signal.SIGINT:
        if signal_number in _received:
            os._exit(128 + signal_number)
        os.write(2, b"\ninterrupted: the run saves and ends; another Ctrl-C ends it at once\n")
    _received.append(signal_number)


def own_flags(accelerator: "Accelerator", save: bool = False) -> "Tensor":
    """(2,) what this rank says to the others: that it was preempted, and that it asks for a checkpoint.

    Args:
        accelerator: joins the ranks.
        save: whether this rank asks. Only the main process is heard.
    """
    import torch

    flags = (bool(_received), save and accelerator.is_main_process)
    # Not torch.tensor: to copy a list to a GPU waits for the work queued there.
    return torch.stack([torch.full((), float(flag), device=accelerator.device) for flag in flags])


class Preemption:
    """Checks at every batch of an evaluation whether any rank was preempted; a training step shares its own flags.

    Args:
        accelerator: joins the ranks.
    """

    def __init__(self, accelerator: "Accelerator"):
        self.accelerator = accelerator
        self._pending: tuple[Any, Any] = ((False, False), None)

    def should_stop(self) -> bool:
        """Whether any rank had been preempted at the previous call; all ranks get the same answer.

        The answer is one batch old, and its copy to the host was started then: reading a fresh one waits for all work
        queued on the GPU since. Doing so at every batch left it idle while the next was fetched, 13 ms of 130.
        """
        (flags, copied), self._pending = self._pending, self._reduce()
        if copied is not None:
            copied.synchronize()
        return bool(flags[0])

    def _reduce(self) -> tuple:
        """The flags summed over the ranks, and the CUDA event after their copy to the host; None without a GPU."""
        import torch

        flags = self.accelerator.reduce(own_flags(self.accelerator))
        if not flags.is_cuda:
            return flags, None
        flags = flags.to("cpu", non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        return flags, copied
