"""Checkpoints that appear whole or not at all."""

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from accelerate import Accelerator

from mivolo_lite.data.order import ORDER_VERSION
from mivolo_lite.errors import UserError


@dataclass
class TrainState:
    """Where a run stands. The stream's whole state is ``samples_seen``.

    Attributes:
        digest, seed, order_version: name the stream; a checkpoint goes on with no other.
        step: optimizer steps done.
        samples_seen: samples of the stream that those steps used.
        best_mae: lowest validation MAE so far, in years.
    """

    digest: str
    seed: int
    step: int = 0
    samples_seen: int = 0
    best_mae: float = float("inf")
    order_version: int = ORDER_VERSION

    def state_dict(self) -> dict:
        return asdict(self)

    def load_state_dict(self, saved: dict) -> None:
        """Take a checkpoint's state. Raises UserError where it belongs to another stream."""
        for name, meaning in (
            ("digest", "other shards"),
            ("seed", "another seed"),
            ("order_version", "an older order"),
        ):
            if saved[name] != getattr(self, name):
                raise UserError(
                    f"--resume: the checkpoint was trained on {meaning} ({name} {saved[name]}, now "
                    f"{getattr(self, name)}), so the order could not go on; use them again, or start a new run"
                )
        for name, value in saved.items():
            setattr(self, name, value)


class Checkpointer:
    """Saves and loads everything that was registered with Accelerate.

    Args:
        folder: holds ``step-000000123`` folders.
        accelerator: has the prepared model and optimizer, and the registered state.
        keep: how many of the latest to keep.
    """

    def __init__(self, folder: Path, accelerator: Accelerator, keep: int):
        self.folder, self.accelerator, self.keep = folder, accelerator, keep

    def save(self, step: int) -> None:
        """Write aside, then rename: a job that dies in between leaves the previous checkpoint the latest."""
        final = self.folder / f"step-{step:09d}"
        if final.exists():
            return
        partial = self.folder / f"{final.name}.partial"
        if self.accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(partial))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            sync_files(partial)
            os.rename(partial, final)
            for old in self.finished()[: -self.keep]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    def finished(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        return sorted(path for path in self.folder.glob("step-*") if path.suffix != ".partial")

    def load_latest(self) -> bool:
        """Load the latest whole checkpoint. False when there is none."""
        finished = self.finished()
        if not finished:
            return False
        self.accelerator.load_state(str(finished[-1]))
        return True


def sync_files(folder: Path) -> None:
    """Bring a folder's files to the disk, so that a rename never names what a crash of the machine would lose."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
