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
        self._asked = None

    def warned(self) -> bool:
        """Whether any rank had been warned when this was called last; all ranks get the same answer.

        It is a step old because one of this very step would make every process wait for its GPU.
        """
        import torch

        answer = self._asked
        noted = torch.full((), float(bool(_noted)), device=self.accelerator.device)
        self._asked = self.accelerator.reduce(noted)
        return answer is not None and bool(answer)
