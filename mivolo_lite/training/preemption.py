"""Warnings that a run must end soon: a signal before its time limit, or before it makes room for another job.

A handler only notes the warning. All ranks hear of it between the same two steps, so that they save together.
"""

import signal

EXIT_CODE = 75
"""Of a run that was warned and saved. EX_TEMPFAIL in sysexits.h: start it again, and it goes on."""
WARNINGS = (signal.SIGUSR2, signal.SIGTERM)

_noted: list[int] = []


def listen() -> None:
    """Note warnings from now on. Needs to be called before torch is imported: a warning may come in those seconds."""
    for warning in WARNINGS:
        signal.signal(warning, lambda number, _: _noted.append(number))


class Preemption:
    """Asks all ranks, at every step, whether one of them was warned.

    Args:
        accelerator: joins the ranks.
    """

    def __init__(self, accelerator):
        self.accelerator = accelerator
        self._asked: tuple = (False, None)

    def warned(self) -> bool:
        """Whether any rank had been warned when this was called last; all ranks get the same answer.

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
