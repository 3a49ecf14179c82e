"""CPU affinity of a process that trains without a GPU. To be set before torch is imported."""

import os
from pathlib import Path

from mivolo_lite.processes import find_launcher

_process_cpus: list[int] = []
"""CPUs of this process if each of its threads is bound to one."""


def spread_over_cpus() -> None:
    """Give each process of a CPU run its own CPUs, and bind each of its OpenMP threads to one of them.

    Threads of a process that share a core spin against each other at every barrier: on two cores that the kernel did
    not balance, training ran at 7 images/s, and at 30 when bound. With a GPU the launcher's placement is kept.
    """
    if Path("/dev/nvidiactl").exists() or not hasattr(os, "sched_setaffinity"):
        return
    rank, ranks = _int_variable("LOCAL_RANK", 0), max(1, _int_variable("LOCAL_WORLD_SIZE", 1))
    allowed = sorted(os.sched_getaffinity(0))
    cpus = allowed[rank::ranks] or [allowed[rank % len(allowed)]]
    os.sched_setaffinity(0, cpus)
    if _launcher_chose_threads():
        del os.environ["OMP_NUM_THREADS"]
    # Fewer threads than CPUs are not bound: OpenMP would bind those of every run to the same first CPUs.
    if os.environ.setdefault("OMP_NUM_THREADS", str(len(cpus))) == str(len(cpus)):
        os.environ.setdefault("OMP_PROC_BIND", "true")
        _process_cpus[:] = cpus


def _launcher_chose_threads() -> bool:
    """Whether the launcher set one thread by default, as accelerate does for any number of CPUs."""
    launcher = find_launcher()
    if launcher is None or os.environ.get("OMP_NUM_THREADS") != "1":
        return False
    was_requested = any(word.replace("-", "_").startswith("__num_cpu_threads_per_process") for word in launcher.words)
    return launcher.set_itself("OMP_NUM_THREADS") and not was_requested


def _int_variable(name: str, default: int) -> int:
    """An integer variable of the environment. environment.py reports one that is no number."""
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default


def process_cpus() -> set[int]:
    """The numbers of the CPUs that this process may use; from 0 on if the system has no affinity."""
    if _process_cpus:  # OpenMP may have bound this thread to the first by now
        return set(_process_cpus)
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def place_loader_worker(worker: int) -> None:
    """Move a loader's worker to its process's last CPUs: it is forked from the thread that is bound to the first."""
    if _process_cpus:
        os.sched_setaffinity(0, {_process_cpus[-1 - worker % len(_process_cpus)]})
