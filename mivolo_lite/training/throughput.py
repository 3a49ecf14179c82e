"""How fast a run trains: samples a second, what it waits for, how long it will still take."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator


class Throughput:
    """Measures the intervals between two lines of the log. Evaluating and saving are no training, and do not count."""

    def __init__(self) -> None:
        self._begun = self._clock = time.monotonic()
        self._waited = 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that does not count."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._clock += time.monotonic() - begun

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in which the rank waits for its loader."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._waited += time.monotonic() - begun

    def interval(self, steps: int, samples: int, steps_left: int, accelerator: Accelerator) -> dict[str, Any]:
        """Measurements since this was called last. All ranks must call it.

        Args:
            steps, samples: of all ranks, in the interval.
            steps_left: of the run.
            accelerator: joins the ranks.

        Returns:
            ``samples_per_second``; ``wait``, the share of the time that the rank waited for its loader which waited
            most, and with several ``slowest_loader``, that rank; ``memory_gib``, the most that the main process had on
            its GPU, or without one in memory; ``elapsed`` and ``left``, in seconds.
        """
        now = time.monotonic()
        seconds, self._clock = max(now - self._clock, 1e-9), now
        waits = torch.tensor([min(1.0, self._waited / seconds)], device=accelerator.device)
        waits, self._waited = accelerator.gather(waits), 0.0
        slowest = {} if len(waits) == 1 else {"slowest_loader": int(waits.argmax())}
        return {
            "samples_per_second": samples / seconds,
            "wait": float(waits.max()),
            **slowest,
            "memory_gib": _peak_memory(accelerator.device) / 2**30,
            "elapsed": now - self._begun,
            "left": seconds / max(1, steps) * steps_left,
        }


def in_words(measured: dict[str, Any]) -> str:
    """As in ``0:03:12, 0:00:17 left, 41/s, wait 3 %, 9.1 GiB``."""
    elapsed, left = (timedelta(seconds=round(measured[name])) for name in ("elapsed", "left"))
    return (
        f"{elapsed}, {left} left, {measured['samples_per_second']:.3g}/s, wait {measured['wait']:.0%}, "
        f"{measured['memory_gib']:.1f} GiB"
    )


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
