"""Shared functions of the benchmarks: taking turns in one process, separate processes, the machine's name, and result
files."""

import os
import platform
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any


def interleaved(
    functions: dict[str, Callable], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each function in each round, after a warm-up round.

    They take turns, so that a busy machine slows all alike. Ratios within a round are more reliable than times.
    """
    seconds = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            start = clock()
            function()
            if number:
                seconds[name].append(clock() - start)
    return seconds


def in_a_process(function: Callable, *arguments: Any) -> Any:
    """Call a function in a new process, and return its result."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def machine() -> str:
    """For example ``2 CPUs of Intel(R) Xeon(R) CPU, load average 0.5``, over the last five minutes."""
    return f"{os.cpu_count()} CPUs of {processor()}, load average {os.getloadavg()[1]:.1f}"


def write_result(path: Path, text: str) -> None:
    """Write a benchmark's page, and print it."""
    path.write_text(text)
    print(text)


def processor() -> str:
    """The processor's name, as the system reports it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
