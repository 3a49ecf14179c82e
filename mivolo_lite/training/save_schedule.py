"""When a run saves: every so many steps, or when so many minutes passed."""

import time


class SaveSchedule:
    """Says when a checkpoint is due, as ``train.save_every`` asks.

    Ranks' clocks differ, so the main process alone asks for a save by its clock, once; the others learn of it with the
    flag of a preemption (``own_flags``).

    Args:
        every: steps, or minutes as in ``10min``.
    """

    def __init__(self, every: int | str):
        self._steps = every if isinstance(every, int) else None
        self._seconds = 60 * float(every.removesuffix("min")) if isinstance(every, str) else None
        self._saved, self._asked = time.monotonic(), False

    def due(self, step: int) -> bool:
        """Whether a save is due after this step by its number."""
        return self._steps is not None and step % self._steps == 0

    def asks(self) -> bool:
        """Whether the minutes passed since the latest save, True once until the next one."""
        asks = self._seconds is not None and not self._asked and time.monotonic() - self._saved >= self._seconds
        self._asked = self._asked or asks
        return asks

    def saved(self) -> None:
        """A checkpoint was saved."""
        self._saved, self._asked = time.monotonic(), False
