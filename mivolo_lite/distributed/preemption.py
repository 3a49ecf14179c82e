"""Signals that a run must end soon: before its time limit, before it makes room for another job, or by Ctrl-C.

A handler only notes the signal. All ranks hear of it between the same two steps, so that they save together.
"""

import os
import signal

from mivolo_lite.output import drop_lost_outputs
from mivolo_lite.processes import find_launcher, signal_when_parent_ends

EXIT_CODE = 75
"""Of a run that was preempted and saved. EX_TEMPFAIL in sysexits.h: start it again, and it resumes."""
PREEMPTION_SIGNALS = (signal.SIGUSR2, signal.SIGTERM)
"""What batch systems send, heeded even where the shell before this process ignored it until now."""
TERMINAL = (signal.SIGINT, signal.SIGHUP)
"""Ctrl-C and a closed terminal, heeded unless this process was started to ignore them, as by nohup."""

_noted: list[int] = []


def listen() -> None:
    """Note preemption signals from now on. Needs to be called before torch is imported: a signal may come in those
    seconds.

    A launcher that ends is one as well. accelerate's ends at TERM or USR2, and its training continued without it.
    """
    for number in PREEMPTION_SIGNALS:
        signal.signal(number, _note)
    for number in TERMINAL:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _note)
    launcher = find_launcher()
    if launcher is not None:
        signal_when_parent_ends(signal.SIGTERM)
        if os.getppid() != launcher.pid:  # it ended before Linux was asked
            _noted.append(signal.SIGTERM)


def noted() -> bool:
    """Whether this process was preempted."""
    return bool(_noted)


def _note(number: int, _frame) -> None:
    if number in TERMINAL:
        drop_lost_outputs()
    if number == signal.SIGINT:
        if number in _noted:
            os._exit(128 + number)
        os.write(2, b"\ninterrupted: the run saves and ends; another Ctrl-C ends it at once\n")
    _noted.append(number)


class Preemption:
    """Asks all ranks, at every step, whether one of them was preempted.

    Args:
        accelerator: joins the ranks.
    """

    def __init__(self, accelerator):
        self.accelerator = accelerator
        self._asked: tuple = (False, None)

    def should_stop(self) -> bool:
        """Whether any rank had been preempted when this was called last; all ranks get the same answer.

        It is a step old, and its copy was ordered then: reading one that is still on the GPU waits for all that the GPU
        was given since. Doing so at every step kept it from working while the next batch was fetched, 13 ms of 130.
        """
        (heard, copied), self._asked = self._asked, self._ask()
        if copied is not None:
            copied.synchronize()
        return bool(heard)

    def _ask(self) -> tuple:
        """The ranks' answer on its way to the host, and what tells when it is there; None where it is at once."""
        import torch

        device = self.accelerator.device
        noted = torch.full((), float(bool(_noted)), device=device)
        heard = self.accelerator.reduce(noted).to("cpu", non_blocking=True)
        if device.type != "cuda":
            return heard, None
        copied = torch.cuda.Event()
        copied.record()
        return heard, copied
