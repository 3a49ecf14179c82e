"""The processes around this one: the launcher that started it and the workers that it starts.

Needs nothing but Python, so that it can be asked before torch is imported.
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
"""A terminal, or a batch system, sends these to all processes of a job. The rank decides what comes of it."""


@dataclass(frozen=True)
class Launcher:
    """The program that started this process to train.

    Attributes:
        pid: its process.
        words: its command line.
        environ: the environment that it was started with, before it changed anything.
    """

    pid: int
    words: Sequence[str]
    environ: Mapping[str, str]

    def set_itself(self, name: str) -> bool:
        """Whether the launcher itself set a variable of this process."""
        return name in os.environ and name not in self.environ


def find_launcher() -> Launcher | None:
    """The launcher that is this process's parent; None for a shell, a batch system, or where there is no /proc."""
    pid = os.getppid()
    try:
        words = _strings(pid, "cmdline")
        environ = dict(word.partition("=")[::2] for word in _strings(pid, "environ"))
    except OSError:
        return None
    # `python /bin/accelerate launch ...`, `python -m torch.distributed.run ...`
    return Launcher(pid, words, environ) if _LAUNCHERS & {Path(word).name for word in words[:3]} else None


def signal_when_parent_ends(signal_number: int) -> None:
    """Ask Linux to send this process a signal when the thread that started it ends. Elsewhere, nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal_number)


def live_as_worker() -> None:
    """To be called first in a worker process: it ends with its parent, even one that was killed, and no sooner."""
    for signal_number in WORKERS_IGNORE:
        signal.signal(signal_number, signal.SIG_IGN)
    signal_when_parent_ends(KILL)
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():  # it ended before Linux was asked
        os._exit(1)


@cache
def fork_with_one_thread() -> None:
    """Let processes that are forked from now on compute with one torch thread. Windows forks none.

    A fork copies no threads, but OpenMP counts on those that this process computed with: a forked process that computes
    with several waits for them for ever.
    """
    if hasattr(os, "register_at_fork"):
        import torch

        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


def keep_freed_memory() -> None:
    """Ask glibc to keep what is freed for the next block, up to 1 GiB. Elsewhere, nothing happens.

    A step frees its activations and asks for as much again. By default glibc gives large blocks back to the kernel,
    which maps and clears every page anew: on one virtual machine that took a third of a training's time and half of an
    inference's. What the user has configured of malloc stays.
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
