"""Logging of a run: a progress bar, ``metrics.jsonl``, and TensorBoard when it is installed."""

import sys
from importlib.util import find_spec
from typing import Any

from tqdm import tqdm

from mivolo_lite.output import losable_output
from mivolo_lite.training.run_folder import RunFolder

_IN_PROGRESS = {"samples_per_second", "wait", "memory_gib", "elapsed", "left"}


class RunLogger:
    """Logs of the main process; silent on all others.

    Args:
        folder: gets ``metrics.jsonl`` and TensorBoard's files.
        total_steps: of the whole run.
        first_step: where it starts or resumes.
        active: whether this is the main process.
    """

    def __init__(self, folder: RunFolder, total_steps: int, first_step: int, active: bool):
        self.folder, self.active = folder, active
        self.total_steps = total_steps
        # A bar redraws itself; in a log file it would be thousands of lines.
        self.interactive = sys.stderr.isatty()
        self.bar = tqdm(total=total_steps, initial=first_step, unit="step", disable=not (active and self.interactive))
        self.tensorboard = _summary_writer(folder, first_step) if active else None

    def step(self) -> None:
        """One optimizer step is done."""
        with losable_output():
            self.bar.update()

    def log_metrics(self, kind: str, step: int, values: dict[str, Any], progress: str = "") -> None:
        """Metrics of a step, under ``train``, ``val`` or ``save``; ``progress`` stands before them on the screen
        alone."""
        if not self.active:
            return
        self.folder.log({"kind": kind, "step": step, **values})
        scalars = {name: value for name, value in values.items() if isinstance(value, int | float)}
        for name, value in scalars.items():
            if self.tensorboard is not None:
                self.tensorboard.add_scalar(f"{kind}/{name}", value, step)
        text = "  ".join(f"{name} {value:.4g}" for name, value in scalars.items() if name not in _IN_PROGRESS)
        if self.interactive and kind == "train":
            with losable_output():
                self.bar.set_postfix_str(
                    f"{progress.partition('left, ')[2]}  {text}".strip()
                )  # the bar has its own times
        else:
            self.log(f"[{step}/{self.total_steps}] {kind}  {progress}{progress and '  '}{text}")

    def log(self, text: str) -> None:
        """A line for people."""
        if self.active:
            with losable_output():
                self.bar.write(text) if self.interactive else print(text, flush=True)

    def close(self) -> None:
        with losable_output():
            self.bar.close()
        if self.tensorboard is not None:
            self.tensorboard.close()


def _summary_writer(folder: RunFolder, first_step: int):
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    # What a killed run logged after its last checkpoint is logged again.
    return SummaryWriter(str(folder.path / "tensorboard"), purge_step=first_step + 1)
