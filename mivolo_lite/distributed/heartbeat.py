"""Ranks that watch each other, so that a lost machine or a failed rank ends the run within a minute.

If a process dies, its connections close, and the others' collectives fail at once. A machine without power or network
closes nothing. Nor does a process that cannot end, for example because it waits for its workers. Then the others would
wait for the engine's timeout, which must be longer than the slowest save.
"""

import atexit
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from threading import Event, Thread, main_thread

from torch.distributed import DistError, DistStoreError, Store
from torch.distributed.distributed_c10d import _get_default_store

from mivolo_lite.distributed.rendezvous import seconds_in
from mivolo_lite.errors import MachineError, UserError, in_one_line, one_line
from mivolo_lite.output import complain

INTERVAL = 4
"""Seconds between two heartbeats."""
PATIENCE = 25
"""Seconds without a heartbeat after which a rank counts as lost."""
GRACE = 25
"""Seconds for a rank to end by itself, after it failed or learnt that another did.

If rank 0 failed, a rank that waits for it learns that when rank 0 ends, after three intervals. 15 seconds were too few
on a busy machine.
"""
HANG_VARIABLE = "MIVOLO_HANG_TIMEOUT"
HANG = 1800
"""Seconds without a step, a batch of an evaluation or a save, after which a rank counts as hanging."""
_LOST, _ENDED = "heartbeat/lost", "heartbeat/ended"

_running: "list[Heartbeat]" = []


class Heartbeat:
    """Sends heartbeats, watches those of the previous rank, and ends this process when they stop.

    It also ends a process whose main thread has ended, or hangs.

    Args:
        rank, world_size: of this process.
        patience: seconds without a heartbeat.
        store: shared by the ranks; by default that of ``torch.distributed``, which must be initialised.

    Raises:
        UserError: ``MIVOLO_HANG_TIMEOUT`` is no number.
    """

    def __init__(self, rank: int, world_size: int, patience: int = PATIENCE, store: Store | None = None):
        self.rank, self.world_size, self.patience = rank, world_size, patience
        self.watched = (rank - 1) % world_size
        self.hang = seconds_in(os.environ, HANG_VARIABLE, HANG)
        # Seconds without a beat of the watched rank, without progress, and since this rank should have ended.
        self._silent = self._idle = self._ending = 0
        self._lost: str | None = None
        self._has_steps = self._explaining = False
        self._over, self._silenced = Event(), Event()
        self._store = None
        _running[:] = [self]
        if world_size > 1:
            self._store = (store or _get_default_store()).clone()
            self._store.set_timeout(timedelta(seconds=INTERVAL))
            self._beat_thread = Thread(target=self._beat, args=[self._store.clone()], daemon=True)
            self._beat_thread.start()
            atexit.register(self._stop_beating)
        Thread(target=self._watch, daemon=True).start()

    @contextmanager
    def working(self) -> Iterator[None]:
        """A context for training. After its first step, which may have to compile, the main thread must not hang."""
        try:
            yield
        finally:
            self._has_steps = False

    def progress(self) -> None:
        """To be called after a step, a batch of an evaluation, or a save."""
        self._idle, self._has_steps = 0, True

    def stop(self) -> None:
        """Stop watching: any rank may end from now on."""
        self._over.set()
        self._silenced.set()

    def explain(self, error: Exception) -> UserError | None:
        """The error that ends this rank after an exception. It is reported to the other ranks.

        Returns:
            The exception in one line; None for a bug, which needs its traceback.
        """
        self._explaining = True
        explained = in_one_line(error)
        if self._store is not None and explained is None and _is_communication_error(error):
            _wait(lambda: self._lost)
            reason = self._lost or _broken_connection(error)
            self._wait_for_the_others(self._store)
            return MachineError(f"rank {self.rank} ends: {reason}")
        self._report_failure(str(explained or f"{type(error).__name__}: {error}").splitlines()[0])
        return explained

    def _report_failure(self, reason: str) -> None:
        """Report to the other ranks why this one ends."""
        if self._store is None:
            return
        try:
            if not self._store.check([_LOST]):
                self._store.set(_LOST, f"rank {self.rank} failed ({reason.removeprefix(f'rank {self.rank} ends: ')})")
        except DistError:
            return
        self._wait_for_the_others(self._store)

    def _wait_for_the_others(self, store: Store) -> None:
        """Let rank 0 end last, also if it failed: it keeps the store, from which the others read the reason."""
        try:
            ended = store.add(_ENDED, 1)
            if self.rank == 0 and ended < self.world_size:
                # A rank that waits for a beat reads the reason up to two intervals later.
                _wait(lambda: store.add(_ENDED, 0) == self.world_size, 3 * INTERVAL)
        except DistError:
            pass

    def _stop_beating(self) -> None:
        # A thread that uses the store when Python exits aborts the process, which hides its exit code.
        self._silenced.set()
        self._beat_thread.join(timeout=INTERVAL + 2)

    def _beat(self, store: Store) -> None:
        store.set_timeout(timedelta(seconds=INTERVAL))
        last_sign = None
        for beat in count():
            sign = last_sign
            try:
                store.set(f"heartbeat/{self.rank}", str(beat))
                if store.check([_LOST]):
                    self._lost = store.get(_LOST).decode()
                sign = store.get(f"heartbeat/{self.watched}")
            except DistStoreError:  # no heartbeat yet
                pass
            except DistError:
                self._lost = self._lost or "rank 0, which keeps the store, is gone"
                return
            if sign != last_sign:
                last_sign, self._silent = sign, 0
            if self._silenced.wait(INTERVAL):
                return

    def _watch(self) -> None:
        # This is a separate thread, since the store can block the other one for ever. It counts its own seconds: a
        # job that was suspended and continues has missed none.
        while not self._over.wait(1):
            self._silent += self._store is not None
            self._idle += self._has_steps
            others_wait = self._store is not None and bool(self._lost or self._explaining)
            self._ending += others_wait or not main_thread().is_alive()
            if self._ending > GRACE:
                self._end(self._lost or "it failed, but its process did not end")
            if self._silent > self.patience:
                self._end(
                    f"no sign of life from rank {self.watched} for {self.patience} seconds: its machine is lost, or "
                    "hangs"
                )
            if self._idle > self.hang:
                self._end(f"nothing was done for {self.hang:g} seconds, at {_place_of_main_thread()}: it hangs")

    def _end(self, reason: str) -> None:
        reporter = Thread(target=self._report_failure, args=[reason], daemon=True)  # the store may be unreachable
        reporter.start()
        complain(f"rank {self.rank} ends: {reason}")
        reporter.join(timeout=INTERVAL)
        os._exit(1)


@contextmanager
def ending_together() -> Iterator[None]:
    """A context for the work of a rank. Replaces an exception by that of ``Heartbeat.explain``; before there is a
    heartbeat, a broken connection to another rank by an error of one line."""
    try:
        yield
    except Exception as error:
        if _running:
            explained = _running[0].explain(error)
        else:
            explained = MachineError(_broken_connection(error)) if _is_communication_error(error) else None
        if explained is None:
            raise
        raise explained from None


def _wait(done: Callable[[], object], seconds: float = INTERVAL + 2) -> None:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.1)


def _broken_connection(error: Exception) -> str:
    text = one_line(error).rpartition(".cc:")[2].partition("] ")[2] or str(error)
    return f"the connection to another rank broke ({text.split('. ')[0].splitlines()[0]})"


def _is_communication_error(error: Exception) -> bool:
    return isinstance(error, DistError) or (
        isinstance(error, RuntimeError) and any(name in str(error).lower() for name in ("gloo", "nccl", "by peer"))
    )


def _place_of_main_thread() -> str:
    (frame,) = (frame for thread, frame in sys._current_frames().items() if thread == main_thread().ident)
    return f"{Path(frame.f_code.co_filename).name}, line {frame.f_lineno}"
