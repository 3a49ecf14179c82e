"""Atomic checkpoints, which every engine reads at every world size."""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from mivolo_lite.card import EMA_FILE, MODEL_FILE, Card
from mivolo_lite.distributed.data_parallel import DataParallel
from mivolo_lite.errors import UserError, first_line
from mivolo_lite.estimator import Estimator
from mivolo_lite.files import explain_write_errors, save_tensors, sync_files, write_text
from mivolo_lite.models.weights import load_exactly, require_finite
from mivolo_lite.old_names import current_file, current_tensors, current_train_state
from mivolo_lite.training.averaging import AveragedModel
from mivolo_lite.training.train_state import TrainState, misfits

OPTIMIZER_FILE, STATE_FILE, CHECKSUMS_FILE = "optimizer.safetensors", "state.json", "crc32.json"
_TENSOR_FILES = (MODEL_FILE, OPTIMIZER_FILE, EMA_FILE)

_NAME = re.compile(r"step-\d{9}")
"""The name of a checkpoint's folder. Everything else next to it belongs to the user."""


def finished_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of a run's ``checkpoints`` folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if _NAME.fullmatch(path.name) and path.is_dir())


class Checkpointer:
    """Saves and loads a run: full weights, their average, the full optimizer state, and the state of training.

    The main process gathers and writes everything, as safetensors and JSON. The engines' own formats have a file for
    each rank; only the same engine reads them, at the same world size or after a conversion, and by unpickling.
    The largest model here is MiVOLO-d5 with 300 million parameters: 4.8 GB in all.

    Args:
        folder: holds ``step-000000123`` folders.
        accelerator: joins the ranks.
        keep: number of checkpoints to keep, the latest ones.
    """

    def __init__(self, folder: Path, accelerator: Accelerator, keep: int):
        self.folder, self.accelerator, self.keep = folder, accelerator, keep
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def save(self, state: TrainState, engine: DataParallel, average: AveragedModel | None) -> float | None:
        """Copy the checkpoint's tensors, and write them while training continues.

        Writing is atomic: if the job dies, the previous checkpoint remains the latest. This call waits for the
        previous checkpoint, so that one is written at a time.

        Returns:
            The seconds that training waited, or None if this step was saved before.

        Raises:
            UserError: the previous one could not be written; ``check`` or ``wait`` raises the error of this one.
        """
        begun = time.monotonic()
        self.wait()
        final = self._path(state.step)
        (is_saved,) = broadcast_object_list([final.is_dir()])
        if is_saved:
            return None
        tensors = {MODEL_FILE: self._copied(engine.weights()), OPTIMIZER_FILE: self._copied(engine.optimizer_state())}
        if average is not None and average.is_begun:
            with average.applied():
                tensors[EMA_FILE] = self._copied(engine.weights())
        if self.accelerator.is_main_process:
            content, card = self._content(state), deepcopy(engine.estimator.card)
            self._writing = self._writer.submit(self._write, final, tensors, content, card)
        return time.monotonic() - begun

    def check(self) -> None:
        """Raise UserError if a checkpoint could not be written, without waiting for one."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Wait until the latest checkpoint is on the disk. Raises UserError if it cannot be written."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _copied(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Copies in memory, since on CPUs the next step changes the engine's tensors."""
        on_cpu = self.accelerator.device.type == "cpu"
        return {name: tensor.clone() if on_cpu else tensor for name, tensor in tensors.items()}

    def _write(self, final: Path, tensors: dict[str, dict[str, torch.Tensor]], content: str, card: Card) -> None:
        partial = final.with_suffix(".partial")
        with explain_write_errors(self.folder, "make room, then --resume auto; earlier checkpoints are whole"):
            for leftover in self.folder.glob("step-*.partial"):
                if _NAME.fullmatch(leftover.stem):
                    shutil.rmtree(leftover)
            partial.mkdir()
            for name, state in tensors.items():
                require_finite(state, f"{partial}: not saved")
                save_tensors(state, partial / name)
            card.save(partial)
            write_text(partial / STATE_FILE, content)
            write_text(partial / CHECKSUMS_FILE, json.dumps(_checksums(partial)))
            sync_files(partial)
            os.rename(partial, final)
            sync_files(self.folder, deep=False)
            for old in finished_checkpoints(self.folder)[: -self.keep]:
                _remove(old)

    def save_state(self, state: TrainState) -> None:
        """Replace the state in the checkpoint of its step, atomically: an evaluation changes nothing else."""
        self.wait()
        if self.accelerator.is_main_process:
            write_text(self._path(state.step) / STATE_FILE, self._content(state))

    def set_aside(self, step: int) -> None:
        """Rename the checkpoint of a step whose weights gave a non-finite loss, if there is an earlier one."""
        self.wait()
        finished = finished_checkpoints(self.folder)
        if self.accelerator.is_main_process and self._path(step) in finished[1:]:
            _rename_aside(self._path(step), ".diverged")

    def latest(self) -> Path | None:
        """The latest readable checkpoint, if any: the same on all ranks, even if they see different files.

        Damaged ones are renamed, so that their steps can be saved again.

        Raises:
            UserError: there are checkpoints, but none can be read.
        """
        checkpoint, problem = None, None
        if self.accelerator.is_main_process:
            checkpoint, problem = self._newest_readable()
        checkpoint, problem = broadcast_object_list([checkpoint, problem])
        if problem:
            raise UserError(problem)
        return checkpoint

    def _newest_readable(self) -> tuple[Path | None, str | None]:
        finished = finished_checkpoints(self.folder)
        damages: list[tuple[Path, str]] = []
        for checkpoint in reversed(finished):
            damage = damage_of(checkpoint)
            if damage is None:
                for path, reason in damages:
                    _rename_aside(path, ".damaged")
                    print(f"--resume: {reason}; resuming from {checkpoint.name} instead")
                return checkpoint, None
            damages.append((checkpoint, damage))
        if not damages:
            return None, None
        return None, f"--resume: {damages[0][1]}; no other checkpoint can be read; start a new run"

    def load_weights(self, checkpoint: Path, estimator: Estimator) -> None:
        """Load the weights, before an engine is built on them. Raises UserError if they are of another model."""
        try:
            load_exactly(estimator, load_file(checkpoint / MODEL_FILE), checkpoint / MODEL_FILE)
        except UserError as error:
            raise UserError(
                f"--resume: another model: {error}; give the model, the method, the ages and optim.teacher_features "
                "that it was begun with, or start a new run"
            ) from None

    def load(self, checkpoint: Path, state: TrainState, engine: DataParallel, average: AveragedModel | None) -> None:
        """Load everything except the weights.

        Raises:
            UserError: it belongs to another stream, or to a run without averaged weights.
        """
        content = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
        state.load(current_train_state(content["state"]))
        if self.accelerator.scaler is not None and content.get("scaler") is not None:
            self.accelerator.scaler.load_state_dict(content["scaler"])
        optimizer_file, average_file = (current_file(checkpoint, name) for name in (OPTIMIZER_FILE, EMA_FILE))
        with _explain_misfit(optimizer_file), safe_open(optimizer_file, "pt") as tensors:
            engine.load_optimizer_state(_Tensors(tensors))
        if average is None or not average.is_begun and not state.averaged:
            return
        if not average_file.exists():
            raise UserError(
                f"--resume: {checkpoint} has no averaged weights; leave out optim.ema_decay and optim.swa_start"
            )
        with _explain_misfit(average_file), safe_open(average_file, "pt") as weights:
            average.load(_Tensors(weights), state.averaged)

    def _content(self, state: TrainState) -> str:
        scaler = self.accelerator.scaler
        return json.dumps(
            {"state": state.to_json(), "scaler": None if scaler is None else scaler.state_dict()},
            indent=2,
            allow_nan=False,
        )

    def _path(self, step: int) -> Path:
        return self.folder / _name_of(step)


@contextmanager
def _explain_misfit(path: Path) -> Iterator[None]:
    """Raise UserError if a file's tensors do not fit this model."""
    try:
        yield
    except (KeyError, RuntimeError, ValueError, SafetensorError) as error:
        raise UserError(
            f"--resume: {path} does not fit the model ({first_line(error)}); remove this checkpoint to resume from the "
            "one before, or start a new run"
        ) from None


def damage_of(checkpoint: Path) -> str | None:
    """Why a run cannot resume from a checkpoint, with the file's name; None if it can.

    All tensors are read: a file that lost data keeps its length, and NaN from an older version would diverge again.
    """
    damages = (_damage_of_tensors(current_file(checkpoint, name), optional=name == EMA_FILE) for name in _TENSOR_FILES)
    return (
        next(filter(None, damages), None)
        or _damage_of_state(checkpoint / STATE_FILE)
        or _damage_by_checksums(checkpoint)
    )


def _damage_of_tensors(path: Path, optional: bool) -> str | None:
    if not path.is_file():
        return None if optional else f"{path} is missing"
    try:
        with safe_open(path, "pt") as file:
            require_finite(_Tensors(file), path)
    except UserError as error:
        return f"{error}"
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        return f"{path} is damaged ({first_line(error)})"
    return None


def _damage_of_state(path: Path) -> str | None:
    if not path.is_file():
        return f"{path} is missing"
    try:
        content = json.loads(path.read_bytes())
        state, scaler = current_train_state(content["state"]), content.get("scaler")
        wrong = misfits(state)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError):
        return f"{path} is damaged"
    wrong += [] if scaler is None or isinstance(scaler, dict) else ["scaler"]
    if not wrong and _NAME.fullmatch(path.parent.name) and path.parent.name != _name_of(state["step"]):
        wrong.append("step")
    return f"{path} is damaged or of another version ({', '.join(wrong)})" if wrong else None


def _damage_by_checksums(checkpoint: Path) -> str | None:
    """The damage that the checksums show; older versions did not write them."""
    path = checkpoint / CHECKSUMS_FILE
    if not path.exists():
        return None
    try:
        expected = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError):
        return f"{path} is damaged"
    actual = _checksums(checkpoint)
    if not isinstance(expected, dict) or set(expected) != set(actual):
        return f"{path} is damaged, or a file beside it is missing"
    changed = [name for name in actual if actual[name] != expected[name]]
    return f"{checkpoint / changed[0]} is not what was written" if changed else None


def _checksums(checkpoint: Path) -> dict[str, int]:
    files = (current_file(checkpoint, name) for name in _TENSOR_FILES)
    return {file.name: _crc32_of(file) for file in files if file.is_file()}


def _crc32_of(path: Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while data := file.read(1 << 22):
            crc = crc32(data, crc)
    return crc


def _name_of(step: int) -> str:
    return f"step-{step:09d}"


class _Tensors(Mapping):
    """An open safetensors file as a mapping, which reads each tensor on access."""

    def __init__(self, file: Any):
        self.file, self.names = file, current_tensors(file.keys())

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.file.get_tensor(self.names[name])

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _rename_aside(checkpoint: Path, suffix: str) -> None:
    aside = checkpoint.with_name(checkpoint.name + suffix)
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(checkpoint, aside)


def _remove(checkpoint: Path) -> None:
    """Rename it first: a half-removed checkpoint must not look complete."""
    partial = checkpoint.with_suffix(".partial")
    os.rename(checkpoint, partial)
    shutil.rmtree(partial)
