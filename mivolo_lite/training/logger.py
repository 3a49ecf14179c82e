"""Logging of a run: a progress bar, ``metrics.jsonl``, and experiment trackers."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from accelerate.tracking import GeneralTracker
from tqdm import tqdm

from mivolo_lite.errors import first_line
from mivolo_lite.output import losable_output
from mivolo_lite.training.run_folder import RunFolder

_IN_PROGRESS = {
    "samples_per_second", "wait", "memory_gib", "mfu", "elapsed", "left", "step_seconds", "goodput", "error", "best",
}  # fmt: skip
"""Values that the line's progress text shows, or that are logged elsewhere."""


class RunLogger:
    """Logs on the main process, and nothing on the others.

    Args:
        folder: gets ``metrics.jsonl``.
        total_steps: of the whole run.
        first_step: at which it starts or resumes.
        active: whether this is the main process.
        trackers: get the same metrics, from ``start_trackers``, each until it fails.
    """

    def __init__(
        self,
        folder: RunFolder,
        total_steps: int,
        first_step: int,
        active: bool,
        trackers: Sequence[GeneralTracker] = (),
    ):
        self.folder, self.active = folder, active
        self.total_steps = total_steps
        # A bar redraws itself, which would be thousands of lines in a log file.
        self.interactive = sys.stderr.isatty()
        self.bar = tqdm(total=total_steps, initial=first_step, unit="step", disable=not (active and self.interactive))
        self.trackers = trackers
        self._failed: set[str] = set()

    def step(self) -> None:
        """Advance the bar by one optimizer step."""
        with losable_output():
            self.bar.update()

    def log_metrics(self, kind: str, step: int, values: dict[str, Any], progress: str = "") -> None:
        """Log metrics of a step under ``train``, ``val`` or ``save``. Only the screen shows ``progress``, before
        them."""
        if not self.active:
            return
        self.folder.log({"kind": kind, "step": step, **values})
        scalars = {name: value for name, value in values.items() if isinstance(value, int | float)}
        self._track({f"{kind}/{name}": value for name, value in scalars.items()}, step)
        text = "  ".join(f"{name} {value:.4g}" for name, value in scalars.items() if name not in _IN_PROGRESS)
        line = f"{progress}  {text}".strip()
        if self.interactive and kind == "train":
            with losable_output():
                self.bar.set_postfix_str(line)
        else:
            self.log(f"[{step}/{self.total_steps}] {kind}  {line}")

    def log_end(self, step: int, complete: bool, values: dict[str, float]) -> None:
        """Log to the file that training ends, and whether the run is complete."""
        if self.active:
            self.folder.log({"kind": "end", "step": step, "complete": complete, **values})

    def log(self, text: str) -> None:
        """Print a line."""
        if self.active:
            with losable_output():
                self.bar.write(text) if self.interactive else print(text, flush=True)

    def close(self) -> None:
        with losable_output():
            self.bar.close()
        for tracker in self.trackers:  # failed ones as well: each keeps a run open in this process
            with self._guarded(tracker):
                tracker.finish()

    def _track(self, scalars: dict[str, float], step: int) -> None:
        for tracker in self.trackers:
            if tracker.name not in self._failed:
                with self._guarded(tracker):
                    tracker.log(scalars, step=step)

    @contextmanager
    def _guarded(self, tracker: GeneralTracker) -> Iterator[None]:
        """Catch errors of a tracker, such as a lost network: they end its log, but not the training."""
        try:
            yield
        except Exception as error:  # whatever the tracker's own client raises
            if tracker.name not in self._failed:
                self._failed.add(tracker.name)
                self.log(f"train.trackers: {tracker.name} gets no more of this run: {first_line(error)}")
