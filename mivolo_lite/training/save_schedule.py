"""When a run saves: after a number of steps or minutes."""

import time


class SaveSchedule:
    """Decides when a checkpoint is due, by ``train.save_every``.

    Ranks' clocks differ, so only the main process requests a save by its clock, once. The others learn of it with the
    preemption flags (``own_flags``).

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
        """Whether the minutes since the latest save have passed; True only once until the next save."""
        asks = self._seconds is not None and not self._asked and time.monotonic() - self._saved >= self._seconds
        self._asked = self._asked or asks
        return asks

    def saved(self) -> None:
        """To be called after a checkpoint was saved."""
        self._saved, self._asked = time.monotonic(), False
