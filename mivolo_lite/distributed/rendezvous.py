"""Ranks wait for each other before training, and report which ones are missing.

By default, torch's ranks wait silently for a missing one for 10 to 30 minutes.
"""

import socket
import time
from collections.abc import Callable, Mapping
from datetime import timedelta

from torch.distributed import DistError, PrefixStore, Store, TCPStore, is_initialized

from mivolo_lite.errors import MachineError, UserError, one_line
from mivolo_lite.output import complain

TIMEOUT_VARIABLE = "MIVOLO_RENDEZVOUS_TIMEOUT"
TIMEOUT = 50
"""Seconds for which a rank waits for the others. Launchers start all at once; only Python's start-up time varies."""
_REPORT_INTERVAL = 10
"""Seconds between two reports of missing ranks."""
_PORT = "29500"


def wait_for_ranks(environ: Mapping[str, str], should_stop: Callable[[], bool] = lambda: False) -> Store | None:
    """Wait until all ranks have joined.

    Args:
        environ: has the ranks and their address, as for torch's ``env://``.
        should_stop: called while waiting.

    Returns:
        A store that the ranks share, at whose port torch can open its own; None for one process, for ranks that joined
        before, or if MPI's launcher numbers the ranks in other variables.

    Raises:
        UserError: the timeout is no number.
        MachineError: a rank did not join in time, or ``should_stop`` returned True.
    """
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= environ.keys() or environ["WORLD_SIZE"] == "1":
        return None
    if is_initialized():
        return None
    rank, ranks = int(environ["RANK"]), int(environ["WORLD_SIZE"])
    deadline = _Deadline(rank, seconds_in(environ, TIMEOUT_VARIABLE, TIMEOUT), should_stop)
    store = _connect(environ, rank, deadline)
    try:
        _gather(store, rank, ranks, deadline)
    except DistError:
        raise MachineError(f"rank {rank}: rank 0, where the ranks meet, is gone") from None
    return store


class _Deadline:
    """The time limit of a waiting rank. It reports missing ranks at intervals, and raises at the end."""

    def __init__(self, rank: int, seconds: float, should_stop: Callable[[], bool]):
        self.rank, self.seconds, self.should_stop = rank, seconds, should_stop
        self.started = self.last_report = time.monotonic()

    def wait_for(self, missing: Callable[[], str], advice: str = "see why in the log of that process") -> None:
        """Sleep briefly. Raises MachineError, with the advice, if the time is over or the run should stop."""
        now = time.monotonic()
        waited = now - self.started
        if self.should_stop():
            raise MachineError(f"rank {self.rank}: told to end while it waited for {missing()}")
        if waited > self.seconds:
            raise MachineError(
                f"rank {self.rank}: {missing()} did not come within {self.seconds:g} seconds: {advice}, or give it "
                f"longer with {TIMEOUT_VARIABLE}"
            )
        if now - self.last_report > _REPORT_INTERVAL:
            self.last_report = now
            complain(f"rank {self.rank}: for {waited:.0f} of {self.seconds:g} seconds waiting for {missing()}")
        time.sleep(0.1)


def seconds_in(environ: Mapping[str, str], variable: str, default: float) -> float:
    """The seconds in a variable of the environment. Raises UserError if it has none."""
    text = environ.get(variable, str(default))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:  # nan is not valid either
        raise UserError(f"{variable} {text!r}: give a number of seconds")
    return seconds


def _connect(environ: Mapping[str, str], rank: int, deadline: _Deadline) -> Store:
    address, port = environ["MASTER_ADDR"], int(environ.get("MASTER_PORT") or _PORT)
    # torchrun keeps the store itself, also when its ranks restart
    is_torchruns = environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)
    serves = rank == 0 and not is_torchruns
    if not serves:
        while not _answers(address, port):
            deadline.wait_for(lambda: f"rank 0 at {address}:{port}")
    # For an address that is not this machine's, torch would wait two minutes and ignore signals.
    host = "localhost" if serves else address
    try:
        store = TCPStore(
            host, port, is_master=serves, timeout=timedelta(seconds=60), wait_for_workers=False, multi_tenant=True
        )
    except (DistError, RuntimeError) as error:
        raise UserError(
            f"launch: MASTER_ADDR {address}, MASTER_PORT {port}: {one_line(error)}; choose another port"
        ) from None
    while serves and not _answers(address, port):
        deadline.wait_for(
            lambda: f"an answer of its own at MASTER_ADDR {address}, MASTER_PORT {port}",
            "give the name or the address of the node of rank 0",
        )
    # Each node counts its own restarts: one that was replaced begins at 0, and would use other keys than the others.
    restart = environ.get("TORCHELASTIC_RESTART_COUNT", 0) if is_torchruns else 0
    return PrefixStore(f"mivolo/{restart}", store)


def _answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError:
        return False
    return True


def _gather(store: Store, rank: int, ranks: int, deadline: _Deadline) -> None:
    """Rank 0 waits for all ranks; the others wait for rank 0's answer that all have joined."""
    store.set(f"come/{rank}", "")
    if rank:
        while not store.check(["all"]):
            deadline.wait_for(lambda: "the other ranks")
        return
    missing = list(range(ranks))
    while missing := [other for other in missing if not store.check([f"come/{other}"])]:
        deadline.wait_for(lambda: _named(missing, ranks))
    store.set("all", "")


def _named(missing: list[int], ranks: int) -> str:
    names = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
    return f"rank{'s' if len(missing) > 1 else ''} {names} of {ranks}"
