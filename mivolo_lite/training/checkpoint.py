"""Checkpoints that appear whole or not at all, and that every engine reads at every world size."""

import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mivolo_lite.data.order import ORDER_VERSION
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import MODEL_FILE, Estimator
from mivolo_lite.models.weights import first_line
from mivolo_lite.training.average import WeightAverage
from mivolo_lite.training.engine import DataParallel
from mivolo_lite.training.run_folder import explain_full_disk, sync_files

AVERAGE_FILE, MOMENTS_FILE, STATE_FILE = "average.safetensors", "moments.safetensors", "state.json"


@dataclass
class TrainState:
    """Where a run stands. The stream's whole state is ``samples_seen``.

    The learning rate is a function of the step, and every random number of (seed, step, rank) or (seed, epoch, sample):
    neither has a state of its own.

    Attributes:
        digest, seed, window_blocks, block_samples, order_version: name the stream; a checkpoint goes on with no other.
        step: optimizer steps done.
        samples_seen: samples of the stream that those steps used.
        best_mae: lowest ``validation_error`` so far: MAE in years, where ages are known.
        kinds: logarithmic weights of kinds of people, where the run has them.
    """

    digest: str
    seed: int
    window_blocks: int
    block_samples: int
    step: int = 0
    samples_seen: int = 0
    best_mae: float = float("inf")
    order_version: int = ORDER_VERSION
    kinds: dict[str, float] = field(default_factory=dict)

    def load(self, saved: dict) -> None:
        """Take a checkpoint's state. Raises UserError where it belongs to another stream."""
        for name, meaning in (
            ("digest", "other shards, or in other shares"),
            ("seed", "another seed"),
            ("window_blocks", "another data.window_blocks"),
            ("block_samples", "another data.block_samples"),
            ("order_version", "an older order"),
        ):
            if saved.get(name, getattr(self, name)) != getattr(self, name):
                raise UserError(
                    f"--resume: the checkpoint was trained on {meaning} ({name} {saved[name]}, now "
                    f"{getattr(self, name)}), so the order could not go on; use them again, or start a new run"
                )
        for name, value in saved.items():
            setattr(self, name, value)


class Checkpointer:
    """Saves and loads a run: weights, averaged weights and AdamW's moments, whole, and where it stands.

    The main process gathers everything and writes it alone, as safetensors and JSON. Engines have formats of their own,
    with a file for each rank, which only they read, at the same world size or after a conversion, and by unpickling.
    The largest model here is MiVOLO-d5, 300 million parameters: 4.8 GB with everything.

    Args:
        folder: holds ``step-000000123`` folders.
        accelerator: joins the ranks.
        keep: how many of the latest to keep.
    """

    def __init__(self, folder: Path, accelerator, keep: int):
        self.folder, self.accelerator, self.keep = folder, accelerator, keep

    def save(self, state: TrainState, engine: DataParallel, average: WeightAverage | None) -> float | None:
        """Write aside, then rename: a job that dies in between leaves the previous checkpoint the latest.

        Returns:
            The seconds that it took, or None where this step was saved before.

        Raises:
            UserError: the disk is full.
        """
        begun = time.monotonic()
        final = self.folder / f"step-{state.step:09d}"
        if self._agreed(final.exists()):
            return None
        partial = final.with_suffix(".partial")
        with explain_full_disk(self.folder, "the previous checkpoint is whole; make room, then --resume auto"):
            if self.accelerator.is_main_process:
                for leftover in self.folder.glob("*.partial"):
                    shutil.rmtree(leftover)
                partial.mkdir()
            self._write(partial / MODEL_FILE, engine.weights())
            self._write(partial / MOMENTS_FILE, engine.moments())
            if average is not None:
                with average.applied():
                    weights = engine.weights()
                    self._write(partial / AVERAGE_FILE, weights)
            if self.accelerator.is_main_process:
                scaler = self.accelerator.scaler
                content = {"state": asdict(state), "scaler": None if scaler is None else scaler.state_dict()}
                (partial / STATE_FILE).write_text(json.dumps(content, indent=2))
                sync_files(partial)
                os.rename(partial, final)
                sync_files(self.folder, deep=False)
                for old in self.finished()[: -self.keep]:
                    _remove(old)
        self.accelerator.wait_for_everyone()
        return time.monotonic() - begun

    def finished(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        return sorted(path for path in self.folder.glob("step-*") if path.suffix != ".partial")

    def latest(self) -> Path | None:
        """The latest whole checkpoint, if any: the same for all ranks, whatever their views of a shared disk."""
        finished = self.finished()
        return self._agreed(finished[-1] if finished else None)

    def load_weights(self, checkpoint: Path, estimator: Estimator) -> None:
        """Before an engine is built on them. Raises UserError where they are another model's, or another format's."""
        if not (checkpoint / STATE_FILE).exists():
            raise UserError(f"--resume: {checkpoint} has no {STATE_FILE}, as of another version; start a new run")
        try:
            estimator.load_state_dict(load_file(checkpoint / MODEL_FILE))
        except RuntimeError as error:
            raise UserError(
                f"--resume: {checkpoint} holds another model ({first_line(error)}); give the model, the method and the "
                "ages that it was begun with, or start a new run"
            ) from None

    def load(self, checkpoint: Path, state: TrainState, engine: DataParallel, average: WeightAverage | None) -> None:
        """Everything but the weights.

        Raises:
            UserError: it belongs to another stream, or to a run without averaged weights.
        """
        content = json.loads((checkpoint / STATE_FILE).read_text())
        state.load(content["state"])
        with safe_open(checkpoint / MOMENTS_FILE, "pt") as moments:
            engine.load_moments(_Tensors(moments))
        if self.accelerator.scaler is not None and content["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(content["scaler"])
        if average is None:
            return
        if not (checkpoint / AVERAGE_FILE).exists():
            raise UserError(f"--resume: {checkpoint} has no averaged weights; set optim.ema_decay 0, as before")
        with safe_open(checkpoint / AVERAGE_FILE, "pt") as weights:
            average.load(_Tensors(weights))

    def _write(self, path: Path, tensors: dict[str, torch.Tensor]) -> None:
        if self.accelerator.is_main_process:
            save_file(tensors, path)

    def _agreed(self, value):
        """The main process's value."""
        return broadcast_object_list([value])[0]


class _Tensors:
    """An open safetensors file as a mapping, which reads a tensor when it is asked for."""

    def __init__(self, file):
        self.file, self.names = file, set(file.keys())

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.file.get_tensor(name)

    def __contains__(self, name: str) -> bool:
        return name in self.names


def _remove(checkpoint: Path) -> None:
    """Take its name away first: what is half removed must not look whole."""
    partial = checkpoint.with_suffix(".partial")
    os.rename(checkpoint, partial)
    shutil.rmtree(partial)
