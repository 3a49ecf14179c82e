"""The launcher of this process, and its workers.

It imports only the standard library, so that it can be used before torch is imported.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from mivolo_lite.system import KILL, signals

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = -1
_LARGEST_KEPT = 1 << 30
_LAUNCHERS = {
    "accelerate",
    "accelerate.commands.accelerate_cli",
    "accelerate.commands.launch",
    "deepspeed",
    "torch.distributed.launch",
    "torch.distributed.run",
    "torchrun",
}
WORKERS_IGNORE = signals("SIGINT", "SIGHUP", "SIGUSR2")
"""Signals that a terminal or a batch system sends to all processes of a job. The rank handles them."""


@dataclass(frozen=True)
class Launcher:
    """The program that launched this training process.

    Attributes:
        pid: its process.
        words: its command line.
        environ: its environment when it was started.
    """

    pid: int
    words: Sequence[str]
    environ: Mapping[str, str]

    def set_itself(self, name: str) -> bool:
        """Whether the launcher set a variable of this process."""
        return name in os.environ and name not in self.environ


def find_launcher() -> Launcher | None:
    """The launcher, if it is this process's parent; None for a shell, a batch system, or without /proc."""
    pid = os.getppid()
    try:
        words = _strings(pid, "cmdline")
        environ = dict(word.partition("=")[::2] for word in _strings(pid, "environ"))
    except OSError:
        return None
    # `python /bin/accelerate launch ...`, `python -m torch.distributed.run ...`
    return Launcher(pid, words, environ) if _LAUNCHERS & {Path(word).name for word in words[:3]} else None


def signal_when_parent_ends(signal_number: int) -> None:
    """Let Linux send this process a signal when the thread that started it ends. No effect on other systems."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal_number)


def live_as_worker() -> None:
    """Let a worker process end with its parent, even if that is killed, and no sooner. Call it first in the worker."""
    for signal_number in WORKERS_IGNORE:
        signal.signal(signal_number, signal.SIG_IGN)
    signal_when_parent_ends(KILL)
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():  # the parent ended before the call
        os._exit(1)


@cache
def fork_with_one_thread() -> None:
    """Let processes that are forked from now on use one torch thread. No effect on Windows.

    A fork copies no threads, but OpenMP expects those of the parent: a forked process with several threads waits for
    them for ever.
    """
    if hasattr(os, "register_at_fork"):
        import torch

        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


def keep_freed_memory() -> None:
    """Let glibc keep up to 1 GiB of freed memory for reuse. No effect on other systems.

    A step frees its activations, and the next allocates as much. By default glibc returns large blocks to the kernel,
    which maps and clears every page again: on a virtual machine that took a third of the time of training and half of
    that of inference. The user's own malloc settings are kept.
    """
    configured = any(name.startswith("MALLOC_") for name in os.environ)
    if configured or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)


def _strings(pid: int, name: str) -> list[str]:
    return Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace").split("\0")[:-1]
