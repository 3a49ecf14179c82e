"""The speed of training: samples per second, waiting for data, GPU utilisation, remaining time."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

import torch
from accelerate import Accelerator

from mivolo_lite.loading.batch import Batch
from mivolo_lite.system import peak_memory
from mivolo_lite.training.flops import ModelFlops


class Throughput:
    """Measures the intervals between two lines of the log, and the share of the run's time that is spent in steps.

    Evaluating and saving are not counted as steps.

    Args:
        first_start: of the run, in seconds since 1970; by default now.
        step_seconds: in the steps before this start, without lost ones.
        flops: of the model, if the GPU's peak is known.
    """

    def __init__(self, first_start: float | None = None, step_seconds: float = 0.0, flops: ModelFlops | None = None):
        self._first_start = time.time() if first_start is None else first_start
        self._earlier, self._flops = step_seconds, flops
        self._begun = time.monotonic()
        self._spent = {"evaluating or saving": 0.0, "waiting": 0.0}
        self._operations = 0.0
        self._previous = (0.0, 0.0, 0.0)

    @contextmanager
    def spent(self, activity: Literal["evaluating or saving", "waiting"]) -> Iterator[None]:
        """Count the time as this activity; ``waiting`` is for the rank's loader."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._spent[activity] += time.monotonic() - begun

    def count(self, batches: Iterable[Batch]) -> None:
        """Count the operations of this rank's batches of a step."""
        if self._flops is not None:
            self._operations += sum(map(self._flops.of, batches))

    def total(self) -> dict[str, float]:
        """``step_seconds`` of the run, without lost steps, and ``goodput``, their share of the time since its first
        start."""
        seconds = self._earlier + self._in_steps()
        return {"step_seconds": seconds, "goodput": seconds / max(time.time() - self._first_start, seconds, 1e-9)}

    def interval(self, steps: int, samples: int, steps_left: int, accelerator: Accelerator) -> dict[str, Any]:
        """Measurements since the last call. All ranks must call it.

        Args:
            steps, samples: of all ranks, in the interval.
            steps_left: of the run.
            accelerator: joins the ranks.

        Returns:
            ``samples_per_second``; ``wait``, the largest share of the time that a rank waited for its loader, and with
            several ranks ``slowest_loader``, that rank; ``memory_gib``, the main process's peak memory in GiB, on its
            GPU if it has one; ``mfu``, the share of the GPUs' peak, if it is known; ``elapsed`` and ``left``, in
            seconds; and the values of ``total``.
        """
        now = (self._in_steps(), self._spent["waiting"], self._operations)
        seconds, waited, operations = (new - old for new, old in zip(now, self._previous, strict=True))
        self._previous = now
        seconds = max(seconds, 1e-9)
        shares = [min(1.0, waited / seconds), operations / seconds / (self._flops.peak if self._flops else 1.0)]
        waits, used = accelerator.gather(torch.tensor([shares], device=accelerator.device)).T
        return {
            "samples_per_second": samples / seconds,
            "wait": float(waits.max()),
            **({} if len(waits) == 1 else {"slowest_loader": int(waits.argmax())}),
            "memory_gib": _peak_memory(accelerator.device) / 2**30,
            **({} if self._flops is None else {"mfu": float(used.mean())}),
            "elapsed": time.monotonic() - self._begun,
            "left": seconds / max(1, steps) * steps_left,
            **self.total(),
        }

    def _in_steps(self) -> float:
        return time.monotonic() - self._begun - self._spent["evaluating or saving"]


def in_words(measured: dict[str, Any], times: bool = True) -> str:
    """As in ``0:03:12, 0:00:17 left, 41/s, wait 3%, 9.1 GiB, 38% of peak``; without ``times`` from the speed on."""
    speed = f"{measured['samples_per_second']:.3g}/s, wait {measured['wait']:.0%}, {measured['memory_gib']:.1f} GiB"
    if "mfu" in measured:
        speed += f", {measured['mfu']:.0%} of peak"
    elapsed, left = (timedelta(seconds=round(measured[name])) for name in ("elapsed", "left"))
    return f"{elapsed}, {left} left, {speed}" if times else speed


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_memory()
