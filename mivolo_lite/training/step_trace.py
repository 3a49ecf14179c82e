"""A torch profiler trace of some optimizer steps: the CPU's and GPU's work over time."""

from pathlib import Path

from torch.profiler import profile, schedule

from mivolo_lite.files import explain_write_errors
from mivolo_lite.training.logger import RunLogger

SKIPPED = 3
"""Steps before the trace, in which loaders start and cudnn selects its algorithms."""
WARM_UP = 2
"""Steps after these in which the profiler runs and its records are dropped."""
_FILE = "trace.json.gz"


class StepTrace:
    """Traces ``steps`` optimizer steps of the main process, after ``SKIPPED`` and ``WARM_UP``.

    Args:
        steps: to trace; 0 for none.
        folder: gets the trace.
        logger: logs its path.
    """

    def __init__(self, steps: int, folder: Path, logger: RunLogger):
        self._folder, self._logger = folder, logger
        self._last = SKIPPED + WARM_UP + steps
        self._done = 0
        self._profiler = None
        if steps and logger.active:
            phases = schedule(skip_first=SKIPPED, wait=0, warmup=WARM_UP, active=steps, repeat=1)
            self._profiler = profile(schedule=phases, on_trace_ready=self._write)
            self._profiler.start()

    def step(self) -> None:
        """To be called after each step."""
        if self._profiler is None:
            return
        self._profiler.step()
        self._done += 1
        if self._done == self._last:
            self._profiler.stop()
            self._profiler = None

    def close(self) -> None:
        """Write the trace so far at the end of the run."""
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler = None
            if self._done <= SKIPPED + WARM_UP:
                self._logger.log(f"train.profile: the run ended after {self._done} steps, before the first was traced")

    def _write(self, profiler: profile) -> None:
        path = self._folder / _FILE
        with explain_write_errors(path):
            self._folder.mkdir(exist_ok=True)
            profiler.export_chrome_trace(str(path))
        self._logger.log(f"train.profile: the trace is in {path}; https://ui.perfetto.dev shows it")
