"""Ranks that look after each other, so that a lost machine ends the run within a minute.

A process that dies closes its connections, and what the others wait for fails at once. A machine without power or
network closes nothing: they would wait as long as the engine's timeout, which must outlast the slowest save.
"""

import os
import sys
from datetime import timedelta
from itertools import count
from threading import Event, Thread

from torch.distributed import DistError, DistStoreError
from torch.distributed.distributed_c10d import _get_default_store

EVERY = 4
"""Seconds between two signs of life."""
PATIENCE = 25
"""Seconds without one, after which a rank is given up."""


class Heartbeat:
    """Gives a sign of life, watches for those of the rank before, and ends this process where they stop.

    Args:
        rank, world_size: of this process; ``torch.distributed`` has been initialised.
        patience: seconds.
    """

    def __init__(self, rank: int, world_size: int, patience: int = PATIENCE):
        self.rank, self.patience = rank, patience
        self.watched = (rank - 1) % world_size
        self._silent = 0
        self._over = Event()
        if world_size > 1:
            for work in (self._beat, self._watch):
                Thread(target=work, daemon=True).start()

    def stop(self) -> None:
        """From now on, any rank may end."""
        self._over.set()

    def _beat(self) -> None:
        store, seen = _get_default_store().clone(), None
        store.set_timeout(timedelta(seconds=EVERY))
        for number in count():
            try:
                store.set(f"heartbeat/{self.rank}", str(number))
                sign = store.get(f"heartbeat/{self.watched}")
            except DistStoreError:  # nothing yet
                sign = seen
            except DistError:  # the rank that keeps the store is gone
                return
            if sign != seen:
                seen, self._silent = sign, 0
            if self._over.wait(EVERY):
                return

    def _watch(self) -> None:
        # A thread of its own, since the store can keep the other one waiting for ever. It counts its own seconds: a
        # job that was suspended and goes on has missed none.
        while not self._over.wait(1):
            self._silent += 1
            if self._silent > self.patience:
                lost = f"no sign of life from rank {self.watched} for {self.patience} seconds"
                print(f"rank {self.rank}: {lost}: its machine is lost, or hangs", file=sys.stderr, flush=True)
                os._exit(1)
