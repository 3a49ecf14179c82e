"""Signals that a run must end soon: before its time limit, to make room for another job, or by Ctrl-C.

A handler only records the signal. All ranks learn of it between the same two steps, so that they save together.
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
"""Exit code of a run that was preempted and saved. EX_TEMPFAIL in sysexits.h: start it again, and it resumes."""
PREEMPTION_SIGNALS = signals("SIGUSR2", "SIGTERM")
"""Signals of batch systems, handled even if the parent shell ignored them."""
TERMINAL = signals("SIGINT", "SIGHUP")
"""Ctrl-C and a closed terminal, handled unless this process was started to ignore them, as by nohup."""

_received: list[int] = []


def listen() -> None:
    """Record preemption signals from now on. To be called before torch is imported, since a signal may come during
    that.

    The launcher's end counts as a signal as well: accelerate's ends at TERM or USR2, and its training would continue.
    """
    for signal_number in PREEMPTION_SIGNALS:
        signal.signal(signal_number, _receive)
    for signal_number in TERMINAL:
        if signal.getsignal(signal_number) is not signal.SIG_IGN:
            signal.signal(signal_number, _receive)
    # A closed terminal sends SIGHUP, and so does the shell in it. Python removes its handlers at exit, so the second
    # signal would change the exit code of a run that has saved.
    for hangup in signals("SIGHUP"):
        atexit.register(signal.signal, hangup, signal.SIG_IGN)
    launcher = find_launcher()
    if launcher is not None:
        signal_when_parent_ends(signal.SIGTERM)
        if os.getppid() != launcher.pid:  # the launcher ended before the call
            _received.append(signal.SIGTERM)


def run_training(command: Sequence[str]) -> tuple[int, bool]:
    """Run a training as a process. At a signal it saves and ends, and this process waits for it.

    Ctrl-C reaches the training by itself. It is not passed on, since a second one would end the training at once.

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
        if received:  # before the process existed
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
    """(2,) this rank's flags: whether it was preempted, and whether it requests a checkpoint.

    Args:
        accelerator: joins the ranks.
        save: whether this rank requests one. Only the main process's request counts.
    """
    import torch

    flags = (bool(_received), save and accelerator.is_main_process)
    # Not torch.tensor: copying a list to a GPU waits for the work queued there.
    return torch.stack([torch.full((), float(flag), device=accelerator.device) for flag in flags])


class Preemption:
    """Checks at every batch of an evaluation whether any rank was preempted. Training steps reduce their own flags.

    Args:
        accelerator: joins the ranks.
    """

    def __init__(self, accelerator: "Accelerator"):
        self.accelerator = accelerator
        self._pending: tuple[Any, Any] = ((False, False), None)

    def should_stop(self) -> bool:
        """Whether any rank had been preempted at the previous call; equal on all ranks.

        The result is one batch old, since its copy to the host started then: reading a new one waits for all work
        queued on the GPU. At every batch that left the GPU idle while the next was fetched, 13 ms of 130.
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
